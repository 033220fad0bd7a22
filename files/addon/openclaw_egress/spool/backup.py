"""Backups of a spool, and their restoration.

A backup is one SQLite file. It contains the spool as of one moment, without exchanges in progress, and the table
``backup_files`` with files of the state directory. Without ``keys`` this is only the public signing key; with ``keys``
also the private signing key and, if it is in the state directory, the CA. The key ``backup`` in the table ``meta``
marks the file as a backup.

A restored spool is a new instance. The previous instance may have written more lines after the backup, and the restored
spool uses the same sequence numbers for its own new lines. Therefore the restored spool gets a new instance ID, and it
continues the chain with a line that records the restoration; see `restorations`. That line also contains the number of
the newest line of the replaced spool, so that an audit can name the lines that the restoration lost.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import sqlite3
import stat
import sys
import time
import uuid
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from openclaw_egress import certificates
from openclaw_egress.recording import semconv
from openclaw_egress.recording.log_lines import AttributeValue
from openclaw_egress.recording.otlp import make_resource
from openclaw_egress.recording.records import EventRecord, lines_of
from openclaw_egress.settings import Settings
from openclaw_egress.signatures import KEY_FILE, PUBLIC_FILE, SigningError, read_public_key
from openclaw_egress.spool.ledger import Ledger
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.restorations import remember
from openclaw_egress.spool.rows import LOCAL, PENDING
from openclaw_egress.spool.schema import SpoolError, connect, connect_read_only, spool_errors, who_may
from openclaw_egress.spool.storage import Storage, lock_exclusively

BACKUP = "backup"
"""Key in the table ``meta`` of a backup. Its value is the time at which the backup was made."""
_UNFINISHED = ".unfinished"
_MAGIC = b"SQLite format 3\0"
_NO_BACKUP = "the file is not a backup; use a file that `egress backup` wrote"
_SIDE_FILES = ("-wal", "-shm", "-journal", ".lock")
_MODES = {KEY_FILE: 0o400, PUBLIC_FILE: 0o444, f"ca/{certificates.ROOT_CERT_FILE}": 0o644}
"""File modes of the restored files; files that are not listed get 0600."""
_KEYS = (
    KEY_FILE,
    f"ca/{certificates.ISSUING_FILE}",
    f"ca/{certificates.ROOT_CERT_FILE}",
    f"root/{certificates.ROOT_KEY_FILE}",
)


@dataclass(frozen=True, slots=True)
class Made:
    """Description of a backup: the newest line, the instance, and the names of the contained files."""

    seq: int
    digest: str
    instance_id: str
    open_exchanges: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restoration: the backup, the new instance, the written files, and the path of the replaced spool.

    ``lost_lines`` is the number of lines of the replaced spool that are not in the backup; None if that spool could
    not be read.
    """

    backup: Made
    instance_id: str
    files: tuple[str, ...]
    aside: Path | None
    lost_lines: int | None


# ── backup ───────────────────────────────────────────────────────────────────────────────────────────────────────


def back_up(settings: Settings, target: Path, *, keys: bool) -> Made:
    """Write a consistent copy of the spool to a new file. The proxy may be writing at the same time.

    Raises:
        SpoolError: the spool or a key cannot be read, or the file exists or cannot be written.
    """
    if str(target) == "-":  # `egress restore` reads "-" as standard input, so a user may try it here.
        raise SpoolError("-: a backup cannot be written to standard output: use a new file")
    if target.is_dir():  # This includes an empty name: Path("") is the working directory.
        raise SpoolError(f"{target} is a directory: use a new file")
    if os.path.lexists(target):
        raise SpoolError(f"{target} exists already: use another file name")
    with SpoolReader(settings.spool_path):  # Raise an error with a remedy if the file is not a spool.
        pass
    files = dict(_files_of(settings, keys=keys))
    with _unfinished(target) as (copy, descriptor):
        with contextlib.closing(connect_read_only(settings.spool_path)) as spool, spool_errors(target):
            # SQLite refuses VACUUM INTO with query_only. The spool itself is still open read-only (mode=ro).
            spool.execute("PRAGMA query_only = OFF")
            spool.execute("VACUUM INTO ?", (str(copy),))
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db, spool_errors(target):
            made = _complete(db, files)
        os.fsync(descriptor)
        try:
            os.link(copy, target, follow_symlinks=False)  # Unlike a rename, a link never replaces a file.
            _sync_directory(target.parent)
        except OSError as error:
            raise SpoolError(f"{target}: {error.strerror}; use a file in a local file system") from None
    return made


def _files_of(settings: Settings, *, keys: bool) -> Iterator[tuple[str, bytes]]:
    for name in (PUBLIC_FILE, *(_KEYS if keys else ())):
        if name.startswith(("ca/", "root/")) and settings.ca_dir is not None:
            continue  # Do not include a CA that is in the operator's own directory (EGRESS_CA_DIR).
        file = settings.state_dir / name
        try:
            yield name, file.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SpoolError(f"{file}: {error.strerror}; {who_may(file)}") from None


def _complete(db: sqlite3.Connection, files: dict[str, bytes]) -> Made:
    """Turn a copy of the spool into a backup: delete exchanges in progress and add the files. Return a description."""
    db.execute("PRAGMA journal_mode = MEMORY")
    db.execute("PRAGMA secure_delete = ON")
    db.execute("BEGIN")
    open_exchanges = db.execute("SELECT count(*) FROM exchanges").fetchone()[0]
    # The running proxy records these exchanges itself. A restored journal would record them again, as interrupted.
    db.execute("DELETE FROM chunks")
    db.execute("DELETE FROM exchanges")
    db.execute("DROP TABLE IF EXISTS backup_files")
    db.execute("CREATE TABLE backup_files (name TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID")
    db.executemany("INSERT INTO backup_files VALUES (?, ?)", files.items())
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (BACKUP, time.time_ns()))
    db.execute("COMMIT")
    return _describe(db, open_exchanges)


def _describe(db: sqlite3.Connection, open_exchanges: int = 0) -> Made:
    last = db.execute("SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
    instance = db.execute("SELECT value FROM meta WHERE key = 'instance_id'").fetchone()[0]
    names = tuple(name for (name,) in db.execute("SELECT name FROM backup_files ORDER BY name"))
    return Made(last[0] if last else 0, bytes(last[1]).hex() if last else "", str(instance), open_exchanges, names)


@contextmanager
def _unfinished(target: Path) -> Iterator[tuple[Path, int]]:
    """Yield an empty file (0600) next to the target and its descriptor, then delete the file.

    First delete the files that killed commands left. A file that a running command uses is locked.
    """
    prefix = f".{target.name}."
    try:
        for entry in os.scandir(target.parent):
            if entry.name.startswith(prefix) and entry.name.endswith(_UNFINISHED):
                _delete_left(Path(entry.path))
        copy = target.with_name(f"{prefix}{secrets.token_hex(4)}{_UNFINISHED}")
        descriptor = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        is_absent = error.errno in (errno.ENOENT, errno.ENOTDIR)
        remedy = f"create the directory {target.parent}" if is_absent else who_may(target.parent)
        raise SpoolError(f"{target}: {error.strerror}; {remedy}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield copy, descriptor
    finally:
        copy.unlink(missing_ok=True)
        os.close(descriptor)


def _delete_left(file: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
        finally:
            os.close(descriptor)


# ── restore ──────────────────────────────────────────────────────────────────────────────────────────────────────


def restore(settings: Settings, file: Path, why: str, *, replace: bool) -> Restored:
    """Replace the spool of the state directory with a backup after all checks. Keep the previous spool in another file.

    If the process is killed at any moment, either the previous spool or the restored one is in place.

    Raises:
        SpoolError: a proxy uses the state directory, the spool has records and ``replace`` is not set, a key differs,
            or the backup is damaged, of a newer version or not a backup. Nothing was changed.
    """
    path = settings.spool_path
    lock = lock_exclusively(path)
    try:
        previous = _previous(path, replace=replace)
        copy = path.with_name(f"{path.name}.restoring")
        try:
            _copy(file, copy)
            _check(file, copy)
            replaced = _replaced(path, copy) if previous else _NOT_REPLACED
            made, new_id, files = _as_new_instance(settings, copy, why, replaced)
            written = _write_files(settings.state_dir, files)
            aside = _put_aside(path) if previous else None
            _own(copy, path.parent)
            copy.rename(path)
            for side in _SIDE_FILES[:2]:  # A reader of the previous spool may have recreated its WAL and SHM files.
                Path(f"{path}{side}").unlink(missing_ok=True)
            _sync_directory(path.parent)
        except OSError as error:
            raise SpoolError(f"{error.filename or path}: {error.strerror}; {_remedy(error, path)}") from None
        finally:
            _delete(copy)
    finally:
        os.close(lock)
    return Restored(made, new_id, written, aside, replaced.lost_lines)


def _remedy(error: OSError, path: Path) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"the disk is full: free space under {path.parent}" if full else who_may(path.parent)


def _previous(path: Path, *, replace: bool) -> bool:
    """Return whether the state directory has a spool.

    Raises:
        SpoolError: an operator command is queued for this spool, or it has records and ``replace`` is False.
    """
    if not os.path.lexists(path):
        return False
    if not stat.S_ISREG(path.lstat().st_mode):
        raise SpoolError(f"spool {path} is not a file; check EGRESS_STATE_DIR")
    if waiting := [entry for entry in path.parent.iterdir() if entry.name.startswith(f"{path.name}.command.")]:
        raise SpoolError(
            f"{waiting[0]}: a command for the existing spool has not run yet; start the proxy so that it runs, or "
            "delete the file"
        )
    if not replace and _has_lines(path):
        raise SpoolError(
            f"spool {path}: it has records; add --replace to move it aside as {path.name}.replaced-TIME, or "
            "set another "
            "EGRESS_STATE_DIR"
        )
    return True


def _has_lines(path: Path) -> bool:
    """Return whether a spool has lines. Assume that it has lines if the file cannot be read and is not empty."""
    try:
        with SpoolReader(path) as reader:
            return reader.head()[0] > 0
    except SpoolError:
        return path.stat().st_size > 0


@dataclass(frozen=True, slots=True)
class _Replaced:
    """The replaced spool: the number of its lines that are not in the backup, its newest line, and its instance."""

    lost_lines: int | None
    seq: int = 0
    digest: str = ""
    instance_id: str = ""

    def attributes(self) -> dict[str, AttributeValue]:
        """Return attributes that describe the replaced spool, for the record of the restoration."""
        known = {} if self.lost_lines is None else {semconv.SPOOL_LINES: self.lost_lines}
        return {
            **known,
            semconv.SPOOL_REPLACED_SEQ: self.seq,
            semconv.SPOOL_REPLACED_HASH: self.digest,
            semconv.SPOOL_REPLACED_INSTANCE: self.instance_id,
        }


_NOT_REPLACED, _NOT_READABLE = _Replaced(0), _Replaced(None)


def _replaced(path: Path, copy: Path) -> _Replaced:
    """Return a description of the replaced spool. Compare the spool with the backup to find the lost lines."""
    try:
        with SpoolReader(path) as old, SpoolReader(copy) as new:
            seq, digest = old.head()
            # If two chains have a line in common, they also have all lines before it in common. So a binary search
            # finds the last common line.
            common = bisect_left(
                range(1, min(seq, new.head()[0]) + 1), True, key=lambda line: old.digest(line) != new.digest(line)
            )
            return _Replaced(seq - common, seq, digest, str(old.instance_id))
    except (SpoolError, ValueError, TypeError):  # Do not fail: a damaged spool can be the reason to restore a backup.
        return _NOT_READABLE if path.stat().st_size else _NOT_REPLACED


def _copy(file: Path, copy: Path) -> None:
    """Copy the backup next to the spool, so that exactly the checked bytes are restored."""
    with _opened(file) as reading:
        _delete(copy)
        descriptor = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w+b") as writing:
            shutil.copyfileobj(reading, writing, 1024 * 1024)
            writing.seek(0)
            if writing.read(len(_MAGIC)) != _MAGIC:
                raise SpoolError(f"{file}: {_NO_BACKUP}")


def _opened(file: Path) -> BinaryIO:
    """Open the backup; ``-`` means standard input. Never follow a symbolic link, and never wait for a pipe."""
    if str(file) == "-":
        return sys.stdin.buffer
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SpoolError(f"{file}: {error.strerror}; name the file itself, and {who_may(file)}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SpoolError(f"{file}: not a file; use a file that `egress backup` wrote")
    return os.fdopen(descriptor, "rb")


def _check(file: Path, copy: Path) -> None:
    """Check the version, the pages and the hash chain of a backup.

    Raises:
        SpoolError: the file is not a backup that this version can restore.
    """
    try:
        with SpoolReader(copy) as reader, spool_errors(copy):
            read = reader.connections.get()
            # Refuse triggers and views: `egress backup` writes none, and their SQL would run inside this process.
            foreign = read.execute("SELECT 1 FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchone()
            tables = read.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('meta', 'backup_files')")
            is_backup = tables.fetchone()[0] == 2 and not foreign
            if not is_backup or read.execute("SELECT 1 FROM meta WHERE key = ?", (BACKUP,)).fetchone() is None:
                raise SpoolError(_NO_BACKUP)
            pages = [str(row[0]) for row in read.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
            problems = pages or reader.audit().problems
    except SpoolError as error:
        # The error message contains the path of the copy, which is deleted later. Replace it with the backup's path.
        raise SpoolError(f"{file}: {str(error).removeprefix(f'spool {copy}: ')}") from None
    if problems:
        raise SpoolError(f"{file}: the backup is damaged: {'; '.join(problems[:3])}; use another backup")


def _as_new_instance(
    settings: Settings, copy: Path, why: str, replaced: _Replaced
) -> tuple[Made, str, dict[str, bytes]]:
    """Migrate the copy, give it a new instance ID, and record the restoration in the chain.

    Return the description of the backup, the new ID, and the contents of the files in the backup.
    """
    storage = Storage(copy)
    try:
        with storage.transaction() as (db, _):
            made = _describe(db)
            files = {name: bytes(content) for name, content in db.execute("SELECT name, content FROM backup_files")}
            new_id = str(uuid.uuid4())
            db.execute("UPDATE meta SET value = ? WHERE key = 'instance_id'", (new_id,))
            db.execute("DELETE FROM meta WHERE key = ?", (BACKUP,))
            db.execute("DROP TABLE backup_files")
            resource = make_resource(new_id, settings.service_name, settings.host_name)
            state = PENDING if settings.logs_endpoint else LOCAL
            ledger = Ledger(storage, resource, state, time.time_ns)
            key = _public_key(files.get(PUBLIC_FILE, b""))
            seq = ledger.append(lines_of(_record_of(made, key, why, replaced)))[0]
            remember(db, made.seq, seq)
    finally:
        storage.close()
    return made, new_id, files


def _public_key(content: bytes) -> str:
    """Return the public key of a backup; empty if it has none or a damaged one."""
    text = content.decode("ascii", "replace").strip()
    try:
        read_public_key(text)
    except SigningError:
        return ""
    return text


def _record_of(made: Made, key: str, why: str, replaced: _Replaced) -> EventRecord:
    lost = replaced.lost_lines
    note = "the replaced spool could not be read" if lost is None else f"lines that only the replaced spool has: {lost}"
    return EventRecord(
        event_name=semconv.EVENT_SPOOL,
        severity="WARN",
        attributes={
            semconv.OUTCOME: "restored",
            semconv.REASON: why,
            semconv.SPOOL_REASON: why,
            semconv.SPOOL_LAST_SEQ: made.seq,
            semconv.SPOOL_LAST_HASH: made.digest,
            semconv.SPOOL_INSTANCE: made.instance_id,
            semconv.SPOOL_KEY: key,
            **replaced.attributes(),
        },
        message=f"restored from a backup of instance {made.instance_id}, whose newest line is {made.seq} ({why}); "
        f"{note}",
    )


def _write_files(directory: Path, files: dict[str, bytes]) -> tuple[str, ...]:
    """Write the backup's keys that ``directory`` lacks. Return their names. Refuse to replace a different key."""
    if KEY_FILE not in files:
        return ()
    files = {name: content for name, content in files.items() if name in (*_KEYS, PUBLIC_FILE)}
    present = {name for name in files if os.path.lexists(directory / name)}
    for name in sorted(present):
        if (directory / name).is_symlink() or (directory / name).read_bytes() != files[name]:
            raise SpoolError(
                f"{directory / name} differs from the file in the backup; move it aside, or keep it and restore "
                "a backup without keys"
            )
    absent = tuple(sorted(files.keys() - present))
    for name in absent:
        target = directory / name
        if not target.parent.exists():
            target.parent.mkdir(mode=0o700)
            _own(target.parent, directory)
        unfinished = target.with_name(f".{target.name}{_UNFINISHED}")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as writing:
            writing.write(files[name])
            writing.flush()
            os.fchmod(writing.fileno(), _MODES.get(name, 0o600))
            os.fsync(writing.fileno())
        _own(unfinished, directory)
        unfinished.rename(target)
    return absent


def _put_aside(path: Path) -> Path:
    """Create a second hard link to the spool's file, and return its path. Delete the WAL.

    The first link stays until the restored spool replaces it. No WAL must remain next to the restored file, because
    SQLite would write the WAL's pages into that file.
    """
    aside = path.with_name(f"{path.name}.replaced-{datetime.now():%Y%m%dT%H%M%S.%f}")
    log, log_aside = Path(f"{path}-wal"), Path(f"{aside}-wal")
    if log.exists():
        # Create a hard link to the WAL before SQLite opens the file, because SQLite deletes the WAL of a damaged file.
        os.link(log, log_aside, follow_symlinks=False)
    try:
        with contextlib.closing(connect(path)) as db:
            in_use = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        log_aside.unlink(missing_ok=True)
    except sqlite3.OperationalError as error:
        log_aside.unlink(missing_ok=True)
        raise SpoolError(f"spool {path}: {error}; stop each program that uses it, and free space if needed") from None
    except sqlite3.DatabaseError:
        in_use = 0  # Continue: a damaged file may be the reason to restore. `aside` also keeps its WAL.
    if in_use:
        raise SpoolError(f"spool {path}: another program reads it; stop it (`egress ui`, `egress tail`) and try again")
    for side in _SIDE_FILES[:2]:
        Path(f"{path}{side}").unlink(missing_ok=True)
    os.link(path, aside, follow_symlinks=False)
    return aside


def _own(file: Path, model: Path) -> None:
    """If root runs the command, give the file the owner of ``model``, so that the proxy's user can use the file."""
    if os.geteuid() == 0:
        owner = model.stat()
        os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _delete(copy: Path) -> None:
    for side in ("", *_SIDE_FILES):
        Path(f"{copy}{side}").unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
