"""Fixtures that run the tests of each module against `egress run` and against stock mitmdump."""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.support.llm_providers import LLMProviders
from tests.support.loki.fake import FakeLoki
from tests.support.proxy_process import RunningProxy


@pytest.fixture(scope="session")
def providers() -> Iterator[LLMProviders]:
    with LLMProviders(http_port=0) as running:
        yield running


@pytest.fixture(scope="module", params=["lean", "stock"])
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, providers: LLMProviders
) -> Iterator[RunningProxy]:
    running = make_proxy(tmp_path_factory.mktemp(request.param), providers, request.param)
    with running:
        yield running
    assert "Traceback" not in running.log, running.log


def make_proxy(directory, providers: LLMProviders, kind="lean", **environment: str) -> RunningProxy:
    assert providers.ca_file is not None and providers.http_port is not None
    ports = [providers.port, providers.http_port]
    return RunningProxy(directory, ports, providers.ca_file, kind, **environment)


@contextlib.contextmanager
def blocking_spool(directory, providers: LLMProviders, loki: FakeLoki) -> Iterator[RunningProxy]:
    """Make Loki refuse all pushes, then run a proxy with a small spool that refuses exchanges when it is full."""
    loki.faults.set(status=503)
    with make_proxy(
        directory,
        providers,
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=loki.url + "/otlp/v1/logs",
        EGRESS_SPOOL_MAX_BYTES="1048576",
        EGRESS_SPOOL_FULL="block",
    ) as proxy:
        yield proxy


def wait_until(holds: Callable[[], object], proxy: RunningProxy, seconds: float = 60) -> None:
    """Wait for a condition. The timeout is long, because other processes can slow the machine down."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, (proxy.ask("/readyz"), proxy.log[-3000:])
        time.sleep(0.1)


_DENIED = re.compile(r'_denied_total\{code="(\w+)",egress_class="(\w+)",enforced="true",rule="([^"]+)"\} (\S+)')


def refusals(proxy: RunningProxy) -> Counter[tuple[str, str, str]]:
    """Return the number of refusals so far by class, rule and code, including those in summary records."""
    found = _DENIED.findall(proxy.metrics())
    return Counter({(class_name, rule, code): int(float(count)) for code, class_name, rule, count in found})


@pytest.fixture
def lean(tmp_path, providers) -> Iterator[RunningProxy]:
    """Yield an `egress run` proxy for a single test. The test must start it."""
    running = make_proxy(tmp_path, providers)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.kill()
