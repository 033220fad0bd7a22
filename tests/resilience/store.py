"""Theme store: the destination of records fails.

No request may be affected. After each fault, the destination must receive every line once and in order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

from openclaw_egress.spool.reader import SpoolReader
from tests.resilience import fixtures
from tests.resilience.load import Load, compared_for, warm
from tests.support.loki.fake import FakeLoki
from tests.support.proxy_process import RunningProxy
from tests.support.results import Result, at_most, exactly, reported

SECONDS = 2.0
SMALL_PUSH = 30_000
"""Maximum size in bytes of a push to a destination with a small limit. A record of this theme has about 3,000 bytes."""
GOAL_MEDIAN = 2.0
"""Maximum ratio of the median latency to that of a proxy without export. The exporter's thread may slow calls down."""
POISON = 3
"""Number of records that the destination refuses on every attempt."""


def faults(loki: FakeLoki) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Return the faults by name, each with the action that starts it and the action that ends it."""
    clear = loki.faults.clear
    on = {
        "slow": {"delay_s": 1.0},
        "429": {"status": 429},
        "500": {"status": 500},
        "500, but it has them": {"status": 500, "after_storing": True},
        "a reverse proxy's page": {"html": True},
        "reset": {"reset": True},
        "no answer": {"hang": True},
    }
    limits = loki.store.limits

    def small() -> None:
        loki.store.limits = replace(limits, request_bytes=SMALL_PUSH)

    def usual() -> None:
        loki.store.limits = limits

    return {
        "down": (loki.stop, loki.restart),
        **{name: (partial(loki.faults.set, **what), clear) for name, what in on.items()},
        "413": (small, usual),
        "poison": (partial(loki.faults.set, refuse_lines_matching="poisonous"), clear),
    }


def run(made: fixtures.Fixtures) -> Iterator[Result]:
    """Run one fault after the other, against one proxy and one destination."""
    loki = FakeLoki().start()
    # OTEL_EXPORTER_OTLP_TIMEOUT is the time in milliseconds after which the exporter aborts a push without a response.
    proxy = made.proxy(
        "store", OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{loki.url}/otlp/v1/logs", OTEL_EXPORTER_OTLP_TIMEOUT="1500"
    )
    try:
        with proxy, made.proxy("no-store") as control:
            warm(proxy, control)
            for name, (begin, end) in faults(loki).items():
                begin()
                load, quiet = compared_for(proxy, control, SECONDS)
                if name == "poison":
                    _poison(proxy)
                    fixtures.drained(proxy)
                end()
                came_back = time.monotonic()
                delivered = fixtures.drained(proxy, 40)
                yield exactly(f"store, {name}: calls that failed", len(load.failed), "calls", 0)
                yield at_most(f"store, {name}: median latency", load.median / quiet.median, "times", GOAL_MEDIAN)
                yield exactly(f"store, {name}: all delivered once it is back", int(delivered), "", 1)
                yield reported(f"store, {name}: time until then", time.monotonic() - came_back, "s")
            yield exactly("store, poison: dead letters", len(proxy.rows(state="dead_letter")), "lines", POISON)
        yield exactly("store: lines that differ or are out of order", _differences(proxy, loki), "lines", 0)
    finally:
        loki.stop()
    yield exactly("store: tracebacks in the proxy's log", proxy.log.count("Traceback"), "", 0)


def _poison(proxy: RunningProxy) -> None:
    load = Load(proxy)
    with proxy.client(headers={"x-api-key": "k"}) as http:
        for _ in range(POISON):
            load.call(http, more=" poisonous")


def _differences(proxy: RunningProxy, loki: FakeLoki) -> int:
    """Return the number of lines that are missing, different or out of order at the destination."""
    wanted = []
    dead = {row.seq for row in proxy.rows(state="dead_letter")}
    with SpoolReader(proxy.directory / "state" / "spool.db") as reader:
        ids = dict.fromkeys(row.id for row in proxy.rows() if row.id)
        wanted = [line for one in ids for line in reader.lines_for(one)]
    numbered = {json.loads(line)["seq"]: line for line in wanted}
    stored = [(json.loads(line)["seq"], line) for line in loki.lines("openclaw-proxy")]
    in_order = sum(later <= earlier for (earlier, _), (later, _) in pairwise(stored))
    got = dict(stored)
    missing = sum(got.get(seq) != line for seq, line in numbered.items() if seq not in dead)
    last = max(got, default=0)
    gaps = sum(seq not in got and seq not in dead for seq in range(1, last + 1))
    return in_order + missing + gaps
