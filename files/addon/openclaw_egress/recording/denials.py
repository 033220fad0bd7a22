"""Rate limit for denial records, so that a client in a loop cannot fill the spool. Further denials are summarised.

`group_denials` combines single records and summaries. This module does no I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from openclaw_egress.policy.codes import ANY, UNKNOWN, Code

__all__ = ["ANY", "UNKNOWN", "Denial", "DenialGroup", "DenialRate", "Key", "group_denials"]

WINDOW_SECONDS = 60.0
SINGLY_PER_KEY = 10
"""Maximum number of single records per window for one class, destination and rule."""
SINGLY_PER_CLASS = 300
"""Maximum number of single records per window for one class. A client in a loop may use a new name each time."""
MAX_KEYS = 10_000


class Key(NamedTuple):
    """Key under which denials are counted together. In the key of a whole class, host and rule are `ANY`."""

    class_name: str
    host: str
    port: int
    rule: str
    code: str
    enforced: bool = True
    """False if the denial was only reported. Reports are counted separately, because `policy suggest` uses them."""
    status: int | None = None
    """HTTP status of the denied requests, for the summary."""
    reason: str = ""
    """Reason, set only if the destination is `UNKNOWN`, so that such denials are counted separately by reason."""

    @classmethod
    def of_class(cls, class_name: str, *, enforced: bool) -> Key:
        """Return the key under which all denials of a class are counted together."""
        return cls(class_name, ANY, 0, ANY, Code.VARIOUS, enforced)


@dataclass(slots=True)
class _Window:
    since: float
    singly: int = 0
    more: int = 0


class DenialRate:
    """Rate limiter that decides which denials get their own record, and counts the others per window.

    Times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[Key, _Window] = OrderedDict()
        self._over: list[tuple[Key, int]] = []

    def singly(self, key: Key, now: float) -> bool:
        """Return whether this denial gets its own record. If not, count it for the summary."""
        whole_class = Key.of_class(key.class_name, enforced=key.enforced)
        if not self._take(key, SINGLY_PER_KEY, now):
            return False
        return self._take(whole_class, SINGLY_PER_CLASS, now)

    def due(self, now: float, *, everything: bool = False) -> list[tuple[Key, int]]:
        """Return the counts of ended windows, and forget them. If ``everything`` is True, end all windows first."""
        for key in [key for key, window in self._windows.items() if everything or now - window.since > WINDOW_SECONDS]:
            self._close(key)
        due, self._over = self._over, []
        return due

    def _take(self, key: Key, limit: int, now: float) -> bool:
        window = self._windows.get(key)
        if window is not None and now - window.since > WINDOW_SECONDS:
            self._close(key)
            window = None
        if window is None:
            window = self._windows[key] = _Window(now)
            if len(self._windows) > MAX_KEYS:
                self._close(next(iter(self._windows)))
        if window.singly < limit:
            window.singly += 1
            return True
        window.more += 1
        return False

    def _close(self, key: Key) -> None:
        window = self._windows.pop(key)
        if window.more:
            self._over.append((key, window.more))


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One record of a denial, or the summary of ``count`` denials.

    In the summary of a whole class, ``host`` is `ANY` and ``port`` is 0. ``port`` is also 0 if the client named no
    valid destination. ``method`` and ``url`` are None if unknown.
    """

    class_name: str
    host: str
    port: int
    rule: str
    reason: str
    time_ns: int
    code: str = ""
    """One of `codes.Code`; empty in records of old versions, which had no codes."""
    address: str | None = None
    """The refused address, if one is known."""
    count: int = 1
    summary: bool = False
    """Whether the record is a summary."""
    enforced: bool = True
    method: str | None = None
    url: str | None = None
    client: str | None = None


@dataclass(slots=True, kw_only=True)
class DenialGroup:
    """All denials of one class, destination and rule.

    ``reason``, ``code`` and ``address`` come from the newest single record, or from a summary if there is none.
    """

    class_name: str
    host: str
    port: int
    rule: str
    reason: str = ""
    code: str = ""
    address: str | None = None
    enforced: int = 0
    """Number of enforced denials. ``reported`` is the number of requests that were allowed, but reported as denials."""
    reported: int = 0
    last_ns: int = 0
    clients: list[str] = field(default_factory=list)
    """Known addresses of clients, in order of arrival."""
    _told_ns: int = -1

    @property
    def count(self) -> int:
        """Return the number of enforced and reported denials."""
        return self.enforced + self.reported

    @property
    def destination(self) -> str:
        """Return ``host:port``, or `ANY` for a whole class, or the client's text if it is not a valid destination."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else self.host

    def add(self, denial: Denial) -> None:
        """Add one record to this group."""
        if denial.enforced:
            self.enforced += denial.count
        else:
            self.reported += denial.count
        told_ns = -1 if denial.summary else denial.time_ns
        if told_ns >= self._told_ns:
            self.reason, self.code, self.address = denial.reason, denial.code, denial.address
            self._told_ns = told_ns
        self.last_ns = max(self.last_ns, denial.time_ns)
        if denial.client and denial.client not in self.clients:
            self.clients.append(denial.client)


def group_denials(denials: Iterable[Denial]) -> list[DenialGroup]:
    """Return denials grouped by class, destination and rule, sorted by count and then by time, both descending."""
    groups: dict[tuple[str, str, int, str], DenialGroup] = {}
    for denial in denials:
        key = (denial.class_name, denial.host, denial.port, denial.rule)
        if key not in groups:
            groups[key] = DenialGroup(
                class_name=denial.class_name, host=denial.host, port=denial.port, rule=denial.rule
            )
        groups[key].add(denial)
    return sorted(groups.values(), key=lambda group: (-group.count, -group.last_ns))
