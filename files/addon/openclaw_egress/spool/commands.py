"""Operator commands on stored lines: send lines again, or permanently delete dead letters or records.

Only the proxy's process writes the spool. `egress dead-letter`, `resend` and `delete` store a command in a file next to
the spool. The flush thread runs it within a second, or after the next start. A crash neither loses nor repeats a
command, because each transaction also stores the command's progress in the table ``meta`` (key ``command_ID``).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

from openclaw_egress.spool.export_queue import ExportQueue
from openclaw_egress.spool.progress import KEY, Progress, progress_of
from openclaw_egress.spool.retention import SLICE_BYTES, Retention
from openclaw_egress.spool.rows import ACKNOWLEDGED, DEAD
from openclaw_egress.spool.schema import SpoolError, connect, spool_errors, who_may
from openclaw_egress.spool.storage import Storage
from openclaw_egress.spool.tombstones import DELETABLE, MAX_RUNS

log = logging.getLogger("openclaw_egress.spool")

MAX_LINES = 1000
"""Maximum number of lines that one transaction changes, so that it does not block the proxy's event loop for long."""
KEPT_SECONDS = 24 * 3600
"""How long the table ``meta`` keeps the result of a command."""
_BUSY_MS = 100
"""How long to wait for readers before truncating SQLite's WAL. Keep it short, because writers wait too."""
_INVALID, _UNFINISHED = ".invalid", ".tmp"


class Action(StrEnum):
    """The kinds of operator commands on stored lines."""

    RETRY = "retry"
    """Send dead letters again."""
    DROP = "drop"
    """Delete dead letters."""
    RESEND = "resend"
    """Send acknowledged lines again."""
    DELETE = "delete"
    """Delete records in any state; see `tombstones`."""


_STATES = {Action.RETRY: DEAD, Action.DROP: DEAD, Action.RESEND: ACKNOWLEDGED}
_CHOICES = {
    **{action: f"state = {state}" for action, state in _STATES.items()},
    Action.DELETE: f"event_name IN ({', '.join(map(repr, DELETABLE))})",
}
"""SQL conditions that select the lines that a command may change."""
_DELETED_LINES, _DELETED_BYTES = 250, 1024 * 1024
"""Maximum number of lines and bytes that one transaction deletes. Keep both small: overwriting the data takes time."""
_PAUSE_SECONDS = 0.01
"""Pause between two transactions of a deletion, so that other threads get the spool's lock."""


def _new_id() -> str:
    """Return a new ID. IDs sort by creation time."""
    return f"{time.time_ns():020d}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        action: the kind of the command.
        ranges: first and last number of each range of lines, in increasing order and without overlaps.
        why: the user who ran the command and the reason, for the line that records the command in the chain.
        id: identifies the command in the name of its file and in the table ``meta``.
    """

    action: Action
    ranges: tuple[tuple[int, int], ...]
    why: str
    id: str = field(default_factory=_new_id)

    @classmethod
    def read(cls, text: str, command_id: str) -> Command:
        """Parse the content of a command file.

        Raises:
            ValueError: the text is not a command.
        """
        try:
            found = json.loads(text)
            ranges = tuple((int(first), int(last)) for first, last in found["ranges"])
            numbers = [number for run in ranges for number in run]
            if numbers != sorted(numbers) or any(left[1] >= right[0] for left, right in pairwise(ranges)):
                raise ValueError("the line ranges are not in ascending order")
            return cls(Action(found["action"]), ranges, str(found["why"]), command_id)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a command: {type(error).__name__}: {error}") from None


def _file(path: Path, command_id: str) -> Path:
    return path.with_name(f"{path.name}.command.{command_id}")


def submit(path: Path, command: Command) -> Path:
    """Store a command for the process that writes the spool, and flush it to the disk. Return the command's file.

    Raises:
        SpoolError: the file cannot be written.
    """
    target = _file(path, command.id)
    unfinished = target.with_name(target.name + _UNFINISHED)
    content = {"action": command.action, "ranges": command.ranges, "why": command.why}
    try:
        try:
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as new:
                json.dump(content, new)
                new.flush()
                owner = path.stat()
                if os.geteuid() == 0:  # The proxy's user must be able to read root's command.
                    os.fchown(new.fileno(), owner.st_uid, owner.st_gid)
                os.fsync(new.fileno())
            unfinished.rename(target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise SpoolError(f"{target}: {error.strerror}; {who_may(path.parent)}") from error
    return target


class CommandQueue:
    """The queue of commands in files next to a spool.

    Args:
        storage: the spool's file.
        queue: the export queue, which sets lines to be sent again.
        delete_records: deletes records and writes the tombstone.
        retention: deletes dead letters.
        after_commit: called after each transaction that changed lines.
        stopping: set when the process stops. An unfinished command then continues after the next start.
    """

    def __init__(
        self,
        storage: Storage,
        queue: ExportQueue,
        delete_records: Callable[[Sequence[int], str], list[int]],
        retention: Retention,
        after_commit: Callable[[], None],
        stopping: threading.Event,
    ) -> None:
        self._storage = storage
        self._queue = queue
        self._delete_records = delete_records
        self._retention = retention
        self._after_commit = after_commit
        self._stopping = stopping

    def run(self) -> None:
        """Run the waiting commands, the oldest first.

        Raises:
            SpoolError: the disk cannot be written. The remaining commands stay in the queue.
        """
        for file, command_id in self._waiting():
            try:
                command = Command.read(file.read_text(encoding="utf-8"), command_id)
            except (OSError, ValueError) as error:
                self._set_aside(file, error)
                continue
            while not self._step(command):
                if self._stopping.is_set():
                    return
                if command.action is Action.DELETE and self._stopping.wait(_PAUSE_SECONDS):
                    return
            if command.action is Action.DELETE and not self._clear_log():
                return  # A program is reading the spool; try again in the next round.
            self._finish(command)
            file.unlink(missing_ok=True)

    def _waiting(self) -> list[tuple[Path, str]]:
        prefix = f"{self._storage.path.name}.command."
        with contextlib.suppress(FileNotFoundError), os.scandir(self._storage.path.parent) as entries:
            names = sorted(entry.name for entry in entries if entry.name.startswith(prefix))
            return [
                (self._storage.path.with_name(name), name.removeprefix(prefix))
                for name in names
                if not name.endswith((_INVALID, _UNFINISHED))
            ]
        return []

    def _set_aside(self, file: Path, error: Exception) -> None:
        text = "the command in %s cannot be read (%s) and was ignored; run the command again"
        log.log(self._storage.failure_level, text, file, error)
        with contextlib.suppress(OSError):
            file.rename(file.with_name(file.name + _INVALID))

    def _step(self, command: Command) -> bool:
        """Run the next part of a command in one transaction. Return True if there was no part left to run."""
        with self._storage.transaction() as (db, _):
            before = progress_of(db, command.id)
            seqs = [] if before.done else list(self._next_lines(db, command, before.next_seq))
            if not seqs:
                return True
            changed = self._change(command, seqs)
            _set_progress(db, command, Progress(seqs[-1] + 1, before.changed + len(changed), done=False))
        if changed:
            self._after_commit()
        return False

    def _clear_log(self) -> bool:
        """Truncate SQLite's WAL, which still contains deleted lines. Return False if a reader prevented it."""
        with spool_errors(self._storage.path), contextlib.closing(connect(self._storage.path)) as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # First copy most pages without blocking writers.
            db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            return bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

    def _finish(self, command: Command) -> None:
        """Mark a command as finished, for the CLI process that waits for it."""
        with self._storage.transaction() as (db, _):
            progress = progress_of(db, command.id)
            _set_progress(db, command, replace(progress, done=True))
            self._forget_old(db)
        log.info("%s: %d lines changed (%s)", command.action, progress.changed, command.why)

    def _next_lines(self, db: sqlite3.Connection, command: Command, start: int) -> Iterator[int]:
        """Yield the sequence numbers of the next lines of a command, up to the limits of one transaction."""
        is_deletion = command.action is Action.DELETE
        max_lines, max_bytes = (_DELETED_LINES, _DELETED_BYTES) if is_deletion else (MAX_LINES, SLICE_BYTES)
        lines = total = runs = newest = 0
        for first, last in command.ranges:
            if last < start:
                continue
            chosen = _CHOICES[command.action]
            rows = db.execute(
                f"SELECT seq, size FROM records WHERE seq BETWEEN ? AND ? AND {chosen} ORDER BY seq",  # noqa: S608
                (max(first, start), last),
            )
            for seq, size in rows:
                yield seq
                lines, total, runs, newest = lines + 1, total + size, runs + (seq != newest + 1), seq
                if lines >= max_lines or total >= max_bytes or runs >= MAX_RUNS:
                    return

    def _change(self, command: Command, seqs: Sequence[int]) -> list[int]:
        if command.action is Action.DELETE:
            return self._delete_records(seqs, command.why)
        if command.action is Action.DROP:
            return self._retention.give_up(seqs, command.why)
        return self._queue.send_again(seqs, _STATES[command.action], command.why, command.id)

    def _forget_old(self, db: sqlite3.Connection) -> None:
        """Delete the progress of commands that are older than `KEPT_SECONDS`, unless they are still in the queue."""
        oldest = f"{KEY}{time.time_ns() - KEPT_SECONDS * 10**9:020d}"
        waiting = {command_id for _, command_id in self._waiting()}
        keys: list[Any] = db.execute("SELECT key FROM meta WHERE key >= ? AND key < ?", (KEY, oldest)).fetchall()
        for (key,) in keys:
            if key.removeprefix(KEY) not in waiting:
                db.execute("DELETE FROM meta WHERE key = ?", (key,))


def _set_progress(db: sqlite3.Connection, command: Command, progress: Progress) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (KEY + command.id, json.dumps(asdict(progress))))
