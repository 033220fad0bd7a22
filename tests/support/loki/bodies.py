"""Decoding of compressed request bodies, and encoding of the two protobuf messages that responses contain."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from importlib import import_module

from .wire import RequestError


def status_body(message: str) -> bytes:
    """Return the body of a Loki error response: a google.rpc.Status with only a message (field 2)."""
    raw = message.encode("utf-8", "replace")
    return b"\x12" + varint(len(raw)) + raw


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def partial_body(rejected: int) -> bytes:
    """Return an ExportLogsServiceResponse that reports this number of rejected records."""
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
    """Decode a body with this Content-Encoding. If the body is invalid, raise RequestError with Loki's message."""
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
            raise RequestError("Loki fake: zstd needs Python 3.14 or the package backports.zstd")
        try:
            return decompress(body)
        except Exception as error:  # The three zstd modules raise different exceptions.
            raise RequestError(f"zstd: {error}") from error
    if encoding == "lz4":
        raise RequestError("Loki fake: lz4 is not supported (Loki supports it)")
    raise RequestError(f"unsupported content encoding {encoding}: only gzip, lz4 and zstd are supported")
