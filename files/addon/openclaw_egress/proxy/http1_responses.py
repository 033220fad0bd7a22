"""The HTTP/1 connection to a server: it parses responses strictly and limits the size of their heads."""

from __future__ import annotations

import logging

from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._http1 import Http1Client, make_body_reader

from openclaw_egress.policy.codes import Code, Evidence, reason
from openclaw_egress.proxy.error_responses import drop_forged_status
from openclaw_egress.proxy.hop_by_hop import drop_hop_by_hop
from openclaw_egress.proxy.http1_chunks import StrictBodies
from openclaw_egress.proxy.layers import Commands
from openclaw_egress.wire import http1_syntax

log = logging.getLogger("openclaw_egress.http1_limits")

SERVER_HEAD_BYTES = 256 * 1024
"""Maximum size, in bytes, of a server's response head. For comparison, curl accepts 300 KB."""


INTERIM_RESPONSES = 100
"""Maximum number of 1xx responses to one request. A slow server may send one every few seconds."""


class MalformedResponse(ResponseProtocolError):
    """The server sent a malformed message. ``problem`` describes the malformed part."""

    def __init__(self, stream_id: int, problem: str) -> None:
        message = reason(Code.MALFORMED_RESPONSE, Evidence(detail=problem))
        super().__init__(stream_id, message, ErrorCode.GENERIC_SERVER_ERROR)
        self.problem = problem


class BoundedHttp1Client(StrictBodies, Http1Client):
    """The HTTP/1 connection to a server; see the module's docstring."""

    _padded_chunks = True
    _interim = 0

    def _handle_event(self, event: events.Event) -> Commands:
        yield from super()._handle_event(event)
        reading = isinstance(event, events.DataReceived) and self.state == self.read_headers
        if reading and len(self.buf) > SERVER_HEAD_BYTES:
            yield from self._malformed(f"the head has more than {SERVER_HEAD_BYTES} bytes")

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        """Accept a well-formed head. Forward interim responses (1xx) and wait for the final one."""
        if not isinstance(event, events.DataReceived):
            if self.buf and self.stream_id:
                yield from self._malformed("the connection ended inside a head")
            else:
                yield from super().read_headers(event)
            return
        request, stream_id = self.request, self.stream_id
        if request is None or stream_id is None:
            yield from super().read_headers(event)
            return
        while self.buf:
            received = bytes(self.buf)
            if not http1_syntax.begins_like_response(received):
                yield from self._malformed("no status line, as in HTTP/0.9")
                return
            if (end := http1_syntax.END_OF_HEAD.search(received)) is None:
                return
            problem = http1_syntax.response_problem(received[: end.end()])
            lines = [bytes(line) for line in self.buf.maybe_extract_lines() or ()]
            response = None if problem else http1.read_response_head(lines)
            if response is None or (problem := self._interim_problem(request, response) or self._cleaned(response)):
                yield from self._malformed(problem or "the head is malformed")
                return
            if response.status_code != 101 and response.status_code < 200:
                yield from self._pass_interim(request, response)
                continue
            yield from self._take_response(event, stream_id, request, response)
            return

    def _take_response(
        self, event: events.DataReceived, stream_id: int, request: http.Request, response: http.Response
    ) -> Commands:
        self._interim = 0
        if response.status_code == 304:
            # Remove Transfer-Encoding: a 304 has no body, but mitmproxy would write a last chunk after the head.
            response.headers.pop("transfer-encoding", None)
        self.response = response
        size = http1.expected_http_body_size(request, response)
        yield ReceiveHttp(ResponseHeaders(stream_id, response, size == 0))
        self.body_reader = make_body_reader(size)
        self.state = self.read_body
        yield from self.state(event)

    def _interim_problem(self, request: http.Request, response: http.Response) -> str:
        """Return why a 1xx response must not be forwarded, or an empty string.

        A 101 is valid only if the client requested a WebSocket.
        """
        if response.status_code == 101:
            requested = request.headers.get("upgrade", "").lower()
            given = response.headers.get("upgrade", "").lower()
            version = request.headers.get("sec-websocket-version", "")
            if "websocket" not in requested or given != "websocket" or version != "13":
                return "101 without a requested upgrade"
            if "sec-websocket-extensions" in response.headers and "sec-websocket-extensions" not in request.headers:
                return "101 with an extension that was not offered"
        elif response.status_code < 200:
            self._interim += 1
            if self._interim > INTERIM_RESPONSES:
                return f"more than {INTERIM_RESPONSES} interim responses"
        return ""

    def _cleaned(self, response: http.Response) -> str:
        """Remove header fields that are not for the client. Return the problem if this fails, or an empty string.

        Catch every exception, because an exception here would leave the connection open without a response.
        """
        try:
            # Keep Upgrade in a 426, which must name the protocol that the server requires (RFC 9110, section 15.5.22).
            drop_hop_by_hop(response, upgrades=response.status_code in (101, 426))
            drop_forged_status(response)
        except Exception:
            log.exception("cannot check the head of a response; refusing it")
            return "the head could not be checked"
        return ""

    def _pass_interim(self, request: http.Request, response: http.Response) -> Commands:
        """Send a 1xx response directly to the client, because a stream of mitmproxy handles only one response.

        Send none to an HTTP/1.0 client, because HTTP/1.0 has no interim responses (RFC 9110, section 15.2).
        """
        client = self.context.client
        if request.http_version != "HTTP/1.0" and client.state & ConnectionState.CAN_WRITE:
            yield commands.SendData(client, http1.assemble_response_head(response))  # type: ignore[no-untyped-call]

    def read_body(self, event: events.Event) -> Commands:
        """Extend mitmproxy's method: replace the error for a malformed chunk with one that describes the problem."""
        for command in super().read_body(event):
            problem = getattr(self._reader, "problem", "")
            if problem and isinstance(command, ReceiveHttp) and isinstance(command.event, ResponseProtocolError):
                command.event = MalformedResponse(command.event.stream_id, problem)
            yield command

    def _malformed(self, problem: str) -> Commands:
        self.buf = type(self.buf)()
        self.state = self.done
        if self.conn.state is not ConnectionState.CLOSED:
            yield commands.CloseConnection(self.conn)
        if self.stream_id is not None:
            yield ReceiveHttp(MalformedResponse(self.stream_id, problem))
