"""The spool's file, open for writing: its lock, its transactions, and the totals of its contents.

A disk that cannot be written (full, read-only, broken) sets `Storage.problem`; `flusher` retries and clears it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from openclaw_egress.recording.hash_chain import GENESIS
from openclaw_egress.spool.journal import Journal
from openclaw_egress.spool.migrations import migrate
from openclaw_egress.spool.rows import DEAD, reason_code
from openclaw_egress.spool.schema import SpoolError, connect, create_file, identify, release_reserve, spool_errors

log = logging.getLogger("openclaw_egress.spool")

REPEAT_SECONDS = 60.0
"""Minimum time before the same problem is logged again."""


@dataclass(slots=True)
class Totals:
    """The end of the chain, and totals of the contents, kept in memory. A failed transaction restores them."""

    seq: int
    hash: str
    time_ns: int
    rows: dict[tuple[int, str], int]
    size: dict[tuple[int, str], int]
    journal: dict[str, int]
    """Journalled bytes of each exchange in progress, by its ID."""
    dead: dict[str, int]
    """Number of dead letters by the code of their reason (`rows.reason_code`)."""

    def copy(self) -> Totals:
        """Return an independent copy of these values."""
        return replace(
            self, rows=dict(self.rows), size=dict(self.size), journal=dict(self.journal), dead=dict(self.dead)
        )

    def count(self, state: int, class_name: str, rows: int, size: int) -> None:
        """Add rows and bytes to the totals of a state and class; negative numbers subtract."""
        key = (state, class_name)
        self.rows[key] = self.rows.get(key, 0) + rows
        self.size[key] = self.size.get(key, 0) + size

    def count_dead(self, why: str | None, rows: int) -> None:
        """Add dead letters to the count of their reason; a negative number subtracts."""
        code = reason_code(why)
        self.dead[code] = self.dead.get(code, 0) + rows

    @property
    def used_bytes(self) -> int:
        """Return the number of bytes that count against the limit."""
        return sum(self.size.values()) + sum(self.journal.values())


class Storage:
    """The file, locked and open for writing. Hold `lock` to use `db` outside of a transaction.

    Raises:
        SpoolError: the file cannot be created, read or written, is of a newer version, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.failure_level = logging.WARNING
        """Log level for a disk that cannot be written.

        mitmproxy exits if an ERROR is logged during its start, so the proxy sets this to ERROR only afterwards.
        """
        self.problem: str | None = None
        """The reason why the disk cannot be written now; None if the last write succeeded."""
        self.failures = 0
        """Number of failed writes. A probe compares it before and after, to detect that another write failed."""
        self.dirty = False
        """Whether there may be committed data that is not yet flushed to the disk."""
        self._logged: dict[int, tuple[str, float]] = {}
        self._lock_file = lock_exclusively(path)
        try:
            create_file(path)
            self.db = self._connect()
        except BaseException:
            os.close(self._lock_file)
            raise
        try:
            with spool_errors(path):
                self.instance_id = self._prepare()
                self.totals = self._load_totals()
        except BaseException:
            self.close()
            raise

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
        self.db.execute("BEGIN IMMEDIATE")
        try:
            migrate(self.db, self.path)
            instance_id = identify(self.db)
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        return instance_id

    def _load_totals(self) -> Totals:
        last = self.db.execute("SELECT seq, hash, time_ns FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
        seq, digest = (last[0], bytes(last[1]).hex()) if last else (0, GENESIS)
        totals = Totals(seq, digest, last[2] if last else 0, {}, {}, {}, {})
        sums = self.db.execute("SELECT state, class, count(*), sum(size) FROM records GROUP BY state, class")
        for kind, class_name, rows, size in sums:
            totals.count(kind, class_name, rows, size)
        for why, rows in self.db.execute("SELECT why, count(*) FROM records WHERE state = ? GROUP BY why", (DEAD,)):
            totals.count_dead(why, rows)
        totals.journal = Journal(self.db).sizes()
        return totals

    def close(self) -> None:
        """Close the connection and release the lock. A second call does nothing."""
        with self.lock:
            if self._lock_file < 0:
                return
            self.db.close()
            os.close(self._lock_file)
            self._lock_file = -1

    @contextmanager
    def transaction(self) -> Iterator[tuple[sqlite3.Connection, Totals]]:
        """Run one transaction. If it fails, restore the totals, set `problem`, and raise."""
        try:
            with self._written() as written:
                yield written
        except SpoolError as error:
            if isinstance(error.__cause__, sqlite3.OperationalError | sqlite3.DatabaseError):
                self.failed(str(error))
            raise

    @contextmanager
    def _written(self) -> Iterator[tuple[sqlite3.Connection, Totals]]:
        with self.lock, spool_errors(self.path):
            if self._lock_file < 0:
                raise SpoolError(f"spool {self.path} is closed")
            before = self.totals.copy()
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db, self.totals
                self.db.execute("COMMIT")
            except BaseException:
                self.totals = before
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
            self.dirty = True

    def failed(self, why: str) -> None:
        """Set `problem`, because the disk cannot be written, and log the reason once."""
        with self.lock:
            self.failures += 1
            if self.problem is None:
                self.report(self.failure_level, f"exchanges are refused until they can be recorded again: {why}")
            self.problem = why

    def report(self, level: int, text: str, error: Exception | None = None) -> None:
        """Log a text, unless it repeats the last one of this level within `REPEAT_SECONDS`."""
        before, when = self._logged.get(level, ("", 0.0))
        now = time.monotonic()
        if text != before or now - when > REPEAT_SECONDS:
            log.log(level, "%s", text, exc_info=error)
            self._logged[level] = (text, now)


def lock_exclusively(path: Path) -> int:
    """Lock the file ``<path>.lock`` and return its descriptor. Closing the descriptor releases the lock.

    Raises:
        SpoolError: another process holds the lock, or the lock file cannot be created.
    """
    lock = Path(f"{path}.lock")
    try:
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Do not follow a link: root must not write to, or give away, a file that the proxy's user chose.
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if os.geteuid() == 0 and os.fstat(descriptor).st_nlink == 1:
            directory = lock.parent.stat()  # The proxy's user owns the directory and must be able to open the lock.
            with contextlib.suppress(PermissionError):  # Ignore the error, because a container may lack CAP_CHOWN.
                os.fchown(descriptor, directory.st_uid, directory.st_gid)
    except OSError as error:
        raise SpoolError(
            f"spool {path}: {lock} cannot be written: {error.strerror}; the proxy's user (uid {os.getuid()}) "
            f"needs write permission for {path.parent}: set its owner, or EGRESS_STATE_DIR"
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
    with contextlib.suppress(OSError):  # The lock is valid even if a full disk prevents writing the pid.
        os.pwrite(descriptor, f"{os.getpid()}\n".encode().ljust(32), 0)
    return descriptor
