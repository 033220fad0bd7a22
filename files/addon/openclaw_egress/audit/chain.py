"""Checks of the hash chain. Pure functions that take the text of lines and return findings.

Two checks exist. `against_ledger` compares lines with the spool's ledger, which keeps the hash of every line. It finds
every edit, gap and forgery. `by_itself` needs only the lines, for example those of an exported file on another machine.
It finds every edit and gap between the first and the last line. To find lines removed at the end, it needs the hash of
the newest line from another source, such as a checkpoint in the container's log.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from openclaw_egress.audit.findings import Finding, FindingCode, Report
from openclaw_egress.recording import semconv
from openclaw_egress.recording.hash_chain import GENESIS
from openclaw_egress.recording.log_lines import reassemble
from openclaw_egress.signatures import checkpoint_text, deletion_text
from openclaw_egress.spool.rows import ACKNOWLEDGED, DEAD, LOCAL, PENDING, STATES, ranges

GONE = len(STATES)
"""State of a line that is no longer in the spool; the other states are indexes into `rows.STATES`."""
_EXPLAINED = {state: STATES[state] for state in (PENDING, DEAD, LOCAL)}
_MAX_FOREIGN = 1000
"""Maximum number of suspicious lines to list, so that a flood of forged lines cannot exhaust the memory."""
_MAX_PARTS = 100_000
_MAX_HELD = 4
"""Maximum number of split records whose parts are in memory at the same time."""


class ChainLine(NamedTuple):
    """One log line from the spool, the destination or a file: its time in Unix nanoseconds, and its text."""

    time_ns: int
    text: str
    row: int = 0
    """Sequence number under which the spool stores the line; 0 for a line from another source."""


class LedgerRow(NamedTuple):
    """One row of the ledger: sequence number, time and SHA-256 of a line, and the line's state in the spool."""

    seq: int
    time_ns: int
    digest: bytes
    state: int


@dataclass(slots=True)
class Ledger:
    """The part of a ledger that an audit covers. It uses 33 bytes of memory per line."""

    first: int = 0
    digests: bytearray = field(default_factory=bytearray)
    states: bytearray = field(default_factory=bytearray)
    earliest_ns: int = 0
    latest_ns: int = 0
    before: bytes = bytes.fromhex(GENESIS)
    """SHA-256 of the line before the first line that the audit covers."""
    problems: list[str] = field(default_factory=list)
    """Descriptions of damage to the ledger itself."""
    pruned: int = 0
    """Sequence number of the newest line that the spool pruned; 0 if it is unknown."""

    @classmethod
    def of(cls, rows: Iterable[LedgerRow], *, start: int = 0, set_back: Container[int] = (), pruned: int = 0) -> Ledger:
        """Return the ledger of these rows, which must be in order. Fill gaps with zero hashes, which match no line.

        Args:
            rows: the rows of the part that the audit covers.
            start: the sequence number that the first row must have; 0 if any number is valid.
            set_back: sequence numbers of the lines before which the clock was set back.
            pruned: sequence number of the newest line that the spool pruned; 0 if it is unknown.
        """
        ledger = cls(pruned=pruned)
        expected, newest_ns = start, 0
        for row in rows:
            if expected and row.seq != expected:
                ledger.problems.append(f"lines {expected} to {row.seq - 1} are missing from the ledger")
            if row.time_ns <= newest_ns and row.seq not in set_back:
                ledger.problems.append(f"line {row.seq} does not have a later time than the previous line")
            expected, newest_ns = row.seq + 1, row.time_ns
            if not ledger.first:
                ledger.first, ledger.earliest_ns, ledger.latest_ns = row.seq, row.time_ns, row.time_ns
            gap = row.seq - ledger.first - len(ledger.states)
            ledger.digests += bytes(32 * gap) + row.digest[:32].ljust(32, b"\0")
            ledger.states += bytes([GONE]) * gap + bytes([row.state])
            ledger.earliest_ns = min(ledger.earliest_ns, row.time_ns)
            ledger.latest_ns = max(ledger.latest_ns, row.time_ns)
        return ledger

    def __len__(self) -> int:
        """Return how many lines this part of the ledger covers."""
        return len(self.states)

    @property
    def last(self) -> int:
        """Return the sequence number of the newest line; ``first - 1`` if the ledger is empty."""
        return self.first + len(self.states) - 1

    def digest(self, seq: int) -> bytes:
        """Return the SHA-256 of line ``seq``, which must be in this part of the ledger or directly before it."""
        if seq == self.first - 1:
            return self.before
        at = 32 * (seq - self.first)
        return bytes(self.digests[at : at + 32])


def head_of(text: str) -> dict[str, Any] | None:
    """Return the JSON object of a line; None if the text has no valid ``seq`` and ``prev``."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("prev"), str):
        return None
    seq = found.get("seq")
    return found if isinstance(seq, int) and not isinstance(seq, bool) and 0 < seq < 2**63 else None


SignatureCheck = Callable[[str, bytes, int], bool]
"""A function ``(signature, text, seq)`` that returns whether the signature is valid for the text in line ``seq``.

The text comes from `signatures.checkpoint_text` or `signatures.deletion_text`. The key depends on ``seq``, because the
lines of a restored spool were signed with several keys.
"""


class Deletions:
    """The lines that operators deleted, according to the tombstones in the chain.

    If ``is_signed`` is given, only tombstones with a valid signature count.
    """

    def __init__(
        self, is_signed: SignatureCheck | None, digest_of: Callable[[int], bytes | None] | None = None
    ) -> None:
        """Start without deletions. ``digest_of`` returns a line's hash from the ledger; None if there is no ledger."""
        self._is_signed = is_signed
        self._digest_of = digest_of
        self._runs: set[tuple[int, int]] = set()
        self._ordered: list[tuple[int, int]] = []

    def add(self, seq: int, lines: object, digest: object, signature: object) -> bool:
        """Add the ``lines`` that a valid tombstone lists, such as ``12-40,50``. Return whether it is valid.

        ``seq`` is the sequence number of the tombstone's own line, ``digest`` the hash of the last line in its list.
        """
        if not isinstance(lines, str) or not isinstance(digest, str):
            return False
        if self._is_signed is not None and not (
            isinstance(signature, str) and self._is_signed(signature, deletion_text(lines, digest), seq)
        ):
            return False
        runs = [(int(run[1]), int(run[2] or run[1])) for run in map(_RUN.fullmatch, lines.split(",")) if run]
        if len(runs) != lines.count(",") + 1 or not self._is_of_chain(runs[-1][1], digest):
            return False
        if any(last >= seq for _, last in runs):
            return False  # A tombstone can list only lines that come before it in the chain.
        self._runs.update(runs)
        self._ordered = []
        return True

    def _is_of_chain(self, seq: int, digest: str) -> bool:
        """Return whether ``digest`` is the hash of line ``seq`` in the ledger; True if there is no ledger.

        A valid signature does not prove this, because one key can sign several chains, for example after a restoration.
        """
        if self._digest_of is None:
            return True
        known = self._digest_of(seq) if seq < _HIGHEST else None
        return known is not None and known.hex() == digest

    def take(self, sealed: dict[str, Any]) -> Iterator[Finding]:
        """If the parsed line ``sealed`` is a tombstone, add its deletions.

        Yield a finding if the tombstone is invalid.
        """
        if sealed.get(semconv.OUTCOME) != "deleted" or semconv.SPOOL_DELETED not in sealed:
            return
        names = (semconv.SPOOL_DELETED, semconv.SPOOL_LAST_HASH, semconv.SPOOL_SIGNATURE)
        own = sealed["seq"]
        if not self.add(own, *map(sealed.get, names)):
            detail = "this deletion is not signed with the key, or states a different hash for its last line"
            yield Finding(FindingCode.SIGNATURE, own, own, detail)

    def __contains__(self, seq: int) -> bool:
        """Return whether a valid tombstone lists the line."""
        self._ordered = self._ordered or sorted(self._runs)
        at = bisect_right(self._ordered, (seq, _HIGHEST)) - 1
        return at >= 0 and self._ordered[at][0] <= seq <= self._ordered[at][1]


_RUN = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?")
_HIGHEST = 2**63


class _Signatures:
    """Checker of checkpoint signatures. Without a key it yields no findings."""

    def __init__(self, is_signed: SignatureCheck | None) -> None:
        self._is_signed = is_signed
        self.newest = 0
        """Sequence number of the newest line that a valid signature covers."""
        self._oldest_valid = 0
        self._unsigned: list[int] = []

    def take(self, sealed: dict[str, Any]) -> Iterator[Finding]:
        """If the parsed line ``sealed`` is a checkpoint, check its signature.

        Yield a finding if the signature is invalid.
        """
        seq, digest = sealed.get(semconv.CHECKPOINT_SEQ), sealed.get(semconv.CHECKPOINT_HASH)
        if self._is_signed is None or not isinstance(seq, int) or not isinstance(digest, str):
            return
        own = sealed["seq"]
        signature = sealed.get(semconv.CHECKPOINT_SIGNATURE)
        if not isinstance(signature, str):
            self._unsigned.append(own)
        elif self._is_signed(signature, checkpoint_text(seq, digest), own):
            self.newest = max(self.newest, seq)
            self._oldest_valid = min(self._oldest_valid or own, own)
        else:
            yield Finding(FindingCode.SIGNATURE, own, own, "the signature of this checkpoint is not valid for the key")

    def rest(self, *, required: bool) -> Iterator[Finding]:
        """Yield the findings that only the complete chain shows. Call this after the last line.

        Report each unsigned checkpoint after a signed one and, if ``required``, the absence of any signed checkpoint.
        """
        for own in self._unsigned:
            if self._oldest_valid and own > self._oldest_valid:
                yield Finding(FindingCode.SIGNATURE, own, own, "this checkpoint has no signature")
        if required and self._is_signed is not None and not self.newest:
            yield Finding(FindingCode.SIGNATURE, 0, 0, "no checkpoint is signed with the key")

    @property
    def signed_seq(self) -> int | None:
        """Return the number of the newest line that a valid signature covers; None if signatures are not checked."""
        return None if self._is_signed is None else self.newest


def against_ledger(
    source: str,
    ledger: Ledger,
    lines: Iterable[ChainLine],
    *,
    later: Callable[[int], bytes | None] = lambda _: None,
    every_line: bool = False,
    is_signed: SignatureCheck | None = None,
    deletions: Deletions | None = None,
) -> Report:
    """Compare the lines of the spool or of a destination with the ledger.

    Args:
        source: name of the spool or the destination, for messages.
        ledger: the part of the ledger that the audit covers.
        lines: all lines that claim to belong to this instance, in any order.
        later: returns the hash of a line that was committed after the audit began; None if it does not know the line.
        every_line: whether the lines come from the spool itself: pruned lines may be absent there, unsent ones may not.
        is_signed: the signature check; without it, signatures are ignored.
        deletions: the deletions that the spool knows; tombstones among the lines are added to them.
    """
    deletions = Deletions(is_signed) if deletions is None else deletions
    seen = bytearray(len(ledger))
    signatures = _Signatures(is_signed)
    found = duplicates = 0
    suspects: list[tuple[int, str]] = []
    dropped: list[tuple[int, int, int]] = []
    bodies = _Bodies()
    findings: list[Finding] = []
    for line in lines:
        digest = hashlib.sha256(line.text.encode()).digest()
        sealed = head_of(line.text)
        seq = sealed["seq"] if sealed else 0
        if line.row:
            findings += _row_findings(line.row, digest, sealed, ledger)
        if sealed is None or not ledger.first <= seq <= ledger.last:
            if sealed is None or later(seq) != digest:
                _append(
                    suspects,
                    (seq, "its number is not in the chain" if sealed else "it lacks the chain fields `seq` and `prev`"),
                )
            continue
        if digest != ledger.digest(seq):
            _append(suspects, (seq, "its hash differs from the ledger"))
            continue
        if seen[seq - ledger.first]:
            duplicates += 1
            continue
        seen[seq - ledger.first] = 1
        found += 1
        if drop := _dropped_by(sealed):
            dropped.append(drop)
        findings += _checkpoint_findings(sealed, ledger)
        findings += signatures.take(sealed)
        findings += deletions.take(sealed)
        findings += bodies.take(sealed, line.text)
    for seq, why in suspects:
        own = bool(seq) and ledger.first <= seq <= ledger.last and not seen[seq - ledger.first]
        findings.append(Finding(FindingCode.CHANGED if own else FindingCode.FOREIGN, seq, seq, why))
    changed = {finding.first for finding in findings if finding.code is FindingCode.CHANGED}
    absent, explained = _absent(ledger, seen, changed, dropped, deletions, every_line=every_line)
    present = (seq for at, seq in enumerate(range(ledger.first, ledger.last + 1)) if seen[at])
    left = 0 if every_line else sum(seq in deletions for seq in present)
    gaps = _gaps(absent, bodies.parts, ledger.last)
    findings += gaps if every_line else (_with_remedy(gap, ledger) for gap in gaps)
    findings += signatures.rest(required=False)
    return Report(
        signed_seq=signatures.signed_seq,
        source=source,
        lines=len(ledger),
        found=found,
        duplicates=duplicates,
        masked_bodies=bodies.masked,
        explained=explained,
        left=left,
        last_seq=ledger.last if len(ledger) else 0,
        last_hash=ledger.digest(ledger.last).hex() if len(ledger) else GENESIS,
        findings=tuple(sorted(findings, key=lambda finding: (finding.first, finding.code))),
    )


def _row_findings(row: int, digest: bytes, sealed: dict[str, Any] | None, ledger: Ledger) -> Iterator[Finding]:
    """Yield findings for a row of the spool that differs from the ledger or breaks the chain."""
    if digest != ledger.digest(row):
        yield Finding(FindingCode.SPOOL, 0, 0, f"line {row} was changed: its hash differs from the ledger")
    if sealed is None:
        yield Finding(FindingCode.SPOOL, 0, 0, f"line {row} lacks the chain fields `seq` and `prev`")
        return
    if sealed["seq"] != row:
        yield Finding(FindingCode.SPOOL, 0, 0, f"line {row} has the number {sealed['seq']} in its JSON")
    if sealed["prev"] != ledger.digest(row - 1).hex():
        yield Finding(FindingCode.SPOOL, 0, 0, f"line {row} does not contain the hash of the previous line")


def _append(suspects: list[tuple[int, str]], suspect: tuple[int, str]) -> None:
    if len(suspects) < _MAX_FOREIGN:
        suspects.append(suspect)


def _absent(
    ledger: Ledger,
    seen: bytearray,
    changed: set[int],
    dropped: Iterable[tuple[int, int, int]],
    deletions: Deletions,
    *,
    every_line: bool,
) -> tuple[list[int], dict[str, int]]:
    """Return the unexplained absent lines, and the number of explained ones by reason (`Report.explained`)."""
    room = list(dropped)
    explained: dict[str, int] = defaultdict(int)
    absent: list[int] = []
    # Older versions did not store which lines they pruned. They pruned the oldest acknowledged lines first, so absent
    # lines before the oldest stored one count as pruned.
    kept = [at for state in (ACKNOWLEDGED, LOCAL) if (at := ledger.states.find(state)) >= 0]
    oldest_kept = ledger.first + min(kept, default=len(seen))
    for at in range(len(seen)):
        seq, state = ledger.first + at, ledger.states[at]
        if seen[at] or seq in changed:
            continue
        if state == GONE and seq in deletions:
            explained["deleted"] += 1
        elif every_line and state == GONE and (seq < oldest_kept or seq <= ledger.pruned):
            explained["pruned"] += 1
        elif not every_line and state in _EXPLAINED:
            explained[_EXPLAINED[state]] += 1
        elif state == GONE and _take_room(room, seq):
            explained["dropped"] += 1
        else:
            absent.append(seq)
    return absent, dict(explained)


def _take_room(room: list[tuple[int, int, int]], seq: int) -> bool:
    """Return whether a record of dropped lines explains the absence of line ``seq``.

    ``room`` contains ``(first, last, count)`` of each such record. Decrement the count, because a record
    explains at most that many absent lines.
    """
    for at, (first, last, count) in enumerate(room):
        if first <= seq <= last and count:
            room[at] = (first, last, count - 1)
            return True
    return False


def _gaps(absent: list[int], parts: dict[int, int], last: int) -> Iterator[Finding]:
    """Yield a finding for each run of absent lines, and one for each absent part of a record.

    ``parts`` maps each expected part to the first line of its record, for the records whose first line is present.
    """
    whole = [seq for seq in absent if seq not in parts]
    for seq in absent:
        if seq in parts:
            yield Finding(FindingCode.MISSING_PART, seq, seq, f"a part of the record at line {parts[seq]} is absent")
    for first, end in ranges(whole):
        if end == last:
            yield Finding(FindingCode.CUT_TAIL, first, end, "the newest lines are absent")
        else:
            yield Finding(FindingCode.MISSING, first, end, "absent, and no record explains it")


def _with_remedy(gap: Finding, ledger: Ledger) -> Finding:
    """Return ``gap`` with the ranges of its absent lines that `egress resend` can send again."""
    seqs = [seq for seq in range(gap.first, gap.last + 1) if ledger.states[seq - ledger.first] == ACKNOWLEDGED]
    gone = gap.last - gap.first + 1 - len(seqs)
    note = f"; the spool no longer has {gone} of them" if gone else ""
    return replace(gap, detail=gap.detail + note, resend=tuple(ranges(seqs)))


def _dropped_by(sealed: dict[str, Any]) -> tuple[int, int, int] | None:
    """Return ``(first, last, count)`` if the parsed line ``sealed`` records lost lines; None if it records no loss."""
    if sealed.get(semconv.OUTCOME) not in ("dropped", "dead_lettered"):
        return None
    first, last, count = map(sealed.get, (semconv.SPOOL_FIRST_SEQ, semconv.SPOOL_LAST_SEQ, semconv.SPOOL_LINES))
    if not isinstance(first, int) or not isinstance(last, int) or not isinstance(count, int):
        return None
    return first, last, count


def _checkpoint_findings(sealed: dict[str, Any], ledger: Ledger) -> Iterator[Finding]:
    seq, digest = sealed.get(semconv.CHECKPOINT_SEQ), sealed.get(semconv.CHECKPOINT_HASH)
    if isinstance(seq, int) and ledger.first - 1 <= seq <= ledger.last and digest != ledger.digest(seq).hex():
        yield Finding(
            FindingCode.CHECKPOINT, seq, seq, f"checkpoint {sealed['seq']} states a different hash for this line"
        )


class _Bodies:
    """Checker of body hashes and split records. The parts of a record directly follow its first line in the chain."""

    def __init__(self) -> None:
        self.parts: dict[int, int] = {}
        """Maps each part that is still missing to the first line of its record, both as sequence numbers."""
        self._held: dict[int, tuple[int, list[str]]] = {}
        self.masked = 0
        """Number of bodies whose hash cannot be compared, because secrets in them are masked."""

    def take(self, sealed: dict[str, Any], text: str) -> Iterator[Finding]:
        """Process the next line; ``sealed`` is its parsed text. If the line completes a record, yield the findings."""
        seq = sealed["seq"]
        if "part" in sealed:
            first = self.parts.pop(seq, 0)
            if first not in self._held:
                return
            count, lines = self._held[first]
            lines.append(text)
            if len(lines) == count:
                del self._held[first]
                try:
                    whole = reassemble(lines)
                except (ValueError, KeyError, TypeError, AttributeError):
                    return
                yield from self._compare(whole)
        elif isinstance(parts := sealed.get("parts"), int) and 0 < parts < _MAX_PARTS:
            self.parts |= dict.fromkeys(range(seq + 1, seq + parts + 1), seq)
            self._held[seq] = (parts + 1, [text])
            # Forget the oldest incomplete records: lines arrive nearly in order, so the missing parts will not arrive
            # any more.
            while len(self._held) > _MAX_HELD:
                del self._held[next(iter(self._held))]
        else:
            yield from self._compare(sealed)

    def _compare(self, whole: dict[str, Any]) -> Iterator[Finding]:
        for side in ("request", "response"):
            message = whole.get(side)
            if not isinstance(message, dict) or message.get("body_truncated") or not message.get("body_sha256"):
                continue
            if message.get("body_masked"):
                # The hash was computed before masking, so it cannot be compared. The hash chain still proves that the
                # line is unmodified.
                self.masked += 1
                continue
            body = message.get("body")
            if isinstance(body, str) and message.get("body_encoding") == "utf-8":
                digest = hashlib.sha256(body.encode()).hexdigest()
                if digest != message["body_sha256"]:
                    detail = f"the {side} body differs from its SHA-256"
                    yield Finding(FindingCode.BODY, whole["seq"], whole["seq"], detail)


@dataclass(slots=True)
class _Links:
    """Sequence numbers, hashes and ``prev`` values of lines, in 72 bytes of memory per line."""

    seqs: array[int] = field(default_factory=lambda: array("q"))
    hashes: bytearray = field(default_factory=bytearray)
    prevs: bytearray = field(default_factory=bytearray)


def by_itself(
    source: str,
    lines: Iterable[ChainLine],
    *,
    head: tuple[int, str] | None = None,
    is_signed: SignatureCheck | None = None,
    needs_signature: bool = True,
) -> Report:
    """Check lines for which there is no ledger.

    Args:
        source: name of the file, for messages.
        lines: all lines of one instance, in any order.
        head: sequence number and hash of a line that must be present, for example from a checkpoint in the proxy's
            log.
        is_signed: the signature check; without it, signatures are ignored.
        needs_signature: whether at least one checkpoint must be signed, if ``is_signed`` is given.
    """
    links = _Links()
    bodies = _Bodies()
    signatures = _Signatures(is_signed)
    deletions = Deletions(is_signed)
    findings: list[Finding] = []
    dropped: list[tuple[int, int, int]] = []
    checkpoints: list[tuple[int, int, str]] = []
    suspects: list[tuple[int, str]] = []
    for line in lines:
        sealed = head_of(line.text)
        try:
            prev = bytes.fromhex(sealed["prev"]) if sealed else b""
        except ValueError:
            prev = b""
        if sealed is None or len(prev) != 32:
            _append(suspects, (0, "it lacks the chain fields `seq` and `prev`"))
            continue
        links.seqs.append(sealed["seq"])
        links.hashes += hashlib.sha256(line.text.encode()).digest()
        links.prevs += prev
        if drop := _dropped_by(sealed):
            dropped.append(drop)
        if isinstance(seq := sealed.get(semconv.CHECKPOINT_SEQ), int):
            checkpoints.append((sealed["seq"], seq, str(sealed.get(semconv.CHECKPOINT_HASH))))
        findings += bodies.take(sealed, line.text)
        findings += signatures.take(sealed)
        findings += deletions.take(sealed)
    findings += signatures.rest(required=needs_signature)
    findings += (Finding(FindingCode.FOREIGN, seq, seq, why) for seq, why in suspects)
    chosen, duplicates, more = _chosen(links)
    findings += more
    numbers = list(chosen)
    absent: list[int] = []
    explained: dict[str, int] = defaultdict(int)
    for before, after in itertools.pairwise(numbers):
        if after - before > 1 + _MAX_GAP:
            findings.append(Finding(FindingCode.MISSING, before + 1, after - 1, "absent, and no record explains it"))
            continue
        for seq in range(before + 1, after):
            if seq in deletions:
                explained["deleted"] += 1
            elif _take_room(dropped, seq):
                explained["dropped"] += 1
            else:
                absent.append(seq)
    findings += _gaps(absent, bodies.parts, 0)
    for at, seq, digest in checkpoints:
        if seq in chosen and chosen[seq].hex() != digest:
            findings.append(
                Finding(FindingCode.CHECKPOINT, seq, seq, f"checkpoint {at} states a different hash for this line")
            )
    last_seq = numbers[-1] if numbers else 0
    if head and (head[0] > last_seq or (head[0] in chosen and chosen[head[0]].hex() != head[1])):
        what = (FindingCode.CUT_TAIL, last_seq + 1) if head[0] > last_seq else (FindingCode.CHANGED, head[0])
        findings.append(Finding(what[0], what[1], head[0], "the expected line is absent or has another hash"))
    return Report(
        signed_seq=signatures.signed_seq,
        source=source,
        lines=last_seq - numbers[0] + 1 if numbers else 0,
        found=len(numbers),
        duplicates=duplicates,
        masked_bodies=bodies.masked,
        explained=dict(explained),
        last_seq=last_seq,
        last_hash=chosen[last_seq].hex() if numbers else GENESIS,
        findings=tuple(sorted(findings, key=lambda finding: (finding.first, finding.code))),
    )


_MAX_GAP = 1_000_000
"""Longest gap whose lines are examined one by one. A longer gap is one finding, even if deletions explain it."""


def _chosen(links: _Links) -> tuple[dict[int, bytes], int, list[Finding]]:
    """Choose one line per sequence number. Return the chosen hashes by number, the count of duplicates, and findings.

    If several lines have the same sequence number, choose the one whose hash is ``prev`` of the next line.
    """
    order = sorted(range(len(links.seqs)), key=links.seqs.__getitem__)
    chosen: dict[int, bytes] = {}
    duplicates = 0
    findings: list[Finding] = []
    groups: list[tuple[int, list[tuple[bytes, bytes]]]] = []
    for at in order:
        seq = links.seqs[at]
        link = (bytes(links.hashes[32 * at : 32 * at + 32]), bytes(links.prevs[32 * at : 32 * at + 32]))
        if not groups or groups[-1][0] != seq:
            groups.append((seq, []))
        if link in groups[-1][1]:
            duplicates += 1
        else:
            groups[-1][1].append(link)
    for at, (seq, candidates) in enumerate(groups):
        after = (
            {prev for _, prev in groups[at + 1][1]} if at + 1 < len(groups) and groups[at + 1][0] == seq + 1 else None
        )
        before = chosen.get(seq - 1)
        candidates.sort(key=lambda link: (after is not None and link[0] in after, link[1] == before), reverse=True)
        digest, _ = candidates[0]
        chosen[seq] = digest
        if after is not None and digest not in after:
            findings.append(Finding(FindingCode.CHANGED, seq, seq, f"its hash differs from `prev` of line {seq + 1}"))
        if seq == 1 and candidates[0][1].hex() != GENESIS:
            findings.append(Finding(FindingCode.CHANGED, 1, 1, "its `prev` is not the fixed value of a first line"))
        findings += (
            Finding(FindingCode.FOREIGN, seq, seq, "another line of the chain has this number") for _ in candidates[1:]
        )
    return chosen, duplicates, findings
