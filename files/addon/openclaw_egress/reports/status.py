"""The state of proxy, spool, export and certificates, as read from the running proxy and from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openclaw_egress import certificates
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.schema import SpoolError


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of proxy, spool and certificates.

    A value that could not be read is None or empty. ``problems`` then contains the reason.
    """

    running: Mapping[str, Any] | None
    """The report of the running proxy (``/readyz``); None if no proxy responds."""
    problems: Sequence[str] = ()
    spool: Mapping[str, int] | None = None
    """The result of `SpoolReader.stats`; None if the spool cannot be read."""
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    ca: Mapping[str, Any] | None = None
    """The CA that the running proxy serves; without a running proxy, the CA on disk."""

    @property
    def report(self) -> Mapping[str, Any]:
        """Return the report of the running proxy; empty if no proxy responds."""
        return self.running or {}

    @property
    def kept_lines(self) -> int:
        """Return the number of stored lines that are not dead letters."""
        return sum((self.spool or {}).get(f"{state}_records", 0) for state in ("pending", "acknowledged", "local"))

    @property
    def used_bytes(self) -> int:
        """Return the number of bytes that the spool uses."""
        return sum(value for name, value in (self.spool or {}).items() if name.endswith("_bytes"))

    def as_json(self) -> dict[str, Any]:
        """Return the state as `egress status --json` prints it."""
        return {
            "running": self.running is not None,
            "ready": bool(self.report.get("ok")),
            "problems": self.problems,
            "warnings": self.report.get("warnings", []),
            "export": self.report.get("export", {}),
            "upstream_proxy": self.report.get("upstream_proxy"),
            "spool": self.spool,
            "dead_letters": self.dead_letters,
            "ca": self.ca,
        }


def status_of(settings: Settings, running: Mapping[str, Any] | None, *, with_ca: bool = True) -> Status:
    """Return the state. If a file is unreadable, report a problem and continue with the other files.

    Without ``with_ca``, do not read a CA from the disk.
    """
    report = running or {}
    problems: list[str] = list(report.get("problems", []))
    spool: dict[str, int] | None = None
    dead: dict[str, int] = {}
    try:
        with SpoolReader(settings.spool_path) as reader:
            spool, dead = reader.stats(), reader.dead_letter_counts()
    except SpoolError as error:
        problems.append(str(error))
    # If a proxy runs, show the CA in its memory, because the files may be newer.
    authority: dict[str, Any] | None = report.get("ca")
    if running is None and with_ca:
        try:
            info = certificates.show(settings.effective_ca_dir)
            authority = _as_json(info)
            problems += info.problems(certificates.utc_now())
        except certificates.CAError as error:
            problems.append(str(error))
    return Status(running=running, problems=problems, spool=spool, dead_letters=dead, ca=authority)


def _as_json(info: certificates.CAInfo) -> dict[str, Any]:
    return {
        "root_sha256": info.root_sha256,
        "root_expires": info.root_expires.isoformat(),
        "issuing_sha256": info.issuing_sha256,
        "issuing_expires": info.issuing_expires.isoformat(),
        "names": info.names,
    }
