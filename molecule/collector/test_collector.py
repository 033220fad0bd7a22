"""Tests of an OpenTelemetry Collector between the exporter and two destinations. No record is lost or changed.

The Collector and VictoriaLogs are real, and the Collector uses the configuration of docs/collector.yaml. Loki is a
fake. Each test ends with `egress audit` over both destinations.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openclaw_egress.cli.app import app
from openclaw_egress.export.exporter import Exporter
from openclaw_egress.recording.records import Body, ExchangeRecord
from openclaw_egress.signatures import Signer
from openclaw_egress.spool.writer import Spool
from tests.support import victoria_logs
from tests.support.loki import FakeLoki
from tests.support.proxy_process import free_ports
from tests.support.victoria_logs import CACHE

ROOT = Path(__file__).parents[2]
COLLECTOR = next((str(file) for file in sorted(CACHE.glob("otelcol-*")) if os.access(file, os.X_OK)), None)
SECONDS = 60
BODY = b"x" * 20_000

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(COLLECTOR is None, reason="no Collector in the lab's cache: run the scenario `collector`"),
    pytest.mark.skipif(victoria_logs.PROGRAM is None, reason="no victoria-logs on the PATH or in the lab's cache"),
]


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@dataclass
class Endpoint:
    logs_endpoint: str


@dataclass
class Collector:
    """The Collector's process, which a test may kill and start again with the same port and queue."""

    port: int
    queue: Path
    loki: str
    victoria: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/logs"

    def start(self) -> None:
        variables = {
            "LISTEN": f"127.0.0.1:{self.port}",
            "QUEUE_DIRECTORY": str(self.queue),
            "LOKI_ENDPOINT": f"{self.loki}/otlp/v1/logs",
            "VICTORIALOGS_ENDPOINT": self.victoria,
        }
        with (self.queue.parent / "collector.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(COLLECTOR), "--config", str(ROOT / "docs" / "collector.yaml")],
                env={**os.environ, **variables}, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self.listens, f"the Collector did not start: {self.queue.parent / 'collector.log'}")

    def listens(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (
            self.queue.parent / "collector.log"
        ).read_text()
        return (
            subprocess.run(
                ["curl", "--silent", "--noproxy", "*", f"http://127.0.0.1:{self.port}/"],
                check=False,
                capture_output=True,
            ).returncode
            == 0
        )

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def loki() -> Iterator[FakeLoki]:
    with FakeLoki() as fake:
        yield fake


@pytest.fixture
def victoria(tmp_path) -> Iterator[str]:
    with victoria_logs.running(tmp_path / "victoria-logs") as endpoint:
        yield endpoint


@pytest.fixture
def queue(tmp_path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def collector(queue, loki, victoria) -> Iterator[Collector]:
    (port,) = free_ports(1)
    found = Collector(port, queue, loki.url, victoria)
    found.start()
    yield found
    found.kill()


@pytest.fixture
def spool(tmp_path, monkeypatch) -> Iterator[Spool]:
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("EGRESS_STATE_DIR", str(state))
    monkeypatch.setenv("EGRESS_HEALTH_PORT", "1")
    with Spool(state / "spool.db", sync_seconds=0.01, signer=Signer.in_directory(state)) as opened:
        yield opened


def write(spool: Spool, count: int) -> None:
    for number in range(count):
        spool.close_exchange(
            ExchangeRecord(
                id=f"{spool.head()[0]}-{number}", class_name="gateway", method="POST",
                url="https://api.anthropic.com/v1/messages", host="api.anthropic.com", port=443,
                begin_ns=1, end_ns=2, status=200, request_body=Body.of(BODY), response_body=Body.of(b"{}"),
            )
        )  # fmt: skip
    spool.checkpoint()


@contextmanager
def exporting(spool: Spool, endpoint: str) -> Iterator[Exporter]:
    """Run the exporter with small pushes, so that a test has many of them."""
    exporter = Exporter(spool, Endpoint(endpoint), environ={}, max_push_bytes=100_000, max_pause=0.5)
    exporter.start()
    try:
        yield exporter
    finally:
        exporter.stop(0.2)


def all_sent(spool: Spool) -> bool:
    return spool.stats()["pending_records"] == 0


def audit(store: str) -> list[tuple[str, int]]:
    """Return the findings of `egress audit` over a destination.

    If it has no lines, the findings report all of them as missing.
    """
    result = CliRunner().invoke(app, ["audit", "--json", "--store", store])
    assert result.exit_code in (0, 1), result.output
    report = json.loads(result.stdout)["reports"][1]
    return [(finding["code"], finding["first"]) for finding in report["findings"]]


def complete_in_both(loki: FakeLoki, victoria: str) -> None:
    wait_until(lambda: not audit(loki.url), f"Loki misses {audit(loki.url)}")
    wait_until(lambda: not audit(victoria), f"VictoriaLogs misses {audit(victoria)}")


def test_records_pass_through_the_collector_unchanged(spool, collector, loki, victoria):
    write(spool, 50)
    with exporting(spool, collector.endpoint):
        wait_until(lambda: all_sent(spool), "the Collector accepted not all records")
    complete_in_both(loki, victoria)


def test_killed_collector_loses_no_record(spool, collector, loki, victoria):
    with exporting(spool, collector.endpoint) as exporter:
        for _ in range(3):
            write(spool, 60)
            pushed = exporter.state["pushed_records"]
            wait_until(lambda pushed=pushed: exporter.state["pushed_records"] > pushed, "nothing was pushed")
            collector.kill()
            collector.start()
        wait_until(lambda: all_sent(spool), "the Collector accepted not all records after its restarts")
    complete_in_both(loki, victoria)


def test_stopped_destination_delays_only_its_own_records(spool, collector, loki, victoria):
    loki.stop()
    write(spool, 60)
    with exporting(spool, collector.endpoint):
        wait_until(lambda: all_sent(spool), "the Collector refused records because Loki is down")
        wait_until(lambda: not audit(victoria), f"VictoriaLogs misses {audit(victoria)}")
        # Kill the Collector as well: its queue for Loki is on the disk.
        collector.kill()
        collector.start()
        loki.restart()
        complete_in_both(loki, victoria)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """Return an empty file system of 24 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("only root can mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_full_disk_of_the_collector_loses_no_record(spool, loki, victoria, small_disk):
    (port,) = free_ports(1)
    collector = Collector(port, small_disk / "queue", loki.url, victoria)
    collector.start()
    loki.stop()
    try:
        with exporting(spool, collector.endpoint) as exporter:
            write(spool, 20)
            wait_until(lambda: all_sent(spool), "the Collector accepted nothing")
            free = shutil.disk_usage(small_disk).free
            (small_disk / "ballast").write_bytes(b"x" * free)
            write(spool, 100)
            wait_until(lambda: exporter.state["status"] == "retrying", "the Collector accepted records on a full disk")
            (small_disk / "ballast").unlink()
            wait_until(lambda: all_sent(spool), "the Collector accepted not all records after the disk had room")
            loki.restart()
            complete_in_both(loki, victoria)
    finally:
        collector.kill()
