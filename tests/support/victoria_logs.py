"""A real VictoriaLogs on loopback, if its program is on the PATH or in the lab's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.proxy_process import free_ports

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openclaw-egress"
PROGRAM = shutil.which("victoria-logs") or next(
    (str(file) for file in sorted(CACHE.glob("victoria-logs-v*")) if os.access(file, os.X_OK)), None
)
OTLP_PATH = "/insert/opentelemetry/v1/logs"
START_SECONDS = 30


@contextmanager
def running(data: Path) -> Iterator[str]:
    """Run VictoriaLogs with its data in this directory. Yield its endpoint for OTLP logs."""
    (port,) = free_ports(1)
    command = [str(PROGRAM), f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={data}", "-retentionPeriod=30d"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: get(f"{url}/health"), "VictoriaLogs did not start")
            yield f"{url}{OTLP_PATH}"
        finally:
            process.terminate()


def get(url: str) -> bytes:
    """Return the body of the response, or no bytes if the request failed."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as response:
            body: bytes = response.read()
            return body
    except (urllib.error.URLError, OSError):
        return b""


def wait_until(condition: Callable[[], object], message: str) -> None:
    """Wait until the condition is true, for at most `START_SECONDS` seconds."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.1)
