"""Tests of the server that publishes `/metrics` at the address that the operator configures."""

import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from openclaw_egress.app.listeners import check_ports
from openclaw_egress.observability.health import HealthError, MetricsServer
from openclaw_egress.policy.loader import read_policy
from openclaw_egress.settings import Settings, SettingsError


@pytest.fixture
def server():
    registry = CollectorRegistry()
    Counter("seen", "A counter.", registry=registry).inc()
    running = MetricsServer("127.0.0.1", 0, registry)
    running.start()
    yield running
    running.stop()


def test_metrics_are_served_and_nothing_else(server):
    base = f"http://127.0.0.1:{server.port}"
    assert b"seen_total 1.0" in urllib.request.urlopen(base + "/metrics").read()
    for path in ("/readyz", "/healthz", "/", "/metrics/"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(base + path)
        assert refused.value.code == 404


def test_port_in_use_causes_an_error_with_a_remedy(server):
    with pytest.raises(HealthError, match=r"cannot listen on 127\.0\.0\.1:\d+ \(metrics\).*EGRESS_METRICS_LISTEN"):
        MetricsServer("127.0.0.1", server.port, CollectorRegistry())


def test_setting_is_an_ipv4_address_with_a_port(monkeypatch):
    for text, found in (("", None), ("10.0.0.1:9464", ("10.0.0.1", 9464))):
        monkeypatch.setenv("EGRESS_METRICS_LISTEN", text)
        assert Settings.load().metrics_listen == found
    for wrong in ("9464", "10.0.0.1", "host:9464", "10.0.0.1:x", "10.0.0.1:0", "10.0.0.1:70000", "[::1]:9464"):
        monkeypatch.setenv("EGRESS_METRICS_LISTEN", wrong)
        with pytest.raises(SettingsError, match="EGRESS_METRICS_LISTEN: "):
            Settings.load()


def test_port_of_a_class_is_refused():
    policy = read_policy(
        b"version: 1\ninspect: [api.openai.com]\nclasses: {gateway: {listen: 9000, action: open}}\n", "policy.yml"
    )
    with pytest.raises(SettingsError, match=r"EGRESS_METRICS_LISTEN: port 9000 is also the listener of class gateway"):
        check_ports(Settings(metrics_listen=("10.0.0.1", 9000)), policy)
