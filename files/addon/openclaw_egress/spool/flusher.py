"""The flush thread: flushes the spool to the disk, updates the totals, and recovers from a disk that cannot be written.

After a failed write, the thread releases a reserve file, deletes acknowledged lines to reuse their pages, and retries
until a write succeeds. Only this thread retries, because on a failing disk a write and its flush can take seconds,
which would block the event loop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable

from openclaw_egress.spool import usage_totals
from openclaw_egress.spool.retention import SLICE_BYTES, Retention
from openclaw_egress.spool.rows import ACKNOWLEDGED
from openclaw_egress.spool.schema import (
    KEPT,
    MAX_PAGES,
    PAGE_BYTES,
    RESERVE_BYTES,
    WAL_SAFETY_PAGES,
    SpoolError,
    connect,
    make_reserve,
    release_reserve,
    spool_errors,
)
from openclaw_egress.spool.storage import Storage

CHECKPOINT_BYTES = 8 * 1024 * 1024
RELIEF_SLICE_BYTES = 128 * 1024
"""Maximum number of bytes that one transaction deletes on a full disk. Keep it small: a deletion needs disk space."""
RELIEF_BYTES = 16 * 1024 * 1024
"""On a full disk, acknowledged lines are deleted until the file has this many reusable bytes."""
PROBE_BYTES = 128 * 1024
"""A write of this size must succeed before exchanges are accepted again."""


class Flusher:
    """The flush thread of a spool, and the tasks that it runs.

    Args:
        storage: the spool's file.
        retention: deletes acknowledged lines on a full disk.
        has_left: returns whether there are ended exchanges whose record could not be written.
        settle_left: records or deletes those exchanges, and returns whether that succeeded.
        run_commands: runs the queued operator commands. Raises SpoolError if the disk cannot be written.
    """

    def __init__(
        self,
        storage: Storage,
        retention: Retention,
        has_left: Callable[[], bool],
        settle_left: Callable[[], bool],
        run_commands: Callable[[], None],
    ) -> None:
        self._storage = storage
        self._path = storage.path
        self._retention = retention
        self._has_left = has_left
        self._settle_left = settle_left
        self._run_commands = run_commands
        self._reserve = -1
        """Size in bytes of the reserve file, which limits the size of SQLite's WAL; -1 before the first check."""
        self._folded_seq = -1
        """Sequence number of the line up to which the hourly totals are complete; -1 before the first check."""
        self.problem: str | None = None
        """Error of the thread's last round; None if it succeeded."""
        self.stopping = threading.Event()
        """Event that is set when the thread must end."""
        self.thread: threading.Thread | None = None

    def start(self, seconds: float) -> None:
        """Start the thread, which flushes every ``seconds``."""
        self._renew_reserve()
        self.thread = threading.Thread(target=self._flush_regularly, args=(seconds,), name="spool-flush", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Stop the thread, if it runs, after a last flush."""
        self.stopping.set()
        if self.thread is not None:
            self.thread.join()

    def _flush_regularly(self, seconds: float) -> None:
        """Flush the spool and checkpoint SQLite's WAL, at intervals and outside of the proxy's event loop."""
        database: sqlite3.Connection | None = None
        last = False
        while not last:
            last = self.stopping.wait(seconds)
            try:
                database = database or connect(self._path)
                short = self._flush_and_move(database)
                if last:
                    break
                if short or self._storage.problem is not None or self._has_left():
                    self.relieve()
                else:
                    self._renew_reserve()
                if self._storage.problem is None:
                    with contextlib.suppress(SpoolError):  # `Storage.problem` keeps the error for the next round.
                        self.fold_usage()
                        self._run_commands()
                self.problem = None
            except Exception as error:  # noqa: BLE001  (without this thread nothing is flushed)
                self.problem = f"spool {self._path}: the flush thread failed: {type(error).__name__}: {error}"
                self._storage.report(self._storage.failure_level, f"{self.problem}; it will retry", error)
        if database is not None:
            database.close()

    def _flush_and_move(self, database: sqlite3.Connection) -> bool:
        """Flush the spool, and checkpoint a large WAL. Return whether the checkpoint failed: the disk may be full."""
        try:
            self.sync()
        except OSError as error:
            self._storage.failed(f"spool {self._path}: flushing to the disk failed: {error}")
        try:
            # Keep the WAL smaller than the reserve, which must be large enough for a checkpoint on a full disk.
            reserve = _file_size(f"{self._path}.reserve")
            if _file_size(f"{self._path}-wal") > min(CHECKPOINT_BYTES, max(RELIEF_SLICE_BYTES, reserve // 2)):
                database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            text = f"spool {self._path}: SQLite's checkpoint failed: {error}"
            self._storage.report(self._storage.failure_level, text)
            return True
        return False

    def fold_usage(self) -> None:
        """Add exchanges that are not counted yet to the hourly totals.

        Raises:
            SpoolError: the disk cannot be written.
        """
        while self._folded_seq != (newest := self._storage.totals.seq):
            with self._storage.transaction() as (db, _):
                more = usage_totals.fold(db)
            if more < usage_totals.BATCH:
                self._folded_seq = newest

    def sync(self) -> None:
        """Flush committed data to the disk, if there is any."""
        if not self._storage.dirty:
            return
        self._storage.dirty = False
        try:
            # Open the WAL and not the database: closing a descriptor of the database would release SQLite's locks.
            descriptor = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.fsync(descriptor)
        except OSError:
            self._storage.dirty = True
            raise
        finally:
            os.close(descriptor)

    def relieve(self) -> bool:
        """Free space on a disk that cannot be written. Return whether it can be written now.

        Deleting lines does not shrink the file, but frees pages in it for later lines.
        """
        try:
            if self._acknowledged_bytes() or self._free_bytes() > SLICE_BYTES:
                release_reserve(self._path)
                self._move_log()
            while self._free_bytes() < RELIEF_BYTES and self._retention.prune(
                f"{KEPT} WHERE state IN (1, 3) AND state = 1", RELIEF_SLICE_BYTES, whole=False
            ):
                self._move_log()
        except SpoolError:
            pass  # Probe the disk anyway: the lines deleted before the error may have freed enough space.
        if not self._probe():
            return False
        if not self._settle_left():
            return False
        self._renew_reserve()
        return True

    def _probe(self) -> bool:
        """Write probe data after a failure. Return whether records can be written."""
        with self._storage.lock:
            failures = self._storage.failures
            if self._storage.problem is None:
                return True
        try:
            with self._storage.transaction() as (db, _):
                db.execute("INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))", (PROBE_BYTES,))
                db.execute("DELETE FROM meta WHERE key = 'probe'")
            if self._storage.dirty:
                self.sync()
        except SpoolError:
            return False
        except OSError as error:
            self._storage.failed(f"flushing to the disk failed: {error}")
            return False
        with self._storage.lock:
            if self._storage.failures != failures:
                # Keep `problem`, because a write from the event loop failed during the probe.
                return False
            self._storage.problem = None
            text = f"spool {self._path}: the disk can be written again; exchanges are accepted"
            self._storage.report(logging.INFO, text)
        return True

    def _renew_reserve(self) -> None:
        """Renew the reserve. Limit the sizes of SQLite's WAL and file, so that the reserve suffices for a checkpoint.

        With a small reserve, checkpoint more often, and let the file grow only into the disk's free space. Then a
        commit that needs more space fails before it enters the WAL. Without this limit, the WAL could contain pages
        that do not fit on the disk.
        """
        size = make_reserve(self._path)
        enough = size >= RESERVE_BYTES
        if enough and self._reserve >= RESERVE_BYTES:
            return
        self._reserve = size
        log_pages, file_pages = WAL_SAFETY_PAGES, MAX_PAGES
        # Ignore errors: if the disk fails, the next write reports it.
        with contextlib.suppress(OSError, sqlite3.Error), self._storage.lock:
            if not enough:
                disk = os.statvfs(self._path.parent)
                log_pages = max(1, size // 2 // PAGE_BYTES)
                room = disk.f_bavail * disk.f_frsize // 2 + size // 2
                file_pages = (_file_size(str(self._path)) + room) // PAGE_BYTES
            self._storage.db.execute(f"PRAGMA wal_autocheckpoint = {log_pages}")
            self._storage.db.execute(f"PRAGMA max_page_count = {max(1, file_pages)}")

    def _acknowledged_bytes(self) -> int:
        with self._storage.lock:
            return sum(size for (state, _), size in self._storage.totals.size.items() if state == ACKNOWLEDGED)

    def _free_bytes(self) -> int:
        """Return the number of bytes in the file that are free for later lines."""
        with self._storage.lock, spool_errors(self._path):
            pages = self._storage.db.execute("PRAGMA freelist_count").fetchone()[0]
            return int(pages) * int(self._storage.db.execute("PRAGMA page_size").fetchone()[0])

    def _move_log(self) -> None:
        """Checkpoint SQLite's WAL into the database file, so that SQLite can reuse the WAL from its start."""
        with self._storage.lock, spool_errors(self._path):
            self._storage.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - the path is a string
    except FileNotFoundError:
        return 0
