"""Floods of connections and requests that any client can send. Each runs in a separate process for a limited time.

    python -m tests.resilience.floods NAME SECONDS SINK_PORT LISTENER…

Most floods open `CONNECTIONS` parallel connections to each listener, more than the limit of a class. The sink is the
destination of the tunnels: it reads everything and sends nothing. The process lowers its own priority, so that the
flood does not take CPU time from the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

CONNECTIONS = 300
FAST = 64
"""Number of connections to each listener for floods that keep the CPU busy."""
PACE_SECONDS = 0.2
ALLOWED, DENIED = "www.example.com", "www.denied.example"
_numbers = itertools.count()


@dataclass(frozen=True)
class Target:
    """The ports that a flood uses: a listener, and the sink, which the policy allows as a destination."""

    listener: int
    sink: int


class Link:
    """A client's connection to a listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send bytes, and wait until the buffer has room for more."""
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> bytes:
        """Read the head of a response."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> None:
        """Read a response with its body."""
        head = (await self.head()).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
        await self._reader.readexactly(length)

    async def until_closed(self) -> None:
        """Read until the proxy closes the connection."""
        while await self._reader.read(65536):
            pass


def connect(host: str, port: int) -> bytes:
    """Return the head of a CONNECT request."""
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()


def post(host: str, more: str) -> bytes:
    """Return the head of a POST request without a tunnel. ``more`` contains additional header lines."""
    return f"POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


HELLO = b"\x16\x03\x01"
# A complete ClientHello (RFC 8446, 4.1.2) with the name ALLOWED. The proxy opens the tunnel. After that, neither side
# sends anything.
_NAME = b"\x00" + len(ALLOWED).to_bytes(2) + ALLOWED.encode()
_EXTENSION = b"\x00\x00" + (len(_NAME) + 2).to_bytes(2) + len(_NAME).to_bytes(2) + _NAME
_BODY = b"\x03\x03" + b"r" * 32 + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00" + len(_EXTENSION).to_bytes(2) + _EXTENSION
_HANDSHAKE = b"\x01" + len(_BODY).to_bytes(3) + _BODY
WHOLE_HELLO = HELLO + len(_HANDSHAKE).to_bytes(2) + _HANDSHAKE


# ── floods: the actions of one connection ────────────────────────────────────────────────────────────────────────


async def connections(link: Link, _: Target) -> None:
    """Keep the connection open and send nothing."""
    await link.until_closed()


async def slow_heads(link: Link, _: Target) -> None:
    """Send a request head byte by byte."""
    for byte in post(ALLOWED, "X-Slow: " + "y" * 1000):
        await link.send(bytes([byte]))
        await asyncio.sleep(PACE_SECONDS)


async def half_open_connects(link: Link, target: Target) -> None:
    """Open a tunnel, send the first bytes of a TLS handshake, then nothing."""
    await link.send(connect(ALLOWED, target.sink))
    await link.head()
    await link.send(HELLO)
    await link.until_closed()


async def idle_tunnels(link: Link, target: Target) -> None:
    """Open a tunnel, send a complete ClientHello, then nothing."""
    await link.send(connect(ALLOWED, target.sink))
    await link.head()
    await link.send(WHOLE_HELLO)
    await link.until_closed()


async def denied_bodies(link: Link, _: Target) -> None:
    """Send a gigabyte as the body of a denied request."""
    await link.send(post(DENIED, "Content-Length: 1000000000\r\n"))
    for _ in range(1_000):
        await link.send(b"x" * 1_000_000)


async def requests(link: Link, _: Target) -> None:
    """Send requests that the policy denies, one after the other."""
    while True:
        await link.send(post(DENIED, "Content-Length: 0\r\n"))
        await link.answer()


async def slow_names(link: Link, _: Target) -> None:
    """Request different names, each with a slow lookup."""
    await link.send(connect(f"n{next(_numbers)}.slow.example", 443))
    await link.until_closed()


async def big_heads(link: Link, _: Target) -> None:
    """Send request heads with many fields, just below the size limit."""
    while True:
        await link.send(post(DENIED, "Content-Length: 0\r\n" + ("X-Big: " + "y" * 380 + "\r\n") * 160))
        await link.answer()


async def churn(_: Link, __: Target) -> None:
    """Connect to the listener and disconnect immediately."""


FLOODS: dict[str, tuple[int, Callable[[Link, Target], Awaitable[None]]]] = {
    "connections": (CONNECTIONS, connections),
    "slow heads": (CONNECTIONS, slow_heads),
    "half-open CONNECTs": (CONNECTIONS, half_open_connects),
    "idle tunnels": (CONNECTIONS, idle_tunnels),
    "bodies that are denied": (CONNECTIONS, denied_bodies),
    "refused requests": (FAST, requests),
    "names that resolve slowly": (CONNECTIONS, slow_names),
    "big heads": (FAST, big_heads),
    "connection churn": (FAST, churn),
}


async def one(play: Callable[[Link, Target], Awaitable[None]], target: Target, until: float, done: list[int]) -> None:
    """Open a connection and run the flood's actions on it. Repeat this until the time ``until``.

    Add the number of connections to ``done[0]``.
    """
    while time.monotonic() < until:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", target.listener)
            await play(Link(reader, writer), target)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await asyncio.sleep(PACE_SECONDS)
        finally:
            done[0] += 1
            if writer is not None:
                writer.close()


async def flood(name: str, seconds: float, sink: int, listeners: list[int]) -> int:
    """Run one flood against the listeners. Return the number of connections that it made."""
    count, play = FLOODS[name]
    done = [0]
    until = time.monotonic() + seconds

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                pass
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", sink, backlog=1024)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(
                *(one(play, Target(listener, sink), until, done) for listener in listeners for _ in range(count))
            )
    server.close()
    return done[0]


def main(arguments: list[str]) -> None:
    """Run the flood that the arguments name. Print a line at its start, and the number of connections at its end."""
    name, seconds, sink, *listeners = arguments
    os.nice(10)
    print("begun", flush=True)
    print(asyncio.run(flood(name, float(seconds), int(sink), [int(port) for port in listeners])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
