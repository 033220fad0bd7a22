"""Simulation of many proxies that send their records to one destination with a limit, such as a stock Loki.

    python -m tools.scale --proxies 1000 --exchanges-per-hour 60 --bytes-per-exchange 105000 --outage-hours 1

Each proxy writes records at a constant rate, and sends them as the exporter does: at most 2 MB a push, at its pace, and
with growing random pauses after a refusal. The destination is a token bucket, as Loki's ingestion limit is. It is down
at first; then the proxies send their backlogs. Nothing is sent over a network.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from openclaw_egress.export.exporter import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, MAX_PUSH_BYTES
from openclaw_egress.export.pace import Pace

HOUR = 3600.0
MEGABYTE = 10**6
# Stop the simulation after this time. A destination that has not caught up by then needs a higher limit.
LONGEST_HOURS = 24.0


@dataclass(frozen=True)
class Fleet:
    """Proxies with the same load.

    ``pace`` is the largest rate of one proxy's export in bytes per second (EGRESS_EXPORT_MAX_BYTES_PER_SECOND); 0 is
    no limit.
    """

    proxies: int
    exchanges_per_hour: float
    bytes_per_exchange: float
    pace: int

    @property
    def bytes_per_second(self) -> float:
        """Return the rate at which one proxy writes records."""
        return self.exchanges_per_hour * self.bytes_per_exchange / HOUR


@dataclass(frozen=True)
class Destination:
    """Limits in bytes per second and bytes, as ``ingestion_rate_mb`` and ``ingestion_burst_size_mb`` of Loki."""

    rate: float
    burst: float


@dataclass(frozen=True)
class Outcome:
    """Result of a simulation. Times are hours since the end of the outage; ``None`` means that it did not happen."""

    offered_megabytes_per_second: float
    share_of_limit: float
    gigabytes_per_day: float
    backlog_gigabytes: float
    hours_to_catch_up: float | None
    refused_pushes: float
    """Share of the pushes that the destination refused."""
    oldest_hours: float
    """Largest age of a record when the destination accepted it."""


def simulate(fleet: Fleet, destination: Destination, outage_hours: float, seed: int = 1) -> Outcome:
    """Simulate the time after an outage until every proxy has sent its backlog, at most `LONGEST_HOURS`."""
    draw = random.Random(seed)
    rate, interval, now = fleet.bytes_per_second, HOUR / fleet.exchanges_per_hour, outage_hours * HOUR
    clock = _Clock(now)
    proxies = [_Proxy(Pace(fleet.pace, clock)) for _ in range(fleet.proxies)]
    # During an outage, each exporter has reached its longest pause, so the proxies return at random times.
    queue = [(now + draw.random() * MAX_PAUSE_SECONDS, number) for number in range(fleet.proxies)]
    heapq.heapify(queue)
    tokens, filled, behind = destination.burst, now, fleet.proxies
    sent = refused = 0
    oldest, end = 0.0, now + LONGEST_HOURS * HOUR
    while queue and behind and queue[0][0] < end:
        clock.now, number = heapq.heappop(queue)
        proxy = proxies[number]
        size = min(float(MAX_PUSH_BYTES), rate * clock.now - proxy.sent)
        tokens = min(destination.burst, tokens + (clock.now - filled) * destination.rate)
        filled = clock.now
        proxy.pace.spend(int(size))
        if size > tokens:
            refused += 1
            proxy.failures += 1
            longest = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(proxy.failures, 16))
            heapq.heappush(queue, (clock.now + max(longest * draw.random(), proxy.pace.delay()), number))
            continue
        tokens -= size
        sent += 1
        proxy.failures = 0
        oldest = max(oldest, clock.now - proxy.sent / rate)
        proxy.sent += size
        if size < MAX_PUSH_BYTES and not proxy.caught_up:
            proxy.caught_up = True
            behind -= 1
        # Without a backlog, a proxy sends each exchange when it ends.
        heapq.heappush(queue, (clock.now + max(interval if proxy.caught_up else 0.001, proxy.pace.delay()), number))
    offered = fleet.proxies * rate
    return Outcome(
        offered_megabytes_per_second=offered / MEGABYTE,
        share_of_limit=offered / destination.rate,
        gigabytes_per_day=offered * 24 * HOUR / 10**9,
        backlog_gigabytes=offered * now / 10**9,
        hours_to_catch_up=None if behind else (clock.now - now) / HOUR,
        refused_pushes=refused / max(1, sent + refused),
        oldest_hours=oldest / HOUR,
    )


class _Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class _Proxy:
    pace: Pace
    sent: float = 0.0
    failures: int = 0
    caught_up: bool = False


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.scale", description="Simulate many proxies on one destination."
    )
    parser.add_argument("--proxies", type=int, default=1000, metavar="N", help="number of proxies (1000)")
    parser.add_argument("--exchanges-per-hour", type=float, default=60, metavar="N", help="exchanges of one proxy (60)")
    parser.add_argument(
        "--bytes-per-exchange", type=float, default=104_000, metavar="N", help="size of an exchange's record (104000)"
    )
    parser.add_argument(
        "--pace", type=int, default=2_500_000, metavar="N", help="largest export rate of a proxy (2500000)"
    )
    parser.add_argument("--rate-mb", type=float, default=4, metavar="N", help="limit of the destination in MiB/s (4)")
    parser.add_argument("--burst-mb", type=float, default=6, metavar="N", help="burst of the destination in MiB (6)")
    parser.add_argument("--outage-hours", type=float, default=1, metavar="N", help="duration of the outage (1)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(words)
    for name in ("proxies", "exchanges_per_hour", "bytes_per_exchange", "rate_mb", "burst_mb"):
        if getattr(arguments, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be greater than 0")
    if arguments.pace < 0 or arguments.outage_hours < 0:
        parser.error("--pace and --outage-hours must not be negative")
    if arguments.burst_mb * 2**20 < MAX_PUSH_BYTES:
        parser.error(f"--burst-mb must be at least {MAX_PUSH_BYTES / 2**20:.1f}: a larger push is refused forever")
    return arguments


def _table(outcome: Outcome) -> str:
    hours = outcome.hours_to_catch_up
    rows = [
        ("records of all proxies", f"{outcome.offered_megabytes_per_second:.2f} MB/s"),
        ("share of the destination's limit", f"{outcome.share_of_limit:.0%}"),
        ("records of a day", f"{outcome.gigabytes_per_day:.1f} GB"),
        ("backlog after the outage", f"{outcome.backlog_gigabytes:.2f} GB"),
        ("backlog is sent after", f"more than {LONGEST_HOURS:g} h" if hours is None else f"{hours:.2f} h"),
        ("refused pushes", f"{outcome.refused_pushes:.0%}"),
        ("age of the oldest record on arrival", f"{outcome.oldest_hours:.2f} h"),
    ]
    return "\n".join(f"{name:<36} {value:>16}" for name, value in rows)


def main(words: Sequence[str]) -> int:
    """Print the outcome. Return 0 if the destination catches up, otherwise 1."""
    given = _arguments(words)
    fleet = Fleet(given.proxies, given.exchanges_per_hour, given.bytes_per_exchange, given.pace)
    outcome = simulate(fleet, Destination(given.rate_mb * 2**20, given.burst_mb * 2**20), given.outage_hours)
    print(json.dumps(asdict(outcome)) if given.json else _table(outcome))
    return 1 if outcome.hours_to_catch_up is None else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
