"""Fixtures for tests of operator commands: the state directory of a stopped proxy, and the Loki fake."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from openclaw_egress.cli import dead_letters
from tests.support.loki import FakeLoki


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the state directory of a stopped proxy. Commands wait only 0.1 s for the proxy."""
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("EGRESS_HEALTH_PORT", "1")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", raising=False)
    monkeypatch.setattr(dead_letters, "WAIT_SECONDS_STOPPED", 0.1)
    return tmp_path


@pytest.fixture
def loki() -> Iterator[FakeLoki]:
    """Run the Loki fake."""
    with FakeLoki() as running:
        yield running
