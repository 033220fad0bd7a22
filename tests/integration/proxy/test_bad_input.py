"""Tests of malformed input: the proxy sends at most one response, contacts no destination, and keeps running."""

import json
import socket
import struct
import time

import pytest

from tests.integration.proxy.raw import connect, connected, exchange, read_all, status_of, tls

SECRET = "sk-ant-api03-secret-inside-of-garbage"
MESSAGE = json.dumps({"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]})


GET, POST = (verb + b" http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n" for verb in (b"GET", b"POST"))


@pytest.fixture(autouse=True)
def unharmed(proxy):
    """Assert after each test that the proxy still serves requests, and that its log has no secret and no traceback."""
    yield
    with proxy.client(headers={"authorization": f"Bearer {SECRET}"}) as http:
        assert http.get(proxy.url("api.anthropic.com", "/v1/models")).status_code < 500
    assert proxy.process.poll() is None
    assert SECRET not in proxy.log
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 64 + b"\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: www.example.com\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"GET http://www.example.com:99999/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        b"GET http://user:" + SECRET.encode() + b"@/ HTTP/1.1\r\nHost: x\r\n\r\n",
        GET + b"no colon " + SECRET.encode() + b"\r\n\r\n",
        GET + b"Authorization : " + SECRET.encode() + b"\r\n\r\n",
        b"CONNECT HTTP/1.1\r\n\r\n",
        b"CONNECT www.example.com HTTP/1.1\r\n\r\n",
        b"CONNECT www.example.com:0 HTTP/1.1\r\n\r\n",
        b"CONNECT \xff\xfe.example.com:443 HTTP/1.1\r\n\r\n",
        b"CONNECT www.example.com:443:443 HTTP/1.1\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda data: repr(data[:40]),
)  # fmt: skip
def test_malformed_http_on_a_listener_gets_at_most_one_response(proxy, providers, data):
    began = time.time()
    assert status_of(exchange(proxy.ports["browser"], data)) in (0, 400, 403, 502)
    assert not providers.asked_since(began)


def test_request_without_a_destination_is_refused(proxy):
    assert status_of(exchange(proxy.ports["gateway"], b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")) in (400, 403)
    assert status_of(exchange(proxy.ports["gateway"], b"GET / HTTP/1.1\r\n\r\n")) in (400, 403)


def test_invalid_tls_inside_a_tunnel_does_not_reach_the_provider(proxy, providers):
    began = time.time()
    for garbage in (b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000, b"\x16"):
        with connected(proxy.ports["gateway"]) as sock:
            assert status_of(connect(sock, f"api.anthropic.com:{providers.port}")) == 200
            sock.sendall(garbage + SECRET.encode())
            sock.settimeout(1)  # Stop early: the proxy waits for the rest of an incomplete TLS record.
            read_all(sock)
    assert not providers.asked_since(began)


def inside(proxy, providers, data: bytes) -> bytes:
    """Send bytes inside a decrypted tunnel to the provider. Return the response."""
    with connected(proxy.ports["gateway"]) as sock:
        assert status_of(connect(sock, f"api.anthropic.com:{providers.port}")) == 200
        with tls(sock, "api.anthropic.com", proxy.root) as secured:
            secured.sendall(data)
            return secured.recv(65536)


def post(providers, *headers: str, body: bytes = MESSAGE.encode()) -> bytes:
    lines = [
        "POST /v1/messages HTTP/1.1",
        f"Host: api.anthropic.com:{providers.port}",
        f"x-api-key: {SECRET}",
        "content-type: application/json",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_request_body_shorter_than_content_length_is_recorded_as_aborted(proxy, providers):
    began, kept = time.time(), len(proxy.exchanges())
    with connected(proxy.ports["gateway"]) as sock:
        connect(sock, f"api.anthropic.com:{providers.port}")
        with tls(sock, "api.anthropic.com", proxy.root) as secured:
            secured.sendall(post(providers, f"content-length: {len(MESSAGE) + 100}"))
            time.sleep(0.3)  # Let the proxy read Content-Length before the client resets the connection.
            secured.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end = time.monotonic() + 10
    while len(proxy.exchanges()) == kept and time.monotonic() < end:
        time.sleep(0.02)
    assert [row.outcome for row in proxy.exchanges()[kept:]] == ["client_aborted"]
    assert not providers.asked_since(began)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "gzip, br", "no-such-coding"])
def test_request_body_with_a_wrong_content_encoding_is_recorded_as_base64(proxy, providers, encoding):
    kept = len(proxy.exchanges())
    answer = inside(
        proxy, providers, post(providers, f"content-length: {len(MESSAGE)}", f"content-encoding: {encoding}")
    )
    assert status_of(answer) in (200, 400, 415)
    row = proxy.exchanges()[kept]
    body = proxy.line(row.id)["request"]
    assert body["body_encoding"] == "base64" and body["body_size"] == len(MESSAGE)


def test_binary_request_body_is_recorded_as_base64(proxy, providers):
    kept = len(proxy.exchanges())
    data = b'{"model": "\xff\xfe\x00"}'
    inside(proxy, providers, post(providers, f"content-length: {len(data)}", body=data))
    assert proxy.line(proxy.exchanges()[kept].id)["request"]["body_encoding"] == "base64"


def test_a_path_that_is_not_ascii_is_refused_and_recorded(proxy, providers):
    kept, began = len(proxy.exchanges()), time.time()
    data = f" HTTP/1.1\r\nHost: api.anthropic.com:{providers.port}\r\n\r\n".encode()
    assert status_of(inside(proxy, providers, b"GET /v1/\xff\xfe?x=\xed\xa0\x80" + data)) == 400
    assert len(proxy.exchanges()) == kept and not providers.asked_since(began)
    assert "not ASCII" in proxy.denials()[-1].reason


def test_response_with_a_wrong_content_length_is_recorded(proxy):
    kept = len(proxy.exchanges())
    for wrong in ("50", "-50"):
        with proxy.client(headers={"x-standin-length-off-by": wrong, "x-api-key": SECRET}) as http:
            try:
                http.post(proxy.url("api.anthropic.com", "/v1/messages"), content=MESSAGE).read()
            except Exception as error:  # noqa: BLE001  (the type depends on the client)
                assert "Timeout" not in type(error).__name__
    rows = proxy.exchanges()[kept:]
    assert rows[0].outcome == "upstream_error" and len(rows) == 2
