"""The usage page: totals by day, by model and by class, and the slowest and most expensive exchanges of the period."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from openclaw_egress.reports.text import local_time, seconds
from openclaw_egress.reports.usage import COUNT_COLUMNS, NONE, By, Group, grouped, regrouped, total_of
from openclaw_egress.spool.reader import Brief, Filters, SpoolReader
from openclaw_egress.spool.usage_totals import Usage
from openclaw_egress.ui import ranges

SINCE = "7d"
SECONDS = 0.6
"""Time limit for the page, in seconds. The search for the slowest and most expensive exchanges stops there."""
SHOWN = 10
"""Number of slowest exchanges, and of most expensive ones, on the page."""
MAX_ROWS = 100
"""Maximum number of rows of a table. The command `egress usage` shows all rows."""


@dataclass(frozen=True, slots=True)
class Table:
    """Totals grouped by one value, as text. ``more`` is the number of omitted rows."""

    by: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    more: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart. ``height`` is in thousandths of the highest bar."""

    name: str
    value: str
    height: int


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart with one bar for each day. ``more`` is the number of omitted earlier days."""

    title: str
    bars: Sequence[Bar]
    highest: str
    more: int


@dataclass(frozen=True, slots=True)
class Extreme:
    """One of the slowest or most expensive exchanges."""

    seq: int
    time: str
    model: str
    value: str


@dataclass(frozen=True, slots=True)
class UsageView:
    """The contents of the usage page."""

    tables: Sequence[Table]
    charts: Sequence[Chart]
    slowest: Sequence[Extreme]
    dearest: Sequence[Extreme]
    searched_since: str
    """Time of the oldest line in the search for ``slowest`` and ``dearest``; empty if it covered the whole period.
    """


def usage_of(
    reader: SpoolReader,
    since_ns: int,
    until_ns: int | None,
    class_name: str | None,
    clock: Callable[[], float],
) -> UsageView:
    """Return the contents of the usage page: grouped totals, and the slowest and most expensive exchanges."""
    began = clock()
    # Read the totals only once, without durations, and regroup them here. Reading them for each table would take
    # seconds for a month with many models.
    names = (By.MODEL, By.CLASS, By.DAY)
    groups = grouped(reader, names, since_ns, until_ns, class_name, times=False)
    by = {name: regrouped(groups, names, at) for at, name in enumerate(names)}
    filters = Filters(since_ns=since_ns, until_ns=until_ns, class_name=class_name)
    slowest, dearest, oldest_ns = read_extremes(reader, filters, clock, SECONDS - (clock() - began))
    return UsageView(
        tables=[_table(name, groups) for name, groups in by.items()],
        charts=[
            _chart("Tokens by day", by[By.DAY], _tokens, lambda value: f"{value:,.0f}"),
            _chart("Known cost by day", by[By.DAY], lambda usage: usage.cost_usd, lambda value: f"{value:,.4f} USD"),
        ],
        slowest=[_extreme(row, seconds(row.duration)) for row in slowest],
        dearest=[_extreme(row, f"{row.cost_usd or 0:,.4f} USD") for row in dearest],
        searched_since="" if oldest_ns is None else local_time(oldest_ns),
    )


def read_extremes(
    reader: SpoolReader, filters: Filters, clock: Callable[[], float], seconds: float = ranges.READ_SECONDS
) -> tuple[list[Brief], list[Brief], int | None]:
    """Return the slowest and the most expensive of the matching exchanges. Search the newest records first.

    The third value is the time of the oldest line searched; None if the search read all lines within its time limit.
    """
    first, last = reader.find_range(filters.since_ns, filters.until_ns)
    slowest: list[Brief] = []
    dearest: list[Brief] = []
    low = first
    for low, top in ranges.newest_first(first, last + 1, clock, seconds):
        within = replace(filters.within(low, top), limit=SHOWN)
        slowest = _highest("duration", [*slowest, *reader.highest("duration", within)])
        dearest = _highest("cost_usd", [*dearest, *reader.highest("cost_usd", within)])
    return slowest, dearest, ranges.time_of(reader, low) if low > first else None


def _tokens(usage: Usage) -> float:
    return usage.counts["input_tokens"] + usage.counts["output_tokens"]


def cache_share(usage: Usage) -> str:
    """Return the share of input tokens that came from a cache, as text; empty if there are no input tokens."""
    total = usage.counts["input_tokens"]
    return f"{usage.counts['cache_read_tokens'] / total:.0%}" if total else ""


def _table(by: By, groups: Sequence[Group]) -> Table:
    shown = list(groups[-MAX_ROWS:] if by is By.DAY else groups[:MAX_ROWS])
    named = [(NONE if values[0] is None else str(values[0]), totals) for values, totals in shown]
    if len(groups) > 1:
        named.append(("total", total_of(groups)))
    rows = [[name, *(text(totals) for _, text in COUNT_COLUMNS), cache_share(totals)] for name, totals in named]
    return Table(
        by.value, [by.value, *(name for name, _ in COUNT_COLUMNS), "cache share"], rows, len(groups) - len(shown)
    )


def _chart(title: str, days: Sequence[Group], value: Callable[[Usage], float], text: Callable[[float], str]) -> Chart:
    shown = [(str(values[0]), value(totals)) for values, totals in days[-MAX_ROWS:]]
    highest = max((number for _, number in shown), default=0)
    bars = [Bar(day, text(number), round(1000 * number / highest) if highest else 0) for day, number in shown]
    return Chart(title, bars, text(highest), len(days) - len(shown))


def _highest(name: Literal["duration", "cost_usd"], rows: Sequence[Brief]) -> list[Brief]:
    return heapq.nlargest(SHOWN, rows, key=lambda row: (getattr(row, name), row.seq))


def _extreme(row: Brief, value: str) -> Extreme:
    return Extreme(row.seq, local_time(row.time_ns), row.model or NONE, value)
