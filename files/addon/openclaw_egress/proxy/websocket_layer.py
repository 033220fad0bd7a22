"""The relay of a WebSocket: it forwards frames byte for byte. Frames of an inspected host are recorded first.

mitmproxy's own layer is not used, because it keeps a message of any size in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from mitmproxy.proxy import commands, context, events, layer

from openclaw_egress.proxy.layers import Commands
from openclaw_egress.proxy.websocket_recording import Passing
from openclaw_egress.wire import websocket_frames
from openclaw_egress.wire.websocket_frames import FrameError, FrameReader

log = logging.getLogger("openclaw_egress.websocket")

RELAY = "openclaw_egress.websocket_relay"
"""Key in ``flow.metadata`` of a WebSocket to an inspected host. The value is a function that creates the relay.

The function takes a mitmproxy context. The value is None until the recorder is ready; until then the WebSocket must not
be relayed.
"""


class Messages(Protocol):
    """Interface of the object that decides which frames may pass, such as `websocket_recording.WebSocketRecording`."""

    ended: bool

    @property
    def may_send(self) -> bool:
        """Return whether the proxy may send a frame to the client now."""

    def take(self, data: bytes, *, sent: bool) -> Passing:
        """Process the bytes of one read, and return the bytes that may pass now."""

    def disconnected(self, *, client: bool) -> None:
        """Record that the client or the server has closed the connection."""

    def end(self, outcome: str, error_type: str | None) -> None:
        """Record that the proxy closes the connection."""


class UnrecordedMessages:
    """The implementation of `Messages` for a host that is not inspected: valid frames pass at once, unrecorded."""

    def __init__(self) -> None:
        self.ended = False
        self._client = FrameReader(masked=True, extensions=True)
        self._server = FrameReader(masked=False, extensions=True)

    @property
    def may_send(self) -> bool:
        """Return whether the server's last message is complete, and the server has sent no close frame."""
        return self._server.between and not self._server.closed

    def take(self, data: bytes, *, sent: bool) -> Passing:
        """Return the bytes of the read, or none of them if the read contains an invalid frame."""
        problem = None
        try:
            for _ in (self._client if sent else self._server).feed(data):
                pass
        except FrameError as error:
            data, problem = b"", str(error)
        return Passing(b"" if sent else data, data if sent else b"", problem)

    def disconnected(self, *, client: bool) -> None:
        """Mark the connection as ended, so that no further bytes pass."""
        self.ended = True

    def end(self, outcome: str, error_type: str | None) -> None:
        """Mark the connection as ended, so that no further bytes pass."""
        self.ended = True


class WebSocketRelay(layer.Layer):
    """The mitmproxy layer that relays a WebSocket between client and server.

    Args:
        messages: decides which bytes may pass, and records them.
        failed: logs an exception that ends the connection.
    """

    def __init__(self, context: context.Context, messages: Messages, failed: Callable[[Exception], None]) -> None:
        super().__init__(context)
        self._messages = messages
        self._failed = failed

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            yield from self._relay(event.data, sent=event.connection is self.context.client)
        elif isinstance(event, events.ConnectionClosed):
            try:
                self._messages.disconnected(client=event.connection is self.context.client)
            except Exception as error:
                self._failed(error)
            yield from self._close()

    def _relay(self, data: bytes, *, sent: bool) -> Commands:
        if self._messages.ended:
            return
        try:
            passing = self._messages.take(data, sent=sent)
        except Exception as error:
            self._failed(error)
            yield from self._end("interrupted", None, websocket_frames.INTERNAL_ERROR, "it cannot be recorded")
            return
        if passing.to_server:
            yield commands.SendData(self.context.server, passing.to_server)
        if passing.to_client:
            yield commands.SendData(self.context.client, passing.to_client)
        if passing.problem is not None:
            outcome = "client_aborted" if sent else "upstream_error"
            yield from self._end(outcome, "protocol_error", websocket_frames.PROTOCOL_ERROR, passing.problem)

    def _end(self, outcome: str, error_type: str | None, code: int, reason: str) -> Commands:
        """Record the connection as failed, send the reason to the client, and close both sides."""
        may_send = self._messages.may_send
        try:
            self._messages.end(outcome, error_type)
        except Exception as error:
            self._failed(error)
        if may_send:
            payload = websocket_frames.close_payload(code, f"closed by openclaw.egress: {reason}")
            frame = websocket_frames.server_frame(websocket_frames.CLOSE, payload)
            yield commands.SendData(self.context.client, frame)
        yield from self._close()

    def _close(self) -> Commands:
        yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)


def unrecorded_relay(context: context.Context) -> WebSocketRelay:
    """Return the relay of a WebSocket to a host that is not inspected."""
    return WebSocketRelay(
        context, UnrecordedMessages(), lambda error: log.error("a WebSocket was closed after an error", exc_info=error)
    )
