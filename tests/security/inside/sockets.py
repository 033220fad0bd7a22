"""Sockets and raw HTTP for the techniques: short timeouts and no HTTP library."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

PATIENCE = 2.0
"""Timeout of an attempt in seconds. Only dropped packets take this long: a rejected attempt ends immediately."""

ANSWER_PATIENCE = 6.0

HEAD_ENDS = b"\r\n\r\n"


def tcp(host: str, port: int, payload: bytes = b"", source_port: int = 0) -> str:
    """Connect, send and read. Return the response as evidence. An open connection without a response also counts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        if source_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", source_port))
        sock.connect((host, port))
        with contextlib.suppress(OSError):
            sock.sendall(payload)
            return f"connected, {sock.recv(80)!r}"
        return "connected"


def udp(host: str, port: int, payload: bytes, ttl: int | None = None, source_port: int = 0) -> str:
    """Send a datagram, at most twice. Return the response as evidence, or an empty text if no response arrives."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE / 2)
        if ttl is not None:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        if source_port:
            sock.bind(("", source_port))
        sock.connect((host, port))
        for _ in range(2):
            sock.send(payload)
            with contextlib.suppress(TimeoutError):
                return f"answered {sock.recv(4096)[:80]!r}"
        return ""


@contextlib.contextmanager
def connected(address: tuple[str, int], patience: float = ANSWER_PATIENCE) -> Iterator[socket.socket]:
    """Open a TCP connection, usually to a listener of the proxy. ``patience`` is the timeout for reading a response.

    Use a shorter timeout to connect, because even a firewall that rejects may send no response: the kernel sends each
    host at most one ICMP error per second.
    """
    with socket.create_connection(address, min(patience, PATIENCE)) as sock:
        sock.settimeout(patience)
        yield sock


def read_some(sock: socket.socket, most: int = 65536) -> bytes:
    """Read until the peer closes the connection, the timeout passes, or ``most`` bytes arrived."""
    found = b""
    with contextlib.suppress(OSError):
        while len(found) < most and (piece := sock.recv(65536)):
            found += piece
    return found


def read_answer(sock: socket.socket) -> bytes:
    """Read one response: the head, and a body of Content-Length bytes."""
    found = b""
    with contextlib.suppress(OSError):
        while HEAD_ENDS not in found and (piece := sock.recv(65536)):
            found += piece
        head, _, body = found.partition(HEAD_ENDS)
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < min(length, 65536) and (piece := sock.recv(65536)):
            body += piece
            found += piece
    return found


def came(answer: bytes) -> bytes:
    """Return the response if it is not empty.

    Raises:
        RuntimeError: no response arrived. It could arrive later and be mistaken for the response to the next request.
    """
    if not answer:
        raise RuntimeError("no response to the first request")
    return answer


def status_of(answer: bytes) -> int:
    """Return the status code of an HTTP response, or 0 if there is no response."""
    words = answer.split(b" ", 2)
    return int(words[1]) if answer.startswith(b"HTTP/") and len(words) > 1 and words[1].isdigit() else 0


def ask(address: tuple[str, int], data: bytes) -> bytes:
    """Send bytes. Return the response."""
    with connected(address) as sock:
        sock.sendall(data)
        return read_answer(sock)


def connect(sock: socket.socket, target: str, *more: str) -> int:
    """Request a tunnel. Return the status code."""
    lines = (f"CONNECT {target} HTTP/1.1", f"Host: {target}", *more)
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"))
    return status_of(read_answer(sock))


def unverified(alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """Return a TLS context that accepts every certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def tls(sock: socket.socket, name: str | None, alpn: tuple[str, ...] = ()) -> ssl.SSLSocket:
    """Start TLS over a socket, accepting any certificate."""
    return unverified(alpn).wrap_socket(sock, server_hostname=name)


def reached(answer: bytes) -> str:
    """Return evidence that a destination behind the proxy responded, or that the proxy tried to connect to it.

    Any response that the proxy did not generate came from a destination, even 404. The proxy's refusals, 400 responses
    and resolution errors are not evidence (the name server's log shows whether the proxy looked up the name). The
    error "could not connect" is evidence, because the proxy tried to connect.
    """
    status = status_of(answer)
    tried = b'details="upstream"' in answer
    refused = not tried and (b"openclaw-egress" in answer or b"openclaw.egress" in answer)
    malformed = status in (400, 431) and b"mitmproxy" in answer
    if status == 0 or refused or malformed:
        return ""
    return f"status {status} {answer.partition(HEAD_ENDS)[2][:80]!r}"
