"""Tests of the safe defaults: without settings, the proxy serves loopback only and exports nothing.

This module also tests SIGHUP, and listeners that cannot open.
"""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from openclaw_egress.app.endpoint_check import plain_export_warning
from openclaw_egress.app.listeners import is_loopback
from openclaw_egress.settings import Settings, SettingsError
from openclaw_egress.spool.writer import Spool
from tests.integration.proxy.conftest import make_proxy, wait_until
from tests.integration.proxy.test_start import refused
from tests.support.proxy_process import free_ports


def bare(proxy):
    """Return a proxy whose only settings are its directories."""
    for name in ("EGRESS_LISTEN_HOST", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"):
        proxy.environment.pop(name)
    return proxy


def listening(pid: int) -> set[str]:
    """Return the addresses that a process listens on, as /proc shows them."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if found := re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink())):
            inodes.add(found[1])
    addresses = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = bytes.fromhex(fields[1].partition(":")[0])
                packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                addresses.add(socket.inet_ntop(family, packed))
    return addresses


@pytest.mark.parametrize("kind", ["lean", "stock"])
def test_start_without_settings_listens_on_loopback_and_exports_nothing(tmp_path, providers, kind, monkeypatch):
    proxy = bare(make_proxy(tmp_path, providers, kind))
    if kind == "stock":
        command = [word.replace("@127.0.0.1:", "@") for word in proxy.command]
        monkeypatch.setattr(type(proxy), "command", property(lambda _: command))
    with proxy:
        assert listening(proxy.process.pid) == {"127.0.0.1"}
        assert not proxy.ask("/readyz")["export"]
        assert proxy.rows(state="pending") == [] and proxy.rows(state="local")


@pytest.mark.parametrize("kind", ["lean", "stock"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_the_built_in_open_class_is_refused_on_a_network(tmp_path, providers, kind, host):
    proxy = make_proxy(tmp_path, providers, kind)
    proxy.environment |= {"EGRESS_POLICY_FILE": "", "EGRESS_LISTEN_HOST": host}
    said = refused(proxy)
    assert "open proxy" in said and "EGRESS_POLICY_FILE" in said
    assert "EGRESS_OPEN_TO_NETWORK" not in said, "a message must not advise to remove a protection"


@pytest.mark.parametrize("kind", ["lean", "stock"])
def test_the_built_in_open_class_is_refused_on_a_network_of_its_own(tmp_path, providers, kind):
    proxy = make_proxy(tmp_path, providers, kind)
    proxy.environment |= {"EGRESS_POLICY_FILE": "", "EGRESS_CLASS_NETWORKS": "gateway=192.0.2.7/24"}
    assert "open proxy" in refused(proxy)


def test_stock_mitmdump_with_its_own_listen_address_is_refused(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers, "stock", EGRESS_POLICY_FILE="")
    command = [*proxy.command[:3], "--mode=regular@0.0.0.0:8080", *proxy.command[-2:]]
    done = subprocess.run(command, env=proxy.environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "open proxy" in done.stdout + done.stderr


def test_setting_permits_the_built_in_policy_on_a_network():
    settings = Settings.load(listen_host="0.0.0.0", open_to_network=True)
    assert settings.open_to_network and settings.policy_file is None


def test_a_policy_file_may_have_an_open_class_on_a_network(tmp_path, providers):
    with make_proxy(tmp_path, providers, EGRESS_LISTEN_HOST="0.0.0.0") as proxy:
        assert listening(proxy.process.pid) == {"127.0.0.1", "0.0.0.0"}


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False), ("example.com", False),
     ("::ffff:10.0.0.1", False)],
)  # fmt: skip
def test_loopback_addresses_are_recognised(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "http://127.0.0.1", "a b", "-x", "::g", "*"])
def test_invalid_listen_host_is_refused(host):
    with pytest.raises(SettingsError, match="EGRESS_LISTEN_HOST"):
        Settings.load(EGRESS_LISTEN_HOST=host)


@pytest.mark.parametrize(
    ("endpoint", "answers", "warned"),
    [
        ("http://loki.example.com:3100/otlp/v1/logs", ["8.8.8.8"], True),
        ("http://loki.example.com:3100/otlp/v1/logs", ["10.0.0.2", "2a00:1450::1"], True),
        ("http://loki:3100/otlp/v1/logs", ["172.18.0.3"], False),
        ("http://loki.example.com/otlp/v1/logs", ["100.64.0.9"], False),
        ("https://loki.example.com/otlp/v1/logs", ["8.8.8.8"], False),
        ("", [], False),
    ],
)
def test_plain_http_to_a_public_address_causes_a_warning(endpoint, answers, warned):
    def look_up(_, port):
        return [(0, 0, 0, "", (address, port)) for address in answers]

    assert (plain_export_warning(endpoint, look_up) is not None) is warned


def test_the_warning_is_in_the_log_at_start(tmp_path, providers):
    # The endpoint is an address, so the proxy does not resolve it. No server is needed there, because the proxy stops
    # before it exports.
    with make_proxy(tmp_path, providers, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="http://[2001:4860::1]:9/v1/logs") as proxy:
        end = time.monotonic() + 20
        while "plain HTTP" not in proxy.log and time.monotonic() < end:
            time.sleep(0.05)
        assert "2001:4860::1" in proxy.log and "plain HTTP" in proxy.log


# ── SIGHUP ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["lean", "stock"])
def test_sighup_reloads_the_policy_and_keeps_connections(tmp_path, providers, kind):
    with make_proxy(tmp_path, providers, kind) as proxy:
        before = proxy.ask("/readyz")["policy"]
        stat = proxy.policy_file.stat()
        text = proxy.policy_file.read_text()
        # Keep the file's size, modification time and inode, so that the housekeeping loop does not notice the change
        # without SIGHUP.
        with proxy.policy_file.open("r+") as file:
            file.write(text.replace("packages", "peckages").replace("*.example.com", "x.example.com"))
        os.utime(proxy.policy_file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        with proxy.client() as http:
            assert http.get(proxy.url("api.anthropic.com", "/v1/models")).status_code < 500
            proxy.process.send_signal(signal.SIGHUP)
            end = time.monotonic() + 20
            while proxy.ask("/readyz")["policy"] == before and time.monotonic() < end:
                time.sleep(0.05)
            assert proxy.ask("/readyz")["policy"] != before
            assert http.get(proxy.url("api.anthropic.com", "/v1/models")).status_code < 500
        assert proxy.process.poll() is None
        assert "SIGHUP" in proxy.log


def problems(proxy) -> list[str]:
    """Return the problems that /readyz reports, or none if the request times out, as it can on a busy machine."""
    return (proxy.ask("/readyz") or {}).get("problems", [])


def test_sighup_with_an_invalid_policy_keeps_the_last_valid_one(tmp_path, providers):
    with make_proxy(tmp_path, providers) as proxy:
        proxy.policy_file.write_text("version: 2\n")
        proxy.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("version" in problem for problem in problems(proxy)), proxy)
        assert proxy.process.poll() is None


# ── listeners that cannot open ───────────────────────────────────────────────────────────────────────────────────


def ended_cleanly(proxy, said: str) -> None:
    """Assert that the proxy printed one message, did not report its start, recorded nothing, and closed the spool."""
    assert '"started"' not in said and "Traceback" not in said, said
    assert sum(line.startswith("egress: ") for line in said.splitlines()) == 1, said
    spool = proxy.directory / "state" / "spool.db"
    if spool.exists():
        assert not spool.with_name("spool.db-wal").exists(), "the proxy did not close its database"
        with closing(sqlite3.connect(spool)) as db:
            assert db.execute("SELECT count(*) FROM records").fetchone()[0] == 0, "the proxy must not record an event"
        Spool(spool, sync_seconds=None).close()


def test_port_in_use_is_reported_with_its_class(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers)
    with socket.create_server(("127.0.0.1", proxy.ports["browser"])):
        said = refused(proxy)
    assert f"127.0.0.1:{proxy.ports['browser']} (class browser): address already in use (EADDRINUSE)" in said
    ended_cleanly(proxy, said)


def test_listen_host_that_the_machine_does_not_have_is_refused(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers, EGRESS_LISTEN_HOST="203.0.113.77")
    said = refused(proxy)
    assert "203.0.113.77" in said and "class gateway" in said and "EGRESS_LISTEN_HOST" in said
    ended_cleanly(proxy, said)


def test_listen_host_that_does_not_resolve_is_refused(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers, EGRESS_LISTEN_HOST="no-such-name.invalid")
    said = refused(proxy)
    assert "no-such-name.invalid" in said and "EGRESS_LISTEN_HOST" in said
    ended_cleanly(proxy, said)


def test_health_port_that_is_a_listeners_port_is_refused(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers)
    proxy.environment["EGRESS_HEALTH_PORT"] = str(proxy.ports["sandbox"])
    said = refused(proxy)
    assert "EGRESS_HEALTH_PORT" in said and "class sandbox" in said
    ended_cleanly(proxy, said)


def test_spool_is_closed_if_the_health_port_is_in_use(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers)
    with socket.create_server(("127.0.0.1", proxy.health_port)):
        said = refused(proxy)
    assert str(proxy.health_port) in said and "EGRESS_HEALTH_PORT" in said
    ended_cleanly(proxy, said)


def test_two_classes_with_the_same_port_are_refused(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers)
    text = proxy.policy_file.read_text()
    proxy.policy_file.write_text(text.replace(str(proxy.ports["build"]), str(proxy.ports["sandbox"])))
    said = refused(proxy)
    assert str(proxy.ports["sandbox"]) in said and f"{proxy.policy_file}:" in said
    ended_cleanly(proxy, said)


def test_privileged_port_is_refused_with_a_remedy(tmp_path, providers, monkeypatch):
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 81:
        pytest.skip("this kernel permits every user to use port 81")
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root can use every port, and setpriv is not installed")
    proxy = make_proxy(tmp_path, providers)
    proxy.policy_file.write_text(proxy.policy_file.read_text().replace(str(proxy.ports["gateway"]), "81"))
    if os.geteuid() == 0:
        command = ["setpriv", "--inh-caps=-all", "--bounding-set=-net_bind_service", *proxy.command]
        monkeypatch.setattr(type(proxy), "command", property(lambda _: command))
    said = refused(proxy)
    assert "127.0.0.1:81 (class gateway)" in said and "1024" in said
    ended_cleanly(proxy, said)


def test_start_is_logged_after_all_listeners_are_open(tmp_path, providers):
    with make_proxy(tmp_path, providers) as proxy:
        end = time.monotonic() + 20
        while '"started"' not in proxy.log and time.monotonic() < end:
            time.sleep(0.05)
        assert proxy.log.count('"started"') == 1


def test_reload_with_a_used_port_keeps_the_last_valid_policy(tmp_path, providers):
    with make_proxy(tmp_path, providers) as proxy:
        (port,) = free_ports(1)
        with socket.create_server(("127.0.0.1", port)):
            text = proxy.policy_file.read_text()
            proxy.policy_file.write_text(text.replace(f"listen: {proxy.ports['build']}", f"listen: {port}"))
            end = time.monotonic() + 20
            while not proxy.ask("/readyz")["problems"] and time.monotonic() < end:
                time.sleep(0.05)
            assert str(port) in proxy.ask("/readyz")["problems"][0]
            socket.create_connection(("127.0.0.1", proxy.ports["build"]), 5).close()
