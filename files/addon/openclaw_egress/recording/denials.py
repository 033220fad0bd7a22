"""How denials are kept: singly up to a rate, beyond it as a number, so that a loop cannot push exchanges out.

And how they are put together again: what was kept singly and what was only counted, by what was asked for. Pure.
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
"""Denials of one class, destination and rule that are kept singly in a window."""
SINGLY_PER_CLASS = 300
"""…and of one class, whatever it asked for: a loop over ever new names is a loop too."""
MAX_KEYS = 10_000


class Key(NamedTuple):
    """What denials are counted by. In the count of a whole class, host and rule are `ANY`."""

    class_name: str
    host: str
    port: int
    rule: str
    code: str
    enforced: bool = True
    """False: only reported. Apart, because a policy for `enforce` is made from what `report` let through."""
    status: int | None = None
    """HTTP status of the refusal, so that a summary can have it too."""
    reason: str = ""
    """Only where the destination is `UNKNOWN`: reasons are fixed texts then, and are counted apart."""

    @classmethod
    def of_class(cls, class_name: str, *, enforced: bool) -> Key:
        """Return the key by which a whole class is counted."""
        return cls(class_name, ANY, 0, ANY, Code.VARIOUS, enforced)


@dataclass(slots=True)
class _Window:
    since: float
    singly: int = 0
    more: int = 0


class DenialRate:
    """Says of each denial whether it is kept singly, and gives what was only counted when its window is over.

    Times are seconds of a clock that only goes forward.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[Key, _Window] = OrderedDict()
        self._over: list[tuple[Key, int]] = []

    def singly(self, key: Key, now: float) -> bool:
        """Whether this denial is to be recorded by itself; otherwise it is counted."""
        whole_class = Key.of_class(key.class_name, enforced=key.enforced)
        if not self._take(key, SINGLY_PER_KEY, now):
            return False
        return self._take(whole_class, SINGLY_PER_CLASS, now)

    def due(self, now: float, *, everything: bool = False) -> list[tuple[Key, int]]:
        """Counts whose window is over (or all, when the proxy ends), each given once."""
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
    """One record of a denial, or of ``count`` denials that were not kept singly.

    ``host`` is `ANY` where it is about the class as a whole; ``port`` is 0 there, and where what was asked for is no
    destination. ``method`` and ``url`` are None where they are not known.
    """

    class_name: str
    host: str
    port: int
    rule: str
    reason: str
    time_ns: int
    code: str = ""
    """One of `codes.Code`; empty in records of versions that had none."""
    address: str | None = None
    """The address that the decision was about, where the name has one."""
    count: int = 1
    summary: bool = False
    """Stands for denials that were only counted."""
    enforced: bool = True
    method: str | None = None
    url: str | None = None
    client: str | None = None


@dataclass(slots=True, kw_only=True)
class DenialGroup:
    """All denials of one class, destination and rule; ``reason``, ``code`` and ``address`` are of the newest.

    A summary gives them only where no single record does.
    """

    class_name: str
    host: str
    port: int
    rule: str
    reason: str = ""
    code: str = ""
    address: str | None = None
    enforced: int = 0
    """How many were refused; ``reported`` were let through, and `enforce` would have refused them."""
    reported: int = 0
    last_ns: int = 0
    clients: list[str] = field(default_factory=list)
    """Addresses of the clients that are known, in the order in which they came."""
    _told_ns: int = -1

    @property
    def count(self) -> int:
        """All of them."""
        return self.enforced + self.reported

    @property
    def destination(self) -> str:
        """``host:port``; `ANY` for the class as a whole; as asked for where that is no destination."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else self.host

    def add(self, denial: Denial) -> None:
        """Count one more record of this group."""
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
    """Denials by class, destination and rule; the most frequent first, of equals the newest."""
    groups: dict[tuple[str, str, int, str], DenialGroup] = {}
    for denial in denials:
        key = (denial.class_name, denial.host, denial.port, denial.rule)
        if key not in groups:
            groups[key] = DenialGroup(
                class_name=denial.class_name, host=denial.host, port=denial.port, rule=denial.rule
            )
        groups[key].add(denial)
    return sorted(groups.values(), key=lambda group: (-group.count, -group.last_ns))
