"""Tests of class limits: they bound the memory and connections of a class, and do not affect other classes."""

import contextlib
import json
import socket
import time

import httpx2 as httpx
import pytest

from tests.integration.proxy.conftest import make_proxy
from tests.integration.proxy.raw import connect, connected, exchange, read_all, read_head, status_of, tls
from tests.resilience import hostile
from tests.support.llm_providers import LLMProviders
from tests.support.proxy_process import RunningProxy

MESSAGE = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
LIMITS = "{connections: 8, header_bytes: 2048, headers: 20, header_seconds: 1, idle_seconds: 2}"
REFUSED = b"POST http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n"
SITE = b"GET http://www.example.com:%d/ HTTP/1.1\r\nHost: www.example.com:%d\r\n"


@pytest.fixture(scope="module", params=["lean", "stock"])
def limited(request, tmp_path_factory, providers):
    running = make_proxy(tmp_path_factory.mktemp(request.param), providers, request.param)
    lines = running.policy_file.read_text().splitlines()
    for name, limits in (("gateway", LIMITS), ("sandbox", LIMITS), ("build", "{requests_per_minute: 30}")):
        at = next(number for number, line in enumerate(lines) if line.startswith(f"  {name}: "))
        lines[at] = lines[at].removesuffix("}") + f", limits: {limits}}}"
    running.policy_file.write_text("\n".join(lines))
    with running:
        yield running
    assert "Traceback" not in running.log, running.log


def ends(sock: socket.socket, within: float = 10) -> bytes:
    """Return the bytes received until the proxy closes the connection. Fail if it stays open."""
    sock.settimeout(within)
    found = b""
    while True:
        try:
            piece = sock.recv(65536)
        except TimeoutError:
            pytest.fail(f"the connection was still open after {within} s; received so far: {found!r}")
        except OSError:
            return found
        if not piece:
            return found
        found += piece


def site(providers) -> bytes:
    return SITE % (providers.http_port, providers.http_port)


def test_traffic_within_the_limits_is_unaffected(limited, providers):
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(15))
    assert status_of(exchange(limited.ports["gateway"], site(providers) + fields + b"\r\n")) == 200


@pytest.mark.parametrize(
    "head", [b"X: " + b"y" * 3000 + b"\r\n\r\n", b"X: " + b"y" * 200_000, b"X: y\r\n" * 30 + b"\r\n"], ids=len
)
def test_head_with_too_many_bytes_or_fields_is_refused(limited, providers, head):
    began = time.time()
    with connected(limited.ports["gateway"]) as sock:
        sock.sendall(site(providers) + head)
        assert status_of(ends(sock)) == 431
    assert not providers.asked_since(began)


@pytest.mark.parametrize(("begun", "status"), [(b"", 0), (b"GET http://www", 408), (b"\x16\x03\x01\x02\x00\x01", 0)])
def test_head_that_never_ends_times_out(limited, begun, status):
    with connected(limited.ports["gateway"]) as sock:
        sock.sendall(begun)
        assert status_of(ends(sock)) == status


def test_byte_by_byte_head_does_not_extend_the_timeout(limited):
    with connected(limited.ports["gateway"]) as sock:
        sock.settimeout(0.2)
        for _ in range(100):
            try:
                sock.sendall(b"x")
                if sock.recv(1) in (b"", b"H"):
                    return
            except TimeoutError:
                continue
            except OSError:
                return
    pytest.fail("a client that sent one byte every 0.2 s kept the connection open for 20 s")


def test_idle_connection_is_closed(limited, providers):
    with connected(limited.ports["gateway"]) as sock:
        sock.sendall(site(providers) + b"\r\n")
        assert status_of(ends(sock)) == 200


def test_idle_tunnel_is_closed(limited, providers):
    for hello, code in ((b"", "tunnel_timeout"), (b"\x16\x03\x01\x02\x00\x01\x00", "tls_unusable")):
        with connected(limited.ports["gateway"]) as sock:
            assert status_of(connect(sock, f"api.anthropic.com:{providers.port}")) == 200
            sock.sendall(hello)
            ends(sock)
        assert (limited.denials()[-1].code, limited.denials()[-1].status) == (code, None)


def test_stalled_request_body_times_out(limited, providers):
    with connected(limited.ports["gateway"]) as sock:
        assert status_of(connect(sock, f"api.anthropic.com:{providers.port}")) == 200
        with tls(sock, "api.anthropic.com", limited.root) as secured:
            secured.sendall(
                b"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com:%d\r\nContent-Length: 9\r\n\r\n{"
                % providers.port
            )
            assert status_of(ends(secured)) == 408
    assert limited.exchanges()[-1].outcome == "client_aborted"
    assert (limited.denials()[-1].code, limited.denials()[-1].status) == ("body_timeout", 408)


def test_long_response_is_not_idle(limited):
    """Expect no timeout for a stream that takes longer than `idle_seconds`."""
    with limited.client(headers={"x-api-key": "k", "x-standin-events": "6", "x-standin-delay-ms": "400"}) as http:
        answer = http.post(limited.url("api.anthropic.com", "/v1/messages"), json=MESSAGE | {"stream": True})
    assert answer.status_code == 200 and "message_stop" in answer.text


@pytest.mark.parametrize("more", [b"", b"Expect: 100-continue\r\n"])
def test_refused_request_gets_a_response_before_its_body_arrives(limited, more):
    with connected(limited.ports["sandbox"]) as sock:
        sock.sendall(REFUSED + more)
        sock.sendall(b"Content-Length: 1000000000\r\n\r\n" + b"x" * 1000)
        answer = read_head(sock)
        assert status_of(answer) == 403 and b"connection: close" in answer.lower()


def test_the_body_of_a_refused_request_is_read_up_to_a_limit(limited):
    with connected(limited.ports["sandbox"]) as sock:
        sock.sendall(REFUSED + b"Content-Length: 50000000\r\n\r\n")
        assert status_of(read_head(sock)) == 403
        sent = 0
        with pytest.raises(OSError):  # Broken pipe or reset, because the proxy closed the connection.
            while sent < 50_000_000:
                sent += sock.send(b"x" * 65536)
        # The sender can send more than the limit, because socket buffers hold bytes that the proxy has not read.
        assert sent < 20_000_000


def test_pipelined_bytes_are_not_buffered_without_limit(limited, providers):
    with connected(limited.ports["gateway"]) as sock:
        assert status_of(connect(sock, f"api.anthropic.com:{providers.port}")) == 200
        with tls(sock, "api.anthropic.com", limited.root) as secured:
            body = json.dumps(MESSAGE | {"stream": True})
            secured.sendall(
                b"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com:%d\r\nx-standin-events: 100\r\n"
                b"x-standin-delay-ms: 200\r\nx-api-key: k\r\nContent-Length: %d\r\n\r\n%s"
                % (providers.port, len(body), body.encode())
            )
            with pytest.raises(OSError):
                for _ in range(2000):
                    secured.sendall(b"x" * 65536)


@pytest.mark.parametrize("begun", [b"", b"Transfer-Encoding: chunked\r\n\r\n"], ids=["head", "chunk size"])
def test_endless_responses_do_not_accumulate(tmp_path, begun):
    sent = []

    def endless(sock):
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + begun)
        with contextlib.suppress(OSError):
            while len(sent) < 500:
                sock.sendall(b"0" * 65536)
                sent.append(65536)

    with LLMProviders(http_port=0, tls_dir=tmp_path / "tls") as providers:
        certificate = tmp_path / "tls" / "cert.pem", tmp_path / "tls" / "key.pem"
        with hostile.listening(*certificate, {"endless": endless}) as port:
            proxy = RunningProxy(tmp_path, [port], providers.ca_file)
            with (
                proxy,
                proxy.client(headers={"x-api-key": "k"}) as http,
                contextlib.suppress(httpx.RemoteProtocolError),
            ):
                assert http.post(proxy.url("api.anthropic.com", "/endless"), json=MESSAGE).status_code == 502
            (row,) = proxy.exchanges()
    assert row.outcome == "upstream_error"
    # The sender can send more than the limit, because socket buffers hold bytes that the proxy has not read.
    assert sum(sent) < 20_000_000


def test_trailers_are_dropped(limited, providers):
    with connected(limited.ports["gateway"]) as sock:
        assert status_of(connect(sock, f"api.anthropic.com:{providers.port}")) == 200
        with tls(sock, "api.anthropic.com", limited.root) as secured:
            body = json.dumps(MESSAGE)
            secured.sendall(
                b"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com:%d\r\nTransfer-Encoding: chunked\r\n"
                b"Connection: close\r\nX-Api-Key: k\r\n\r\n%x\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n"
                % (providers.port, len(body), body.encode())
            )
            assert status_of(read_all(secured)) == 200


def test_class_at_its_connection_limit_does_not_affect_others(limited, providers):
    denied = len(limited.denials())
    held = [socket.create_connection(("127.0.0.1", limited.ports["sandbox"]), 10) for _ in range(8)]
    try:
        with connected(limited.ports["sandbox"]) as sock:
            assert ends(sock, 5) == b""
        assert status_of(exchange(limited.ports["gateway"], site(providers) + b"\r\n")) == 200
    finally:
        for one in held:
            one.close()
    # Accept several denials: a connection of an earlier test may still count, so the proxy may also refuse one of the
    # eight above.
    rows = limited.denials()[denied:]
    assert {(row.class_name, row.rule) for row in rows} == {("sandbox", "classes.sandbox.limits.connections")}
    end = time.monotonic() + 10
    while not exchange(limited.ports["sandbox"], site(providers) + b"\r\n"):
        assert time.monotonic() < end, "closed connections still count towards the limit"


def test_requests_per_minute_are_limited(limited, providers):
    answers = [exchange(limited.ports["build"], site(providers) + b"\r\n") for _ in range(5)]
    assert [status_of(answer) for answer in answers][:3] == [200, 200, 200]
    assert status_of(answers[-1]) == 429 and b"retry-after: " in answers[-1].lower()
    assert limited.denials()[-1].rule == "classes.build.limits.requests_per_minute"
