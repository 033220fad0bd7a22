"""The denials of a period: grouped, each with the rule that would allow it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from urllib.parse import urlencode

from openclaw_egress.advice.remediation import Remedy, remedy_for
from openclaw_egress.recording.denials import ANY, Denial, DenialGroup, group_denials
from openclaw_egress.reports.denials import effect, short_clients
from openclaw_egress.reports.text import local_time
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.ui import ranges

SINCE = "24h"
MAX_GROUPS = 500
"""Groups on the page; the command `egress denials` lists all."""


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group of denials, as texts for people."""

    count: int
    last: str
    class_name: str
    clients: str
    destination: str
    rule: str
    reason: str
    code: str
    effect: str
    remedy: Remedy
    records: str
    """Query of the list with these records; empty if the group has no destination of its own."""


def read_denials(reader: SpoolReader, filters: Filters, clock: Callable[[], float]) -> tuple[list[Denial], int | None]:
    """Return the denials that match, and the time of the oldest line read if not all could be read in time."""
    first, last = reader.find_range(filters.since_ns, filters.until_ns)
    newest_first: list[list[Denial]] = []
    low = first
    for low, top in ranges.newest_first(first, last + 1, clock):
        newest_first.append(list(reader.denials(filters.within(low, top))))
    found = list(chain.from_iterable(reversed(newest_first)))
    return found, ranges.time_of(reader, low) if low > first else None


def group_views(denials: Sequence[Denial], is_own: Callable[[str], bool]) -> tuple[list[GroupView], int]:
    """Return the groups, the most frequent first, and the number of groups left out."""
    groups = group_denials(denials)
    shown = groups[:MAX_GROUPS]
    return [_view(group, remedy_for(group, is_own)) for group in shown], len(groups) - len(shown)


def _view(group: DenialGroup, remedy: Remedy) -> GroupView:
    named = {"class": group.class_name, "host": _literal(group.host), "code": group.code, "event": "denied"}
    return GroupView(
        count=group.count,
        last=local_time(group.last_ns),
        class_name=group.class_name,
        clients=short_clients(group.clients),
        destination=group.destination,
        rule=group.rule,
        reason=group.reason,
        code=group.code,
        effect=effect(group),
        remedy=remedy,
        records="" if group.host == ANY else urlencode({name: text for name, text in named.items() if text}),
    )


def _literal(host: str) -> str:
    """Return a host as a pattern that matches only it (SQLite's GLOB)."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in host)
