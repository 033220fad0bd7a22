"""The order in which a page reads the spool: ranges of line numbers, the newest first, until a time limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from openclaw_egress.spool.reader import SpoolReader

STEP = 10_000
"""Lines of a range."""
READ_SECONDS = 0.4
"""Default time after which no further range begins."""


def newest_first(
    first: int, end: int, clock: Callable[[], float], seconds: float = READ_SECONDS
) -> Iterator[tuple[int, int]]:
    """Yield ``(low, top)`` for the lines from ``low`` to before ``top``, from ``end`` down to ``first``.

    Yield at least one range, unless there is no line. If the time ends before the ranges reach ``first``, the last
    ``low`` is greater than ``first``.
    """
    top, late = end, clock() + seconds
    while top > first:
        low = max(first, top - STEP)
        yield low, top
        if clock() >= late:
            return
        top = low


def time_of(reader: SpoolReader, seq: int) -> int:
    """Return the time of a line in Unix nanoseconds; 0 if a damaged ledger lacks it."""
    return next((time_ns for _, time_ns, _, _ in reader.ledger(seq, seq)), 0)
