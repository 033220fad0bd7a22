"""The progress of an operator's command. The flush thread stores it in the table ``meta``, and the CLI reads it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

KEY = "command_"
"""Prefix of the keys in the table ``meta`` that store the progress of a command."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a command: the next line to check, the number of changed lines, and whether it is finished."""

    next_seq: int = 0
    changed: int = 0
    done: bool = False


def progress_of(db: sqlite3.Connection, command_id: str) -> Progress:
    """Return the stored progress of a command."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (KEY + command_id,)).fetchone()
    return Progress(**json.loads(row[0])) if row else Progress()
