"""Functions that send raw bytes to the proxy's listeners, for requests that an HTTP client would not send."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

TIMEOUT = 20


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """Open a TCP connection to a listener on loopback."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
        yield sock


def exchange(port: int, data: bytes) -> bytes:
    """Send bytes. Return the response head, which is empty if the proxy closed the connection without a response."""
    with connected(port) as sock:
        sock.sendall(data)
        return read_head(sock)


def read_all(sock: socket.socket) -> bytes:
    """Read until the peer closes the connection."""
    found = b""
    with contextlib.suppress(OSError):
        while piece := sock.recv(65536):
            found += piece
    return found


def read_head(sock: socket.socket) -> bytes:
    """Read until the end of a message's headers."""
    found = b""
    with contextlib.suppress(OSError):
        while b"\r\n\r\n" not in found and (piece := sock.recv(1)):
            found += piece
    return found


def status_of(answer: bytes) -> int:
    """Return the status code of an HTTP response, or 0 if the bytes are not a response."""
    words = answer.split(b" ", 2)
    return int(words[1]) if answer.startswith(b"HTTP/1.") and len(words) > 1 else 0


def connect(sock: socket.socket, target: str) -> bytes:
    """Request a tunnel. Return the response's head."""
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    return read_head(sock)


def tls(sock: socket.socket, name: str | None, ca: Path | None = None) -> ssl.SSLSocket:
    """Start TLS inside the tunnel; ``ca=None`` accepts any certificate."""
    context = ssl.create_default_context(cafile=str(ca)) if ca else ssl._create_unverified_context()
    context.check_hostname = bool(ca and name)
    return context.wrap_socket(sock, server_hostname=name)
