"""Theme clock: the host's clock jumps. Calls must succeed, and timestamps in the hash chain must only increase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from openclaw_egress.spool.reader import SpoolReader
from tests.resilience import fixtures
from tests.resilience.load import Load
from tests.support.loki.fake import FakeLoki
from tests.support.results import Result, at_least, exactly, reported

HOUR = 3600
BACK = (0, -5, -2 * HOUR, 0)
"""Clock offsets in seconds, in this order: correct, slightly back, far back, correct again."""
AHEAD = (0, HOUR, 0)
SECONDS = 1.5


def run(made: fixtures.Fixtures) -> Iterator[Result]:
    """Set the clock back. Then set it ahead and back while the destination refuses records from the future."""
    yield from _jumps(made, "back", BACK, delivers=True)
    yield from _jumps(made, "ahead", AHEAD, delivers=False)


def _jumps(made: fixtures.Fixtures, name: str, offsets: tuple[int, ...], *, delivers: bool) -> Iterator[Result]:
    clock = made.directory / f"{name}.offset"
    with FakeLoki() as loki:
        proxy = made.proxy(
            f"clock-{name}",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{loki.url}/otlp/v1/logs",
            CHAOS_CLOCK_FILE=str(clock),
        )
        _set(clock, offsets[0])
        load = Load(proxy)
        with proxy:
            for offset in offsets:
                _set(clock, offset)
                with load.running():
                    time.sleep(SECONDS)
            delivered = fixtures.drained(proxy, 10 if delivers else 1)
            # Lines with a timestamp in the future must wait. They must not delay later lines with a correct timestamp.
            waiting = len(proxy.rows(state="pending"))
            newest = max((row.seq for row in proxy.rows(state="acknowledged")), default=0)
            passed = sum(row.seq < newest for row in proxy.rows(state="pending"))
            dead = len(proxy.rows(state="dead_letter"))
        yield at_least(f"clock, {name}: calls", len(load.responded), "calls", 50)
        yield exactly(f"clock, {name}: calls that failed", len(load.failed), "calls", 0)
        yield exactly(f"clock, {name}: calls not recorded exactly once", len(load.not_kept_once()), "calls", 0)
        with SpoolReader(proxy.directory / "state" / "spool.db") as reader:
            yield exactly(f"clock, {name}: problems in the chain", len(reader.audit().problems), "", 0)
        yield exactly(f"clock, {name}: dead letters", dead, "lines", 0)
        if delivers:
            yield exactly(f"clock, {name}: all delivered", int(delivered), "", 1)
        else:
            yield reported(f"clock, {name}: lines that wait because their time is in the future", waiting, "lines")
            yield at_least(f"clock, {name}: later lines that were sent before them", passed, "lines", 1)
    yield exactly(f"clock, {name}: tracebacks in the log", proxy.log.count("Traceback"), "", 0)


def _set(clock: Path, offset: int) -> None:
    new = clock.with_suffix(".new")
    new.write_text(str(offset))
    new.replace(clock)
