"""The messages of a WebSocket in a record: their number and sizes, and the body that they form. Pure.

A body contains the messages of one direction in order, separated by line feeds. The sizes show where each message ends,
even if messages contain line feeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MAX_SIZES = 1000
"""Maximum number of messages per direction whose sizes are recorded. Further messages are only counted."""

SEPARATOR = b"\n"


@dataclass(slots=True)
class Messages:
    """The number and sizes of the messages in one direction of a WebSocket."""

    count: int = 0
    size: int = 0
    """Number of payload bytes of all messages, without frames and separators."""
    sizes: list[int] = field(default_factory=list)
    """Number of bytes of each of the first `MAX_SIZES` messages."""

    def add(self, payload: bytes, *, begins: bool) -> bytes:
        """Count a message, or the next part of a message. Return the bytes to append to the body."""
        first = self.count == 0
        if begins:
            self.count += 1
            if self.count <= MAX_SIZES:
                self.sizes.append(0)
        self.size += len(payload)
        if self.count <= MAX_SIZES:
            self.sizes[-1] += len(payload)
        return SEPARATOR + payload if begins and not first else payload

    def facts(self) -> dict[str, Any]:
        """Return the number, total bytes and sizes of these messages, as members of the record's JSON."""
        return {"messages": self.count, "bytes": self.size, "sizes": list(self.sizes)}


@dataclass(slots=True)
class WebSocket:
    """The part of a WebSocket that one record describes.

    `connection_id` is the ID of the exchange that began with the handshake. If each response on the connection has a
    record of its own (OpenAI's Responses API), all these records have the same `connection_id`.
    """

    connection_id: str
    sent: Messages = field(default_factory=Messages)
    received: Messages = field(default_factory=Messages)
    stream_id: str | None = None
    control_frames: int = 0
    """Number of pings and pongs in both directions. Their payloads are not recorded."""
    closed_by: str | None = None
    """``client`` or ``server``: the sender of the first close frame."""
    close_code: int | None = None

    def origin(self) -> dict[str, Any]:
        """Return the members of the record's JSON that are known before the first message."""
        stream = {} if self.stream_id is None else {"stream_id": self.stream_id}
        return {"connection": self.connection_id, **stream}

    def facts(self) -> dict[str, Any]:
        """Return the member ``websocket`` of the record's JSON."""
        optional = {
            "control_frames": self.control_frames or None,
            "closed_by": self.closed_by,
            "close_code": self.close_code,
        }
        return {
            **self.origin(),
            "sent": self.sent.facts(),
            "received": self.received.facts(),
            **{name: value for name, value in optional.items() if value is not None},
        }
