"""The denials page: groups of denials with the rules that would allow them, and the allowed traffic per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import urlencode

from openclaw_egress.advice.remediation import Remedy, remedy_for
from openclaw_egress.recording.denials import ANY, Denial, DenialGroup, group_denials
from openclaw_egress.reports.denials import effect, short_clients
from openclaw_egress.reports.text import local_time
from openclaw_egress.reports.usage import NONE
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.ui import ranges

SINCE = "24h"
MAX_GROUPS = 500
"""Maximum number of groups on the page. The command `egress denials` lists all groups."""


MAX_HOSTS = 5
"""Maximum number of allowed hosts per class on the page."""

type Allowed = tuple[str, str, str]
"""Class, host and event of an exchange or a tunnel."""


@dataclass(frozen=True, slots=True)
class Found:
    """Denials of a period from the spool, and the allowed traffic of the same period."""

    denials: Sequence[Denial] = ()
    allowed: Mapping[Allowed, int] = field(default_factory=dict)
    """Number of exchanges or tunnels for each class, host and event."""
    oldest_ns: int | None = None
    """Time of the oldest line read, if the time limit ended the search; None if all lines were read."""


@dataclass(frozen=True, slots=True)
class HostView:
    """The number of exchanges and tunnels between one class and one host.

    Each entry of ``counts`` is for one kind of record: the number of records, the name of the kind, and the URL query
    that lists them.
    """

    host: str
    counts: Sequence[tuple[int, str, str]]


@dataclass(frozen=True, slots=True)
class ClassView:
    """The hosts that a class reached in the period, the most frequent first."""

    name: str
    hosts: Sequence[HostView]
    more_hosts: int
    """Number of omitted hosts. ``more`` is the number of exchanges and tunnels with these hosts."""
    more: int


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group of denials, formatted for display."""

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
    """URL query of the list that shows these records; empty if the denials concern the class as a whole."""


def read_denials(reader: SpoolReader, filters: Filters, clock: Callable[[], float]) -> Found:
    """Return the matching denials, and the allowed traffic of the same period and class."""
    # Allowed traffic must match only the period and the class. The other conditions select denials.
    period = Filters(since_ns=filters.since_ns, until_ns=filters.until_ns, class_name=filters.class_name)
    allowed: Counter[Allowed] = Counter()
    first, last = reader.find_range(filters.since_ns, filters.until_ns)
    newest_first: list[list[Denial]] = []
    low = first
    for low, top in ranges.newest_first(first, last + 1, clock):
        newest_first.append(list(reader.denials(filters.within(low, top))))
        for class_name, host, event, count in reader.allowed_counts(period.within(low, top)):
            allowed[class_name, host, event] += count
    found = list(chain.from_iterable(reversed(newest_first)))
    return Found(found, allowed, ranges.time_of(reader, low) if low > first else None)


def class_views(names: Sequence[str], allowed: Mapping[Allowed, int], period: Mapping[str, str]) -> list[ClassView]:
    """Return the allowed traffic of these classes, in the order of ``names``. Add ``period`` to the links."""
    by_class: dict[str, dict[str, dict[str, int]]] = {name: {} for name in names}
    for (name, host, event), count in allowed.items():
        if name in by_class:
            by_class[name].setdefault(host, {})[event] = count
    return [_class_view(name, hosts, period) for name, hosts in by_class.items()]


def _class_view(name: str, hosts: Mapping[str, Mapping[str, int]], period: Mapping[str, str]) -> ClassView:
    ordered = sorted(hosts.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    shown, others = ordered[:MAX_HOSTS], ordered[MAX_HOSTS:]
    views = [
        HostView(host or NONE, [_count(name, host, *one, period) for one in sorted(counts.items())])
        for host, counts in shown
    ]
    return ClassView(name, views, len(others), sum(sum(counts.values()) for _, counts in others))


def _count(name: str, host: str, event: str, count: int, period: Mapping[str, str]) -> tuple[int, str, str]:
    kind = event.rpartition(".")[2]
    named = {"class": name, "host": _literal(host), "event": kind, **period}
    return count, kind, urlencode({name: text for name, text in named.items() if text})


def group_views(denials: Sequence[Denial], is_own: Callable[[str], bool]) -> tuple[list[GroupView], int]:
    """Return the groups, the most frequent first, and the number of omitted groups."""
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
    """Return a GLOB pattern for SQLite that matches only this host."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in host)
