"""A real Prometheus that scrapes proxies on loopback. Install it as the system package `prometheus`."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.proxy_process import free_ports
from tools.monitoring.alerts import JOB

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
NO_PROMETHEUS = "no Prometheus: install the system's package `prometheus`"
DEADLINE_SECONDS = 90.0
"""Maximum time that a test waits for a state. It is long, because other processes can slow the machine down."""


class RunningPrometheus:
    """A Prometheus process that runs within the context.

    Args:
        directory: directory for configuration, data and log.
        targets: ``host:port`` at which each proxy serves its metrics.
        rules: text of the rules file.
    """

    def __init__(self, directory: Path, targets: Sequence[str], rules: str) -> None:
        (self._port,) = free_ports(1)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "openclaw_egress.rules.yml").write_text(rules)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
            "rule_files": ["*.rules.yml"],
            "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": list(targets)}]}],
        }
        # Prometheus reads YAML. Write JSON, because it is valid YAML.
        (directory / "prometheus.yml").write_text(json.dumps(config))

    def __enter__(self) -> Self:
        assert PROMETHEUS is not None
        with (self._directory / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    PROMETHEUS,
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.wait_for(self._is_ready)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    @property
    def log(self) -> str:
        """Return the log of Prometheus so far."""
        return (self._directory / "prometheus.log").read_text(errors="replace")

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an instant query, each with ``metric`` and ``value``."""
        return list(self._get("query", query=expr)["result"])

    def states(self) -> dict[str, str]:
        """Return the state of each active alert by its name: pending or firing."""
        return {alert["labels"]["alertname"]: alert["state"] for alert in self._get("alerts")["alerts"]}

    def rule_errors(self) -> list[str]:
        """Return the errors of the rules whose last evaluation failed."""
        return [
            rule["lastError"]
            for group in self._get("rules")["groups"]
            for rule in group["rules"]
            if "lastError" in rule
        ]

    def wait_for(self, holds: Callable[[], object], name: str = "") -> None:
        """Wait until a condition is true. After the timeout, fail with a message that contains ``name``."""
        end = time.monotonic() + DEADLINE_SECONDS
        while not holds():
            assert time.monotonic() < end, (name, self.states() if self._is_ready() else self.log[-3000:])
            time.sleep(0.1)
