"""Tests of the memory budget: above it, the proxy delays bodies or refuses requests. Later it releases all memory."""

import asyncio
import contextlib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from tests.integration.proxy.conftest import make_proxy, wait_until
from tests.resilience.memory import Client

MIB = 1024 * 1024
BUDGET = 32 * MIB
"""Memory budget in bytes. One class may use 20 MiB of it, and at most 14 MiB for requests.

A request is charged three times its size, so four requests of 1 MiB fit.
"""

PAUSE = "x-standin-first-byte-ms: 11000"
MESSAGE = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


WAIT_SECONDS, PATIENT_SECONDS = 2, 120
"""Seconds that an exchange waits for memory: one value below the provider's pause, one longer than any test."""


@pytest.fixture(scope="module")
def small(tmp_path_factory, providers):
    """Start a proxy that refuses an exchange after a short wait for memory."""
    with budgeted(tmp_path_factory.mktemp("memory"), providers, WAIT_SECONDS) as running:
        yield running


@pytest.fixture(scope="module")
def patient(tmp_path_factory, providers):
    """Start a proxy in which an exchange waits for memory for up to two minutes, longer than the tests need."""
    with budgeted(tmp_path_factory.mktemp("patient"), providers, PATIENT_SECONDS) as running:
        yield running


@contextlib.contextmanager
def budgeted(directory, providers, wait_seconds, kind="lean"):
    running = make_proxy(
        directory,
        providers,
        kind,
        EGRESS_MEMORY_BUDGET=str(BUDGET),
        EGRESS_MEMORY_WAIT_SECONDS=str(wait_seconds),
    )
    with running:
        yield running
    assert "Traceback" not in running.log, running.log


def posts(proxy, number, size, *fields, class_name="browser"):
    async def all_of_them():
        client = Client(proxy)
        return await asyncio.gather(*(client.post(class_name, size, *fields) for _ in range(number)))

    return asyncio.run(all_of_them())


def memory(proxy):
    end = time.monotonic() + 60
    while (report := proxy.ask("/readyz")) is None:
        assert time.monotonic() < end
    return report["memory"]


def is_given_back(proxy):
    """Wait until no class holds memory, because connections need a moment to end. Return False at the timeout."""
    end = time.monotonic() + 60
    while memory(proxy)["used_bytes"]:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def refusals(proxy):
    return [row for row in proxy.denials() if row.rule == "memory-budget"]


def refused(proxy) -> float:
    """Return the number of refused requests of class browser, including those in summary records."""
    name = r'denied_total\{code="memory_limit",egress_class="browser",enforced="true",rule="memory-budget"\} ([0-9.]+)'
    counted = re.search(name, proxy.metrics())
    return float(counted[1]) if counted else 0.0


def test_bodies_above_the_budget_wait_and_then_pass(patient):
    assert posts(patient, 12, MIB) == [200] * 12
    assert [row.outcome for row in patient.exchanges()[-12:]] == ["complete"] * 12
    assert not refusals(patient)
    assert is_given_back(patient)


def test_memory_budget_applies_to_a_stock_mitmdump(tmp_path, providers):
    with budgeted(tmp_path, providers, PATIENT_SECONDS, "stock") as stock:
        assert posts(stock, 8, MIB) == [200] * 8
        assert is_given_back(stock)


def test_bodies_that_wait_too_long_are_refused_with_a_record(small):
    ended = []
    before = len(refusals(small))
    waiting = [PAUSE]
    thread = threading.Thread(target=lambda: ended.extend(posts(small, 30, MIB, *waiting)))
    thread.start()
    with small.client(headers={"x-api-key": "k"}) as http:
        while thread.is_alive():
            answer = http.post(small.url("api.anthropic.com", "/v1/messages"), json=MESSAGE)
            assert answer.status_code == 200
            assert memory(small)["used_bytes"] <= BUDGET
            time.sleep(0.2)
    thread.join()
    assert set(ended) == {200, 503} and len(ended) == 30
    assert is_given_back(small)
    recorded = refusals(small)[before:]
    assert recorded and all(row.class_name == "browser" for row in recorded)
    assert refused(small) >= ended.count(503)
    ends = [row for row in small.exchanges() if row.outcome == "interrupted"]
    assert len(ends) >= ended.count(503)
    line = small.line(ends[-1].id)
    assert "EGRESS_MEMORY_BUDGET" in str(line) or ends[-1].rule == "memory-budget"
    # A refused request got 503. An aborted connection got no response, so its record has no status.
    assert {row.status for row in recorded} <= {503, None} and 503 in {row.status for row in recorded}
    assert sum(row.status == 503 for row in ends) >= ended.count(503)


def test_refusal_names_the_setting_of_the_memory_budget(small):
    name, _, value = PAUSE.partition(": ")

    def post(_: int) -> httpx.Response | None:
        # Ignore aborted connections: the proxy can respond with 503 only while it holds the request, not after it
        # forwarded it.
        with contextlib.suppress(httpx.TransportError), small.client("browser", headers={"x-api-key": "k"}) as http:
            url = small.url("api.anthropic.com", "/v1/messages")
            return http.post(url, content=b"x" * MIB, headers={name: value}, timeout=60)
        return None

    with ThreadPoolExecutor(30) as pool:
        answers = [answer for answer in pool.map(post, range(30)) if answer is not None and answer.status_code == 503]
    assert answers
    assert all("EGRESS_MEMORY_BUDGET" in answer.text and answer.headers["retry-after"] for answer in answers)
    assert is_given_back(small)


def test_large_streams_share_the_budget_and_none_is_lost(patient):
    """Run all streams in parallel. Together, the data that the proxy captures exceeds the memory budget."""
    assert posts(patient, 12, 3 * MIB) == [200] * 12
    assert is_given_back(patient)


def test_endless_bodies_do_not_block_their_class_for_ever(small):
    async def unended():
        client = Client(small)
        return await asyncio.gather(*(client.unended("browser", 9 * MIB // 4, 4) for _ in range(30)))

    before = len(refusals(small))
    asyncio.run(unended())
    assert is_given_back(small)
    assert posts(small, 1, MIB) == [200]
    assert len(refusals(small)) >= before
    assert is_given_back(small)


def test_unread_responses_stay_within_the_budget(patient):
    async def unread():
        client = Client(patient)
        return await asyncio.gather(
            *(client.post("browser", 1000, "x-standin-body-bytes: 3000000", hold=1) for _ in range(12))
        )

    assert asyncio.run(unread()) == [200] * 12
    assert is_given_back(patient)


@pytest.mark.parametrize("fields", [("x-standin-abort-after: 1000", "x-standin-body-bytes: 2000000")])
def test_memory_is_released_after_an_upstream_error(small, fields):
    asyncio.run(asyncio.wait_for(Client(small).post("browser", MIB, *fields), 60))
    assert is_given_back(small)


def test_memory_is_released_after_the_client_disconnects(small):
    before = len(small.exchanges())
    with (
        small.client("browser", headers={"x-api-key": "k", "x-standin-first-byte-ms": "3000"}) as http,
        pytest.raises(httpx.TimeoutException),
    ):
        http.post(small.url("api.anthropic.com", "/v1/messages"), content=b"x" * MIB, timeout=httpx.Timeout(60, read=1))
    assert is_given_back(small)
    wait_until(lambda: len(small.exchanges()) > before, small)
    assert small.exchanges()[-1].outcome in ("client_aborted", "complete")


def test_budget_is_reported(small):
    report = memory(small)
    assert report["limit_bytes"] == BUDGET
    assert set(report["classes"]) == set(small.ports)
    text = small.metrics()
    assert f"openclaw_egress_memory_budget_bytes {float(BUDGET)}" in text or "memory_budget_bytes 3.3554432e+07" in text
    assert 'openclaw_egress_memory_used_bytes{egress_class="browser"}' in text
    assert 'openclaw_egress_memory_room_bytes{egress_class="browser"}' in text
