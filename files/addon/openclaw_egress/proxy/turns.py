"""Turns: one event loop serves every class, and a class that keeps it busy must not have it to itself.

Whoever has handled a piece of traffic lets others go before it reads on: in each round of the loop one connection of a
class goes on, however many of them have something to say. A round in which nobody else has work costs some
microseconds, so a class that is alone is hardly slowed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from mitmproxy.proxy import server


class Turns:
    """Who may go on, by listener."""

    def __init__(self) -> None:
        self._queues: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def wait(self, listener: int) -> None:
        """Wait for the listener's next turn, in the order of those who asked."""
        async with self._queues[listener]:
            await asyncio.sleep(0)


def install() -> None:
    """Make every connection wait for its turn between two reads; calling this twice changes nothing."""
    original = server.ConnectionHandler.drain_writers
    if getattr(original, "takes_turns", False):
        return
    turns = Turns()

    async def drain_writers(self: server.ConnectionHandler) -> None:
        await original(self)  # type: ignore[no-untyped-call]
        await turns.wait(self.client.sockname[1])

    drain_writers.takes_turns = True  # type: ignore[attr-defined]
    server.ConnectionHandler.drain_writers = drain_writers  # type: ignore[method-assign]
