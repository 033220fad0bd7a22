"""Tests of features that only the Loki fake has: faults, storage and clocks for use in other tests."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.loki import FakeLoki, Limits

from .asker import DAY, HOUR, Allowance, Answer, Asker

pytestmark = pytest.mark.skipif(bool(os.environ.get("LOKI_URL")), reason="only the fake has faults")


@pytest.fixture
def loki() -> Iterator[FakeLoki]:
    with FakeLoki() as fake:
        yield fake


def asker(url: str, service: str = "s") -> Asker:
    return Asker(url, service, Allowance(limited=False), settle_s=0)


def push(loki: FakeLoki, *lines: str) -> Answer:
    ask = asker(loki.url)
    return ask.push(*(ask.record(line) for line in lines))


def test_fault_status_lasts_for_a_number_of_pushes(loki: FakeLoki) -> None:
    loki.faults.set(status=503, count=2, headers={"Retry-After": "7"})
    answers = [push(loki, "l") for _ in range(3)]
    assert [(a["status"], a["retry_after"]) for a in answers] == [(503, "7"), (503, "7"), (204, None)]
    assert [p.status for p in loki.pushes] == [503, 503, 204]
    assert loki.lines("s") == ["l"]


def test_faults_can_be_set_over_http(loki: FakeLoki) -> None:
    ask = asker(loki.url)
    ask.answer("POST", "/standin/faults", json.dumps({"status": 429}).encode())
    assert push(loki, "l")["status"] == 429
    assert ask.get_json("/standin/faults")["status"] == 429
    ask.answer("DELETE", "/standin/faults")
    assert push(loki, "l")["status"] == 204


def test_unknown_fault_is_refused(loki: FakeLoki) -> None:
    answer = asker(loki.url).answer("POST", "/standin/faults", b'{"stauts": 503}')
    assert answer["status"] == 400
    assert "stauts" in answer["body"]


def test_fault_responds_with_the_html_page_of_a_reverse_proxy(loki: FakeLoki) -> None:
    loki.faults.set(html=True)
    answer = push(loki, "l")
    assert (answer["status"], answer["content_type"]) == (200, "text/html; charset=utf-8")
    assert loki.lines() == []


def test_fault_resets_the_connection(loki: FakeLoki) -> None:
    loki.faults.set(reset=True)
    with pytest.raises(ConnectionResetError):
        push(loki, "l")


def test_fault_loses_the_acknowledgement_and_keeps_the_records(loki: FakeLoki) -> None:
    loki.faults.set(reset=True, after_storing=True, count=1)
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        push(loki, "l")
    assert loki.lines() == ["l"]


def test_hanging_requests_are_released_when_faults_are_cleared(loki: FakeLoki) -> None:
    loki.faults.set(hang=True)
    connection = http.client.HTTPConnection("127.0.0.1", loki.port, timeout=0.2)
    connection.request("POST", "/otlp/v1/logs", b"", {"Content-Type": "application/x-protobuf"})
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    loki.faults.clear()
    assert push(loki, "l")["status"] == 204


def test_stop_closes_keep_alive_connections_and_restart_keeps_records(loki: FakeLoki) -> None:
    push(loki, "l")
    connection = http.client.HTTPConnection("127.0.0.1", loki.port, timeout=5)
    connection.request("GET", "/ready")
    assert connection.getresponse().read() == b"ready\n"

    loki.stop()

    with pytest.raises(ConnectionError):
        connection.request("GET", "/ready")
        connection.getresponse()
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        asker(loki.url).get("/ready")

    loki.restart()
    assert [row["text"] for row in asker(loki.url).rows()] == ["l"]


def test_fault_refuses_matching_records_and_keeps_others(loki: FakeLoki) -> None:
    loki.faults.set(refuse_lines_matching="bad")
    assert push(loki, "good", "a bad one", "good too")["status"] == 400
    assert push(loki, "fine")["status"] == 204
    assert loki.lines() == ["good", "good too", "fine"]


def test_fault_responds_with_a_partial_success(loki: FakeLoki) -> None:
    loki.faults.set(partial_rejected=2)
    answer = push(loki, "l")
    assert (answer["status"], answer["content_type"]) == (200, "application/x-protobuf")


def test_fault_can_affect_paths_other_than_pushes(loki: FakeLoki) -> None:
    loki.faults.set(status=503, path="/ready")
    assert asker(loki.url).get("/ready")["status"] == 503
    assert push(loki, "l")["status"] == 204


def test_unsupported_logql_is_refused_by_name(loki: FakeLoki) -> None:
    answer = asker(loki.url).query('{a="b"} | logfmt')
    assert answer["status"] == 400
    assert "Loki fake does not support 'logfmt'" in answer["body"]


@pytest.mark.parametrize(
    "query", ['{a="b"} | line_format "{{ .k | upper }}"', '{a="b"} | unwrap n', "sum_over_time({a=`b`} [1h])"]
)
def test_unsupported_use_of_line_format_and_unwrap_is_refused(loki: FakeLoki, query: str) -> None:
    answer = asker(loki.url).query(query)
    assert answer["status"] == 400 and "Loki fake does not support" in answer["body"]


@pytest.mark.parametrize(
    ("pipeline", "found"),
    [
        ('|= "one"', ["one 1"]),
        ('!= "one"', ["two 22"]),
        ('|~ "\\\\d{2}"', ["two 22"]),
        ("!~ `o.e`", ["two 22"]),
        ('| k="x"', ["one 1"]),
        ('| k!="x"', ["two 22"]),
        ('| k=~"x|z" and n < 5', ["one 1"]),
        ('| k="z" or n > 1', ["two 22"]),
        ('| k="x", n = 2', []),
    ],
)
def test_pipeline_of_a_query_selects_the_expected_lines(loki: FakeLoki, pipeline: str, found: list[str]) -> None:
    ask = asker(loki.url)
    ask.push(ask.record("one 1", attributes={"k": "x", "n": 1}), ask.record("two 22", attributes={"k": "y", "n": 2}))
    answer = ask.query('{service_name="s"} ' + pipeline)
    assert answer["status"] == 200, answer
    result = json.loads(answer["body"])["data"]["result"]
    assert sorted(line for one in result for _, line in one["values"]) == found


def test_sums_by_label(loki: FakeLoki) -> None:
    ask = asker(loki.url)
    ask.push(*(ask.record(f"l{i}", attributes={"k": "x" if i else "y"}) for i in range(3)))
    answer = ask.query('sum by (k) (count_over_time({service_name="s"}[1h]))', path="query")
    vector = json.loads(answer["body"])["data"]["result"]
    assert [(one["metric"], one["value"][1]) for one in vector] == [({"k": "x"}, "2"), ({"k": "y"}, "1")]


def test_equal_errors_are_grouped_with_a_count(loki: FakeLoki) -> None:
    ask = asker(loki.url)
    answer = ask.push(*(ask.record("x" * 300_000, at=ask.now + i) for i in range(2)))
    assert answer["message"].startswith("2 errors like: max entry size '262144' bytes exceeded")


def test_idle_chunk_is_flushed_automatically() -> None:
    """Expect a flush after half an hour without a push. The test sets the clock."""
    clock = [time.time_ns()]
    with FakeLoki(now_ns=lambda: clock[0]) as loki:
        ask = asker(loki.url)
        ask.push(ask.record("old", at=ask.now - 4 * HOUR))
        assert ask.rows() == []
        clock[0] += HOUR // 2
        assert [row["text"] for row in ask.rows()] == ["old"]


def test_rate_limit_uses_the_given_clock() -> None:
    clock = [0.0]
    with FakeLoki(clock=lambda: clock[0]) as loki:
        ask = asker(loki.url)
        push = ask.request([ask.record("r" * 200_000, at=ask.now + i) for i in range(20)]).SerializeToString()
        assert [ask.post(push)["status"] for _ in "ab"] == [204, 429]
        clock[0] = 1.5
        assert ask.post(push)["status"] == 204


@pytest.mark.parametrize(("rate", "kept"), [(1024 * 1024, 10), (2 * 1024 * 1024, 15)])
def test_lines_above_the_rate_of_a_stream_are_lost_in_an_accepted_push(rate: int, kept: int) -> None:
    """Expect no loss with a limit of 2 MiB/s: Loki shards a stream above 1.5 MiB/s, so no shard reaches the limit."""
    limits = Limits(stream_rate_bytes_per_s=rate, stream_burst_bytes=2_000_000)
    with FakeLoki(limits=limits, clock=lambda: 0.0) as loki:
        ask = asker(loki.url)
        assert ask.push(*(ask.record("r" * 199_000, at=ask.now + i) for i in range(15)))["status"] == 204
        assert len(loki.lines("s")) == kept


def test_forbidden_structured_metadata_is_refused_and_the_key_is_absent() -> None:
    """Expect `GET /config` to omit the key, as a real Loki omits booleans that are false."""
    with FakeLoki(limits=Limits(structured_metadata=False)) as loki:
        ask = asker(loki.url)
        assert "allow_structured_metadata" not in ask.get("/config")["body"]
        answer = ask.push(ask.record("l", attributes={"k": "v"}))
        assert answer["status"] == 400
        assert "includes structured metadata, but this feature is disallowed" in answer["message"]
        assert ask.push(ask.record("plain"))["status"] == 204
        assert loki.lines("s") == ["plain"]


def test_a_configuration_without_the_key_forbids_structured_metadata() -> None:
    with FakeLoki(config="limits_config:\n  max_line_size: 256KB\n") as loki:
        ask = asker(loki.url)
        assert ask.push(ask.record("l", attributes={"k": "v"}))["status"] == 400


def test_with_tenants_every_path_except_ready_requires_one() -> None:
    with FakeLoki(limits=Limits(auth_enabled=True)) as loki:
        ask = asker(loki.url)
        assert [ask.get(path)["status"] for path in ("/config", "/ready")] == [401, 200]
        raw = ask.encoded([ask.record("l")])
        assert [ask.post(raw)["status"], ask.post(raw, X_Scope_OrgID="t")["status"]] == [401, 204]


def test_memory_is_bounded() -> None:
    with FakeLoki(limits=Limits(memory_bytes=1000)) as loki:
        assert push(loki, "x" * 2000)["status"] == 500


def test_process_keeps_records_between_starts(tmp_path: Path) -> None:
    data = tmp_path / "taken.jsonl"
    seen = []
    for line in ("first\udcff", "second"):
        command = [sys.executable, "-m", "tests.support.loki", "--port", "0", "--data", str(data)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            ready, port = process.stdout.readline().split()
            ask = asker(f"http://127.0.0.1:{port}")
            raw = ask.request([ask.record("12345678", at=ask.now - DAY // 24)]).SerializeToString()
            ask.post(raw.replace(b"12345678", line.encode("utf-8", "surrogateescape").ljust(8, b".")))
            seen.append((ready, sorted(row["text"] for row in ask.rows())))
        finally:
            process.terminate()
            assert process.wait(10) == 0
            process.stdout.close()
    assert seen == [("ready", ["first\ufffd.."]), ("ready", ["first\ufffd..", "second.."])]


def test_accepted_pushes_are_forwarded_or_refused() -> None:
    with FakeLoki() as other, FakeLoki(copy_to=other.url + "/otlp/v1/logs") as loki:
        assert push(loki, "l")["status"] == 204
        assert other.lines("s") == loki.lines("s") == ["l"]
        other.faults.set(status=500)
        assert push(loki, "m")["status"] == 503
