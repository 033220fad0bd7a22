"""Tests of the spool and export state that `/readyz` and `/metrics` report."""

from prometheus_client import generate_latest

from openclaw_egress.app.service import Service
from openclaw_egress.settings import Settings
from tests.support.proxy_process import free_ports, policy_for

CLASSES = ("gateway", "browser", "sandbox", "build")


def test_dead_letters_are_reported_by_reason(tmp_path):
    *ports, health_port = free_ports(5)
    file = tmp_path / "policy.yml"
    file.write_text(policy_for(dict(zip(CLASSES, ports, strict=True)), [443]))
    endpoint = "http://127.0.0.1:9/otlp/v1/logs"
    settings = Settings.load(state_dir=tmp_path, policy_file=file, logs_endpoint=endpoint, health_port=health_port)
    service = Service(settings)
    try:
        for _ in range(3):
            service.spool.checkpoint()
        service.spool.acknowledge([3])
        service.spool.dead_letter([1, 2], "too_old: entry has timestamp too old")
        assert service.readiness.ready()[1]["dead_letters"] == {"too_old": 2}
        metrics = generate_latest(service.metrics.registry).decode()
        assert 'openclaw_egress_dead_letters{reason="too_old"} 2.0\n' in metrics
        assert "openclaw_egress_spool_acknowledged_records 1.0\n" in metrics
        assert "openclaw_egress_spool_pending_records 1.0\n" in metrics
    finally:
        service.stop()
