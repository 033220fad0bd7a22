"""Fixtures: a proxy with every kind of traffic that the dashboards show, and its records in the Loki fake."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import pytest

from tests.integration.proxy.conftest import make_proxy, providers, wait_until
from tests.support.llm_providers import LLMProviders
from tests.support.loki.fake import FakeLoki
from tests.support.proxy_process import RunningProxy
from tools.monitoring.__main__ import FILES

__all__ = ["providers"]

MESSAGE = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
POISON = "a line that the destination refuses"


@dataclass(frozen=True)
class Target:
    """One query of a dashboard."""

    name: str
    language: str
    query: dict[str, Any]

    @property
    def expr(self) -> str:
        """Return the expression with values in place of Grafana's variables."""
        text = str(self.query["expr"])
        for variable, value in (
            ("$instance", ".*"),
            ("$service", "openclaw-proxy"),
            ("$__rate_interval", "10s"),
            ("$__range", "1h"),
        ):
            text = text.replace(variable, value)
        assert "$" not in re.sub(r'"[^"]*"', "", text), text
        return text


def targets(language: str) -> list[Target]:
    """Return the queries of the committed dashboards in one query language: ``prometheus`` or ``loki``."""
    found = []
    for path in sorted((FILES / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            if panel["type"] != "row" and panel["datasource"]["type"] == language:
                found += [
                    Target(f"{path.stem}: {panel['title']} {query['refId']}", language, query)
                    for query in panel["targets"]
                ]
    return found


def make_traffic(proxy: RunningProxy, class_name: str) -> None:
    """Send model calls of one class, and requests of other classes that the proxy denies or reports."""
    with proxy.client(class_name, headers={"x-api-key": "sk-ant-test"}) as http:
        for more in ({}, {"stream": True}, {"metadata": {"user_id": POISON}}):
            assert http.post(proxy.url("api.anthropic.com", "/v1/messages"), json=MESSAGE | more).status_code == 200
        failing = MESSAGE | {"model": "fail-529"}
        assert http.post(proxy.url("api.anthropic.com", "/v1/messages"), json=failing).status_code == 529
    with proxy.client("sandbox") as http, pytest.raises(httpx.HTTPError):
        http.get("https://denied.example.org/")
    # The action of class build is `report`, so the proxy allows the request and reports it.
    with proxy.client("build", headers={"x-api-key": "sk-ant-test"}) as http:
        assert http.post(proxy.url("api.anthropic.com", "/v1/messages"), json=MESSAGE).status_code == 200


@pytest.fixture(scope="module")
def loki() -> Iterator[FakeLoki]:
    with FakeLoki() as running:
        running.faults.set(refuse_lines_matching=POISON)
        yield running


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, providers: LLMProviders, loki: FakeLoki) -> Iterator[RunningProxy]:
    """Run a proxy with a budget for the class browser. Yield it when the destination has the records of its traffic."""
    at = tmp_path_factory.mktemp("proxy")
    running = make_proxy(at, providers, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=loki.url + "/otlp/v1/logs")
    # The three calls of `make_traffic` use 82 % of this budget.
    limits = "{cost_usd_per_day: 0.04}"
    text = running.policy_file.read_text()
    running.policy_file.write_text(text.replace("  browser: {", f"  browser: {{limits: {limits}, "))
    with running:
        make_traffic(running, "browser")
        policy = running.policy_file.read_text()
        for text, state in (("version: 2\n", "0.0"), (policy, "1.0")):
            running.policy_file.write_text(text)
            line = f"openclaw_egress_policy_last_reload_successful {state}"
            wait_until(lambda line=line: line in running.metrics(), running)
        arrived(running)
        audit = [sys.executable, "-m", "openclaw_egress", "audit"]
        done = subprocess.run(audit, env=running.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
        yield running


def arrived(proxy: RunningProxy) -> None:
    """Wait until the proxy has exported every record of the spool."""
    wait_until(lambda: (report := proxy.ask("/readyz")) and not report["spool"]["pending_records"], proxy)
