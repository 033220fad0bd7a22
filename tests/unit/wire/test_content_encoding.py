"""Tests of content decoding: the output is correct for every split of the bytes, and its size is limited."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from itertools import pairwise

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.wire.content_encoding import PIECE_BYTES, BodyDecoder

TEXT = '{"text": "Grüße ✓ '.encode() + bytes(range(256)) * 3 + b'"}'


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "deflate ": raw_deflate,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "identity": bytes,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data, mtime=0)),
    "zstd, deflate, gzip": lambda data: gzip.compress(zlib.compress(zstd.compress(data)), mtime=0),
}
ALL = pytest.mark.parametrize("coding", list(ENCODERS))
COMPRESSING = pytest.mark.parametrize("coding", ["gzip", "deflate", "deflate ", "br", "zstd"])


def decode(coding: str | None, *chunks: bytes, max_output: int | None = None) -> tuple[bytes, BodyDecoder]:
    decoder = BodyDecoder(coding, max_output)
    return b"".join([decoder.feed(chunk) for chunk in chunks] + [decoder.finish()]), decoder


@ALL
def test_decoder_gives_the_same_output_for_every_split(coding: str) -> None:
    coded = ENCODERS[coding](TEXT)
    cuts = [(coded[:at], coded[at:]) for at in range(len(coded) + 1)]
    for chunks in [*cuts, tuple(coded[at : at + 1] for at in range(len(coded)))]:
        decoded, decoder = decode(coding, *chunks)
        assert (decoded, decoder.error, decoder.output_bytes) == (TEXT, None, len(TEXT))


@given(st.binary(max_size=5000), st.sampled_from(list(ENCODERS)), st.lists(st.integers(0, 6000), max_size=8))
def test_any_data_in_any_chunks_is_decoded_correctly(data: bytes, coding: str, places: list[int]) -> None:
    coded = ENCODERS[coding](data)
    edges = [0, *sorted(min(place, len(coded)) for place in places), len(coded)]
    chunks = [coded[start:end] for start, end in pairwise(edges)]
    decoded, decoder = decode(coding, *chunks)
    assert (decoded, decoder.error) == (data, None)


@given(st.binary(max_size=3000), st.sampled_from(list(ENCODERS)))
def test_invalid_data_never_raises(data: bytes, coding: str) -> None:
    decode(coding, data[:100], data[100:])


@COMPRESSING
def test_output_larger_than_a_piece_is_complete(coding: str) -> None:
    for size in (PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 10 * PIECE_BYTES):
        decoded, decoder = decode(coding, ENCODERS[coding](bytes(size)))
        assert (len(decoded), decoder.error) == (size, None)


def flushing(coding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    """Return two functions. One compresses data; the other flushes, so that a decoder can read all data so far."""
    if coding == "br":
        compressor = brotli.Compressor()
        return compressor.process, compressor.flush
    if coding == "zstd":
        frame = zstd.ZstdCompressor()
        return frame.compress, lambda: frame.flush(frame.FLUSH_BLOCK)
    deflater = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "deflate ": -15}[coding])
    return deflater.compress, lambda: deflater.flush(zlib.Z_SYNC_FLUSH)


@COMPRESSING
def test_each_flushed_event_is_readable_at_once(coding: str) -> None:
    compress, flushed = flushing(coding)
    decoder = BodyDecoder(coding)
    for number in range(5):
        event = f"data: {number}\n\n".encode()
        assert decoder.feed(compress(event) + flushed()) == event


@COMPRESSING
def test_decompression_bomb_stops_at_the_limit_in_bounded_memory(coding: str) -> None:
    bomb = _bomb(coding, 1 << 30 if coding == "zstd" else 1 << 26)
    tracemalloc.start()
    decoder = BodyDecoder(coding, max_output=4 << 20)
    given_out = sum(len(piece) for piece in decoder.pieces(bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert given_out == decoder.output_bytes == 4 << 20
    assert decoder.exhausted
    assert decoder.error == "decodes to more than 4194304 bytes"
    assert peak < 2 << 20
    assert decoder.feed(bomb) == b""


def _bomb(coding: str, size: int) -> bytes:
    if coding == "zstd":
        compressor = zstd.ZstdCompressor()
        block = bytes(1 << 20)
        bomb = b"".join(compressor.compress(block) for _ in range(size >> 20)) + compressor.flush()
        assert len(bomb) < 128 << 10
        return bomb
    return ENCODERS[coding](bytes(size))


def test_decompression_bomb_stops_even_if_the_inner_coding_has_no_output() -> None:
    # The inner data is a skippable zstd frame that claims a length of 2 GiB. A decoder consumes it without any output.
    swallowing = b"\x50\x2a\x4d\x18" + (0x7FFFFFFF).to_bytes(4, "little") + bytes(1 << 26)
    decoded, decoder = decode("zstd, gzip", gzip.compress(swallowing), max_output=1 << 20)
    assert (decoded, decoder.exhausted) == (b"", True)


def test_decoded_size_is_limited_by_default() -> None:
    decoder = BodyDecoder("zstd")
    assert sum(len(piece) for piece in decoder.pieces(_bomb("zstd", 1 << 27))) == 64 << 20
    assert decoder.exhausted


def test_identity_has_no_limit() -> None:
    decoded, decoder = decode(None, bytes(3000), max_output=1000)
    assert (len(decoded), decoder.exhausted, decoder.error) == (3000, False, None)


@COMPRESSING
def test_truncated_data_is_decoded_as_far_as_possible_and_reported(coding: str) -> None:
    whole = ENCODERS[coding](TEXT * 50)
    decoded, decoder = decode(coding, whole[: len(whole) - 3])
    assert (TEXT * 50).startswith(decoded)
    assert decoder.error == f"{coding.strip()} data ends early"


@COMPRESSING
def test_empty_body_is_not_an_error(coding: str) -> None:
    assert decode(coding)[1].error is None


@COMPRESSING
def test_trailing_data_is_an_error_after_the_body(coding: str) -> None:
    decoded, decoder = decode(coding, ENCODERS[coding](TEXT), b"garbage")
    assert decoded == TEXT
    assert "after" in str(decoder.error)


def test_gzip_of_several_members_and_zstd_of_several_frames_are_one_body() -> None:
    for coding in ("gzip", "zstd"):
        coded = b"".join(ENCODERS[coding](part) for part in (b"one ", b"", b"two"))
        for at in range(len(coded) + 1):
            decoded, decoder = decode(coding, coded[:at], coded[at:])
            assert (decoded, decoder.error) == (b"one two", None)


def test_a_zstd_window_above_8_mb_is_refused() -> None:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 25})
    decoded, decoder = decode("zstd", compressor.compress(bytes(100)) + compressor.flush())
    assert decoded == b""
    assert "memory" in str(decoder.error)


def test_plain_text_with_coding_gzip_is_an_error() -> None:
    decoded, decoder = decode("gzip", b'{"plain": true}', b"more")
    assert decoded == b""
    assert str(decoder.error).startswith("not valid gzip data")


@pytest.mark.parametrize("header", ["", "identity", " , identity", "IDENTITY"])
def test_body_without_a_coding_is_unmodified(header: str) -> None:
    assert decode(header, b"abc")[0] == b"abc"


@pytest.mark.parametrize("header", ["rot13", "gzip, rot13", "gzip, gzip, gzip, gzip"])
def test_body_with_an_unknown_coding_is_unmodified_and_reported(header: str) -> None:
    decoded, decoder = decode(header, b"abc")
    assert decoded == b"abc"
    assert "stored undecoded" in str(decoder.error)


def test_coding_names_are_case_insensitive_and_have_old_aliases() -> None:
    assert decode("X-GZip", gzip.compress(TEXT))[0] == TEXT
