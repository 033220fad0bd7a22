"""Incremental reader of WebSocket frames (RFC 6455, section 5), and the frames that the proxy itself sends.

The reader accepts bytes in chunks of any size and stores no message payload, so that its memory use does not depend on
the traffic. Extensions, such as compression, change payloads. The proxy therefore removes offers of extensions from the
handshake of a recorded connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

PROTOCOL_ERROR, INTERNAL_ERROR = 1002, 1011
"""Status codes of a close frame (RFC 6455, section 7.4.1)."""

NO_STATUS = 1005
"""Code that represents a close frame without a status code. It is never sent in a frame (RFC 6455, section 7.4.1)."""

USUAL_CLOSURES = frozenset({1000, 1001, NO_STATUS})
"""Codes of a normal close: the connection is no longer needed, an endpoint goes away, or the frame has no code."""

_MAX_CONTROL_PAYLOAD = 125
_MAX_HEAD = 14
_OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})


class FrameError(Exception):
    """The bytes are not a valid frame. The error text describes the problem and contains no bytes of the traffic."""


class Part(NamedTuple):
    """A part of a data message, or a complete control frame."""

    opcode: int
    """Opcode of the message. A part from a continuation frame has the opcode of the message's first frame."""
    payload: bytes
    """Payload bytes, without the mask."""
    ended: bool
    """Whether the message is complete."""
    end: int
    """Position in the chunk after the last byte of this part."""


class FrameReader:
    """Reader of one direction of a connection.

    Args:
        masked: whether the sender must mask its frames. A client must, and a server must not (section 5.1).
        extensions: whether an extension may change payloads and use the reserved bits.
    """

    def __init__(self, *, masked: bool, extensions: bool = False) -> None:
        self._masked = masked
        self._reserved = 0 if extensions else 0x70
        self._head = b""
        self._left: int | None = None
        """Number of payload bytes of the current frame that have not arrived; None between frames."""
        self._fin = False
        self._opcode = 0
        self._mask = b""
        self._message: int | None = None
        """Opcode of the message whose last frame has not arrived."""
        self._control = bytearray()
        self.closed = False
        """Whether a close frame has arrived. No frame may follow it."""

    @property
    def between(self) -> bool:
        """Return whether all frames and messages so far are complete."""
        return self._left is None and not self._head and self._message is None

    def feed(self, data: bytes) -> Iterator[Part]:
        """Yield the message parts and control frames in the next bytes.

        Raises:
            FrameError: the bytes are not a valid frame, and the reader cannot continue.
        """
        at = 0
        while at < len(data):
            if self.closed:
                raise FrameError("a frame arrived after the close frame")
            if self._left is None:
                at = self._read_head(data, at)
                if self._left is None:
                    return
            taken = data[at : at + self._left]
            at += len(taken)
            self._left -= len(taken)
            part = self._part(self._unmasked(taken), at)
            if not self._left:
                self._left = None
            if part is not None:
                yield part

    def _part(self, payload: bytes, end: int) -> Part | None:
        complete = not self._left
        if self._opcode >= CLOSE:
            self._control += payload
            if not complete:
                return None
            whole, self._control = bytes(self._control), bytearray()
            self.closed = self._opcode == CLOSE
            return Part(self._opcode, whole, True, end)
        opcode = self._message if self._message is not None else self._opcode
        ended = complete and self._fin
        self._message = None if ended else opcode
        return Part(opcode, payload, ended, end)

    def _read_head(self, data: bytes, at: int) -> int:
        """Read bytes of a frame's head. Return the position after the last byte read."""
        begun = len(self._head)
        head = self._head + data[at : at + _MAX_HEAD - begun]
        size = _head_size(head)
        if len(head) >= 2:
            self._check_head(head[0], head[1])
        if len(head) < size:
            self._head = head
            return len(data)
        self._head = b""
        self._begin_frame(head[:size])
        return at + size - begun

    def _check_head(self, first: int, second: int) -> None:
        opcode = first & 0x0F
        if first & self._reserved:
            raise FrameError("a reserved bit is set, but no extension was negotiated")
        if opcode not in _OPCODES:
            raise FrameError(f"the opcode {opcode:#x} is reserved")
        if bool(second & 0x80) is not self._masked:
            raise FrameError("a frame is not masked" if self._masked else "a frame is masked")
        if opcode >= CLOSE and (not first & 0x80 or second & 0x7F > _MAX_CONTROL_PAYLOAD):
            raise FrameError("a control frame is fragmented or too long")
        if opcode < CLOSE and (opcode == CONTINUATION) is not (self._message is not None):
            raise FrameError("a continuation frame is missing, or its message has no first frame")

    def _begin_frame(self, head: bytes) -> None:
        self._fin, self._opcode = bool(head[0] & 0x80), head[0] & 0x0F
        length, rest = head[1] & 0x7F, head[2:]
        if length >= 126:
            size = 2 if length == 126 else 8
            length, rest = int.from_bytes(rest[:size]), rest[size:]
            if length >> 63:
                raise FrameError("a frame has more than 2^63 bytes")
        self._left, self._mask = length, rest

    def _unmasked(self, data: bytes) -> bytes:
        if not self._mask or not data:
            return data
        mask = (self._mask * (len(data) // 4 + 1))[: len(data)]
        turned = len(data) % 4
        self._mask = self._mask[turned:] + self._mask[:turned]
        return (int.from_bytes(data) ^ int.from_bytes(mask)).to_bytes(len(data))


def _head_size(head: bytes) -> int:
    """Return the size of a frame's head. Return 2 until the first two bytes, which determine the size, are received."""
    if len(head) < 2:
        return 2
    length = head[1] & 0x7F
    return 2 + (0 if length < 126 else 2 if length == 126 else 8) + (4 if head[1] & 0x80 else 0)


def server_frame(opcode: int, payload: bytes) -> bytes:
    """Return a complete frame from a server. Such a frame is not masked."""
    if len(payload) <= _MAX_CONTROL_PAYLOAD:
        head = bytes([0x80 | opcode, len(payload)])
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, len(payload))
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, len(payload))
    return head + payload


def close_payload(code: int, reason: str) -> bytes:
    """Return the payload of a close frame. Truncate the reason to the maximum payload size."""
    return code.to_bytes(2) + reason.encode()[: _MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore").encode()


def close_code(payload: bytes) -> int:
    """Return the status code in the payload of a close frame, or `NO_STATUS` if it has none."""
    return int.from_bytes(payload[:2]) if len(payload) >= 2 else NO_STATUS
