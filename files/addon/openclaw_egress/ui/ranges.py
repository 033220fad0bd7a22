"""Ranges of line numbers, by which a page reads the spool: the newest lines first, until a time limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from openclaw_egress.spool.reader import SpoolReader

STEP = 10_000
"""Number of lines in a range."""
READ_SECONDS = 0.4
"""Default time limit, in seconds. After it, no further range begins."""


def newest_first(
    first: int, end: int, clock: Callable[[], float], seconds: float = READ_SECONDS
) -> Iterator[tuple[int, int]]:
    """Yield ranges from ``end`` down to ``first``, as ``(low, top)``; ``top`` and ``end`` are exclusive.

    Yield at least one range, unless there are no lines. If the time limit is reached before ``first``, the last ``low``
    is greater than ``first``.
    """
    top, late = end, clock() + seconds
    while top > first:
        low = max(first, top - STEP)
        yield low, top
        if clock() >= late:
            return
        top = low


def time_of(reader: SpoolReader, seq: int) -> int:
    """Return the time of a line in Unix nanoseconds; 0 if the line is missing in a damaged ledger."""
    return next((time_ns for _, time_ns, _, _ in reader.ledger(seq, seq)), 0)
