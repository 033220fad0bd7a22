"""Usage tables: the hourly totals in sorted groups, and the columns to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum

from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.usage_totals import Usage

NONE = "(none)"
"""Text to show for an unknown value, such as the model of a request that named no model."""


class By(StrEnum):
    """The value by which totals are grouped."""

    MODEL = "model"
    PROVIDER = "provider"
    CLASS = "class"
    HOST = "host"
    KEY = "key"
    STATUS = "status"
    DAY = "day"
    HOUR = "hour"


type Group = tuple[tuple[object, ...], Usage]
"""A group: its values (None for an unknown one), and its totals."""


def grouped(
    reader: SpoolReader,
    by: Sequence[By],
    since_ns: int,
    until_ns: int | None = None,
    class_name: str | None = None,
    *,
    times: bool = True,
) -> list[Group]:
    """Return the totals of each group. Sort days and hours in ascending order, and other groups by descending cost.

    Without ``times``, the totals contain no durations, and reading is several times as fast.
    """
    groups: dict[tuple[object, ...], Usage] = {}
    for stored, totals in reader.usage(by, since_ns, until_ns, class_name, times=times):
        shown = tuple(_value(name, value) for name, value in zip(by, stored, strict=True))
        groups.setdefault(shown, Usage()).merge(totals)
    return sorted(groups.items(), key=lambda item: _order(by, *item))


def regrouped(groups: Sequence[Group], by: Sequence[By], at: int) -> list[Group]:
    """Merge groups that have the same value at index ``at``. Sort the result as `grouped` does."""
    found: dict[tuple[object, ...], Usage] = {}
    for values, totals in groups:
        found.setdefault((values[at],), Usage()).merge(totals)
    return sorted(found.items(), key=lambda item: _order([by[at]], *item))


def total_of(groups: Sequence[Group]) -> Usage:
    """Return the sum of the totals of all groups."""
    everything = Usage()
    for _, totals in groups:
        everything.merge(totals)
    return everything


def _value(by: By, stored: str | int) -> object:
    """Return the value of a group as displayed; None if it is unknown."""
    if by is By.HOUR:
        return f"{datetime.fromtimestamp(int(stored) * 3600).astimezone():%Y-%m-%d %H:%M%z}"
    return stored or None


def _order(by: Sequence[By], values: tuple[object, ...], totals: Usage) -> tuple[object, ...]:
    if by[0] in (By.DAY, By.HOUR):
        return (*map(str, values),)
    return (-totals.counts["cost_nano_usd"], -totals.counts["requests"], *map(str, values))


def cost(usage: Usage) -> str:
    """Return the known cost as text. If the cost of some requests is unknown, mark the cost as a minimum."""
    if not usage.counts["unpriced"]:
        return f"{usage.cost_usd:,.4f}"
    return f"≥ {usage.cost_usd:,.4f}" if usage.cost_usd else "unknown"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"


COUNT_COLUMNS: list[tuple[str, Callable[[Usage], str]]] = [
    ("requests", lambda usage: f"{usage.counts['requests']:,}"),
    ("errors", lambda usage: f"{usage.counts['errors']:,}"),
    ("tokens in", lambda usage: f"{usage.counts['input_tokens']:,}"),
    ("out", lambda usage: f"{usage.counts['output_tokens']:,}"),
    ("from cache", lambda usage: f"{usage.counts['cache_read_tokens']:,}"),
    ("to cache", lambda usage: f"{usage.counts['cache_write_tokens']:,}"),
    ("reasoning", lambda usage: f"{usage.counts['reasoning_tokens']:,}"),
    ("cost USD", cost),
    ("unpriced", lambda usage: f"{usage.counts['unpriced']:,}"),
]
"""Columns of a usage table without durations: the name, and a function that returns the text for a group."""
COLUMNS = [
    *COUNT_COLUMNS,
    ("p50", lambda usage: _time(usage.duration.percentile(0.5))),
    ("p95", lambda usage: _time(usage.duration.percentile(0.95))),
    ("first chunk p50", lambda usage: _time(usage.first_chunk.percentile(0.5))),
    ("first chunk p95", lambda usage: _time(usage.first_chunk.percentile(0.95))),
]
"""All columns of a usage table."""
