"""The policy page: each line of the file, with the uses of its rules in the last day.

A use is a record: an exchange, a denial, or a tunnel of a class with ``log_tunnels``. The page calls a rule "never
used" only if every use would have produced a record.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from openclaw_egress.llm.model import object_in
from openclaw_egress.policy.configured import configured_policy
from openclaw_egress.policy.model import ClassPolicy, Policy, PolicyError, is_inspected
from openclaw_egress.policy.rules import Rule
from openclaw_egress.recording.semconv import EVENT_POLICY, POLICY_DIGEST
from openclaw_egress.reports.text import local_time
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.ui import ranges

DAY_NS = 86_400 * 10**9
MAX_LINES = 5_000
NOT_LOADED = "the proxy has not loaded this version of the policy; `egress status` shows the policy in force"
LOADED_THEN = "the policy was loaded at that time"

type Key = tuple[str, str]
"""Class and rule."""


@dataclass(slots=True)
class Uses:
    """The number of decisions by class and rule."""

    allowed: Counter[Key] = field(default_factory=Counter)
    refused: Counter[Key] = field(default_factory=Counter)
    reported: Counter[Key] = field(default_factory=Counter)

    def add(self, counts: Iterable[tuple[str, str, bool, bool, int]]) -> None:
        """Add the counts that `SpoolReader.rule_counts` yields."""
        for class_name, rule, denied, enforced, count in counts:
            decided = self.allowed if not denied else self.refused if enforced else self.reported
            decided[class_name, rule] += count

    def merge(self, other: Uses) -> None:
        """Add the counts of ``other``."""
        self.allowed.update(other.allowed)
        self.refused.update(other.refused)
        self.reported.update(other.reported)

    def text(self, key: Key) -> str:
        """Return the uses of a rule as text, such as ``allowed 3, refused 1``; empty if there are none."""
        counts = (("allowed", self.allowed), ("refused", self.refused), ("reported", self.reported))
        return ", ".join(f"{word} {count[key]:,}" for word, count in counts if count[key])


@dataclass(frozen=True, slots=True)
class LineView:
    """A line of the file. ``uses`` is empty on lines without a rule."""

    number: int
    text: str
    uses: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The contents of the policy page."""

    file: str
    """Path of the policy file; empty for the built-in policy."""
    lines: Sequence[LineView]
    hidden_lines: int
    problem: str = ""
    """Reason why the file is not in force; empty if it is in force. A file that is not in force has no uses."""
    digest: str = ""
    inspected: Sequence[str] = ()
    warnings: Sequence[str] = ()
    others: Sequence[tuple[str, str, str]] = ()
    """Class, rule name and uses of decisions that no rule in the file made. Example of a name: ``address-guard``."""
    since: str = ""
    """Time from which records are counted."""
    limit: str = ""
    """Reason why the page counts only a part of the last day, from ``since`` on; empty if it counts the whole day."""
    is_assumed: bool = False
    """Whether the page only assumes that this policy made the oldest decisions, because it found no event for them."""


def read_view(settings: Settings, reader: SpoolReader, now_ns: int) -> PolicyView:
    """Return the contents of the policy page for the configured policy."""
    texts = _text_of(settings.policy_file)
    view = PolicyView(
        file=str(settings.policy_file or ""),
        lines=[LineView(number, text) for number, text in enumerate(texts[:MAX_LINES], 1)],
        hidden_lines=max(0, len(texts) - MAX_LINES),
    )
    try:
        policy = configured_policy(settings)
    except PolicyError as error:
        return replace(view, problem=f"it is not valid: {error}")
    counted = read_uses(reader, policy.digest, now_ns - DAY_NS, time.monotonic)
    if counted is None:
        return replace(view, problem=NOT_LOADED)
    uses, since_ns, limit, is_assumed = counted
    by_line = _uses_by_line(policy, uses)
    return replace(
        view,
        digest=policy.digest,
        lines=[replace(line, uses=by_line.get(line.number, ())) for line in view.lines],
        inspected=policy.inspect,
        warnings=policy.warnings,
        others=_others(policy, uses),
        since=local_time(since_ns),
        limit=limit,
        is_assumed=is_assumed,
    )


def read_uses(
    reader: SpoolReader, digest: str, since_ns: int, clock: Callable[[], float]
) -> tuple[Uses, int, str, bool] | None:
    """Count the decisions of the policy with this digest. Read the newest records first.

    Returns:
        Four values: the counts; the time from which records were counted; the reason why this time is later than
        ``since_ns`` (empty if it is not); and whether this policy was only assumed to be in force at that time. None if
        the newest policy event names another policy.
    """
    uses, before_load, loaded = Uses(), Uses(), None
    first, last = reader.find_range(since_ns)
    low = first
    for low, top in ranges.newest_first(first, last + 1, clock):
        end = top
        for event in reader.query(Filters(event_names=[EVENT_POLICY], newest_first=True).within(low, top)):
            if _digest_in(reader.line(event.seq)) != digest:
                # Another policy was in force from this event until ``loaded``. Do not count its decisions.
                return None if loaded is None else (uses, loaded.time_ns, LOADED_THEN, False)
            before_load.add(reader.rule_counts(event.seq, end))
            uses.merge(before_load)
            before_load, loaded, end = Uses(), event, event.seq
        before_load.add(reader.rule_counts(low, end))
    if low > first:
        uses.merge(before_load)
        limit = "the spool has more records than can be counted here"
        return uses, ranges.time_of(reader, low), limit, True
    # Only the last policy event before the period tells which policy was in force when the period began. If the search
    # does not find that event, assume that the present policy was also in force then.
    loaded_before = _digest_before(reader, first, clock)
    if loaded_before not in (None, digest):
        return None if loaded is None else (uses, loaded.time_ns, LOADED_THEN, False)
    uses.merge(before_load)
    return uses, since_ns, "", loaded_before is None


def _digest_before(reader: SpoolReader, seq: int, clock: Callable[[], float]) -> str | None:
    """Return the digest in the newest policy event before a line; None if no event is found within the time limit."""
    newest = Filters(event_names=[EVENT_POLICY], newest_first=True, limit=1)
    for low, top in ranges.newest_first(1, seq, clock):
        for event in reader.query(newest.within(low, top)):
            return _digest_in(reader.line(event.seq))
    return None


def _digest_in(line: str | None) -> str:
    """Return the policy digest in the line of a policy event."""
    return str((object_in(line or "") or {}).get(POLICY_DIGEST, ""))


def _text_of(file: Path | None) -> list[str]:
    try:
        return [] if file is None else file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []  # Ignore the error: `configured_policy` reports it.


def _rules(policy: Policy) -> Iterator[tuple[ClassPolicy, str, Rule]]:
    for found in policy.classes.values():
        for kind, rules in (("allow", found.allow), ("deny", found.deny), ("addresses", found.addresses)):
            for rule in rules:
                yield found, kind, rule


def _uses_by_line(policy: Policy, uses: Uses) -> dict[int, list[str]]:
    by_line: dict[int, list[str]] = {}
    for found, kind, rule in _rules(policy):
        text = uses.text((found.name, rule.name)) or _unused(policy, found, kind, rule)
        if rule.line is not None and text:
            by_line.setdefault(rule.line, []).append(f"{rule.name.removeprefix('classes.')}: {text}")
    return by_line


def _unused(policy: Policy, found: ClassPolicy, kind: str, rule: Rule) -> str:
    """Return the text that the page shows for a rule without records."""
    if kind == "addresses":
        return ""  # The uses are unknown: records name the rule that allowed the host, not the exception.
    recorded = rule.host is not None and is_inspected(rule.host, policy.inspect)
    if kind == "deny" or found.log_tunnels or recorded:
        return "never used"
    return "no record, because log_tunnels is off"


def _others(policy: Policy, uses: Uses) -> list[tuple[str, str, str]]:
    known = {(found.name, rule.name) for found, _, rule in _rules(policy)}
    counts = uses.allowed + uses.refused + uses.reported
    return [(*key, uses.text(key)) for key, _ in counts.most_common() if key not in known and all(key)]
