"""Result of the last `egress audit`, stored in a file next to the spool for `/metrics` and `egress ui`."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from openclaw_egress.errors import EgressError

FILE = "last-audit.json"
MAX_FAILURE = 1000
"""Maximum length of a failure's reason, in characters. Longer reasons are truncated and get an ellipsis."""


class LastAuditError(EgressError):
    """The stored result of the last audit cannot be read. The message contains the file and a remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastAudit:
    """The last completed audit and, if a later audit failed, that failure. Times are Unix seconds."""

    findings: int | None = None
    """Number of findings; None if no audit has been completed."""
    time: float | None = None
    first: int = 0
    """Sequence number of the first audited line; 0 if unknown or if no line was audited. ``last`` is the last one."""
    last: int = 0
    sources: Sequence[str] = ()
    """Names of the audited sources: the spool and, if it was audited, the destination."""
    codes: Mapping[str, int] = field(default_factory=dict)
    """Number of findings for each code."""
    failed_at: float | None = None
    """Time at which a later audit failed; None if none failed."""
    failure: str = ""


def read(directory: Path) -> LastAudit | None:
    """Return the result of the last audit; None if none is stored.

    Raises:
        LastAuditError: the file cannot be read, or was not written by `egress audit`.
    """
    path = directory / FILE
    try:
        return _of(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LastAuditError(f"{path}: {error.strerror}; run `egress audit` as the owner of the spool") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise LastAuditError(f"{path}: not the result of an audit; run `egress audit` to write it again") from None


def _of(found: Any) -> LastAudit:
    return LastAudit(
        findings=None if found.get("findings") is None else _count(found["findings"]),
        time=None if found.get("time") is None else _moment(found["time"]),
        first=_count(found.get("first", 0)),
        last=_count(found.get("last", 0)),
        sources=[_text(name) for name in found.get("sources", ())],
        codes={_text(code): _count(count) for code, count in found.get("codes", {}).items()},
        failed_at=None if found.get("failed_at") is None else _moment(found["failed_at"]),
        failure=_text(found.get("failure", "")),
    )


def _count(value: Any) -> int:
    # Refuse numbers that do not fit into SQLite's 64-bit integers, because the web page uses them in queries.
    if not 0 <= (count := int(value)) < 2**63:
        raise ValueError
    return count


def _moment(value: Any) -> float:
    if not math.isfinite(time := float(value)):
        raise ValueError
    return time


def _text(value: Any) -> str:
    """Return the value as displayable text. Escape the surrogates that represent non-UTF-8 bytes in a path."""
    return str(value).encode(errors="backslashreplace").decode()


def write_failure(directory: Path, failure: str, time: float) -> None:
    """Add the failure of a later audit to the stored result of the last completed audit.

    Raises:
        OSError: the directory cannot be written.
    """
    try:
        before = read(directory) or LastAudit()
    except LastAuditError:
        before = LastAudit()
    short = failure if len(failure) <= MAX_FAILURE else failure[:MAX_FAILURE] + " …"
    write(directory, replace(before, failed_at=time, failure=short))


def write(directory: Path, result: LastAudit) -> None:
    """Write the result of an audit to its file.

    Raises:
        OSError: the directory cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=directory, prefix=".last-audit-")
    try:
        with os.fdopen(handle, "w") as target:
            values = {one.name: getattr(result, one.name) for one in fields(result)}
            json.dump({name: value for name, value in values.items() if value is not None}, target)
        # Let every user read the file, because root may run the audit, and the proxy's user reads the result. The file
        # contains no records.
        Path(name).chmod(0o644)
        Path(name).replace(directory / FILE)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def gauges(directory: Path) -> dict[str, float]:
    """Return the gauges of the last audit, by name; empty if there is no readable result."""
    try:
        found = read(directory)
    except LastAuditError:
        return {}
    if found is None or found.findings is None or found.time is None:
        return {}
    return {"audit_findings": float(found.findings), "audit_timestamp_seconds": found.time}
