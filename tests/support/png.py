"""Conversion of a browser's screenshots to smaller PNG files (https://www.w3.org/TR/png-3/)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BYTES_PER_PIXEL = {2: 3, 6: 4}
"""Bytes per pixel for each PNG colour type of screenshots: 2 is RGB, 6 is RGB with transparency."""


def without_filters(png: bytes) -> bytes:
    """Encode the picture again without line filters. With filters, a picture of text is about 25 % larger.

    Raises:
        ValueError: the picture does not have 8-bit RGB pixels, or it is interlaced.
    """
    chunks = list(_chunks(png))
    width, _, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if bits != 8 or colour not in BYTES_PER_PIXEL or interlaced:
        raise ValueError("the PNG has no 8-bit RGB pixels")
    filtered = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    step = BYTES_PER_PIXEL[colour]
    pixels = b"".join(b"\0" + line for line in _lines(filtered, width * step, step))
    made = [chunks[0], (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in made
    )


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += size + 12


def _lines(filtered: bytes, width: int, step: int) -> Iterator[bytes]:
    """Undo the filter of each line and yield its bytes. Section 9 of the PNG specification defines the filters."""
    above = bytes(width)
    for begin in range(0, len(filtered), width + 1):
        kind, line = filtered[begin], bytearray(filtered[begin + 1 : begin + 1 + width])
        for at, byte in enumerate(line):
            left = line[at - step] if at >= step else 0
            corner = above[at - step] if at >= step else 0
            line[at] = (byte + _predicted(kind, left, above[at], corner)) & 255
        above = bytes(line)
        yield above


def _predicted(kind: int, left: int, above: int, corner: int) -> int:
    if kind == 4:
        nearest = left + above - corner
        return min((left, above, corner), key=lambda value: abs(nearest - value))
    return (0, left, above, (left + above) // 2)[kind]
