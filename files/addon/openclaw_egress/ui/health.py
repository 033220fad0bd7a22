"""Health: the state of proxy, spool, export and certificates as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openclaw_egress.reports.status import Status
from openclaw_egress.reports.text import size


@dataclass(frozen=True, slots=True)
class HealthView:
    """Everything that the page of health shows."""

    running: bool
    problems: Sequence[str]
    warnings: Sequence[str]
    sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    """Title and facts of each part."""


def health_of(status: Status, checkpoint: str) -> HealthView:
    """Return the view of a state. ``checkpoint`` describes the newest checkpoint of the hash chain."""
    sections = [
        ("Spool", list(_spool(status))),
        ("Export", list(_export(status))),
        ("Certificates", list(_certificates(status))),
        ("Audit", [("newest checkpoint", checkpoint)]),
    ]
    return HealthView(
        running=status.running is not None,
        problems=[str(text) for text in status.problems],
        warnings=[str(text) for text in status.report.get("warnings", [])],
        sections=[(title, facts) for title, facts in sections if facts],
    )


def _spool(status: Status) -> Iterator[tuple[str, str]]:
    if status.spool is None:
        return
    spool = status.spool
    yield "lines kept", f"{status.kept_lines:,}"
    yield "size", size(status.used_bytes)
    yield "waiting", f"{spool['pending_records']:,}"
    yield "acknowledged", f"{spool['acknowledged_records']:,}"
    yield "exchanges in progress", f"{spool['open_exchanges']:,}"
    yield "dead letters", ", ".join(f"{count:,} {code}" for code, count in status.dead_letters.items()) or "0"


def _export(status: Status) -> Iterator[tuple[str, str]]:
    export: Mapping[str, Any] = status.report.get("export") or {}
    if not export:
        if status.running is not None:
            yield "destination", "none: records stay in the spool"
        return
    yield "state", str(export.get("status", ""))
    yield "destination", str(export.get("endpoint", ""))
    yield "lines pushed", f"{export.get('pushed_records', 0):,}"
    if export.get("last_error"):
        yield "last error", str(export["last_error"])


def _certificates(status: Status) -> Iterator[tuple[str, str]]:
    if status.ca is None:
        return
    yield "shown", "served by the proxy" if status.running is not None else "on disk"
    yield "issuing CA valid until", str(status.ca.get("issuing_expires", ""))[:10]
    yield "root CA valid until", str(status.ca.get("root_expires", ""))[:10]
    yield "names", ", ".join(map(str, status.ca.get("names") or ()))
