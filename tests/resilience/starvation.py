"""Theme starvation: sandboxes and browsers flood the proxy. The gateway's LLM calls must succeed and be recorded."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from tests.resilience import fixtures
from tests.resilience.floods import FLOODS
from tests.resilience.load import Load, compared_for, warm
from tests.support.proxy_process import RunningProxy, free_ports
from tests.support.results import Result, at_least, at_most, exactly

SECONDS = 4.0
LEAD_SECONDS = 1.0
"""Seconds between the start of a flood and the first measured call."""

GOAL_MEDIAN, GOAL_WORST = 5.0, 10.0
"""Maximum ratios of call times: flooded proxy to control proxy, for the median and for the slowest call.

One event loop serves all classes. While a flood keeps it busy, each step of a call waits for one step of every other
class.
"""

CALLS_AT_LEAST = 10

GOAL_MEGABYTES = 320.0
"""Maximum growth of the proxy's memory under floods.

Two classes may have 256 connections each. One connection may hold 512 KiB of data: 128 KiB unread, 64 KiB in
processing, 320 KiB queued. The container has 512 MB by default, and the proxy itself uses 80 MB of it.
"""


def run(made: fixtures.Fixtures) -> Iterator[Result]:
    """Run each flood in turn against one proxy. Compare its calls with those through a second proxy without a flood."""
    sink = free_ports(1)[0]
    with made.proxy("flooded", [sink]) as proxy, made.proxy("not-flooded") as control:
        warm(proxy, control)
        memory, open_files = fixtures.megabytes(proxy), fixtures.descriptors(proxy)
        fixtures.forget_peak(proxy)
        for name in FLOODS:
            (load, quiet), connections = _under(name, proxy, control, sink)
            yield at_least(f"starvation, {name}: connections of the flood", connections, "", 100)
            yield at_least(
                f"starvation, {name}: complete calls during the flood", len(load.responded), "calls", CALLS_AT_LEAST
            )
            yield exactly(f"starvation, {name}: calls that failed", len(load.failed), "calls", 0)
            yield exactly(f"starvation, {name}: calls not recorded exactly once", len(load.not_kept_once()), "calls", 0)
            yield at_most(f"starvation, {name}: median latency", load.median / quiet.median, "times", GOAL_MEDIAN)
            yield at_most(f"starvation, {name}: worst latency", load.worst / quiet.worst, "times", GOAL_WORST)
        yield at_most("starvation: memory added", fixtures.megabytes(proxy, peak=True) - memory, "MB", GOAL_MEGABYTES)
        fixtures.wait_until(lambda: fixtures.descriptors(proxy) <= open_files, 20)
        yield at_most("starvation: descriptors left open", fixtures.descriptors(proxy) - open_files, "", 0)
    yield exactly("starvation: tracebacks in the log", proxy.log.count("Traceback"), "", 0)


def _under(name: str, proxy: RunningProxy, control: RunningProxy, sink: int) -> tuple[tuple[Load, Load], int]:
    listeners = [str(proxy.ports[class_name]) for class_name in fixtures.NOISY]
    seconds = str(LEAD_SECONDS + SECONDS + 1)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.resilience.floods", name, seconds, str(sink), *listeners],
        stdout=subprocess.PIPE,
        text=True,
    ) as flood:
        assert flood.stdout is not None
        flood.stdout.readline()
        time.sleep(LEAD_SECONDS)
        loads = compared_for(proxy, control, SECONDS)
        return loads, int(flood.stdout.readline() or 0)
