"""Result of the last `egress audit`, in a file beside the spool, so that `/metrics` can show it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

FILE = "last-audit.json"


def write(directory: Path, findings: int, time: float) -> None:
    """Write the number of findings and the time of an audit, in Unix seconds.

    Raises:
        OSError: the directory cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=directory, prefix=".last-audit-")
    try:
        with os.fdopen(handle, "w") as target:
            json.dump({"findings": findings, "time": time}, target)
        # Root may audit the spool, and the proxy's own user must read the result. It contains no content of records.
        Path(name).chmod(0o644)
        Path(name).replace(directory / FILE)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def gauges(directory: Path) -> dict[str, tuple[str, float]]:
    """Return the gauges of the last audit: name, help text and value; none if there is no readable result."""
    try:
        found = json.loads((directory / FILE).read_text())
        findings, time = float(found["findings"]), float(found["time"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {
        "audit_findings": ("Findings of the last `egress audit` of this spool.", findings),
        "audit_timestamp_seconds": ("When the last `egress audit` of this spool ended.", time),
    }
