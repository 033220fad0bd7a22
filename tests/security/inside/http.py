"""HTTP techniques that use the proxy: unusual host names, ambiguous requests, tunnels inside tunnels."""

from __future__ import annotations

from collections.abc import Iterator

from tests.security.inside.core import ENFORCED, PLACES, Attack, Try, technique
from tests.security.inside.sockets import (
    ask,
    came,
    connect,
    connected,
    reached,
    read_answer,
    read_some,
    status_of,
    tls,
)

ALLOWED = ("sandbox", "browser", "build")
"""Test locations whose class may reach at least one name. Techniques use that name to hide a denied request."""

H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"

QUIET = 1.0
"""Timeout in seconds for reading a response. After it, the response counts as complete, even on an open connection."""

INSPECTED = ("browser", "gateway")
"""Test locations whose class may reach an inspected host."""


def requested(attack: Attack, request: str | bytes) -> str:
    """Send one request to the listener. Return evidence of a bypass from the response, or an empty text."""
    data = request.encode("utf-8", "surrogateescape") if isinstance(request, str) else request
    return reached(ask(attack.knowledge.proxy, data))


def tunnelled(attack: Attack, target: str, *more: str) -> str:
    """Send a CONNECT request. Return evidence of a bypass if the proxy opened the tunnel."""
    with connected(attack.knowledge.proxy) as sock:
        return "the tunnel was opened" if connect(sock, target, *more) == 200 else ""


def _site(name: str, port: int, usual: int = 80) -> str:
    return name if port == usual else f"{name}:{port}"


def provider(attack: Attack) -> str:
    """Return ``HOST:PORT`` of the inspected host, with its TLS port. Omit the port if it is 443."""
    return _site(attack.knowledge.inspected, attack.knowledge.tls_port, 443)


def _allowed(attack: Attack) -> str:
    """Return ``HOST:PORT`` of the allowed site, with its plain HTTP port. Omit the port if it is 80."""
    return _site(attack.knowledge.allowed, attack.knowledge.http_port)


def _denied(attack: Attack) -> str:
    return _site(attack.denied, attack.knowledge.http_port)


@technique(ENFORCED)
def plainly(attack: Attack) -> Iterator[Try]:
    """Request a denied name with CONNECT and with every HTTP method."""
    yield attack.tries("CONNECT", lambda: tunnelled(attack, f"{attack.denied}:{attack.knowledge.tls_port}"))
    site = _denied(attack)
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "PATCH", "PROPFIND", "get", "PRI"):
        request = f"{method} http://{site}/ HTTP/1.1\r\nHost: {site}\r\nContent-Length: 0\r\n\r\n"
        yield attack.tries(method, lambda request=request: requested(attack, request))
    for method in ("connect", "Connect", "CONNECT ", "\tCONNECT"):
        request = f"{method} {attack.denied}:443 HTTP/1.1\r\nHost: {attack.denied}:443\r\n\r\n"
        yield attack.tries(repr(method), lambda request=request: requested(attack, request))


@technique(ALLOWED)
def names_of_two_minds(attack: Attack) -> Iterator[Try]:
    """Request targets that one parser reads as the allowed name and another as the denied one."""
    good, bad, port = attack.knowledge.allowed, attack.denied, attack.knowledge.tls_port
    targets = (
        f"{good}@{bad}", f"{bad}#{good}", f"{bad}#@{good}", f"{bad}?{good}", f"{bad}/{good}", f"{bad}\\@{good}",
        f"{good}:{port}@{bad}", f"{good}%00.{bad}", f"{good}\0.{bad}", f"{bad}%23.{good}", f"{bad}%2f.{good}",
        f"{good} {bad}", f"{good}\t{bad}", f"{good},{bad}", f"{good};{bad}", f"{good}\x0b.{bad}", f"{good}.{bad}",
        f"{good}\udcff.{bad}", f"[{bad}]", f"{bad}\u3002", f"{good}\u2100.{bad}", f"{bad}%20{good}",
    )  # fmt: skip
    for target in targets:
        yield attack.tries(f"CONNECT {target!r}", lambda target=target: tunnelled(attack, f"{target}:{port}"))
        request = f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n"
        yield attack.tries(f"GET {target!r}", lambda request=request: requested(attack, request))


@technique(ENFORCED)
def spellings_of_the_denied_name(attack: Attack) -> Iterator[Try]:
    """Request the denied name in other spellings: capitals, dots, IDNA, full-width letters, percent-encoding."""
    name, port = attack.denied, attack.knowledge.tls_port
    wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in name)
    for spelled in (
        name.upper(), name.title(), f"{name}.", f"{name}..", f".{name}", wide, name.replace(".", "\u3002"),
        name.replace(".", "\uff0e"), name.replace(".", "%2e"), name.replace("e", "%65", 1), f"\u00ad{name}",
        name.replace("a", "\u0430", 1), f"xn--{name}", name.replace("e", "\u24d4", 1),
        f"{name}:443:{port}", f"//{name}",
    ):  # fmt: skip
        yield attack.tries(f"CONNECT {spelled!r}", lambda spelled=spelled: tunnelled(attack, f"{spelled}:{port}"))
        request = f"GET http://{_site(spelled, attack.knowledge.http_port)}/ HTTP/1.1\r\nHost: {spelled}\r\n\r\n"
        yield attack.tries(f"GET {spelled!r}", lambda request=request: requested(attack, request))


@technique(ALLOWED)
def host_header_elsewhere(attack: Attack) -> Iterator[Try]:
    """Send requests whose target and Host header differ: one names the allowed site, the other names the denied one."""
    good, bad = _allowed(attack), _denied(attack)
    line = f"GET http://{good}/{attack.token} HTTP/1.1\r\n"
    for fields in (
        f"Host: {bad}\r\n", f"Host: {good}\r\nHost: {bad}\r\n", f"Host: {bad}\r\nHost: {good}\r\n",
        f"Host: {good}\r\n {bad}\r\n", f"Host : {bad}\r\nHost: {good}\r\n", f"Host: {good}\r\nhOST:\t{bad}\r\n",
        f"X: y\r\n Host: {bad}\r\nHost: {good}\r\n", f"Host: {good},{bad}\r\n", f"Host: {good} {bad}\r\n",
        f"Host: {good}\r\nHost\0: {bad}\r\n", f"Host:{good}\nHost: {bad}\r\n", f"Host: {good}\rHost: {bad}\r\n",
        f"Host: {good}@{bad}\r\n", f" Host: {bad}\r\nHost: {good}\r\n", f"Host: {good}:80@{bad}:80\r\n",
    ):  # fmt: skip
        # Ignore the response: a response for the allowed name is not a bypass. The site's log shows the requested name.
        yield attack.tries(repr(fields), lambda fields=fields: _sent(attack, line + fields + "\r\n"))
    request = f"GET http://{bad}/ HTTP/1.1\r\nHost: {good}\r\n\r\n"
    yield attack.tries("a denied target, an allowed Host", lambda: requested(attack, request))


def _sent(attack: Attack, request: str | bytes) -> str:
    data = request.encode() if isinstance(request, str) else request
    with connected(attack.knowledge.proxy, QUIET) as sock:
        sock.sendall(data)
        read_some(sock)
    return ""


@technique(ALLOWED)
def one_connection_two_requests(attack: Attack) -> Iterator[Try]:
    """Send an allowed and then a denied request on one connection, with and without waiting for the first response."""
    good, bad = _allowed(attack), _denied(attack)
    first = f"GET http://{good}/ HTTP/1.1\r\nHost: {good}\r\n\r\n".encode()
    for second in (
        f"GET http://{bad}/ HTTP/1.1\r\nHost: {bad}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n",
        f"GET http://{good}/ HTTP/1.1\r\nHost: {bad}\r\n\r\n",
    ):
        yield attack.tries(f"pipelined {second[:20]!r}", lambda second=second: _sent(attack, first + second.encode()))
        yield attack.tries(f"then {second[:20]!r}", lambda second=second: _then(attack, first, second.encode()))


def _then(attack: Attack, first: bytes, second: bytes) -> str:
    with connected(attack.knowledge.proxy) as sock:
        sock.sendall(first)
        came(read_answer(sock))
        sock.sendall(second)
        return reached(read_answer(sock))


@technique(ALLOWED)
def redirects(attack: Attack) -> Iterator[Try]:
    """Follow a redirect from an allowed site to a denied one. The proxy must evaluate the policy again."""
    good, bad = _allowed(attack), _denied(attack)
    for to in (f"http://{bad}/", f"https://{bad}/", f"//{bad}/", f"http://169.254.169.254/{attack.token}"):
        first = f"GET http://{good}/redirect?to={to} HTTP/1.1\r\nHost: {good}\r\n\r\n".encode()
        there = to.removeprefix("http:").removeprefix("https:").strip("/").split("/")[0]
        second = f"GET http://{there}/ HTTP/1.1\r\nHost: {there}\r\nReferer: http://{good}/\r\n\r\n".encode()
        yield attack.tries(to, lambda first=first, second=second: _then(attack, first, second))


# ── requests that two parsers read differently ───────────────────────────────────────────────────────────────────


def smuggled(authority: str, hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of requests to ``authority``. Each contains ``hidden``, which only some parsers find."""
    begin = f"POST {{target}} HTTP/1.1\r\nHost: {authority}\r\n".encode()
    length = len(hidden)
    chunk = b"%x\r\n" % length + hidden + b"\r\n0\r\n\r\n"
    for name, fields, body in (
        ("CL.TE", b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % (5 + length), b"0\r\n\r\n" + hidden),
        ("TE.CL", b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunk),
        ("TE.TE, second unknown", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", b"0\r\n\r\n" + hidden),
        ("TE.TE, first unknown", b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + hidden),
        ("TE with a vertical tab", b"Content-Length: 0\r\nTransfer-Encoding:\x0bchunked\r\n", hidden),
        ("TE in capitals and spaces", b"Content-Length: 0\r\nTransfer-Encoding:  CHUNKED \r\n", hidden),
        ("TE with a space before the colon", b"Content-Length: 0\r\nTransfer-Encoding : chunked\r\n", hidden),
        ("TE folded", b"Content-Length: 0\r\nTransfer-Encoding:\r\n chunked\r\n", hidden),
        ("TE: identity", b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n", hidden),
        ("TE: chunked, chunked", b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n" + hidden),
        ("TE: gzip, chunked", b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n" + hidden),
        ("two lengths", b"Content-Length: 0\r\nContent-Length: %d\r\n" % length, hidden),
        ("two lengths in one", b"Content-Length: 0, %d\r\n" % length, hidden),
        ("a length with a sign", b"Content-Length: +%d\r\n" % length, hidden),
        ("a length in hexadecimal", b"Content-Length: 0x%x\r\n" % length, hidden),
        ("a length with an underscore", b"Content-Length: 1_0\r\n", hidden),
        ("a negative length", b"Content-Length: -1\r\n", hidden),
        ("a length with a space before the colon", b"Content-Length : %d\r\n" % length, hidden),
        ("a length behind NUL", b"X: \0\r\nContent-Length: 0\r\n", hidden),
        ("a folded length", b"X: y\r\n Content-Length: %d\r\nContent-Length: 0\r\n" % length, hidden),
        ("bare LF in a field", b"X: y\nContent-Length: 0\r\n", hidden),
        ("bare CR in a field", b"X: y\rContent-Length: %d\r\nContent-Length: 0\r\n" % length, hidden),
        ("no length at all", b"", hidden),
        ("a chunk with an extension", b"Transfer-Encoding: chunked\r\n", b"0;x=\r\n\r\n" + hidden),
        ("a chunk's size with a sign", b"Transfer-Encoding: chunked\r\n", b"+0\r\n\r\n" + hidden),
        ("a chunk's size in 0x", b"Transfer-Encoding: chunked\r\n", b"0x0\r\n\r\n" + hidden),
        ("a chunk ended by LF", b"Transfer-Encoding: chunked\r\n", b"0\n\n" + hidden),
        ("an extension with LF", b"Transfer-Encoding: chunked\r\n", b"0;\nx\r\n\r\n" + hidden),
        ("trailers", b"Transfer-Encoding: chunked\r\n", b"0\r\nHost: x\r\nContent-Length: 5\r\n\r\n" + hidden),
        ("a chunk's size that overflows", b"Transfer-Encoding: chunked\r\n", b"10000000000000000\r\n\r\n" + hidden),
        ("Connection: Content-Length", b"Connection: Content-Length\r\nContent-Length: %d\r\n" % length, hidden),
        ("Connection: Host", b"Connection: Host\r\nContent-Length: 0\r\n", hidden),
        ("Expect", b"Expect: 100-continue\r\nContent-Length: %d\r\n" % length, hidden),
    ):  # fmt: skip
        yield name, begin + fields + b"\r\n" + body
    get = f"GET {{target}} HTTP/1.1\r\nHost: {authority}\r\n".encode()
    yield "a length on GET", get + b"Content-Length: %d\r\n\r\n" % length + hidden
    yield "chunked in HTTP/1.0", get.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + hidden
    yield "a head that ends with LF LF", get.replace(b"\r\n", b"\n") + b"\n" + hidden
    yield "no version", b"GET {target}\r\n\r\n" + hidden


@technique(ALLOWED)
def request_smuggling(attack: Attack) -> Iterator[Try]:
    """Hide a denied request inside an allowed one over plain HTTP, in each way that `smuggled` yields."""
    good = _allowed(attack)
    hidden = f"GET /{attack.token} HTTP/1.1\r\nHost: {attack.denied}\r\n\r\n".encode()
    for name, data in smuggled(good, hidden):
        request = data.replace(b"{target}", f"http://{good}/{attack.token}".encode())
        yield attack.tries(name, lambda request=request: _sent(attack, request))


@technique(ALLOWED)
def heads_of_two_minds(attack: Attack) -> Iterator[Try]:
    """Send allowed requests with heads that parsers interpret differently, such as control characters or bare LF."""
    good, token = _allowed(attack), attack.token.encode()
    line, host = f"GET http://{good}/{attack.token} HTTP/1.1\r\n".encode(), f"Host: {good}\r\n".encode()
    secret = b"Authorization: Bearer " + token
    for name, data in (
        ("CR hides a field", line + host + b"X: a\r" + secret + b"\r\n\r\n"),
        ("NUL in a value", line + host + b"X: a\0" + secret + b"\r\n\r\n"),
        ("a control character in a value", line + host + b"X: a\x0b" + secret + b"\r\n\r\n"),
        ("a folded field", line + host + b"X: a\r\n " + secret + b"\r\n\r\n"),
        ("a line without a colon", line + host + token + b"\r\n\r\n"),
        ("a field name that is not a token", line + host + b"X(: a\r\n\r\n"),
        ("CR in the method", line.replace(b"GET", b"GE\rT") + host + b"\r\n"),
        ("NUL in the method", line.replace(b"GET", b"GE\0T") + host + b"\r\n"),
        ("HEAD in lower case", line.replace(b"GET", b"head") + host + b"\r\n"),
        ("bytes above ASCII in the target", line.replace(token, token + b"\xc3\xa0") + host + b"\r\n"),
        ("a fragment in the target", line.replace(token, token + b"#/../x") + host + b"\r\n"),
        ("HTTP/0.9", line.replace(b"1.1", b"0.9") + host + b"\r\n"),
        ("HTTP/1.2", line.replace(b"1.1", b"1.2") + host + b"\r\n"),
        ("two blanks in the request line", line.replace(b"GET ", b"GET  ") + host + b"\r\n"),
        ("lines ended by LF", (line + host + b"\r\n").replace(b"\r\n", b"\n")),
        ("three empty lines first", b"\r\n" * 3 + line + host + b"\r\n"),
    ):
        yield attack.tries(name, lambda data=data: requested(attack, data))


@technique(ENFORCED)
def not_http_at_all(attack: Attack) -> Iterator[Try]:
    """Send protocols other than HTTP, and targets with user information or another scheme.

    Only the proxy may respond.
    """
    for name, data in (
        ("SOCKS 5", b"\x05\x01\x00"), ("SOCKS 4", b"\x04\x01\x01\xbb\xc6\x33\x64\x42\0"), ("zeros", b"\0" * 64),
        ("PROXY protocol", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 443\r\n" + b"GET / HTTP/1.1\r\n\r\n"),
        ("a user before the address", b"CONNECT a.example@169.254.169.254:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("ftp", f"GET ftp://{attack.denied}/{attack.token} HTTP/1.1\r\nHost: {attack.denied}\r\n\r\n".encode()),
    ):  # fmt: skip
        yield attack.tries(name, lambda data=data: requested(attack, data))


@technique(INSPECTED)
def request_smuggling_when_decrypted(attack: Attack) -> Iterator[Try]:
    """Hide a request to a denied host inside another request, in the decrypted tunnel to a provider."""
    hidden = f"GET /v1/{attack.token} HTTP/1.1\r\nHost: {attack.denied}\r\n\r\n".encode()
    for name, data in smuggled(provider(attack), hidden):
        request = data.replace(b"{target}", f"/v1/models?{attack.token}".encode())
        yield attack.tries(name, lambda request=request: _inside(attack, request, patience=QUIET))


def _inside(attack: Attack, request: bytes, patience: float = 6) -> str:
    """Send bytes in the decrypted tunnel. Always return an empty text, because only the site's log shows a bypass."""
    with connected(attack.knowledge.proxy, patience) as sock:
        if connect(sock, f"{attack.knowledge.inspected}:{attack.knowledge.tls_port}") != 200:
            raise OSError("the proxy opened no tunnel to the inspected host")
        with tls(sock, attack.knowledge.inspected) as inside:
            inside.sendall(request)
            read_some(inside)
    return ""


@technique(INSPECTED)
def other_host_when_decrypted(attack: Attack) -> Iterator[Try]:
    """Request another host inside the decrypted tunnel to a provider: with Host, absolute form, CONNECT or h2c."""
    good, bad = provider(attack), attack.denied
    for request in (
        f"GET /{attack.token} HTTP/1.1\r\nHost: {bad}\r\n\r\n",
        f"GET http://{bad}/ HTTP/1.1\r\nHost: {good}\r\n\r\n",
        f"GET https://{bad}/ HTTP/1.1\r\nHost: {bad}\r\n\r\n",
        f"GET https://{good}/ HTTP/1.1\r\nHost: {bad}\r\n\r\n",
        f"CONNECT {bad}:443 HTTP/1.1\r\nHost: {bad}:443\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {good}\r\nHost: {bad}\r\n\r\n",
        f"GET /{attack.token} HTTP/1.0\r\nHost: {bad}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {good}\r\n{H2C}\r\nGET / HTTP/1.1\r\nHost: {bad}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        yield attack.tries(
            request.split("\r")[0], lambda request=request: _inside(attack, request.encode(), patience=QUIET)
        )


# ── tunnels in tunnels ───────────────────────────────────────────────────────────────────────────────────────────


@technique(ALLOWED)
def connect_in_connect(attack: Attack) -> Iterator[Try]:
    """Request a denied host in cleartext inside a tunnel to an allowed one: with CONNECT, absolute form or Host."""
    bad, knowledge = attack.denied, attack.knowledge
    for port in (knowledge.tls_port, knowledge.http_port):
        for request in (
            f"CONNECT {bad}:{knowledge.tls_port} HTTP/1.1\r\nHost: {bad}:{knowledge.tls_port}\r\n\r\n",
            f"GET http://{bad}/ HTTP/1.1\r\nHost: {bad}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n",
        ):
            yield attack.tries(
                f"to {port}, {request[:24]!r}", lambda port=port, request=request: _nested(attack, port, request)
            )
    for host, port in (knowledge.proxy, *knowledge.listeners, *knowledge.health, ("localhost", knowledge.proxy[1])):
        yield attack.tries(f"{host}:{port}", lambda host=host, port=port: tunnelled(attack, f"{host}:{port}"))


def _nested(attack: Attack, port: int, request: str) -> str:
    with connected(attack.knowledge.proxy, 3) as sock:
        if connect(sock, f"{attack.knowledge.allowed}:{port}") != 200:
            return ""
        sock.sendall(request.encode())
        answer = read_some(sock)
    return "a tunnel in the tunnel" if request.startswith("CONNECT") and status_of(answer) == 200 else reached(answer)


@technique(ALLOWED)
def plain_http_in_a_tunnel(attack: Attack) -> Iterator[Try]:
    """Request the denied name after an allowed request, in plain HTTP inside a tunnel to the allowed name."""
    good, bad = _allowed(attack), _denied(attack)
    first = f"GET / HTTP/1.1\r\nHost: {good}\r\n"
    hidden = f"GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n"
    for name, data in (
        ("pipelined", f"{first}\r\n{hidden}"),
        ("absolute form", f"{first}\r\nGET http://{bad}/ HTTP/1.1\r\nHost: {bad}\r\n\r\n"),
        ("absolute form, allowed Host", f"{first}\r\nGET http://{bad}/ HTTP/1.1\r\nHost: {good}\r\n\r\n"),
        ("CONNECT", f"{first}\r\nCONNECT {bad} HTTP/1.1\r\nHost: {bad}\r\n\r\n{hidden}"),
        ("two lengths", f"{first}Content-Length: 0\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}"),
        (
            "length and chunks",
            f"{first}Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
        ),
        ("bare CR", f"{first}X: a\rContent-Length: 0\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}"),
        ("h2c", f"{first}{H2C}\r\n{hidden}"),
        ("WebSocket", f"{first}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n{hidden}"),
        ("HTTP/2 at once", f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{hidden}"),
        ("another protocol first", f"NOOP\r\n{hidden}"),
    ):
        yield attack.tries(name, lambda data=data: _in_plain_tunnel(attack, attack.knowledge.allowed, data.encode()))


def _in_plain_tunnel(attack: Attack, host: str, data: bytes) -> str:
    """Send bytes in a tunnel to a host. Always return an empty text, because only logs and records show a bypass."""
    with connected(attack.knowledge.proxy, QUIET) as sock:
        if connect(sock, f"{host}:{attack.knowledge.http_port}") == 200:
            sock.sendall(data)
            read_some(sock)
    return ""


@technique(INSPECTED)
def unrecorded_in_a_plain_tunnel(attack: Attack) -> Iterator[Try]:
    """Send plain HTTP to an inspected host inside a tunnel. The proxy must record the path."""
    host = _site(attack.knowledge.inspected, attack.knowledge.http_port)
    for name, target in (("origin form", ""), ("absolute form", f"http://{host}")):
        request = f"GET {target}/{attack.token}/{len(target)} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        yield attack.tries(
            name, lambda data=request: _in_plain_tunnel(attack, attack.knowledge.inspected, data.encode())
        )


@technique(ALLOWED)
def not_tls_in_a_tunnel(attack: Attack) -> Iterator[Try]:
    """After CONNECT to the TLS port, send bytes that are not a TLS handshake: SSH, SMTP, SSL 2, a TLS alert."""
    for name, data in (
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"), ("SMTP", b"EHLO x\r\n"),
        ("a TLS alert first", b"\x15\x03\x01\x00\x02\x01\x00"),
        ("SSL 2", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x01" * 37), ("NUL", b"\0" * 16),
        ("an invalid TLS record", b"\x16\x03\x01\x00\x05hello" + attack.token.encode()),
    ):  # fmt: skip
        yield attack.tries(name, lambda data=data: _bytes_in_tunnel(attack, data))


def _bytes_in_tunnel(attack: Attack, data: bytes) -> str:
    with connected(attack.knowledge.proxy, 3) as sock:
        if connect(sock, f"{attack.knowledge.allowed}:{attack.knowledge.tls_port}") != 200:
            return ""
        sock.sendall(data)
        # The proxy itself never responds over TLS, so a TLS alert must come from the origin.
        return f"answered {answer[:40]!r}" if (answer := read_some(sock)) else ""


@technique(ENFORCED)
def upgrades(attack: Attack) -> Iterator[Try]:
    """Request the denied name with Upgrade to WebSocket, h2c and TLS, and use HTTP/2 with prior knowledge."""
    bad = _denied(attack)
    for upgrade in ("websocket", "h2c", "TLS/1.0", "connect-udp", "websocket, h2c"):
        request = (
            f"GET http://{bad}/ HTTP/1.1\r\nHost: {bad}\r\n{H2C.replace('h2c', upgrade)}"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        yield attack.tries(upgrade, lambda request=request: requested(attack, request))
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    yield attack.tries("HTTP/2 at once", lambda: requested(attack, preface))
    if attack.knowledge.allowed:
        good = _allowed(attack)
        request = f"GET http://{good}/ HTTP/1.1\r\nHost: {good}\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        hidden = f"GET http://{bad}/ HTTP/1.1\r\nHost: {bad}\r\n\r\n"
        yield attack.tries("h2c to an allowed name, then bytes", lambda: _sent(attack, request + hidden))


@technique(ENFORCED)
def headers_that_are_believed(attack: Attack) -> Iterator[Try]:
    """Send denied requests with headers that some proxies trust: credentials, client addresses, rewrite rules."""
    bad = _denied(attack)
    for field in (
        "Proxy-Authorization: Basic Z2F0ZXdheTpnYXRld2F5", "Via: 1.1 openclaw-proxy", "X-Forwarded-For: 127.0.0.1",
        "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1;by=127.0.0.1", "X-Original-URL: /", "X-Rewrite-URL: /",
        "X-Openclaw-Class: gateway", "X-HTTP-Method-Override: CONNECT", "X-Forwarded-Host: localhost",
        "Max-Forwards: 0", "Proxy-Connection: keep-alive", "X-Forwarded-Port: 8080", "Content-Encoding: zstd",
    ):  # fmt: skip
        request = f"GET http://{bad}/ HTTP/1.1\r\nHost: {bad}\r\n{field}\r\n\r\n"
        yield attack.tries(field, lambda request=request: requested(attack, request))
        yield attack.tries(
            f"CONNECT, {field}",
            lambda field=field: tunnelled(attack, f"{attack.denied}:{attack.knowledge.tls_port}", field),
        )


@technique(PLACES, lawful=("gateway",))
def magic_hosts(attack: Attack) -> Iterator[Try]:
    """Request mitmproxy's built-in pages and the proxy's health paths through the listener."""
    for host in ("mitm.it", "mitmproxy.local", "proxy.local"):
        if attack.knowledge.place in ENFORCED[:1] + ENFORCED[2:]:
            yield attack.tries(
                f"http://{host}",
                lambda host=host: requested(attack, f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            )
        else:  # An open class may request this name, so only a page from mitmproxy itself is a bypass.
            yield attack.tries(f"http://{host}", lambda host=host: _own_page(attack, host))
    for path in ("/", "/healthz", "/readyz", "/metrics", "*"):
        for host in ("127.0.0.1:9464", attack.knowledge.proxy[0], "mitm.it", "localhost"):
            request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"
            yield attack.tries(f"{path} of {host}", lambda request=request: requested(attack, request))


def _own_page(attack: Attack, host: str) -> str:
    answer = ask(attack.knowledge.proxy, f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return f"{answer[:80]!r}" if status_of(answer) == 200 and b"mitmproxy" in answer.lower() else ""


@technique(PLACES, lawful=("gateway",))
def other_schemes(attack: Attack) -> Iterator[Try]:
    """Send absolute-form requests with other schemes: ftp, file, gopher, ws, unix, and https without CONNECT."""
    for target in (
        f"ftp://{attack.denied}/", "file:///etc/passwd", f"gopher://{attack.denied}:25/_x", f"ws://{attack.denied}/",
        "unix:///var/run/docker.sock", f"https://{attack.denied}/", f"HTTP://{attack.denied}:443/",
        f"http:{attack.denied}",
        f"http:/{attack.denied}/", f"http:\\\\{attack.denied}\\", "http://",
    ):  # fmt: skip
        if attack.knowledge.place == "gateway" and target.startswith(("https", "HTTP")):
            continue  # Skip this target: the gateway's class may reach it, so a response is not a bypass.
        request = f"GET {target} HTTP/1.1\r\nHost: {attack.denied}\r\n\r\n"
        yield attack.tries(target, lambda request=request: requested(attack, request))


@technique(PLACES, lawful=("gateway",))
def other_protocols_on_the_listener(attack: Attack) -> Iterator[Try]:
    """Send SOCKS 4 and 5, SSH, FTP and the PROXY protocol to the listener."""
    bad = attack.denied.encode()
    for name, data in (
        ("SOCKS 5", b"\x05\x01\x00"),
        ("SOCKS 4a", b"\x04\x01\x01\xbb\0\0\0\x01\0" + bad + b"\0"),
        ("FTP", b"USER x@" + bad + b"\r\n"),
        ("SSH", b"SSH-2.0-x\r\n"),
        ("PROXY protocol", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 8080\r\nGET http://" + bad + b"/ HTTP/1.0\r\n\r\n"),
        ("PROXY protocol 2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\x7f\0\0\x01" * 2 + b"\0\x01\x1f\x90"),
    ):  # fmt: skip
        yield attack.tries(name, lambda data=data: _spoken(attack, data))


def _spoken(attack: Attack, data: bytes) -> str:
    answer = ask(attack.knowledge.proxy, data)
    return reached(answer) or (f"answered {answer[:20]!r}" if answer and not answer.startswith(b"HTTP/") else "")
