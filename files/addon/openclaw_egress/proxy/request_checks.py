"""Checks of one request, and of the address to connect to. They do not use the state of the client's connection."""

from __future__ import annotations

import ipaddress

from mitmproxy import http
from mitmproxy.net.http import url as http_url

from openclaw_egress.policy.codes import Code, Evidence
from openclaw_egress.policy.destination import Destination, DestinationError, parse_destination
from openclaw_egress.policy.evaluate import decide_address
from openclaw_egress.policy.model import Decision, Policy
from openclaw_egress.proxy.resolver import is_own_address
from openclaw_egress.wire.http1_syntax import content_length

OVERRIDES = frozenset(
    {
        "x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url",
        "x-original-uri", "x-original-method", "x-forwarded-method", "x-forwarded-uri",
        "x-forwarded-path", "x-forwarded-prefix", "x-envoy-original-path", "x-original-path", "x-http-path-override",
        "x-override-url", "x-method", "path-info", "script-name", "x-script-name",
    }
)  # fmt: skip
"""Header fields that make some web frameworks use a method or path other than that in the request line."""


def limit_bypass(request: http.Request) -> str | None:
    """Return the name of a header field that could bypass a rule's limits on methods and paths, or None.

    Such a field overrides the method or path, or upgrades to another protocol.
    """
    for name in request.headers:
        plain = name.strip().lower().replace("_", "-")
        if plain in OVERRIDES or (plain in ("upgrade", "http2-settings") and request.scheme != "https"):
            return plain
    return None


def sent_method(request: http.Request) -> str:
    """Return the method as the client sent it. Do not use mitmproxy's property, which converts it to upper case."""
    return request.data.method.decode("ascii", "backslashreplace")


def recorded_method(request: http.Request) -> str:
    """Return the method for a record, truncated to 32 characters, because a client may send a method of 16 KB."""
    return sent_method(request)[:32]


def client_address(flow: http.HTTPFlow) -> str:
    """Return the client's IP address."""
    return str(flow.client_conn.peername[0])


def is_websocket_handshake(request: http.Request) -> bool:
    """Return whether a WebSocket request is a valid handshake (RFC 6455, section 4.1) without a body."""
    headers = request.headers
    return (
        sent_method(request) == "GET"
        and request.http_version == "HTTP/1.1"
        and headers.get("upgrade", "").strip().lower() == "websocket"
        and headers.get("sec-websocket-version", "").strip() == "13"
        and "transfer-encoding" not in headers
        and not content_length(headers.fields)
    )


def sni_agrees(sni: str | None, target: Destination) -> bool:
    """Return whether the SNI is the destination's host.

    For an IP address, the client must not send an SNI (RFC 6066).
    """
    if target.address is not None:
        return not sni
    if not sni:
        return False
    try:
        return parse_destination(sni, target.port).host == target.host
    except DestinationError:
        return False


def sent_host(request: http.Request) -> str:
    """Return the host as the client sent it.

    Do not use mitmproxy's property: it decodes A-labels by IDNA 2003, and the result may be invalid under IDNA 2008
    (for example, a label with a symbol). It also removes brackets around any text, not only around IPv6 addresses.
    """
    host = request.host
    if request.data.authority.startswith(b"[") and ":" not in host:
        return f"[{host}]"
    return host if host.isascii() else host.encode("idna").decode("ascii")


def authority_disagreement(request: http.Request, destination: Destination) -> Decision | None:
    """Return a denial if the request's authority or Host header differs from its destination; otherwise None."""
    named = [value for name, value in request.headers.fields if name.lower() == b"host"]
    if len(named) > 1:
        return Decision.denial(Code.HOST_HEADER_REPEATED)
    if not named and request.http_version != "HTTP/1.0":
        return Decision.denial(Code.HOST_HEADER_MISSING)
    authorities = [value.decode("latin-1") for value in named]
    if request.data.authority:
        authorities.append(request.data.authority.decode("latin-1"))
    for authority in authorities:
        try:
            host, port = http_url.parse_authority(authority, check=True)
            if authority.startswith("[") and ":" not in host:
                raise ValueError("only an IPv6 address may be in brackets")
            if port is None:
                port = 443 if request.scheme == "https" else 80
            other = parse_destination(host, port)
        except (ValueError, DestinationError):
            return Decision.denial(Code.HOST_HEADER_INVALID)
        if (other.host, other.port) != (destination.host, destination.port):
            return Decision.denial(Code.HOST_HEADER_MISMATCH, Evidence(destination=destination, other=other))
    return None


def check_address(
    policy: Policy,
    class_name: str,
    destination: Destination,
    address: str,
    method: str | None = None,
    path: str | None = None,
) -> Decision:
    """Apply the address guard to one address. Deny an address of the proxy itself, unless an exception permits it."""
    ip = ipaddress.ip_address(address)
    verdict = decide_address(policy, class_name, destination, ip, method, path)
    found = policy.classes.get(class_name)
    excepted = found is not None and found.addresses.permitting(ip, destination.port, method, path) is not None
    if verdict.allow and not excepted and is_own_address(address):
        return Decision.denial(Code.OWN_ADDRESS, Evidence(class_name, destination, address=ip))
    return verdict
