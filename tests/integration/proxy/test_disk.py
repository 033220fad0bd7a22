"""Tests of a full disk: reports name the cause, acknowledged lines are deleted, and no record is wrong afterwards."""

import contextlib
import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from openclaw_egress.spool.reader import SpoolReader
from tests.integration.proxy.conftest import blocking_spool, make_proxy, wait_until
from tests.support.egress_command import run_egress
from tests.support.loki.fake import FakeLoki
from tests.support.proxy_process import RunningProxy

LONG = [{"role": "user", "content": "x" * 200_000}]
SHORT = [{"role": "user", "content": "hello"}]
PATIENCE = 60


def ask(proxy: RunningProxy, messages: list[dict[str, str]] = SHORT) -> int:
    with proxy.client(headers={"x-api-key": "k"}) as http:
        body = {"model": "claude-opus-5", "max_tokens": 9, "messages": messages}
        return http.post(proxy.url("api.anthropic.com", "/v1/messages"), json=body).status_code


def ready(proxy: RunningProxy) -> bool:
    return bool(proxy.ask("/readyz")["ok"])


def egress(proxy: RunningProxy, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_egress(*arguments, environment=proxy.environment)


def shows_green(proxy: RunningProxy) -> None:
    assert ready(proxy), proxy.ask("/readyz")
    assert egress(proxy, "health").returncode == egress(proxy, "status").returncode == 0
    assert "openclaw_egress_spool_refusing 0.0" in proxy.metrics()


def spool_is_red(proxy: RunningProxy) -> bool:
    """Return whether /readyz reports a spool problem. Ignore other problems, such as a failing export."""
    return any("spool" in problem for problem in proxy.ask("/readyz")["problems"])


def shows_red(proxy: RunningProxy, why: str) -> None:
    report = proxy.ask("/readyz")
    assert not report["ok"] and any(why in problem for problem in report["problems"]), report
    assert proxy.ask("/healthz")["ok"] is True
    assert egress(proxy, "health").returncode == 1
    status = egress(proxy, "status")
    assert status.returncode == 1 and why in status.stdout
    assert json.loads(egress(proxy, "status", "--json").stdout)["problems"]
    assert "openclaw_egress_spool_refusing 1.0" in proxy.metrics()


@contextlib.contextmanager
def little_room(proxy: RunningProxy, slack: int) -> Iterator[None]:
    """Within the context, limit each of the proxy's files to the size of its write-ahead log plus ``slack`` bytes."""
    pid = proxy.process.pid
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    written = (proxy.directory / "state" / "spool.db-wal").stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (written + slack, unlimited[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # The test may have killed the proxy.
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


def test_write_failure_is_reported_everywhere_and_logged_once(tmp_path, providers):
    with make_proxy(tmp_path, providers) as proxy:
        assert ask(proxy) == 200
        shows_green(proxy)
        with proxy.no_room():
            assert [ask(proxy) for _ in range(5)] == [503] * 5
            shows_red(proxy, "spool")
            assert proxy.log.count("exchanges are refused until") == 1, proxy.log
            assert 'openclaw_egress_unrecorded_total{egress_class="gateway"} 5.0' in proxy.metrics()
            assert proxy.ask("/readyz")["spool"]["open_exchanges"] == 0
        wait_until(lambda: ready(proxy), proxy)  # The proxy must notice the free space without a request.
        shows_green(proxy)
        assert proxy.log.count("the disk can be written again") == 1
        assert ask(proxy) == 200


@pytest.mark.parametrize("how", ["kill", "stop", "recover"])
def test_request_refused_midway_is_never_recorded_as_interrupted(tmp_path, providers, how):
    with make_proxy(tmp_path, providers) as proxy:
        assert ask(proxy) == 200
        began = time.time()
        with little_room(proxy, 40_000):  # Leave enough space to begin an exchange, but not for its body.
            assert [ask(proxy, LONG) for _ in range(3)] == [503] * 3
            assert proxy.ask("/readyz")["spool"]["open_exchanges"] == 0
            assert not providers.asked_since(began)
            if how == "kill":
                proxy.kill()
            if how == "stop":
                proxy.stop()
        if how != "recover":
            proxy.start()
        wait_until(lambda: ready(proxy), proxy)
        assert ask(proxy) == 200
        assert [row.outcome for row in proxy.exchanges()] == ["complete", "complete"]
        with SpoolReader(proxy.directory / "state" / "spool.db") as reader:
            assert reader.stats()["open_exchanges"] == 0
            assert reader.audit().problems == ()


def test_stream_aborted_by_a_full_disk_is_recorded_without_a_restart(tmp_path, providers):
    stream = {"x-api-key": "k", "x-standin-events": "30", "x-standin-delay-ms": "30"}
    body = {"model": "claude-opus-5", "max_tokens": 9, "messages": SHORT, "stream": True}
    with make_proxy(tmp_path, providers) as proxy:
        with (
            proxy.client(headers=stream) as http,
            http.stream("POST", proxy.url("api.anthropic.com", "/v1/messages"), json=body) as answer,
        ):
            pieces = answer.iter_text()
            next(pieces)
            with proxy.no_room(), pytest.raises(httpx.HTTPError):
                list(pieces)
        wait_until(lambda: [row.outcome for row in proxy.exchanges()] not in ([],), proxy)
        assert len(proxy.exchanges()) == 1
        assert proxy.exchanges()[0].outcome in ("interrupted", "upstream_error", "client_aborted")
        assert proxy.ask("/readyz")["spool"]["open_exchanges"] == 0


def test_full_blocking_spool_is_reported_everywhere_and_logged_once(tmp_path, providers):
    with FakeLoki() as loki, blocking_spool(tmp_path, providers, loki) as proxy:
        wait_until(lambda: ask(proxy, LONG) == 503, proxy)
        assert [ask(proxy) for _ in range(5)] == [503] * 5
        shows_red(proxy, "the spool is full")
        wait_until(lambda: "EGRESS_SPOOL_FULL=block" in proxy.log, proxy)
        assert proxy.log.count("exchanges are refused until") == 1, proxy.log
        loki.faults.clear()
        wait_until(lambda: ready(proxy), proxy)
        assert ask(proxy) == 200
        shows_green(proxy)


# ── a real disk ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """Mount a 24 MB disk for the proxy's state. Skip the test if the user is not root."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "disk", str(state)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount the small disk that this test needs")
    try:
        yield state
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    return filler


def test_acknowledged_lines_are_deleted_on_a_full_disk(tmp_path, disk, providers):
    with FakeLoki() as loki:
        endpoint = loki.url + "/otlp/v1/logs"
        with make_proxy(tmp_path, providers, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=endpoint) as proxy:
            assert {ask(proxy, LONG) for _ in range(25)} == {200}
            wait_until(lambda: not proxy.ask("/readyz")["spool"]["pending_records"], proxy)
            before = proxy.ask("/readyz")["spool"]["acknowledged_records"]
            filler = fill(disk)
            # Other data fills the disk, so only the deletion of acknowledged lines can make room.
            good = 0
            end = time.monotonic() + PATIENCE
            while good < 40 and time.monotonic() < end:
                # The proxy aborts a response that it cannot record.
                with contextlib.suppress(httpx.RemoteProtocolError):
                    good += ask(proxy, LONG) == 200
            assert good == 40, proxy.log[-3000:]
            fill(disk)
            wait_until(lambda: ready(proxy), proxy)
            wait_until(lambda: not proxy.ask("/readyz")["spool"]["pending_records"], proxy)
            assert ask(proxy) == 200
            assert len({row.id for row in proxy.exchanges()}) < before + 41
            filler.unlink()
            wait_until(lambda: ready(proxy), proxy)
            shows_green(proxy)
            with SpoolReader(disk / "spool.db") as reader:
                assert reader.audit().problems == ()


def stays_full(proxy: RunningProxy, disk) -> bool:
    """Fill the disk. Return whether the proxy can no longer write.

    Writes still succeed as long as the database has free pages.
    """
    fill(disk)
    if ask(proxy, LONG) != 503:
        return False
    time.sleep(2.5)
    return spool_is_red(proxy)


def test_full_disk_recovers_when_loki_is_back(tmp_path, disk, providers):
    with FakeLoki() as loki:
        loki.faults.set(status=503)
        endpoint = loki.url + "/otlp/v1/logs"
        with make_proxy(tmp_path, providers, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=endpoint) as proxy:
            end = time.monotonic() + PATIENCE
            while ask(proxy, LONG) == 200 and time.monotonic() < end:
                pass
            wait_until(lambda: stays_full(proxy, disk), proxy)
            shows_red(proxy, "spool")
            loki.faults.clear()
            wait_until(lambda: ready(proxy), proxy)
            wait_until(lambda: ask(proxy) == 200, proxy)
            wait_until(lambda: not proxy.ask("/readyz")["spool"]["pending_records"], proxy)
            assert not proxy.ask("/readyz")["spool"]["dead_letter_records"]


def test_start_on_a_full_disk_serves_and_reports_the_cause(tmp_path, disk, providers):
    with make_proxy(tmp_path, providers) as proxy:
        assert ask(proxy) == 200
        proxy.kill()
        filler = fill(disk)
        proxy.start()
        wait_until(lambda: stays_full(proxy, disk), proxy)
        shows_red(proxy, "spool")
        filler.unlink()
        wait_until(lambda: ready(proxy), proxy)
        assert ask(proxy) == 200
