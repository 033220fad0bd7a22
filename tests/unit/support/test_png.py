"""Tests of the conversion of screenshots to smaller PNG files."""

import struct
import zlib

import pytest

from tests.support.png import SIGNATURE, _chunks, without_filters

WIDTH = 3


def png(lines: bytes, height: int, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, height, 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_each_filter_is_undone():
    """Test the filters 0 to 4 of the PNG specification. The expected values were calculated by hand."""
    first = bytes([0, 10, 20, 30, 40, 50, 60, 70, 80, 90])
    sub = bytes([1, 5, 5, 5, 1, 1, 1, 250, 250, 250])
    up = bytes([2, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    average = bytes([3, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    nearest = bytes([4, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    made = dict(_chunks(without_filters(png(first + sub + up + average + nearest, 5))))
    assert [list(zlib.decompress(made[b"IDAT"])[at : at + 10]) for at in range(0, 50, 10)] == [
        [0, 10, 20, 30, 40, 50, 60, 70, 80, 90],
        [0, 5, 5, 5, 6, 6, 6, 0, 0, 0],
        [0, 6, 6, 6, 7, 7, 7, 1, 1, 1],
        [0, 13, 13, 13, 20, 20, 20, 20, 20, 20],
        [0, 14, 14, 14, 21, 21, 21, 22, 22, 22],
    ]


def test_other_pixels_are_refused():
    with pytest.raises(ValueError, match="no 8-bit RGB pixels"):
        without_filters(png(b"\0" * 4, 1, colour=0))
