"""Numbered migrations of the spool, and the reader of records that older versions wrote.

Files with ``user_version`` 0 have no columns for a denial's code, address and flags. This module reads these values
from the JSON lines, and from the fixed sentences of those versions. No other module parses sentences.
"""

from __future__ import annotations

import ipaddress
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from openclaw_egress.policy.codes import ANY, Code
from openclaw_egress.recording.otlp import decode_text
from openclaw_egress.recording.semconv import EVENT_DENIED
from openclaw_egress.spool import usage_totals
from openclaw_egress.spool.rows import absent_until
from openclaw_egress.spool.schema import USER_VERSION, check_schema, columns_of, create, user_version

_COUNTED = re.compile(r"(?:(.*): )?[0-9]+ more like this within a minute", re.DOTALL)
_OLD_SENTENCES: tuple[tuple[str, re.Pattern[str], Code], ...] = (
    ("syntax", re.compile(r"after CONNECT came bytes that are not TLS"), Code.NOT_TLS),
    ("address-guard", re.compile(r".* is this machine's own address"), Code.OWN_ADDRESS),
    ("address-guard", re.compile(r".* has an exception for plain HTTP requests alone: .*"), Code.EXCEPTION_NOT_MET),
    ("address-guard", re.compile(r".* is an address of this proxy's host"), Code.HOST_ADDRESS),
    ("address-guard", re.compile(r".* is .*"), Code.ADDRESS_GUARDED),
    ("unknown-class", re.compile(r"there is no class .*"), Code.UNKNOWN_CLASS),
    ("dns", re.compile(r".*"), Code.NAME_NOT_RESOLVED),
    ("recording", re.compile(r"WebSockets .*"), Code.WEBSOCKET_NOT_RECORDED),
    ("response-syntax", re.compile(r".*"), Code.MALFORMED_RESPONSE),
    ("memory-budget", re.compile(r".*"), Code.MEMORY_LIMIT),
    ("neighbours", re.compile(r".*"), Code.UNKNOWN_NEIGHBOUR),
    ("default", re.compile(r".* is an address literal, and no rule of .*"), Code.LITERAL_WITHOUT_RULE),
    ("default", re.compile(r".* may not reach .* so; .*"), Code.RULE_NOT_MET),
    ("default", re.compile(r"no rule lets .*"), Code.NO_RULE),
    (ANY, re.compile(r".*"), Code.VARIOUS),
)


BATCH = 1000
"""Number of rows to process at a time, because all denials of a spool may not fit into the container's memory."""


class Denied(NamedTuple):
    """Columns of a denial that older versions of the proxy did not write."""

    client: str | None
    code: str | None
    address: str | None
    enforced: bool
    summary: bool

    @property
    def outcome(self) -> str:
        """Return the value of the column ``outcome``."""
        return "denied" if self.enforced else "reported"


def read_old_denial(rule: str, reason: str, encoded: bytes) -> Denied:
    """Derive the columns that an older version did not write from the record's rule, reason and log line.

    If a line cannot be parsed, treat its denial as enforced; `SpoolReader.audit` reports the line. Accept values of any
    type, because one damaged row must not stop the proxy.
    """
    line = _parsed(encoded)
    rule, reason = (value if isinstance(value, str) else "" for value in (rule, reason))
    counted = _COUNTED.fullmatch(reason)
    sentence = (counted[1] or "") if counted else reason
    # A summary without a reason contains only a count, so its code is unknown.
    code = None
    if sentence or not counted or rule == ANY:
        code = next((code for of, text, code in _OLD_SENTENCES if of == rule and text.fullmatch(sentence)), None)
    address = _first_address(sentence) if rule == "address-guard" else None
    client = line.get("client")
    return Denied(str(client) if client else None, code, address, line.get("enforced") is not False, bool(counted))


def _first_address(text: str) -> str | None:
    for word in text.split():
        try:
            return str(ipaddress.ip_address(word.rstrip(",")))
        except ValueError:
            continue
    return None


def _parsed(encoded: bytes) -> dict[str, Any]:
    try:
        found = json.loads(decode_text(encoded))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables of a new file, or migrate an older file to `USER_VERSION`, inside the caller's transaction.

    Raises:
        SpoolError: the file is of a newer version, damaged, or not a spool.
    """
    check_schema(connection, path)
    if columns_of(connection, "records"):
        for number in range(user_version(connection), USER_VERSION):
            _MIGRATIONS[number](connection)
    create(connection)
    if user_version(connection) != USER_VERSION:  # Write only if the file must change, because the disk may be full.
        connection.execute(f"PRAGMA user_version = {USER_VERSION}")


def _add_columns(connection: sqlite3.Connection, version: int) -> None:
    """Add the columns of `records` that may be missing in files of this version."""
    present = columns_of(connection, "records")
    for name, kind in absent_until(version).items():
        if name not in present:
            connection.execute(f"ALTER TABLE records ADD COLUMN {name} {kind}")


def _add_codes(connection: sqlite3.Connection) -> None:
    """Migrate from version 0 to 1: add the columns for denials, and fill them from the recorded lines."""
    _add_columns(connection, 0)
    last = -1
    while rows := connection.execute(
        "SELECT seq, rule, reason, otlp FROM records "
        "WHERE event_name = ? AND part = 0 AND enforced IS NULL AND seq > ? ORDER BY seq LIMIT ?",
        (EVENT_DENIED, last, BATCH),
    ).fetchall():
        for seq, rule, reason, encoded in rows:
            old = read_old_denial(rule or "", reason or "", encoded)
            connection.execute(
                "UPDATE records SET client = coalesce(client, ?), code = ?, address = ?, enforced = ?, summary = ?, "
                "outcome = ? WHERE seq = ?",
                (*old, old.outcome, seq),
            )
        last = rows[-1][0]


def _add_usage(connection: sqlite3.Connection) -> None:
    """Migrate from version 1 to 2: add the columns for key and cost, and the totals of the stored exchanges.

    The cost of exchanges that an older version recorded stays unknown.
    """
    _add_columns(connection, 1)
    create(connection)
    usage_totals.rebuild(connection)


def _add_instance(connection: sqlite3.Connection) -> None:
    """Migrate from version 2 to 3: add the column for the gateway instance, which older records do not name."""
    _add_columns(connection, 2)


_MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_add_codes, _add_usage, _add_instance]
