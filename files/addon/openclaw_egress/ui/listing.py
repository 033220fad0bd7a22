"""The list of exchanges and denials: its conditions, its lines, and its search.

The search reads the newest records first, in ranges of line numbers, until a page is full or a time limit is reached.
Its time is therefore bounded even if matches are rare. The next page continues where the search stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from openclaw_egress.reports import search
from openclaw_egress.reports.text import escape, local_time, seconds
from openclaw_egress.spool.reader import Filters, Row, SpoolReader
from openclaw_egress.ui import ranges

PAGE = 50
"""Maximum number of records on a page."""
LIVE = 500
"""Maximum number of records in one event of the live list. `static/live.js` shows at most the same number."""
FIELDS = ("class", "host", "model", "status", "code", "event", "since", "until")
"""Names of the conditions, in the URL and in the form."""
MAX_TEXT = 1024
"""Maximum number of characters of a condition."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a list, as text and as filters. ``problem`` says why a text is invalid."""

    texts: Mapping[str, str]
    filters: Filters
    problem: str = ""

    @property
    def query(self) -> str:
        """Return the URL query that contains these conditions."""
        return urlencode({name: text for name, text in self.texts.items() if text})

    def older(self, before: int) -> str:
        """Return the URL query of the next page, with the records before line ``before``."""
        return urlencode({**{name: text for name, text in self.texts.items() if text}, "before": before})


def conditions_of(given: Mapping[str, str]) -> Conditions:
    """Return the conditions in a URL's query. If one is invalid, match nothing and set `Conditions.problem`."""
    texts = {name: given.get(name, "").strip() for name in FIELDS}
    values: dict[str, Any] = {"event_names": search.event_names(None)}
    readers: dict[str, Callable[[str], Mapping[str, Any]]] = {
        "status": lambda text: dict(zip(("status_min", "status_max"), search.status_range(text), strict=True)),
        "code": lambda text: {"code": search.known_code(text)},
        "event": lambda text: {"event_names": search.event_names(text)},
        "since": lambda text: {"since_ns": search.moment(text)},
        "until": lambda text: {"until_ns": search.moment(text)},
        "class": lambda text: {"class_name": text},
        "host": lambda text: {"host": text},
        "model": lambda text: {"model": text},
    }
    for name, text in texts.items():
        if not text:
            continue
        if len(text) > MAX_TEXT:
            problem = f"{name}: the condition has {len(text):,} characters; write at most {MAX_TEXT}"
            return Conditions(texts, Filters(limit=0), problem)
        try:
            values |= readers[name](text)
        except search.InvalidCondition as error:
            return Conditions(texts, Filters(limit=0), f"{name}: {text!r} is not valid; {error}")
    return Conditions(texts, Filters(**values))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the list: a record, formatted for display."""

    seq: int
    cells: Mapping[str, str]
    tone: str
    """``bad`` for a failure, ``warn`` for a denial or an aborted exchange, else empty."""


CELLS = ("time", "class", "client", "host", "model", "status", "tokens", "duration", "outcome", "detail")
"""Columns of the list."""


def line_of(row: Row) -> Line:
    """Return a record as a line of the list."""
    tokens = "" if row.input_tokens is None else f"{row.input_tokens:,}"
    tokens += "" if row.output_tokens is None else f" → {row.output_tokens:,}"
    cells = {
        "time": local_time(row.time_ns),
        "class": row.class_name,
        "client": row.client or "",
        "host": f"{row.host}:{row.port}" if row.host and row.port not in (None, 443) else row.host or "",
        "model": row.model or "",
        "status": "" if row.status is None else str(row.status),
        "tokens": tokens,
        "duration": seconds(row.duration),
        "outcome": row.outcome or row.event_name.rpartition(".")[2],
        "detail": row.reason or "" if not row.id else f"{row.method or ''} {row.error_type or ''}".strip(),
    }
    return Line(row.seq, {name: escape(text) for name, text in cells.items()}, tone_of(row))


def tone_of(row: Row) -> str:
    """Return ``bad`` for a failure, ``warn`` for a denial or an aborted exchange, else an empty string."""
    if row.outcome in ("upstream_error", "interrupted") or (row.status or 0) >= 500:
        return "bad"
    return "warn" if row.outcome in ("denied", "reported", "client_aborted") or (row.status or 0) >= 400 else ""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the list. The next page has the records before line ``older``, which is None on the last page."""

    lines: Sequence[Line]
    newest: int
    older: int | None
    full: bool
    """Whether the page is complete. Otherwise the search reached its time limit first."""


def search_page(reader: SpoolReader, conditions: Conditions, before: int | None, clock: Callable[[], float]) -> Page:
    """Return a page with the newest matching records before the line number ``before``."""
    newest = reader.head()[0]
    filters = conditions.filters
    first, last = reader.find_range(filters.since_ns, filters.until_ns)
    searched = min(newest if before is None else before - 1, newest, last) + 1
    rows: list[Row] = []
    for low, top in () if conditions.problem else ranges.newest_first(first, searched, clock):
        rows += reader.query(_between(filters, low, top, PAGE + 1 - len(rows)))
        searched = low
        if len(rows) > PAGE:
            break
    if len(rows) > PAGE:
        return Page([line_of(row) for row in rows[:PAGE]], newest, rows[PAGE - 1].seq, full=True)
    ended = searched <= first
    return Page([line_of(row) for row in rows], newest, None if ended else searched, full=ended)


@dataclass(frozen=True, slots=True)
class News:
    """The newest records that arrived after a line, in order of arrival."""

    newest: int
    """Number of the newest line."""
    lines: Sequence[Line] = ()
    left_out: int = 0
    """Number of skipped lines: the oldest of the new ones, up to line number ``before`` (exclusive)."""
    before: int = 0


def news(reader: SpoolReader, conditions: Conditions, after: int, clock: Callable[[], float]) -> News:
    """Return at most `LIVE` matching records after the line number ``after``, within a time limit.

    Read the newest first, so that a page that was disconnected for long shows the newest records, not the oldest.
    """
    newest = reader.head()[0]
    if newest <= after or conditions.problem:
        return News(newest)
    rows: list[Row] = []
    low = newest + 1
    for low, top in ranges.newest_first(after + 1, newest + 1, clock):
        rows += reader.query(_between(conditions.filters, low, top, LIVE + 1 - len(rows)))
        if len(rows) > LIVE:
            break
    shown = rows[:LIVE]
    before = low if shown == rows else shown[-1].seq
    return News(newest, [line_of(row) for row in reversed(shown)], before - after - 1, before)


def _between(filters: Filters, first: int, end: int, limit: int) -> Filters:
    return replace(filters.within(first, end), limit=limit, newest_first=True)
