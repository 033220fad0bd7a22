"""Techniques that put a limited load on the proxy. Meanwhile, the harness sends requests as the gateway.

Each request of the gateway that fails is a finding. Constants limit the duration and the number of connections. At its
end, a technique closes its connections.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

from tests.security.inside.core import Attack, Try, technique
from tests.security.inside.sockets import connect

SECONDS = 5.0
CONNECTIONS = 600
"""Number of connections: more than twice the limit of a class."""


def _hold(attack: Attack, first: bytes, more: bytes, most: int = CONNECTIONS) -> int:
    """Open connections, and send ``first`` on each, then ``more`` repeatedly. Return the number of connections."""
    end = time.monotonic() + SECONDS
    with contextlib.ExitStack() as stack:
        socks: list[socket.socket] = []
        while len(socks) < most and time.monotonic() < end:
            with contextlib.suppress(OSError):
                sock = stack.enter_context(socket.create_connection(attack.knowledge.proxy, 2))
                sock.setblocking(False)
                socks.append(sock)
                sock.send(first)
        while time.monotonic() < end:
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.send(more)
            time.sleep(0.5)
        return len(socks)


def _again_and_again(send: Callable[[], object]) -> int:
    """Repeat an action for ``SECONDS``. Return the number of repetitions."""
    end, times = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            send()
        times += 1
    return times


@technique(("sandbox",), alone=True)
def slowloris(attack: Attack) -> Iterator[Try]:
    """Open many connections, each with a request head that never ends."""
    number = _hold(attack, b"GET http://x/ HTTP/1.1\r\n", b"X: y\r\n")
    yield Try("heads that do not end", why_not=f"{number} connections in {SECONDS:.0f} s")


@technique(("sandbox",), alone=True)
def slow_bodies(attack: Attack) -> Iterator[Try]:
    """Send many requests whose bodies arrive one byte at a time."""
    site = attack.knowledge.allowed or attack.denied
    head = f"POST http://{site}/ HTTP/1.1\r\nHost: {site}\r\nContent-Length: 1000000\r\n\r\n".encode()
    yield Try("bodies that do not end", why_not=f"{_hold(attack, head, b'y')} connections in {SECONDS:.0f} s")


@technique(("sandbox",), alone=True)
def connection_flood(attack: Attack) -> Iterator[Try]:
    """Open and close connections as fast as possible. Then open tunnels that send nothing."""
    opened = _again_and_again(lambda: socket.create_connection(attack.knowledge.proxy, 2).close())
    yield Try("opened and dropped", why_not=f"{opened} connections in {SECONDS:.0f} s")
    target = f"{attack.knowledge.allowed or attack.denied}:443"
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
    yield Try("silent tunnels", why_not=f"{_hold(attack, head, b'')} in {SECONDS:.0f} s")


@technique(("sandbox",), alone=True)
def denials_in_a_loop(attack: Attack) -> Iterator[Try]:
    """Send denied requests as fast as one client can, each with a different name."""
    number = iter(range(10**9))

    def once() -> None:
        with socket.create_connection(attack.knowledge.proxy, 2) as sock:
            connect(sock, f"n{next(number)}.{attack.denied}:443")

    yield Try("CONNECT", why_not=f"{_again_and_again(once)} denials in {SECONDS:.0f} s")


@technique(("sandbox",), alone=True)
def large_heads_and_bodies(attack: Attack) -> Iterator[Try]:
    """Send request heads of one megabyte, and denied requests with large bodies."""

    def head() -> None:
        with socket.create_connection(attack.knowledge.proxy, 2) as sock:
            sock.sendall(b"GET http://x/ HTTP/1.1\r\n" + b"X: " + b"y" * 1_000_000)

    def body() -> None:
        request = f"POST http://{attack.denied}/ HTTP/1.1\r\nHost: {attack.denied}\r\nContent-Length: 4000000\r\n\r\n"
        with socket.create_connection(attack.knowledge.proxy, 2) as sock:
            sock.sendall(request.encode() + b"y" * 4_000_000)

    for what, send in (("heads", head), ("bodies", body)):
        yield Try(what, why_not=f"{_again_and_again(send)} in {SECONDS:.0f} s")
