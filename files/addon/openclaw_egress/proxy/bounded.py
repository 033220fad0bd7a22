"""HTTP/1 towards clients within bounds: mitmproxy's own layers hold what a client sends, without end, in memory.

What is bounded is what a client can make the proxy keep or wait for: a request's head (431), a head or body that does
not go on (408), bytes sent ahead of an answer, a tunnel in which nothing is said. A request that is refused is answered
at once and not after its body, which is then read and thrown away up to a limit. Towards servers the same holds for
heads. Trailers are dropped, which a recipient may do (RFC 9110, section 6.5.1): mitmproxy raises on them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from typing import Any

import h11
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, events, layers, server
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.layers.http._events import (
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
)
from mitmproxy.proxy.layers.http._hooks import HttpResponseHeadersHook
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Connection, Http1Server

from openclaw_egress.policy import Limits
from openclaw_egress.proxy import memory
from openclaw_egress.proxy.options import SILENCE_SECONDS

DRAIN_BYTES = 1024 * 1024
"""So much of a refused request's body is read: a connection that is closed on unread bytes loses the answer."""

AHEAD_BYTES = 256 * 1024
"""So much may wait in the buffer beyond a head: bytes sent ahead of an answer, a chunk's header that does not end."""

SERVER_HEAD_BYTES = 256 * 1024
"""What a server's head may have, and a chunk's; curl, as an example, takes 300 KB."""

type Commands = Generator[commands.Command, Any, None]

_END_OF_HEAD = re.compile(rb"\n\r?\n")


class BoundedHttpLayer(layers.HttpLayer):
    """HTTP/1 with a client, within the limits of its class.

    Args:
        limits: of the client's class.
        speaking: whether what a CONNECT asked for has begun to be spoken; until then the tunnel's patience is short.
    """

    def __init__(
        self,
        context: context.Context,
        mode: HTTPMode,
        limits: Limits,
        speaking: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(context, mode)
        self.connections[context.client] = BoundedHttp1Server(context.fork(), limits, speaking)
        memory.watch(context.client, self)

    def make_stream(self, stream_id: int) -> Commands:
        """As the original, with a stream that answers at once what is refused."""
        self.streams[stream_id] = PromptStream(self.context.fork(), stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())


class PromptStream(http_layers.HttpStream):
    """Sends the answer that a hook has given without waiting for the request's body."""

    def state_wait_for_request_headers(self, event: RequestHeaders) -> Commands:
        """As the original; then, where an answer is there already, that answer."""
        yield from super().state_wait_for_request_headers(event)
        if event.end_stream or self.client_state != self.state_consume_request_body or self.flow.response is None:
            return
        yield from self._answer_at_once()

    def state_consume_request_body(self, event: events.Event) -> Commands:
        """As the original, with a body that the memory budget can refuse, and that is freed when it was sent."""
        if isinstance(event, RequestData) and memory.refuse_held(self.context.client, self.flow):
            self.request_body_buf = type(self.request_body_buf)()
            yield from self._answer_at_once()
            return
        yield from super().state_consume_request_body(event)
        if isinstance(event, RequestEndOfMessage):
            self.flow.request.data.content = None

    def send_response(self, already_streamed: bool = False) -> Commands:
        """As the original; a body that was sent is freed."""
        yield from super().send_response(already_streamed)
        if self.flow.response is not None:
            self.flow.response.data.content = None

    def _answer_at_once(self) -> Commands:
        """Send the response that is set, and ignore the rest of the request's body."""
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


class _WithoutTrailers:
    """One of h11's body readers, without the trailers that it found."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.read_eof = reader.read_eof

    def __call__(self, buffer: Any) -> Any:
        event = self._reader(buffer)
        return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) and event.headers else event


class _Bounded(Http1Connection):
    """What holds for both sides."""

    _reader: _WithoutTrailers

    @property
    def body_reader(self) -> Any:
        """The reader of the present body; mitmproxy sets it for each."""
        return self._reader

    @body_reader.setter
    def body_reader(self, reader: Any) -> None:
        self._reader = _WithoutTrailers(reader)


class BoundedHttp1Server(_Bounded, Http1Server):
    """Reads a client's requests; see the module's text."""

    def __init__(self, context: context.Context, limits: Limits, speaking: Callable[[], bool]) -> None:
        super().__init__(context)
        self._limits = limits
        self._speaking = speaking
        self._began = self._since = time.monotonic()
        self._drained = 0

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
        # A head that comes byte by byte does not begin anew with each.
        if self._doing != before or self.state != self.read_headers or not had:
            self._since = time.monotonic()

    @property
    def _doing(self) -> tuple[Any, int]:
        return self.state, self.stream_id

    # ── size ─────────────────────────────────────────────────────────────────────────────────────────────────

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        """As the original, for a head within the limits."""
        if isinstance(event, events.DataReceived) and (problem := self._oversized()):
            yield from self._give_up(431, "Request Header Fields Too Large", problem)
        else:
            yield from super().read_headers(event)

    def _oversized(self) -> str | None:
        received = bytes(self.buf)
        end = _END_OF_HEAD.search(received)
        if (end.end() if end else len(received)) > self._limits.header_bytes:
            return f"the request's head has more than {self._limits.header_bytes} bytes"
        # The request line, and the empty one at the end.
        if end and received.count(b"\n", 0, end.end()) - 2 > self._limits.headers:
            return f"the request has more than {self._limits.headers} header fields"
        return None

    def _check_buffer(self, received: int) -> Commands:
        """Nothing piles up: neither behind a request that is being answered, nor of a body that nobody wants."""
        if self.state == self.read_body and self.response_done:
            self._drained += received
        if self._drained > DRAIN_BYTES or len(self.buf) > self._limits.header_bytes + AHEAD_BYTES:
            yield commands.CloseConnection(self.conn)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _tick(self) -> float:
        bounds = (self._limits.header_seconds, self._limits.idle_seconds, self._limits.total_seconds or SILENCE_SECONDS)
        return min(bounds) / 2

    @property
    def _patience(self) -> float:
        """How many seconds the client may let pass now, counted from ``_since``."""
        if self.state == self.read_headers:
            fresh = self.buf or self.stream_id == 1
            return self._limits.header_seconds if fresh else self._limits.idle_seconds
        if self.state == self.read_body:
            return self._limits.header_seconds if self.response_done else self._limits.idle_seconds
        if self.state == self.passthrough and not self._speaking():
            return self._limits.header_seconds
        # mitmproxy's own watch over silent connections hears our ticks as sound.
        return SILENCE_SECONDS

    def _look_at_the_clock(self) -> Commands:
        if not self.conn.state & ConnectionState.CAN_READ and self.state in (self.read_headers, self.done):
            return
        now = time.monotonic()
        whole = self._limits.total_seconds
        if whole is not None and now - self._began > whole:
            yield commands.CloseConnection(self.conn)
        elif now - self._since <= self._patience:
            yield commands.RequestWakeup(self._tick)
        elif self.state == self.read_headers and self.buf:
            yield from self._give_up(408, "Request Timeout", "the request's head did not come to its end in time")
        else:
            yield commands.CloseConnection(self.conn)

    def send(self, event: HttpEvent) -> Commands:
        """As the original; bytes towards the client are signs of life as well."""
        if isinstance(event, ResponseHeaders | ResponseData | ResponseEndOfMessage):
            self._since = time.monotonic()
        yield from super().send(event)

    def _give_up(self, status: int, phrase: str, why: str) -> Commands:
        body = f"openclaw.egress: {why}.\n".encode()
        head = (
            f"HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        yield commands.SendData(self.conn, head.encode() + body)
        yield commands.CloseConnection(self.conn)
        self.buf = type(self.buf)()
        self.state = self.done


class BoundedHttp1Client(_Bounded, Http1Client):
    """Reads a server's answers, whose heads have a limit as well, and so have the lines between chunks."""

    def _handle_event(self, event: events.Event) -> Commands:
        yield from super()._handle_event(event)
        # Of a body only what is not yet a chunk stays in the buffer.
        reading = isinstance(event, events.DataReceived) and self.state in (self.read_headers, self.read_body)
        if reading and len(self.buf) > SERVER_HEAD_BYTES:
            self.buf = type(self.buf)()
            yield commands.CloseConnection(self.conn)


def install() -> None:
    """Put in place what mitmproxy offers no way for; calling this twice changes nothing.

    It makes the client of HTTP/1 itself. And where a connection is ended while its task waits for the lock of
    ``server_event``, mitmproxy leaves the socket open for ever (12.2.3): a client could use up all descriptors.
    """
    http_layers.Http1Client = BoundedHttp1Client  # type: ignore[attr-defined]
    original = server.ConnectionHandler.handle_client
    if getattr(original, "closes_all", False):
        return

    async def handle_client(self: server.ConnectionHandler) -> None:
        try:
            await original(self)
        finally:
            for transport in self.transports.values():
                if transport.writer is not None:
                    transport.writer.close()

    handle_client.closes_all = True  # type: ignore[attr-defined]
    server.ConnectionHandler.handle_client = handle_client  # type: ignore[method-assign]
