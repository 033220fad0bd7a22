"""Deletion of records by an operator, and the tombstones that prove it.

Lines of exchanges, tunnels and denials can be deleted. The lines of the proxy's own events stay, because they prove the
chain. The ledger keeps the time and the hash of each deleted line. A tombstone is a line of event
``openclaw.egress.spool`` with the outcome ``deleted``. It contains the numbers of the lines, the operator and the
reason, and is signed like a checkpoint. The table ``meta`` keeps a copy (key ``deleted_SEQ``), so that retention cannot
delete the proof.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from openclaw_egress.recording import semconv
from openclaw_egress.signatures import Signer, deletion_text
from openclaw_egress.spool.ledger import Ledger
from openclaw_egress.spool.retention import Retention
from openclaw_egress.spool.rows import compact, ranges
from openclaw_egress.spool.schema import SpoolError
from openclaw_egress.spool.storage import Storage

DELETED = "deleted_"
"""Prefix of the keys in the table ``meta`` that store tombstones. A key ends with the tombstone's sequence number."""
DELETABLE = (semconv.EVENT_EXCHANGE, semconv.EVENT_TUNNEL, semconv.EVENT_DENIED)
MAX_RUNS = 300
"""Maximum number of line ranges in one tombstone, because the text of the ranges must fit into one field (8 KB)."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The tombstone of the lines that one transaction deleted."""

    seq: int
    """Sequence number of the line that records the deletion."""
    time_ns: int
    lines: str
    """Sequence numbers of the deleted lines, such as ``12-40,50``."""
    count: int
    digest: str
    """SHA-256 of the last deleted line."""
    why: str
    """The operator who deleted the lines, and the reason."""
    signature: str | None


def delete_records(
    storage: Storage, ledger: Ledger, retention: Retention, signer: Signer | None, seqs: Sequence[int], why: str
) -> list[int]:
    """Delete log lines and write the tombstone. Return the sequence numbers of the deleted lines.

    Call this inside a transaction of the storage.
    """
    deleted = retention.delete_by_operator(seqs)
    if not deleted:
        return []
    lines = compact(ranges(deleted))
    digest = bytes(storage.db.execute("SELECT hash FROM ledger WHERE seq = ?", (deleted[-1],)).fetchone()[0]).hex()
    signature = None if signer is None else signer.sign(deletion_text(lines, digest))
    more = {semconv.SPOOL_DELETED: lines} | ({} if signature is None else {semconv.SPOOL_SIGNATURE: signature})
    seq = ledger.note("deleted", why, deleted, "", more)
    stone = Tombstone(seq, storage.totals.time_ns, lines, len(deleted), digest, why, signature)
    storage.db.execute("INSERT INTO meta VALUES (?, ?)", (f"{DELETED}{seq}", json.dumps(asdict(stone))))
    return deleted


def tombstones(db: sqlite3.Connection) -> Iterator[Tombstone]:
    """Yield the tombstones of a spool, in order.

    Raises:
        SpoolError: a tombstone is damaged.
    """
    rows = db.execute("SELECT key, value FROM meta WHERE key GLOB ?", (DELETED + "*",)).fetchall()
    yield from sorted((_parsed(key, value) for key, value in rows), key=lambda stone: stone.seq)


def _parsed(key: str, value: str) -> Tombstone:
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        stone = Tombstone(**json.loads(value))
        texts = (stone.lines, stone.digest, stone.why)
        if isinstance(stone.seq, int) and isinstance(stone.time_ns, int) and all(isinstance(one, str) for one in texts):
            return stone
    raise SpoolError(f"the tombstone {key} in the table meta is damaged; restore a backup (`egress restore`)")
