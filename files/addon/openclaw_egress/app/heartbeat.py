"""The heartbeat: tasks that run in the event loop every second. If they stop running, the loop is blocked."""

from __future__ import annotations

import asyncio
import logging
import time

from openclaw_egress.proxy.memory import Accounts
from openclaw_egress.proxy.served_ca import ServedCA
from openclaw_egress.spool.writer import Spool

log = logging.getLogger("openclaw_egress")


class Heartbeat:
    """The tasks of the heartbeat: once per second, install the newest CA and update the memory accounts."""

    def __init__(self, spool: Spool, served_ca: ServedCA, memory: Accounts) -> None:
        self._spool = spool
        self._served_ca = served_ca
        self._memory = memory
        self._seen = time.monotonic()
        self.problem = ""
        """Name and error of the task that failed in the last heartbeat, or an empty string."""

    @property
    def silence(self) -> float:
        """Return the seconds since the last heartbeat."""
        return time.monotonic() - self._seen

    async def run(self) -> None:
        """Run the tasks each second. Never return."""
        self._spool.failure_level = logging.ERROR
        while True:
            self._seen = time.monotonic()
            self._run_tasks()
            await asyncio.sleep(1)

    def _run_tasks(self) -> None:
        """Run the tasks of one heartbeat. If a task fails, log the error, set `problem`, and run the next task."""
        failed = ""
        for task in (self._served_ca.serve, self._memory.settle_all):
            try:
                task()
            except Exception as error:
                failed = f"heartbeat: {task.__name__} failed: {type(error).__name__}"
                if failed != self.problem:
                    log.error("%s", failed, exc_info=error)
        self.problem = failed
