"""The spool: the durable queue between proxy and destination, and the local store if no destination is configured.

One process writes it; a lock file ensures that. Every method that writes is one transaction, and its result survives
``kill -9``. The flush thread flushes to the disk once a second, so a power failure can lose the last second.

Limits: lines and journal together stay near ``max_bytes``. Above it the spool deletes lines in this order:

1. acknowledged lines; without a destination, the oldest lines;
2. dead letters;
3. with ``full="drop_oldest"``: the oldest pending lines of the class with the most pending bytes, so that no class
   displaces lines of another. A line of event ``openclaw.egress.spool`` names the dropped lines.

With ``full="block"`` pending lines stay, and `Spool.full` tells the proxy to refuse new exchanges.

A disk that cannot be written (full, read-only, broken) sets `Spool.problem`. The flush thread then releases a reserve
file, deletes acknowledged lines to reuse their pages, and retries until a write succeeds. Only this thread retries: on
a failing disk a write with its flush can take seconds, which would block the event loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from openclaw_egress.recording import semconv
from openclaw_egress.recording.log_lines import AttributeValue, Line, line_hash, seal
from openclaw_egress.recording.otlp import encode_record, encode_resource, make_resource
from openclaw_egress.recording.records import DeniedRecord, EventRecord, ExchangeRecord, lines_of
from openclaw_egress.signatures import Signer, key_id
from openclaw_egress.spool.journal import Journal
from openclaw_egress.spool.migrations import migrate
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.rows import ATTRIBUTES
from openclaw_egress.spool.schema import (
    ACKNOWLEDGED,
    CLOCK_SET_BACK,
    DEAD,
    LOCAL,
    MAX_PAGES,
    PAGE_BYTES,
    PENDING,
    RESERVE_BYTES,
    ROW_BYTES,
    STATES,
    WAL_SAFETY_PAGES,
    SpoolError,
    connect,
    create_file,
    identify,
    make_reserve,
    release_reserve,
    spool_errors,
)

__all__ = ["Spool", "SpoolError", "StoredRecord"]

log = logging.getLogger("openclaw_egress.spool")

SLICE_BYTES = 4 * 1024 * 1024
"""Maximum bytes that one transaction prunes, so that it does not block the proxy's event loop for long."""
CHECKPOINT_BYTES = 8 * 1024 * 1024
RELIEF_SLICE_BYTES = 128 * 1024
"""Maximum bytes that one transaction deletes on a full disk, because overwriting deleted data needs space."""
RELIEF_BYTES = 16 * 1024 * 1024
"""On a full disk, acknowledged lines are deleted until the file has this many reusable bytes."""
PROBE_BYTES = 128 * 1024
"""A write of this size must succeed before exchanges are accepted again."""
REPEAT_SECONDS = 60.0
"""Minimum time before the same problem is logged again."""
_MAX_RANGES = 1000
_PENDING, _PENDING_BY_TIME = "INDEXED BY records_pending", "INDEXED BY records_pending_by_time"
_KEPT = "INDEXED BY records_kept"
"""Without this hint SQLite uses `records_by_state` and sorts all lines of a state, with their bodies, each time."""
MAX_SKEW_NS = 60 * 10**9
"""Maximum step back of the clock after which times still increase. After a larger step they follow the clock."""
_RECENT = 1000

_ROW_COLUMNS = ["seq", "time_ns", "state", "class", "size", "event_name", "model", *ATTRIBUTES, "resource", "otlp"]
_WORDS = {"dead_lettered": "dead-lettered", "counted_as_stored": "counted as stored"}
_SEVERITIES: dict[str, Literal["INFO", "WARN", "ERROR"]] = {"dropped": "ERROR", "counted_as_stored": "INFO"}
_LAST_NS = 2**63 - 1
_INSERT = f"INSERT INTO records ({', '.join(_ROW_COLUMNS)}) VALUES ({', '.join('?' * len(_ROW_COLUMNS))})"  # noqa: S608


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One pending line: number, time, and the encoded bytes of record and resource."""

    seq: int
    time_ns: int
    otlp: bytes
    resource: bytes

    @property
    def size(self) -> int:
        """Return the bytes of record, resource and framing, which is about the size that a destination counts."""
        return len(self.otlp) + len(self.resource) + 16


@dataclass(slots=True)
class _State:
    """Values to restore after a failed transaction: the end of the chain, and rows and bytes by state and class."""

    seq: int
    hash: str
    time_ns: int
    rows: dict[tuple[int, str], int]
    size: dict[tuple[int, str], int]
    journal: dict[str, int]

    def copy(self) -> _State:
        return replace(self, rows=dict(self.rows), size=dict(self.size), journal=dict(self.journal))

    def count(self, state: int, class_name: str, rows: int, size: int) -> None:
        key = (state, class_name)
        self.rows[key] = self.rows.get(key, 0) + rows
        self.size[key] = self.size.get(key, 0) + size


class Spool(SpoolReader):
    """The spool, open for writing.

    Args:
        path: the SQLite file; its directory is created (0700) if absent.
        max_bytes: limit of stored bytes.
        full: behaviour at the limit when only pending lines are left.
        local: no destination is configured: lines are only stored here, and the oldest are pruned at the limit.
        service_name: see `otlp.make_resource`.
        host_name: see `otlp.make_resource`.
        sync_seconds: interval of the flush thread; ``None`` to start no thread.
        signer: the key that signs checkpoints; without one they are not signed.
        clock_ns: source of the current time in Unix nanoseconds.

    Raises:
        SpoolError: the file cannot be created, read or written, is of a newer version, or another process writes it.
    """

    def __init__(
        self,
        path: Path | str,
        max_bytes: int = 2 * 1024**3,
        full: Literal["drop_oldest", "block"] = "drop_oldest",
        *,
        local: bool = False,
        service_name: str | None = None,
        host_name: str | None = None,
        sync_seconds: float | None = 1.0,
        clock_ns: Callable[[], int] = time.time_ns,
        signer: Signer | None = None,
    ) -> None:
        self.path = Path(path)
        self.max_bytes = max_bytes
        self.committed = threading.Event()
        """Set after each commit of a line; the thread that waits for it clears it."""
        self.failure_level = logging.WARNING
        """Log level for a disk that cannot be written.

        mitmproxy exits if an ERROR is logged during its start, so the proxy sets ERROR only after it.
        """
        self.dropped_lines = 0
        """Number of pending lines dropped at the limit since this object was created."""
        self._blocks = full == "block"
        self._new_state = LOCAL if local else PENDING
        self._now = clock_ns
        self._signer = signer
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._dirty = False
        self._reserve = -1
        """Size of the reserve file, which bounds SQLite's log."""
        self._problem: str | None = None
        self._failures = 0
        """Number of failed writes. A probe compares it to see whether another write failed meanwhile."""
        self.flush_problem: str | None = None
        """Error of the flush thread's last round; None if it succeeded."""
        self._logged: dict[int, tuple[str, float]] = {}
        self._left: dict[str, bool] = {}
        self._left_secret: set[str] = set()
        self._flush_thread: threading.Thread | None = None
        self._lock_file = _lock_exclusively(self.path)
        try:
            create_file(self.path)
            self._db = self._connect()
        except BaseException:
            os.close(self._lock_file)
            raise
        try:
            with spool_errors(self.path):
                instance_id = self._prepare()
                self._resource_id = self._remember_resource(make_resource(instance_id, service_name, host_name))
                self._state = self._load_state()
                self._newest_taken_ns = self._load_newest_taken()
            super().__init__(self.path)
        except BaseException:
            self._db.close()
            os.close(self._lock_file)
            raise
        if sync_seconds is not None:
            self._renew_reserve()
            self._flush_thread = threading.Thread(
                target=self._flush_regularly, args=(sync_seconds,), name="spool-flush", daemon=True
            )
            self._flush_thread.start()

    def _connect(self) -> sqlite3.Connection:
        """Open the file. On a full disk, release the reserve so that SQLite can create its own files."""
        for can_retry in (True, False):
            try:
                with spool_errors(self.path):
                    connection = connect(self.path)
                    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                    return connection
            except SpoolError:
                if not (can_retry and release_reserve(self.path)):
                    raise
        raise AssertionError("unreachable")

    def _prepare(self) -> str:
        """Create or migrate the tables in one transaction. Return the instance's ID."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            migrate(self._db, self.path)
            instance_id = identify(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return instance_id

    def close(self) -> None:
        """Flush, close, and release the lock."""
        self._stopping.set()
        if self._flush_thread is not None:
            self._flush_thread.join()
        with self._lock:
            if self._lock_file < 0:
                return
            super().close()
            self._db.close()
            os.close(self._lock_file)
            self._lock_file = -1

    # ── the journal of exchanges in progress ─────────────────────────────────────────────────────────────────

    def open_exchange(self, exchange_id: str, class_name: str, head: dict[str, Any]) -> None:
        """Add an exchange to the journal. ``head`` holds the known fields of `ExchangeRecord`, redacted."""
        with self._transaction() as (db, state):
            Journal(db).begin(exchange_id, class_name, self._now(), head)
            state.journal[exchange_id] = 0

    def update(self, exchange_id: str, head: dict[str, Any]) -> None:
        """Replace the known fields of an exchange in progress."""
        with self._transaction() as (db, _):
            Journal(db).update(exchange_id, head)

    def append(self, exchange_id: str, direction: str, data: bytes) -> None:
        """Append decoded bytes to a body of an exchange in progress; ``direction`` is ``request`` or ``response``."""
        self.append_many([(exchange_id, direction, data)])

    def append_many(self, chunks: Iterable[tuple[str, str, bytes]]) -> None:
        """Append several chunks, of one or more exchanges, in one transaction."""
        with self._transaction() as (db, state):
            for exchange_id, direction, data in chunks:
                Journal(db).append(exchange_id, direction, self._now(), data)
                state.journal[exchange_id] = state.journal.get(exchange_id, 0) + len(data)

    def withhold(self, exchange_id: str) -> None:
        """Delete the journalled bodies of an exchange in progress, because they are credentials."""
        with self._transaction() as (db, state):
            Journal(db).withhold(exchange_id)
            state.journal[exchange_id] = 0

    def close_exchange(self, record: ExchangeRecord) -> list[int]:
        """Replace the exchange's journal with the lines of its record. Return their numbers."""
        lines = lines_of(record)
        with self._transaction() as (db, state):
            seqs = self._store(lines)
            Journal(db).forget(record.id)
            state.journal.pop(record.id, None)
        self._after_commit()
        return seqs

    def recover(self) -> int:
        """Record the exchanges that a crash interrupted. Return their number.

        If a request was held back and not committed completely, nothing of it was sent: forget the exchange.
        """
        with self._lock, spool_errors(self.path):
            found = dict(self._db.execute("SELECT id, head FROM exchanges").fetchall())
        left = {exchange_id: not _never_left(head) for exchange_id, head in found.items()}
        try:
            self._settle(left)
        except SpoolError:
            # Do not fail: unrecorded exchanges are refused, and the flush thread retries.
            with self._lock:
                self._left = left | self._left
            return 0
        return sum(left.values())

    def leave(self, exchange_id: str, *, recorded: bool, secret: bool = False) -> None:
        """End an exchange whose record could not be written.

        Args:
            exchange_id: its ID.
            recorded: whether bytes of it were sent. If so, it becomes a record (``interrupted``) when the disk can be
                written; otherwise it is forgotten.
            secret: whether its bodies are credentials, which must not be recorded.
        """
        with self._lock:
            if exchange_id in self._state.journal:
                self._left[exchange_id] = recorded
                if secret:
                    self._left_secret.add(exchange_id)

    def _settle(self, left: dict[str, bool]) -> None:
        """Record or forget exchanges that were left in the journal."""
        for exchange_id, recorded in left.items():
            if exchange_id in self._left_secret:
                self.withhold(exchange_id)
                self._left_secret.discard(exchange_id)
            # Take the lock: the event loop may be inside a transaction on this connection.
            with self._lock, spool_errors(self.path):
                record = next(Journal(self._db).interrupted(exchange_id), None) if recorded else None
            if record is not None:
                self.close_exchange(record)
                continue
            with self._transaction() as (db, state):
                Journal(db).forget(exchange_id)
                state.journal.pop(exchange_id, None)

    # ── a disk that cannot be written ────────────────────────────────────────────────────────────────────────

    @property
    def problem(self) -> str | None:
        """Return why nothing can be recorded now; ``None`` if the last write succeeded."""
        return self._problem

    def works(self) -> bool:
        """Return whether records can be written. After a failure the flush thread checks, not the event loop."""
        return self._problem is None

    def _probe(self) -> bool:
        """Write probe data after a failure. Return whether records can be written."""
        with self._lock:
            failures = self._failures
            if self._problem is None:
                return True
        try:
            with self._transaction() as (db, _):
                db.execute("INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))", (PROBE_BYTES,))
                db.execute("DELETE FROM meta WHERE key = 'probe'")
            if self._dirty:
                self.sync()
        except SpoolError:
            return False
        except OSError as error:
            self._failed(f"flushing to the disk failed: {error}")
            return False
        with self._lock:
            if self._failures != failures:
                # A write of the event loop failed meanwhile.
                return False
            self._problem = None
            self._log(logging.INFO, f"spool {self.path}: the disk can be written again; exchanges are accepted")
        return True

    def _failed(self, why: str) -> None:
        """Note that nothing can be written, and log it once."""
        with self._lock:
            self._failures += 1
            if self._problem is None:
                self._log(self.failure_level, f"exchanges are refused until they can be recorded again: {why}")
            self._problem = why

    def _log(self, level: int, text: str, error: Exception | None = None) -> None:
        before, when = self._logged.get(level, ("", 0.0))
        now = time.monotonic()
        if text != before or now - when > REPEAT_SECONDS:
            log.log(level, "%s", text, exc_info=error)
            self._logged[level] = (text, now)

    def relieve(self) -> bool:
        """Free space on a disk that cannot be written. Return whether it can be written now.

        Deleted lines leave pages that later lines reuse. They do not make the file smaller.
        """
        try:
            if self._acknowledged_bytes() or self._free_bytes() > SLICE_BYTES:
                release_reserve(self.path)
                self._move_log()
            while self._free_bytes() < RELIEF_BYTES and self._prune(
                f"{_KEPT} WHERE state IN (1, 3) AND state = 1", RELIEF_SLICE_BYTES, whole=False
            ):
                self._move_log()
        except SpoolError:
            pass  # The transaction has set `problem`; a part may have been deleted.
        if not self._probe():
            return False
        with self._lock:
            left, self._left = self._left, {}
        try:
            self._settle(left)
        except SpoolError:
            with self._lock:
                self._left = left | self._left
            return False
        self._renew_reserve()
        return True

    def _renew_reserve(self) -> None:
        """Renew the reserve, and bound SQLite's log and file so that the reserve always suffices to move the log.

        With a small reserve, each commit moves the log at once, and the file may only grow into the free space of the
        disk. A commit that needs more fails before it is in the log; otherwise the log could hold pages that the disk
        has no room for.
        """
        size = make_reserve(self.path)
        enough = size >= RESERVE_BYTES
        if enough and self._reserve >= RESERVE_BYTES:
            return
        self._reserve = size
        log_pages, file_pages = WAL_SAFETY_PAGES, MAX_PAGES
        # Ignore errors here: if the disk fails, the next write reports it.
        with contextlib.suppress(OSError, sqlite3.Error), self._lock:
            if not enough:
                disk = os.statvfs(self.path.parent)
                log_pages = max(1, size // 2 // PAGE_BYTES)
                room = disk.f_bavail * disk.f_frsize // 2 + size // 2
                file_pages = (_file_size(str(self.path)) + room) // PAGE_BYTES
            self._db.execute(f"PRAGMA wal_autocheckpoint = {log_pages}")
            self._db.execute(f"PRAGMA max_page_count = {max(1, file_pages)}")

    def _acknowledged_bytes(self) -> int:
        with self._lock:
            return sum(size for (state, _), size in self._state.size.items() if state == ACKNOWLEDGED)

    def _free_bytes(self) -> int:
        """Return the bytes of the file that later lines can reuse."""
        with self._lock, spool_errors(self.path):
            pages = self._db.execute("PRAGMA freelist_count").fetchone()[0]
            return int(pages) * int(self._db.execute("PRAGMA page_size").fetchone()[0])

    def _move_log(self) -> None:
        """Move SQLite's log into the file, so that the log restarts at its beginning."""
        with self._lock, spool_errors(self.path):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # ── records ──────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, record: DeniedRecord | EventRecord) -> list[int]:
        """Store a record that has no journal. Return the numbers of its lines."""
        with self._transaction():
            seqs = self._store(lines_of(record))
        self._after_commit()
        return seqs

    def checkpoint(self) -> tuple[int, str]:
        """Write a checkpoint, so that the audit detects a missing tail. Return number and hash of the line it names."""
        with self._lock:
            seq, digest = self._state.seq, self._state.hash
            attributes: dict[str, AttributeValue] = {semconv.CHECKPOINT_SEQ: seq, semconv.CHECKPOINT_HASH: digest}
            if self._signer is not None:
                attributes[semconv.CHECKPOINT_SIGNATURE] = self._signer.sign(seq, digest)
                attributes[semconv.CHECKPOINT_KEY] = key_id(self._signer.key.public_key())
            self.add(
                EventRecord(
                    event_name=semconv.EVENT_CHECKPOINT,
                    attributes=attributes,
                    message=f"{seq} lines are in the chain, the last one has the hash {digest}",
                )
            )
        return seq, digest

    def head(self) -> tuple[int, str]:
        """Return ``seq`` and hash of the newest line."""
        return self._state.seq, self._state.hash

    @property
    def full(self) -> bool:
        """Return whether new exchanges must be refused: the limit is reached, and ``full`` is ``block``."""
        return self._blocks and self.used_bytes >= self.max_bytes

    @property
    def used_bytes(self) -> int:
        """Return the bytes that count against ``max_bytes``."""
        return sum(self._state.size.values()) + sum(self._state.journal.values())

    def stats(self) -> dict[str, int]:
        """Return counts and bytes as `SpoolReader.stats`, and the limit, without a query."""
        with self._lock:
            left = sum(exchange_id in self._state.journal for exchange_id in self._left)
            found = {f"{name}_{what}": 0 for name in STATES for what in ("records", "bytes")}
            for (state, _), rows in self._state.rows.items():
                found[f"{STATES[state]}_records"] += rows
            for (state, _), size in self._state.size.items():
                found[f"{STATES[state]}_bytes"] += size
            return {
                **found,
                "open_exchanges": len(self._state.journal) - left,
                "journal_bytes": sum(self._state.journal.values()),
                "last_seq": self._state.seq,
                "used_bytes": self.used_bytes,
                "max_bytes": self.max_bytes,
                "dropped_lines": self.dropped_lines,
                "refusing": int(self._problem is not None or self.full),
            }

    # ── for the exporter ─────────────────────────────────────────────────────────────────────────────────────

    def pending(
        self, limit_bytes: int, *, before_ns: int | None = None, span_ns: int | None = None
    ) -> list[StoredRecord]:
        """Return the oldest pending lines in order of time; at least one if any is pending.

        Args:
            limit_bytes: maximum sum of encoded records, each with its resource.
            before_ns: leave out lines with this time or a later one.
            span_ns: maximum time between the first and the last line.
        """
        found: list[StoredRecord] = []
        total = 0
        with spool_errors(self.path):
            rows = self._read().execute(
                f"SELECT r.seq, r.time_ns, r.otlp, s.otlp FROM records r {_PENDING_BY_TIME} "  # noqa: S608
                "JOIN resources s ON s.id = r.resource WHERE r.state = 0 AND r.time_ns < ? ORDER BY r.time_ns, r.seq",
                (_LAST_NS if before_ns is None else before_ns,),
            )
            for row in rows:
                record = StoredRecord(*row)
                total += record.size
                if found and (
                    total > limit_bytes or (span_ns is not None and record.time_ns - found[0].time_ns > span_ns)
                ):
                    break
                found.append(record)
            rows.close()
        return found

    def oldest_pending(self) -> tuple[int, int] | None:
        """Return ``(seq, time_ns)`` of the oldest pending line; ``None`` without one."""
        with spool_errors(self.path):
            query = f"SELECT seq, time_ns FROM records {_PENDING} WHERE state = 0 ORDER BY seq LIMIT 1"  # noqa: S608
            row = self._read().execute(query).fetchone()
        return (row[0], row[1]) if row else None

    def pending_since(self, time_ns: int) -> int:
        """Return the number of pending lines with this time or a later one."""
        with spool_errors(self.path):
            query = f"SELECT count(*) FROM records {_PENDING_BY_TIME} WHERE state = 0 AND time_ns >= ?"  # noqa: S608
            return int(self._read().execute(query, (time_ns,)).fetchone()[0])

    def acknowledge(self, seqs: Sequence[int], why: str | None = None) -> None:
        """Mark lines as stored by the destination.

        Args:
            seqs: numbers of the lines.
            why: the reason to count them as stored without a confirmation; a line of the chain contains it.
        """
        try:
            self._mark_acknowledged(seqs, why)
        except SpoolError:
            # Use the reserve for this mark: on a full disk only acknowledged lines can be deleted.
            if not release_reserve(self.path):
                raise
            self._mark_acknowledged(seqs, why)
        self._after_commit()

    def dead_letter(self, seqs: Sequence[int], why: str) -> None:
        """Mark lines that the destination refuses for good. They stay stored, and a line names them with the reason."""
        with self._transaction():
            changed = self._change_state(seqs, DEAD, why)
            if changed:
                self._note("dead_lettered", why, changed, "")
        self._after_commit()

    def _mark_acknowledged(self, seqs: Sequence[int], why: str | None) -> None:
        with self._transaction():
            changed = self._change_state(seqs, ACKNOWLEDGED, why)
            if changed and why is not None:
                self._note("counted_as_stored", why, changed, "")

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, _State]]:
        """Run one transaction. If it fails, restore this object's values, and set `problem`."""
        try:
            with self._written() as written:
                yield written
        except SpoolError as error:
            if isinstance(error.__cause__, sqlite3.OperationalError | sqlite3.DatabaseError):
                self._failed(str(error))
            raise

    @contextmanager
    def _written(self) -> Iterator[tuple[sqlite3.Connection, _State]]:
        with self._lock, spool_errors(self.path):
            if self._lock_file < 0:
                raise SpoolError(f"spool {self.path} is closed")
            before = self._state.copy()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db, self._state
                self._db.execute("COMMIT")
            except BaseException:
                self._state = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._dirty = True

    def _store(self, lines: Iterable[Line]) -> list[int]:
        """Append lines to the chain and insert them, inside a transaction."""
        state = self._state
        ledger: list[tuple[int, bytes, int]] = []
        rows: list[tuple[Any, ...]] = []
        for line in lines:
            now = self._now()
            # The lines of one record keep increasing times, so only before the first may times restart.
            if not ledger and state.time_ns - now > MAX_SKEW_NS:
                self._set_back(now)
            state.seq += 1
            state.time_ns = max(now, state.time_ns + 1)
            text = seal(line, state.seq, state.hash)
            state.hash = line_hash(text)
            encoded = encode_record(line, text, state.time_ns)
            ledger.append((state.seq, bytes.fromhex(state.hash), state.time_ns))
            rows.append(self._row(line, encoded))
            state.count(self._new_state, rows[-1][3], 1, rows[-1][4])
        self._db.executemany("INSERT INTO ledger VALUES (?, ?, ?)", ledger)
        self._db.executemany(_INSERT, rows)
        return [seq for seq, _, _ in ledger]

    def _set_back(self, now_ns: int) -> None:
        """Restart times at a clock that was set back, and write a line about it.

        Times never restart before the newest time that the destination has stored. Loki refuses lines more than 10
        minutes ahead of its own clock: if it stored that time, this host's clock was right then and is wrong now. Loki
        also refuses lines an hour behind the newest line of a stream.
        """
        state = self._state
        back_to, before = max(now_ns, self._newest_taken_ns), state.time_ns
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
        self._store(lines_of(record))

    def _row(self, line: Line, encoded: bytes) -> tuple[Any, ...]:
        said = line.attributes
        columns = {name: said.get(attribute) for name, attribute in ATTRIBUTES.items()}
        columns["exchange_id"] = columns["exchange_id"] or ""
        columns["part"] = columns["part"] or 0
        columns["parts"] = columns["parts"] or 0
        return (
            self._state.seq,
            self._state.time_ns,
            self._new_state,
            str(said.get(semconv.CLASS, "")),
            len(encoded) + ROW_BYTES,
            line.event_name,
            said.get(semconv.GEN_AI_RESPONSE_MODEL) or said.get(semconv.GEN_AI_REQUEST_MODEL),
            *columns.values(),
            self._resource_id,
            encoded,
        )

    def _change_state(self, seqs: Iterable[int], new: int, why: str | None) -> list[int]:
        """Set a new state for those lines that are still pending. Return their numbers."""
        changed = []
        for seq in seqs:
            row = self._db.execute(
                "UPDATE records SET state = ?, why = ? WHERE seq = ? AND state = 0 RETURNING class, size, time_ns",
                (new, why, seq),
            ).fetchone()
            if row:
                self._state.count(PENDING, row[0], -1, -row[1])
                self._state.count(new, row[0], 1, row[1])
                if new == ACKNOWLEDGED:
                    self._newest_taken_ns = max(self._newest_taken_ns, row[2])
                changed.append(seq)
        return changed

    def _note(self, what: str, why: str, seqs: Sequence[int], class_name: str) -> None:
        """Write a line about lines that are no longer exported: their numbers, and the hash of the last."""
        digest = self._db.execute("SELECT hash FROM ledger WHERE seq = ?", (seqs[-1],)).fetchone()
        ranges = ", ".join(f"{first}-{last}" if first != last else str(first) for first, last in _ranges(seqs))
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
            },
            message=f"{len(seqs)} lines{whose} were {_WORDS.get(what, what)} ({why}): {ranges}",
        )
        self._store(lines_of(record))

    # ── limits ───────────────────────────────────────────────────────────────────────────────────────────────

    def _after_commit(self) -> None:
        self.committed.set()
        if self.used_bytes <= self.max_bytes:
            return
        try:
            self._make_room()
        except SpoolError:
            log.exception(
                "the spool is over its limit and could not be pruned"
            )  # Do not raise: the caller's data is committed.

    def _make_room(self) -> None:
        """Prune the spool to somewhat below its limit, in the order that the module's docstring gives."""
        target = self.max_bytes - min(self.max_bytes // 20, SLICE_BYTES)
        for lines in (f"{_KEPT} WHERE state IN (1, 3)", "WHERE state = 2"):
            while self.used_bytes > target and self._prune(lines, self.used_bytes - target):
                pass
        lines = f"{_PENDING} WHERE state = 0"
        while self.used_bytes > target and self._new_state == LOCAL and self._prune(lines, SLICE_BYTES):
            pass
        while self.used_bytes > target and not self._blocks and self._drop(self.used_bytes - target):
            pass

    def _prune(self, lines: str, needed: int, *, whole: bool = True) -> bool:
        """Delete the oldest of the selected rows: ``needed`` bytes, at most a slice. The ledger keeps their hashes.

        With ``whole``, delete all lines of an exchange together.
        """
        with self._transaction() as (db, _):
            query = f"SELECT seq, size, class, state, exchange_id FROM records {lines} ORDER BY seq"  # noqa: S608
            return bool(self._delete(_take(db.execute(query), min(needed, SLICE_BYTES), whole=whole)))

    def _drop(self, needed: int) -> bool:
        """Delete the oldest pending lines of the class with the most pending bytes, and write a line about them."""
        with self._transaction() as (db, state):
            # The proxy's own events (class "") are dropped last, lines about drops never.
            waiting = {name: size for (kind, name), size in state.size.items() if kind == PENDING and size > 0}
            victim = max(waiting, key=lambda name: (name != "", waiting[name]), default=None)
            if victim is None:
                return False
            rows = db.execute(
                "SELECT seq, size, class, state, exchange_id FROM records WHERE state = 0 AND class = ? "
                "AND event_name <> ? ORDER BY seq",
                (victim, semconv.EVENT_SPOOL),
            )
            seqs = self._delete(_take(rows, min(needed, SLICE_BYTES)))
            if not seqs:
                return False
            self.dropped_lines += len(seqs)
            self._note("dropped", "the spool is at its limit", seqs, victim)
            log.error("%d lines of class %s were dropped: the spool is at its limit", len(seqs), victim or "(proxy)")
            return True

    def _delete(self, rows: list[tuple[int, int, str, int, str]]) -> list[int]:
        for seq, size, class_name, state, _ in rows:
            self._db.execute("DELETE FROM records WHERE seq = ?", (seq,))
            self._state.count(state, class_name, -1, -size)
        return [row[0] for row in rows]

    # ── the flush thread ─────────────────────────────────────────────────────────────────────────────────────

    def _flush_regularly(self, seconds: float) -> None:
        """Flush to the disk and move SQLite's log into the file, at intervals and outside the proxy's event loop."""
        database: sqlite3.Connection | None = None
        last = False
        while not last:
            last = self._stopping.wait(seconds)
            try:
                database = database or connect(self.path)
                short = self._flush_and_move(database)
                if last:
                    break
                if short or self._problem is not None or self._left:
                    self.relieve()
                else:
                    self._renew_reserve()
                self.flush_problem = None
            except Exception as error:  # noqa: BLE001  (without this thread nothing is flushed)
                self.flush_problem = f"spool {self.path}: the flush thread failed: {type(error).__name__}: {error}"
                self._log(self.failure_level, f"{self.flush_problem}; it will retry", error)
        if database is not None:
            database.close()

    def _flush_and_move(self, database: sqlite3.Connection) -> bool:
        """Flush, and move SQLite's log into the file. Return whether the move failed, as on a full disk."""
        try:
            self.sync()
        except OSError as error:
            self._failed(f"spool {self.path}: flushing to the disk failed: {error}")
        try:
            # Keep the log smaller than the reserve: on a full disk, the reserve must suffice to move it.
            reserve = _file_size(f"{self.path}.reserve")
            if _file_size(f"{self.path}-wal") > min(CHECKPOINT_BYTES, max(RELIEF_SLICE_BYTES, reserve // 2)):
                database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            self._log(self.failure_level, f"spool {self.path}: SQLite's log could not be moved into the file: {error}")
            return True
        return False

    def sync(self) -> None:
        """Flush committed data to the disk, if there is any."""
        if not self._dirty:
            return
        self._dirty = False
        try:
            # Open the log, not the database: closing a descriptor of that would release SQLite's locks.
            descriptor = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.fsync(descriptor)
        except OSError:
            self._dirty = True
            raise
        finally:
            os.close(descriptor)

    def _remember_resource(self, resource: Any) -> int:
        encoded = encode_resource(resource)
        self._db.execute("INSERT OR IGNORE INTO resources (otlp) VALUES (?)", (encoded,))
        return int(self._db.execute("SELECT id FROM resources WHERE otlp = ?", (encoded,)).fetchone()[0])

    def _load_newest_taken(self) -> int:
        """Return the newest time among the last acknowledged lines."""
        rows = self._db.execute(
            f"SELECT state, time_ns FROM records {_KEPT} WHERE state IN (1, 3) ORDER BY seq DESC LIMIT ?",  # noqa: S608
            (_RECENT,),
        )
        return max((time_ns for state, time_ns in rows if state == ACKNOWLEDGED), default=0)

    def _load_state(self) -> _State:
        last = self._db.execute("SELECT seq, hash, time_ns FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
        seq, digest = SpoolReader.head_of(last)
        state = _State(seq, digest, last[2] if last else 0, {}, {}, {})
        sums = self._db.execute("SELECT state, class, count(*), sum(size) FROM records GROUP BY state, class")
        for kind, class_name, rows, size in sums:
            state.count(kind, class_name, rows, size)
        state.journal = Journal(self._db).sizes()
        return state


def _lock_exclusively(path: Path) -> int:
    """Lock ``<path>.lock`` until this process ends. Return its descriptor.

    Raises:
        SpoolError: another process holds it, or it cannot be created.
    """
    lock = Path(f"{path}.lock")
    try:
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpoolError(
            f"spool {path}: {lock} cannot be written: {error.strerror}; the proxy's user (uid {os.getuid()}) needs to "
            f"write in {path.parent}: set its owner, or EGRESS_STATE_DIR"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise SpoolError(
            f"spool {path}: another process (pid {owner}) is already writing it; stop that process, or set another "
            "EGRESS_STATE_DIR for this one"
        ) from None
    with contextlib.suppress(OSError):  # On a full disk the lock is valid without the pid in it.
        os.pwrite(descriptor, f"{os.getpid()}\n".encode().ljust(32), 0)
    return descriptor


def _take(
    rows: Iterable[tuple[int, int, str, int, str]], needed: int, *, whole: bool = True
) -> list[tuple[int, int, str, int, str]]:
    """Return rows until ``needed`` bytes are reached; with ``whole`` also the other rows of the last exchange."""
    taken: list[tuple[int, int, str, int, str]] = []
    total = ranges = 0
    for row in rows:
        if taken and (total >= needed or ranges > _MAX_RANGES) and not (whole and row[4] and row[4] == taken[-1][4]):
            break
        ranges += not taken or row[0] != taken[-1][0] + 1
        taken.append(row)
        total += row[1]
    return taken


def _ranges(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = seqs[0]
    for seq in seqs[1:]:
        if seq != last + 1:
            yield first, last
            first = seq
        last = seq
    yield first, last


def _never_left(head: str) -> bool:
    """Return whether a journalled request was never sent: it was held back and not committed completely."""
    known = json.loads(head)
    return bool(known.get("request_held")) and not known.get("request_complete")


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - the path is a string
    except FileNotFoundError:
        return 0
