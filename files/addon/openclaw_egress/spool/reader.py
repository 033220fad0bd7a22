"""Reader of the spool, used by `egress records`, `show`, `tail`, `denials`, `status` and `audit`.

It can run in another process or thread while the proxy writes the spool.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import stat
import threading
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from openclaw_egress.recording.denials import Denial
from openclaw_egress.recording.hash_chain import GENESIS
from openclaw_egress.recording.otlp import decode_counts, decode_text
from openclaw_egress.recording.semconv import (
    EVENT_CHECKPOINT,
    EVENT_DENIED,
    EVENT_EXCHANGE,
    EVENT_TUNNEL,
    USAGE_DETAILS,
)
from openclaw_egress.spool import usage_totals
from openclaw_egress.spool.migrations import read_old_denial
from openclaw_egress.spool.progress import Progress, progress_of
from openclaw_egress.spool.restorations import Restore, restorations
from openclaw_egress.spool.rows import COLUMNS, DEAD, FLAGS, STATES, Row, reason_code
from openclaw_egress.spool.schema import (
    CLOCK_SET_BACK,
    PRUNED_SEQ,
    ROW_BYTES,
    SpoolError,
    check_schema,
    columns_of,
    connect_read_only,
    spool_errors,
    who_may,
)
from openclaw_egress.spool.tombstones import Tombstone, tombstones

__all__ = ["Audit", "Brief", "DeadLetter", "Filters", "Row", "SpoolReader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Conditions of a search. An empty condition matches every record. ``model`` and ``host`` can be glob patterns."""

    since_ns: int | None = None
    until_ns: int | None = None
    event_names: Sequence[str] = ()
    class_name: str | None = None
    instance: str | None = None
    """The gateway instance."""
    model: str | None = None
    host: str | None = None
    method: str | None = None
    outcome: str | None = None
    code: str | None = None
    status: int | None = None
    status_min: int | None = None
    status_max: int | None = None
    state: str | None = None
    id: str | None = None
    """The exchange's ID, or a prefix of it."""
    after_seq: int | None = None
    """Only records after this ``seq``."""
    before_seq: int | None = None
    """Only records before this ``seq``."""
    limit: int | None = None
    """Maximum number of records; the newest ones are returned."""
    newest_first: bool = False

    def within(self, first: int, end: int) -> Filters:
        """Return the same conditions, limited to the lines from ``first`` (inclusive) to ``end`` (exclusive)."""
        return replace(self, after_seq=first - 1, before_seq=end)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A line that the destination will never accept."""

    seq: int
    time_ns: int
    class_name: str
    event_name: str
    id: str
    """The exchange's ID; empty for other records."""
    part: int
    parts: int
    host: str
    """The host of the whole record, even if this line is only a part of it."""
    size: int
    """Size of the encoded line, in bytes."""
    why: str
    """The destination's reason, which begins with a code."""

    @property
    def code(self) -> str:
        """Return the code of the reason for which the destination refused the line."""
        return reason_code(self.why)


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of checking the whole chain."""

    lines: int
    """Number of lines that were ever appended to the chain."""
    kept: int
    """Number of lines that are still stored and were compared with the ledger."""
    first_seq: int
    last_seq: int
    last_hash: str
    problems: tuple[str, ...]


class Brief(NamedTuple):
    """The fields of `Row` for views of thousands of exchanges. Reading a whole `Row` takes ten times as long."""

    seq: int
    time_ns: int
    id: str
    parts: int
    client: str | None
    model: str | None
    duration: float | None
    cost_usd: float | None


_BRIEF = ", ".join(f"{COLUMNS[name].name} AS {name}" for name in Brief._fields)
_LAST_NS = 2**63 - 1
_OLD = f"event_name = '{EVENT_DENIED}' AND enforced IS NULL"
"""SQL condition for denials that an older version wrote, without the columns of `migrations.Denied` and ``outcome``."""

_DENIAL = ("seq", *(field.name for field in fields(Denial)))
"""The fields that `Row` and `Denial` have in common, and ``seq`` to sort by."""

_BY_EXCHANGE = "exchange_id <> ''"
"""SQL condition that makes SQLite use the index `records_by_exchange`. Without it, SQLite reads every record."""

_COMPARED = {
    "since_ns": "time_ns >= ?",
    "until_ns": "time_ns < ?",
    "class_name": "class = ?",
    "instance": "instance = ?",
    "model": "model GLOB ?",
    "host": "host GLOB ?",
    "method": "method = ?",
    "outcome": f"CASE WHEN {_OLD} THEN old_outcome(rule, reason, otlp) ELSE outcome END = ?",
    "code": f"CASE WHEN {_OLD} THEN old_code(rule, reason, otlp) ELSE code END = ?",
    "status": "status = ?",
    "status_min": "status >= ?",
    "status_max": "status <= ?",
    "after_seq": "seq > ?",
    "before_seq": "seq < ?",
}


class ReadConnections:
    """Read connections to one file, one for each thread, so that threads do not delay each other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []

    def get(self) -> sqlite3.Connection:
        """Return this thread's own connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connect_read_only(self._path)
            connection.create_function("old_outcome", 3, _old_outcome, deterministic=True)
            connection.create_function("old_code", 3, _old_code, deterministic=True)
            self._open.append(connection)
        return connection

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._local = threading.local()


class SpoolReader:
    """A spool that is open for reading.

    Raises:
        SpoolError: the file is missing, damaged, or of a newer version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.connections = ReadConnections(self.path)
        try:
            is_file = stat.S_ISREG(self.path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            raise SpoolError(
                f"spool {self.path}: the file does not exist yet; check EGRESS_STATE_DIR, and whether the proxy has run"
            ) from None
        except OSError as error:
            raise SpoolError(f"spool {self.path}: {error.strerror}; {who_may(self.path)}") from None
        if not is_file:
            raise SpoolError(f"spool {self.path} is not a file; check EGRESS_STATE_DIR")
        try:
            with spool_errors(self.path):
                check_schema(self._read(), self.path, complete=True)
                present = columns_of(self._read(), "records")
                self._absent = [column.name for column in COLUMNS.values() if column.name not in present]
                row = self._read().execute("SELECT value FROM meta WHERE key = 'instance_id'").fetchone()
        except BaseException:
            self.close()
            raise
        self.instance_id = str(row[0]) if row else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections to the file."""
        self.connections.close()

    def _read(self) -> sqlite3.Connection:
        """Return this thread's own connection."""
        return self.connections.get()

    def query(self, filters: Filters | None = None) -> Iterator[Row]:
        """Yield the matching records, in the order that ``filters`` sets.

        If ``filters.state`` is ``dead_letter``, also yield the further parts of split records.
        """
        for values in self._values(COLUMNS, filters or Filters()):
            values |= {name: bool(values[name]) for name in FLAGS if values[name] is not None}
            yield Row(**{**values, "state": STATES[values["state"]]})

    def briefs(self, filters: Filters) -> Iterator[Brief]:
        """Yield the matching exchanges. Ignore `Filters.event_names`."""
        yield from map(Brief._make, self._select(_BRIEF, replace(filters, event_names=[EVENT_EXCHANGE])))

    def highest(self, name: Literal["duration", "cost_usd"], filters: Filters) -> list[Brief]:
        """Return the matching exchanges with the highest positive values of a field, the highest and newest first.

        No index contains the field, so SQLite reads every line in the range of ``filters``. Therefore keep the range
        small. Ignore `Filters.event_names`; ``limit`` is required.
        """
        selected, values = self._selected(replace(filters, event_names=[EVENT_EXCHANGE]))
        column = COLUMNS[name].name
        sql = f"SELECT {_BRIEF} {selected} AND {column} > 0 ORDER BY {column} DESC, seq DESC LIMIT ?"
        with spool_errors(self.path):
            return [Brief._make(row) for row in self._read().execute(sql, [*values, filters.limit])]

    def denials(self, filters: Filters) -> Iterator[Denial]:
        """Yield the matching denials. Ignore `Filters.event_names`."""
        for row in self._values(_DENIAL, replace(filters, event_names=[EVENT_DENIED])):
            yield Denial(
                class_name=row["class_name"],
                host=row["host"] or "",
                port=row["port"] or 0,
                rule=row["rule"] or "",
                code=row["code"] or "",
                reason=row["reason"] or "",
                address=row["address"],
                time_ns=row["time_ns"],
                count=1 if row["count"] is None else row["count"],
                summary=bool(row["summary"]),
                enforced=row["enforced"] is None or bool(row["enforced"]),
                method=row["method"],
                url=row["url"],
                client=row["client"],
            )

    def _values(self, names: Collection[str], filters: Filters) -> Iterator[dict[str, Any]]:
        """Yield a mapping of the requested `Row` fields for each row, with the values as stored.

        ``names`` must include every name in `_DENIAL`.
        """
        columns = ", ".join(f"{COLUMNS[name].name} AS {name}" for name in names)
        for *stored, old in self._select(f"{columns}, CASE WHEN {_OLD} THEN otlp END AS old", filters):
            values = dict(zip(names, stored, strict=True))
            if old is not None:
                # An older version wrote this row without some columns, so derive them from the line.
                denied = read_old_denial(values["rule"] or "", values["reason"] or "", old)
                values |= denied._asdict() | {"client": values["client"] or denied.client}
                values["outcome"] = denied.outcome
            yield values

    def rule_counts(self, first: int, end: int) -> Iterator[tuple[str, str, bool, bool, int]]:
        """Yield ``(class, rule, is_denial, is_enforced, count)`` for each combination of the first four.

        Count the exchanges, tunnels and denials in the lines from ``first`` (inclusive) to ``end`` (exclusive).
        """
        events = Filters(event_names=[EVENT_EXCHANGE, EVENT_TUNNEL, EVENT_DENIED]).within(first, end)
        selected, values = self._selected(events)
        columns = f"class, coalesce(rule, ''), event_name = '{EVENT_DENIED}', enforced IS NOT 0"
        query = f"SELECT {columns}, sum(coalesce(count, 1)) {selected} GROUP BY 1, 2, 3, 4"
        with spool_errors(self.path):
            for class_name, rule, denied, enforced, count in self._read().execute(query, values):
                yield class_name, rule, bool(denied), bool(enforced), count

    def allowed_counts(self, filters: Filters) -> Iterator[tuple[str, str, str, int]]:
        """Yield ``(class, host, event, count)`` of the matching exchanges and tunnels, which the policy has allowed.

        Ignore `Filters.event_names`.
        """
        selected, values = self._selected(replace(filters, event_names=[EVENT_EXCHANGE, EVENT_TUNNEL]))
        query = f"SELECT class, coalesce(host, ''), event_name, count(*) {selected} GROUP BY 1, 2, 3"
        with spool_errors(self.path):
            yield from self._read().execute(query, values)

    def _selected(self, filters: Filters) -> tuple[str, list[Any]]:
        """Return the SQL from ``FROM`` to the end of ``WHERE``, and the values of its parameters."""
        where, values = ["part >= 0" if filters.state == "dead_letter" else "part = 0"], list[Any]()
        for name, condition in _COMPARED.items():
            if (value := getattr(filters, name)) is not None:
                where.append(condition)
                values.append(value)
        if filters.event_names:
            where.append(f"event_name IN ({', '.join('?' * len(filters.event_names))})")
            values += filters.event_names
        if filters.state is not None:
            where.append("state = ?")
            values.append(STATES.index(filters.state))
        if filters.id:
            where.append(f"{_BY_EXCHANGE} AND exchange_id >= ? AND exchange_id < ?")
            values += [filters.id, filters.id + "\U0010ffff"]
        # A file of an older version may lack columns. Select NULL for them: only `Spool` may migrate the file.
        absent = ", ".join(f"NULL AS {name}" for name in self._absent)
        records = f"(SELECT *, {absent} FROM records)" if absent else "records"  # noqa: S608 - constants
        return f"FROM {records} WHERE {' AND '.join(where)}", values

    def _select(self, columns: str, filters: Filters) -> Iterator[tuple[Any, ...]]:
        selected, values = self._selected(filters)
        sql = f"SELECT {columns} {selected} ORDER BY seq DESC"
        if filters.limit is not None:
            sql += " LIMIT ?"
            values.append(filters.limit)
        if not filters.newest_first:
            sql = f"SELECT * FROM ({sql}) ORDER BY seq"  # noqa: S608 - as above
        with spool_errors(self.path):
            yield from self._read().execute(sql, values)

    def lines_for(self, exchange_id: str) -> list[str]:
        """Return the stored lines of one exchange, in order."""
        with spool_errors(self.path):
            query = f"SELECT otlp FROM records WHERE {_BY_EXCHANGE} AND exchange_id = ? ORDER BY seq"  # noqa: S608
            rows = self._read().execute(query, (exchange_id,))
            return [decode_text(row[0]) for row in rows]

    def line(self, seq: int) -> str | None:
        """Return one line by its sequence number; empty if its row is damaged, None if it is not stored."""
        with spool_errors(self.path):
            row = self._read().execute("SELECT otlp FROM records WHERE seq = ?", (seq,)).fetchone()
        return _text_or_empty(row[0]) if row else None

    def usage_details(self, seq: int) -> dict[str, int]:
        """Return the usage counts of a record that have no column (`semconv.USAGE_DETAILS`), by name."""
        with spool_errors(self.path):
            row = self._read().execute("SELECT otlp FROM records WHERE seq = ?", (seq,)).fetchone()
        try:
            counts = decode_counts(row[0]) if row else {}
        except ValueError:  # The row is damaged.
            return {}
        return {name: counts[name] for name in USAGE_DETAILS if name in counts}

    def lines(self, after_seq: int = 0) -> Iterator[tuple[int, str]]:
        """Yield all stored lines with their sequence numbers, in order."""
        with spool_errors(self.path):
            for seq, encoded in self._read().execute(
                "SELECT seq, otlp FROM records WHERE seq > ? ORDER BY seq", (after_seq,)
            ):
                yield seq, decode_text(encoded)

    def range_of(self, since_ns: int | None = None, until_ns: int | None = None) -> tuple[int, int]:
        """Return the first and last sequence number of the lines with a timestamp in a range; ``(1, 0)`` if none.

        If the clock was set back in this range, some lines between these two have a timestamp outside of the range.
        """
        with spool_errors(self.path):
            query = "SELECT min(seq), max(seq) FROM ledger WHERE time_ns >= ? AND time_ns < ?"
            until = _LAST_NS if until_ns is None else until_ns
            first, last = self._read().execute(query, (since_ns or 0, until)).fetchone()
        return (1, 0) if first is None else (first, last)

    def find_range(self, since_ns: int | None = None, until_ns: int | None = None) -> tuple[int, int]:
        """Return the same as `range_of`, without reading the whole ledger.

        Timestamps increase except at the lines of `lines_after_clock_change`, so use a binary search in each part
        between these lines. It can miss lines of a tampered ledger, so an audit must use `range_of`.
        """
        newest = self.head()[0]
        found: list[range] = []
        for begin, end in pairwise(sorted({1, *self.lines_after_clock_change(), newest + 1})):
            lines = range(begin, end)
            first = 0 if since_ns is None else bisect_left(lines, since_ns, key=self._time_from)
            last = len(lines) if until_ns is None else bisect_left(lines, until_ns, key=self._time_from)
            if lines[first:last]:
                found.append(lines[first:last])
        return (found[0][0], found[-1][-1]) if found else (1, 0)

    def _time_from(self, seq: int) -> int:
        """Return the time of the first line with this sequence number or a higher one, in Unix nanoseconds."""
        with spool_errors(self.path):
            query = "SELECT time_ns FROM ledger WHERE seq >= ? ORDER BY seq LIMIT 1"
            return int(self._read().execute(query, (seq,)).fetchone()[0])

    def ledger(self, first: int, last: int) -> Iterator[tuple[int, int, bytes, int | None]]:
        """Yield sequence number, time, SHA-256 and state of each line from ``first`` to ``last``, in order.

        The state is an index into `rows.STATES`, or None for a line that is no longer stored.
        """
        with spool_errors(self.path):
            yield from self._read().execute(
                "SELECT l.seq, l.time_ns, l.hash, r.state FROM ledger l LEFT JOIN records r USING (seq) "
                "WHERE l.seq BETWEEN ? AND ? ORDER BY l.seq",
                (first, last),
            )

    def stored_between(self, first: int, last: int) -> Iterator[tuple[int, int, str]]:
        """Yield sequence number, time and text of the stored lines from ``first`` to ``last``.

        A damaged row has an empty text.
        """
        with spool_errors(self.path):
            for seq, time_ns, encoded in self._read().execute(
                "SELECT seq, time_ns, otlp FROM records WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last)
            ):
                yield seq, time_ns, _text_or_empty(encoded)

    def checkpoint_before(self, seq: int) -> int | None:
        """Return the sequence number of the newest stored checkpoint before a line; None if there is none."""
        with spool_errors(self.path):
            query = "SELECT seq FROM records WHERE seq < ? AND event_name = ? ORDER BY seq DESC LIMIT 1"
            row = self._read().execute(query, (seq, EVENT_CHECKPOINT)).fetchone()
        return int(row[0]) if row else None

    def lines_after_clock_change(self) -> set[int]:
        """Return the sequence numbers of the lines before which the clock was set back."""
        with spool_errors(self.path):
            keys = self._read().execute("SELECT key FROM meta WHERE key GLOB ?", (CLOCK_SET_BACK + "*",))
            return {int(key.removeprefix(CLOCK_SET_BACK)) for (key,) in keys}

    def restores(self) -> list[Restore]:
        """Return the restorations of this spool that the chain proves, the oldest first."""
        return [restore for restore in self._restorations() if restore.is_proven]

    def unproven_restores(self) -> list[Restore]:
        """Return the restorations that are in the table ``meta``, but that the chain does not prove."""
        return [restore for restore in self._restorations() if not restore.is_proven]

    def _restorations(self) -> list[Restore]:
        with spool_errors(self.path):
            return restorations(self._read())

    def lines_by_state(self, runs: Iterable[tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """Return count and bytes of the stored lines in ranges of sequence numbers, for each state that occurs."""
        found = dict.fromkeys(STATES, (0, 0))
        query = "SELECT state, count(*), sum(size) FROM records WHERE seq BETWEEN ? AND ? GROUP BY state"
        with spool_errors(self.path):
            for run in runs:
                for state, lines, size in self._read().execute(query, run):
                    before = found[STATES[state]]
                    found[STATES[state]] = (before[0] + lines, before[1] + size)
        return {state: counts for state, counts in found.items() if counts[0]}

    def tombstones(self) -> list[Tombstone]:
        """Return the deletions of records by operators, the oldest first."""
        with spool_errors(self.path):
            return list(tombstones(self._read()))

    def pruned_seq(self) -> int:
        """Return the sequence number of the newest line that the spool pruned; 0 if it has pruned none."""
        with spool_errors(self.path):
            row = self._read().execute("SELECT value FROM meta WHERE key = ?", (PRUNED_SEQ,)).fetchone()
        return int(row[0]) if row else 0

    def stored(self, since_ns: int, until_ns: int) -> Iterator[tuple[int, str]]:
        """Yield time and text of the stored lines with a time in ``[since_ns, until_ns)``, in the order of the chain.

        A damaged row has an empty text.
        """
        with spool_errors(self.path):
            for time_ns, encoded in self._read().execute(
                "SELECT time_ns, otlp FROM records WHERE time_ns >= ? AND time_ns < ? ORDER BY seq",
                (since_ns, until_ns),
            ):
                yield time_ns, _text_or_empty(encoded)

    def digest(self, seq: int) -> bytes | None:
        """Return the SHA-256 of a line from the ledger; None if the ledger does not contain the line."""
        with spool_errors(self.path):
            row = self._read().execute("SELECT hash FROM ledger WHERE seq = ?", (seq,)).fetchone()
        return bytes(row[0]) if row else None

    def head(self) -> tuple[int, str]:
        """Return ``seq`` and hash of the newest line; ``(0, GENESIS)`` if there is no line."""
        with spool_errors(self.path):
            row = self._read().execute("SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
        return (int(row[0]), bytes(row[1]).hex()) if row else (0, GENESIS)

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters in the order of the chain."""
        with spool_errors(self.path):
            rows = self._read().execute(
                "SELECT seq, time_ns, class, event_name, exchange_id, part, parts, coalesce(host, (SELECT host FROM "
                "records f WHERE f.exchange_id = r.exchange_id AND f.exchange_id <> '' AND f.part = 0), ''), "
                "size - ?, coalesce(why, '') FROM records r WHERE state = ? ORDER BY seq",
                (ROW_BYTES, DEAD),
            )
            return [DeadLetter(*row) for row in rows]

    def dead_letter_counts(self) -> dict[str, int]:
        """Return the number of dead letters by the code of their reason."""
        found: dict[str, int] = {}
        with spool_errors(self.path):
            query = "SELECT why, count(*) FROM records WHERE state = ? GROUP BY why"
            for why, count in self._read().execute(query, (DEAD,)):
                code = reason_code(why)
                found[code] = found.get(code, 0) + count
        return dict(sorted(found.items()))

    def command_progress(self, command_id: str) -> Progress:
        """Return the progress of a command; see `commands.submit`."""
        with spool_errors(self.path):
            return progress_of(self._read(), command_id)

    def usage(
        self,
        by: Sequence[str],
        since_ns: int | None = None,
        until_ns: int | None = None,
        class_name: str | None = None,
        *,
        times: bool = True,
    ) -> Iterator[tuple[tuple[str | int, ...], usage_totals.Usage]]:
        """Yield the totals of each group; see `usage_totals.read`.

        Raises:
            SpoolError: an older version wrote the file, which therefore has no totals.
        """
        with spool_errors(self.path):
            if not columns_of(self._read(), "usage_hours"):
                raise SpoolError(
                    f"spool {self.path}: an older version wrote it, without totals; start the proxy once to add them"
                )
            yield from usage_totals.read(self._read(), by, since_ns, until_ns, class_name, times=times).items()

    def counted_urls(self, part: str, lines: int = 20_000) -> Iterator[tuple[str, str, str]]:
        """Yield ``(class, host, url)`` of exchanges that report token counts and whose URL contains ``part``.

        Search only the newest ``lines`` lines.
        """
        with spool_errors(self.path):
            yield from self._read().execute(
                "SELECT class, host, url FROM records WHERE seq > (SELECT max(seq) FROM records) - ? "
                "AND event_name = ? AND part = 0 AND input_tokens IS NOT NULL AND instr(url, ?) AND host IS NOT NULL "
                "ORDER BY seq",
                (lines, EVENT_EXCHANGE, part),
            )

    def stats(self) -> dict[str, int]:
        """Return counts and bytes by state; see `rows.STATES`."""
        with spool_errors(self.path):
            read = self._read()
            found = {name: 0 for state in STATES for name in (f"{state}_records", f"{state}_bytes")}
            for state, count, size in read.execute("SELECT state, count(*), sum(size) FROM records GROUP BY state"):
                found[f"{STATES[state]}_records"], found[f"{STATES[state]}_bytes"] = count, size
            row = read.execute("SELECT count(*), (SELECT sum(length(data)) FROM chunks) FROM exchanges").fetchone()
        return {**found, "open_exchanges": row[0], "journal_bytes": row[1] or 0, "last_seq": self.head()[0]}

    def audit(self) -> Audit:
        """Check the whole chain: the ledger has no gap, and the hash and ``prev`` of each line match it."""
        problems: list[str] = []
        lines = kept = first = last = last_time = 0
        before = GENESIS
        with spool_errors(self.path):
            set_back = self.lines_after_clock_change()
            for seq, noted, time_ns, encoded in self._read().execute(
                "SELECT l.seq, l.hash, l.time_ns, r.otlp FROM ledger l LEFT JOIN records r USING (seq) ORDER BY l.seq"
            ):
                lines, first = lines + 1, first or seq
                if seq != last + 1:
                    problems.append(f"lines {last + 1} to {seq - 1} are missing from the ledger")
                if time_ns <= last_time and seq not in set_back:
                    problems.append(f"line {seq} does not have a later time than the previous line")
                digest = bytes(noted).hex()
                if encoded is not None:
                    kept += 1
                    problems += _line_problems(encoded, seq, digest, before if seq == last + 1 else None)
                last, last_time, before = seq, time_ns, digest
        return Audit(lines, kept, first, last, before, tuple(problems))


def _old_outcome(rule: str | None, reason: str | None, encoded: bytes) -> str:
    return read_old_denial(rule or "", reason or "", encoded).outcome


def _old_code(rule: str | None, reason: str | None, encoded: bytes) -> str | None:
    return read_old_denial(rule or "", reason or "", encoded).code


def _text_or_empty(encoded: bytes) -> str:
    """Return the text of a stored line; a damaged row has an empty text."""
    try:
        return decode_text(encoded)
    except ValueError:
        return ""


def _line_problems(encoded: bytes, seq: int, digest: str, prev: str | None) -> Iterator[str]:
    try:
        text = decode_text(encoded)
    except ValueError as error:
        yield f"line {seq} was changed: {error}"
        return
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        yield f"line {seq} was changed: its hash differs from the ledger"
    try:
        sealed = json.loads(text)
    except (ValueError, RecursionError):
        yield f"line {seq} is not valid JSON"
        return
    if sealed.get("seq") != seq:
        yield f"line {seq} has the number {sealed.get('seq')} in its JSON"
    if prev is not None and sealed.get("prev") != prev:
        yield f"line {seq} does not contain the hash of the previous line"
