"""The exporter's view of the spool: pending lines, acknowledgements and dead letters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from openclaw_egress.recording.otlp import with_namespace
from openclaw_egress.spool.ledger import Ledger
from openclaw_egress.spool.reader import ReadConnections
from openclaw_egress.spool.rows import ACKNOWLEDGED, DEAD, PENDING
from openclaw_egress.spool.schema import SpoolError, release_reserve, spool_errors
from openclaw_egress.spool.storage import Storage

_PENDING, _PENDING_BY_TIME = "INDEXED BY records_pending", "INDEXED BY records_pending_by_time"
_LAST_NS = 2**63 - 1
BEHIND_NS = 30 * 60 * 10**9
"""If a line is older than the newest acknowledged one by more than this, `send_again` moves it to a new stream.

Loki refuses a line that is an hour behind the newest line of its stream. Half of that leaves time for newer lines.
"""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One pending line: sequence number, time, and the encoded bytes of record and resource."""

    seq: int
    time_ns: int
    otlp: bytes
    resource: bytes

    @property
    def size(self) -> int:
        """Return the size in bytes with resource and framing, which is about the size that a destination counts."""
        return len(self.otlp) + len(self.resource) + 16


class ExportQueue:
    """The lines to send to the destination. Queries use separate connections, so that they do not delay writes.

    Args:
        storage: the spool's file.
        ledger: appends lines that record changes of the export state.
        connections: read connections to the same file.
    """

    def __init__(self, storage: Storage, ledger: Ledger, connections: ReadConnections) -> None:
        self._storage = storage
        self._path = storage.path
        self._ledger = ledger
        self._connections = connections

    def pending(
        self, limit_bytes: int, *, before_ns: int | None = None, span_ns: int | None = None
    ) -> list[StoredRecord]:
        """Return the oldest pending lines, ordered by time. Return at least one if any is pending.

        Args:
            limit_bytes: maximum total of `StoredRecord.size`.
            before_ns: exclude lines with this timestamp or a later one.
            span_ns: maximum time between the first and the last line.
        """
        found: list[StoredRecord] = []
        total = 0
        with spool_errors(self._path):
            rows = self._connections.get().execute(
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

    def still_pending(self, records: Sequence[StoredRecord]) -> list[StoredRecord]:
        """Return those of the given lines that are still pending: some may have been deleted since they were read."""
        with spool_errors(self._path):
            rows = self._connections.get().execute(
                f"SELECT seq FROM records {_PENDING} WHERE state = 0 "  # noqa: S608
                "AND seq IN (SELECT value FROM json_each(?))",
                (json.dumps([record.seq for record in records]),),
            )
            waiting = {seq for (seq,) in rows.fetchall()}
        return [record for record in records if record.seq in waiting]

    def oldest_pending(self) -> tuple[int, int] | None:
        """Return ``(seq, time_ns)`` of the oldest pending line; ``None`` if no line is pending."""
        with spool_errors(self._path):
            query = f"SELECT seq, time_ns FROM records {_PENDING} WHERE state = 0 ORDER BY seq LIMIT 1"  # noqa: S608
            row = self._connections.get().execute(query).fetchone()
        return (row[0], row[1]) if row else None

    def pending_since(self, time_ns: int) -> int:
        """Return the number of pending lines with this timestamp or a later one."""
        with spool_errors(self._path):
            query = f"SELECT count(*) FROM records {_PENDING_BY_TIME} WHERE state = 0 AND time_ns >= ?"  # noqa: S608
            return int(self._connections.get().execute(query, (time_ns,)).fetchone()[0])

    def acknowledge(self, seqs: Sequence[int], why: str | None = None) -> None:
        """Mark lines as acknowledged by the destination.

        Args:
            seqs: sequence numbers of the lines.
            why: the reason to count unconfirmed lines as acknowledged; a new line records it. None for confirmed lines.
        """
        try:
            self._mark_acknowledged(seqs, why)
        except SpoolError:
            # The disk may be full. Release the reserve and retry: marking these lines allows pruning to delete them.
            if not release_reserve(self._storage.path):
                raise
            self._mark_acknowledged(seqs, why)

    def dead_letter(self, seqs: Sequence[int], why: str) -> None:
        """Mark lines that the destination will never accept as dead letters. Record the reason in a new line."""
        with self._storage.transaction():
            changed = self._change_state(seqs, DEAD, why)
            if changed:
                self._ledger.note("dead_lettered", why, changed, "")

    def send_again(self, seqs: Sequence[int], old: int, why: str, command_id: str) -> list[int]:
        """Set lines in the state ``old`` to pending, so that the exporter sends them again.

        Return their sequence numbers. Add a line to the chain that lists them. Call this inside a transaction of the
        storage.

        Move lines that are far behind (`BEHIND_NS`) to a new stream, because Loki refuses them in the original one. The
        new stream has the same labels except ``service.namespace``, so queries by service or instance find the lines.
        Each command needs a new stream: its lines may be far behind those of an earlier command.
        """
        changed = self._change_state(seqs, PENDING, None, old)
        self._move_old(changed, f"resent-{command_id}")
        if changed:
            self._ledger.note("retried" if old == DEAD else "resent", why, changed, "")
        return changed

    def _move_old(self, seqs: Sequence[int], stream: str) -> None:
        """Move the lines that are far behind (`BEHIND_NS`) to another stream: add ``stream`` to their namespace."""
        db, oldest = self._storage.db, self._ledger.newest_acknowledged_ns - BEHIND_NS
        chosen = "seq IN (SELECT value FROM json_each(?)) AND time_ns < ?"
        values = (json.dumps(seqs), oldest)
        resources = db.execute(
            f"SELECT DISTINCT s.id, s.otlp FROM records r JOIN resources s ON s.id = r.resource WHERE {chosen}",  # noqa: S608
            values,
        )
        for resource, encoded in resources.fetchall():
            moved = self._ledger.remember_resource(with_namespace(encoded, stream))
            db.execute(f"UPDATE records SET resource = ? WHERE resource = ? AND {chosen}", (moved, resource, *values))  # noqa: S608

    def _mark_acknowledged(self, seqs: Sequence[int], why: str | None) -> None:
        with self._storage.transaction():
            changed = self._change_state(seqs, ACKNOWLEDGED, why)
            if changed and why is not None:
                self._ledger.note("counted_as_stored", why, changed, "")

    def _change_state(self, seqs: Iterable[int], new: int, why: str | None, old: int = PENDING) -> list[int]:
        """Set the new state for those lines that are still in the old state. Return their sequence numbers."""
        changed = []
        for seq in seqs:
            said = why
            if old == DEAD:
                found = self._storage.db.execute("SELECT why FROM records WHERE seq = ?", (seq,)).fetchone()
                said = found[0] if found else None
            row = self._storage.db.execute(
                "UPDATE records SET state = ?, why = ? WHERE seq = ? AND state = ? RETURNING class, size, time_ns",
                (new, why, seq, old),
            ).fetchone()
            if row:
                self._storage.totals.count(old, row[0], -1, -row[1])
                self._storage.totals.count(new, row[0], 1, row[1])
                if DEAD in (old, new):
                    self._storage.totals.count_dead(said, 1 if new == DEAD else -1)
                if new == ACKNOWLEDGED:
                    newest = max(self._ledger.newest_acknowledged_ns, row[2])
                    self._ledger.newest_acknowledged_ns = newest
                changed.append(seq)
        return changed
