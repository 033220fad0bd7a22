"""Incremental parser of Amazon's event stream encoding (`application/vnd.amazon.eventstream`).

Source: https://smithy.io/2.0/aws/amazon-eventstream.html. A message consists of a prelude (total length, length of the
headers, CRC of both), headers, a payload, and the CRC of all previous bytes. Numbers are big-endian. The parser keeps
only headers with a string value. Like `botocore`, it stops at a wrong CRC, length or header, because no later length
can be trusted. Its maximum message size is smaller than that of `botocore`: it drops and counts a longer message, and
continues with the next. It also drops an incomplete message at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

DEFAULT_MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_MAX_HEADERS = 128 * 1024
_MAX_PAYLOAD = 24 * 1024 * 1024
_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
# Size, in bytes, of a header's value by type: true, false, byte, short, integer, long, timestamp, UUID.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7


@dataclass(frozen=True)
class Message:
    """Message of an event stream: its payload, and its headers that have a string value."""

    headers: Mapping[str, str]
    payload: bytes


class AwsEventStream:
    """Parser of one stream.

    `max_bytes` is the maximum size of a message; `dropped` counts longer messages. `damaged` is True after invalid
    data; the parser then ignores all further bytes.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_MESSAGE_BYTES) -> None:
        self.dropped = 0
        self.damaged = False
        self._max = max_bytes
        self._held = bytearray()
        self._at = 0
        # State while the parser skips a message that is too long: the number of bytes left before its CRC, and the CRC
        # of the bytes skipped so far.
        self._skip: int | None = None
        self._crc = 0

    def feed(self, data: bytes) -> list[Message]:
        """Process the next bytes. Return the messages that they complete."""
        found: list[Message] = []
        if self.damaged:
            return found
        self._held += data
        self._at = 0
        try:
            while self._skipped() if self._skip is not None else self._message(found):
                pass
        except _DamagedError:
            self.damaged = True
            self._at = len(self._held)
        del self._held[: self._at]
        return found

    def _message(self, found: list[Message]) -> bool:
        """Append the next message to ``found`` if it is complete. Return whether the buffer may contain another."""
        left = len(self._held) - self._at
        if left < _PRELUDE.size:
            return False
        total, headers, prelude_crc = _PRELUDE.unpack_from(self._held, self._at)
        payload = total - headers - _PRELUDE.size - _CRC.size
        _check(self._held[self._at : self._at + _PRELUDE.size - _CRC.size], prelude_crc)
        if headers > _MAX_HEADERS or not 0 <= payload <= _MAX_PAYLOAD:
            raise _DamagedError
        if total > self._max:
            self._skip, self._crc = total - _CRC.size, 0
            return True
        if left < total:
            return False
        message = bytes(self._held[self._at : self._at + total])
        _check(message[: -_CRC.size], *_CRC.unpack(message[-_CRC.size :]))
        text = _PRELUDE.size + headers
        found.append(Message(_headers(message[_PRELUDE.size : text]), message[text : -_CRC.size]))
        self._at += total
        return True

    def _skipped(self) -> bool:
        """Skip bytes of a message that is too long. Return whether its end was reached."""
        part = self._held[self._at : self._at + (self._skip or 0)]
        self._crc = crc32(part, self._crc)
        self._skip = (self._skip or 0) - len(part)
        self._at += len(part)
        if self._skip or len(self._held) - self._at < _CRC.size:
            return False
        if _CRC.unpack_from(self._held, self._at)[0] != self._crc:
            raise _DamagedError
        self._skip = None
        self._at += _CRC.size
        self.dropped += 1
        return True


class _DamagedError(Exception):
    """The bytes are not a valid event stream."""


def _check(data: bytes | bytearray, crc: int) -> None:
    if crc32(data) != crc:
        raise _DamagedError


def _headers(data: bytes) -> dict[str, str]:
    """Return the headers that have a string value."""
    found: dict[str, str] = {}
    names: set[bytes] = set()
    at = 0
    try:
        while at < len(data):
            value = at + 1 + data[at] + 1
            name, kind = data[at + 1 : value - 1], data[value - 1]
            if kind in (_BYTES, _STRING):
                value += 2
                at = value + int.from_bytes(data[value - 2 : value])
            else:
                at = value + _FIXED[kind]
            if at > len(data) or name in names:
                raise _DamagedError
            names.add(name)
            if kind == _STRING:
                found[name.decode()] = data[value:at].decode()
    except (IndexError, KeyError, UnicodeDecodeError):
        raise _DamagedError from None
    return found
