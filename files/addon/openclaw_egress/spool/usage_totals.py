"""Hourly totals of the exchanges: requests, tokens, cost and durations by class, provider, host, model, key and status.

The stored totals contain the exchanges up to a certain line, whose sequence number is stored in the same transaction.
`fold` adds further exchanges and advances that number. It runs in the flush thread, and before lines are deleted.
`read` adds the exchanges after that line from their records, so totals and records never differ. Totals remain after
their records are pruned. `rebuild` recomputes totals from the stored records.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from openclaw_egress.recording.semconv import EVENT_EXCHANGE

HOUR_NS = 3600 * 10**9
KEPT_HOURS = 400 * 24
"""Number of hours whose totals are kept. Only hours with exchanges count. The oldest are deleted first."""
MAX_GROUPS = 256
"""Maximum number of rows per class and hour, because agents choose models, keys and hosts. `OTHER` sums up the rest."""
OTHER = "(other)"
NANO = 10**9
"""Costs are stored in billionths of a dollar, so that sums are exact."""
FOLDED = "usage_folded_seq"
"""Key in the table ``meta`` for the sequence number of the last line whose exchange is in the totals."""
BATCH = 2000
"""Maximum number of exchanges that one transaction adds to the totals."""
MOST = 2**63 - 1
"""SQLite's largest integer. Larger sums are stored as this value, because a response can report counts of this size."""
_STEP = math.log(1.05)

GROUP = ("class", "provider", "host", "model", "key", "status")
"""Columns that, with the hour, identify a row. Unknown text is stored as an empty string, an unknown status as 0."""
DAY = "day"
"""Value for the argument ``by`` of `read` that groups by local day."""
COUNTS = (
    "requests",
    "errors",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_nano_usd",
    "unpriced",
)
"""Columns that contain sums. ``unpriced`` counts requests that have tokens but no known cost."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS usage_hours (
    hour INTEGER NOT NULL, class TEXT NOT NULL, provider TEXT NOT NULL, host TEXT NOT NULL, model TEXT NOT NULL,
    key TEXT NOT NULL, status INTEGER NOT NULL,
    {counts},
    duration TEXT NOT NULL, first_chunk TEXT NOT NULL,
    PRIMARY KEY (hour, class, provider, host, model, key, status)
) WITHOUT ROWID;
""".format(counts=", ".join(f"{name} INTEGER NOT NULL" for name in COUNTS))

_EXCHANGES = (
    "SELECT seq, time_ns, class, coalesce(provider, ''), coalesce(host, ''), coalesce(model, ''), coalesce(key, ''), "
    "coalesce(status, 0), error_type IS NOT NULL, coalesce(input_tokens, 0), coalesce(output_tokens, 0), "
    "coalesce(cache_read_tokens, 0), coalesce(cache_write_tokens, 0), coalesce(reasoning_tokens, 0), cost_usd, "
    "coalesce(input_tokens, output_tokens) IS NOT NULL, duration, first_chunk "
    "FROM records WHERE event_name = ? AND part = 0"
)
_INSERT = f"INSERT OR REPLACE INTO usage_hours VALUES ({', '.join('?' * (1 + len(GROUP) + len(COUNTS) + 2))})"  # noqa: S608
_PRIMARY_KEY = ("hour", *GROUP)
_SAME = " AND ".join(f"{name} = ?" for name in _PRIMARY_KEY)
_TIMES = ("duration", "first_chunk")
_WHOLE, _HALVES = ("",), (" >> 32", " & 4294967295")
"""SQL to append to each count inside ``sum``. `_HALVES` splits the counts, because ``sum`` fails above `MOST`."""


@dataclass(slots=True)
class Times:
    """A histogram of durations, in buckets whose limits differ by 5 %, so that percentiles are exact within 3 %."""

    buckets: Counter[int] = field(default_factory=Counter)

    @classmethod
    def read(cls, text: str) -> Times:
        """Parse a histogram from its stored text; see `text`."""
        return cls(Counter({int(bucket): count for bucket, count in json.loads(text).items()}))

    @classmethod
    def read_all(cls, text: str) -> Times:
        """Parse a JSON array of stored histograms and return their sum."""
        total: defaultdict[str, int] = defaultdict(int)
        for buckets in json.loads(text):
            for bucket, count in buckets.items():
                total[bucket] += count
        return cls(Counter({int(bucket): count for bucket, count in total.items()}))

    def text(self) -> str:
        """Return this histogram as the text that the database stores."""
        return json.dumps(dict(sorted(self.buckets.items())), separators=(",", ":"))

    def add(self, seconds: float | None) -> None:
        """Add a duration in seconds. Ignore None."""
        if seconds is not None:
            # The lowest bucket contains all durations up to one millisecond.
            self.buckets[max(0, math.ceil(math.log(max(seconds, 1e-3) / 1e-3) / _STEP))] += 1

    def percentile(self, share: float) -> float | None:
        """Return the duration in seconds that ``share`` (0 to 1) of all durations do not exceed; None if empty."""
        rank = max(1, math.ceil(share * self.buckets.total()))
        for bucket, count in sorted(self.buckets.items()):
            rank -= count
            if rank <= 0:
                return 1e-3 * math.exp((bucket - 0.5) * _STEP) if bucket else 1e-3
        return None


@dataclass(slots=True)
class Usage:
    """Totals of one group of exchanges."""

    counts: Counter[str] = field(default_factory=Counter)
    """Sums by name; `COUNTS` lists the names."""
    duration: Times = field(default_factory=Times)
    first_chunk: Times = field(default_factory=Times)

    @property
    def cost_usd(self) -> float:
        """Return the known cost in US dollars."""
        return self.counts["cost_nano_usd"] / NANO

    def merge(self, other: Usage) -> None:
        """Add the totals of another group."""
        self.counts.update(other.counts)
        self.duration.buckets.update(other.duration.buckets)
        self.first_chunk.buckets.update(other.first_chunk.buckets)


type Key = tuple[int, str, str, str, str, str, int]
"""The key of a row: the number of the hour since the Unix epoch, and the values of `GROUP`."""


def nano_usd(cost_usd: float | None) -> int:
    """Return a cost in billionths of a dollar; 0 if it is unknown."""
    return round((cost_usd or 0) * NANO)


def fold(db: sqlite3.Connection) -> int:
    """Add at most `BATCH` uncounted exchanges to the stored totals. Call this inside a transaction.

    Return the number of exchanges that were added.
    """
    rows = db.execute(f"{_EXCHANGES} AND seq > ? ORDER BY seq LIMIT ?", (EVENT_EXCHANGE, _folded(db), BATCH)).fetchall()
    found: dict[Key, Usage] = {}
    for _, *row in rows:
        key, usage = _of_record(row)
        found.setdefault(key, Usage()).merge(usage)
    for key, usage in found.items():
        _add(db, key, usage)
    if rows:
        _set_folded(db, rows[-1][0])
    return len(rows)


def fold_all(db: sqlite3.Connection) -> None:
    """Add all uncounted exchanges to the stored totals. Call this inside a transaction."""
    while fold(db) == BATCH:
        pass


def _add(db: sqlite3.Connection, key: Key, usage: Usage) -> None:
    stored = _stored(db, key)
    if stored is None:
        groups = db.execute("SELECT count(*) FROM usage_hours WHERE hour = ? AND class = ?", key[:2]).fetchone()[0]
        if groups == 0:
            # Limit the number of stored hours, not their age: if the clock is wrong once, an age limit could delete
            # the totals of a year.
            oldest = "SELECT hour FROM usage_hours GROUP BY hour ORDER BY hour DESC LIMIT 1 OFFSET ?"
            db.execute(f"DELETE FROM usage_hours WHERE hour <= ({oldest})", (KEPT_HOURS - 1,))  # noqa: S608 - constants
        if groups >= MAX_GROUPS:
            key = _as_other(key)
            stored = _stored(db, key)
    if stored is not None:
        usage.merge(stored)
    _store(db, key, usage)


def _hours(db: sqlite3.Connection) -> set[int]:
    return {int(hour) for (hour,) in db.execute("SELECT DISTINCT hour FROM usage_hours")}


def _folded(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (FOLDED,)).fetchone()
    return int(row[0]) if row else 0


def _set_folded(db: sqlite3.Connection, seq: int) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (FOLDED, seq))


def rebuild(db: sqlite3.Connection) -> int:
    """Recompute the totals from the stored records. Return the number of hours whose totals stay unchanged.

    The totals of an hour stay unchanged if some of its lines are no longer stored. Call this inside a transaction.
    """
    if _hours(db):
        fold_all(db)
    incomplete = {
        int(hour)
        for (hour,) in db.execute(
            "SELECT DISTINCT l.time_ns / ? FROM ledger l LEFT JOIN records r USING (seq) WHERE r.seq IS NULL",
            (HOUR_NS,),
        )
    }
    hours = _hours(db)
    kept = hours & incomplete
    found: dict[tuple[int, str], dict[Key, Usage]] = {}
    last = 0
    for last, *row in db.execute(f"{_EXCHANGES} ORDER BY seq", (EVENT_EXCHANGE,)):  # noqa: B007 - used below
        key, usage = _of_record(row)
        if key[0] in kept:
            continue
        groups = found.setdefault(key[:2], {})
        if key not in groups and len(groups) >= MAX_GROUPS:
            key = _as_other(key)
        groups.setdefault(key, Usage()).merge(usage)
    db.executemany("DELETE FROM usage_hours WHERE hour = ?", [(hour,) for hour in hours - kept])
    for groups in found.values():
        for key, usage in groups.items():
            _store(db, key, usage)
    _set_folded(db, max(last, _folded(db)))
    return len(kept)


def read(
    db: sqlite3.Connection,
    by: Sequence[str],
    since_ns: int | None = None,
    until_ns: int | None = None,
    class_name: str | None = None,
    *,
    times: bool = True,
) -> dict[tuple[str | int, ...], Usage]:
    """Return the totals of each group of the hours that begin in ``[since_ns, until_ns)``.

    Args:
        db: a connection to the spool, outside of a transaction.
        by: the columns to group by: names of `GROUP`, ``hour`` (since the Unix epoch), or `DAY`.
        since_ns: Unix nanoseconds, rounded down to the start of the hour.
        until_ns: Unix nanoseconds.
        class_name: read only this class.
        times: whether to read the histograms of durations, which takes most of the CPU time.
    """
    if unknown := set(by) - {*_PRIMARY_KEY, DAY}:
        raise ValueError(f"not a column: {', '.join(unknown)}")
    first = (since_ns or 0) // HOUR_NS
    last = 2**62 if until_ns is None else -(-until_ns // HOUR_NS)
    db.create_function("local_day", 1, local_day, deterministic=True)
    db.execute("BEGIN")  # Use one transaction for all queries, because `fold` may change totals between them.
    try:
        try:
            found = _folded_totals(db, by, first, last, class_name, _WHOLE, times=times)
        except sqlite3.OperationalError as error:
            if "integer overflow" not in str(error):
                raise
            found = _folded_totals(db, by, first, last, class_name, _HALVES, times=times)
        for _, *row in db.execute(f"{_EXCHANGES} AND seq > ?", (EVENT_EXCHANGE, _folded(db))):
            key, usage = _of_record(row)
            if first <= key[0] < last and class_name in (None, key[1]):
                values: dict[str, str | int] = {**dict(zip(_PRIMARY_KEY, key, strict=True)), DAY: local_day(key[0])}
                found.setdefault(tuple(values[name] for name in by), Usage()).merge(usage)
    finally:
        db.execute("ROLLBACK")
    return found


@lru_cache(KEPT_HOURS)
def local_day(hour: int) -> str:
    """Return the local day, such as ``2026-11-30``, in which an hour since the Unix epoch begins."""
    return f"{datetime.fromtimestamp(hour * 3600):%Y-%m-%d}"


def _folded_totals(
    db: sqlite3.Connection,
    by: Sequence[str],
    first: int,
    last: int,
    class_name: str | None,
    bits: Sequence[str],
    *,
    times: bool,
) -> dict[tuple[str | int, ...], Usage]:
    """Return the totals of the stored hours. ``bits`` is `_WHOLE`, or `_HALVES` to sum high and low bits separately."""
    # First group by a prefix of the primary key, which needs no sorting. SQLite then sorts only these groups for the
    # final grouping. If the prefix would be the whole key, skip this step: each row would be its own group.
    depth = max((_PRIMARY_KEY.index("hour" if name == DAY else name) for name in by), default=0) + 1
    inner = ", ".join(_PRIMARY_KEY[:depth])
    shown = ["local_day(hour)" if name == DAY else name for name in by]
    add, join, group = ("sum", "group_concat", f" GROUP BY {inner}") if depth < len(_PRIMARY_KEY) else ("", "", "")
    sums = [f"{add}({name}{operation}) AS {name}_{at}" for name in COUNTS for at, operation in enumerate(bits)]
    totals = [f"sum({name}_{at})" for name in COUNTS for at in range(len(bits))]
    if times:
        # Let SQLite join the stored times of each group into one JSON array, so that one call parses them.
        sums += [f"{join}({name}) AS {name}" for name in _TIMES]
        totals += [f"'[' || group_concat({name}) || ']'" for name in _TIMES]
    of_class = "" if class_name is None else " AND class = ?"
    hours = f"SELECT {inner}, {', '.join(sums)} FROM usage_hours WHERE hour >= ? AND hour < ?{of_class}"  # noqa: S608
    query = f"SELECT {', '.join([*shown, *totals])} FROM ({hours}{group})"  # noqa: S608 - constants
    query += f" GROUP BY {', '.join(shown)}" if by else ""
    values = (first, last) if class_name is None else (first, last, class_name)
    found = {}
    for row in db.execute(query, values):
        counts, measured = row[len(by) :][: len(bits) * len(COUNTS)], row[len(by) + len(bits) * len(COUNTS) :]
        if counts[0] is not None:
            if len(bits) > 1:
                counts = [(high << 32) + low for high, low in zip(counts[::2], counts[1::2], strict=True)]
            known = Counter(_integers(zip(COUNTS, counts, strict=True)))
            found[row[: len(by)]] = Usage(known, *map(Times.read_all, measured))
    return found


def _of_record(row: Sequence[object]) -> tuple[Key, Usage]:
    """Return the key and the totals of one exchange, from a row of `_EXCHANGES` without ``seq``."""
    time_ns, *group, error, tokens_in, tokens_out, cache_read, cache_write, reasoning, cost, counted, lasted, chunk = (
        row
    )
    nano = nano_usd(cost)  # type: ignore[arg-type]
    values = (1, error, tokens_in, tokens_out, cache_read, cache_write, reasoning, nano, counted and cost is None)
    usage = Usage(Counter(_integers(zip(COUNTS, values, strict=True))))
    usage.duration.add(lasted)  # type: ignore[arg-type]
    usage.first_chunk.add(chunk)  # type: ignore[arg-type]
    return (int(time_ns) // HOUR_NS, *group), usage  # type: ignore[call-overload]


def _integers(values: Iterable[tuple[str, object]]) -> Mapping[str, int]:
    return {name: int(value) for name, value in values}  # type: ignore[call-overload]


def _as_other(key: Key) -> Key:
    """Return the key of the row that collects all groups beyond `MAX_GROUPS` for the hour and class of ``key``."""
    return key[0], key[1], OTHER, OTHER, OTHER, OTHER, 0


def _stored(db: sqlite3.Connection, key: Key) -> Usage | None:
    row = db.execute(f"SELECT * FROM usage_hours WHERE {_SAME}", key).fetchone()  # noqa: S608 - constants
    return None if row is None else _of_row(row[1 + len(GROUP) :])


def _of_row(values: tuple[object, ...]) -> Usage:
    *counts, duration, first_chunk = values
    found = Counter(_integers(zip(COUNTS, counts, strict=True)))
    return Usage(found, Times.read(str(duration)), Times.read(str(first_chunk)))


def _store(db: sqlite3.Connection, key: Key, usage: Usage) -> None:
    counts = (min(usage.counts[name], MOST) for name in COUNTS)
    db.execute(_INSERT, (*key, *counts, usage.duration.text(), usage.first_chunk.text()))
