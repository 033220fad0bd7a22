"""The memory budget for traffic: how much memory all classes together, and each class, may use. Pure arithmetic.

Half of the budget is guaranteed to the classes, in equal parts, so that no class can take the guaranteed part of
another class. The other half goes to the classes that request it first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from openclaw_egress.settings import LEAST_MEMORY_BUDGET

MIB = 1024 * 1024

DEFAULT_BUDGET = 256 * MIB
"""The budget, in bytes, if no cgroup limits the memory of the process."""

RESERVED = 128 * MIB
"""Bytes that the process itself needs: interpreter, libraries, SQLite's cache, one batch of the exporter."""

REQUEST_SHARE = 0.7
"""Fraction of the memory available to a class that its requests may use.

The remaining memory is for responses, because they end exchanges and thus free memory.
"""

_UNLIMITED = 1 << 46


class MemoryBudget:
    """The bytes that each class holds, and their limits.

    Args:
        limit: bytes that all classes may hold together.
        class_names: returns the names of the classes, which a policy reload can change.
    """

    def __init__(self, limit: int, class_names: Callable[[], Collection[str]]) -> None:
        self.limit = limit
        self._class_names = class_names
        self._used: Counter[str] = Counter()

    @property
    def guarantee(self) -> int:
        """Return how many bytes each class may hold at any time, even if the other classes hold their maximum."""
        return self.limit // 2 // max(1, len(self._class_names()))

    @property
    def total(self) -> int:
        """Return how many bytes of memory all classes hold together."""
        return self._used.total()

    def used(self, class_name: str) -> int:
        """Return how many bytes of memory a class holds."""
        return self._used[class_name]

    def room(self, class_name: str) -> int:
        """Return how many bytes a class may hold now: the limit minus the bytes held by or guaranteed to others."""
        guarantee = self.guarantee
        others = {*self._class_names(), *self._used} - {class_name}
        return max(guarantee, self.limit - sum(max(self._used[other], guarantee) for other in others))

    def fits(self, class_name: str, more: int, *, request: bool = False) -> bool:
        """Return whether a class may hold ``more`` additional bytes now.

        If ``request`` is True, the bytes are for a request: requests may use only the fraction `REQUEST_SHARE`.
        """
        share = REQUEST_SHARE if request else 1.0
        wanted = self._used[class_name] + more
        # Compare with the guarantee first, because it is cheaper to compute than `room`, and never larger.
        return more <= 0 or wanted <= self.guarantee * share or wanted <= self.room(class_name) * share

    def possible(self, class_name: str, size: int, *, request: bool = False) -> bool:
        """Return whether ``size`` bytes would fit if no other class held memory."""
        names = {*self._class_names(), class_name}
        most = self.limit - self.guarantee * (len(names) - 1)
        return size <= (most * REQUEST_SHARE if request else most)

    def add(self, class_name: str, more: int) -> None:
        """Add ``more`` bytes, which may be negative, to the bytes that a class holds."""
        self._used[class_name] += more
        if not self._used[class_name]:
            del self._used[class_name]

    def report(self) -> dict[str, dict[str, int]]:
        """Return for each class the number of bytes that it holds, and the number that it may hold now."""
        return {
            name: {"used_bytes": self._used[name], "room_bytes": self.room(name)}
            for name in sorted({*self._class_names(), *list(self._used)})
        }


def default_budget(limit: int | None) -> int:
    """Return the default budget for a memory limit: half of the memory that remains after `RESERVED`.

    The other half is for short-lived copies, for the allocator's buffers and for page tables.
    """
    return DEFAULT_BUDGET if limit is None else max(LEAST_MEMORY_BUDGET, (limit - RESERVED) // 2)


def container_limit(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the smallest memory limit of the process's cgroups (v1 or v2) and their parents, or None if unlimited."""
    limits: list[int] = []
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            limits += _limits(root, path, "memory.max") + _limits(root / "unified", path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(root / "memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits(mount: Path, path: str, name: str) -> list[int]:
    """Return the limits of a cgroup and of all its parents.

    In a container, the path can name a cgroup of the host that is not mounted. The root of the mount is then the
    container's cgroup, so its limit is read, too.
    """
    found: list[int] = []
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts) + 1):
        try:
            text = mount.joinpath(*parts[:length], name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _UNLIMITED:
            found.append(int(text))
    return found
