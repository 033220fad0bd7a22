"""Members of one JSON object picked out as its bytes pass, however long the object is.

For bodies that are too long to be kept, or cut off: of `{"content": …, "usage": {…}}` the small members are found
exactly, and the others are walked over without being kept. No validator: on what is no JSON it finds nothing or little.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_MEMBER_BYTES = 64 * 1024
_MAX_NAME_BYTES = 256
# What matters right in the object, and in a string.
_STRUCTURE = re.compile(rb'["{}\[\],:]')
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
# Deeper in, all up to the next bracket, or to a string whose end is not here yet: long bodies pass at speed.
_DEEPER = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
_BACKSLASH = 0x5C
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class TopLevelMembers:
    """Feed it with one JSON object in any cut; `found` maps the `wanted` names to their parsed values so far.

    A value of more than `MAX_MEMBER_BYTES` is passed over. Of a name that comes twice the last one counts, as with
    `json`. `begun` holds the wanted names whose value has begun, complete or not. `ended`: the object is complete.
    """

    def __init__(self, wanted: frozenset[str]) -> None:
        self.found: dict[str, Any] = {}
        self.begun: set[str] = set()
        self.ended = False
        self._wanted = wanted
        self._depth = 0
        self._in_string = False
        self._escaped = False
        # Between `{` or `,` and `:` the text is a name; after it, the value of the member `_name`.
        self._in_value = False
        self._name: str | None = None
        self._text: bytearray | None = bytearray()

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        at = 0
        while at < len(data) and not self.ended:
            at = self._string(data, at) if self._in_string else self._outside(data, at)

    def _keep(self, data: bytes) -> None:
        if self._text is None:
            return
        limit = MAX_MEMBER_BYTES if self._in_value else _MAX_NAME_BYTES
        if len(self._text) + len(data) > limit:
            self._text = None
        else:
            self._text += data

    def _string(self, data: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            self._keep(data[at : at + 1])
            return at + 1
        match = _IN_STRING.match(data, at)
        end = match.end() if match is not None else at
        if end < len(data):
            # The quote that ends it, or a backslash whose other half comes with the next chunk.
            self._in_string = data[end] == _BACKSLASH
            self._escaped = self._in_string
            end += 1
        self._keep(data[at:end])
        return end

    def _outside(self, data: bytes, at: int) -> int:
        if self._depth > 1 and (passed := _DEEPER.match(data, at)) is not None and passed.end() > at:
            self._keep(data[at : passed.end()])
            return passed.end()
        match = _STRUCTURE.search(data, at)
        if match is None:
            self._keep(data[at:])
            return len(data)
        before, mark, end = data[at : match.start()], match.group(), match.end()
        self._keep(before)
        if self._depth == 0:
            self._begin(mark)
        elif mark == b'"':
            self._in_string = True
            self._keep(mark)
        elif self._depth == 1 and mark in (b",", b"}"):
            self._member_over()
            if mark == b"}":
                self.ended = True
        elif self._depth == 1 and mark == b":" and not self._in_value:
            self._name_over()
        else:
            self._keep(mark)
            self._depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(mark, 0)
        return end

    def _begin(self, mark: bytes) -> None:
        leading = bytes(self._text or b"").removeprefix(_BYTE_ORDER_MARK).strip()
        self._text = bytearray()
        if mark == b"{" and not leading:
            self._depth = 1
        else:
            # No object: nothing to find.
            self.ended = True

    def _name_over(self) -> None:
        name = self._parsed()
        self._name = name if isinstance(name, str) and name in self._wanted else None
        if self._name is not None:
            self.begun.add(self._name)
        self._in_value = True
        self._text = bytearray() if self._name is not None else None

    def _member_over(self) -> None:
        if self._in_value and self._name is not None and self._text is not None:
            value = self._parsed()
            if value is not None:
                self.found[self._name] = value
        self._in_value, self._name, self._text = False, None, bytearray()

    def _parsed(self) -> Any:
        try:
            return json.loads(bytes(self._text or b""))
        except (ValueError, RecursionError):
            return None
