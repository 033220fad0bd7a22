"""Incremental reader of individual members of one JSON object of any size.

Use it for bodies that are truncated or too long to keep in memory: in `{"content": …, "usage": {…}}` it finds the small
members and skips the others. It does not validate: in bytes that are not JSON, it finds few or no members.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import msgspec

MAX_MEMBER_BYTES = 64 * 1024
_MAX_NAME_BYTES = 256
# Patterns for the bytes that structure JSON at the top level of the object, and for the remaining part of a string.
_STRUCTURE = re.compile(rb'["{}\[\],:]')
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
# At deeper levels, skip to the next bracket, or to a string that does not end in this chunk. This keeps the parsing of
# long bodies fast.
_DEEPER = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
_BACKSLASH = 0x5C
_WHITESPACE = b" \t\r\n"
_ABSENT = msgspec.Raw(b"")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@lru_cache
def _decoder(names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Return a decoder that returns only the raw bytes of these members, as attributes ``m0``, ``m1`` and so on."""
    keys = {f"m{number}": name for number, name in enumerate(names)}
    members = [(key, msgspec.Raw, _ABSENT) for key in keys]
    return msgspec.json.Decoder(msgspec.defstruct("Members", members, rename=keys))


class TopLevelMembers:
    """Reader of one JSON object in chunks of any size. `found` maps the `wanted` names to the parsed values so far.

    It skips values of more than `MAX_MEMBER_BYTES`. If a name is repeated, the last value counts, as with `json`.
    `begun` contains the wanted names whose values have begun, even if they are incomplete. `ended` is True if the
    object is complete, or if the text is not an object.
    """

    def __init__(self, wanted: frozenset[str]) -> None:
        self.found: dict[str, Any] = {}
        self.begun: set[str] = set()
        self.ended = False
        self._wanted = wanted
        self._depth = 0
        self._in_string = False
        self._escaped = False
        # True: `_text` is the value of the member `_name` (after a colon). False: it is a name (after `{` or `,`).
        self._in_value = False
        self._name: str | None = None
        self._text: bytearray | None = bytearray()

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the object, and add complete members to `found`."""
        at = 0
        while at < len(data) and not self.ended:
            at = self._string(data, at) if self._in_string else self._outside(data, at)

    def take(self, data: bytes | bytearray | memoryview) -> bool:
        """Read a complete object in one step. Return whether this succeeded. If not, use `feed` for the same data.

        This fails if the data is not a valid object, or if it contains values that `feed` would skip.
        """
        names = tuple(sorted(self._wanted))
        try:
            kept = _decoder(names).decode(data)
            values = {name: bytes(getattr(kept, f"m{number}")) for number, name in enumerate(names)}
            del kept  # Free the decoded object, because it refers to the caller's buffer.
            if any(len(value) > MAX_MEMBER_BYTES for value in values.values()):
                return False
            # Parse the raw values with `json`, because msgspec checks neither UTF-8 nor the length of integers in them.
            found = {name: json.loads(value) for name, value in values.items() if value}
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        if None in found.values():
            return False
        self.found, self.begun, self.ended = found, set(found), True
        return True

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
            # The next byte is the quote that ends the string, or a backslash at the end of the chunk.
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
            self._keep(data[at:].translate(None, _WHITESPACE))
            return len(data)
        before, mark, end = data[at : match.start()], match.group(), match.end()
        self._keep(before.translate(None, _WHITESPACE))
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
            # End here, because the text is not an object.
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
