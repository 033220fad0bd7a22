"""Bodies on the wire: content encodings of requests, the two protobuf messages that answers are made of."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from importlib import import_module

from .wire import RequestError


def status_body(message: str) -> bytes:
    """A google.rpc.Status with nothing but a message (field 2): the body of Loki's refusals."""
    raw = message.encode("utf-8", "replace")
    return b"\x12" + varint(len(raw)) + raw


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def partial_body(rejected: int) -> bytes:
    """An ExportLogsServiceResponse that says some records were rejected."""
    text = b"rejected by a fault that is switched on"
    inner = b"\x08" + varint(rejected) + b"\x12" + varint(len(text)) + text
    return b"\x0a" + varint(len(inner)) + inner


def _zstd() -> Callable[[bytes], bytes] | None:
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        with contextlib.suppress(ImportError):
            decompress: Callable[[bytes], bytes] = import_module(name).decompress
            return decompress
    return None


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its Content-Encoding; RequestError with Loki's words."""
    if encoding == "":
        return body
    if encoding == "gzip":
        if len(body) < 10:
            raise RequestError("unexpected EOF" if body else "EOF")
        inflater = zlib.decompressobj(31)
        try:
            out = inflater.decompress(body, limit)
        except zlib.error as error:
            raise RequestError("gzip: invalid header" if body[:2] != b"\x1f\x8b" else f"gzip: {error}") from error
        if not inflater.eof:
            raise RequestError("unexpected EOF")
        return out
    if encoding == "zstd":
        decompress = _zstd()
        if decompress is None:
            raise RequestError("stand-in: knows no zstd here (Python 3.14, or the package backports.zstd)")
        try:
            return decompress(body)
        except Exception as error:  # the three modules have an error class each
            raise RequestError(f"zstd: {error}") from error
    if encoding == "lz4":
        raise RequestError("stand-in: knows no lz4; Loki does")
    raise RequestError(f"unsupported content encoding {encoding}: only gzip, lz4 and zstd are supported")
