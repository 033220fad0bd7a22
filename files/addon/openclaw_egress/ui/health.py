"""The health page: the state of proxy, spool, export, certificates and audits as lines of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openclaw_egress.observability.last_audit import LastAudit
from openclaw_egress.reports.status import Status
from openclaw_egress.reports.text import local_time, size

AUDIT_HOURS = 25
"""If the last audit is older, in hours, the page recommends a new one. docs/monitoring.md recommends daily audits."""


@dataclass(frozen=True, slots=True)
class Audits:
    """The newest checkpoint in the spool, and the last audit, read from its result file."""

    last: LastAudit | None
    """The last audit; None if there was none, or if its file cannot be read."""
    unreadable: str
    """Reason why the result file cannot be read; empty if it can."""
    checkpoint: str
    """Description of the newest checkpoint."""
    newest: int
    """Number of the newest line."""
    time_of: Callable[[int], int]
    """Function that returns the time of a line in Unix nanoseconds; 0 if it is unknown."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page: names with values, and the problem that the operator should solve, if any."""

    title: str
    facts: Sequence[tuple[str, str]]
    problem: str = ""
    """The problem and its remedy; empty if there is none."""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class HealthView:
    """The contents of the health page."""

    running: bool
    problems: Sequence[str]
    warnings: Sequence[str]
    sections: Sequence[Section]


def health_of(status: Status, audits: Audits, now: float) -> HealthView:
    """Return the contents of the health page for this state. ``now`` is in Unix seconds."""
    sections = [
        Section("Spool", list(_spool(status))),
        Section("Export", list(_export(status))),
        Section("Certificates", list(_certificates(status))),
        audit_section(audits, now),
    ]
    return HealthView(
        running=status.running is not None,
        problems=[str(text) for text in status.problems],
        warnings=[str(text) for text in status.report.get("warnings", [])],
        sections=[section for section in sections if section.facts],
    )


def audit_section(audits: Audits, now: float) -> Section:
    """Return the section about the last audit. Add a remedy if it is missing or too old, failed, or has findings."""
    facts = [(name, value) for name, value in _audit(audits) if value]
    last = audits.last
    if last is not None and last.findings:
        problem = "The records differ from the chain. Run `egress audit`: it lists the findings with their remedies."
        return Section("Audit", facts, problem=problem)
    if audits.unreadable:
        return Section("Audit", facts, problem=f"The last audit cannot be shown: {audits.unreadable}")
    if last is not None and last.failed_at is not None:
        return Section("Audit", facts, problem="Remove the cause of the failure, and run `egress audit` again.")
    daily = f"Run `egress audit`, and then `egress audit --since {AUDIT_HOURS}h` daily, for example from cron."
    if last is None or last.time is None:
        return Section("Audit", facts, warning=f"No audit of this spool has ended yet. {daily}")
    if now - last.time > AUDIT_HOURS * 3600:
        return Section("Audit", facts, warning=f"The last audit is more than {AUDIT_HOURS} hours ago. {daily}")
    return Section("Audit", facts)


def _audit(audits: Audits) -> Iterator[tuple[str, str]]:
    yield "newest checkpoint", audits.checkpoint
    last = audits.last
    if last is None:
        return
    if last.time is not None:
        yield "last audit", _moment(last.time)
        found = ", ".join(f"{count:,} {code}" for code, count in last.codes.items())
        count = f"{last.findings:,} finding{'s' if last.findings > 1 else ''}" if last.findings else "no findings"
        yield "result", count + (f": {found}" if found else "")
        if last.first:
            times = [local_time(time_ns) for seq in (last.first, last.last) if (time_ns := audits.time_of(seq))]
            yield "audited", f"lines {last.first:,} to {last.last:,}" + (f", {' to '.join(times)}" if times else "")
        yield "newer lines", f"{max(0, audits.newest - last.last):,}" if last.first else ""
        yield "compared", ", ".join(last.sources)
    if last.failed_at is not None:
        yield "failed since then", f"{_moment(last.failed_at)}: {last.failure}"


def _moment(time: float) -> str:
    """Return a time from the audit's result file as text. Accept any number: other programs can write the file."""
    try:
        return local_time(int(time * 1e9))
    except (ValueError, OverflowError, OSError):
        return "at an invalid time"


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
