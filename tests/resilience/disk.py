"""Theme disk: the spool reaches its size limit, and the disk becomes full.

A full spool must behave as EGRESS_SPOOL_FULL says. On a full disk, the proxy must refuse requests that it cannot
record. It must recover from both. As root, the theme uses a small tmpfs; for other users, it limits the file size.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx

from openclaw_egress.recording import semconv
from openclaw_egress.spool.reader import SpoolReader
from tests.resilience import fixtures
from tests.resilience.load import Load
from tests.support import llm_calls
from tests.support.loki.fake import FakeLoki
from tests.support.proxy_process import RunningProxy
from tests.support.results import Result, at_least, at_most, exactly, reported

LIMIT = 1_048_576
LONG = " " + "x" * 60_000
CALLS = 40
FEW = 3
DISK_MEGABYTES = 8
GOAL_LOG_LINES = 3.0
"""Maximum number of log lines for a refused request."""


def run(made: fixtures.Fixtures) -> Iterator[Result]:
    """Fill the spool with each value of EGRESS_SPOOL_FULL, then fill the disk."""
    yield from _drops_the_oldest(made)
    yield from _blocks(made)
    yield from _full_disk(made)
    yield from _full_of_acknowledged(made)


def calls(proxy: RunningProxy, count: int, class_name: str = "gateway", more: str = "") -> Load:
    """Send LLM calls through a class's listener, one after the other. Add the text ``more`` to each prompt."""
    load = Load(proxy)
    with proxy.client(class_name, headers={"x-api-key": "k"}) as http:
        for _ in range(count):
            load.call(http, more)
    return load


def _site(proxy: RunningProxy, made: fixtures.Fixtures) -> int:
    """Request a site through a tunnel. Return the status code; 0 without a response."""
    try:
        with proxy.client("browser", ca=made.providers.ca_file) as http:
            return http.get(proxy.url("www.example.com", "/")).status_code
    except httpx.HTTPError:
        return 0


@contextlib.contextmanager
def _store_that_refuses() -> Iterator[FakeLoki]:
    with FakeLoki() as loki:
        loki.faults.set(status=503)
        yield loki


def _limited(made: fixtures.Fixtures, name: str, loki: FakeLoki) -> RunningProxy:
    return made.proxy(
        name,
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{loki.url}/otlp/v1/logs",
        EGRESS_SPOOL_MAX_BYTES=str(LIMIT),
        EGRESS_SPOOL_FULL=name,
    )


def _drops_the_oldest(made: fixtures.Fixtures) -> Iterator[Result]:
    with _store_that_refuses() as loki, _limited(made, "drop_oldest", loki) as proxy:
        few = calls(proxy, FEW)
        many = calls(proxy, CALLS, "build", LONG)
        again = calls(proxy, FEW)
        report = proxy.ask("/readyz")
        assert report is not None
        spool = report["spool"]
        rows = proxy.rows()
        yield exactly(
            "disk, drop_oldest: calls that failed", len([*few.failed, *many.failed, *again.failed]), "calls", 0
        )
        yield at_most(
            "disk, drop_oldest: size of the spool relative to its limit", spool["used_bytes"] / LIMIT, "times", 1.0
        )
        yield at_least("disk, drop_oldest: lines dropped", spool["dropped_lines"], "lines", CALLS // 2)
        result = sum(row.event_name == semconv.EVENT_SPOOL for row in rows)
        yield at_least("disk, drop_oldest: log lines that report dropped records", result, "lines", 1)
        gone = spool["last_seq"] - len(rows)
        yield exactly("disk, drop_oldest: lost lines not counted as dropped", gone - spool["dropped_lines"], "lines", 0)
        lost = {*few.responded, *again.responded} - {number for number, _ in llm_calls.kept(proxy)}
        yield exactly("disk, drop_oldest: dropped lines of the other class", len(lost), "calls lost", 0)
        loki.faults.clear()
        yield exactly("disk, drop_oldest: remaining lines are delivered", int(fixtures.drained(proxy)), "", 1)
        yield exactly("disk, drop_oldest: errors in the hash chain", _problems(proxy), "", 0)


def _blocks(made: fixtures.Fixtures) -> Iterator[Result]:
    with _store_that_refuses() as loki, _limited(made, "block", loki) as proxy:
        full = calls(proxy, CALLS, more=LONG)
        why = Counter(full.failed.values())
        yield at_least("disk, block: calls refused with 503", why["status 503"], "calls", CALLS // 4)
        yield exactly("disk, block: calls that failed in another way", why.total() - why["status 503"], "calls", 0)
        yield exactly("disk, block: complete calls not recorded exactly once", len(full.not_kept_once()), "calls", 0)
        yield exactly("disk, block: status of a tunnelled site", _site(proxy, made), "", 200)
        loki.faults.clear()
        yield exactly("disk, block: all lines are delivered", int(fixtures.drained(proxy)), "", 1)
        yield exactly("disk, block: calls that fail afterwards", len(calls(proxy, FEW).failed), "calls", 0)
        yield exactly("disk, block: errors in the hash chain", _problems(proxy), "", 0)


def _problems(proxy: RunningProxy) -> int:
    with SpoolReader(proxy.directory / "state" / "spool.db") as reader:
        return len(reader.audit().problems)


# ── a full disk ──────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _disk(state: Path) -> Iterator[bool]:
    """Mount a small file system at a proxy's state directory. Yield whether the mount succeeded."""
    state.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m,mode=0700", "chaos", str(state)]
    mounted = os.getuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(state)], check=True)


@contextlib.contextmanager
def _filled(state: Path) -> Iterator[None]:
    """Fill the disk; free the space when the context exits."""
    filler = state / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    try:
        yield
    finally:
        filler.unlink()


def _full_disk(made: fixtures.Fixtures) -> Iterator[Result]:
    proxy = made.proxy("full")
    state = proxy.directory / "state"
    with _disk(state) as mounted:
        with proxy, contextlib.ExitStack() as full:
            load = Load(proxy)
            with load.running(delay_ms=100, pause=0.02):  # Slow streams are in progress when the disk fills.
                time.sleep(1)
                full.enter_context(_filled(state) if mounted else proxy.no_room())
                time.sleep(0.5)
            yield reported("disk, full: a full file system (1) or a file size limit (0)", int(mounted), "")
            yield from _refusals(made, proxy)
            yield from _shown(proxy)
            full.close()
            yield exactly("disk, full: becomes ready without a request", int(_ready(proxy)), "", 1)
            yield exactly("disk, full: calls that fail afterwards", len(calls(proxy, FEW).failed), "calls", 0)
            yield exactly("disk, full: complete calls not recorded exactly once", len(load.not_kept_once()), "calls", 0)
        with proxy:
            yield exactly("disk, full: errors in the hash chain", _problems(proxy), "", 0)
    yield exactly("disk, full: tracebacks in the log", proxy.log.count("Traceback"), "", 0)


def _shown(proxy: RunningProxy) -> Iterator[Result]:
    report = proxy.ask("/readyz") or {}
    yield exactly("disk, full: /readyz reports ready", int(bool(report.get("ok"))), "", 0)
    health = [sys.executable, "-m", "openclaw_egress", "health"]
    code = subprocess.run(health, env=proxy.environment, capture_output=True, check=False).returncode
    yield exactly("disk, full: exit code of `egress health`", code, "", 1)
    refusing = "openclaw_egress_spool_refusing 1.0" in proxy.metrics()
    yield exactly("disk, full: the metric reports refused requests", int(refusing), "", 1)
    yield exactly("disk, full: exchanges left open", report["spool"]["open_exchanges"], "exchanges", 0)


def _ready(proxy: RunningProxy) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if (proxy.ask("/readyz") or {}).get("ok"):
            return True
        time.sleep(0.2)
    return False


def _full_of_acknowledged(made: fixtures.Fixtures) -> Iterator[Result]:
    """Check a disk that stays full: the proxy must delete acknowledged records to make space for new ones."""
    with FakeLoki() as loki:
        proxy = made.proxy("acknowledged", OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{loki.url}/otlp/v1/logs")
        with _disk(proxy.directory / "state") as mounted:
            if not mounted:
                yield reported("disk, acknowledged: skipped: mounting a small file system needs root", 0, "")
                return
            with proxy:
                calls(proxy, CALLS, more=LONG)
                fixtures.drained(proxy)
                with _filled(proxy.directory / "state"):
                    responded, end = 0, time.monotonic() + 30
                    while responded < CALLS and time.monotonic() < end:
                        responded += len(calls(proxy, 1, more=LONG).responded)
                    yield exactly("disk, acknowledged: calls answered on a full disk", responded, "calls", CALLS)
                    yield exactly("disk, acknowledged: ready on a full disk", int(_ready(proxy)), "", 1)
                    yield exactly("disk, acknowledged: all lines are delivered", int(fixtures.drained(proxy)), "", 1)
                yield exactly("disk, acknowledged: errors in the hash chain", _problems(proxy), "", 0)


def _refusals(made: fixtures.Fixtures, proxy: RunningProxy) -> Iterator[Result]:
    began, lines = time.time(), proxy.log.count("\n")
    found = calls(proxy, CALLS)
    why = Counter(found.failed.values())
    refused = why["status 503"]
    lines = proxy.log.count("\n") - lines
    yield at_least("disk, full: calls refused with 503", refused, "calls", CALLS // 2)
    # Allow one such call: if the disk fills during its exchange, the proxy records the request but aborts the response.
    yield at_most("disk, full: calls that failed in another way", why.total() - refused, "calls", 1)
    passed = len(made.providers.asked_since(began)) - len(found.responded)
    yield at_most("disk, full: refused requests that reached the provider", passed, "calls", 1)
    yield exactly("disk, full: status of a tunnelled site", _site(proxy, made), "", 200)
    yield at_most("disk, full: log lines for a refused call", lines / max(1, refused), "lines", GOAL_LOG_LINES)
    yield exactly("disk, full: /healthz reports alive", int((proxy.ask("/healthz") or {}).get("ok", False)), "", 1)
