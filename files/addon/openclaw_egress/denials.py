"""How denials are kept: singly up to a rate, beyond it as a number, so that a loop cannot push exchanges out. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

WINDOW_SECONDS = 60.0
SINGLY_PER_KEY = 10
"""Denials of one class, destination and rule that are kept singly in a window."""
SINGLY_PER_CLASS = 300
"""…and of one class, whatever it asked for: a loop over ever new names is a loop too."""
MAX_KEYS = 10_000
ANY = "*"


class Key(NamedTuple):
    """What denials are counted by. In the count of a whole class, destination and rule are `ANY`."""

    class_name: str
    destination: str
    rule: str


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
        whole_class = Key(key.class_name, ANY, ANY)
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
