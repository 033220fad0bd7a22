"""Speed of the export of a backlog, and bytes of a record in the spool, on the wire and in VictoriaLogs.

    python -m tests.benchmarks.exporting [RECORDS]

The exporter runs without a pace. The first destination accepts every push without reading it, so it costs almost
nothing. The second is a real VictoriaLogs, if its program is in the lab's cache or on the PATH. Writes
build/exporting.json.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from openclaw_egress.export.exporter import Exporter
from openclaw_egress.recording.records import Body, ExchangeRecord
from openclaw_egress.spool.writer import Spool
from tests.support.proxy_process import free_ports
from tests.support.results import Result, at_least, line, reported, write
from tests.support.victoria_logs import PROGRAM, running

GOAL_RECORDS_PER_SECOND = 5_000
RESPONSE = 2_000
WORDS = [f"word{number}" for number in range(5_000)]
MEGABYTE = 10**6


@dataclass(frozen=True)
class Size:
    """A size of requests and the share of the benchmark's records that have it."""

    name: str
    request: int
    share: float


@dataclass(frozen=True)
class Endpoint:
    """The only setting of the exporter: the URL of the destination."""

    logs_endpoint: str


SIZES = (Size("4 KB", 4_000, 1.0), Size("100 KB", 100_000, 0.05))


class _Accepts(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: Synchronized[int]

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        self.rfile.read(length)
        with self.received.get_lock():
            self.received.value += length
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def _accept(port: int, received: Synchronized[int]) -> None:
    _Accepts.received = received
    HTTPServer(("127.0.0.1", port), _Accepts).serve_forever()


@contextmanager
def accepting() -> Iterator[tuple[str, Synchronized[int]]]:
    """Run a destination that accepts every push, in a process of its own. Yield its URL and the received bytes."""
    (port,) = free_ports(1)
    received: Synchronized[int] = multiprocessing.Value("q", 0)
    process = multiprocessing.Process(target=_accept, args=(port, received), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port}/v1/logs", received
    finally:
        process.terminate()
        process.join()


def fill(path: Path, count: int, request: int) -> None:
    """Write exchanges whose requests have this many bytes of random words, one transaction for each."""
    draw = random.Random(request)
    with Spool(path, 2**50, sync_seconds=None, local=False) as spool:
        for number in range(count):
            bodies = (_text(draw, size) for size in (request, RESPONSE))
            spool.close_exchange(_exchange(number, *bodies))


def _text(draw: random.Random, size: int) -> bytes:
    words = " ".join(draw.choices(WORDS, k=size // 8))[:size]
    return json.dumps({"model": "claude-opus-5", "messages": [{"role": "user", "content": words}]}).encode()


def _exchange(number: int, request: bytes, response: bytes) -> ExchangeRecord:
    return ExchangeRecord(
        id=f"{number:032x}", class_name="gateway", method="POST", url="https://api.anthropic.com/v1/messages",
        host="api.anthropic.com", port=443, begin_ns=1, end_ns=2, status=200, request_body=Body.of(request),
        response_body=Body.of(response),
    )  # fmt: skip


def drained(path: Path, url: str) -> tuple[float, float, dict[str, int]]:
    """Send all pending lines. Return the elapsed seconds, the CPU seconds of this process, and the spool's counts.

    The counts are those before the first push.
    """
    with Spool(path, 2**50, sync_seconds=None, local=False) as spool:
        before = dict(spool.stats())
        exporter = Exporter(spool, Endpoint(url), environ={})
        began, cpu = time.monotonic(), time.process_time()
        exporter.start()
        while spool.stats()["pending_records"]:
            time.sleep(0.01)
        elapsed, used = time.monotonic() - began, time.process_time() - cpu
        exporter.stop()
    return elapsed, used, before


def measured(size: Size, count: int) -> Iterator[Result]:
    """Measure one size of requests: the spool, the first destination, and VictoriaLogs."""
    what = f"{count:,} exchanges, requests of {size.name}"
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "spool.db"
        fill(path, count, size.request)
        yield reported(f"{what}: spool", path.stat().st_size / count, "B each")
        with accepting() as (url, received):
            elapsed, cpu, before = drained(path, url)
            yield reported(f"{what}: on the wire, not compressed", received.value / count, "B each")
        yield reported(f"{what}: as Loki counts them", before["pending_bytes"] / count, "B each")
        yield from _rates(what, elapsed, cpu, before, count, GOAL_RECORDS_PER_SECOND if size.share == 1 else None)
    if PROGRAM is not None:
        with tempfile.TemporaryDirectory() as directory:
            path, data = Path(directory) / "spool.db", Path(directory) / "data"
            fill(path, count, size.request)
            with running(data) as url:
                elapsed, cpu, before = drained(path, url)
            yield from _rates(f"{what}: VictoriaLogs", elapsed, cpu, before, count, None)
            disk = sum(file.stat().st_size for file in data.rglob("*") if file.is_file())
            yield reported(f"{what}: VictoriaLogs' disk", disk / count, "B each")


def _rates(
    what: str, elapsed: float, cpu: float, before: dict[str, int], count: int, goal: int | None
) -> Iterator[Result]:
    rate = count / elapsed
    name = f"{what}: records per second"
    yield reported(name, rate, "1/s") if goal is None else at_least(name, rate, "1/s", goal)
    yield reported(f"{what}: megabytes per second", before["pending_bytes"] / MEGABYTE / elapsed, "MB/s")
    yield reported(f"{what}: CPU of the exporter", cpu / count * 10**6, "us each")


def main(count: int) -> int:
    """Measure each size and print the table. Return the exit code."""
    results = []
    for size in SIZES:
        for result in measured(size, max(1, int(count * size.share))):
            print(line(result), flush=True)
            results.append(result)
    return write(results, Path("build/exporting.json"))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 20_000))
