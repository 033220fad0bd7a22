"""The messages of OpenAI's Responses API on a WebSocket, and the response that each message belongs to.

Sources: OpenAI's guide "WebSocket mode" (developers.openai.com/api/docs/guides/websocket-mode), and the types
`ResponsesClientEvent` and `ResponsesServerEvent` of the SDK `openai` 3.57:

- The client requests a response with `response.create`, whose other members are those of `POST /v1/responses`.
- The server sends the events of the HTTP stream, one in each message. Several responses can be in progress.
- The server processes requests with the same `stream_id` in order. This module calls such a sequence a lane. Each event
  repeats the `stream_id`.
- Only some events contain the response's ID. Others belong to the response in progress with the same `stream_id`.
- A response can follow another response without a request (`response.steer`).
- `error` with a `sequence_number` ends the response in progress. Any other `error` reports a refused request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openclaw_egress.llm.model import count_of, object_of, text_of

CREATE = "response.create"
ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"})
"""Types of the events that end a response."""

MAX_LANES = 256
"""Maximum number of lanes to remember per connection, because a server can send any number of `stream_id` values."""


@dataclass(eq=False, slots=True)
class Turn:
    """One response, from its request to the event that ends it."""

    stream_id: str | None
    response_id: str | None = None


class Lanes:
    """The responses in progress on one connection, in lanes: the server processes the requests of a lane in order."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        """The responses in progress, in the order of their requests."""
        self._named_last: dict[str | None, Turn] = {}

    def requested(self, message: Mapping[str, Any]) -> Turn:
        """Add a response for the client's `response.create`, and return it."""
        turn = Turn(stream_id_of(message))
        self.turns.append(turn)
        return turn

    def received(self, message: Mapping[str, Any]) -> Turn | None:
        """Return the response that a server event belongs to, or None if it belongs to none.

        If the client did not request the response, add it. After an event that ends a response, the caller must call
        `ended`.
        """
        kind, lane = text_of(message.get("type")) or "", stream_id_of(message)
        name = text_of(object_of(message.get("response")).get("id")) or text_of(message.get("response_id"))
        turn = next((turn for turn in self.turns if name is not None and turn.response_id == name), None)
        if turn is None and kind == "error":
            return self._refused(lane, from_stream=count_of(message.get("sequence_number")) is not None)
        if turn is None and name is not None and kind.startswith("response."):
            turn = next((turn for turn in self._of(lane) if turn.response_id is None), None)
            if turn is None:
                turn = Turn(lane)
                self.turns.append(turn)
            turn.response_id = name
        if turn is not None:
            self._named_last.pop(lane, None)
            self._named_last[lane] = turn
            if len(self._named_last) > MAX_LANES:
                del self._named_last[next(iter(self._named_last))]
            return turn
        last = self._named_last.get(lane)
        return last if last in self.turns else next(iter(self._of(lane)), None)

    def ended(self, turn: Turn) -> None:
        """Remove a response that has ended."""
        self.turns.remove(turn)
        self._named_last = {lane: other for lane, other in self._named_last.items() if other is not turn}

    def _of(self, lane: str | None) -> list[Turn]:
        """Return the responses of a lane. If the lane has none, return all: some servers do not send `stream_id`."""
        return [turn for turn in self.turns if turn.stream_id == lane] or self.turns

    def _refused(self, lane: str | None, *, from_stream: bool) -> Turn | None:
        turns = [turn for turn in self.turns if turn.stream_id == lane]
        if not turns:
            return self.turns[0] if len(self.turns) == 1 else None
        waiting = [turn for turn in turns if turn.response_id is None]
        if not waiting or from_stream:
            return turns[0]
        return waiting[0] if len(waiting) == len(turns) else waiting[-1]


def stream_id_of(message: Mapping[str, Any]) -> str | None:
    """Return the `stream_id` of a message, which identifies its lane; None for the default lane."""
    return text_of(message.get("stream_id"))
