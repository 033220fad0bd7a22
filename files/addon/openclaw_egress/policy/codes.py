"""Codes of decisions, the evidence for a decision, and the sentences that explain a decision to people.

A code identifies a kind of decision. Programs compare codes and read the evidence. Only people read the sentences, so
their wording may change; only this module builds them. The codes are an interface, so never rename one: every record
has a code (``openclaw.egress.code``), operators filter and alert on codes, and ``docs/codes.md`` lists them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from openclaw_egress.policy.destination import Address, Destination, Network


class Code(StrEnum):
    """The kind of a decision, as a code for programs."""

    ALLOWED_BY_RULE = "allowed_by_rule"
    ALLOWED_BY_ACTION = "allowed_by_action"
    ADDRESS_PUBLIC = "address_public"
    ADDRESS_EXCEPTION = "address_exception"

    UNKNOWN_CLASS = "unknown_class"
    DENIED_BY_RULE = "denied_by_rule"
    ADDRESS_DENIED_BY_RULE = "address_denied_by_rule"
    NO_RULE = "no_rule"
    RULE_NOT_MET = "rule_not_met"
    LITERAL_WITHOUT_RULE = "literal_without_rule"

    ADDRESS_GUARDED = "address_guarded"
    EXCEPTION_NOT_MET = "exception_not_met"
    HOST_ADDRESS = "host_address"
    OWN_ADDRESS = "own_address"

    NAME_NOT_RESOLVED = "name_not_resolved"
    UPSTREAM_PROXY_NAMED = "upstream_proxy_named"
    UPSTREAM_PROXY_UNREACHABLE = "upstream_proxy_unreachable"
    UPSTREAM_PROXY_TLS = "upstream_proxy_tls"
    UPSTREAM_PROXY_LOGIN = "upstream_proxy_login"
    UPSTREAM_PROXY_REFUSED = "upstream_proxy_refused"
    UPSTREAM_PROXY_PROTOCOL = "upstream_proxy_protocol"
    UNKNOWN_NEIGHBOUR = "unknown_neighbour"
    OTHER_NETWORK = "other_network"
    CONNECTION_LIMIT = "connection_limit"
    RATE_LIMIT = "rate_limit"
    BUDGET_EXCEEDED = "budget_exceeded"
    MEMORY_LIMIT = "memory_limit"
    HEAD_TOO_LARGE = "head_too_large"
    TOO_MANY_HEADERS = "too_many_headers"
    HEAD_TIMEOUT = "head_timeout"
    BODY_TIMEOUT = "body_timeout"
    TUNNEL_TIMEOUT = "tunnel_timeout"
    CONNECTION_TIMEOUT = "connection_timeout"

    INVALID_DESTINATION = "invalid_destination"
    NOT_HTTP = "not_http"
    MALFORMED_REQUEST = "malformed_request"
    INCOMPLETE_HEAD = "incomplete_head"
    NO_DESTINATION = "no_destination"
    NESTED_CONNECT = "nested_connect"
    SCHEME_NOT_HTTP = "scheme_not_http"
    SENT_AHEAD = "sent_ahead"
    HTTPS_WITHOUT_CONNECT = "https_without_connect"
    OTHER_HOST_IN_TUNNEL = "other_host_in_tunnel"
    HOST_HEADER_REPEATED = "host_header_repeated"
    HOST_HEADER_MISSING = "host_header_missing"
    HOST_HEADER_INVALID = "host_header_invalid"
    HOST_HEADER_MISMATCH = "host_header_mismatch"
    OVERRIDE_HEADER = "override_header"
    TLS_ON_LISTENER = "tls_on_listener"
    NOT_TLS = "not_tls"
    CLIENT_HELLO_UNREADABLE = "client_hello_unreadable"
    TLS_UNUSABLE = "tls_unusable"
    SNI_MISMATCH = "sni_mismatch"

    WEBSOCKET_NOT_RECORDED = "websocket_not_recorded"
    MALFORMED_RESPONSE = "malformed_response"
    DECISION_FAILED = "decision_failed"
    LISTENER_WITHOUT_CLASS = "listener_without_class"
    NO_GRANT = "no_grant"
    ADDRESS_NOT_CANONICAL = "address_not_canonical"
    ADDRESS_NOT_CHECKED = "address_not_checked"

    VARIOUS = "various"
    """Code of a summary record for a whole class, which counts denials with different codes."""


class Unparsed(NamedTuple):
    """A destination that is unknown, or that is invalid and therefore recorded as the client wrote it."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


ANY = "*"
"""Value of the host in denials that concern a whole class, for example at its connection limit."""
UNKNOWN = "?"
"""Value of the host in denials whose destination could not be read."""
ANYWHERE, UNREADABLE = Unparsed(ANY), Unparsed(UNKNOWN)

type Target = Destination | Unparsed


class Evidence(NamedTuple):
    """The values that led to a decision. Fields that the decision's code does not use are empty."""

    class_name: str = ""
    destination: Target | None = None
    other: Target | None = None
    """A second destination, which differs from ``destination``: that of the tunnel, or that of the Host header."""
    address: Address | None = None
    network: Network | None = None
    range: str = ""
    """The reason why the address guard refuses the address, such as ``private (10.0.0.0/8, RFC 1918)``."""
    rule: str = ""
    """The rule or exception that matches the host or address, but not the whole request. ``allows`` describes it."""
    allows: str = ""
    limit: str = ""
    """Name of the limit in ``classes.NAME.limits`` that was reached. ``most`` is its value, if it is a whole number."""
    most: int = 0
    used: int = 0
    """Bytes of memory in use. ``room`` is the current maximum, and ``needs`` the number of bytes requested."""
    room: int = 0
    needs: int = 0
    detail: str = ""
    """Additional text for people, such as a parser's message or a header's name."""

    @property
    def subject(self) -> str:
        """Return the destination as the subject of a sentence, with the address if a name was resolved."""
        host = getattr(self.destination, "host", "")
        if self.address is None or getattr(self.destination, "address", None) is not None:
            return host
        return f"{host} is {self.address}, which"

    @property
    def mebibytes(self) -> tuple[str, str, str]:
        """Return three sizes as text, in MiB: the memory in use, the current maximum, and the memory requested."""
        used, room, needs = (f"{size / 2**20:.1f} MiB" for size in (self.used, self.room, self.needs))
        return used, room, needs


NOTHING = Evidence()

_MALFORMED = "malformed request: "
_SENTENCES = {
    Code.ALLOWED_BY_RULE: "{0.class_name} may reach {0.destination}",
    Code.ALLOWED_BY_ACTION: "{0.class_name} may reach every name",
    Code.ADDRESS_PUBLIC: "{0.address} is public",
    Code.ADDRESS_EXCEPTION: "an exception to the address guard lets {0.class_name} reach {0.address}",
    Code.UNKNOWN_CLASS: "there is no class {0.class_name!r}",
    Code.DENIED_BY_RULE: "{0.class_name} may not reach {0.destination}",
    Code.ADDRESS_DENIED_BY_RULE: "{0.subject} is in {0.network}, which {0.class_name} may not reach",
    Code.NO_RULE: "no rule lets {0.class_name} reach {0.destination}",
    Code.RULE_NOT_MET: "{0.class_name} may not reach {0.destination}: {0.rule} matches the host but not this port, "
    "method or path (it allows {0.allows})",
    Code.LITERAL_WITHOUT_RULE: "{0.destination} is an address literal, for which {0.class_name} has no rule",
    Code.ADDRESS_GUARDED: "{0.subject} is {0.range}",
    Code.EXCEPTION_NOT_MET: "{0.subject} is {0.range}, and has an exception for plain HTTP requests only: {0.rule} "
    "allows {0.allows}",
    Code.HOST_ADDRESS: "{0.subject} is an address of this proxy's host",
    Code.OWN_ADDRESS: "{0.address} is this machine's own address",
    Code.NAME_NOT_RESOLVED: "{0.detail}",
    Code.UPSTREAM_PROXY_NAMED: "{0.destination} is the upstream proxy, which {0.class_name} may not use directly",
    Code.UPSTREAM_PROXY_UNREACHABLE: "the upstream proxy {0.rule} is not reachable: {0.detail}",
    Code.UPSTREAM_PROXY_TLS: "TLS to the upstream proxy {0.rule} failed: {0.detail}",
    Code.UPSTREAM_PROXY_LOGIN: "the upstream proxy {0.rule} does not accept this proxy: {0.detail}",
    Code.UPSTREAM_PROXY_REFUSED: "the upstream proxy {0.rule} refused CONNECT {0.allows}: {0.detail}",
    Code.UPSTREAM_PROXY_PROTOCOL: "the upstream proxy {0.rule} sent no valid response: {0.detail}",
    Code.UNKNOWN_NEIGHBOUR: "{0.address} is not a known client: on {0.network} only {0.allows} may connect "
    "(EGRESS_NEIGHBOURS)",
    Code.OTHER_NETWORK: "{0.address} may not use the listener of class {0.class_name}: {0.network} is "
    "reserved for certain classes (EGRESS_CLASS_NETWORKS)",
    Code.CONNECTION_LIMIT: "connection limit reached: class {0.class_name} allows {0.most} concurrent connections "
    "(limits.connections)",
    Code.RATE_LIMIT: "rate limit reached: class {0.class_name} allows {0.most} requests per minute "
    "(limits.requests_per_minute)",
    Code.BUDGET_EXCEEDED: "budget used up: class {0.class_name} has used {0.detail} (limits.{0.limit}); requests to "
    "inspected hosts are accepted again at {0.allows}",
    Code.MEMORY_LIMIT: "memory budget reached: class {0.class_name} holds {0.mebibytes[0]} and may hold "
    "{0.mebibytes[1]} now; this exchange needs {0.mebibytes[2]} (EGRESS_MEMORY_BUDGET is {0.most} bytes)",
    Code.HEAD_TOO_LARGE: "the request's head has more than {0.most} bytes",
    Code.TOO_MANY_HEADERS: "the request has more than {0.most} header fields",
    Code.HEAD_TIMEOUT: "the request's head was not complete in time",
    Code.BODY_TIMEOUT: "no byte of the request's body arrived for too long",
    Code.TUNNEL_TIMEOUT: "the tunnel was idle for too long",
    Code.CONNECTION_TIMEOUT: "the connection lasted longer than {0.most} s",
    Code.INVALID_DESTINATION: "{0.detail}",
    Code.NOT_HTTP: "the bytes are not an HTTP request",
    Code.MALFORMED_REQUEST: _MALFORMED + "{0.detail}",
    Code.INCOMPLETE_HEAD: "the connection ended inside the request's head",
    Code.NO_DESTINATION: _MALFORMED + "neither the target nor a Host header contains a destination",
    Code.NESTED_CONNECT: _MALFORMED + "CONNECT inside a tunnel",
    Code.SCHEME_NOT_HTTP: "the scheme of the target is not http",
    Code.SENT_AHEAD: "the client sent more than {0.most} bytes before the previous response ended",
    Code.HTTPS_WITHOUT_CONNECT: "an https URL needs CONNECT, not a request in absolute form",
    Code.OTHER_HOST_IN_TUNNEL: "inside a tunnel to {0.other}, a request is for another host",
    Code.HOST_HEADER_REPEATED: "more than one Host header",
    Code.HOST_HEADER_MISSING: "no Host header",
    Code.HOST_HEADER_INVALID: "the Host header is not a host name",
    Code.HOST_HEADER_MISMATCH: "the Host header is {0.other}, not {0.destination}",
    Code.OVERRIDE_HEADER: "the request has a field {0.detail}: {0.rule} limits methods and paths, and the field could "
    "change them at the origin",
    Code.TLS_ON_LISTENER: "TLS on the listener, which accepts plain HTTP only: use an http:// proxy URL",
    Code.NOT_TLS: "the bytes after CONNECT are neither TLS nor HTTP",
    Code.CLIENT_HELLO_UNREADABLE: "the TLS ClientHello cannot be parsed",
    Code.TLS_UNUSABLE: "the TLS handshake failed: the client offers no usable version or cipher, or sent malformed "
    "bytes",
    Code.SNI_MISMATCH: "the server name in TLS is not the host in CONNECT",
    Code.WEBSOCKET_NOT_RECORDED: "a request to upgrade to WebSocket that is not the handshake of RFC 6455 (GET "
    "without a body, HTTP/1.1, version 13): its messages could not be recorded",
    Code.MALFORMED_RESPONSE: "protocol error in the server's response: {0.detail}",
    Code.DECISION_FAILED: "internal error: refused, because a decision could not be made",
    Code.LISTENER_WITHOUT_CLASS: "no class owns this listener",
    Code.NO_GRANT: "no grant for this connection",
    Code.ADDRESS_NOT_CANONICAL: "address not in canonical form",
    Code.ADDRESS_NOT_CHECKED: "a connection to an address that was not checked",
    Code.VARIOUS: "{0.detail}",
}
_SUMMARY = "{0} more like this within a minute"
_RULES = {
    Code.UNKNOWN_CLASS: "unknown-class",
    Code.LISTENER_WITHOUT_CLASS: "unknown-class",
    Code.NAME_NOT_RESOLVED: "dns",
    **dict.fromkeys(
        (
            Code.UPSTREAM_PROXY_NAMED,
            Code.UPSTREAM_PROXY_UNREACHABLE,
            Code.UPSTREAM_PROXY_TLS,
            Code.UPSTREAM_PROXY_LOGIN,
            Code.UPSTREAM_PROXY_REFUSED,
            Code.UPSTREAM_PROXY_PROTOCOL,
        ),
        "upstream-proxy",
    ),
    Code.UNKNOWN_NEIGHBOUR: "neighbours",
    Code.OTHER_NETWORK: "class-networks",
    Code.MEMORY_LIMIT: "memory-budget",
    Code.WEBSOCKET_NOT_RECORDED: "recording",
    Code.MALFORMED_RESPONSE: "response-syntax",
    **dict.fromkeys((Code.NO_RULE, Code.RULE_NOT_MET, Code.LITERAL_WITHOUT_RULE), "default"),
    **dict.fromkeys(
        (Code.ADDRESS_GUARDED, Code.EXCEPTION_NOT_MET, Code.HOST_ADDRESS, Code.OWN_ADDRESS), "address-guard"
    ),
    **dict.fromkeys(
        (Code.DECISION_FAILED, Code.NO_GRANT, Code.ADDRESS_NOT_CANONICAL, Code.ADDRESS_NOT_CHECKED), "internal-error"
    ),
}


def reason(code: Code, evidence: Evidence) -> str:
    """Return the reason for a decision as one clause for people to read."""
    return _SENTENCES[code].format(evidence)


def summary(count: int, first: str = "") -> str:
    """Return the reason for a summary record, which replaces the records of ``count`` denials.

    ``first`` is the reason that all these denials have in common, or an empty string.
    """
    more = _SUMMARY.format(count)
    return f"{first}: {more}" if first else more


def rule_of(code: Code, evidence: Evidence = NOTHING) -> str:
    """Return the name, such as ``address-guard``, to report as the rule for a denial that no policy rule made."""
    if evidence.limit:
        return f"classes.{evidence.class_name}.limits.{evidence.limit}"
    return _RULES.get(code, "syntax")
