"""A token bucket that limits the requests of a class. Callers pass the time, in seconds of a monotonic clock."""

from __future__ import annotations


class Rate:
    """A limit of requests per minute. A burst may contain a tenth of the limit, but always at least one request."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._room = max(1.0, per_minute / 10)
        self._tokens = self._room
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Return 0.0 if this request may pass, otherwise the seconds until the next one may."""
        per_second = self.per_minute / 60
        if self._at is not None:
            self._tokens = min(self._room, self._tokens + (now - self._at) * per_second)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / per_second
        self._tokens -= 1
        return 0.0
