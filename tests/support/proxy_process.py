"""The proxy as a process on loopback, for tests and the demo. It runs as `egress run` or in a stock `mitmdump`."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import httpx2 as httpx

from openclaw_egress.spool.reader import Filters, Row, SpoolReader

ADDON = Path(__file__).resolve().parents[2] / "files" / "addon"
CLASSES = ("gateway", "browser", "sandbox", "build")
PROVIDERS = ("api.anthropic.com", "api.openai.com")
SITES = ("www.example.com", "packages.example.com")


_taken: set[int] = set()


def free_ports(number: int) -> list[int]:
    """Reserve distinct free ports and return them. Other test processes of this user do not get the same ports.

    The ports are below 32768, because the kernel could give a higher port to a client before the proxy listens on it.
    A lock on a shared file reserves each port until this process ends, also while no proxy listens on it.
    """
    lock = _port_locks()
    ports: list[int] = []
    while len(ports) < number:
        port = random.randrange(10_000, 32_768)
        if port in _taken:
            continue
        with contextlib.suppress(OSError):
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _taken.add(port)
            with socket.create_server(("127.0.0.1", port)):
                ports.append(port)
    return ports


@functools.cache
def _port_locks() -> int:
    """Return the descriptor of the lock file. The process that reserves port N locks byte N of this file.

    Never close the file, because a process loses its locks when it closes the file.
    """
    path = Path(tempfile.gettempdir(), f"openclaw-egress-test-ports-{os.getuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def policy_for(ports: dict[str, int], provider_ports: Sequence[int]) -> str:
    """Return a policy that resolves the test hosts to loopback, and allows only the fake provider's ports there."""
    opened = json.dumps([{"cidr": "127.0.0.1/32", "ports": list(provider_ports)}])
    rules = json.dumps([{"host": host, "ports": list(provider_ports)} for host in ("*.example.com", *PROVIDERS)])
    return f"""version: 1
inspect: {json.dumps(PROVIDERS)}
classes:
  gateway: {{listen: {ports["gateway"]}, action: open, addresses: {opened}}}
  browser: {{listen: {ports["browser"]}, action: enforce, allow: {rules}, addresses: {opened}}}
  sandbox: {{listen: {ports["sandbox"]}, action: enforce, allow: []}}
  build: {{listen: {ports["build"]}, action: report, allow: [], addresses: {opened}}}
resolve: {{{", ".join(f"{host}: 127.0.0.1" for host in (*PROVIDERS, *SITES))}}}
"""


class RunningProxy:
    """A proxy process. After :meth:`kill`, :meth:`start` starts it again with the same state directory.

    Args:
        directory: directory for state, policy and log.
        kind: ``lean`` for `egress run`, or ``stock`` for `mitmdump` with the add-on.
        provider_ports: ports of the fake provider, the TLS port first.
        upstream_ca: CA certificate of the fake provider.
        environment: additional environment variables of the proxy.
    """

    def __init__(
        self,
        directory: Path,
        provider_ports: Sequence[int],
        upstream_ca: Path,
        kind: Literal["lean", "stock"] = "lean",
        **environment: str,
    ) -> None:
        self.kind = kind
        self.directory = directory
        numbers = free_ports(len(CLASSES) + 1)
        self.ports = dict(zip(CLASSES, numbers, strict=False))
        self.health_port = numbers[-1]
        self.provider_port = provider_ports[0]
        self.policy_file = directory / "policy.yml"
        self.policy_file.write_text(policy_for(self.ports, provider_ports))
        self.log_file = directory / "proxy.log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "PYTHONPATH": str(ADDON),
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "",
            "EGRESS_LISTEN_HOST": "127.0.0.1",
            "EGRESS_STATE_DIR": str(directory / "state"),
            "EGRESS_POLICY_FILE": str(self.policy_file),
            "EGRESS_UPSTREAM_CA": str(upstream_ca),
            "EGRESS_HEALTH_PORT": str(self.health_port),
            **environment,
        }
        self.prefix: list[str] = []
        """Prefix of the command line, such as a program that starts the proxy in a cgroup."""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """Return the command line that starts the proxy."""
        if self.kind == "lean":
            return [*self.prefix, sys.executable, "-m", "openclaw_egress", "run"]
        modes = [f"--mode=regular@127.0.0.1:{port}" for port in self.ports.values()]
        mitmdump = Path(sys.executable).with_name("mitmdump")
        return [
            str(mitmdump),
            "--set",
            f"confdir={self.directory / 'mitm'}",
            *modes,
            "-s",
            str(ADDON / "otel_logger.py"),
        ]

    def start(self, timeout: float = 90.0) -> Self:
        """Start the process, and wait until its health server responds and all listeners accept connections.

        This takes 1.5 s on an idle machine. The timeout is longer, because other processes can slow the machine down.
        """
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the proxy ended with {self.process.returncode}:\n{self.log}")
            if self.ask("/healthz") is not None and self._listens():
                return self
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()
        raise RuntimeError(f"the proxy did not start within {timeout} s:\n{self.log}")

    def _listens(self) -> bool:
        own = self.environment.get("EGRESS_CLASS_NETWORKS", "")
        addresses = {name: interface.split("/")[0] for name, interface in re.findall(r"(\w+)=([^,\s]+)", own)}
        for name, port in self.ports.items():
            try:
                socket.create_connection((addresses.get(name, "127.0.0.1"), port), 1).close()
            except OSError:
                return False
        return True

    def ask(self, path: str) -> dict[str, Any] | None:
        """Return the JSON response of a health path, even if its status is an error; None if there is no response."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except OSError:
            return None

    def metrics(self) -> str:
        """Return the response of /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    @property
    def log(self) -> str:
        """Return the proxy's log so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def stop(self) -> int:
        """Stop the process gracefully. Return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    @contextlib.contextmanager
    def no_room(self) -> Iterator[None]:
        """Simulate a full disk within the context: let no file grow beyond the size of the spool's write-ahead log."""
        assert self.process is not None
        pid = self.process.pid
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        written = (self.directory / "state" / "spool.db-wal").stat().st_size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (written, unlimited[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    # ── clients ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def root(self) -> Path:
        """Return the path of the CA certificate that clients trust."""
        return self.directory / "state" / "ca" / "mitmproxy-ca-cert.pem"

    def proxy_url(self, class_name: str = "gateway") -> str:
        """Return the URL of a class's listener, which clients need as HTTPS_PROXY."""
        return f"http://127.0.0.1:{self.ports[class_name]}"

    def url(self, host: str, path: str = "") -> str:
        """Return the URL of a path on the fake provider, with a host name that the provider serves."""
        return f"https://{host}:{self.provider_port}{path}"

    def client(self, class_name: str = "gateway", *, ca: Path | None = None, **options: Any) -> httpx.Client:
        """Return an HTTP client that uses a class's listener and trusts only the proxy's CA (or ``ca``)."""
        import ssl

        context = ssl.create_default_context(cafile=str(ca or self.root))
        return httpx.Client(proxy=self.proxy_url(class_name), verify=context, trust_env=False, timeout=30, **options)

    # ── records ──────────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, **filters: Any) -> list[Row]:
        """Return the rows of the spool that match the filters, oldest first."""
        with SpoolReader(self.directory / "state" / "spool.db") as reader:
            return sorted(reader.query(Filters(**filters)), key=lambda row: row.seq)

    def exchanges(self) -> list[Row]:
        """Return the first row of each exchange, oldest first."""
        return [row for row in self.rows() if row.event_name == "openclaw.egress.exchange" and not row.part]

    def denials(self) -> list[Row]:
        """Return the rows of single denials. Omit summaries of denials, which the proxy can add at any time."""
        return [row for row in self.rows() if row.event_name == "openclaw.egress.denied" and not row.summary]

    def line(self, exchange_id: str) -> dict[str, Any]:
        """Parse and return the first log line of an exchange. It is the whole record unless the record was split."""
        with SpoolReader(self.directory / "state" / "spool.db") as reader:
            return dict(json.loads(reader.lines_for(exchange_id)[0]))
