"""Tests of `kill -9` during exchanges: complete exchanges are recorded once, all others as interrupted."""

import threading
import time
from collections import Counter

import httpx2 as httpx
import pytest

from openclaw_egress.spool.reader import SpoolReader
from tests.integration.proxy.conftest import make_proxy
from tests.support.llm_calls import is_exchange, kept, message
from tests.support.loki.fake import FakeLoki

EXCHANGES = 50


def ask(proxy, number: int, completed: list[int], started: list[int]) -> None:
    """Run one exchange. Add its number to ``completed`` when the client has the whole response."""
    try:
        with proxy.client(headers={"x-api-key": "sk-ant-test"}) as http:
            started.append(number)
            answer = http.post(
                proxy.url("api.anthropic.com", "/v1/messages"),
                headers={"x-standin-events": str(3 + number % 10), "x-standin-delay-ms": "60"},
                json=message(number, stream=number % 3 > 0),
            )
            assert answer.status_code == 200
            completed.append(number)
    except httpx.HTTPError:
        pass


@pytest.mark.parametrize("after", [10, 25])
def test_kill_during_fifty_exchanges_records_each_once(tmp_path, providers, after):
    with FakeLoki() as loki:
        proxy = make_proxy(tmp_path, providers, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=loki.url + "/otlp/v1/logs").start()
        completed: list[int] = []
        started: list[int] = []
        threads = [
            threading.Thread(target=ask, args=(proxy, number, completed, started)) for number in range(EXCHANGES)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 60
        while len(completed) < after and time.monotonic() < end:
            time.sleep(0.002)
        proxy.kill()
        for thread in threads:
            thread.join(30)
        assert after <= len(completed) < EXCHANGES

        with proxy:
            while proxy.ask("/readyz")["spool"]["pending_records"]:
                assert time.monotonic() < end
                time.sleep(0.05)
            found = kept(proxy)
        rows = [row for _, row in found]
        outcomes = {number: row.outcome for number, row in found}
        assert len(outcomes) == len(rows)
        assert {number for number in completed if outcomes.get(number) != "complete"} == set()
        assert set(outcomes.values()) <= {"complete", "interrupted"}
        assert "interrupted" in outcomes.values()

        stored = Counter(
            labels["openclaw_egress_exchange_id"] for _, _, labels in loki.records() if is_exchange(labels)
        )
        assert stored == Counter(row.id for row in rows)
        with SpoolReader(tmp_path / "state" / "spool.db") as reader:
            assert reader.audit().problems == ()


def test_partial_stream_is_recorded_after_a_kill(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers).start()
    with (
        proxy.client(headers={"x-api-key": "sk-ant-test"}) as http,
        pytest.raises(httpx.HTTPError),
        http.stream(
            "POST",
            proxy.url("api.anthropic.com", "/v1/messages"),
            headers={"x-standin-events": "100", "x-standin-delay-ms": "30"},
            json={
                "model": "claude-opus-5",
                "max_tokens": 9,
                "stream": True,
                "messages": [{"role": "user", "content": "hello"}],
            },
        ) as answer,
    ):
        seen = ""
        for piece in answer.iter_text():
            seen += piece
            if seen.count("content_block_delta") >= 10 and proxy.process.poll() is None:
                time.sleep(0.1)  # Wait for the journal, which stores received bytes within 50 ms.
                proxy.kill()
    with proxy:
        (row,) = proxy.exchanges()
    assert (row.outcome, row.status, row.model) == ("interrupted", 200, "claude-opus-5")
    line = proxy.line(row.id)
    assert line["request"]["body_sha256"]
    kept = line["response"]["body"]
    assert kept.count("content_block_delta") >= 10
    assert seen.startswith(kept) or kept.startswith(seen)


def test_hash_chain_continues_after_a_kill(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers)
    for _ in range(3):
        proxy.start()
        with proxy.client() as http:
            http.get(proxy.url("api.anthropic.com", "/v1/models"))
        proxy.kill()
    with SpoolReader(tmp_path / "state" / "spool.db") as reader:
        audit = reader.audit()
    assert audit.problems == () and audit.lines == 6
