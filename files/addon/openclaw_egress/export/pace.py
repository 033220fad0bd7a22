"""The pace of the export: a token bucket whose burst is one push.

A backlog that is sent as fast as possible exceeds the limits of Loki. Loki refuses pushes above ``ingestion_rate_mb``.
Above ``per_stream_rate_limit``, Loki can drop lines and still accept the push with 204, because the result of one shard
of a stream replaces the error of another. Only a pace below both limits prevents that.
"""

from __future__ import annotations

from collections.abc import Callable


class Pace:
    """A limit of bytes per second for pushes of any size.

    After a push of N bytes, the next one must wait N / ``bytes_per_second`` seconds. In any period, the bytes therefore
    exceed the limit by at most one push.

    Args:
        bytes_per_second: the limit; 0 is no limit.
        clock: returns monotonic seconds.
    """

    def __init__(self, bytes_per_second: int, clock: Callable[[], float]) -> None:
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        self._clock = clock
        self._next = clock()

    def delay(self) -> float:
        """Return the seconds until the next push may be sent."""
        return max(0.0, self._next - self._clock())

    def spend(self, size: int) -> None:
        """Count the bytes of a push that begins now, whether or not the destination will accept it."""
        self._next = max(self._next, self._clock()) + size * self._seconds_per_byte
