"""Tests of malformed messages, which the proxy answers with 400 or 502 and records, and of interim responses (1xx)."""

import contextlib
import json
import re
import socket
import struct
import threading
import time

import pytest

from openclaw_egress.spool.reader import SpoolReader
from tests.integration.proxy.conftest import refusals
from tests.integration.proxy.raw import connect, connected, read_all, read_head, status_of, tls
from tests.resilience import hostile
from tests.support.llm_providers import LLMProviders
from tests.support.proxy_process import RunningProxy

SECRET = b"sk-ant-api03-never-in-a-record"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
HOST = "www.example.com"


class Origin:
    """An origin for plain HTTP that responds to each request head with ``response``, one part at a time."""

    def __init__(self):
        self.received, self.connections, self.response = b"", 0, (OK,)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.settimeout(20)
            kept = True
            while kept:
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (piece := connection.recv(65536)):
                        return
                    head += piece
                    self.received += piece
                response = self.response
                send_slowly(connection, response)
                kept = any(word in b"".join(response) for word in (b"304", b"Keep-Alive"))

    def close(self):
        self._server.close()


def send_slowly(sock: socket.socket, parts: tuple[bytes, ...]) -> None:
    """Send each part as a separate TCP segment."""
    for part in parts:
        sock.sendall(part)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def origin():
    with contextlib.closing(Origin()) as running:
        yield running


@pytest.fixture(scope="module", params=["lean", "stock"])
def proxy(request, tmp_path_factory, origin):
    directory = tmp_path_factory.mktemp(request.param)
    with LLMProviders(tls_dir=directory / "tls") as providers:
        certificate = directory / "tls" / "cert.pem", directory / "tls" / "key.pem"
        parts = dict.fromkeys(("reply", "*"), lambda sock: send_slowly(sock, origin.response))
        with hostile.listening(*certificate, parts) as port:
            running = RunningProxy(directory, [port, origin.port], providers.ca_file, request.param)
            text = running.policy_file.read_text()
            limits = ", limits: {header_seconds: 1, idle_seconds: 1, requests_per_minute: 50}}\n"
            running.policy_file.write_text(text.replace(", allow: []}\n", ", allow: []" + limits, 1))
            with running:
                yield running
    assert "Traceback" not in running.log and SECRET.decode() not in running.log, running.log
    assert SECRET not in (directory / "state" / "spool.db").read_bytes()
    wal = directory / "state" / "spool.db-wal"
    assert not wal.exists() or SECRET not in wal.read_bytes()


@pytest.fixture(autouse=True)
def ordinary(origin):
    origin.response = (OK,)


def send(proxy, data: bytes, class_name="browser") -> bytes:
    with connected(proxy.ports[class_name]) as sock:
        sock.sendall(data)
        return read_all(sock)


def send_in_tunnel(proxy, origin, data: bytes) -> bytes:
    """Send bytes after CONNECT to the origin. Return the response, which must have a Content-Length."""
    with connected(proxy.ports["gateway"]) as sock:
        assert status_of(connect(sock, f"{HOST}:{origin.port}")) == 200
        sock.sendall(data)
        answer = read_head(sock)
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", answer)
        end = answer.find(b"\r\n\r\n") + 4 + int(length[1]) if length else 2**31
        with contextlib.suppress(OSError):
            while len(answer) < end and (piece := sock.recv(65536)):
                answer += piece
        return answer


def new_denials(proxy, known: int, number=1):
    """Wait until ``number`` denials follow the first ``known`` denials. Return the new denials."""
    end = time.monotonic() + 10
    while len(rows := proxy.denials()[known:]) < number and time.monotonic() < end:
        time.sleep(0.02)
    return rows


def client_of(proxy, row) -> str:
    with SpoolReader(proxy.directory / "state" / "spool.db") as reader:
        return json.loads(reader.line(row.seq))["client"]


def get(origin, *lines: bytes, method=b"GET", version=b"HTTP/1.1") -> bytes:
    site = b"%s:%d" % (HOST.encode(), origin.port)
    return b"%s http://%s/ %s\r\nHost: %s\r\n%s\r\n" % (method, site, version, site, b"".join(lines))


POST = b"POST"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
MALFORMED = {
    "bare CR hides a field": lambda o: get(o, b"X: a\rContent-Length: 0\r\n", b"Content-Length: 33\r\n") + SMUGGLED,
    "bare CR hides a secret": lambda o: get(o, b"X: a\rAuthorization: " + SECRET + b"\r\n"),
    "NUL in a value": lambda o: get(o, b"X: a\0b\r\n"),
    "control character in a value": lambda o: get(o, b"X: a\x0bb\r\n"),
    "CR in the method": lambda o: get(o, method=b"GE\rT"),
    "NUL in the method": lambda o: get(o, method=b"GE\0T"),
    "method that is not a token": lambda o: get(o, method=b"GE(T"),
    "HEAD in lower case": lambda o: get(o, method=b"head"),
    "obs-fold": lambda o: get(o, b"X: a\r\n Authorization: " + SECRET + b"\r\n"),
    "space before the colon": lambda o: get(o, b"Authorization : " + SECRET + b"\r\n"),
    "empty name": lambda o: get(o, b": a\r\n"),
    "name that is not a token": lambda o: get(o, b"X(: a\r\n"),
    "no colon": lambda o: get(o, SECRET + b"\r\n"),
    "bare LF": lambda o: get(o, b"X: a\nY: b\r\n"),
    "HTTP/0.9": lambda o: get(o, version=b"HTTP/0.9"),
    "HTTP/1.2": lambda o: get(o, version=b"HTTP/1.2"),
    "no version": lambda o: b"GET http://%s:%d/\r\n\r\n" % (HOST.encode(), o.port),
    "two spaces": lambda o: get(o, method=b"GET "),
    "tab in the request line": lambda o: get(o, method=b"GET\t"),
    "two empty lines first": lambda o: b"\r\n\r\n" + get(o),
    "bare LF first": lambda o: b"\n" + get(o),
    "fragment": lambda o: get(o).replace(b"/ HTTP", b"/a#/../b HTTP"),
    "not ASCII": lambda o: get(o).replace(b"/ HTTP", b"/\xc3\xa0 HTTP"),
    "two lengths": lambda o: get(o, b"Content-Length: 5\r\nContent-Length: 5\r\n", method=POST) + b"hello",
    "list of lengths": lambda o: get(o, b"Content-Length: 5, 5\r\n", method=POST) + b"hello",
    "length with a sign": lambda o: get(o, b"Content-Length: +5\r\n", method=POST) + b"hello",
    "hexadecimal length": lambda o: get(o, b"Content-Length:  0x5\r\n", method=POST) + b"hello",
    "length and chunks": lambda o: get(o, b"Content-Length: 5\r\n", CHUNKED, method=POST) + b"0\r\n\r\n",
    "gzip, chunked": lambda o: get(o, b"Transfer-Encoding: gzip, chunked\r\n", method=POST) + b"0\r\n\r\n",
    "identity": lambda o: get(o, b"Transfer-Encoding: identity\r\n", method=POST),
    "chunks in HTTP/1.0": lambda o: get(o, CHUNKED, method=POST, version=b"HTTP/1.0") + b"0\r\n\r\n",
    "chunk size with a sign": lambda o: get(o, CHUNKED, method=POST) + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk size with a blank": lambda o: get(o, CHUNKED, method=POST) + b"5 \r\nhello\r\n0\r\n\r\n",
    "chunk extension with a CR": lambda o: get(o, CHUNKED, method=POST) + b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "chunk with a bare LF": lambda o: get(o, CHUNKED, method=POST) + b"5\nhello\n0\n\n\r\n",
    "chunk too long": lambda o: get(o, CHUNKED, method=POST) + b"5\r\nhelloX\r\n0\r\n\r\n",
    "user information": lambda o: b"CONNECT example.com@169.254.169.254:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT with a body": lambda o: b"CONNECT %s:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello" % HOST.encode(),
    "connect in lower case": lambda o: b"connect http://%s:443 HTTP/1.1\r\n\r\n" % HOST.encode(),
    "ftp": lambda o: b"GET ftp://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n" % (HOST.encode(), HOST.encode()),
    "OPTIONS *": lambda o: b"OPTIONS * HTTP/1.1\r\nHost: %s:%d\r\n\r\n" % (HOST.encode(), o.port),
    "GET *": lambda o: b"GET * HTTP/1.1\r\nHost: %s:%d\r\n\r\n" % (HOST.encode(), o.port),
    "origin form": lambda o: b"GET / HTTP/1.1\r\nHost: %s:%d\r\n\r\n" % (HOST.encode(), o.port),
    "origin form in HTTP/1.0": lambda o: b"GET / HTTP/1.0\r\nHost: %s:%d\r\n\r\n" % (HOST.encode(), o.port),
    "authority form": lambda o: b"GET %s:%d HTTP/1.1\r\nHost: %s\r\n\r\n" % (HOST.encode(), o.port, HOST.encode()),
    "Connection: Host": lambda o: get(o, b"Connection: close, Host\r\n"),
    "Connection: Content-Length": lambda o: get(o, b"Connection: content-length\r\nContent-Length: 0\r\n"),
    "second Connection": lambda o: get(o, b"Connection: close\r\nconnection: a, Transfer-Encoding\r\n", CHUNKED),
    "no destination": lambda o: b"GET / HTTP/1.1\r\n\r\n",
    "secret as a port": lambda o: b"GET http://a:" + SECRET + b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "garbage": lambda o: SECRET + b"\r\n\r\n",
    "SOCKS": lambda o: b"\x05\x01\x00",
    "SOCKS 4": lambda o: b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
    "HTTP/2": lambda o: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "zeros": lambda o: b"\0" * 64,
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_request_is_refused_and_recorded(proxy, origin, kind):
    known, received, connections = len(proxy.denials()), origin.received, origin.connections
    # The proxy summarises more than ten denials of one destination in a minute, so each case uses another name.
    name = b"n%d.example.com" % list(MALFORMED).index(kind)
    answer = send(proxy, MALFORMED[kind](origin).replace(HOST.encode(), name), "gateway")
    assert status_of(answer) == 400 and b"openclaw.egress refused" in answer and b"mitmproxy" not in answer
    (row,) = new_denials(proxy, known)
    assert (row.class_name, row.rule) == ("gateway", "syntax") and row.reason and SECRET.decode() not in row.reason
    assert client_of(proxy, row) == "127.0.0.1"
    assert (origin.received, origin.connections) == (received, connections)


VALID_IN_A_TUNNEL = ("OPTIONS *", "origin form", "origin form in HTTP/1.0")
"""Requests that are valid inside a tunnel, because CONNECT has already named the destination."""


@pytest.mark.parametrize("kind", [kind for kind in MALFORMED if kind not in VALID_IN_A_TUNNEL])
def test_a_malformed_request_inside_a_plain_tunnel_is_refused_and_recorded(proxy, origin, kind):
    before, received, connections = refusals(proxy), origin.received, origin.connections
    answer = send_in_tunnel(proxy, origin, MALFORMED[kind](origin))
    assert status_of(answer) in (0, 400, 403) and b"mitmproxy" not in answer
    ((class_name, rule, _),) = (refusals(proxy) - before).elements()
    assert (class_name, rule) == ("gateway", "syntax")
    assert (origin.received, origin.connections) == (received, connections)


@pytest.mark.parametrize("kind", VALID_IN_A_TUNNEL)
def test_request_without_destination_in_a_plain_tunnel_is_for_the_tunnels_destination(proxy, origin, kind):
    received = len(origin.received)
    assert status_of(send_in_tunnel(proxy, origin, MALFORMED[kind](origin))) == 200
    assert origin.received[received:].startswith(MALFORMED[kind](origin).split(b" HTTP")[0])


def test_hop_by_hop_fields_inside_a_plain_tunnel_do_not_reach_the_origin(proxy, origin):
    received = len(origin.received)
    fields = *HOP_BY_HOP, b"Proxy-Authorization: " + SECRET + b"\r\n"
    assert status_of(send_in_tunnel(proxy, origin, get(origin, *fields))) == 200
    site = b"host: %s:%d" % (HOST.encode(), origin.port)
    assert origin.received[received:].startswith(b"GET / HTTP/1.1\r\n")
    assert fields_of(origin.received[received:]) == [b"connection: close", site, b"x-kept: yes"]


def test_connection_that_ends_within_a_head_is_recorded(proxy):
    for begun in (b"G", b"GET http://www", b"GET http://www.example.com/ HTTP/1.1\r\nAuthorization: " + SECRET):
        known = len(proxy.denials())
        with connected(proxy.ports["gateway"]) as sock:
            sock.sendall(begun)
            sock.shutdown(socket.SHUT_WR)
            assert status_of(read_all(sock)) == 400
        (row,) = new_denials(proxy, known)
        assert (row.class_name, row.rule) == ("gateway", "syntax")
        assert row.reason == "the connection ended inside the request's head"
        assert client_of(proxy, row) == "127.0.0.1"


def test_connection_reset_within_a_head_is_recorded(proxy):
    known = len(proxy.denials())
    with connected(proxy.ports["browser"]) as sock:
        sock.sendall(b"GET http://www")
        # Wait until the proxy has read the bytes, because the reset that follows can discard unread bytes.
        time.sleep(0.3)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Select the denial by class, because the record of an earlier test's connection can arrive late.
    end = time.monotonic() + 10
    while not (rows := [row for row in proxy.denials()[known:] if row.class_name == "browser"]):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert [row.reason for row in rows] == ["the connection ended inside the request's head"]


@pytest.mark.parametrize("begun", [b"", b"\r\n"], ids=["nothing", "empty line"])
def test_connection_without_a_request_is_not_recorded(proxy, begun):
    known = len(proxy.denials())
    with connected(proxy.ports["gateway"]) as sock:
        sock.sendall(begun)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    assert len(proxy.denials()) == known


HOP_BY_HOP = (
    b"Connection: close, X-Scope-OrgID\r\n",
    b"connection: TE\r\n",
    b"X-Scope-OrgID: tenant\r\n",
    b"Keep-Alive: timeout=5\r\n",
    b"Proxy-Connection: keep-alive\r\n",
    b"TE: trailers\r\n",
    b"Trailer: X-Sum\r\n",
    b"Upgrade: h2c\r\n",
    b"X-Kept: yes\r\n",
)


def fields_of(head: bytes) -> list[bytes]:
    return sorted(line.lower() for line in head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:])


def test_fields_for_one_hop_are_not_forwarded(proxy, origin):
    received = len(origin.received)
    origin.response = (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"".join(HOP_BY_HOP) + b"\r\nok",)
    answer = send(proxy, get(origin, *HOP_BY_HOP), "gateway")
    site = b"host: %s:%d" % (HOST.encode(), origin.port)
    assert fields_of(origin.received[received:]) == [b"connection: close", site, b"x-kept: yes"]
    assert fields_of(answer) == [b"connection: close", b"content-length: 2", b"x-kept: yes"]
    assert answer.endswith(b"\r\n\r\nok")


def test_framing_field_that_connection_names_is_kept(proxy, origin):
    origin.response = (b"HTTP/1.1 200 OK\r\nConnection: close, Content-Length\r\nContent-Length: 2\r\n\r\nok",)
    assert fields_of(send(proxy, get(origin), "gateway")) == [b"connection: close", b"content-length: 2"]


def test_asterisk_form_is_valid_inside_a_tunnel_only_for_options(proxy, origin):
    for method, status in ((b"OPTIONS", 200), (b"GET", 400)):
        received = len(origin.received)
        with connected(proxy.ports["gateway"]) as sock:
            authority = f"api.anthropic.com:{proxy.provider_port}"
            assert status_of(connect(sock, authority)) == 200
            with tls(sock, "api.anthropic.com", proxy.root) as secured:
                secured.sendall(
                    b"%s * HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (method, authority.encode())
                )
                assert status_of(read_all(secured)) == status
        assert len(origin.received) == received


def test_one_empty_line_before_a_request_is_ignored(proxy, origin):
    assert status_of(send(proxy, b"\r\n" + get(origin, b"Connection: close\r\n"), "gateway")) == 200


def test_malformed_chunk_in_the_middle_of_a_body(proxy, origin):
    """Send a malformed chunk after the proxy forwarded the head. Expect 400, and an incomplete body upstream."""
    known, received = len(proxy.denials()), len(origin.received)
    origin.response = ()
    with connected(proxy.ports["gateway"]) as sock:
        sock.sendall(get(origin, CHUNKED, method=POST) + b"5\r\nhello\r\n")
        end = time.monotonic() + 10
        while len(origin.received) == received and time.monotonic() < end:
            time.sleep(0.02)
        sock.sendall(b"-1\r\n\r\n")
        answer = read_all(sock)
    # Accept 502 as well, because the origin may close its connection before the malformed chunk arrives.
    assert status_of(answer) in (400, 502)
    assert b"0\r\n\r\n" not in origin.received[received:]
    if status_of(answer) == 400:
        (row,) = new_denials(proxy, known)
        assert row.reason == "malformed request: the size of a chunk is malformed"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "TLS on the listener"),
        (b"\x16\x03\x03\x02\x00", "TLS on the listener"),
    ],
)
def test_tls_to_a_listener_is_recorded(proxy, data, why):
    known = len(proxy.denials())
    assert send(proxy, data, "gateway") == b""
    (row,) = new_denials(proxy, known)
    assert row.rule == "syntax" and row.reason.startswith(why) and client_of(proxy, row) == "127.0.0.1"


@pytest.mark.parametrize(
    "hello", [b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\xff\xff"], ids=["text", "cut"]
)
def test_unparseable_client_hello_is_recorded(proxy, hello):
    known = len(proxy.denials())
    with connected(proxy.ports["gateway"]) as sock:
        assert status_of(connect(sock, f"api.anthropic.com:{proxy.provider_port}")) == 200
        sock.sendall(hello)
        read_all(sock)
    (row,) = new_denials(proxy, known)
    assert (row.host, row.rule, row.reason) == ("api.anthropic.com", "syntax", "the TLS ClientHello cannot be parsed")
    assert client_of(proxy, row) == "127.0.0.1"


@pytest.mark.parametrize("begun", [b"GET http://www", b"GET /" + SECRET])
def test_endless_head_is_recorded(proxy, begun):
    known = len(proxy.denials())
    assert status_of(send(proxy, begun, "sandbox")) == 408
    (row,) = new_denials(proxy, known)
    assert row.rule == "classes.sandbox.limits.header_seconds" and client_of(proxy, row) == "127.0.0.1"


@pytest.mark.parametrize("more", [b"X: " + b"y" * 100_000, b"X: y\r\n" * 300], ids=["header_bytes", "headers"])
def test_a_head_beyond_the_limits_is_recorded(proxy, origin, more, request):
    known = len(proxy.denials())
    assert status_of(send(proxy, get(origin, more + b"\r\n"), "gateway")) == 431
    (row,) = new_denials(proxy, known)
    assert row.rule == f"classes.gateway.limits.{request.node.callspec.id.split('-')[-1]}"


def test_a_name_that_does_not_resolve_is_recorded(proxy):
    known = len(proxy.denials())
    # Read only the head, because the proxy keeps the connection open.
    with connected(proxy.ports["gateway"]) as sock:
        assert status_of(connect(sock, "nowhere.invalid:443")) == 502
    (row,) = new_denials(proxy, known)
    assert (row.host, row.rule) == ("nowhere.invalid", "dns")


def test_malformed_requests_count_towards_the_rate_limit(proxy):
    answers = [status_of(send(proxy, b"\x05\x01\x00", "sandbox")) for _ in range(12)]
    # On a busy machine, the limit admits another request every few seconds.
    assert set(answers) <= {400, 429} and 429 in answers
    assert "classes.sandbox.limits.requests_per_minute" in {row.rule for row in proxy.denials()[-len(answers) :]}


def test_refusals_are_counted(proxy):
    def counted() -> float:
        lines = [
            line for line in proxy.metrics().splitlines() if "denied_total{" in line and 'egress_class="build"' in line
        ]
        return sum(float(line.split()[-1]) for line in lines if 'rule="syntax"' in line)

    before = counted()
    for _ in range(30):
        send(proxy, b"GET ftp://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n", "build")
    assert counted() == before + 30
    # The other 20 denials are only counted in a summary record.
    assert len([row for row in proxy.denials() if row.class_name == "build"]) == 10


# ── responses ────────────────────────────────────────────────────────────────────────────────────────────────────


BAD_RESPONSES = {
    "bare CR": b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 2\r\n\r\nok",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "HTTP/0.9": b"<html>" + SECRET,
    "HTTP/0.9, short": b"ok",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "head cut off": b"HTTP/1.1 200 OK\r\nX: " + SECRET,
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + SECRET,
    "endless 1xx": EARLY * 101,
    "bad after 103": EARLY + b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
}


@pytest.mark.parametrize("kind", BAD_RESPONSES)
def test_malformed_response_of_a_host_that_is_not_inspected_gets_502(proxy, origin, kind):
    origin.response = (BAD_RESPONSES[kind],)
    # Use a second host after ten cases, because the proxy summarises more than ten denials of one destination.
    host = HOST if list(BAD_RESPONSES).index(kind) < 10 else "packages.example.com"
    known = len(proxy.denials())
    answer = send(proxy, get(origin).replace(HOST.encode(), host.encode()), "gateway")
    final = answer.replace(EARLY, b"")
    assert status_of(final) == 502 and b"mitmproxy" not in answer and SECRET not in answer
    (row,) = new_denials(proxy, known)
    assert (row.host, row.rule) == (host, "response-syntax") and client_of(proxy, row) == "127.0.0.1"


@pytest.mark.parametrize("kind", BAD_RESPONSES)
def test_malformed_response_of_an_inspected_host_gets_502(proxy, origin, kind):
    origin.response = (BAD_RESPONSES[kind],)
    known = len(proxy.exchanges())
    final = inspected(proxy).replace(EARLY, b"")
    assert status_of(final) == 502
    end = time.monotonic() + 10
    while len(rows := proxy.exchanges()[known:]) < 1 and time.monotonic() < end:
        time.sleep(0.02)
    assert [row.outcome for row in rows] == ["upstream_error"]


def inspected(proxy, *lines: bytes) -> bytes:
    with connected(proxy.ports["gateway"]) as sock:
        authority = f"api.anthropic.com:{proxy.provider_port}"
        assert status_of(connect(sock, authority)) == 200
        with tls(sock, "api.anthropic.com", proxy.root) as secured:
            secured.sendall(
                b"GET /reply HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n"
                % (authority.encode(), b"".join(lines))
            )
            return read_all(secured)


INTERIM = {
    "103": (EARLY, OK),
    "103 with the final one": (EARLY + OK,),
    "cut in the middle": (EARLY[:20], EARLY[20:] + OK[:9], OK[9:]),
    "100, 102 and 103": (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", EARLY, OK),
}


@pytest.mark.parametrize("kind", INTERIM)
@pytest.mark.parametrize("decrypted", [False, True], ids=["plain", "inspected"])
def test_interim_responses_pass_and_the_final_one_follows(proxy, origin, kind, decrypted):
    origin.response = INTERIM[kind]
    known = len(proxy.exchanges())
    answer = inspected(proxy) if decrypted else send(proxy, get(origin, b"Connection: close\r\n"), "gateway")
    interim, _, final = answer.rpartition(b"HTTP/1.1 200 OK")
    assert interim == b"".join(INTERIM[kind]).partition(b"HTTP/1.1 200")[0] and final.endswith(b"\r\n\r\nok")
    if decrypted:
        (row,) = proxy.exchanges()[known:]
        assert (row.outcome, row.status) == ("complete", 200)
        assert proxy.line(row.id)["response"]["body"] == "ok"


def test_no_interim_response_for_http_1_0(proxy, origin):
    origin.response = (EARLY, OK)
    assert status_of(send(proxy, get(origin, version=b"HTTP/1.0"), "gateway")) == 200


def test_response_100_continue_reaches_the_client(proxy, origin):
    origin.response = (b"HTTP/1.1 100 Continue\r\n\r\n", OK)
    with connected(proxy.ports["gateway"]) as sock:
        sock.sendall(get(origin, b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n", method=POST))
        assert status_of(read_head(sock)) == 100
        sock.sendall(b"hi")
        assert b"HTTP/1.1 200 OK" in read_all(sock)


@pytest.mark.parametrize("response", [b"HTTP/1.1 304 Not Modified\r\n" + CHUNKED + b"\r\n"])
def test_response_without_a_body_keeps_the_connection_usable(proxy, origin, response):
    origin.response = (response,)
    with connected(proxy.ports["gateway"]) as sock:
        sock.sendall(get(origin))
        assert status_of(read_head(sock)) == 304
        origin.response = (OK,)
        sock.sendall(get(origin))
        assert status_of(read_head(sock)) == 200


# ── after the response began ─────────────────────────────────────────────────────────────────────────────────────


KEPT = b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok"
# Let the response take 20 seconds, so that a client on a busy machine can send more bytes before the response ends.
SLOW = (b"HTTP/1.1 200 OK\r\nContent-Length: 800\r\n\r\n", *[b"ok"] * 400)
LATE = {
    "malformed chunk": (b"zz\r\n", "malformed request: the size of a chunk is malformed"),
    "chunk that does not end": (b"2\r\nhiX\r\n", "malformed request: a chunk's data is not as long as its size states"),
    "endless chunk size": (b"0" * 5000, "malformed request: the size of a chunk is malformed"),
    "endless chunk extension": (b"2;" + b"a" * 5000, "malformed request: the size of a chunk is malformed"),
    "malformed trailer": (b"0\r\nno trailer\r\n", "malformed request: the trailers are malformed or too long"),
    "endless trailer": (b"0\r\nX: " + b"a" * 20_000, "malformed request: the trailers are malformed or too long"),
}


def site(data: bytes) -> bytes:
    """Replace the host name in a request, because the proxy summarises more than ten denials of one name."""
    return data.replace(HOST.encode(), b"packages.example.com")


@pytest.mark.parametrize("kind", LATE)
def test_body_that_becomes_malformed_during_the_response_is_recorded(proxy, origin, kind):
    origin.response = SLOW
    late_body(proxy, site(get(origin, CHUNKED, method=POST)), *LATE[kind])


def test_body_that_becomes_malformed_after_the_response_is_recorded(proxy, origin):
    origin.response = (KEPT,)
    late_body(proxy, site(get(origin, CHUNKED, method=POST)), *LATE["malformed chunk"])


def late_body(proxy, head: bytes, sent: bytes, why: str) -> None:
    known = len(proxy.denials())
    with connected(proxy.ports["browser"]) as sock:
        sock.sendall(head + b"2\r\nhi\r\n")
        assert status_of(read_head(sock)) == 200
        time.sleep(0.1)
        with contextlib.suppress(OSError):
            sock.sendall(sent)
            read_all(sock)
    (row,) = new_denials(proxy, known)
    assert (row.host, row.reason, client_of(proxy, row)) == ("packages.example.com", why, "127.0.0.1")


def test_body_that_becomes_malformed_inside_a_tunnel_during_the_response_is_recorded(proxy, origin):
    # Use an event stream, because the proxy holds other responses of inspected hosts until they are complete.
    origin.response = (SLOW[0].replace(b"\r\n", b"\r\nContent-Type: text/event-stream\r\n", 1), *SLOW[1:])
    known = len(proxy.denials())
    authority = f"api.anthropic.com:{proxy.provider_port}"
    with connected(proxy.ports["gateway"]) as sock:
        assert status_of(connect(sock, authority)) == 200
        with tls(sock, "api.anthropic.com", proxy.root) as secured:
            secured.sendall(b"POST /reply HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (authority.encode(), CHUNKED))
            assert status_of(read_head(secured)) == 200
            secured.sendall(b"2\r\nhi\r\nzz\r\n")
            read_all(secured)
    (row,) = new_denials(proxy, known)
    assert (row.host, row.reason) == ("api.anthropic.com", LATE["malformed chunk"][1])


def test_refused_body_that_becomes_malformed_is_recorded_once(proxy, origin):
    known = len(proxy.denials())
    with connected(proxy.ports["browser"]) as sock:
        sock.sendall(get(origin, CHUNKED, method=POST).replace(HOST.encode(), b"refused.example.org"))
        assert status_of(read_head(sock)) == 403
        with contextlib.suppress(OSError):
            sock.sendall(b"zz\r\n")
            read_all(sock)
    time.sleep(0.2)
    assert [row.code for row in proxy.denials()[known:]] == ["no_rule"]


@pytest.mark.parametrize("upload", [False, True], ids=["GET", "POST under way"])
def test_many_slow_interim_responses_are_recorded(proxy, origin, upload):
    origin.response = (EARLY,) * 101
    known = len(proxy.denials())
    with connected(proxy.ports["browser"]) as sock:
        sock.sendall(get(origin, *([CHUNKED] if upload else []), method=POST if upload else b"GET"))
        answer = read_all(sock)
    final = answer.replace(EARLY, b"")
    assert status_of(final) == 502
    (row,) = new_denials(proxy, known)
    assert row.rule == "response-syntax" and client_of(proxy, row) == "127.0.0.1"


# ── hop-by-hop fields and forged fields ──────────────────────────────────────────────────────────────────────────


UPGRADE = b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: HTTP/3.0\r\n%sContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("field", [b"", b"Connection: upgrade, X-Hop\r\nX-Hop: 1\r\n"], ids=["alone", "named"])
@pytest.mark.parametrize("decrypted", [False, True], ids=["plain", "inspected"])
def test_response_426_keeps_its_upgrade_field(proxy, origin, field, decrypted):
    origin.response = (UPGRADE % field,)
    answer = inspected(proxy) if decrypted else send(proxy, get(origin, b"Connection: close\r\n"), "gateway")
    fields = answer.lower().split(b"\r\n")
    assert status_of(answer) == 426 and b"upgrade: http/3.0" in fields and b"connection: upgrade" in fields
    assert b"x-hop" not in answer.lower()


def test_upgrade_field_of_other_responses_is_removed(proxy, origin):
    origin.response = (UPGRADE.replace(b"426 Upgrade Required", b"200 OK") % b"Connection: upgrade\r\n",)
    assert b"upgrade" not in send(proxy, get(origin, b"Connection: close\r\n"), "gateway").lower()


@pytest.mark.parametrize("decrypted", [False, True], ids=["plain", "inspected"])
@pytest.mark.parametrize("interim", [False, True], ids=["final", "interim"])
def test_forged_status_of_the_proxy_is_removed(proxy, origin, decrypted, interim):
    forged = b'Proxy-Status: cdn.example, openclaw-egress; error=x\r\nproxy-status: "OpenClaw-egress"\r\n'
    response = (EARLY if interim else OK).replace(b"\r\n", b"\r\n" + forged, 1)
    origin.response = (response + OK if interim else response,)
    answer = inspected(proxy) if decrypted else send(proxy, get(origin, b"Connection: close\r\n"), "gateway")
    assert answer.endswith(b"ok") and b"egress" not in answer.lower()
    assert answer.count(b"Proxy-Status: cdn.example\r\n") == 1


@pytest.mark.parametrize("name", [b"Content_Length", b"transfer_encoding", b"Content.Length", b"TRANSFER~ENCODING"])
def test_field_that_servers_read_as_framing_is_refused(proxy, origin, name):
    value = b"chunked" if name.lower().startswith(b"t") else b"5"
    known, received = len(proxy.denials()), len(origin.received)
    answer = send(proxy, get(origin, name + b": " + value + b"\r\n", method=POST), "gateway")
    assert status_of(answer) == 400 and len(origin.received) == received
    rows = new_denials(proxy, known)
    # Each of these denials has its own record. The proxy would summarise them only after ten denials with this code and
    # no known destination.
    assert [row.reason.partition(": ")[2][:24] for row in rows] == ["some servers read a head"]


@pytest.mark.parametrize("name", [b"Content_Type", b"X_Content_Length", b"Content_Length_2", b"X-Transfer_Encoding"])
def test_other_field_names_with_underscores_are_forwarded(proxy, origin, name):
    assert status_of(send(proxy, get(origin, name + b": 5\r\n", b"Connection: close\r\n"), "gateway")) == 200
    assert name in origin.received


def test_bytes_sent_before_the_response_ended_have_their_own_code(proxy, origin):
    origin.response = SLOW
    known = len(proxy.denials())
    with connected(proxy.ports["browser"]) as sock, contextlib.suppress(OSError):
        sock.sendall(get(origin))
        assert status_of(read_head(sock)) == 200
        for _ in range(10):
            sock.sendall(b"x" * 100_000)
        read_all(sock)
    # No response was sent for these bytes, so the record has no status.
    assert [(row.code, row.status) for row in new_denials(proxy, known)] == [("sent_ahead", None)]
