"""Findings of an audit, each with a code, the affected lines, and a remedy. Pure functions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from openclaw_egress.spool.rows import compact


class FindingCode(StrEnum):
    """The kind of a finding. Do not rename a code, because operators' scripts compare codes."""

    CHANGED = "changed"
    """The text of a line differs from the recorded text."""
    MISSING = "missing"
    """Lines are absent, and no record explains their absence."""
    MISSING_PART = "missing_part"
    """A part of a split record is absent."""
    FOREIGN = "foreign"
    """A line claims to be a record of this instance, but the chain does not contain it."""
    BODY = "body"
    """A body's text does not match its SHA-256."""
    CHECKPOINT = "checkpoint"
    """The hash in a checkpoint differs from the hash of the line with the checkpoint's sequence number."""
    CUT_TAIL = "cut_tail"
    """The newest lines are absent."""
    SIGNATURE = "signature"
    """A checkpoint or a tombstone has no valid signature."""
    SPOOL = "spool"
    """The ledger or a stored line of the spool is damaged."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem. ``first`` and ``last`` are the first and last affected line; 0 if no valid number is known."""

    code: FindingCode
    first: int
    last: int
    detail: str
    resend: tuple[tuple[int, int], ...] = ()
    """Ranges of missing lines that are still in the spool, so that `egress resend` can send them again."""

    @property
    def lines(self) -> str:
        """Return the sequence numbers of the affected lines, such as ``12`` or ``12-14``."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def as_json(self) -> dict[str, object]:
        """Return the finding as a JSON object."""
        found: dict[str, object] = {"code": self.code, "first": self.first, "last": self.last, "detail": self.detail}
        return found | ({"remedy": f"egress resend {compact(self.resend)}"} if self.resend else {})


@dataclass(frozen=True, slots=True)
class RestoreNote:
    """The result of restoring the audited spool: the newest line of the backup, and the lines that were lost."""

    seq: int
    instance: str
    """ID of the instance that wrote the lines up to ``seq``."""
    lost_lines: int | None
    """Number of lines of the replaced spool that are not in the backup; None if that spool could not be read."""
    replaced_seq: int
    """Sequence number of the newest line of the replaced spool; 0 if there was none."""
    replaced_instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of one audit.

    Attributes:
        source: name of the audited spool, destination or file, for messages.
        lines: number of lines of the chain in the audited range.
        found: number of lines of the source that match the chain.
        duplicates: number of additional copies of matching lines. They are not findings.
        explained: number of absent lines whose absence is recorded, by reason: ``pending``, ``dead_letter``,
            ``local``, ``dropped``, ``deleted`` (by an operator), ``pruned`` (from the spool, after the destination
            acknowledged them), or ``lost_by_restore`` (the replaced spool had them, the destination does not).
        left: number of lines that an operator deleted from the spool, and that the destination still has.
        masked_bodies: number of bodies whose hash was not compared, because secrets in them are masked.
        last_seq, last_hash: sequence number and hash of the newest line of the range.
        signed_seq: sequence number of the newest line that a valid signature covers; 0 if no line is covered, None
            if signatures were not checked.
        restored: the restorations of the spool from backups.
    """

    source: str
    lines: int
    found: int
    duplicates: int
    explained: dict[str, int]
    left: int = 0
    last_seq: int
    last_hash: str
    signed_seq: int | None = None
    restored: tuple[RestoreNote, ...] = ()
    masked_bodies: int = 0
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, object]:
        """Return the report as a JSON object."""
        return {
            "source": self.source,
            "lines": self.lines,
            "found": self.found,
            "duplicates": self.duplicates,
            "explained": self.explained,
            "left": self.left,
            "last_seq": self.last_seq,
            "last_hash": self.last_hash,
            "signed_seq": self.signed_seq,
            "restored": [asdict(note) for note in self.restored],
            "masked_bodies": self.masked_bodies,
            "findings": [finding.as_json() for finding in self.findings],
        }
