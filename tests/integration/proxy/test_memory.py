"""The memory budget of the running proxy: bodies wait, are refused with a record, and all memory is released."""

import asyncio
import re
import threading
import time

import httpx2 as httpx
import pytest

from tests.chaos.memory import Client
from tests.integration.proxy.conftest import make_proxy

MIB = 1024 * 1024
BUDGET = 32 * MIB
"""One class may hold 20 MiB, its requests 14 MiB: four of 1 MiB start at once, because each is charged three times."""

PAUSE = "x-standin-first-byte-ms: 11000"
MESSAGE = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


WAIT_SECONDS = "8"
"""Longer than a burst takes on a busy machine, shorter than the provider's pause below."""


@pytest.fixture(scope="module")
def small(tmp_path_factory, providers):
    running = make_proxy(
        tmp_path_factory.mktemp("memory"),
        providers,
        EGRESS_MEMORY_BUDGET=str(BUDGET),
        EGRESS_MEMORY_WAIT_SECONDS=WAIT_SECONDS,
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
    return proxy.ask("/readyz")["memory"]


def is_given_back(proxy):
    """Return whether no class holds memory; connections of clients may take a moment to end."""
    end = time.monotonic() + 20
    while memory(proxy)["used_bytes"]:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def refusals(proxy):
    return [row for row in proxy.denials() if row.rule == "memory-budget"]


def test_bodies_above_the_budget_wait_and_then_pass(small):
    assert posts(small, 12, MIB) == [200] * 12
    assert [row.outcome for row in small.exchanges()[-12:]] == ["complete"] * 12
    assert not refusals(small)
    assert is_given_back(small)


def test_a_stock_mitmdump_has_the_budget_too(tmp_path, providers):
    with make_proxy(tmp_path, providers, "stock", EGRESS_MEMORY_BUDGET=str(BUDGET)) as stock:
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
    counted = re.search(
        r'denied_total\{code="memory_limit",egress_class="browser",enforced="true",rule="memory-budget"\} ([0-9.]+)',
        small.metrics(),
    )
    assert counted is not None and float(counted[1]) >= ended.count(503)
    ends = [row for row in small.exchanges() if row.outcome == "interrupted"]
    assert len(ends) >= ended.count(503)
    line = small.line(ends[-1].id)
    assert "EGRESS_MEMORY_BUDGET" in str(line) or ends[-1].rule == "memory-budget"


def test_a_refusal_names_the_setting(small):
    with small.client("browser", headers={"x-api-key": "k"}) as http:
        thread = threading.Thread(target=posts, args=(small, 30, MIB, PAUSE))
        thread.start()
        while memory(small)["classes"]["browser"]["used_bytes"] < BUDGET // 4:
            time.sleep(0.05)
        answer = http.post(small.url("api.anthropic.com", "/v1/messages"), content=b"x" * MIB)
        thread.join()
    assert answer.status_code == 503
    assert "EGRESS_MEMORY_BUDGET" in answer.text and answer.headers["retry-after"]
    assert is_given_back(small)


def test_large_streams_share_the_budget_and_none_is_lost(small):
    """Start all streams at once, because each exceeds the amount held; their captures do not fit together."""
    assert posts(small, 12, 3 * MIB) == [200] * 12
    assert is_given_back(small)


def test_endless_bodies_do_not_block_their_class_for_ever(small):
    async def unended():
        client = Client(small)
        return await asyncio.gather(*(client.unended("browser", 9 * MIB // 4, 4) for _ in range(30)))

    before = len(refusals(small))
    asyncio.run(unended())
    assert posts(small, 1, MIB) == [200]
    assert len(refusals(small)) >= before
    assert is_given_back(small)


def test_unread_responses_stay_within_the_budget(small):
    async def unread():
        client = Client(small)
        return await asyncio.gather(
            *(client.post("browser", 1000, "x-standin-body-bytes: 3000000", hold=1) for _ in range(12))
        )

    assert asyncio.run(unread()) == [200] * 12
    assert is_given_back(small)


@pytest.mark.parametrize("fields", [("x-standin-abort-after: 1000", "x-standin-body-bytes: 2000000")])
def test_memory_is_released_after_an_upstream_error(small, fields):
    asyncio.run(asyncio.wait_for(Client(small).post("browser", MIB, *fields), 60))
    assert is_given_back(small)


def test_memory_is_released_after_the_client_disconnects(small):
    with (
        small.client("browser", headers={"x-api-key": "k", "x-standin-first-byte-ms": "3000"}) as http,
        pytest.raises(httpx.TimeoutException),
    ):
        http.post(small.url("api.anthropic.com", "/v1/messages"), content=b"x" * MIB, timeout=1)
    assert is_given_back(small)
    assert small.exchanges()[-1].outcome in ("client_aborted", "complete")


def test_budget_is_reported(small):
    report = memory(small)
    assert report["limit_bytes"] == BUDGET
    assert set(report["classes"]) == set(small.ports)
    text = small.metrics()
    assert f"openclaw_egress_memory_budget_bytes {float(BUDGET)}" in text or "memory_budget_bytes 3.3554432e+07" in text
    assert 'openclaw_egress_memory_used_bytes{egress_class="browser"}' in text
    assert 'openclaw_egress_memory_room_bytes{egress_class="browser"}' in text
