"""Fail-closed tests: they raise exceptions in access control, in the recorder, and in the functions that these call.

When a hook raises, mitmproxy continues as if nothing had happened. The tests therefore raise an exception once at each
line that a request runs. A denied request must not reach the upstream, an inspected one must not reach it unrecorded,
and the proxy must serve the next request.
"""

import contextlib
import http.client
import inspect
import logging

import pytest

from openclaw_egress.app import launcher
from openclaw_egress.app.decision_log import DecisionLog
from openclaw_egress.observability import metrics
from openclaw_egress.policy import destination, model
from openclaw_egress.proxy import (
    access_control,
    client_session,
    connection_grants,
    error_responses,
    fail_closed,
    layers,
    recorder,
    request_checks,
    resolver,
    websocket_recording,
)
from openclaw_egress.recording import capture, denials, websocket_messages
from openclaw_egress.spool.writer import Spool
from openclaw_egress.wire import websocket_frames
from tests.integration.proxy.faults import (
    INSPECTED,
    RAW,
    TUNNELLED,
    Faults,
    ProxyHere,
    Upstream,
    ask,
    describe,
    functions_of,
    text_of,
)
from tests.integration.proxy.raw import read_all, read_head, status_of

# ── clients; each yields once, before the test injects a fault ───────────────────────────────────────────────────


def an_inspected_request(proxy, path):
    yield
    with proxy.tunnel(INSPECTED) as sock:
        return ask(sock, "POST", path, at_tls(proxy), "content-length: 14", body=b'{"model": "m"}')


def an_inspected_request_in_chunks(proxy, path):
    yield
    with proxy.tunnel(INSPECTED) as sock:
        body = b'8\r\n{"model"\r\n6\r\n: "m"}\r\n0\r\n\r\n'
        return ask(sock, "POST", path, at_tls(proxy), "transfer-encoding: chunked", body=body)


def an_inspected_stream(proxy, path):
    yield
    proxy.upstream.acknowledged.clear()
    with proxy.tunnel(INSPECTED) as sock:
        return ask(sock, "GET", f"/stream{path}", at_tls(proxy), after_first=proxy.upstream.acknowledged.set)


def a_long_inspected_request_and_answer(proxy, path):
    yield
    with proxy.tunnel(INSPECTED) as sock:
        return ask(sock, "POST", f"/long{path}", at_tls(proxy), "content-length: 3000", body=b"x" * 3000)


def an_inspected_request_that_the_provider_does_not_answer(proxy, path):
    yield
    with proxy.tunnel(INSPECTED) as sock:
        ask(sock, "GET", f"/broken{path}", at_tls(proxy))


def an_inspected_request_that_offers_another_protocol(proxy, path):
    yield
    with proxy.tunnel(INSPECTED) as sock:
        return ask(sock, "GET", path, at_tls(proxy), "connection: upgrade", "upgrade: h2c", "http2-settings: AAMA")


def an_inspected_request_without_tls(proxy, path):
    yield
    with proxy.client() as sock:
        return ask(sock, "GET", f"http://{at_plain(proxy, INSPECTED)}{path}", at_plain(proxy, INSPECTED))


def a_tunnelled_request(proxy, path):
    yield
    with proxy.tunnel(TUNNELLED) as sock:
        ask(sock, "GET", path, at_tls(proxy, TUNNELLED))


def a_plain_request(proxy, path):
    yield
    with proxy.client("report") as sock:
        host = at_plain(proxy)
        ask(sock, "GET", f"http://{host}{path}", host, "proxy-authorization: Basic c2VjcmV0")


def a_plain_request_in_a_tunnel(proxy, path):
    yield
    with proxy.tunnel(TUNNELLED, tls=False) as sock:
        ask(sock, "GET", path, at_plain(proxy))


def a_plain_request_to_a_name_that_is_looked_up(proxy, path):
    yield
    with proxy.client() as sock:
        ask(sock, "GET", f"http://{at_plain(proxy, 'localhost')}{path}", at_plain(proxy, "localhost"))


def bytes_that_a_rule_lets_pass(proxy, path):
    yield
    with proxy.tunnel(RAW, tls=False) as sock:
        ask(sock, "GET", path, at_plain(proxy, RAW))


def a_websocket(proxy, path):
    yield
    with proxy.client() as sock:
        host = at_plain(proxy)
        lines = f"GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n{WEBSOCKET}\r\n\r\n"
        sock.sendall(lines.encode())
        if status_of(read_head(sock)) == 101:
            read_all(sock)


def an_inspected_websocket(proxy, path):
    """Send a text message, which the upstream may receive only after the proxy has recorded it.

    Read the response message.
    """
    yield
    send_message(proxy, f"/socket{path}", f"hello {path}")


def an_inspected_websocket_with_responses(proxy, path):
    yield
    send_message(proxy, f"/socket{path}/responses", f'{{"type":"response.create","model":"m","input":"{path}"}}')


def send_message(proxy, path, text):
    """Open a WebSocket to an inspected host, send a text message, and read until the end."""
    with proxy.tunnel(INSPECTED) as sock:
        lines = f"GET {path} HTTP/1.1\r\nHost: {at_tls(proxy)}\r\n{WEBSOCKET}\r\n\r\n"
        sock.sendall(lines.encode())
        if status_of(read_head(sock)) == 101:
            message = text.encode()
            sock.sendall(bytes([0x81, 0x80 | len(message)]) + bytes(4) + message)
            read_all(sock)


def a_request_to_a_closed_port(proxy, path):
    yield
    with proxy.client() as sock:
        host = f"{TUNNELLED}:{proxy.closed_port}"
        ask(sock, "GET", f"http://{host}/denied{path}", host)


def a_denied_tunnel(proxy, _):
    yield
    with proxy.tunnel(TUNNELLED, "sandbox"):
        pass


def a_denied_plain_request(proxy, path):
    yield
    with proxy.client("sandbox") as sock:
        ask(sock, "GET", f"http://{at_plain(proxy)}/denied{path}", at_plain(proxy))


def a_denied_path(proxy, path):
    yield
    with proxy.tunnel(INSPECTED) as sock:
        ask(sock, "GET", f"/denied{path}", at_tls(proxy))


def a_denied_path_after_an_allowed_one(proxy, path):
    with proxy.tunnel(INSPECTED) as sock:
        ask(sock, "GET", f"/before{path}", at_tls(proxy))
        yield
        ask(sock, "GET", f"/denied{path}", at_tls(proxy))


def a_denied_path_with_a_long_body_after_an_allowed_one(proxy, path):
    with proxy.tunnel(INSPECTED) as sock:
        ask(sock, "GET", f"/before{path}", at_tls(proxy))
        yield
        chunks = b"5\r\nhello\r\n0\r\n\r\n"
        ask(sock, "POST", f"/denied{path}", at_tls(proxy), "transfer-encoding: chunked", body=chunks)


def another_host_in_a_tunnel_after_an_allowed_one(proxy, path):
    with proxy.tunnel(INSPECTED) as sock:
        ask(sock, "GET", f"/before{path}", at_tls(proxy))
        yield
        ask(sock, "GET", f"/denied{path}", "elsewhere.example")


def another_name_in_tls(proxy, path):
    yield
    with proxy.tunnel(INSPECTED, sni=TUNNELLED) as sock:
        ask(sock, "GET", f"/denied{path}", at_tls(proxy))


def a_name_at_a_guarded_address(proxy, path):
    yield
    with proxy.client("narrow") as sock:
        ask(sock, "GET", f"http://{at_plain(proxy)}/denied{path}", at_plain(proxy))


def a_guarded_address(proxy, path):
    yield
    with proxy.client("narrow") as sock:
        ask(sock, "GET", f"http://{at_plain(proxy, '0x7f.1')}/denied{path}", at_plain(proxy, "0x7f.1"))


def what_is_no_host(proxy, path):
    yield
    with proxy.client() as sock:
        ask(sock, "GET", f"http://{at_plain(proxy, '09.1')}/denied{path}", at_plain(proxy, "09.1"))


def https_in_absolute_form(proxy, path):
    yield
    with proxy.client() as sock:
        ask(sock, "GET", f"https://{at_tls(proxy)}/denied{path}", at_tls(proxy))


def bytes_after_connect_that_are_no_tls(proxy, path):
    yield
    with proxy.tunnel(TUNNELLED, tls=False) as sock:
        sock.sendall(f"SSH-2.0-client\r\nGET /denied{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        read_all(sock)


def another_host_in_a_plain_tunnel(proxy, path):
    yield
    with proxy.tunnel(TUNNELLED, tls=False) as sock:
        sock.sendall(f"GET /denied{path} HTTP/1.1\r\nHost: {at_plain(proxy, INSPECTED)}\r\n\r\n".encode())
        read_all(sock)


def tls_straight_to_a_listener(proxy, path):
    yield
    with proxy.client() as sock, proxy.context.wrap_socket(sock, server_hostname=INSPECTED) as inside:
        ask(inside, "GET", f"/denied{path}", at_tls(proxy))


def a_websocket_to_an_inspected_host(proxy, path):
    yield
    with proxy.tunnel(INSPECTED) as sock:
        sock.sendall(f"GET /denied{path} HTTP/1.1\r\nHost: {at_tls(proxy)}\r\n{WEBSOCKET}\r\n\r\n".encode())
        read_head(sock)


WEBSOCKET = (
    "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
)

SOCKETS = (an_inspected_websocket, an_inspected_websocket_with_responses)
HELD = (
    an_inspected_request,
    an_inspected_request_that_the_provider_does_not_answer,
    an_inspected_request_that_offers_another_protocol,
    an_inspected_request_without_tls,
)
STREAMED = (an_inspected_request_in_chunks, an_inspected_stream, a_long_inspected_request_and_answer)
NOT_INSPECTED = (
    a_tunnelled_request,
    a_plain_request,
    a_plain_request_in_a_tunnel,
    a_plain_request_to_a_name_that_is_looked_up,
    bytes_that_a_rule_lets_pass,
    a_websocket,
)
DENIED_AT_ONCE = (
    a_denied_tunnel,
    a_denied_plain_request,
    a_denied_path,
    another_name_in_tls,
    a_name_at_a_guarded_address,
    a_guarded_address,
    what_is_no_host,
    https_in_absolute_form,
    bytes_after_connect_that_are_no_tls,
    another_host_in_a_plain_tunnel,
    tls_straight_to_a_listener,
    a_websocket_to_an_inspected_host,
)
DENIED_LATER = (
    a_denied_path_after_an_allowed_one,
    a_denied_path_with_a_long_body_after_an_allowed_one,
    another_host_in_a_tunnel_after_an_allowed_one,
)
UNREACHABLE = (a_request_to_a_closed_port,)
INSPECTED_ONES, ALLOWED = HELD + STREAMED, HELD + STREAMED + NOT_INSPECTED + SOCKETS
DENIED = DENIED_AT_ONCE + DENIED_LATER + UNREACHABLE
KINDS = {
    "held": HELD,
    "streamed": STREAMED,
    "WebSocket": SOCKETS,
    "not inspected": NOT_INSPECTED,
    "denied at once": DENIED_AT_ONCE,
    "denied later": DENIED_LATER,
    "unreachable": UNREACHABLE,
}


def at_tls(proxy, host=INSPECTED):
    return f"{host}:{proxy.upstream.tls.server_port}"


def at_plain(proxy, host=TUNNELLED):
    return f"{host}:{proxy.upstream.plain.server_port}"


# ── one client with a fault ──────────────────────────────────────────────────────────────────────────────────────


class Trials:
    """A runner for test clients. It runs them against one proxy, and reports the problems that it finds."""

    def __init__(self, proxy):
        self.proxy, self.upstream = proxy, proxy.upstream
        self.number = 0

    def play(self, client, place=None):
        """Run a client once. If ``place`` is given, raise at this code line. Return descriptions of the problems."""
        self.number += 1
        path, answer, problems = f"/{self.number}", None, []
        seen = len(self.upstream.requests)
        steps = client(self.proxy, path)
        next(steps)
        connections = self.upstream.connections()
        with self.proxy.faults.at(place):
            try:
                next(steps)
            except StopIteration as end:
                answer = end.value
            except TimeoutError:
                problems.append("the client received no response before its timeout")
            except (OSError, http.client.HTTPException):
                pass  # A refused or aborted connection is the expected result.
            finally:
                steps.close()
            if not self.proxy.gone():
                problems.append("the proxy did not notice the end of the connection")
                self.proxy.clients = self.proxy.witness.gone
        arrived = [found for _, found in self.upstream.requests[seen:]]
        if client in DENIED and (self.upstream.connections() > connections or f"/denied{path}" in arrived):
            problems.append("a denied request reached the upstream")
        if self.upstream.unrecorded:
            problems.append("an inspected request reached the upstream without a record")
            self.upstream.unrecorded.clear()
        if client in INSPECTED_ONES and answer and answer[0] == 200 and not self.proxy.complete(path):
            problems.append("the client received a response of an exchange that is not recorded")
        if (
            place is None
            and client in ALLOWED
            and not [found for found in arrived if found.removesuffix("/responses").endswith(path)]
        ):
            problems.append("an allowed request did not reach the upstream")
        return problems


CALLED = (
    model,
    destination,
    client_session,
    connection_grants,
    resolver,
    error_responses,
    layers,
    denials,
    metrics,
    capture,
    websocket_messages,
    websocket_frames,
    Spool,
)
"""Code that the hooks call. For each function of this code, the tests raise only at its first line."""

OWN_FILES = tuple(
    module.__file__ for module in (access_control, fail_closed, request_checks, recorder, websocket_recording)
)


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    directory = tmp_path_factory.mktemp("faults")
    upstream = Upstream(directory)
    hooks = [*functions_of(access_control, recorder, websocket_recording), DecisionLog.denied, DecisionLog.allowed]
    with pytest.MonkeyPatch.context() as patch, Faults([*hooks, *functions_of(*CALLED)]) as faults:
        patch.setattr(recorder, "BUFFER_LIMIT", 1000)
        patch.setattr(recorder, "JOURNAL_SECONDS", 0.0)
        proxy = ProxyHere(directory, upstream, faults)
        patch.setattr(launcher.errorcheck, "ErrorCheck", lambda: proxy.witness)
        logging.disable(logging.CRITICAL)
        with contextlib.closing(upstream), proxy:
            yield Trials(proxy)
        logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def reached(trials):
    """For each client, return the code lines that the proxy runs when nothing raises."""
    found = {}
    for client in (*ALLOWED, *DENIED):
        trials.proxy.faults.reached.clear()
        assert trials.play(client) == [], client.__name__
        found[client] = dict.fromkeys(trials.proxy.faults.reached)
    return found


def places(reached, own):
    """Return the code lines at which the tests raise, each with the clients that reach it."""
    found = {}
    for client, passed in reached.items():
        for place in passed:
            if (place[0].co_filename in OWN_FILES) is own:
                found.setdefault(place, []).append(client)
    # Skip `try:` lines: they cannot raise. In `fails_closed`, an exception injected there would not be caught, because
    # the block has not begun.
    found = {place: clients for place, clients in found.items() if text_of(place) != "try:"}
    if own:
        return found
    first = {}
    for place in found:
        first.setdefault(place[0], place)
    return {place: found[place] for place in first.values()}


@pytest.mark.parametrize("kind", KINDS)
def test_no_line_of_a_hook_fails_open(trials, reached, kind):
    assert raise_at(trials, places(reached, own=True), KINDS[kind]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_function_that_a_hook_calls_fails_open(trials, reached, kind):
    assert raise_at(trials, places(reached, own=False), KINDS[kind]) == []


def raise_at(trials, places, kind):
    """For each code line, run a client that reaches the line, and raise there. Return the problems found."""
    found = []
    for number, (place, clients) in enumerate(places.items()):
        if passing := [client for client in kind if client in clients]:
            client = passing[number % len(passing)]
            found += [f"{describe(place)}: {client.__name__}: {problem}" for problem in trials.play(client, place)]
    return found + [
        f"afterwards, {client.__name__}: {problem}" for client in ALLOWED for problem in trials.play(client)
    ]


def test_websocket_without_a_recorder_is_not_relayed(trials, monkeypatch):
    monkeypatch.setattr(recorder.Recorder, "_begin_messages", lambda *_: None)
    steps = an_inspected_websocket(trials.proxy, "/unknown")
    next(steps)
    with contextlib.suppress(OSError, StopIteration):
        next(steps)
    assert trials.proxy.gone()
    assert trials.upstream.unrecorded == []


def test_every_hook_was_tested_with_a_fault(reached):
    passed = {place[0] for found in reached.values() for place in found}
    for owner in (access_control.AccessControl, recorder.Recorder):
        hooks = {name: inspect.unwrap(getattr(owner, name)).__code__ for name in fail_closed.guarded_hooks(owner)}
        assert {name for name, code in hooks.items() if code not in passed} <= {"done", "abandon"}
