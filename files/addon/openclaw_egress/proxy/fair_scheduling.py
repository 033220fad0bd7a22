"""Fair scheduling between classes, so that one busy class cannot monopolise the event loop that serves all of them.

After each read a connection waits until it may continue. In each iteration of the event loop, only one connection of
each class continues, even if many have data. If only one class is active, the wait costs little time, because an
iteration without other work takes a few microseconds.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict


class FairScheduler:
    """The queues of connections that wait to continue, one queue for each listener."""

    def __init__(self) -> None:
        self._queues: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def wait(self, listener: int) -> None:
        """Wait until this connection may continue. Connections of one listener continue in order of arrival."""
        async with self._queues[listener]:
            await asyncio.sleep(0)
