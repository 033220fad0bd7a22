"""Incremental splitter of a sequence of JSON objects: one in each line, or the elements of one array.

It returns the bytes of each object when the object's last brace arrives. It does not validate: it counts braces outside
strings, and ignores all bytes between objects. Objects have a maximum size: the splitter drops and counts a longer
object, and continues with the next.
"""

from __future__ import annotations

import re

DEFAULT_MAX_OBJECT_BYTES = 8 * 1024 * 1024
_OUTSIDE = re.compile(rb'["{]')
# Inside an object, skip to the next brace, or to a string that does not end in this chunk.
_INSIDE = re.compile(rb'(?:[^"{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_BACKSLASH = 0x5C


class JsonObjects:
    """Splitter of one body. `max_bytes` is the maximum size of an object; `dropped` counts longer and incomplete ones.

    If `lines` is True, each object ends at the end of its line, so that an incomplete object cannot hide later objects.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_OBJECT_BYTES, *, lines: bool = False) -> None:
        self.dropped = 0
        self._max = max_bytes
        self._lines = lines
        self._depth = 0
        self._in_string = False
        self._escaped = False
        # The bytes of the current object so far; None between objects, and while an object that is too long is skipped.
        self._text: bytearray | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Process the next bytes. Return the objects that they complete."""
        found: list[bytes] = []
        for index, part in enumerate(data.split(b"\n") if self._lines else [data]):
            if index:
                self._end_line()
            at = 0
            while at < len(part):
                at = self._string(part, at) if self._in_string else self._outside_string(part, at, found)
        return found

    def _end_line(self) -> None:
        if self._text is not None:
            self.dropped += 1
        self._depth, self._in_string, self._escaped, self._text = 0, False, False, None

    def _keep(self, data: bytes) -> None:
        if self._text is None:
            return
        if len(self._text) + len(data) > self._max:
            self.dropped += 1
            self._text = None
        else:
            self._text += data

    def _string(self, data: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            end = at + 1
        else:
            match = _IN_STRING.match(data, at)
            end = match.end() if match is not None else at
            if end < len(data):
                # The next byte is the quote that ends the string, or a backslash at the end of the chunk.
                self._in_string = self._escaped = data[end] == _BACKSLASH
                end += 1
        self._keep(data[at:end])
        return end

    def _outside_string(self, data: bytes, at: int, found: list[bytes]) -> int:
        if self._depth == 0:
            begin = _OUTSIDE.search(data, at)
            if begin is None:
                return len(data)
            if begin.group() == b"{":
                self._depth, self._text = 1, bytearray(b"{")
            else:
                self._in_string = True
            return begin.end()
        passed = _INSIDE.match(data, at)
        end = passed.end() if passed is not None else at
        mark = data[end : end + 1]
        self._keep(data[at : end + 1])
        self._in_string = mark == b'"'
        self._depth += {b"{": 1, b"}": -1}.get(mark, 0)
        if self._depth == 0:
            if self._text is not None:
                found.append(bytes(self._text))
            self._text = None
        return end + len(mark)
