"""Tests of failures of the export destination: no request is affected, and no record is lost."""

import json
import time

import httpx2 as httpx
import pytest

from tests.integration.proxy.conftest import blocking_spool, make_proxy, wait_until
from tests.support.llm_calls import is_exchange
from tests.support.loki.fake import FakeLoki

MESSAGE = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def loki():
    with FakeLoki() as running:
        yield running


@pytest.fixture
def proxy(tmp_path, providers, loki):
    with make_proxy(tmp_path, providers, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=loki.url + "/otlp/v1/logs") as running:
        yield running


def ask(proxy, number: int = 1, **more: object) -> list[int]:
    with proxy.client(headers={"x-api-key": "sk-ant-test"}) as http:
        return [
            http.post(proxy.url("api.anthropic.com", "/v1/messages"), json=MESSAGE | more).status_code
            for _ in range(number)
        ]


def arrived(proxy, loki) -> list[tuple[int, str, dict[str, str]]]:
    """Wait until the export queue is empty. Return all records that the destination has stored."""
    end = time.monotonic() + 60
    while (report := proxy.ask("/readyz")) and report["spool"]["pending_records"]:
        assert time.monotonic() < end, report
        time.sleep(0.05)
    return loki.records("openclaw-proxy")


def test_exchange_at_the_destination_has_service_name_and_attributes(proxy, loki):
    assert ask(proxy) == [200]
    (_, line, labels) = next(record for record in arrived(proxy, loki) if "exchange" in record[2]["event_name"])
    (row,) = proxy.exchanges()
    assert labels["openclaw_egress_exchange_id"] == row.id
    assert labels["openclaw_egress_class"] == "gateway"
    assert labels["gen_ai_request_model"] == "claude-opus-5"
    assert int(labels["gen_ai_usage_input_tokens"]) == row.input_tokens
    assert json.loads(line)["request"]["body"] == json.dumps(MESSAGE, separators=(",", ":"))


def test_long_exchange_is_split_over_lines_that_a_stock_loki_accepts(proxy, loki):
    long = [{"role": "user", "content": "ü" * 400_000}]
    assert ask(proxy, messages=long) == [200]
    records = [record for record in arrived(proxy, loki) if "exchange" in record[2]["event_name"]]
    assert len(records) > 2
    assert {push.status for push in loki.pushes} == {204}
    assert sum("gen_ai_usage_input_tokens" in labels for _, _, labels in records) == 1


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 429}, {"html": True}, {"reset": True}, {"hang": True}, {"delay_s": 2.0}]
)
def test_destination_failures_do_not_affect_requests(proxy, loki, fault):
    loki.faults.set(**fault)
    assert ask(proxy, 5) == [200] * 5
    loki.faults.clear()
    found = [labels["openclaw_egress_exchange_id"] for _, _, labels in arrived(proxy, loki) if is_exchange(labels)]
    assert sorted(found) == sorted(row.id for row in proxy.exchanges())


def test_html_response_of_the_destination_is_reported_with_a_remedy(proxy, loki):
    loki.faults.set(html=True)
    ask(proxy)
    end = time.monotonic() + 20
    while not (problems := proxy.ask("/readyz")["problems"]) and time.monotonic() < end:
        time.sleep(0.05)
    assert "export: " in problems[0] and "HTML" in problems[0].upper()
    assert proxy.ask("/healthz")["ok"] is True


def test_full_disk_refuses_unrecordable_requests_and_recovers(tmp_path, providers):
    with make_proxy(tmp_path, providers) as proxy:
        assert ask(proxy) == [200]
        began = time.time()
        with proxy.no_room():
            assert ask(proxy, 3) == [503] * 3
            assert not providers.asked_since(began)
            assert proxy.ask("/healthz")["ok"] is True
        wait_until(lambda: ask(proxy) == [200], proxy)
        assert [row.outcome for row in proxy.exchanges()] == ["complete", "complete"]


def test_disk_that_fills_aborts_a_stream_and_logs_one_line(tmp_path, providers):
    stream = {"x-api-key": "k", "x-standin-events": "20", "x-standin-delay-ms": "30"}
    with make_proxy(tmp_path, providers) as proxy:
        with (
            proxy.client(headers=stream) as http,
            http.stream(
                "POST", proxy.url("api.anthropic.com", "/v1/messages"), json=MESSAGE | {"stream": True}
            ) as answer,
        ):
            pieces = answer.iter_text()
            next(pieces)
            with proxy.no_room(), pytest.raises(httpx.HTTPError):
                list(pieces)
        wait_until(lambda: ask(proxy) == [200], proxy)
    assert "recorded" in proxy.log and "Traceback" not in proxy.log, proxy.log


def test_full_blocking_spool_refuses_only_inspected_requests(tmp_path, providers, loki):
    with blocking_spool(tmp_path, providers, loki) as proxy:
        long = [{"role": "user", "content": "x" * 600_000}]
        assert ask(proxy, 3, messages=long)[-1] == 503
        with proxy.client("browser", ca=providers.ca_file) as http:
            assert http.get(proxy.url("www.example.com", "/")).status_code == 200
        assert "the spool is full" in proxy.ask("/readyz")["problems"]
        loki.faults.clear()
        arrived(proxy, loki)
        assert ask(proxy) == [200]
