"""The spool: the durable queue between proxy and destination, and the local store if no destination is configured.

A lock file ensures that only one process writes the spool. Each method that writes is one transaction, and its result
survives ``kill -9``. The flush thread flushes to the disk once a second, so a power failure can lose the last second.

The parts: `storage` owns the file and its transactions, `ledger` appends lines to the hash chain, and `journal` holds
exchanges in progress. `retention` enforces the limit, and `export_queue` serves the exporter. `flusher` is the flush
thread, which also runs the operator's `commands`. `Spool` connects them. Commands read the file with `reader`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

from openclaw_egress.recording import semconv
from openclaw_egress.recording.log_lines import AttributeValue
from openclaw_egress.recording.otlp import make_resource
from openclaw_egress.recording.records import DeniedRecord, EventRecord, ExchangeRecord, lines_of
from openclaw_egress.signatures import Signer, checkpoint_text, key_id
from openclaw_egress.spool import usage_totals
from openclaw_egress.spool.commands import CommandQueue
from openclaw_egress.spool.export_queue import ExportQueue, StoredRecord
from openclaw_egress.spool.flusher import Flusher
from openclaw_egress.spool.journal import Journal
from openclaw_egress.spool.ledger import Ledger
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.retention import Retention
from openclaw_egress.spool.rows import LOCAL, PENDING, STATES
from openclaw_egress.spool.schema import SpoolError, spool_errors
from openclaw_egress.spool.storage import Storage
from openclaw_egress.spool.tombstones import delete_records

__all__ = ["Spool", "SpoolError", "StoredRecord"]


class Spool:
    """The spool, open for writing.

    Args:
        path: the SQLite file; its directory is created (0700) if absent.
        max_bytes: limit of stored bytes.
        full: behaviour at the limit when only pending lines are left.
        local: whether no destination is configured. Lines are then only stored, and the oldest are pruned at the limit.
        max_age: age at which `expire` deletes lines; None for no limit.
        service_name: see `otlp.make_resource`.
        host_name: see `otlp.make_resource`.
        sync_seconds: interval of the flush thread; ``None`` starts no thread.
        signer: the key that signs checkpoints; without it, checkpoints are not signed.
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
        max_age: timedelta | None = None,
        service_name: str | None = None,
        host_name: str | None = None,
        sync_seconds: float | None = 1.0,
        clock_ns: Callable[[], int] = time.time_ns,
        signer: Signer | None = None,
    ) -> None:
        self.path = Path(path)
        self.committed = threading.Event()
        """Event that is set after each commit of a line. The waiting thread must clear it."""
        self._now = clock_ns
        self._signer = signer
        self._max_age_ns = None if max_age is None else int(max_age.total_seconds()) * 10**9
        self._left: dict[str, bool] = {}
        self._left_secret: set[str] = set()
        self._storage = storage = Storage(self.path)
        try:
            self.instance_id = storage.instance_id
            resource = make_resource(self.instance_id, service_name, host_name)
            with spool_errors(self.path):
                self._ledger = Ledger(storage, resource, LOCAL if local else PENDING, clock_ns)
            self.reader = SpoolReader(self.path)
            """Reader of the same file; any thread may use it."""
        except BaseException:
            storage.close()
            raise
        self._retention = Retention(storage, self._ledger, max_bytes, blocks=full == "block")
        self._queue = ExportQueue(storage, self._ledger, self.reader.connections)
        self._flusher = Flusher(
            storage, self._retention, lambda: bool(self._left), self._settle_left, self.run_commands
        )
        self._commands = CommandQueue(
            storage, self._queue, self._delete_records, self._retention, self._after_commit, self._flusher.stopping
        )
        if sync_seconds is not None:
            self._flusher.start(sync_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush and close the spool, and release the lock."""
        self._flusher.stop()
        with contextlib.suppress(SpoolError):  # On failure, the next start updates the totals.
            self.fold_usage()
        with self._storage.lock:
            self.reader.close()
            self._storage.close()

    # ── the journal of exchanges in progress ─────────────────────────────────────────────────────────────────

    def open_exchange(
        self, exchange_id: str, class_name: str, head: dict[str, Any], request: Iterable[bytes] = ()
    ) -> None:
        """Add an exchange to the journal, with the decoded bytes of its request body that were received so far.

        ``head`` holds the known fields of `ExchangeRecord`, redacted.
        """
        with self._storage.transaction() as (db, state):
            journal = Journal(db)
            journal.begin(exchange_id, class_name, self._now(), head)
            state.journal[exchange_id] = 0
            for data in request:
                journal.append(exchange_id, "request", self._now(), data)
                state.journal[exchange_id] += len(data)

    def update(self, exchange_id: str, head: dict[str, Any]) -> None:
        """Replace the stored fields of an exchange in progress."""
        with self._storage.transaction() as (db, _):
            Journal(db).update(exchange_id, head)

    def append(self, exchange_id: str, direction: str, data: bytes) -> None:
        """Append decoded bytes to a body of an exchange in progress; ``direction`` is ``request`` or ``response``."""
        self.append_pieces(exchange_id, direction, [data])

    def append_pieces(self, exchange_id: str, direction: str, pieces: Iterable[bytes]) -> None:
        """Append several pieces of one body in one transaction."""
        with self._storage.transaction() as (db, state):
            for data in pieces:
                Journal(db).append(exchange_id, direction, self._now(), data)
                state.journal[exchange_id] = state.journal.get(exchange_id, 0) + len(data)

    def withhold(self, exchange_id: str) -> None:
        """Delete the journalled bodies of an exchange in progress, because they are credentials."""
        with self._storage.transaction() as (db, state):
            Journal(db).withhold(exchange_id)
            state.journal[exchange_id] = 0

    def close_exchange(self, record: ExchangeRecord) -> list[int]:
        """Delete an exchange from the journal, and store the lines of its record. Return their sequence numbers."""
        lines = lines_of(record)
        with self._storage.transaction() as (db, state):
            seqs = self._ledger.append(lines)
            Journal(db).forget(record.id)
            state.journal.pop(record.id, None)
        self._after_commit()
        return seqs

    def recover(self) -> int:
        """Record the exchanges that a crash interrupted. Return their number.

        If no byte of an exchange was sent (see `_never_left`), delete it instead.
        """
        with self._storage.lock, spool_errors(self.path):
            found = dict(self._storage.db.execute("SELECT id, head FROM exchanges").fetchall())
        left = {exchange_id: not _never_left(head) for exchange_id, head in found.items()}
        try:
            self._settle(left)
        except SpoolError:
            # Do not raise: the flush thread retries, and until then the proxy refuses exchanges.
            with self._storage.lock:
                self._left = left | self._left
            return 0
        return sum(left.values())

    def leave(self, exchange_id: str, *, recorded: bool, secret: bool = False) -> None:
        """End an exchange whose record could not be written. The flush thread records or deletes it later.

        Args:
            exchange_id: ID of the exchange.
            recorded: whether bytes of the exchange were sent. If so, the exchange is recorded as ``interrupted`` when
                the disk can be written again; if not, it is deleted.
            secret: whether the bodies are credentials, which must not be recorded.
        """
        with self._storage.lock:
            if exchange_id in self._storage.totals.journal:
                self._left[exchange_id] = recorded
                if secret:
                    self._left_secret.add(exchange_id)

    def _settle_left(self) -> bool:
        """Record or delete the exchanges that `leave` ended. Return whether the disk could be written."""
        with self._storage.lock:
            left, self._left = self._left, {}
        try:
            self._settle(left)
        except SpoolError:
            with self._storage.lock:
                self._left = left | self._left
            return False
        return True

    def _settle(self, left: dict[str, bool]) -> None:
        """Record or delete the given exchanges, which are still in the journal."""
        for exchange_id, recorded in left.items():
            if exchange_id in self._left_secret:
                self.withhold(exchange_id)
                self._left_secret.discard(exchange_id)
            # Take the lock: the event loop may be inside a transaction on this connection.
            with self._storage.lock, spool_errors(self.path):
                record = next(Journal(self._storage.db).interrupted(exchange_id), None) if recorded else None
            if record is not None:
                self.close_exchange(record)
                continue
            with self._storage.transaction() as (db, state):
                Journal(db).forget(exchange_id)
                state.journal.pop(exchange_id, None)

    # ── a disk that cannot be written ────────────────────────────────────────────────────────────────────────

    @property
    def problem(self) -> str | None:
        """Return the reason why records cannot be written now; ``None`` if the last write succeeded."""
        return self._storage.problem

    @property
    def flush_problem(self) -> str | None:
        """Return the error of the flush thread's last round; ``None`` if it succeeded."""
        return self._flusher.problem

    @property
    def failure_level(self) -> int:
        """Log level for a disk that cannot be written; see `Storage.failure_level`."""
        return self._storage.failure_level

    @failure_level.setter
    def failure_level(self, level: int) -> None:
        self._storage.failure_level = level

    def works(self) -> bool:
        """Return whether records can be written. After a failure, only the flush thread tests the disk again."""
        return self._storage.problem is None

    def relieve(self) -> bool:
        """Free space on a disk that cannot be written; see `Flusher.relieve`."""
        return self._flusher.relieve()

    def sync(self) -> None:
        """Flush committed data to the disk, if there is any."""
        self._flusher.sync()

    def run_commands(self) -> None:
        """Run the operator's waiting commands; see `CommandQueue.run`. The flush thread calls it."""
        self._commands.run()

    def _delete_records(self, seqs: Sequence[int], why: str) -> list[int]:
        return delete_records(self._storage, self._ledger, self._retention, self._signer, seqs, why)

    # ── records ──────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, record: DeniedRecord | EventRecord) -> list[int]:
        """Store a record that was not journalled. Return the sequence numbers of its lines."""
        with self._storage.transaction():
            seqs = self._ledger.append(lines_of(record))
        self._after_commit()
        return seqs

    def fold_usage(self) -> None:
        """Add exchanges that are not counted yet to the hourly totals. The flush thread calls this."""
        self._flusher.fold_usage()

    def rebuild_usage(self) -> int:
        """Recompute the hourly totals. Return the number of unchanged hours; see `usage_totals.rebuild`."""
        with self._storage.transaction() as (db, _):
            return usage_totals.rebuild(db)

    def checkpoint(self) -> tuple[int, str]:
        """Write a checkpoint, so that the audit detects missing lines at the end of the chain.

        Return the sequence number and the hash of the line up to which the checkpoint signs the chain.
        """
        with self._storage.lock:
            seq, digest = self._storage.totals.seq, self._storage.totals.hash
            attributes: dict[str, AttributeValue] = {semconv.CHECKPOINT_SEQ: seq, semconv.CHECKPOINT_HASH: digest}
            if self._signer is not None:
                attributes[semconv.CHECKPOINT_SIGNATURE] = self._signer.sign(checkpoint_text(seq, digest))
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
        return self._storage.totals.seq, self._storage.totals.hash

    def _after_commit(self) -> None:
        self.committed.set()
        self._retention.enforce()

    def expire(self) -> bool:
        """Delete one batch of expired lines. Return whether there were any; see `Retention.expire`."""
        return self._max_age_ns is not None and self._retention.expire(self._now(), self._max_age_ns)

    @property
    def full(self) -> bool:
        """Return whether new exchanges must be refused: the limit is reached, and ``full`` is ``block``."""
        return self._retention.full

    @property
    def used_bytes(self) -> int:
        """Return the bytes that count against the limit."""
        return self._retention.used_bytes

    @property
    def dropped_lines(self) -> int:
        """Return the number of pending lines dropped because of the limit since this object was created."""
        return self._retention.dropped_lines

    def stats(self) -> dict[str, int]:
        """Return the values of `SpoolReader.stats`, and those of the limit and the journal, without a query."""
        with self._storage.lock:
            totals = self._storage.totals
            left = sum(exchange_id in totals.journal for exchange_id in self._left)
            found = {f"{name}_{what}": 0 for name in STATES for what in ("records", "bytes")}
            for (state, _), rows in totals.rows.items():
                found[f"{STATES[state]}_records"] += rows
            for (state, _), size in totals.size.items():
                found[f"{STATES[state]}_bytes"] += size
            return {
                **found,
                "open_exchanges": len(totals.journal) - left,
                "journal_bytes": sum(totals.journal.values()),
                "last_seq": totals.seq,
                "used_bytes": self.used_bytes,
                "max_bytes": self._retention.max_bytes,
                "dropped_lines": self.dropped_lines,
                "refusing": int(self.problem is not None or self.full),
            }

    def dead_letters(self) -> dict[str, int]:
        """Return the number of dead letters by the code of their reason."""
        with self._storage.lock:
            return {code: count for code, count in sorted(self._storage.totals.dead.items()) if count}

    # ── for the exporter ─────────────────────────────────────────────────────────────────────────────────────

    def pending(
        self, limit_bytes: int, *, before_ns: int | None = None, span_ns: int | None = None
    ) -> list[StoredRecord]:
        """Return the oldest pending lines, ordered by time; see `ExportQueue.pending`."""
        return self._queue.pending(limit_bytes, before_ns=before_ns, span_ns=span_ns)

    def still_pending(self, records: Sequence[StoredRecord]) -> list[StoredRecord]:
        """Return those of the given lines that are still pending; see `ExportQueue.still_pending`."""
        return self._queue.still_pending(records)

    def oldest_pending(self) -> tuple[int, int] | None:
        """Return ``(seq, time_ns)`` of the oldest pending line; ``None`` if no line is pending."""
        return self._queue.oldest_pending()

    def pending_since(self, time_ns: int) -> int:
        """Return the number of pending lines with this time or a later one."""
        return self._queue.pending_since(time_ns)

    def acknowledge(self, seqs: Sequence[int], why: str | None = None) -> None:
        """Mark lines as acknowledged by the destination; see `ExportQueue.acknowledge`."""
        self._queue.acknowledge(seqs, why)
        self._after_commit()

    def dead_letter(self, seqs: Sequence[int], why: str) -> None:
        """Dead-letter lines that the destination will never accept; see `ExportQueue.dead_letter`."""
        self._queue.dead_letter(seqs, why)
        self._after_commit()


def _never_left(head: str) -> bool:
    """Return whether the exchange's request was held and is incomplete: then no byte of it was sent upstream."""
    known = json.loads(head)
    return bool(known.get("request_held")) and not known.get("request_complete")
