"""The restorations of a spool from backups.

A restoration is a line of event ``openclaw.egress.spool`` with the outcome ``restored``. It contains the number of the
backup's newest line, the instance that wrote the lines up to that line, and the public key of that instance. The table
``meta`` also keeps the text of the line (key ``restored_SEQ``), because retention can delete the line. The line's hash
in the ledger proves that this text is unmodified.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from typing import Any, NamedTuple

from openclaw_egress.recording import semconv
from openclaw_egress.recording.otlp import decode_text
from openclaw_egress.spool.schema import RESTORED, SpoolError


class Restore(NamedTuple):
    """A restoration of this spool: the backup's newest line, and the instance that wrote the lines up to it."""

    seq: int
    instance_id: str
    key: str
    """Public signing key of the instance ``instance_id``; empty if the backup had none."""
    begin_ns: int
    """Time of the backup's newest line, or of the spool's creation if the backup has no lines, in Unix nanoseconds."""
    lost_lines: int | None
    """Number of lines of the replaced spool that are not in the backup; None if that spool could not be read."""
    replaced_seq: int
    """Sequence number of the newest line of the replaced spool; 0 if there was none."""
    replaced_hash: str
    replaced_instance: str
    is_proven: bool
    """Whether the chain contains the line that records the restoration."""


def remember(db: sqlite3.Connection, backup_seq: int, seq: int) -> None:
    """Store the text of line ``seq``, which records a restoration. ``backup_seq`` is the newest line of the backup."""
    encoded = db.execute("SELECT otlp FROM records WHERE seq = ?", (seq,)).fetchone()[0]
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{RESTORED}{backup_seq}", decode_text(encoded)))


def restorations(db: sqlite3.Connection) -> list[Restore]:
    """Return the restorations of a spool, the oldest first.

    Raises:
        SpoolError: a restoration is damaged.
    """
    rows = db.execute("SELECT key, value FROM meta WHERE key GLOB ?", (RESTORED + "*",)).fetchall()
    return sorted((_parsed(db, str(key), value) for key, value in rows), key=lambda restore: restore.seq)


def _parsed(db: sqlite3.Connection, key: str, text: object) -> Restore:
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        if isinstance(text, str) and (sealed := json.loads(text)).get(semconv.OUTCOME) == "restored":
            return _restore_of(db, int(key.removeprefix(RESTORED)), text, sealed)
    raise SpoolError(f"the restoration {key} in the table meta is damaged; restore a backup (`egress restore`)")


def _restore_of(db: sqlite3.Connection, seq: int, text: str, sealed: dict[str, Any]) -> Restore:
    own = int(sealed["seq"])
    recorded = db.execute("SELECT hash FROM ledger WHERE seq = ?", (own,)).fetchone()
    newest = db.execute("SELECT time_ns FROM ledger WHERE seq = ?", (seq,)).fetchone()
    created = db.execute("SELECT value FROM meta WHERE key = 'created_ns'").fetchone()
    lines = sealed.get(semconv.SPOOL_LINES)
    is_own = own > seq and sealed[semconv.SPOOL_LAST_SEQ] == seq
    return Restore(
        seq=seq,
        instance_id=str(sealed[semconv.SPOOL_INSTANCE]),
        key=str(sealed.get(semconv.SPOOL_KEY, "")),
        begin_ns=int((newest or created)[0]),
        lost_lines=None if lines is None else int(lines),
        replaced_seq=int(sealed.get(semconv.SPOOL_REPLACED_SEQ, 0)),
        replaced_hash=str(sealed.get(semconv.SPOOL_REPLACED_HASH, "")),
        replaced_instance=str(sealed.get(semconv.SPOOL_REPLACED_INSTANCE, "")),
        is_proven=is_own and recorded is not None and bytes(recorded[0]) == hashlib.sha256(text.encode()).digest(),
    )
