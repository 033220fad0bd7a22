"""Limits for HTTP/1 clients, because mitmproxy's own layers keep an unlimited amount of a client's data in memory.

The limits bound the memory and the time that one client can use:

- the size of a request's head (status 431);
- the time without progress in a head (status 408) or in a body;
- the bytes that a client sends before it has received the previous response;
- the time until the client begins to use a tunnel;
- the duration of a connection, if `total_seconds` is set.

A refused request gets its response immediately, not after its body; the rest of the body is then read and discarded, up
to `DRAIN_BYTES`. ``http1_responses`` limits the heads of server responses. ``http1_chunks`` drops trailers, because
mitmproxy raises an exception for them. A recipient may drop trailers (RFC 9110, section 6.5.1).

``http1_syntax`` checks heads and chunks as received, before mitmproxy normalises them. The ``refuse`` function records
every refusal and returns the response; the proxy never sends mitmproxy's own error pages.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any, Protocol

from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, context, events, layers
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers.http import HTTPMode, SendHttp
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpResponseHeadersHook
from mitmproxy.proxy.layers.http._http1 import Http1Server, make_body_reader

from openclaw_egress.policy.codes import NOTHING, Code, Evidence
from openclaw_egress.policy.model import Limits
from openclaw_egress.proxy import memory
from openclaw_egress.proxy.error_responses import is_refusal
from openclaw_egress.proxy.hop_by_hop import connection_values
from openclaw_egress.proxy.http1_chunks import StrictBodies, buffered_chunks_problem
from openclaw_egress.proxy.http1_responses import MalformedResponse
from openclaw_egress.proxy.layers import Commands
from openclaw_egress.proxy.log_scrubber import without_traffic
from openclaw_egress.proxy.options import SILENCE_SECONDS
from openclaw_egress.proxy.websocket_layer import RELAY, unrecorded_relay
from openclaw_egress.wire import http1_syntax
from openclaw_egress.wire.proxy_status import OUR_NAME

DRAIN_BYTES = 1024 * 1024
"""Maximum bytes to read and discard from the body of a refused request.

Closing the connection with unread bytes could lose the response.
"""


AHEAD_BYTES = 256 * 1024
"""Maximum bytes that a client may send before the previous response is complete, in addition to one head."""


RESPONSE_PROBLEM = "openclaw_egress.response_problem"
"""Key in ``flow.metadata``. The value says what is malformed in the server's response."""


_METHOD = re.compile(rb"([A-Z]{1,16}) ")


log = logging.getLogger("openclaw_egress.http1_limits")


class Refusing(Protocol):
    """Function that records a refusal for which mitmproxy calls no hook."""

    def __call__(
        self,
        status: int | None,
        code: Code,
        evidence: Evidence,
        *,
        method: str = "-",
        request: http.Request | None = None,
        counted: bool = False,
    ) -> bytes:
        """Record the refusal and return the response for the client.

        Args:
            status: status code of the response, or None if no response can be sent. The class's rate limit can change
                it to 429.
            code: the kind of the refusal.
            evidence: the limit that was reached, or the malformed part; never bytes from the client.
            method: method of the request, if it is known.
            request: the request, if it could be parsed.
            counted: whether the request already counted towards the class's rate limit.
        """


class BoundedHttpLayer(layers.HttpLayer):
    """The HTTP layer for a client's connection, which enforces the limits of the client's class.

    Args:
        limits: the limits of the client's class.
        refuse: records a refusal and returns its response.
        tunnel_in_use: returns whether the client has begun to use its tunnel; until then, `header_seconds` is the
            timeout.
    """

    def __init__(
        self,
        context: context.Context,
        mode: HTTPMode,
        limits: Limits,
        refuse: Refusing,
        tunnel_in_use: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(context, mode)
        self.connections[context.client] = BoundedHttp1Server(
            context.fork(), limits, refuse, tunnel_in_use, tunnelled=mode is HTTPMode.transparent
        )
        memory.watch(context.client, self)

    def make_stream(self, stream_id: int) -> Commands:
        """Replace mitmproxy's method: create a stream that responds to refused requests immediately."""
        self.streams[stream_id] = PromptStream(self.context.fork(), stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())


class PromptStream(http_layers.HttpStream):
    """A stream that sends the response of a hook immediately, without waiting for the request's body."""

    def state_wait_for_request_headers(self, event: RequestHeaders) -> Commands:
        """Extend mitmproxy's method: if a hook has set a response, send it immediately."""
        yield from super().state_wait_for_request_headers(event)
        if event.end_stream or self.client_state != self.state_consume_request_body or self.flow.response is None:
            return
        yield from self._answer_at_once()

    def state_consume_request_body(self, event: events.Event) -> Commands:
        """Extend mitmproxy's method: refuse a body if the memory budget is used up; free a body once it is sent."""
        if isinstance(event, RequestData) and memory.refuse_held(self.context.client, self.flow):
            self.request_body_buf = type(self.request_body_buf)()
            yield from self._answer_at_once()
            return
        yield from super().state_consume_request_body(event)
        if isinstance(event, RequestEndOfMessage):
            self.flow.request.data.content = None

    def handle_protocol_error(self, event: RequestProtocolError | ResponseProtocolError) -> Commands:
        """Extend mitmproxy's method: also store the problem of a malformed response in the flow's metadata."""
        if isinstance(event, MalformedResponse):
            self.flow.metadata[RESPONSE_PROBLEM] = event.problem
        yield from super().handle_protocol_error(event)

    def send_response(self, already_streamed: bool = False) -> Commands:
        """Extend mitmproxy's method: free the body once it is sent."""
        yield from super().send_response(already_streamed)
        if self.flow.response is not None:
            self.flow.response.data.content = None

    def flow_done(self) -> Commands:
        """Extend mitmproxy's method: relay a WebSocket with our own layer.

        If the WebSocket must be recorded and the recorder is not ready, close the connection instead.
        """
        if not self.flow.websocket or self.flow.response is None or self.flow.response.status_code != 101:
            yield from super().flow_done()
            return
        relay = self.flow.metadata.get(RELAY, unrecorded_relay)
        if relay is None:
            self.client_state = self.server_state = self.state_errored
            yield commands.CloseConnection(self.context.client)
            return
        self.child_layer = relay(self.context)
        self._handle_event = self.passthrough
        yield from self.child_layer.handle_event(events.Start())
        # As in mitmproxy's method, start the child layer first, because data can follow immediately.
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def _answer_at_once(self) -> Commands:
        """Send the response that a hook has set, and ignore the rest of the request's body."""
        if self.flow.response is None:
            return
        self.client_state = self.state_errored
        self.flow.response.headers["connection"] = "close"
        self.flow.response.timestamp_start = time.time()
        yield HttpResponseHeadersHook(self.flow)
        if (yield from self.check_killed(True)):
            return
        yield from self.send_response()
        if self.server_state == self.state_done:
            yield from self.flow_done()


class BoundedHttp1Server(StrictBodies, Http1Server):
    """The HTTP/1 connection to a client: it parses requests strictly and enforces the limits of the client's class."""

    def __init__(
        self,
        context: context.Context,
        limits: Limits,
        refuse: Refusing,
        tunnel_in_use: Callable[[], bool],
        *,
        tunnelled: bool = False,
    ) -> None:
        super().__init__(context)
        self._tunnelled = tunnelled
        self._limits = limits
        self._refuse = refuse
        self._tunnel_in_use = tunnel_in_use
        self._began = self._since = time.monotonic()
        self._drained = 0
        self._blank_line_before = 0

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Wakeup):
            yield from self._look_at_the_clock()
            return
        before, had = self._doing, len(self.buf)
        yield from super()._handle_event(event)
        if isinstance(event, events.Start):
            yield commands.RequestWakeup(self._tick)
        elif isinstance(event, events.DataReceived):
            yield from self._check_buffer(len(event.data))
        # Do not restart the timeout when more bytes of a head arrive: a client could send the head byte by byte.
        if self._doing != before or self.state != self.read_headers or not had:
            self._since = time.monotonic()

    @property
    def _doing(self) -> tuple[Any, int]:
        return self.state, self.stream_id

    # ── size ─────────────────────────────────────────────────────────────────────────────────────────────────

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        """Accept a well-formed head within the limits. Refuse any other head as soon as its bytes prove a violation."""
        if not isinstance(event, events.DataReceived):
            if self.buf:
                method = _method(bytes(self.buf))
                yield from self._give_up(400, Code.INCOMPLETE_HEAD, method=method)
            else:
                yield from super().read_headers(event)
            return
        received = bytes(self.buf)
        if received.startswith(b"\r\n") and self._blank_line_before != self.stream_id:
            # Ignore one empty line before the request line (RFC 9112, section 2.2).
            self._blank_line_before = self.stream_id
            self.buf.maybe_extract_at_most(2)
            received = received[2:]
        if not received or (received == b"\r" and self._blank_line_before != self.stream_id):
            return
        if not http1_syntax.begins_like_request(received):
            yield from self._give_up(400, Code.NOT_HTTP)
            return
        end = http1_syntax.END_OF_HEAD.search(received)
        size = end.end() if end else len(received)
        method = _method(received)
        if size > self._limits.header_bytes:
            yield from self._give_up(
                431,
                Code.HEAD_TOO_LARGE,
                Evidence(limit="header_bytes", most=self._limits.header_bytes),
                method=method,
            )
        # Subtract the request line and the final empty line, because the limit is for header fields only.
        elif end and received.count(b"\n", 0, size) - 2 > self._limits.headers:
            yield from self._give_up(
                431, Code.TOO_MANY_HEADERS, Evidence(limit="headers", most=self._limits.headers), method=method
            )
        elif end:
            if problem := http1_syntax.request_problem(received[:size]):
                yield from self._give_up(400, Code.MALFORMED_REQUEST, Evidence(detail=problem), method=method)
            else:
                yield from self._take_request(event, received[size:], method)

    def _take_request(self, event: events.DataReceived, rest: bytes, method: str) -> Commands:
        lines = [bytes(line) for line in self.buf.maybe_extract_lines() or ()]
        try:
            request = http1.read_request_head(lines)
            size = http1.expected_http_body_size(request)
        except ValueError:
            problem = "the target is not a valid destination"
            yield from self._give_up(400, Code.MALFORMED_REQUEST, Evidence(detail=problem), method=method)
            return
        if wrong := self._target_problem(request) or http1_syntax.connection_problem(connection_values(request)):
            evidence = Evidence(detail=wrong)
            yield from self._give_up(400, Code.MALFORMED_REQUEST, evidence, method=method, request=request)
            return
        # If the received part of the body is malformed, refuse the request now: the head is forwarded before the
        # remaining body arrives.
        if size is None and (problem := buffered_chunks_problem(rest)):
            yield from self._give_up(
                400, Code.MALFORMED_REQUEST, Evidence(detail=problem), method=method, request=request
            )
            return
        self.request = request
        yield ReceiveHttp(RequestHeaders(self.stream_id, request, size == 0))
        self.body_reader = make_body_reader(size)
        if self.state == self.read_headers:
            self.state = self.read_body
            yield from self.state(event)

    def _target_problem(self, request: http.Request) -> str:
        """Return why this form of request target is invalid here (RFC 9112, section 3.2), or an empty string.

        Outside a tunnel, only the absolute form and CONNECT are valid, because the other forms name no destination.
        mitmproxy would take the destination from the Host header, which the client may have set for another hop.
        Requests to the health endpoint do not arrive here, because it has its own port.

        Inside a tunnel, CONNECT has named the destination. The origin form is therefore valid there, and so is
        `OPTIONS *`, which addresses the server as a whole. The policy treats `*` as a path that no rule can name:
        every denying rule with paths matches it, and no allowing rule with paths matches it.
        """
        if request.data.path == b"*" and request.data.method != b"OPTIONS":
            return "the target * is for OPTIONS only"
        if not self._tunnelled and not request.data.scheme and request.data.method != b"CONNECT":
            return "the target is not an absolute URL, which a proxy needs"
        return ""

    def read_body(self, event: events.Event) -> Commands:
        """Extend mitmproxy's method: respond to a malformed chunk and record the refusal."""
        for command in super().read_body(event):
            problem = getattr(self._reader, "problem", "")
            if problem and isinstance(command, commands.CloseConnection):
                self._reader.problem = ""
                evidence = Evidence(detail=problem)
                if self.response is None:
                    yield from self._answer(400, Code.MALFORMED_REQUEST, evidence, request=self.request, counted=True)
                elif not self._refused:
                    self._record(None, Code.MALFORMED_REQUEST, evidence, request=self.request, counted=True)
            yield command

    @property
    def _refused(self) -> bool:
        """Return whether this proxy has already refused the request and recorded the refusal."""
        return self.response is not None and is_refusal(self.response)

    def _check_buffer(self, received: int) -> Commands:
        """Close the connection if the client sends too much data.

        `AHEAD_BYTES` limits the data before the previous response is complete; `DRAIN_BYTES` limits the body of a
        refused request.
        """
        if self.state == self.read_body and self.response_done:
            self._drained += received
        if self._drained > DRAIN_BYTES:
            yield commands.CloseConnection(self.conn)
        elif len(self.buf) > self._limits.header_bytes + AHEAD_BYTES:
            self._record(None, Code.SENT_AHEAD, Evidence(most=AHEAD_BYTES), counted=True)
            yield commands.CloseConnection(self.conn)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _tick(self) -> float:
        bounds = (self._limits.header_seconds, self._limits.idle_seconds, self._limits.total_seconds or SILENCE_SECONDS)
        return min(bounds) / 2

    @property
    def _patience(self) -> float:
        """Return the seconds that may pass without progress, counted from ``_since``."""
        if self.state == self.read_headers:
            fresh = self.buf or self.stream_id == 1
            return self._limits.header_seconds if fresh else self._limits.idle_seconds
        if self.state == self.read_body:
            return self._limits.header_seconds if self.response_done else self._limits.idle_seconds
        if self.state == self.passthrough and not self._tunnel_in_use():
            return self._limits.header_seconds
        # Apply this timeout here, because mitmproxy's own timeout never expires: each `_tick` counts as activity.
        return SILENCE_SECONDS

    def _look_at_the_clock(self) -> Commands:
        if self.conn.state is ConnectionState.CLOSED:
            # In a tunnel, two layers check the timeout: one for the CONNECT, and one for the requests inside. The other
            # layer has already closed the connection.
            return
        if not self.conn.state & ConnectionState.CAN_READ and self.state in (self.read_headers, self.done):
            return
        now = time.monotonic()
        whole = self._limits.total_seconds
        if whole is not None and now - self._began > whole:
            evidence = Evidence(limit="total_seconds", most=whole)
            self._record(None, Code.CONNECTION_TIMEOUT, evidence, counted=True)
            yield commands.CloseConnection(self.conn)
        elif now - self._since <= self._patience:
            yield commands.RequestWakeup(self._tick)
        elif self.state == self.read_headers and self.buf:
            yield from self._give_up(
                408,
                Code.HEAD_TIMEOUT,
                Evidence(limit="header_seconds", most=self._limits.header_seconds),
                method=_method(bytes(self.buf)),
            )
        else:
            if self.state == self.read_body and not self.response_done:
                evidence = Evidence(limit="idle_seconds", most=self._limits.idle_seconds)
                if self.response is None:
                    yield from self._answer(408, Code.BODY_TIMEOUT, evidence, counted=True)
                else:
                    self._record(None, Code.BODY_TIMEOUT, evidence, counted=True)
            elif self.state == self.passthrough:
                evidence = Evidence(limit="header_seconds", most=self._limits.header_seconds)
                self._record(None, Code.TUNNEL_TIMEOUT, evidence, counted=True)
            # In the other states, no request is in progress, so there is no denial to record.
            yield commands.CloseConnection(self.conn)

    def send(self, event: HttpEvent) -> Commands:
        """Extend mitmproxy's method: restart the timeout after response bytes, and send our own error responses."""
        if isinstance(event, ResponseHeaders | ResponseData | ResponseEndOfMessage):
            self._since = time.monotonic()
        if isinstance(event, ResponseProtocolError):
            status = event.code.http_status_code()
            writable = self.conn.state & ConnectionState.CAN_WRITE
            if status is not None and self.response is None and writable:
                yield from self._give_up_request(status, event)
                return
        yield from super().send(event)

    def _give_up_request(self, status: int, event: ResponseProtocolError) -> Commands:
        """Send the proxy's own error response instead of mitmproxy's error page."""
        if status < 500:
            yield from self._give_up(status, *_invalid(event.code, self.request), request=self.request)
            return
        # Record nothing here: the `error` hook of access control or of the recorder has already recorded this failure.
        yield commands.SendData(self.conn, upstream_failed(event.message))
        yield commands.CloseConnection(self.conn)
        self._forget()

    def _give_up(
        self,
        status: int,
        code: Code,
        evidence: Evidence = NOTHING,
        *,
        method: str = "-",
        request: http.Request | None = None,
    ) -> Commands:
        yield from self._answer(status, code, evidence, method=method, request=request)
        yield commands.CloseConnection(self.conn)
        self._forget()

    def _answer(
        self,
        status: int,
        code: Code,
        evidence: Evidence = NOTHING,
        *,
        method: str = "-",
        request: http.Request | None = None,
        counted: bool = False,
    ) -> Commands:
        response = self._record(status, code, evidence, method=method, request=request, counted=counted)
        if response and self.conn.state & ConnectionState.CAN_WRITE:
            yield commands.SendData(self.conn, response)

    def _record(
        self,
        status: int | None,
        code: Code,
        evidence: Evidence = NOTHING,
        *,
        method: str = "-",
        request: http.Request | None = None,
        counted: bool = False,
    ) -> bytes:
        """Record a refusal and return the response. If recording fails, return no bytes; the request stays refused."""
        try:
            return self._refuse(status, code, evidence, method=method, request=request or self.request, counted=counted)
        except Exception as error:
            log.error("the refusal of a request could not be recorded", exc_info=error)
            return b""

    def _forget(self) -> None:
        self.buf = type(self.buf)()
        self.state = self.done


def upstream_failed(message: str) -> bytes:
    """Return the 502 response for a server that cannot be reached or whose response is malformed."""
    body = f"openclaw.egress: no usable response from the server.\nreason: {without_traffic(message)[:300]}\n"
    headers = {
        "Proxy-Status": f'{OUR_NAME.decode()}; error=http_protocol_error; details="upstream"',
        "Content-Type": "text/plain; charset=utf-8",
        "Connection": "close",
    }
    return bytes(http1.assemble_response(http.Response.make(502, body.encode("utf-8", "replace"), headers)))  # type: ignore[no-untyped-call]


def _method(received: bytes) -> str:
    """Return the method that the received bytes begin with, or ``-`` if they do not begin with a valid method."""
    found = _METHOD.match(received)
    return found[1].decode() if found else "-"


def _invalid(code: ErrorCode, request: http.Request | None) -> tuple[Code, Evidence]:
    """Return the code and the evidence for a request that passed our syntax checks but was refused by mitmproxy."""
    if code is ErrorCode.DESTINATION_UNKNOWN or request is None:
        return Code.NO_DESTINATION, NOTHING
    if request.method == "CONNECT":
        return Code.NESTED_CONNECT, NOTHING
    if request.scheme not in ("http", "https", ""):
        return Code.SCHEME_NOT_HTTP, NOTHING
    return Code.MALFORMED_REQUEST, Evidence(detail="the headers are not valid")
