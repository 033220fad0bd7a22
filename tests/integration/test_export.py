"""Tests of the exporter against an HTTP server with scripted responses, which have the messages of a real Loki."""

import gzip
import itertools
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as ExportLogsRecord

from openclaw_egress.export.exporter import Exporter, _Oldest
from openclaw_egress.export.otlp_client import Verdict, interpret
from openclaw_egress.recording.records import Body, ExchangeRecord, rfc3339
from openclaw_egress.settings import Settings
from openclaw_egress.spool.commands import Action, Command, submit
from openclaw_egress.spool.reader import Filters
from openclaw_egress.spool.writer import Spool
from tests.support.loki import FakeLoki, Limits

OCTETS = "application/octet-stream"


def loki_says(message: str) -> bytes:
    return Status(message=message).SerializeToString()


TOO_LONG = (
    "max entry size '262144' bytes exceeded for stream '{service_name=\"p\"}' while adding an entry with length "
    "'300000' bytes"
)
TOO_NEW = "entry for stream '{service_name=\"p\"}' has timestamp too new: 2026-11-24T12:56:19Z"
TOO_OLD = "entry for stream '{{}}' has timestamp too old: 2026-11-16T12:44:07Z, oldest acceptable timestamp is: {}"
TOO_FAR = (
    "entry with timestamp 2026-11-24 11:43:07.856487169 +0000 UTC ignored, reason: 'entry too far behind, entry "
    "timestamp is: 2026-11-24T11:43:07Z, oldest acceptable timestamp is: {}',\nuser 'fake', total ignored: 1 out of 1"
)
RATE = "ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '35' lines"


@dataclass
class Push:
    """One request as the destination received it."""

    headers: dict[str, str]
    raw: bytes
    lines: list[str]
    records: list[bytes]
    path: str = "/"


Answer = tuple[int, str, bytes] | tuple[int, str, bytes, dict[str, str]]
ACCEPTED: Answer = (204, "", b"")


@dataclass
class Store:
    """A destination that calls ``answer`` to get its response to each push."""

    url: str
    answer: Callable[[Push], Answer] = lambda push: ACCEPTED
    pushes: list[Push] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def script(self, *answers: Answer) -> None:
        """Respond to pushes with these responses one after the other, then always with 204."""
        waiting = iter(answers)
        self.answer = lambda push: next(waiting, ACCEPTED)

    def numbers(self) -> list[int]:
        """Return the ``seq`` of each accepted record, in order of arrival."""
        return [int(line.split(",")[0].removeprefix('{"seq":')) for line in self.kept if line.startswith("{")]


@pytest.fixture
def store() -> Iterator[Store]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            plain = gzip.decompress(raw) if self.headers.get("content-encoding") == "gzip" else raw
            request = ExportLogsServiceRequest.FromString(plain)
            records = [r for logs in request.resource_logs for scope in logs.scope_logs for r in scope.log_records]
            push = Push(
                {name.lower(): value for name, value in self.headers.items()},
                raw,
                [record.body.string_value for record in records],
                [record.SerializeToString(deterministic=True) for record in records],
                self.path,
            )
            made.pushes.append(push)
            status, kind, body, *more = made.answer(push)
            if status == 204:
                made.kept += push.lines
            self.send_response(status)
            if kind:
                self.send_header("content-type", kind)
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Store(f"http://127.0.0.1:{server.server_port}/otlp/v1/logs")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool.db", sync_seconds=None) as opened:
        yield opened


@dataclass
class Endpoint:
    logs_endpoint: str


class Running:
    """A running exporter that waits only milliseconds before it retries a push."""

    def __init__(self, spool: Spool, url: str, environ: dict[str, str] | None = None, **options) -> None:
        options = {"jitter": lambda: 0.001, **options}
        self.exporter = Exporter(spool, Endpoint(url), environ=environ or {}, **options)
        self.exporter.start()

    def __enter__(self) -> Exporter:
        return self.exporter

    def __exit__(self, *_: object) -> None:
        self.exporter.stop(0.2)


def fill(spool: Spool, count: int, size: int = 10) -> None:
    for n in range(count):
        spool.close_exchange(
            ExchangeRecord(
                id=f"x{n}", class_name="gateway", method="POST", url="https://h/", host="h", port=443, begin_ns=1,
                end_ns=2, response_body=Body.of(b"x" * size),
            )
        )  # fmt: skip


def until(true: Callable[[], object]) -> None:
    """Wait for a condition. The timeout is long, because only a failing test reaches it."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "the condition did not become true within 30 s"
        time.sleep(0.005)


def drained(spool: Spool) -> Callable[[], bool]:
    return lambda: spool.stats()["pending_records"] == 0


# ── success ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_queued_records_arrive_once_in_order_and_are_acknowledged(spool, store):
    fill(spool, 50)
    with Running(spool, store.url) as exporter:
        until(drained(spool))
        until(lambda: exporter.state["status"] == "ok")
    assert store.numbers() == list(range(1, 51))
    assert spool.stats()["acknowledged_records"] == 50


def test_records_added_later_are_exported(spool, store):
    with Running(spool, store.url):
        fill(spool, 3)
        until(drained(spool))
        fill(spool, 2)
        until(drained(spool))
    assert store.numbers() == [1, 2, 3, 4, 5]


def test_a_push_is_no_larger_than_its_limit(spool, store):
    fill(spool, 60, 50_000)
    with Running(spool, store.url, max_push_bytes=500_000):
        until(drained(spool))
    assert max(len(push.raw) for push in store.pushes) <= 500_000
    assert store.numbers() == list(range(1, 61))


def test_the_environment_gives_headers_and_compression(spool, store):
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "x-general=1",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "authorization=Basic%20abc,x-scope-orgid=t1",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    fill(spool, 1)
    with Running(spool, store.url, environ):
        until(drained(spool))
    headers = store.pushes[0].headers
    assert (headers["authorization"], headers["x-scope-orgid"]) == ("Basic abc", "t1")
    assert (headers["content-encoding"], headers["content-type"]) == ("gzip", "application/x-protobuf")
    assert "x-general" not in headers
    assert store.pushes[0].raw[:2] == b"\x1f\x8b"


def test_exporter_ignores_proxies_of_the_environment(spool, store, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    fill(spool, 1)
    with Running(spool, store.url):
        until(drained(spool))


def test_without_an_endpoint_nothing_is_sent_and_the_state_is_local(spool):
    fill(spool, 1)
    with Running(spool, "") as exporter:
        assert (exporter.state["status"], exporter.state["last_error"]) == ("local", None)


def test_state_is_available_while_the_last_of_a_backlog_is_sent(spool, monkeypatch):
    with Running(spool, "") as exporter:
        exporter._oldest = _Oldest(seq=1, seconds_then=2.0, seen=100.0)

        def now() -> float:
            exporter._oldest = None  # Simulate a concurrent reset by the exporter's thread.
            return 100.0

        monkeypatch.setattr("openclaw_egress.export.exporter.time.monotonic", now)
        assert exporter.state["backlog_seconds"] == pytest.approx(2.0)


# ── temporary refusals ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "answer",
    [
        (429, OCTETS, loki_says(RATE)),
        (500, "text/plain", b"oops"),
        (503, "", b""),
        (408, "", b""),
        (429, "", b"", {"retry-after": "0"}),
    ],
)
def test_temporary_refusal_is_retried_with_the_same_bytes(spool, store, answer):
    fill(spool, 3)
    store.script(answer, answer)
    with Running(spool, store.url):
        until(drained(spool))
    assert store.numbers() == [1, 2, 3]
    assert store.pushes[0].records == store.pushes[1].records
    assert store.pushes[2].records == store.pushes[0].records[:1], "a repeated failure must halve the push"
    assert list(spool.reader.query(Filters(state="dead_letter"))) == []


def test_push_above_the_destinations_burst_shrinks_until_accepted(spool, store):
    fill(spool, 40, 20_000)
    store.answer = lambda push: ACCEPTED if len(push.raw) < 100_000 else (429, OCTETS, loki_says(RATE))
    with Running(spool, store.url):
        until(drained(spool))
    assert store.numbers() == list(range(1, 41))


def test_unreachable_destination_is_retried(spool, store):
    fill(spool, 2)
    url, closed = store.url, "http://127.0.0.1:1/otlp/v1/logs"
    with Running(spool, closed) as exporter:
        until(lambda: exporter.state["failures_in_a_row"] > 2)
        assert exporter.state["status"] == "retrying"
        assert "refused" in exporter.state["last_error"]
    assert spool.stats()["pending_records"] == 2
    with Running(spool, url):
        until(drained(spool))


def test_pauses_grow_to_a_limit_and_follow_retry_after(spool):
    exporter = Exporter(spool, Endpoint("http://127.0.0.1:1/"), environ={}, jitter=lambda: 1.0)
    pauses = []
    for failures in range(10):
        exporter._failures = failures
        pauses.append(exporter._pause())
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    exporter._retry_after = 120.0
    assert exporter._pause() == 120.0


def test_stopping_does_not_wait_for_a_pause(spool, store):
    fill(spool, 1)
    store.answer = lambda push: (503, "", b"", {"retry-after": "300"})
    exporter = Exporter(spool, Endpoint(store.url), environ={})
    exporter.start()
    until(lambda: exporter.state["last_error"])
    exporter.stop(20)
    assert not exporter._thread.is_alive()


def test_records_deleted_during_a_refused_push_are_not_sent_any_more(spool, store):
    fill(spool, 16)

    def delete_then_refuse(push: Push) -> Answer:
        if len(store.pushes) == 1:
            submit(spool.path, Command(Action.DELETE, ((3, 14),), "ada: test"))
            spool.run_commands()
        return ACCEPTED if len(push.lines) == 1 else (400, OCTETS, loki_says("one of these records is not valid"))

    store.answer = delete_then_refuse
    with Running(spool, store.url):
        until(drained(spool))
    assert len(store.pushes[0].lines) == 16, "the request in progress must contain all 16 lines"
    sent_later = {json.loads(line)["seq"] for push in store.pushes[1:] for line in push.lines if line[0] == "{"}
    assert sent_later == {1, 2, 15, 16, 17}


# ── wrong settings: no record is at fault ────────────────────────────────────────────────────────────────────────


@pytest.mark.wording
@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        ((401, "text/plain", b"no org id"), "OTEL_EXPORTER_OTLP_LOGS_HEADERS"),
        ((403, "", b""), "OTEL_EXPORTER_OTLP_LOGS_HEADERS"),
        ((404, "text/plain", b"404 page not found"), "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
        ((405, "", b""), "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
        ((200, "text/html; charset=utf-8", b"<html><title>Grafana</title>"), "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
        ((200, "text/plain", b"hello"), "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
        ((400, "text/html", b"<title>400 plain HTTP to HTTPS port</title>"), "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
        ((302, "", b"", {"location": "http://127.0.0.1:1/login?token=x"}), "set that URL"),
        ((400, OCTETS, loki_says("unsupported content encoding br: only gzip, lz4 and zstd are supported")), "gzip"),
    ],
)
def test_wrong_setting_keeps_all_records_and_names_the_remedy(spool, store, answer, remedy):
    fill(spool, 3)
    store.answer = lambda push: answer
    with Running(spool, store.url) as exporter:
        until(lambda: exporter.state["failures_in_a_row"] > 1)
        state = exporter.state
    assert state["status"] == "misconfigured"
    assert remedy in state["remedy"]
    assert "token=x" not in state["remedy"]
    assert spool.stats()["pending_records"] == 3


def test_each_cause_of_a_failure_is_logged_once(spool, store, caplog):
    fill(spool, 1)
    store.script((404, "", b""), (404, "", b""), (401, "", b""), (401, "", b""))
    with Running(spool, store.url):
        until(drained(spool))
    assert [caplog.text.count(f"HTTP {status}") for status in (404, 401)] == [1, 1]


def test_records_are_sent_after_the_setting_is_fixed(spool, store):
    fill(spool, 3)
    store.script((404, "", b""), (404, "", b""))
    with Running(spool, store.url) as exporter:
        until(drained(spool))
        until(lambda: exporter.state["status"] == "ok")
        assert (exporter.state["last_error"], exporter.state["remedy"]) == (None, None)


# ── permanent refusals ───────────────────────────────────────────────────────────────────────────────────────────


def refuses(*bad: int) -> Callable[[Push], Answer]:
    """Return a function that responds with 400 to each push that contains one of these records.

    It accepts all other pushes.
    """

    def answer(push: Push) -> Answer:
        return (400, OCTETS, loki_says(TOO_LONG)) if any(is_number(line, bad) for line in push.lines) else ACCEPTED

    return answer


def is_number(line: str, numbers: tuple[int, ...]) -> bool:
    return any(line.startswith(f'{{"seq":{n},') for n in numbers)


def test_invalid_record_is_dead_lettered_and_the_others_arrive(spool, store):
    fill(spool, 20)
    store.answer = refuses(7, 8, 20)
    with Running(spool, store.url) as exporter:
        until(drained(spool))
        assert exporter.state["dead_letters"] == 3
    dead = list(spool.reader.query(Filters(state="dead_letter")))
    assert [row.seq for row in dead] == [7, 8, 20]
    assert dead[0].why.startswith("line_too_long: HTTP 400: max entry size '262144' bytes exceeded")
    assert store.numbers() == [
        *(n for n in range(1, 20) if n not in (7, 8)),
        21,
        22,
        23,
    ]  # Lines 21 to 23 report the three dead letters.
    assert spool.reader.audit().problems == ()


def test_partial_success_is_not_success(spool, store):
    fill(spool, 5)

    def answer(push: Push) -> Answer:
        rejected = sum(is_number(line, (3,)) for line in push.lines)
        partial = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message="bad")
        return 200, "application/x-protobuf", ExportLogsServiceResponse(partial_success=partial).SerializeToString()

    store.answer = answer
    with Running(spool, store.url):
        until(drained(spool))
    assert [row.seq for row in spool.reader.query(Filters(state="dead_letter"))] == [3]
    assert spool.stats()["acknowledged_records"] == 5  # Four of the five lines, and one that reports the dead letter.


def test_too_large_push_is_halved_until_only_one_line_is_dead_lettered(spool, store):
    fill(spool, 10, 30_000)
    fill(spool, 1, 90_000)
    store.answer = lambda push: (413, "", b"") if len(push.raw) > 70_000 else ACCEPTED
    with Running(spool, store.url):
        until(drained(spool))
    (dead,) = spool.reader.query(Filters(state="dead_letter"))
    assert (dead.seq, dead.why) == (11, "too_large: HTTP 413")
    assert store.numbers()[:10] == list(range(1, 11))


@pytest.mark.parametrize(("words", "reason"), [(TOO_OLD, "too_old"), (TOO_FAR, "too_far_behind")])
def test_too_old_record_is_dead_lettered_at_once_with_its_own_reason(tmp_path, store, words, reason):
    second = 1_000_000_000
    clock = itertools.chain((n * second for n in range(1_000, 1_030)), itertools.count(2_000 * second))
    with Spool(tmp_path / "late.db", sync_seconds=None, clock_ns=lambda: next(clock)) as spool:
        fill(spool, 40)
        oldest = rfc3339(1_020 * second)

        def answer(push: Push) -> Answer:
            late = any(is_number(line, tuple(range(1, 21))) for line in push.lines)
            return (400, OCTETS, loki_says(words.format(oldest))) if late else ACCEPTED

        store.answer = answer
        with Running(spool, store.url):
            until(drained(spool))
        dead = list(spool.reader.query(Filters(state="dead_letter")))
    assert [row.seq for row in dead] == list(range(1, 21))
    assert {row.why.split(":")[0] for row in dead} == {reason}
    assert len(store.pushes) <= 4, "one response must settle all records that are too old"


def test_record_from_the_future_waits(spool, store):
    fill(spool, 2)
    store.script(*[(400, OCTETS, loki_says(TOO_NEW))] * 5)
    with Running(spool, store.url):
        until(drained(spool))
    assert store.numbers() == [1, 2]
    assert list(spool.reader.query(Filters(state="dead_letter"))) == []


@pytest.mark.wording
def test_destination_that_refuses_everything_causes_few_dead_letters(spool, store):
    fill(spool, 200)
    store.answer = lambda push: (400, OCTETS, loki_says("no"))
    with Running(spool, store.url, jitter=lambda: 1.0) as exporter:
        until(lambda: exporter.state["status"] == "misconfigured")
        assert "`egress status`" in exporter.state["remedy"]
        assert exporter.state["dead_letters"] < 15


def test_destinations_message_is_one_printable_line_without_secrets():
    answer = interpret(400, {"content-type": "text/plain"}, b"bad\r\n\x1b[31mred authorization: Bearer abc123")
    assert answer.verdict is Verdict.REFUSED
    assert answer.message == "HTTP 400: bad [31mred authorization: [redacted]"


def test_endless_response_is_not_read_to_its_end(spool, store):
    fill(spool, 1)
    store.script((500, "text/plain", b"x" * 5_000_000))
    with Running(spool, store.url) as exporter:
        until(drained(spool))
        until(lambda: exporter.state["status"] == "ok")


# ── pushes that never fit, and records that the destination already has ──────────────────────────────────────────

LARGER = (
    "rpc error: code = ResourceExhausted desc = rpc error: code = ResourceExhausted desc = grpc: received message "
    "larger than max (4202049 vs. 4194304)"
)
HOUR = 3600 * 10**9


def dead_letters(spool: Spool) -> dict[int, str]:
    return {row.seq: row.why or "" for row in spool.reader.query(Filters(state="dead_letter"))}


@pytest.mark.parametrize(
    "answer",
    [
        (503, OCTETS, loki_says(LARGER)),
        (500, "", b""),
        (429, OCTETS, loki_says(RATE)),
        (413, "", b""),
    ],
)
def test_push_over_the_destinations_limit_is_split_and_arrives_completely(spool, store, answer):
    fill(spool, 40, 20_000)
    store.answer = lambda push: ACCEPTED if len(push.raw) < 70_000 else answer
    with Running(spool, store.url):
        until(drained(spool))
    assert store.numbers() == list(range(1, 41))
    assert dead_letters(spool) == {}


def test_push_shrinks_on_a_slow_link(spool, store):
    fill(spool, 20, 20_000)

    def answer(push: Push) -> Answer:
        if len(push.raw) > 100_000:
            time.sleep(0.6)
        return ACCEPTED

    store.answer = answer
    with Running(spool, store.url, {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.3"}):
        until(drained(spool))
    assert set(store.numbers()) == set(range(1, 21))
    assert dead_letters(spool) == {}


@pytest.mark.parametrize("answer", [(503, OCTETS, loki_says(LARGER)), (429, OCTETS, loki_says(RATE)), (500, "", b"")])
@pytest.mark.parametrize("large_at", [0, 3])
def test_line_over_the_destinations_limit_is_dead_lettered_and_others_are_sent(spool, store, answer, large_at):
    fill(spool, large_at)
    fill(spool, 1, 90_000)
    fill(spool, 3 - large_at)
    store.answer = lambda push: ACCEPTED if len(push.raw) < 70_000 else answer
    with Running(spool, store.url):
        until(drained(spool))
    ((seq, why),) = dead_letters(spool).items()
    assert seq == large_at + 1
    assert why.startswith(
        f"never_fits: refused although it was sent alone and a small test record was accepted: HTTP {answer[0]}"
    )
    assert store.numbers() == [n for n in range(1, 6) if n != seq]


@pytest.mark.parametrize("answer", [(503, "", b""), (429, "", b""), (500, OCTETS, loki_says(LARGER))])
def test_destination_that_accepts_nothing_causes_no_dead_letter(spool, store, answer):
    fill(spool, 5)
    store.answer = lambda push: answer
    with Running(spool, store.url) as exporter:
        until(lambda: exporter.state["failures_in_a_row"] > 60)
        assert dead_letters(spool) == {}
        store.answer = lambda push: ACCEPTED
        until(drained(spool))
    assert store.numbers() == [1, 2, 3, 4, 5]


def test_next_push_starts_at_the_accepted_size_and_grows_slowly(spool, store):
    fill(spool, 200, 20_000)
    store.answer = lambda push: ACCEPTED if len(push.raw) < 150_000 else (503, OCTETS, loki_says(LARGER))
    with Running(spool, store.url):
        until(drained(spool))
    refused = [index for index, push in enumerate(store.pushes) if len(push.raw) >= 150_000]
    assert store.numbers() == list(range(1, 201))
    assert len(refused) < len(store.pushes) / 2


def at(spool_path: Path, times: list[int]) -> Spool:
    """Return a spool with a line at each of these timestamps (in seconds)."""
    clock = iter(second * 10**9 for second in times)
    opened = Spool(spool_path, sync_seconds=None, clock_ns=lambda: next(clock, times[-1] * 10**9))
    fill(opened, len(times))
    return opened


def test_a_push_spans_at_most_half_an_hour(tmp_path, store):
    times = [1_000_000 + minute * 60 for minute in range(0, 240, 10)]
    with at(tmp_path / "long.db", times) as spool, Running(spool, store.url):
        until(drained(spool))
    pushes = [[ExportLogsRecord.FromString(one).time_unix_nano for one in push.records] for push in store.pushes]
    assert max(max(push) - min(push) for push in pushes) == HOUR // 2
    assert store.numbers() == list(range(1, 25))


def test_line_sent_before_and_refused_as_too_far_behind_counts_as_stored(tmp_path, store):
    """Lose the response to a push that Loki stored. Loki then refuses part of the repeated push as too far behind."""
    with at(tmp_path / "sent.db", [1000, 1001, 1002, 2000, 2001]) as spool:
        oldest = rfc3339(1_500 * 10**9)
        store.script((500, "", b""), (400, OCTETS, loki_says(TOO_FAR.format(oldest))))
        with Running(spool, store.url):
            until(drained(spool))
        assert dead_letters(spool) == {}
        rows = {row.seq: row for row in spool.reader.query(Filters(state="acknowledged"))}
        assert {1, 2, 3, 4, 5} <= set(rows)
        note = spool.reader.line(6)
        assert '"openclaw.egress.outcome":"counted_as_stored"' in note
        assert "lines counted as stored (an earlier push sent them and got the response: HTTP 500" in note
        assert spool.reader.audit().problems == ()


@pytest.mark.parametrize("first", [(429, "", b""), (503, OCTETS, loki_says(LARGER))])
def test_line_refused_as_too_far_behind_and_never_stored_is_a_dead_letter(tmp_path, store, first):
    with at(tmp_path / "unsent.db", [1000, 1001, 1002, 2000, 2001]) as spool:
        oldest = rfc3339(1_500 * 10**9)
        store.script(first, (400, OCTETS, loki_says(TOO_FAR.format(oldest))))
        with Running(spool, store.url):
            until(drained(spool))
        assert set(dead_letters(spool)) == {1, 2, 3}


def test_record_from_the_future_delays_no_other(tmp_path, store):
    now = int(time.time())
    ahead = [now, now + 3 * 3600, now + 3 * 3600 + 1, now + 5, now + 6]
    with at(tmp_path / "ahead.db", ahead) as spool:
        limit = (now + 600) * 10**9

        def answer(push: Push) -> Answer:
            times = [ExportLogsRecord.FromString(one).time_unix_nano for one in push.records]
            return ACCEPTED if max(times) <= limit else (400, OCTETS, loki_says(TOO_NEW))

        store.answer = answer
        with Running(spool, store.url) as exporter:
            until(lambda: spool.stats()["pending_records"] == 2)
            until(lambda: exporter.state["records_ahead_of_clock"] == 2)
            assert spool.reader.audit().problems == ()
            limit += 4 * HOUR  # Now the destination accepts the timestamps of these lines.
            until(drained(spool))
        assert set(store.numbers()) >= {1, 2, 3, 4, 5, 6}
        assert dead_letters(spool) == {}


def test_backlog_age_is_the_age_of_the_oldest_line(tmp_path, store):
    now = int(time.time())
    store.answer = lambda push: (503, "", b"")
    with at(tmp_path / "age.db", [now - 500, now + 3 * 3600]) as spool, Running(spool, store.url) as exporter:
        until(lambda: exporter.state["failures_in_a_row"] > 2)
        assert 500 <= exporter.state["backlog_seconds"] < 900


def test_truncated_response_message_is_read_as_far_as_possible():
    whole = loki_says("x" * 100 + " too far behind " + "y" * 100_000)
    answer = interpret(400, {"content-type": OCTETS}, whole[:70_000])
    assert answer.message.startswith("HTTP 400: xxx") and " too far behind y" in answer.message


def test_credentials_in_the_url_are_decoded(spool, store):
    fill(spool, 1)
    with Running(spool, store.url.replace("//", "//us%40er:p%2Fw@")):
        until(drained(spool))
    assert store.pushes[0].headers["authorization"] == "Basic dXNAZXI6cC93"


# ── pace ─────────────────────────────────────────────────────────────────────────────────────────────────────────

MIB = 1024 * 1024
DEFAULT_PACE = int(Settings.model_fields["export_max_bytes_per_second"].default)


@dataclass
class FakeTime:
    """A clock for the exporter's pace and for the limits of the Loki fake. Only the exporter's waits advance it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, _: threading.Event, seconds: float) -> None:
        self.now += seconds


def send_backlog(spool: Spool, loki: FakeLoki, clock: FakeTime, pace: int) -> None:
    """Send the waiting lines at this pace until none waits."""
    url = f"{loki.url}/otlp/v1/logs"
    with Running(spool, url, max_bytes_per_second=pace, clock=clock, wait=clock.wait):
        until(drained(spool))


def test_backlog_at_the_default_pace_stays_within_the_limits_of_a_stock_loki(spool):
    clock = FakeTime()
    fill(spool, 200, 100_000)
    with FakeLoki(clock=clock) as loki:
        send_backlog(spool, loki, clock, DEFAULT_PACE)
        assert {push.status for push in loki.pushes} == {204}
        assert len(loki.lines("openclaw-proxy")) == 200
    assert clock.now >= (200 * 100_000 - 2_000_000) / DEFAULT_PACE


def test_backlog_without_a_pace_exceeds_the_limits_of_a_stock_loki(spool):
    fill(spool, 200, 100_000)
    with FakeLoki(clock=FakeTime()) as loki, Running(spool, f"{loki.url}/otlp/v1/logs", jitter=lambda: 1.0):
        until(lambda: any(push.status == 429 for push in loki.pushes))


@pytest.mark.parametrize(("pace", "lost"), [(DEFAULT_PACE, True), (900_000, False)])
def test_pace_below_the_rate_of_a_stream_prevents_lines_lost_in_accepted_pushes(spool, pace, lost):
    clock = FakeTime()
    fill(spool, 200, 100_000)
    limits = Limits(
        rate_bytes_per_s=20 * MIB, burst_bytes=20 * MIB, stream_rate_bytes_per_s=MIB, stream_burst_bytes=4 * MIB
    )
    with FakeLoki(clock=clock, limits=limits) as loki:
        send_backlog(spool, loki, clock, pace)
        assert {push.status for push in loki.pushes} == {204}
        assert (len(loki.lines("openclaw-proxy")) < 200) == lost


def test_line_recorded_during_a_backlog_is_sent_after_it(spool, store):
    clock = FakeTime()
    fill(spool, 100, 100_000)

    def answer(push: Push) -> Answer:
        if len(store.pushes) == 1:
            fill(spool, 1)
        return ACCEPTED

    store.answer = answer
    with Running(spool, store.url, max_bytes_per_second=DEFAULT_PACE, clock=clock, wait=clock.wait):
        until(drained(spool))
    assert store.numbers() == list(range(1, 102))


def test_stopping_does_not_wait_for_the_pace(spool, store):
    fill(spool, 100, 100_000)
    exporter = Exporter(spool, Endpoint(store.url), environ={}, max_bytes_per_second=1000)
    exporter.start()
    until(lambda: store.pushes)
    exporter.stop(0.2)
    exporter._thread.join(20)
    assert not exporter._thread.is_alive()
    assert len(store.pushes) == 1
    assert spool.stats()["pending_records"] > 0


def test_log_has_the_beginning_the_progress_and_the_end_of_a_backlog(spool, store, caplog):
    caplog.set_level(logging.INFO, "openclaw_egress.export")
    clock = FakeTime()
    fill(spool, 100, 100_000)
    with Running(spool, store.url, max_bytes_per_second=50_000, clock=clock, wait=clock.wait):
        until(drained(spool))
        until(lambda: "no backlog is left" in caplog.text)
    first, *progress, last = caplog.messages
    assert re.fullmatch(r"sending a backlog: 100 lines, 10\.\d MB, the oldest from 20\S+Z", first)
    assert all(re.fullmatch(r"sending the backlog: \d+ lines sent, \d+ left", one) for one in progress)
    assert 0 < len(progress) <= clock.now / 60
    assert re.fullmatch(r"no backlog is left: 100 lines sent in \d+ s, \d+\.\d kB/s", last)


def test_backlog_whose_lines_are_held_back_is_not_reported_as_sent(tmp_path, store, caplog):
    """Refuse most lines as too new, and send a few earlier lines meanwhile."""
    caplog.set_level(logging.INFO, "openclaw_egress.export")
    now = int(time.time())
    times = [now, *range(now + 10_000, now + 10_040), *range(now + 1, now + 21)]
    times_of_spool = iter(second * 10**9 for second in times)
    limit = now + 600
    store.answer = lambda push: (
        ACCEPTED
        if max(ExportLogsRecord.FromString(one).time_unix_nano for one in push.records) <= limit * 10**9
        else (400, OCTETS, loki_says(TOO_NEW))
    )
    clock_ns = lambda: next(times_of_spool, times[-1] * 10**9)  # noqa: E731
    with Spool(tmp_path / "held.db", sync_seconds=None, clock_ns=clock_ns) as spool:
        fill(spool, 41)
        with Running(spool, store.url, max_push_bytes=3000) as exporter:
            for _ in range(20):
                fill(spool, 1)
                until(lambda: exporter.state["backlog_records"] == exporter.state["records_ahead_of_clock"] == 40)
            assert "no backlog is left" not in caplog.text
            assert caplog.text.count("sending a backlog") <= 1
            limit += 20_000
            until(drained(spool))
            until(lambda: "no backlog is left" in caplog.text)


def test_end_of_a_backlog_counts_only_the_lines_that_were_sent(spool, store, caplog):
    caplog.set_level(logging.INFO, "openclaw_egress.export")
    fill(spool, 100, 100_000)

    def answer(push: Push) -> Answer:
        if len(store.pushes) == 3:  # Drop the rest of the backlog, as a full spool does.
            spool.dead_letter([record.seq for record in spool.pending(10**9)], "dropped by the test")
        return ACCEPTED

    store.answer = answer
    with Running(spool, store.url):
        until(drained(spool))
        until(lambda: "no backlog is left" in caplog.text)
    sent = re.fullmatch(r"no backlog is left: (\d+) lines sent in \d+ s, .+/s", caplog.messages[-1])
    assert sent and 0 < int(sent[1]) == sum(len(push.lines) for push in store.pushes) < 100


def test_ordinary_traffic_is_not_logged(spool, store, caplog):
    caplog.set_level(logging.INFO, "openclaw_egress.export")
    fill(spool, 70, 100_000)
    with Running(spool, store.url):
        until(drained(spool))
    assert caplog.messages == []


def test_many_responses_with_status_429_are_a_problem_but_few_are_not(spool, store, caplog):
    fill(spool, 100, 1000)
    refusal = (429, OCTETS, loki_says(RATE))
    seen, assigned = [], threading.Event()
    answers = iter([refusal] * 3 + [ACCEPTED] + [refusal] * 4)

    def answer(push: Push) -> Answer:
        assigned.wait(30)
        state = exporter.state
        seen.append((state["status"], state["last_error"]))
        return next(answers, ACCEPTED)

    store.answer = answer
    with Running(spool, store.url, max_push_bytes=100_000) as exporter:
        assigned.set()
        until(drained(spool))
        until(lambda: exporter.state["status"] == "ok")
    assert seen[:8] == [("idle", None)] * 4 + [("ok", None)] * 4
    assert seen[8][0] == "retrying" and "ingestion rate limit exceeded" in seen[8][1]
    assert caplog.text.count("records wait in the spool") == 1


def test_status_429_after_another_failure_replaces_its_message_at_once(spool, store):
    fill(spool, 1)
    answers = iter([(503, "", b"out of order"), (429, OCTETS, loki_says(RATE))])
    seen, assigned = [], threading.Event()

    def answer(push: Push) -> Answer:
        assigned.wait(30)
        seen.append(exporter.state["last_error"])
        return next(answers, ACCEPTED)

    store.answer = answer
    with Running(spool, store.url) as exporter:
        assigned.set()
        until(drained(spool))
    assert seen[0] is None and "503" in seen[1]
    assert "ingestion rate limit exceeded" in seen[2]


@pytest.mark.parametrize(("seconds", "reported"), [("30", False), ("31", True)])
def test_status_429_is_a_problem_at_once_if_the_destination_asks_for_a_long_pause(spool, store, seconds, reported):
    fill(spool, 1)
    store.answer = lambda push: (429, OCTETS, loki_says(RATE), {"retry-after": seconds})
    with Running(spool, store.url) as exporter:
        until(lambda: exporter.state["failures_in_a_row"] == 1)
        assert (exporter.state["status"] == "retrying") == reported
        assert bool(exporter.state["last_error"]) == reported


def test_refused_record_does_not_shrink_the_pushes_after_it(spool, store):
    fill(spool, 200, 10_000)
    store.answer = refuses(64)
    with Running(spool, store.url, max_push_bytes=64 * 11_100):
        until(drained(spool))
    after = next(at for at, push in enumerate(store.pushes) if any(is_number(line, (65,)) for line in push.lines))
    assert len(store.pushes[after].lines) >= 32, "half of the refused push was accepted"


def test_small_pushes_do_not_enlarge_the_limit(spool, store):
    store.answer = lambda push: ACCEPTED if len(push.raw) < 70_000 else (413, "", b"")
    fill(spool, 20, 20_000)
    with Running(spool, store.url) as exporter:
        until(drained(spool))
        limits = set()
        for _ in range(50):
            fill(spool, 1)  # Before it sends this line, the exporter updates its limit.
            until(drained(spool))
            limits.add(exporter.state["push_limit_bytes"])
        assert len(limits) == 1
