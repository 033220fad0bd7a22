"""A token bucket: how often a class may ask. Pure; times are seconds of a clock that only goes forward."""

from __future__ import annotations


class Rate:
    """So many a minute, of which a tenth (one at least) may come at once."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._room = max(1.0, per_minute / 10)
        self._tokens = self._room
        self._at: float | None = None

    def take(self, now: float) -> float:
        """0.0 where this one may pass; else the seconds after which the next may."""
        per_second = self.per_minute / 60
        if self._at is not None:
            self._tokens = min(self._room, self._tokens + (now - self._at) * per_second)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / per_second
        self._tokens -= 1
        return 0.0
