"""Tests of the behaviour of Loki's HTTP API on which this project relies: 60 recorded responses, and extra cases."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import pytest

from .asker import DAY, HOUR, Asker
from .cases import CASES
from .comparing import ABOUT, ANSWERS, DIFFERENCES, differences, from_recorded, legitimate

type Ask = Callable[[str], Asker]


def unnamed(answer: Any, service: str, name: str) -> Any:
    """Replace the random part of the names in a response with RUN, as in the recording."""
    return json.loads(json.dumps(answer).replace(service, f"p-RUN-{name}"))


def test_there_is_a_case_for_each_recorded_answer() -> None:
    assert len(ANSWERS) == 60
    assert set(CASES) == set(ANSWERS)
    assert set(DIFFERENCES) <= set(ANSWERS)


@pytest.mark.parametrize("name", ANSWERS)
def test_response_equals_the_recorded_response(ask: Ask, name: str) -> None:
    loki = ask(name)
    got = unnamed(CASES[name](loki), loki.service, name)
    recorded, got = legitimate(name, from_recorded(ANSWERS[name]), got)
    assert differences(recorded, got, loki.now) == [], ABOUT[name]


@pytest.mark.extra
def test_old_records_are_visible_after_a_flush(ask: Ask) -> None:
    loki = ask("extra-flush")
    loki.push(loki.record("six days", at=loki.now - 6 * DAY), loki.record("four hours", at=loki.now - 4 * HOUR))
    # Do not query before the flush, because Loki could cache the empty result. The cases t-6d-old and t-4h-old show
    # that queries do not find the records before a flush.

    assert loki.answer("POST", "/flush")["status"] in (200, 204)

    assert [row["text"] for row in loki.stored(2, within_s=90)] == ["six days", "four hours"]


@pytest.mark.extra
def test_zstd_is_accepted(ask: Ask) -> None:
    loki = ask("extra-zstd")
    compress = import_module("backports.zstd").compress
    push = loki.post(compress(loki.request([loki.record("z")]).SerializeToString()), Content_Encoding="zstd")
    assert (push["status"], len(loki.stored(1))) == (204, 1)


@pytest.mark.extra
def test_chunked_requests_are_accepted(ask: Ask) -> None:
    loki = ask("extra-chunked")
    raw = loki.request([loki.record("c")]).SerializeToString()
    body = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (10, raw[:10], len(raw) - 10, raw[10:])
    push = loki.post(body, Transfer_Encoding="chunked")
    assert (push["status"], len(loki.stored(1))) == (204, 1)


@pytest.mark.extra
@pytest.mark.parametrize(
    ("entries", "status"), [(120, 204), (121, 400)], ids=["128-entries-in-all", "129-entries-in-all"]
)
def test_every_field_except_labels_counts_as_metadata(ask: Ask, entries: int, status: int) -> None:
    """Expect eight metadata entries in addition to the attributes.

    They are severity number and text, trace id, span id, flags, event name, observed time and host.name.
    """
    loki = ask(f"extra-entries-{entries}")
    record = loki.record(
        "m",
        attributes={f"a{i}": "v" for i in range(entries)},
        severity_number=9,
        severity_text="INFO",
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        flags=1,
        event_name="e",
        observed_time_unix_nano=loki.now,
    )
    push = loki.push(record, resource={"host.name": "h", "service.instance.id": "a label"})
    assert push["status"] == status, push


@pytest.mark.extra
def test_only_labels_distinguish_streams(ask: Ask) -> None:
    loki = ask("extra-streams")
    for instance in "ab":
        loki.push(loki.record("l"), resource={"service.instance.id": instance, "host.name": instance})
    loki.stored(2)
    found = loki.get_json("/loki/api/v1/series", **{"match[]": f'{{service_name="{loki.service}"}}'})["data"]
    assert sorted(found, key=lambda one: one["service_instance_id"]) == [
        {"service_instance_id": instance, "service_name": loki.service} for instance in "ab"
    ]


@pytest.mark.extra
def test_config_contains_the_limits_that_the_project_relies_on(ask: Ask) -> None:
    answer = ask("extra-config").get("/config")
    assert answer["status"] == 200
    for line in ("limits_config:", "allow_structured_metadata: true", "max_line_size:", "schema: v13"):
        assert line in answer["body"]


@pytest.mark.extra
def test_a_push_refused_by_the_rate_limit_can_be_repeated(ask: Ask) -> None:
    """Expect no duplicates: Loki stores no records of a push that it refuses with 429."""
    loki = ask("extra-repeat")

    def push(number: int) -> bytes:
        lines = (loki.record("r" * 200_000, at=loki.now + 100 * number + i) for i in range(20))
        return loki.request(list(lines)).SerializeToString()

    def counted(expected: int) -> int:
        """Count stored lines until the expected number or the timeout is reached. Return the number.

        Use a metric query, because the lines exceed the size limit of one result.
        """
        end = time.monotonic() + 60
        while True:
            answer = loki.query(f'sum(count_over_time({{service_name="{loki.service}"}}[1h]))', path="query")
            result = json.loads(answer["body"])["data"]["result"]
            found = int(result[0]["value"][1]) if result else 0
            if found == expected or time.monotonic() > end:
                return found
            time.sleep(0.1)

    # Push in parallel. If Loki accepts all pushes, try again: on a busy machine, its token bucket can refill between
    # two pushes.
    deadline = time.monotonic() + 120
    sent = stored = 0
    while True:
        pushes = [push(sent + number) for number in range(4)]
        sent += len(pushes)
        loki.full_allowance()
        with ThreadPoolExecutor(len(pushes)) as pool:
            statuses = [answer["status"] for answer in pool.map(loki.post_at_once, pushes)]
        stored += 20 * statuses.count(204)
        if set(statuses) == {204, 429}:
            break
        assert set(statuses) == {204} and time.monotonic() < deadline, statuses
    assert counted(stored) == stored
    loki.full_allowance()
    assert loki.post_at_once(pushes[statuses.index(429)])["status"] == 204
    assert counted(stored + 20) == stored + 20


@pytest.mark.extra
@pytest.mark.parametrize(("lines", "status"), [(20, 204), (21, 503)])
def test_push_above_4_mib_always_returns_503(ask: Ask, lines: int, status: int) -> None:
    loki = ask(f"extra-message-{lines}")
    push = loki.encoded([loki.record("m" * 200_000, at=loki.now + i) for i in range(lines)])
    for _ in "ab":
        loki.full_allowance()
        answer = loki.post_at_once(push)
        assert answer["status"] == status, answer
    if status == 503:
        assert "grpc: received message larger than max" in answer["message"]
        assert loki.stored(0) == []


@pytest.mark.extra
def test_result_above_4_mib_returns_500(ask: Ask) -> None:
    loki = ask("extra-result")
    for half in range(2):
        loki.full_allowance()
        loki.push(*(loki.record("r" * 150_000, at=loki.now + half * 100 + i) for i in range(15)))
    answer = loki.query(f'{{service_name="{loki.service}"}}')
    assert answer["status"] == 500
    assert "trying to send message larger than max" in answer["body"]
