"""Tests of policy reloads: a valid change takes effect within seconds, an invalid one changes nothing."""

import socket
import sys
import time
from collections.abc import Callable

import pytest

from tests.integration.proxy.raw import exchange, status_of
from tests.support.proxy_process import free_ports

UNCHECKED = """\
import runpy, sys
from openclaw_egress.app import open_listeners
open_listeners.check_listeners = lambda settings, classes: None
sys.argv = sys.argv[3:]
runpy.run_module("openclaw_egress", run_name="__main__")
"""
"""Program that runs `egress run` without checking whether a new policy's listeners can open."""

ASKED = b"CONNECT new.example.org:443 HTTP/1.1\r\nHost: new.example.org:443\r\n\r\n"


@pytest.fixture
def proxy(lean):
    with lean:
        yield lean


def soon(holds: Callable[[], object]) -> bool:
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(holds())


def test_added_rule_applies_and_connections_stay_open(proxy, providers):
    with proxy.client("browser", ca=providers.ca_file) as http:
        assert http.get(proxy.url("www.example.com", "/")).status_code == 200
        assert status_of(exchange(proxy.ports["sandbox"], ASKED)) == 403
        before, text = proxy.ask("/readyz")["policy"], proxy.policy_file.read_text()
        proxy.policy_file.write_text(text.replace("allow: []", 'allow: ["new.example.org"]', 1))
        assert soon(lambda: proxy.ask("/readyz")["policy"] != before)
        # The policy now allows the name, so the request fails only at the DNS lookup.
        assert status_of(exchange(proxy.ports["sandbox"], ASKED)) == 502
        assert http.get(proxy.url("www.example.com", "/")).status_code == 200
    events = [row for row in proxy.rows() if row.event_name == "openclaw.egress.policy"]
    assert len(events) == 2


def test_invalid_policy_is_reported_and_the_last_valid_one_stays_in_force(proxy):
    before, text = proxy.ask("/readyz")["policy"], proxy.policy_file.read_text()
    proxy.policy_file.write_text(text.replace("enforce", "enfroce"))
    assert soon(lambda: proxy.ask("/readyz")["problems"])
    report = proxy.ask("/readyz")
    assert report["policy"] == before and "policy.yml:5" in report["problems"][0]
    assert proxy.ask("/healthz")["ok"] is True
    assert status_of(exchange(proxy.ports["sandbox"], ASKED)) == 403
    proxy.policy_file.write_text(text)
    assert soon(lambda: not proxy.ask("/readyz")["problems"])


def test_missing_policy_file_keeps_the_last_valid_policy(proxy):
    proxy.policy_file.unlink()
    assert soon(lambda: proxy.ask("/readyz")["problems"])
    assert status_of(exchange(proxy.ports["sandbox"], ASKED)) == 403


def test_listener_can_change_its_port(proxy):
    old, new = proxy.ports["sandbox"], free_ports(1)[0]
    proxy.policy_file.write_text(proxy.policy_file.read_text().replace(str(old), str(new)))
    proxy.ports["sandbox"] = new

    def answers(port: int) -> int:
        try:
            return status_of(exchange(port, ASKED))
        except OSError:
            return 0

    assert soon(lambda: answers(new) == 403)
    assert soon(lambda: answers(old) == 0)


@pytest.mark.parametrize("checked", [True, False], ids=["check fails", "bind fails"])
def test_a_policy_with_an_occupied_port_waits_until_the_port_is_free(lean, checked):
    """Expect the previous policy to stay in force, with all its listeners, until the port is free."""
    old, new, other = lean.ports["sandbox"], *free_ports(2)
    if not checked:
        lean.prefix = [sys.executable, "-c", UNCHECKED]

    def answers(port: int) -> int:
        try:
            return status_of(exchange(port, ASKED))
        except OSError:
            return 0

    def reported() -> bool:
        report = lean.ask("/readyz")
        return any("cannot listen" in problem and "class sandbox" in problem for problem in report["problems"])

    with lean:
        before = lean.ask("/readyz")["policy"]
        assert "policy_last_reload_successful 1.0" in lean.metrics()
        with socket.create_server(("127.0.0.1", new)):
            text = lean.policy_file.read_text().replace(str(old), str(new))
            # The other new listener can open. The proxy must close it again, because the policy is not applied.
            lean.policy_file.write_text(text.replace(str(lean.ports["build"]), str(other)))
            assert soon(reported)
            assert lean.ask("/readyz")["policy"] == before
            assert answers(old) == 403 and answers(lean.ports["build"]) != 0
            assert soon(lambda: answers(other) == 0)
            assert "policy_last_reload_successful 0.0" in lean.metrics()
            assert lean.log.count("cannot listen") >= 1
        assert soon(lambda: answers(new) == 403 and answers(other) != 0)
        assert soon(lambda: answers(old) == 0)
        report = lean.ask("/readyz")
        assert report["policy"] != before and not report["problems"]
        assert "policy_last_reload_successful 1.0" in lean.metrics()
