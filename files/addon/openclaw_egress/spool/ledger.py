"""The writer of the hash chain. No other module appends lines to the spool."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from opentelemetry.sdk.resources import Resource

from openclaw_egress.recording import semconv
from openclaw_egress.recording.hash_chain import chained, line_hash
from openclaw_egress.recording.log_lines import AttributeValue, Line
from openclaw_egress.recording.otlp import encode_record, encode_resource
from openclaw_egress.recording.records import EventRecord, lines_of
from openclaw_egress.spool.rows import ACKNOWLEDGED, ATTRIBUTES, ranges
from openclaw_egress.spool.schema import CLOCK_SET_BACK, KEPT, ROW_BYTES
from openclaw_egress.spool.storage import Storage

log = logging.getLogger("openclaw_egress.spool")

MAX_SKEW_NS = 60 * 10**9
"""If the clock is set back by no more than this, timestamps still increase. Otherwise they follow the clock."""
_RECENT = 1000

_ROW_COLUMNS = ["seq", "time_ns", "state", "class", "size", "event_name", "model", *ATTRIBUTES, "resource", "otlp"]
_WORDS = {
    "dead_lettered": "dead-lettered",
    "counted_as_stored": "counted as stored",
    "retried": "queued to be sent again",
    "resent": "queued to be sent again",
    "dropped_by_operator": "dropped by an operator",
    "deleted": "deleted by an operator",
}
_SEVERITIES: dict[str, Literal["INFO", "WARN", "ERROR"]] = {
    "dropped": "ERROR",
    "counted_as_stored": "INFO",
    "retried": "INFO",
    "resent": "INFO",
}
_NO_MORE: Mapping[str, AttributeValue] = MappingProxyType({})
_BY_OPERATOR = ("retried", "resent", "dropped_by_operator", "deleted")
_INSERT = f"INSERT INTO records ({', '.join(_ROW_COLUMNS)}) VALUES ({', '.join('?' * len(_ROW_COLUMNS))})"  # noqa: S608


class Ledger:
    """The writer of the hash chain, which also stores the lines. Call its methods inside a transaction of the storage.

    Args:
        storage: the spool's file.
        resource: the resource of new lines.
        new_state: the state of new lines, `rows.PENDING` or `rows.LOCAL`.
        clock_ns: source of the current time in Unix nanoseconds.
    """

    def __init__(self, storage: Storage, resource: Resource, new_state: int, clock_ns: Callable[[], int]) -> None:
        self._storage = storage
        self._db = storage.db
        self.new_state = new_state
        self._now = clock_ns
        self._resource_id = self.remember_resource(encode_resource(resource))
        self.newest_acknowledged_ns = self._load_newest_acknowledged()
        """Time of the newest line that the destination has acknowledged, in Unix nanoseconds."""

    def remember_resource(self, encoded: bytes) -> int:
        """Store an encoded resource, if it is not stored yet. Return its ID."""
        self._db.execute("INSERT OR IGNORE INTO resources (otlp) VALUES (?)", (encoded,))
        return int(self._db.execute("SELECT id FROM resources WHERE otlp = ?", (encoded,)).fetchone()[0])

    def _load_newest_acknowledged(self) -> int:
        """Return the newest timestamp of an acknowledged line among the last `_RECENT` kept lines; 0 if none."""
        rows = self._db.execute(
            f"SELECT state, time_ns FROM records {KEPT} WHERE state IN (1, 3) ORDER BY seq DESC LIMIT ?",  # noqa: S608
            (_RECENT,),
        )
        return max((time_ns for state, time_ns in rows if state == ACKNOWLEDGED), default=0)

    def append(self, lines: Iterable[Line]) -> list[int]:
        """Append lines to the chain and insert them into the table ``records``. Return their sequence numbers."""
        state = self._storage.totals
        ledger: list[tuple[int, bytes, int]] = []
        rows: list[tuple[Any, ...]] = []
        for line in lines:
            now = self._now()
            # Follow a clock that was set back, but only at the first line: timestamps must increase within a record.
            if not ledger and state.time_ns - now > MAX_SKEW_NS:
                self._set_back(now)
            state.seq += 1
            state.time_ns = max(now, state.time_ns + 1)
            text = chained(line, state.seq, state.hash)
            state.hash = line_hash(text)
            encoded = encode_record(line, text, state.time_ns)
            ledger.append((state.seq, bytes.fromhex(state.hash), state.time_ns))
            rows.append(self._row(line, encoded))
            state.count(self.new_state, rows[-1][3], 1, rows[-1][4])
        self._db.executemany("INSERT INTO ledger VALUES (?, ?, ?)", ledger)
        self._db.executemany(_INSERT, rows)
        return [seq for seq, _, _ in ledger]

    def _set_back(self, now_ns: int) -> None:
        """If the clock was set back, use its time for the next lines, and write a line about the change.

        Never use a time before the newest acknowledged timestamp. Loki refuses lines that are more than 10 minutes
        ahead of its own clock, so an acknowledged timestamp was right, and an earlier time is wrong. Loki also refuses
        lines that are more than an hour older than the newest line of their stream.
        """
        state = self._storage.totals
        back_to, before = max(now_ns, self.newest_acknowledged_ns), state.time_ns
        if before - back_to <= MAX_SKEW_NS:
            return
        state.time_ns = back_to
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{CLOCK_SET_BACK}{state.seq + 1}", before))
        seconds = (before - back_to) / 1e9
        log.warning("the clock was set back: times of new lines are %.0f s before those of earlier lines", seconds)
        record = EventRecord(
            event_name=semconv.EVENT_SPOOL,
            severity="WARN",
            attributes={semconv.OUTCOME: "clock_set_back", semconv.SPOOL_LAST_SEQ: state.seq},
            message=f"the clock was set back: times after line {state.seq} begin {seconds:.0f} s before that line's",
        )
        self.append(lines_of(record))

    def _row(self, line: Line, encoded: bytes) -> tuple[Any, ...]:
        said = line.attributes
        columns = {name: said.get(attribute) for name, attribute in ATTRIBUTES.items()}
        columns["exchange_id"] = columns["exchange_id"] or ""
        columns["part"] = columns["part"] or 0
        columns["parts"] = columns["parts"] or 0
        return (
            self._storage.totals.seq,
            self._storage.totals.time_ns,
            self.new_state,
            str(said.get(semconv.CLASS, "")),
            len(encoded) + ROW_BYTES,
            line.event_name,
            said.get(semconv.GEN_AI_RESPONSE_MODEL) or said.get(semconv.GEN_AI_REQUEST_MODEL),
            *columns.values(),
            self._resource_id,
            encoded,
        )

    def note(
        self, what: str, why: str, seqs: Sequence[int], class_name: str, more: Mapping[str, AttributeValue] = _NO_MORE
    ) -> int:
        """Write a line that records a change to the lines ``seqs``. Return the sequence number of the new line.

        The line has the outcome ``what``, the reason, the numbers of the changed lines, and the hash of the last one.
        ``more`` adds attributes.
        """
        digest = self._db.execute("SELECT hash FROM ledger WHERE seq = ?", (seqs[-1],)).fetchone()
        runs = ", ".join(f"{first}-{last}" if first != last else str(first) for first, last in ranges(seqs))
        whose = f" of class {class_name}" if class_name else ""
        record = EventRecord(
            event_name=semconv.EVENT_SPOOL,
            severity=_SEVERITIES.get(what, "WARN"),
            attributes={
                semconv.OUTCOME: what,
                semconv.SPOOL_REASON: why,
                semconv.SPOOL_FIRST_SEQ: seqs[0],
                semconv.SPOOL_LAST_SEQ: seqs[-1],
                semconv.SPOOL_LINES: len(seqs),
                semconv.SPOOL_LAST_HASH: bytes(digest[0]).hex() if digest else "",
                # Include the user and the reason, so that `egress records --event spool` shows them.
                **({semconv.REASON: why} if what in _BY_OPERATOR else {}),
                **more,
            },
            message=f"lines{whose} {_WORDS.get(what, what)} ({why}): {runs}",
        )
        return self.append(lines_of(record))[0]
