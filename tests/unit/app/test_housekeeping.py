"""Tests of the housekeeping thread: failing tasks do not stop it, and the proxy applies new policies and a new CA."""

import asyncio
import threading
import time
from concurrent.futures import Future

import pytest
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.test import taddons

from openclaw_egress import certificates
from openclaw_egress.app.listeners import ListenError
from openclaw_egress.app.service import Service
from openclaw_egress.proxy.served_ca import ServedCA
from openclaw_egress.settings import Settings, SettingsError
from openclaw_egress.spool.writer import Spool
from tests.support.hostile_records import hostile_exchange
from tests.support.proxy_process import free_ports, policy_for

CLASSES = ("gateway", "browser", "sandbox", "build")


@pytest.fixture
def service(tmp_path):
    *ports, health_port = free_ports(5)
    file = tmp_path / "policy.yml"
    file.write_text(policy_for(dict(zip(CLASSES, ports, strict=True)), [443]))
    running = Service(Settings.load(state_dir=tmp_path, policy_file=file, logs_endpoint="", health_port=health_port))
    yield running
    running.stop()


def soon(holds) -> bool:
    end = time.monotonic() + 30
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(holds())


def change(service, old: str, new: str) -> None:
    file = service.settings.policy_file
    file.write_text(file.read_text().replace(old, new))


def successful(service) -> float:
    return service.readiness.gauges()["policy_last_reload_successful"]


def test_failing_task_does_not_stop_the_other_housekeeping_tasks(service):
    def fail(inspect) -> None:
        raise RuntimeError("a fault")

    service.ca.renew = fail
    service.start()
    for old, new in (("open", "enforce"), ("enforce", "report")):
        change(service, f"action: {old}", f"action: {new}")
        assert soon(lambda wanted=new: service.policies.current.classes["gateway"].action == wanted)


def test_old_records_are_deleted_while_the_proxy_runs(tmp_path):
    settings = Settings.load(state_dir=tmp_path, logs_endpoint="", health_port=free_ports(1)[0], retention="1h")
    for age in (2, 0):
        now = time.time_ns() - age * 3600 * 10**9
        with Spool(settings.spool_path, sync_seconds=None, local=True, clock_ns=lambda now=now: now) as spool:
            spool.close_exchange(hostile_exchange(f"{age}"))
    service = Service(settings)
    try:
        service.start()
        assert soon(lambda: [row.id for row in service.spool.reader.query() if row.id] == ["0"])
    finally:
        service.stop()


@pytest.mark.parametrize("age", ["30", "0d", "1m", "-1d", "30 days", "99999999d"])
def test_invalid_age_is_refused_with_an_example(age):
    with pytest.raises(SettingsError, match=r"EGRESS_RETENTION: .*must be an age such as 30d or 12h"):
        Settings.load(retention=age)


@pytest.mark.parametrize("how", ["raises", "fails", "never answers"])
def test_policy_whose_listeners_cannot_open_is_not_applied(service, monkeypatch, how):
    """Expect the proxy to keep the previous policy, to report the problem, and to retry until the listeners open."""
    monkeypatch.setattr("openclaw_egress.app.open_listeners.LISTEN_SECONDS", 0.5)
    broken, applied = threading.Event(), []
    broken.set()

    def apply_listeners(ports):
        future = Future()
        if not broken.is_set():
            applied.append(set(ports))
            future.set_result(None)
        elif how == "raises":
            raise RuntimeError("the event loop is closed")
        elif how == "fails":
            future.set_exception(ListenError("cannot listen on 127.0.0.1:1"))
        return future

    service.listeners.apply = apply_listeners
    service.start()
    before, old, new = service.policies.current, service.policies.current.classes["gateway"].listen, free_ports(1)[0]
    assert successful(service) == 1
    change(service, f"listen: {old}", f"listen: {new}")
    assert soon(lambda: any("listen" in problem for problem in service.readiness.ready()[1]["problems"]))
    assert not service.readiness.ready()[0] and service.policies.current is before and successful(service) == 0
    broken.clear()
    assert soon(lambda: service.policies.current.classes["gateway"].listen == new)
    # The proxy opens the new listeners, applies the new policy, and only then closes the old listeners.
    ports = {found.listen for found in service.policies.current.classes.values()}
    assert soon(lambda: len(applied) > 1) and applied[-2:] == [{*ports, old}, ports]
    assert successful(service) == 1 and not [one for one in service.readiness.ready()[1]["problems"] if "listen" in one]


def test_listener_that_does_not_close_is_reported_until_it_closes(service, monkeypatch):
    monkeypatch.setattr("openclaw_egress.app.open_listeners.LISTEN_SECONDS", 0.5)
    fails = threading.Event()
    fails.set()
    old, new = service.policies.current.classes["gateway"].listen, free_ports(1)[0]
    applied = []

    def apply_listeners(ports):
        future = Future()
        if old not in ports and fails.is_set():
            future.set_exception(OSError("cannot close"))
        else:
            applied.append(set(ports))
            future.set_result(None)
        return future

    def reported() -> list[str]:
        return [one for one in service.readiness.ready()[1]["problems"] if f"{old} (class gateway)" in one]

    service.listeners.apply = apply_listeners
    service.start()
    change(service, f"listen: {old}", f"listen: {new}")
    assert soon(reported) and not service.readiness.ready()[0]
    assert service.policies.current.classes["gateway"].listen == new and "cannot close" in reported()[0]
    fails.clear()
    assert soon(lambda: not reported())
    assert applied[-1] == {found.listen for found in service.policies.current.classes.values()}


def test_new_ca_is_logged_only_once_it_is_served(service, monkeypatch, caplog):
    caplog.set_level("INFO", logger="openclaw_egress")
    monkeypatch.setattr("openclaw_egress.proxy.served_ca.SETTLE_SECONDS", 0.1)
    before = service.served_ca.info.issuing_sha256
    certificates.create(
        service.served_ca.directory,
        service.settings.state_dir / "root",
        service.policies.current.inspect,
        force_issuing=True,
    )
    new = certificates.show(service.served_ca.directory).issuing_sha256
    service.policies.reload_ca()
    said = [one.getMessage() for one in caplog.records if "issuing CA valid until" in one.getMessage()]
    assert len(said) == 1, caplog.text
    assert new in said[0] and before not in said[0]
    assert "is in use" not in said[0] and "the next TLS handshake uses it" in said[0]


def test_heartbeat_continues_after_a_failure_and_reports_it(service, monkeypatch, caplog):
    fails = [True]

    def serve() -> None:
        if fails[0]:
            raise RuntimeError("a fault")

    monkeypatch.setattr(service.served_ca, "serve", serve)

    async def beats() -> None:
        task = asyncio.create_task(service.heartbeat.run())
        for fail in (True, False):
            fails[0] = fail
            assert await asyncio.to_thread(soon, lambda wanted=fail: bool(service.heartbeat.problem) is wanted)
            assert not task.done()
            assert service.readiness.alive()[0]
            found = [one for one in service.readiness.ready()[1]["problems"] if one.startswith("heartbeat: ")]
            assert found == (["heartbeat: serve failed: RuntimeError"] if fail else [])
        task.cancel()

    asyncio.run(beats())
    assert sum("heartbeat: serve failed" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("serves_while_read", [False, True])
def test_a_reload_waits_until_the_new_ca_is_served(tmp_path, serves_while_read):
    directory, keys, runtime = tmp_path / "ca", tmp_path / "root", tmp_path / "runtime"
    runtime.mkdir()
    certificates.create(directory, keys, ["api.llm.example"])
    served = ServedCA(directory, runtime)
    with taddons.context(TlsConfig()):
        served.serve()
        certificates.create(directory, keys, ["api.llm.example"], force_issuing=True)
        expected = certificates.show(directory).issuing_sha256
        # If `serves_while_read` is True, simulate a TLS handshake while the proxy reads the CA files.
        assert served.look(lambda info: served.serve() if serves_while_read else None)
        loop = threading.Timer(0.2, served.serve)
        loop.start()
        served.settle()
        assert served.info.issuing_sha256 == expected
        loop.join()
