"""Fair scheduling between classes, so that one busy class cannot monopolise the event loop that serves all of them.

After each read a connection yields until its class's next turn: in each round of the loop, one connection of each class
continues, however many have data. A round without other work takes some microseconds, so a single active class is
hardly slowed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict


class FairScheduler:
    """The queues of connections that wait to continue, one queue for each listener."""

    def __init__(self) -> None:
        self._queues: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def wait(self, listener: int) -> None:
        """Wait for the listener's next turn, in the order of arrival."""
        async with self._queues[listener]:
            await asyncio.sleep(0)
