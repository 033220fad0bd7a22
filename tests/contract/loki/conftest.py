"""Fixtures of the contract tests. They use the Loki at LOKI_URL if it is set, otherwise the fake."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.loki import FakeLoki

from .asker import Allowance, Asker
from .comparing import DIFFERENCES


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "extra: beyond the recorded 60 cases; holds for a real Loki too")


@pytest.fixture(scope="session")
def loki_url() -> Iterator[str]:
    if url := os.environ.get("LOKI_URL"):
        yield url
        return
    with FakeLoki() as loki:
        yield loki.url


@pytest.fixture(scope="session")
def ask(loki_url: str) -> Callable[[str], Asker]:
    """Return a function that creates the Loki client of a test case.

    Each service name contains the run's six random letters.
    """
    real = bool(os.environ.get("LOKI_URL"))
    run = "".join(random.choices("ghjkmnpqrtvwxyz", k=6))
    allowance = Allowance()

    def make(case: str) -> Asker:
        return Asker(loki_url, f"p-{run}-{case}", allowance, settle_s=2.0 if real else 0.2)

    deadline = time.monotonic() + 60
    # Wait until Loki is ready, about 15 s after its start.
    while make("wait").get("/ready")["status"] != 200 and time.monotonic() < deadline:
        time.sleep(1)
    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    whom = os.environ.get("LOKI_URL") or "the Loki fake (not Loki)"
    terminalreporter.write_line(
        f"Loki's contract against {whom}: {len(DIFFERENCES)} of 60 cases allow a difference (-rA lists them)"
    )
    if "A" in config.option.reportchars:
        for case, reason in DIFFERENCES.items():
            terminalreporter.write_line(f"  {case}: {reason}")
