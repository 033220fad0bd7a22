"""The recording of one WebSocket: it decides when the bytes of each direction may pass, and records them first.

The proxy holds a message until it is complete and recorded; then the message passes. A message of more than
`HOLD_BYTES` passes in parts, and each part is recorded before it passes. Messages belong to the exchange that began
with the handshake, with one exception: on OpenAI's Responses API, each response is a separate exchange
(`llm.responses_websocket`).

The recorder is passed in as a `Journal`, so that this module depends neither on mitmproxy nor on the spool.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from openclaw_egress.llm import message_reader
from openclaw_egress.llm.model import object_in, text_of
from openclaw_egress.llm.responses_websocket import CREATE, ENDS, Lanes, Turn, stream_id_of
from openclaw_egress.policy.model import Decision
from openclaw_egress.recording.capture import ExchangeCapture
from openclaw_egress.recording.websocket_messages import WebSocket
from openclaw_egress.wire import websocket_frames
from openclaw_egress.wire.json_members import TopLevelMembers
from openclaw_egress.wire.websocket_frames import FrameError, FrameReader, Part

HOLD_BYTES = 4 * 1024 * 1024
"""Maximum size, in bytes, of a message that is held until it is complete. A longer message passes in parts."""

RESPONSES, REALTIME = "responses", "realtime"

MAX_TURNS = 256
"""Maximum number of responses in progress on one connection. OpenAI allows fewer."""

TURN_BYTES = 32 * 1024
"""Bytes of memory charged for each response in progress, in addition to its bodies."""

_ROUTING = frozenset({"type", "stream_id", "response_id"})


class Exchange(Protocol):
    """Interface of an exchange in progress. `recorder.Exchange` implements it."""

    capture: ExchangeCapture

    @property
    def held(self) -> int:
        """Return how many bytes of the exchange are in memory."""


class Journal[Recorded: Exchange](Protocol):
    """Interface to the recorder, which writes to the spool. Each method raises `SpoolError` if a write fails."""

    def now(self) -> int:
        """Return the current time in Unix nanoseconds."""

    def open(self) -> Recorded:
        """Return a new exchange with the headers of the handshake. It is not in the spool yet."""

    def begin(self, exchange: Recorded) -> None:
        """Add the exchange to the spool, and mark that its request may already have been sent."""

    def commit(self, exchange: Recorded) -> None:
        """Write the complete request and its metadata to the spool."""

    def keep(self, exchange: Recorded, direction: str, data: bytes) -> None:
        """Write bytes of a body to the spool, after at most `recorder.JOURNAL_SECONDS`."""

    def flush(self, exchange: Recorded) -> None:
        """Write all bytes that were passed to `keep` to the spool now."""

    def withhold(self, exchange: Recorded) -> None:
        """Delete the bodies of the exchange from the spool if they are credentials."""

    def close(self, exchange: Recorded, outcome: str, error_type: str | None) -> None:
        """Record the exchange. If this fails, let the spool record it later, and raise the exception again."""

    def forget(self, exchange: Recorded) -> None:
        """Drop the exchange without a record."""


class Passing(NamedTuple):
    """The bytes that may pass after a read, by receiver."""

    to_client: bytes
    to_server: bytes
    problem: str | None
    """Why the next bytes are not valid frames, or None. If it is set, the connection must be closed."""


@dataclass(slots=True)
class _Batch[Recorded: Exchange]:
    """Successive messages of one exchange that are recorded together, to save time if many messages are short."""

    exchange: Recorded
    added: bytearray = field(default_factory=bytearray)
    lines: bytearray = field(default_factory=bytearray)
    ended: bool = True


@dataclass(slots=True)
class _Direction[Recorded: Exchange]:
    frames: FrameReader
    sent: bool
    """Whether the client is the sender."""
    raw: bytearray = field(default_factory=bytearray)
    """Frames that must not pass yet."""
    payload: bytearray = field(default_factory=bytearray)
    """Payload of the held message so far."""
    inside: bool = False
    """Whether a message has begun and is not complete."""
    target: Recorded | None = None
    """The exchange of the current message, if the message passes in parts."""
    turn: Turn | None = None
    """The response that the current message belongs to."""
    responded: bool = False
    """Whether the server has ended the response in ``turn`` before the request was complete."""
    members: TopLevelMembers | None = None
    """Reader of the current message, if the message passes in parts."""
    batch: _Batch[Recorded] | None = None
    """Messages from the current read that are not recorded yet."""
    discards: bool = False
    """Whether the current message is refused, so that the rest of it is discarded."""
    ready: bytearray = field(default_factory=bytearray)
    """Frames that may pass now."""

    @property
    def between(self) -> bool:
        """Return whether all messages sent to the receiver are complete, so that the proxy may send its own frame."""
        return self.target is None and not self.discards


class WebSocketRecording[Recorded: Exchange]:
    """The recording of one connection; see the module's docstring.

    Args:
        journal: the recorder.
        connection: the exchange of the handshake.
        api: name of the API (`llm.model.Api.name`), or None.
        decide: applies the policy to a response that the client requests in a message; returns the recorded denial, or
            None.
    """

    def __init__(
        self,
        journal: Journal[Recorded],
        connection: Recorded,
        *,
        api: str | None,
        decide: Callable[[], Decision | None],
    ) -> None:
        self._journal = journal
        self._connection = connection
        self._lanes = Lanes() if api == RESPONSES else None
        self._has_requests = api in (RESPONSES, REALTIME)
        """Whether a message of the client can request a response."""
        self._decide = decide
        self._turns: dict[Turn, Recorded] = {}
        self._client: _Direction[Recorded] = _Direction(FrameReader(masked=True), sent=True)
        self._server: _Direction[Recorded] = _Direction(FrameReader(masked=False), sent=False)
        self._own = bytearray()
        """The proxy's own frames to the client, which wait until the server's message is complete."""
        self._had_turns = False
        self.ended = False

    @property
    def held(self) -> int:
        """Return how many bytes are in memory, for the memory budget."""
        directions = sum(len(side.raw) + len(side.payload) + len(side.ready) for side in (self._client, self._server))
        turns = sum(TURN_BYTES + exchange.held for exchange in self._turns.values())
        return self._connection.held + directions + turns + len(self._own)

    @property
    def _closed_well(self) -> bool:
        """Return whether the client closed the WebSocket, or the server closed it with one of `USUAL_CLOSURES`."""
        websocket = self._connection.capture.websocket
        if websocket is None or websocket.closed_by is None:
            return False
        return websocket.closed_by == "client" or websocket.close_code in websocket_frames.USUAL_CLOSURES

    @property
    def may_send(self) -> bool:
        """Return whether the proxy may send a frame to the client now."""
        return self._server.between and not self._server.frames.closed

    # ── reads ────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, data: bytes, *, sent: bool) -> Passing:
        """Record the messages in the bytes of one read, and return the bytes that may pass.

        Raises:
            SpoolError: the messages cannot be recorded, so nothing may pass, and the connection must be closed.
        """
        side = self._client if sent else self._server
        problem = None
        try:
            self._read(side, data)
        except FrameError as error:
            problem = str(error)
        self._record_batch(side)
        self._flush_requests()
        to_client, to_server = bytes(self._server.ready), bytes(self._client.ready)
        self._server.ready.clear()
        self._client.ready.clear()
        if self._own and self.may_send:
            to_client += bytes(self._own)
            self._own.clear()
        return Passing(to_client, to_server, problem)

    def _read(self, side: _Direction[Recorded], data: bytes) -> None:
        at = 0
        for part in side.frames.feed(data):
            side.raw += data[at : part.end]
            at = part.end
            self._part(side, part)
            if not side.inside or side.target is not None:
                side.ready += side.raw
                side.raw.clear()
            elif side.discards:
                side.raw.clear()
        side.raw += data[at:]

    def _part(self, side: _Direction[Recorded], part: Part) -> None:
        if part.opcode >= websocket_frames.CLOSE:
            self._control(side, part)
            return
        begins, side.inside = not side.inside, not part.ended
        if side.discards:
            if part.ended:
                side.discards = False
                side.raw.clear()
            return
        if side.target is not None:
            if side.members is not None:
                side.members.feed(part.payload)
            self._record(side, side.target, part.payload, begins=False, ends=part.ended)
            if part.ended:
                self._message_over(side, side.members.found if side.members is not None else {})
            return
        payload = part.payload
        if not begins or not part.ended:
            side.payload += payload
            if not part.ended and len(side.payload) + len(side.raw) <= HOLD_BYTES:
                return
            payload = bytes(side.payload)
            side.payload.clear()
        self._release(side, payload, ends=part.ended)

    def _control(self, side: _Direction[Recorded], part: Part) -> None:
        websocket = self._connection.capture.websocket
        if websocket is None:
            return
        if part.opcode != websocket_frames.CLOSE:
            websocket.control_frames += 1
        elif websocket.closed_by is None:
            websocket.closed_by = "client" if side.sent else "server"
            websocket.close_code = websocket_frames.close_code(part.payload)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────

    def _release(self, side: _Direction[Recorded], payload: bytes, *, ends: bool) -> None:
        """Record a message or its beginning, so that it may pass. If the policy denies a request in it, refuse it."""
        found: Mapping[str, Any] = {}
        if self._has_requests and (side.sent or not ends):
            members = TopLevelMembers(_ROUTING)
            members.feed(payload)
            found, side.members = members.found, None if ends else members
        elif self._lanes is not None:
            # Parse the whole message, because the ID of a response is a nested member.
            found = object_in(payload) or {}
        # Treat a message that passes in parts as a request, because a later member can still change its type.
        is_request = side.sent and self._has_requests and (found.get("type") == CREATE or not ends)
        if is_request and self._is_refused(found):
            side.raw.clear()
            side.discards, side.members = not ends, None
            return
        exchange = self._exchange_of(side, found, ends=ends)
        if not ends:
            side.target = exchange
        self._record(side, exchange, payload, begins=True, ends=ends)
        if ends:
            self._message_over(side, found)

    def _is_refused(self, found: Mapping[str, Any]) -> bool:
        decision = self._decide()
        if decision is None:
            return False
        error = {"type": "egress_denied", "code": decision.code, "message": f"denied by the proxy: {decision.reason}"}
        event = {"type": "error", "status": 429, "error": error}
        if (stream_id := stream_id_of(found)) is not None:
            event["stream_id"] = stream_id
        self._own += websocket_frames.server_frame(websocket_frames.TEXT, json.dumps(event).encode())
        return True

    def _exchange_of(self, side: _Direction[Recorded], found: Mapping[str, Any], *, ends: bool) -> Recorded:
        """Return the exchange that a message belongs to."""
        if self._lanes is None:
            return self._connection
        if side.sent:
            if ends and found.get("type") != CREATE:
                return self._connection
            side.turn = self._lanes.requested(found)
        else:
            side.turn = self._lanes.received(found)
        if side.turn is None:
            return self._connection
        if side.turn not in self._turns:
            self._turns[side.turn] = self._begin(side.turn)
        return self._turns[side.turn]

    def _begin(self, turn: Turn) -> Recorded:
        if len(self._turns) >= MAX_TURNS:
            raise FrameError(f"more than {MAX_TURNS} responses are in progress")
        exchange = self._journal.open()
        connection_id = self._connection.capture.id
        websocket = WebSocket(connection_id, stream_id=_masked(exchange, turn.stream_id))
        exchange.capture.upgraded(websocket, message_reader(exchange.capture.path))
        self._journal.begin(exchange)
        self._had_turns = True
        return exchange

    def _record(
        self, side: _Direction[Recorded], exchange: Recorded, payload: bytes, *, begins: bool, ends: bool
    ) -> None:
        websocket = exchange.capture.websocket
        if websocket is None:
            raise ValueError("the exchange is not a WebSocket")
        if side.batch is None or side.batch.exchange is not exchange:
            self._record_batch(side)
            side.batch = _Batch(exchange)
        added = (websocket.sent if side.sent else websocket.received).add(payload, begins=begins)
        side.batch.added += added
        # Replace line feeds inside a message, because `message_reader` expects one message per line. In JSON, line
        # feeds are only white space.
        side.batch.lines += added[: len(added) - len(payload)] + payload.replace(b"\n", b" ")
        side.batch.ended = ends

    def _record_batch(self, side: _Direction[Recorded]) -> None:
        batch, side.batch = side.batch, None
        if batch is None:
            return
        capture, direction, added = batch.exchange.capture, "request" if side.sent else "response", bytes(batch.added)
        recorded = capture.messages(added, bytes(batch.lines), self._journal.now(), sent=side.sent, ended=batch.ended)
        if capture.secret:
            self._journal.withhold(batch.exchange)
        else:
            self._journal.keep(batch.exchange, direction, recorded)

    def _message_over(self, side: _Direction[Recorded], found: Mapping[str, Any]) -> None:
        turn, side.turn, side.target, side.members = side.turn, None, None, None
        if turn is None or self._lanes is None:
            return
        if side.sent:
            self._record_batch(side)
            # Read the stream ID again: if the message passed in parts, the ID may have come after the first part.
            turn.stream_id = stream_id_of(found)
            capture = self._turns[turn].capture
            if capture.websocket is not None:
                capture.websocket.stream_id = _masked(self._turns[turn], turn.stream_id)
            capture.request_done()
            capture.request_facts = replace(capture.request_facts, stream=True)
            self._journal.commit(self._turns[turn])
            if side.responded:
                side.responded = False
                self._end_turn(turn)
        elif text_of(found.get("type")) in ENDS:
            self._record_batch(side)
            if turn is self._client.turn:
                self._client.responded = True
            else:
                self._end_turn(turn)

    def _end_turn(self, turn: Turn) -> None:
        if self._lanes is not None:
            self._lanes.ended(turn)
        self._journal.close(self._turns.pop(turn), "complete", None)

    def _flush_requests(self) -> None:
        """Write the client's bytes to the spool. Call this before these bytes pass to the server."""
        if self._client.ready:
            for exchange in (self._connection, *self._turns.values()):
                self._journal.flush(exchange)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    def end(self, outcome: str, error_type: str | None) -> None:
        """Record all exchanges in progress with this outcome and error.

        If the WebSocket was closed normally, record the exchange of the handshake as complete.
        """
        if self.ended:
            return
        self.ended = True
        with contextlib.ExitStack() as stack:  # record the other responses even if one cannot be recorded
            stack.callback(self._end_connection, outcome, error_type)
            for exchange in self._turns.values():
                stack.callback(self._journal.close, exchange, outcome, error_type)

    def disconnected(self, *, client: bool) -> None:
        """Record all exchanges in progress after the client or the server has closed the connection."""
        websocket = self._connection.capture.websocket
        first = websocket.closed_by if websocket is not None else None
        if first == "client" or (first is None and client):
            self.end("client_aborted", "client_aborted")
        else:
            self.end("upstream_error", "upstream_closed")

    def _end_connection(self, outcome: str, error_type: str | None) -> None:
        websocket = self._connection.capture.websocket
        if self._had_turns and websocket is not None and not (websocket.sent.count or websocket.received.count):
            self._journal.forget(self._connection)
        elif self._closed_well and error_type in ("client_aborted", "upstream_closed"):
            self._journal.close(self._connection, "complete", None)
        else:
            self._journal.close(self._connection, outcome, error_type)


def _masked(exchange: Exchange, text: str | None) -> str | None:
    return None if text is None else exchange.capture.masked_text(text)


__all__ = ["HOLD_BYTES", "REALTIME", "RESPONSES", "Journal", "Passing", "WebSocketRecording"]
