"""A faulty provider behind TLS on loopback. The last segment of the request path selects the fault."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

GIB = 1024**3
LIMIT_SECONDS = 20.0
"""Timeout in seconds for faults that would otherwise not end."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n"
STREAM = HEAD % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n"
PLAIN = HEAD % b"application/json"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


EVENT = _chunk(b'event: ping\ndata: {"type": "ping"}\n\n')


def _reset(sock: ssl.SSLSocket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_before_the_answer(sock: ssl.SSLSocket) -> None:
    """Send RST instead of a response."""
    _reset(sock)


def reset_in_a_stream(sock: ssl.SSLSocket) -> None:
    """Send RST after three events."""
    for piece in (STREAM, EVENT, EVENT, EVENT):
        sock.sendall(piece)
        time.sleep(0.05)
    _reset(sock)


def end_in_a_stream(sock: ssl.SSLSocket) -> None:
    """Close the connection cleanly in the middle of a stream."""
    sock.sendall(STREAM + EVENT * 3)


def half_a_body(sock: ssl.SSLSocket) -> None:
    """Send half of the bytes that Content-Length announces, then shut down the sending direction."""
    sock.sendall(PLAIN + b"Content-Length: 1000\r\n\r\n" + b"x" * 500)
    with contextlib.suppress(OSError):
        sock.unwrap().shutdown(socket.SHUT_WR)


def stall_before_the_answer(sock: ssl.SSLSocket) -> None:
    """Send nothing and keep the connection open."""
    with contextlib.suppress(OSError):
        sock.recv(1)


def stall_in_a_stream(sock: ssl.SSLSocket) -> None:
    """Send three events, then nothing."""
    sock.sendall(STREAM + EVENT * 3)
    with contextlib.suppress(OSError):
        sock.recv(1)


def garbage(sock: ssl.SSLSocket) -> None:
    """Send bytes that are not HTTP."""
    sock.sendall(bytes(range(256)) * 64 + b"\r\n\r\n")


def carriage_return_in_a_head(sock: ssl.SSLSocket) -> None:
    """Send a header value with a bare CR. A parser that treats CR as a line break sees a second field."""
    sock.sendall(HEAD % b"text/plain\rSet-Cookie: a" + b"Content-Length: 2\r\n\r\nok")


def two_lengths(sock: ssl.SSLSocket) -> None:
    """Send two Content-Length fields with different values."""
    sock.sendall(PLAIN + b"Content-Length: 2\r\nContent-Length: 20\r\n\r\n" + b"x" * 20)


def no_head(sock: ssl.SSLSocket) -> None:
    """Send an HTTP/0.9 response."""
    sock.sendall(b"<html>hello</html>")


def endless_hints(sock: ssl.SSLSocket) -> None:
    """Send Early Hints (103) repeatedly and no final response."""
    _for_ever(sock, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")


def hints_before_the_answer(sock: ssl.SSLSocket) -> None:
    """Send Early Hints, then a complete response."""
    sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    sock.sendall(PLAIN + b"Content-Length: 2\r\n\r\n{}")


def garbage_in_a_stream(sock: ssl.SSLSocket) -> None:
    """Send bytes that are not a chunk, between two valid chunks."""
    sock.sendall(STREAM + EVENT + b"no chunk at all\r\n" * 4)


def endless_head(sock: ssl.SSLSocket) -> None:
    """Send header fields endlessly."""
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    _for_ever(sock, b"X-More: " + b"y" * 8000 + b"\r\n")


def endless_chunk_size(sock: ssl.SSLSocket) -> None:
    """Send a chunk size with endless digits."""
    sock.sendall(STREAM)
    _for_ever(sock, b"0" * 8000)


def endless_line(sock: ssl.SSLSocket) -> None:
    """Send an event stream that is one line of 30 MB."""
    sock.sendall(STREAM)
    for _ in range(30):
        sock.sendall(_chunk(b"x" * 1_000_000))
    sock.sendall(b"0\r\n\r\n")


def bomb(sock: ssl.SSLSocket) -> None:
    """Send 1 GiB of spaces, compressed with gzip to 1 MB. The checksum is wrong, but decoders stop before it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    spaces = b" " * (1024 * 1024)
    sock.sendall(PLAIN + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
    sock.sendall(_chunk(packer.compress(spaces) + packer.flush(zlib.Z_FULL_FLUSH)))
    block = _chunk(packer.compress(spaces) + packer.flush(zlib.Z_FULL_FLUSH))
    for _ in range(GIB // len(spaces) - 2):
        sock.sendall(block)
    sock.sendall(_chunk(packer.flush()) + b"0\r\n\r\n")


def _for_ever(sock: ssl.SSLSocket, piece: bytes) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        sock.sendall(piece)


type Part = Callable[[ssl.SSLSocket], None]

PARTS: dict[str, Part] = {
    part.__name__.replace("_", "-"): part
    for part in (
        reset_before_the_answer,
        reset_in_a_stream,
        end_in_a_stream,
        half_a_body,
        stall_before_the_answer,
        stall_in_a_stream,
        garbage,
        carriage_return_in_a_head,
        two_lengths,
        no_head,
        endless_hints,
        hints_before_the_answer,
        garbage_in_a_stream,
        endless_head,
        endless_chunk_size,
        endless_line,
        bomb,
    )
}


@contextlib.contextmanager
def listening(cert: Path, key: Path, parts: Mapping[str, Part] = PARTS) -> Iterator[int]:
    """Run the faulty provider within the context. Yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        threading.Thread(target=_accept, args=(server, context, parts), daemon=True).start()
        yield server.getsockname()[1]


def _accept(server: socket.socket, context: ssl.SSLContext, parts: Mapping[str, Part]) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, context, parts), daemon=True).start()


def _serve(connection: socket.socket, context: ssl.SSLContext, parts: Mapping[str, Part]) -> None:
    connection.settimeout(LIMIT_SECONDS)
    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as sock:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := sock.recv(65536)):
                return
            head += piece
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
        body = len(head.partition(b"\r\n\r\n")[2])
        while body < length:
            body += len(sock.recv(65536))
        parts[head.partition(b" ")[2].partition(b" ")[0].rpartition(b"/")[2].decode()](sock)
