"""Shared setup of all themes: the fakes, the proxies, and kernel statistics about a proxy's process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.llm_providers import LLMProviders
from tests.support.proxy_process import ADDON, RunningProxy

INTERFERENCE = Path(__file__).with_name("interference")
NOISY = ("sandbox", "browser")
"""The classes that flood the proxy. The class `gateway` must not be affected."""


@dataclass
class Fixtures:
    """The fake provider that all proxies use, and the directory for their state."""

    directory: Path
    providers: LLMProviders

    @property
    def certificate(self) -> tuple[Path, Path]:
        """Return the paths of the fake provider's certificate chain and key. The faulty provider uses them too."""
        return self.directory / "tls" / "cert.pem", self.directory / "tls" / "key.pem"

    def proxy(self, name: str, more_ports: Sequence[int] = (), **environment: str) -> RunningProxy:
        """Return a proxy for one theme. The caller starts it.

        The classes sandbox and browser may reach ``*.example.com`` on the fakes' ports and on ``more_ports``, and names
        below ``slow.example``.
        """
        assert self.providers.ca_file is not None and self.providers.http_port is not None
        directory = self.directory / name
        directory.mkdir()
        ports = [self.providers.port, self.providers.http_port, *more_ports]
        proxy = RunningProxy(
            directory,
            ports,
            self.providers.ca_file,
            **{"PYTHONPATH": f"{INTERFERENCE}:{ADDON}", **environment},
        )
        lines = proxy.policy_file.read_text().splitlines()
        rules = f'[{{host: "*.example.com", ports: {ports}}}, {{host: "*.slow.example", ports: [443]}}]'
        opened = f"[{{cidr: 127.0.0.1/32, ports: {ports}}}]"
        for number, text in enumerate(lines):
            if (class_name := text.strip().partition(":")[0]) in NOISY:
                lines[number] = (
                    f"  {class_name}: {{listen: {proxy.ports[class_name]}, action: enforce, allow: {rules}, "
                    f"addresses: {opened}}}"
                )
        proxy.policy_file.write_text("\n".join(lines) + "\n")
        return proxy


@contextlib.contextmanager
def made(directory: Path) -> Iterator[Fixtures]:
    """Start the fake provider within the context. Yield the fixtures."""
    with LLMProviders(http_port=0, tls_dir=directory / "tls") as providers:
        yield Fixtures(directory, providers)


def wait_until(holds: Callable[[], object], seconds: float) -> bool:
    """Wait until a condition is true. Return False at the timeout."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def drained(proxy: RunningProxy, seconds: float = 60) -> bool:
    """Wait until the destination has acknowledged all lines. Return False at the timeout."""
    return wait_until(
        lambda: not (proxy.ask("/readyz") or {"spool": {"pending_records": 1}})["spool"]["pending_records"], seconds
    )


# ── figures from the kernel ──────────────────────────────────────────────────────────────────────────────────────


def _process(proxy: RunningProxy) -> Path:
    assert proxy.process is not None
    return Path("/proc") / str(proxy.process.pid)


def descriptors(proxy: RunningProxy) -> int:
    """Return the number of file descriptors that the proxy has open."""
    return len(list((_process(proxy) / "fd").iterdir()))


def megabytes(proxy: RunningProxy, *, peak: bool = False) -> float:
    """Return the resident memory of the proxy in MB; with ``peak``, its maximum since :func:`forget_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    found = next(line for line in (_process(proxy) / "status").read_text().splitlines() if line.startswith(name))
    return int(found.split()[1]) / 1024


def forget_peak(proxy: RunningProxy) -> None:
    """Reset the kernel's peak value of the proxy's memory, `VmHWM` (see clear_refs in proc(5))."""
    (_process(proxy) / "clear_refs").write_text("5")
