"""The spool's size limit, and the order in which lines are deleted when the spool exceeds it.

The spool deletes in this order:

1. acknowledged lines; without a destination, the oldest lines;
2. dead letters, which an operator can also delete (`Retention.give_up`);
3. with ``full="drop_oldest"``: the oldest pending lines of the class with the most pending bytes, so that no class
   displaces another's lines. A line of event ``openclaw.egress.spool`` lists the dropped lines.

With ``full="block"``, pending lines stay, and `Retention.full` tells the proxy to refuse new exchanges.

Lines also have a maximum age. It applies only to acknowledged lines and to lines of a spool without a destination.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from openclaw_egress.recording import semconv
from openclaw_egress.spool import usage_totals
from openclaw_egress.spool.ledger import Ledger
from openclaw_egress.spool.rows import ACKNOWLEDGED, DEAD, LOCAL, PENDING
from openclaw_egress.spool.schema import KEPT, PRUNED_SEQ, SpoolError, spool_errors
from openclaw_egress.spool.storage import Storage

log = logging.getLogger("openclaw_egress.spool")

SLICE_BYTES = 4 * 1024 * 1024
"""Maximum number of bytes that one transaction prunes, so that it does not block the proxy's event loop for long."""
_MAX_RANGES = 1000
_MAX_AHEAD = 1000
"""Maximum number of consecutive lines with a future time that `Retention.expire` skips to find an old line."""
_PENDING = "INDEXED BY records_pending"


class Retention:
    """The size limit of a spool.

    Args:
        storage: the spool's file.
        ledger: writes the line about dropped lines.
        max_bytes: limit for the stored bytes of lines and journal together.
        blocks: whether pending lines stay when the limit is reached.
    """

    def __init__(self, storage: Storage, ledger: Ledger, max_bytes: int, *, blocks: bool) -> None:
        self._storage = storage
        self._ledger = ledger
        self.max_bytes = max_bytes
        self._blocks = blocks
        self.dropped_lines = 0
        """Number of pending lines dropped because of the limit since this object was created."""

    @property
    def used_bytes(self) -> int:
        """Return the bytes that count against ``max_bytes``."""
        return self._storage.totals.used_bytes

    @property
    def full(self) -> bool:
        """Return whether new exchanges must be refused: the limit is reached, and ``full`` is ``block``."""
        return self._blocks and self.used_bytes >= self.max_bytes

    def enforce(self) -> None:
        """Prune the spool if it exceeds its limit. Log a failure, but do not raise: the caller's data is committed."""
        if self.used_bytes <= self.max_bytes:
            return
        try:
            self._make_room()
        except SpoolError:
            log.exception("the spool is over its limit and could not be pruned")

    def _make_room(self) -> None:
        """Prune the spool to slightly below its limit, in the order that the module's docstring defines."""
        target = self.max_bytes - min(self.max_bytes // 20, SLICE_BYTES)
        for lines in (f"{KEPT} WHERE state IN (1, 3)", "WHERE state = 2"):
            while self.used_bytes > target and self.prune(lines, self.used_bytes - target):
                pass
        lines = f"{_PENDING} WHERE state = 0"
        while self.used_bytes > target and self._ledger.new_state == LOCAL and self.prune(lines, SLICE_BYTES):
            pass
        while self.used_bytes > target and not self._blocks and self._drop(self.used_bytes - target):
            pass

    def prune(self, lines: str, needed: int, *, whole: bool = True) -> bool:
        """Delete the oldest rows that the SQL text ``lines`` selects. Return whether any was deleted.

        Free ``needed`` bytes, but at most `SLICE_BYTES`. With ``whole``, delete all lines of an exchange together. The
        ledger keeps the hashes.
        """
        with self._storage.transaction() as (db, _):
            query = f"SELECT seq, size, class, state, exchange_id FROM records {lines} ORDER BY seq"  # noqa: S608
            return bool(self._delete(_take(db.execute(query), min(needed, SLICE_BYTES), whole=whole)))

    def expire(self, now_ns: int, max_age_ns: int) -> bool:
        """Delete acknowledged or local lines that have reached the maximum age, at most `SLICE_BYTES`.

        Stop at the first younger line. If a clock was wrong, a line can have a future time; treat it as old if an old
        line follows it. Return whether any line was deleted.

        Raises:
            SpoolError: the disk cannot be written.
        """
        kept = f"FROM records {KEPT} WHERE state IN (1, 3) ORDER BY seq"
        with self._storage.lock, spool_errors(self._storage.path):
            times = self._storage.db.execute(f"SELECT time_ns {kept} LIMIT {_MAX_AHEAD + 1}")
            if not any(_aged(((time_ns,) for (time_ns,) in times), now_ns, now_ns - max_age_ns)):
                return False
        with self._storage.transaction() as (db, _):
            rows = db.execute(f"SELECT time_ns, seq, size, class, state, exchange_id {kept}")
            old = _aged(rows, now_ns, now_ns - max_age_ns)
            return bool(self._delete(_take((row[1:] for row in old), SLICE_BYTES)))

    def _drop(self, needed: int) -> bool:
        """Delete the oldest pending lines of the class with the most pending bytes. Return whether there were any.

        Write a line that lists the deleted lines.
        """
        with self._storage.transaction() as (db, state):
            # Drop the proxy's own events (class "") last. Never drop the lines about dropped lines.
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
            self._ledger.note("dropped", "the spool is at its limit", seqs, victim)
            log.error("%d lines of class %s were dropped: the spool is at its limit", len(seqs), victim or "(proxy)")
            return True

    def give_up(self, seqs: Sequence[int], why: str) -> list[int]:
        """Delete dead letters and write a line that lists them. Return their sequence numbers.

        Call this inside a transaction of the storage.
        """
        rows = (
            self._storage.db.execute(
                "SELECT seq, size, class, state, exchange_id FROM records WHERE seq = ? AND state = ?", (seq, DEAD)
            ).fetchone()
            for seq in seqs
        )
        deleted = self._delete([row for row in rows if row is not None])
        if deleted:
            self._ledger.note("dropped_by_operator", why, deleted, "")
        return deleted

    def delete_by_operator(self, seqs: Sequence[int]) -> list[int]:
        """Delete lines in any state. Return their sequence numbers. The caller must write a line that lists them.

        Call this inside a transaction of the storage.
        """
        query = "SELECT seq, size, class, state, exchange_id FROM records WHERE seq = ?"
        rows = (self._storage.db.execute(query, (seq,)).fetchone() for seq in seqs)
        return self._delete([row for row in rows if row is not None], pruned=False)

    def _delete(self, rows: list[tuple[int, int, str, int, str]], *, pruned: bool = True) -> list[int]:
        if rows:
            usage_totals.fold_all(self._storage.db)
        for seq, size, class_name, state, _ in rows:
            why = self._storage.db.execute("DELETE FROM records WHERE seq = ? RETURNING why", (seq,)).fetchone()
            if state == DEAD:
                self._storage.totals.count_dead(why[0], -1)
            self._storage.totals.count(state, class_name, -1, -size)
        newest = max((row[0] for row in rows if row[3] in (ACKNOWLEDGED, LOCAL)), default=0)
        if pruned and newest:
            # Store the highest sequence number, so that an audit can distinguish pruned lines from removed ones, even
            # if an older line is acknowledged later.
            statement = (
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = max(value, excluded.value)"
            )
            self._storage.db.execute(statement, (PRUNED_SEQ, newest))
        return [row[0] for row in rows]


def _aged[Line: tuple[int, ...]](rows: Iterable[Line], now_ns: int, before_ns: int) -> Iterator[Line]:
    """Yield the rows that `Retention.expire` treats as older than ``before_ns``. A row begins with its timestamp."""
    ahead: list[Line] = []
    for row in rows:
        if row[0] < before_ns:
            yield from ahead
            yield row
            ahead = []
        elif row[0] > now_ns and len(ahead) < _MAX_AHEAD:
            ahead.append(row)
        else:
            return


def _take(
    rows: Iterable[tuple[int, int, str, int, str]], needed: int, *, whole: bool = True
) -> list[tuple[int, int, str, int, str]]:
    """Return the first rows whose sizes add up to ``needed``. With ``whole``, include all rows of the last exchange."""
    taken: list[tuple[int, int, str, int, str]] = []
    total = ranges = 0
    for row in rows:
        if taken and (total >= needed or ranges > _MAX_RANGES) and not (whole and row[4] and row[4] == taken[-1][4]):
            break
        ranges += not taken or row[0] != taken[-1][0] + 1
        taken.append(row)
        total += row[1]
    return taken
