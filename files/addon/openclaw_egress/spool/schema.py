"""The spool's file: tables, opening, and error messages.

The file is an SQLite database in WAL mode. Other tools may read it while the proxy writes it
(``sqlite3 'file:spool.db?mode=ro'``).

===============  =====================================================================================================
``meta``         ``schema_version`` (always 1: versions before ``user_version`` check it), ``instance_id`` (a UUID that
                 changes only when a backup is restored), ``restored_SEQ`` (the text of the line that records
                 a restoration, see `restorations`), ``deleted_SEQ`` (a deletion of records, see `tombstones`),
                 ``created_ns``, ``command_ID`` (the progress of an operator's command)
``ledger``       one row per line of the chain: ``seq`` (from 1, without gaps), ``hash`` (SHA-256 of the line, 32
                 bytes), ``time_ns`` (increases, except at lines that ``meta`` names as ``clock_set_back_SEQ``). Rows
                 are never deleted
``records``      stored lines: the columns that `egress records` shows, and ``otlp``, the encoded log record with the
                 line as its body. ``state``: 0 pending, 1 acknowledged, 2 dead letter (``why``), 3 local (no
                 destination configured). ``size``: bytes that count against the limit
``resources``    encoded OTLP resources, which the records refer to
``exchanges``    the journal: exchanges in progress; ``head`` is redacted JSON of the known fields
``chunks``       the journal: decoded bytes of the bodies of these exchanges, in order
``usage_hours``  hourly totals of the exchanges; see `usage_totals`
===============  =====================================================================================================

``PRAGMA user_version`` is the version of the schema. `migrations` converts an older file to `USER_VERSION`. A newer
file is refused.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openclaw_egress.errors import EgressError
from openclaw_egress.spool import rows, usage_totals

SCHEMA_VERSION = 1
USER_VERSION = 3
CLOCK_SET_BACK = "clock_set_back_"
"""Prefix of the keys in the table ``meta`` that name lines before which the clock was set back."""
RESTORED = "restored_"
"""Prefix of the keys in the table ``meta`` for restorations. A key ends with the number of the backup's newest line."""
PRUNED_SEQ = "pruned_seq"
"""Key in the table ``meta`` for the sequence number of the newest acknowledged or local line that the spool deleted."""
KEPT = "INDEXED BY records_kept"
"""Index for acknowledged and local lines in the order of ``seq``. Without it, SQLite sorts lines and their bodies."""
ROW_BYTES = 512
"""Approximate size of a row without ``otlp``, in bytes: columns and indexes."""

RESERVE_BYTES = 16 * 1024 * 1024
"""Size of the reserve file; at most a quarter of the free space. Deleting it frees space to clean up a full disk."""

PAGE_BYTES = 4096
"""SQLite's page size."""
MAX_PAGES = 0xFFFFFFFE
"""SQLite's own limit for the number of pages in a file."""
WAL_SAFETY_PAGES = 16_384  # 64 MB. If the flush thread does not checkpoint the WAL, a commit does so at this size.
BUSY_MS = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, time_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS resources (id INTEGER PRIMARY KEY, otlp BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS records (
    {columns},
    size INTEGER NOT NULL, resource INTEGER NOT NULL REFERENCES resources(id), otlp BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS records_by_exchange ON records(exchange_id) WHERE exchange_id <> '';
CREATE INDEX IF NOT EXISTS records_by_state ON records(state, class, seq, size);
CREATE INDEX IF NOT EXISTS records_pending ON records(seq) WHERE state = 0;
CREATE INDEX IF NOT EXISTS records_pending_by_time ON records(time_ns) WHERE state = 0;
CREATE INDEX IF NOT EXISTS records_kept ON records(seq) WHERE state IN (1, 3);
CREATE TABLE IF NOT EXISTS exchanges (
    id TEXT PRIMARY KEY, class TEXT NOT NULL, begin_ns INTEGER NOT NULL, head TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL, direction TEXT NOT NULL, time_ns INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS chunks_by_exchange ON chunks(id);
""".format(columns=", ".join(f"{column.name} {column.sql}" for column in rows.COLUMNS.values()))
_SCHEMA += usage_totals.SCHEMA


class SpoolError(EgressError):
    """An operation on the spool failed. The text states the reason and a remedy."""


@contextmanager
def spool_errors(path: Path) -> Iterator[None]:
    """Convert any SQLite error to a `SpoolError` with a remedy."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or type(error).__name__
        raise SpoolError(f"spool {path}: {error} ({name}); {_remedy(name, path)}") from error


def _remedy(name: str, path: Path) -> str:
    if name.startswith("SQLITE_FULL"):
        return f"the disk is full: free space under {path.parent} or lower EGRESS_SPOOL_MAX_BYTES"
    if name.startswith("SQLITE_IOERR") and name != "SQLITE_IOERR_NOMEM":
        return f"the disk has read or write errors: check the free space under {path.parent} and the system log"
    if name.startswith("SQLITE_READONLY"):
        return f"make {path.parent} writable for the proxy's user (uid {os.getuid()})"
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return f"check that {path} is a file, and {who_may(path)}"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return "the file is damaged: move it aside (it can still be read with `sqlite3 … .recover`) and start again"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another program has locked it: close every other program that writes it"
    return "check the disk and the system log"


def who_may(path: Path) -> str:
    """Return a hint that names the user with access: the owner of ``path`` or of its nearest readable parent."""
    for place in (path, *path.parents):
        try:
            owner = place.stat().st_uid
        except OSError:
            continue
        if owner != os.geteuid():
            return f"run the command as the owner of {place} (uid {owner}; this is uid {os.geteuid()})"
        break
    return f"uid {os.geteuid()} needs permission for {path}: check the owner and mode of it and of its directories"


def create_file(path: Path) -> None:
    """Create the directory (0700) and the file (0600) if they are absent. Only the proxy's user may read the bodies.

    Raises:
        SpoolError: they cannot be created or written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # If the file exists, do not open it: closing a descriptor of an open database would release SQLite's locks.
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise SpoolError(
            f"spool {path}: {error.strerror}; the proxy's user (uid {os.getuid()}) needs write permission "
            f"for {path.parent}: set its owner, or EGRESS_STATE_DIR"
        ) from error


def make_reserve(path: Path) -> int:
    """Create or enlarge the reserve file, as far as the disk has space. Return its size in bytes."""
    reserve = Path(f"{path}.reserve")
    with contextlib.suppress(OSError):
        disk = os.statvfs(path.parent)
        size = min(RESERVE_BYTES, disk.f_bavail * disk.f_frsize // 4)
        if reserve.exists() and size < 2 * reserve.stat().st_size:
            return reserve.stat().st_size
        descriptor = os.open(reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, max(1, size))
        except OSError:
            reserve.unlink()
        finally:
            os.close(descriptor)
        return reserve.stat().st_size
    return 0


def release_reserve(path: Path) -> bool:
    """Delete the reserve file to free its space. Return whether it existed."""
    try:
        Path(f"{path}.reserve").unlink()
    except OSError:
        return False
    return True


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection for writing, with explicit transactions. Only one thread may use it at a time."""
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # With NORMAL, a commit survives a crash of the process, but only flushed commits survive a power failure.
        connection.execute("PRAGMA synchronous = NORMAL")
        # Bodies are confidential, so overwrite deleted data and write no temporary files.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_SAFETY_PAGES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Return a connection for reading, for another thread or process."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _parsed_schema() -> dict[str, list[str]]:
    """Return the columns of each table in `_SCHEMA`, as SQLite parses them."""
    with contextlib.closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(_SCHEMA)
        return {table: columns_of(empty, table) for table in _tables(empty)}


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [name for (name,) in rows]


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the names of a table's columns; empty if the table is absent."""
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


COLUMNS = _parsed_schema()


def create(connection: sqlite3.Connection) -> None:
    """Create absent tables and indexes, inside the caller's transaction."""
    for statement in filter(str.strip, _SCHEMA.split(";")):
        connection.execute(statement)


def identify(connection: sqlite3.Connection) -> str:
    """Return the instance's ID. Create one if the file is new."""
    for key, value in (
        ("schema_version", SCHEMA_VERSION),
        ("instance_id", str(uuid.uuid4())),
        ("created_ns", time.time_ns()),
    ):
        connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
    return str(connection.execute("SELECT value FROM meta WHERE key = 'instance_id'").fetchone()[0])


def user_version(connection: sqlite3.Connection) -> int:
    """Return the version of the file's schema; 0 for files from before schema versions existed."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_schema(connection: sqlite3.Connection, path: Path, *, complete: bool = False) -> None:
    """Refuse a file of a newer schema version, a file that is not a spool, and a file that lacks a column.

    Args:
        connection: a connection to the file.
        path: the file, for the message.
        complete: whether an absent table is an error. If not, the caller must create absent tables.

    Raises:
        SpoolError: the file cannot be used; the message states the reason and a remedy.
    """
    tables = _tables(connection)
    if "meta" not in tables:
        if tables:
            raise SpoolError(f"spool {path}: the database is not a spool; check EGRESS_STATE_DIR")
        return
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if row and not str(row[0]).isdecimal():
        raise SpoolError(f"spool {path}: the file is damaged: schema version {str(row[0])[:20]!r}; move it aside")
    version = user_version(connection)
    for number, known in ((int(row[0]) if row else 0, SCHEMA_VERSION), (version, USER_VERSION)):
        if number > known:
            raise SpoolError(
                f"spool {path}: its schema is version {number}, this program supports up to {known}; "
                "run the version that wrote it, or a newer one"
            )
    optional = rows.absent_until(version)
    for table, columns in COLUMNS.items():
        if table not in tables:
            if complete and not (table == "usage_hours" and version < 2):
                raise SpoolError(f"spool {path}: the file is damaged: table {table} is missing; move it aside")
            continue
        present = columns_of(connection, table)
        missing = [name for name in columns if name not in present and not (table == "records" and name in optional)]
        if missing:
            raise SpoolError(
                f"spool {path}: the file is damaged: table {table} lacks the column {', '.join(missing)}; "
                "move it aside (it can still be read with `sqlite3`) and start again"
            )
