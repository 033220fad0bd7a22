"""A replacement for mitmproxy's reader of chunked bodies. It is stricter, and drops trailers."""

from __future__ import annotations

from typing import Any

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy.layers.http._http1 import Http1Connection

from openclaw_egress.wire import http1_syntax


class StrictChunkedReader:
    """The reader of one chunked body. It refuses malformed chunks, and drops trailers.

    Args:
        padded: whether to accept spaces and tabs after a chunk's size, which some old servers send.
    """

    def __init__(self, *, padded: bool = False) -> None:
        self._padded = padded
        self._left = 0
        self._end: bytes = b""
        self._trailers: int | None = None
        self.problem = ""

    def __call__(self, buffer: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        """Return the next piece of the body, or its end, or None if more bytes are needed."""
        if self._trailers is not None:
            return self._skip_trailers(buffer)
        while self._end:
            if not (found := buffer.maybe_extract_at_most(len(self._end))):
                return None
            if not self._end.startswith(found):
                self._fail("a chunk's data is not as long as its size states")
            self._end = self._end[len(found) :]
        if self._left == 0:
            if (line := buffer.maybe_extract_next_line()) is None:
                if len(buffer) > http1_syntax.MAX_CHUNK_LINE_BYTES:
                    self._fail("the size of a chunk is malformed")
                return None
            size = http1_syntax.chunk_size(bytes(line), padded=self._padded)
            if size is None:
                self._fail("the size of a chunk is malformed")
            elif size == 0:
                self._trailers = 0
                return self._skip_trailers(buffer)
            else:
                self._left = size
        if not (data := buffer.maybe_extract_at_most(self._left)):
            return None
        self._left -= len(data)
        if self._left == 0:
            self._end = b"\r\n"
        return h11.Data(data=bytes(data))

    def _skip_trailers(self, buffer: ReceiveBuffer) -> h11.EndOfMessage | None:
        while (line := buffer.maybe_extract_next_line()) is not None:
            if line == b"\r\n":
                return h11.EndOfMessage()
            self._trailers = (self._trailers or 0) + len(line)
            if self._trailers > http1_syntax.MAX_TRAILER_BYTES or not http1_syntax.is_trailer(bytes(line)):
                self._fail("the trailers are malformed or too long")
        if (self._trailers or 0) + len(buffer) > http1_syntax.MAX_TRAILER_BYTES:
            self._fail("the trailers are malformed or too long")
        return None

    def read_eof(self) -> None:
        """Raise an error, because the connection ended before the body was complete."""
        raise h11.RemoteProtocolError("peer closed connection without sending complete message body")

    def _fail(self, problem: str) -> None:
        self.problem = problem
        raise h11.RemoteProtocolError(problem)


def buffered_chunks_problem(data: bytes) -> str:
    """Return the problem in the received part of a chunked body, or an empty string if this part is valid."""
    buffer, reader = ReceiveBuffer(), StrictChunkedReader()
    buffer += data
    try:
        while isinstance(reader(buffer), h11.Data):
            pass
    except h11.ProtocolError:
        return reader.problem
    return ""


class StrictBodies(Http1Connection):
    """Base class of the HTTP/1 connections to clients and servers. `StrictChunkedReader` reads their chunked bodies."""

    _padded_chunks = False
    _reader: Any = None

    @property
    def body_reader(self) -> Any:
        """Return the reader of the current body; mitmproxy sets it for each body."""
        return self._reader

    @body_reader.setter
    def body_reader(self, reader: Any) -> None:
        chunked = isinstance(reader, ChunkedReader)
        self._reader = StrictChunkedReader(padded=self._padded_chunks) if chunked else reader
