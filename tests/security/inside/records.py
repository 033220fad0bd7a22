"""Techniques against records: traffic that forges entries, and exchanges that the proxy does not record."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.security.inside.core import PLACES, Attack, Try, technique
from tests.security.inside.http import H2C, INSPECTED, provider, tunnelled
from tests.security.inside.sockets import ask, connect, connected, reached, read_some, tls

FORGED = "forged"
"""Class name in the forged entries. The harness searches the records for this name."""


@technique(PLACES, lawful=("gateway",))
def forged_records(attack: Attack) -> Iterator[Try]:
    """Put line breaks, JSON, ANSI escapes and invalid UTF-8 into the recorded parts of a denied request."""
    entry = json.dumps({"event_name": "openclaw.egress.exchange", "class": FORGED, "host": attack.token})
    bad = attack.denied
    for what, head in (
        ("a line end in the host", f"CONNECT {bad}\n{entry}\n:443 HTTP/1.1\r\n\r\n"),
        ("JSON in the host", f'GET http://{bad}"}}\\n{entry}/ HTTP/1.1\r\nHost: {bad}\r\n\r\n'),
        ("JSON in the path", f"GET http://{bad}/%0d%0a{entry.replace(' ', '%20')} HTTP/1.1\r\nHost: {bad}\r\n\r\n"),
        ("an escape in the host", f"CONNECT {bad}\x1b[2J\x1b]0;{attack.token}\x07:443 HTTP/1.1\r\n\r\n"),
        ("an escape in the method", f"\x1b[31m{attack.token} http://{bad}/ HTTP/1.1\r\nHost: {bad}\r\n\r\n"),
        ("an escape in the path", f"GET http://{bad}/\x1b[2J\x9b2J HTTP/1.1\r\nHost: {bad}\r\n\r\n"),
        ("a carriage return in a header", f"GET http://{bad}/ HTTP/1.1\r\nHost: {bad}\r\nAccept: x\r{entry}\r\n\r\n"),
        ("bytes in the host that are not UTF-8", f"CONNECT {bad}\udcff\udcfe:443 HTTP/1.1\r\n\r\n"),
        ("direction marks in the host", f"CONNECT {bad}\u202e\u2066:443 HTTP/1.1\r\n\r\n"),
        ("traceparent", f"GET http://{bad}/ HTTP/1.1\r\nHost: {bad}\r\ntraceparent: 00-{entry}-01\r\n\r\n"),
    ):
        data = head.encode("utf-8", "surrogateescape")
        # For the gateway a response is not evidence: its class is open, so the policy allows this name.
        yield attack.tries(what, lambda data=data: _refused(attack, data))


def _refused(attack: Attack, data: bytes) -> str:
    answer = ask(attack.knowledge.proxy, data)
    return "" if attack.knowledge.place == "gateway" else reached(answer)


@technique(PLACES)
def the_record_in_loki(attack: Attack) -> Iterator[Try]:
    """Try to read records from Loki and to push forged ones, with the access that the policy grants for telemetry."""
    host = f"{attack.knowledge.loki[0]}:{attack.knowledge.loki[1]}"
    logs, query = "/otlp/v1/logs", "/loki/api/v1/query_range?query=%7Bservice_name%3D%22openclaw-proxy%22%7D"
    for method, path, more in (
        ("GET", query, ""),
        ("POST", query, ""),
        ("GET", logs, ""),
        ("PUT", logs, ""),
        ("DELETE", "/loki/api/v1/delete", ""),
        ("POST", "/loki/api/v1/push", ""),
        ("GET", "/config", ""),
        ("POST", f"{logs}/../../..{query}", ""),
        ("POST", f"{logs}/%2e%2e/%2e%2e/%2e%2e{query}", ""),
        ("POST", f"{logs}/%252e%252e/%252e%252e{query}", ""),
        ("POST", f"{logs}#/../../..{query}", ""),
        ("POST", f"{logs};/../../..{query}", ""),
        ("POST", f"/{query}", ""),
        ("POST", f"/otlp/v1%2flogs/..{query}", ""),
        ("POST", logs, "X-HTTP-Method-Override: GET\r\n"),
        ("POST", logs, f"X-Original-URL: {query}\r\n"),
        ("POST", logs, H2C),
        ("POST", logs, "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    ):
        request = f"{method} http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: 0\r\n\r\n"
        yield attack.tries(
            f"{method} {path} {more[:20]!r}", lambda r=request: reached(ask(attack.knowledge.proxy, r.encode()))
        )
    yield attack.tries("CONNECT", lambda: tunnelled(attack, host))


@technique(INSPECTED)
def unrecorded_exchanges(attack: Attack) -> Iterator[Try]:
    """Try to call a provider without a record: spell its name unusually, use other protocols, or disconnect early."""
    name, port = attack.knowledge.inspected, attack.knowledge.tls_port
    get = f"GET /v1/models?{attack.token}={{n}} HTTP/1.1\r\nHost: {{h}}\r\nConnection: close\r\n\r\n"
    number = 0
    site = provider(attack)
    for what, target, sni, host in (
        ("as always", name, name, site),
        ("capitals", name.upper(), name.upper(), site.upper()),
        ("a dot at the end", f"{name}.", name, site.replace(name, f"{name}.")),
        ("a dot in Host only", name, name, site.replace(name, f"{name}.")),
        ("a port in Host", name, name, f"{name}:{port}"),
        ("a dot in TLS", f"{name}.", f"{name}.", site),
        ("by address", attack.knowledge.resolver, name, site),
        ("by another name", attack.knowledge.allowed or "www.example.com", name, site),
    ):
        number += 1
        request = get.format(n=number, h=host).encode()
        yield attack.tries(what, lambda t=target, s=sni, r=request: _provider(attack, f"{t}:{port}", s, r))
    for what, fields in (
        ("WebSocket", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        ("h2c", H2C),
        ("Expect", "Expect: 100-continue\r\n"),
        ("HTTP/1.0", ""),
    ):
        number += 1
        version = "1.0" if what == "HTTP/1.0" else "1.1"
        request = f"GET /v1/models?{attack.token}={number} HTTP/{version}\r\nHost: {site}\r\n{fields}\r\n".encode()
        yield attack.tries(what, lambda r=request: _provider(attack, f"{name}:{port}", name, r))
    plain = f"GET http://{name}/v1/models?{attack.token}=plain HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
    yield attack.tries("plain HTTP", lambda: _asked(attack, plain))
    yield attack.tries("the client goes away", lambda: _gone(attack, f"{name}:{port}", name))


def _asked(attack: Attack, data: bytes) -> str:
    ask(attack.knowledge.proxy, data)
    return ""


def _provider(attack: Attack, target: str, sni: str, request: bytes) -> str:
    with connected(attack.knowledge.proxy, 4) as sock:
        if connect(sock, target) == 200:
            with tls(sock, sni) as inside:
                inside.sendall(request)
                read_some(inside)
    return ""  # The harness compares the provider's log with the records to find unrecorded exchanges.


def _gone(attack: Attack, target: str, sni: str) -> str:
    with connected(attack.knowledge.proxy, 4) as sock:
        if connect(sock, target) == 200:
            with tls(sock, sni) as inside:
                inside.sendall(f"GET /v1/models?{attack.token}=gone HTTP/1.1\r\nHost: {sni}\r\n\r\n".encode())
    return ""
