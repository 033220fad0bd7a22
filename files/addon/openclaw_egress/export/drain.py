"""Log messages about a backlog: when the exporter begins to send it, once a minute, and when none is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from openclaw_egress.recording.records import rfc3339
from openclaw_egress.reports.text import size

log = logging.getLogger("openclaw_egress.export")

BACKLOG_PUSHES = 4
PROGRESS_SECONDS = 60.0


@dataclass(slots=True)
class _Drain:
    last_seq: int
    began: float
    reported: float
    lines: int = 0
    sent: int = 0


class DrainLog:
    """The log messages about backlogs. At most one backlog is in progress.

    Args:
        push: size of a full push in bytes. A backlog is more than `BACKLOG_PUSHES` full pushes.
        clock: returns monotonic seconds.
    """

    def __init__(self, push: int, clock: Callable[[], float]) -> None:
        self._push = push
        self._clock = clock
        self._drain: _Drain | None = None

    def begin(self, stats: Mapping[str, int], oldest_ns: int) -> None:
        """Log the beginning of a backlog if enough lines are pending and no backlog is in progress.

        Args:
            stats: the spool's counts, including the push that the destination has just accepted.
            oldest_ns: timestamp of the oldest pending line.
        """
        waiting = stats["pending_bytes"]
        if self._drain is None and waiting > BACKLOG_PUSHES * self._push:
            self._drain = _Drain(stats["last_seq"], self._clock(), self._clock())
            lines, oldest = stats["pending_records"], rfc3339(oldest_ns)
            log.info("sending a backlog: %d lines, %s, the oldest from %s", lines, size(waiting), oldest)

    def sent(self, seqs: Sequence[int], sent: int, stats: Mapping[str, int]) -> None:
        """Count an accepted push. Log the progress once a minute, and the end of the backlog.

        The backlog ends when no line that was pending at its beginning is left, and less than a full push is pending.

        Args:
            seqs: sequence numbers of the lines in the push.
            sent: size of the push in bytes, as the destination counts it.
            stats: the spool's counts after the acknowledgement of the push.
        """
        if self._drain is None:
            return
        self._drain.lines += len(seqs)
        self._drain.sent += sent
        if seqs[-1] >= self._drain.last_seq and stats["pending_bytes"] < self._push:
            self.end()
        elif self._clock() - self._drain.reported >= PROGRESS_SECONDS:
            self._drain.reported = self._clock()
            log.info("sending the backlog: %d lines sent, %d left", self._drain.lines, stats["pending_records"])

    def end(self) -> None:
        """Log the end of the backlog, if one is in progress.

        Its lines were sent, dead-lettered, or dropped by the spool. The message counts only the lines that were sent.
        """
        if self._drain is None:
            return
        seconds = self._clock() - self._drain.began
        rate = size(self._drain.sent / max(seconds, 0.001))
        log.info("no backlog is left: %d lines sent in %.0f s, %s/s", self._drain.lines, seconds, rate)
        self._drain = None
