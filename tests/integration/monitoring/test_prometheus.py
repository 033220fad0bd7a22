"""Tests of the alerts with a real Prometheus that scrapes the real proxy."""

import pytest

from tests.integration.proxy.conftest import make_proxy, providers
from tests.support.llm_calls import is_exchange
from tests.support.loki.fake import FakeLoki
from tests.support.prometheus import NO_PROMETHEUS, PROMETHEUS, RunningPrometheus
from tests.support.proxy_process import free_ports
from tools.monitoring.alerts import Times, rules_text

__all__ = ["providers"]

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason=NO_PROMETHEUS)

STALLED = "OpenClawEgressExportStalled"
SHORT = Times(stalled=5, away=0, lasting=1)
MESSAGE = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


def ask(proxy) -> int:
    with proxy.client(headers={"x-api-key": "sk-ant-test"}) as http:
        return http.post(proxy.url("api.anthropic.com", "/v1/messages"), json=MESSAGE).status_code


def exchanges(loki) -> list[str]:
    return [line for _, line, labels in loki.records("openclaw-proxy") if is_exchange(labels)]


@pytest.fixture
def loki():
    with FakeLoki() as running:
        yield running


def test_export_stalled_fires_while_the_store_is_stopped_and_resolves_when_it_is_back(tmp_path, providers, loki):
    # Scrape the separate metrics address (EGRESS_METRICS_LISTEN) instead of the health port.
    (port,) = free_ports(1)
    environment = {
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": loki.url + "/otlp/v1/logs",
        "EGRESS_METRICS_LISTEN": f"127.0.0.1:{port}",
    }
    with (
        make_proxy(tmp_path, providers, **environment) as proxy,
        RunningPrometheus(tmp_path, [f"127.0.0.1:{port}"], rules_text(SHORT)) as prometheus,
    ):
        # Wait for the first scrape, because the alert for an absent proxy fires until then.
        prometheus.wait_for(lambda: prometheus.query("openclaw_egress_export_pushed_records > 0"))
        prometheus.wait_for(lambda: prometheus.states() == {})
        loki.stop()
        assert ask(proxy) == 200
        prometheus.wait_for(lambda: prometheus.states().get(STALLED) == "firing")
        assert not exchanges(loki)
        loki.restart()
        prometheus.wait_for(lambda: exchanges(loki))
        prometheus.wait_for(lambda: STALLED not in prometheus.states())
        assert prometheus.rule_errors() == []
        proxy.stop()
        prometheus.wait_for(lambda: prometheus.states().get("OpenClawEgressProxyAway") == "firing")
