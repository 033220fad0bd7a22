"""Incremental parser of server-sent events (WHATWG HTML standard, section 9.2.6).

Lines end with LF, CR or CRLF. One BOM at the start is dropped. A blank line completes an event. Like browsers and the
providers' SDKs, the parser drops an incomplete event at the end of the stream. Unlike in the standard, events have a
maximum size: the parser drops and counts a longer event, and continues with the next. The parser stores lines that are
not fields (up to `MAX_OTHER_BYTES`), because a provider can end a stream with an error that is not an event.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MAX_EVENT_BYTES = 8 * 1024 * 1024
MAX_OTHER_BYTES = 64 * 1024
_BOM = b"\xef\xbb\xbf"
# The names of fields, and the empty name, which marks a comment.
_FIELDS = frozenset({b"data", b"event", b"id", b"retry", b""})


@dataclass(frozen=True)
class Event:
    """Server-sent event.

    `event` is its name, or None. `data` contains its data lines, joined with LF. `id` is the last id in the stream so
    far.
    """

    event: str | None
    data: str
    id: str | None


class EventStream:
    """Parser of one stream. `max_event_bytes` is the maximum size of an event; `dropped` counts longer events.

    `other` contains the lines that are neither fields nor comments, including an incomplete last line, up to
    `MAX_OTHER_BYTES`.
    """

    def __init__(self, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self.dropped = 0
        self.other = bytearray()
        self._max = max_event_bytes
        self._line = bytearray()
        self._first_line = True
        self._skip_lf = False
        self._id: str | None = None
        self._event: str | None = None
        self._data: list[bytes] = []
        self._size = 0
        self._too_long = False

    def feed(self, data: bytes) -> list[Event]:
        """Process the next bytes. Return the events that they complete."""
        if not data:
            return []
        if self._skip_lf:
            # Skip the LF of a CRLF whose CR ended the line in the previous chunk.
            data = data[1:] if data.startswith(b"\n") else data
            self._skip_lf = False
        events: list[Event] = []
        for part in data.splitlines(keepends=True):
            line = part.rstrip(b"\r\n")
            self._take(line)
            if len(line) < len(part) and (event := self._end_line()) is not None:
                events.append(event)
        self._skip_lf = data.endswith(b"\r")
        return events

    def finish(self) -> None:
        """End the stream and drop an incomplete event."""
        line = bytes(self._line)
        if not self._too_long and line.partition(b":")[0] not in _FIELDS:
            self._keep_other(line)
        self._line.clear()
        self._data.clear()

    def _take(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._max and not self._too_long:
            self._too_long = True
            self.dropped += 1
            self._data.clear()
            del self._line[1:]
        if not self._too_long:
            self._line += part
        elif not self._line:
            # Keep one byte of a dropped line, to distinguish it from the blank line that ends the event.
            self._line += part[:1]

    def _end_line(self) -> Event | None:
        line = bytes(self._line)
        self._line.clear()
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        if not self._too_long:
            self._field(line)
        return None

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data.append(value)
            case b"event":
                self._event = value.decode("utf-8", "replace") or None
            case b"id":
                if b"\0" not in value:
                    self._id = value.decode("utf-8", "replace")
            case _ if name not in _FIELDS:
                self._keep_other(line)

    def _keep_other(self, line: bytes) -> None:
        self.other += (line + b"\n")[: MAX_OTHER_BYTES - len(self.other)]

    def _dispatch(self) -> Event | None:
        data, name = self._data, self._event
        self._data, self._event = [], None
        self._size, self._too_long = 0, False
        if not data:
            return None
        return Event(name, b"\n".join(data).decode("utf-8", "replace"), self._id)
