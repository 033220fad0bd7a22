"""Sockets, and HTTP in bytes, as techniques use them: short patience, no politeness, no library between."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

PATIENCE = 2.0
"""Seconds. A wall that drops costs that much a try; one that rejects, nothing."""

ANSWER_PATIENCE = 6.0

HEAD_ENDS = b"\r\n\r\n"


def tcp(host: str, port: int, payload: bytes = b"", source_port: int = 0) -> str:
    """Connect, send, and read: what came, as evidence. A connection without a word is one all the same."""
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
    """Send a datagram twice; what came back, and nothing where nothing did."""
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
    """A TCP connection, to a listener of the proxy as a rule; ``patience`` is with its answers.

    A wall that rejects may seem one that drops: a kernel sends an ICMP error a second to a host, and no more.
    """
    with socket.create_connection(address, min(patience, PATIENCE)) as sock:
        sock.settimeout(patience)
        yield sock


def read_some(sock: socket.socket, most: int = 65536) -> bytes:
    """What comes until the other side closes, is silent, or has said ``most`` bytes."""
    found = b""
    with contextlib.suppress(OSError):
        while len(found) < most and (piece := sock.recv(65536)):
            found += piece
    return found


def read_answer(sock: socket.socket) -> bytes:
    """One answer: its head, and as much of a body as its Content-Length says."""
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
    """An answer without which the next proves nothing: one that comes late must not pass for it.

    Raises:
        RuntimeError: there is none.
    """
    if not answer:
        raise RuntimeError("the first answer did not come")
    return answer


def status_of(answer: bytes) -> int:
    """The status of an HTTP answer; 0 where there is none."""
    words = answer.split(b" ", 2)
    return int(words[1]) if answer.startswith(b"HTTP/") and len(words) > 1 and words[1].isdigit() else 0


def ask(address: tuple[str, int], data: bytes) -> bytes:
    """Send bytes; returns the answer."""
    with connected(address) as sock:
        sock.sendall(data)
        return read_answer(sock)


def connect(sock: socket.socket, target: str, *more: str) -> int:
    """Ask for a tunnel; returns the status."""
    lines = (f"CONNECT {target} HTTP/1.1", f"Host: {target}", *more)
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"))
    return status_of(read_answer(sock))


def unverified(alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A context of a client that trusts everybody."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def tls(sock: socket.socket, name: str | None, alpn: tuple[str, ...] = ()) -> ssl.SSLSocket:
    """TLS over a socket, whatever certificate comes."""
    return unverified(alpn).wrap_socket(sock, server_hostname=name)


def reached(answer: bytes) -> str:
    """Evidence that somebody behind the proxy answered, or that the proxy tried to reach them.

    Whatever the proxy did not say itself came from there, a 404 too. Its own words are the wall: a refusal, a bad
    request, a name that does not resolve (whether it was asked for, the name server's log says). That a connection
    could not be made is none: it was tried.
    """
    status = status_of(answer)
    tried = b'details="upstream"' in answer
    refused = not tried and (b"openclaw-egress" in answer or b"openclaw.egress" in answer)
    malformed = status in (400, 431) and b"mitmproxy" in answer
    if status == 0 or refused or malformed:
        return ""
    return f"status {status} {answer.partition(HEAD_ENDS)[2][:80]!r}"
