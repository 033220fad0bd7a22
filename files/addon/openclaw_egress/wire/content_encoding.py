"""Incremental, bounded decoding of content codings.

The input can have chunks of any size. The output consists of pieces of at most about 64 KB and ends at a limit, because
32 KB of zstd can decode to a gigabyte. Invalid data raises no exception: it sets `BodyDecoder.error`.

Codings:

- gzip, with one or several members;
- deflate, with the zlib header, as RFC 9110 requires, or without it, as many servers send it;
- br (RFC 7932);
- zstd (RFC 8878), with windows up to 8 MB, as RFC 9659 requires;
- identity, and lists of these codings (RFC 9110, section 8.4).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli  # type: ignore[import-untyped]  # brotli has no type stubs

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 64 * 1024
DEFAULT_MAX_OUTPUT = 64 * 1024 * 1024
MAX_CODINGS = 3
_ZSTD_WINDOW_LOG = 23


class _Damaged(Exception):
    """The data is invalid. The text of the error describes the problem."""


class _Coding(Protocol):
    """Decoder of one coding. Exhaust `pieces` before the next call. `finish` raises `_Damaged` if the data ends early.

    `window` is the maximum number of output bytes that the decoder keeps; `tables` is the size of its tables in bytes.
    """

    window: int
    tables: int

    def pieces(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class _Zlib:
    """Decoder of gzip and zlib. A gzip body may have several members in sequence."""

    window, tables = 32 * 1024, 16 * 1024

    def __init__(self, name: str, window_bits: int) -> None:
        self._name = name
        self._window_bits = window_bits
        self._inflater = zlib.decompressobj(window_bits)
        self._begun = False
        self._members = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflater.eof:
                self._next_member(data)
            self._begun = True
            piece = self._inflate(data)
            if piece:
                yield piece
            data = self._inflater.unconsumed_tail
            while len(piece) == PIECE_BYTES and not self._inflater.eof and not data:
                # Drain the decoder: it has accepted all input, but may still hold output, because the piece was full.
                piece = self._inflate(b"")
                if piece:
                    yield piece
                data = self._inflater.unconsumed_tail
            if self._inflater.eof:
                self._members += 1
                data = self._inflater.unused_data

    def _inflate(self, data: bytes) -> bytes:
        try:
            return self._inflater.decompress(data, PIECE_BYTES)
        except zlib.error as problem:
            raise _Damaged(self._words(problem)) from None

    def _next_member(self, data: bytes) -> None:
        if self._window_bits != zlib.MAX_WBITS + 16:
            raise _Damaged(f"{len(data)} bytes or more after the end of the {self._name} data")
        self._inflater = zlib.decompressobj(self._window_bits)
        self._begun = False

    def _words(self, problem: zlib.error) -> str:
        if self._members:
            return f"bytes after the end of the {self._name} data that are not another member"
        return f"not valid {self._name} data ({str(problem).rpartition(': ')[2]})"

    def finish(self) -> None:
        if self._begun and not self._inflater.eof:
            raise _Damaged(f"{self._name} data ends early")


class _Deflate:
    """Decoder of `deflate`: zlib data, as the standard requires, or raw deflate. The first two bytes show which."""

    window, tables = _Zlib.window, _Zlib.tables

    def __init__(self) -> None:
        self._head = b""
        self._inner: _Zlib | None = None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if self._inner is None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return
            method_and_window, check = data[0], data[1]
            zlib_header = method_and_window & 0x8F == 0x08 and (method_and_window << 8 | check) % 31 == 0
            self._inner = _Zlib("deflate", zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)
        yield from self._inner.pieces(data)

    def finish(self) -> None:
        if self._inner is not None:
            self._inner.finish()
        elif self._head:
            raise _Damaged("deflate data ends early")


class _Brotli:
    """Decoder of br. If the input of a call is invalid, the library returns no output for that call."""

    window, tables = 16 * 1024 * 1024, 128 * 1024

    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()
        self._begun = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if data and self._decompressor.is_finished():
            raise _Damaged(f"{len(data)} bytes or more after the end of the br data")
        self._begun = self._begun or bool(data)
        # Use short slices, because the output of a slice that contains invalid data is lost.
        for start in range(0, len(data), 4096):
            piece = self._process(data[start : start + 4096])
            while piece or not self._decompressor.can_accept_more_data():
                if piece:
                    yield piece
                # Continue until a piece is empty, because a decoder that accepts more input may still hold output.
                if self._decompressor.is_finished() and self._decompressor.can_accept_more_data():
                    break
                piece = self._process(b"")

    def _process(self, data: bytes) -> bytes:
        try:
            return bytes(self._decompressor.process(data, output_buffer_limit=PIECE_BYTES))
        except brotli.error:
            raise _Damaged("not valid br data, or bytes after its end") from None

    def finish(self) -> None:
        if self._begun and not self._decompressor.is_finished():
            raise _Damaged("br data ends early")


class _Zstd:
    """Decoder of zstd. A body may contain several frames, and skippable frames."""

    window, tables = 1 << _ZSTD_WINDOW_LOG, 256 * 1024

    def __init__(self) -> None:
        self._frame = self._new_frame()
        self._begun = False
        self._frames = 0

    @staticmethod
    def _new_frame() -> zstd.ZstdDecompressor:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data or not self._frame.needs_input:
            if self._frame.eof:
                if not data:
                    return
                self._frame = self._new_frame()
            self._begun = True
            try:
                piece = self._frame.decompress(data, PIECE_BYTES)
            except zstd.ZstdError as problem:
                raise _Damaged(self._words(problem)) from None
            if piece:
                yield piece
            data = b""
            if self._frame.eof:
                self._frames += 1
                data = self._frame.unused_data

    def _words(self, problem: zstd.ZstdError) -> str:
        if self._frames:
            return "bytes after the end of the zstd data that are not another frame"
        return f"not valid zstd data ({str(problem).rpartition(': ')[2]})"

    def finish(self) -> None:
        if self._begun and not self._frame.eof:
            raise _Damaged("zstd data ends early")


def _coding(name: str) -> _Coding | None:
    match name:
        case "gzip" | "x-gzip":
            return _Zlib("gzip", zlib.MAX_WBITS + 16)
        case "deflate":
            return _Deflate()
        case "br":
            return _Brotli()
        case "zstd":
            return _Zstd()
    return None


class BodyDecoder:
    """Decoder for the Content-Encoding of one body.

    `content_encoding` is the value of the header, or None if the header is absent. `max_output` is the maximum number
    of bytes that each coding in the list may output; None means `DEFAULT_MAX_OUTPUT`. A body without a coding has no
    limit. If a coding is unknown, or the list has more than `MAX_CODINGS` codings, the decoder sets `error` immediately
    and returns the bytes unmodified, because a record of encoded bytes is better than no record.

    `error` is the problem, or None. After invalid data, or when the limit is reached, the decoder returns no further
    output. `output_bytes` is the number of decoded bytes so far. `exhausted` is True if the limit was exceeded.
    """

    def __init__(self, content_encoding: str | None, max_output: int | None = None) -> None:
        self.error: str | None = None
        self.output_bytes = 0
        self.exhausted = False
        self._max_output = DEFAULT_MAX_OUTPUT if max_output is None else max_output
        self._stopped = False
        names = [name.strip().lower() for name in (content_encoding or "").split(",")]
        names = [name for name in names if name not in ("", "identity")]
        codings = [_coding(name) for name in reversed(names[: MAX_CODINGS + 1])]
        self._codings = [coding for coding in codings if coding is not None]
        if len(names) > MAX_CODINGS:
            self.error = f"more than {MAX_CODINGS} content codings; the body is stored undecoded"
        elif len(self._codings) < len(names):
            unknown = next(name for name in names if _coding(name) is None)
            self.error = f"unknown content coding {unknown[:40]!r}; the body is stored undecoded"
        if self.error is not None:
            self._codings = []
        # Number of output bytes of each coding so far. The limit applies to each coding, because each can be a
        # decompression bomb.
        self._given = [0] * len(self._codings)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes of `data` in pieces, to limit memory. The caller must consume all pieces."""
        if self._stopped or not data:
            return
        if not self._codings:
            self.output_bytes += len(data)
            yield data
            return
        try:
            for piece in self._through(0, data):
                self.output_bytes += len(piece)
                yield piece
        except _Damaged as problem:
            self._stop(str(problem))

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes of `data` in one piece; see `pieces`."""
        return b"".join(self.pieces(data))

    def finish(self) -> bytes:
        """End the body, and set `error` if the data of a coding is incomplete. Return no further output."""
        if not self._stopped:
            try:
                for coding in self._codings:
                    coding.finish()
            except _Damaged as problem:
                self._stop(str(problem))
        self._stopped = True
        # Release the decoders' windows and tables.
        self._codings = []
        return b""

    @property
    def held(self) -> int:
        """Return how many bytes of memory the decoders use: their tables, and the used part of their windows."""
        given = zip(self._codings, self._given, strict=True) if self._codings else ()
        return sum(coding.tables + min(coding.window, output) for coding, output in given)

    def _through(self, layer: int, data: bytes) -> Iterator[bytes]:
        if layer == len(self._codings):
            yield data
            return
        for piece in self._codings[layer].pieces(data):
            room = self._max_output - self._given[layer]
            self._given[layer] += len(piece)
            yield from self._through(layer + 1, piece[:room])
            if len(piece) > room:
                self.exhausted = True
                raise _Damaged(f"decodes to more than {self._max_output} bytes")

    def _stop(self, problem: str) -> None:
        self.error = problem
        self._stopped = True
        # Release the decoders' windows and tables, because they are not used again.
        self._codings = []
