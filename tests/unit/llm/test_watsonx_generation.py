"""Tests of watsonx.ai's text generation, in the format of IBM's SDKs: plain responses, streams, errors and requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, provider_of, read_request, response_reader

HOST = "us-south.ml.cloud.ibm.com"
PLAIN, STREAM = "/ml/v1/text/generation?version=2025-02-11", "/ml/v1/text/generation_stream?version=2025-02-11"
MODEL = "ibm/granite-13b-instruct-v2"


def read(path: str, content_type: str | None, *chunks: bytes) -> ResponseFacts:
    reader = response_reader(HOST, path, content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def plain(value: Any) -> ResponseFacts:
    return read(PLAIN, "application/json", json.dumps(value).encode())


def streamed(*events: bytes) -> ResponseFacts:
    return read(STREAM, "text/event-stream", *events)


def response(text: str, given: Any, made: Any, reason: Any) -> dict[str, Any]:
    result = {"generated_text": text, "input_token_count": given, "generated_token_count": made, "stop_reason": reason}
    return {"model_id": MODEL, "created_at": "2025-06-24T15:30:13.500Z", "results": [result]}


def event(value: Any, kind: str = "message") -> bytes:
    return f"id: 1\nevent: {kind}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def failure(code: Any) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": "m", "more_info": "https://x"}], "trace": "23e1", "status_code": 401}


TEXT = [
    event({}),
    event(response("", 68, 0, "not_finished")),
    event(response("40", 0, 1, "not_finished")),
    event(response("00 ✓", 0, 2, "not_finished")),
    event(response("km", 0, 3, "eos_token")),
    event({}, "close"),
]


def test_usage_and_finish_reason_of_a_plain_response_are_read() -> None:
    expected = ResponseFacts(model=MODEL, finish_reasons=("max_tokens",), usage=Usage(12, 4))
    assert plain(response("TEST", 12, 4, "max_tokens")) == expected


@pytest.mark.parametrize("results", [[], [{"generated_token_count": 4}] * 2, None])
def test_response_without_exactly_one_result_has_no_usage(results: Any) -> None:
    assert plain({"model_id": MODEL, "results": results}) == ResponseFacts(model=MODEL)


@pytest.mark.parametrize("content_type", ["text/event-stream", None])
def test_stream_is_assembled_for_every_split_of_its_bytes(content_type: str | None) -> None:
    body = b"".join(TEXT)
    parts = [{"type": "text", "content": "4000 ✓km"}]
    expected = ResponseFacts(
        model=MODEL,
        finish_reasons=("eos_token",),
        usage=Usage(68, 3),
        messages=[{"role": "assistant", "parts": parts, "finish_reason": "eos_token"}],
    )
    for at in range(len(body) + 1):
        assert read(STREAM, content_type, body[:at], body[at:]) == expected


def test_counts_that_only_the_last_event_has_are_read() -> None:
    facts = streamed(event(response("Hi", None, None, "not_finished")), event(response("!", 4, 2, "eos_token")))
    assert facts.usage == Usage(4, 2)


def test_input_count_in_each_event_is_counted_once() -> None:
    assert streamed(*(event(response("x", 4, made, "not_finished")) for made in (1, 2))).usage == Usage(4, 2)


def test_aborted_stream_has_the_counts_so_far_and_no_finish_reason() -> None:
    facts = streamed(*TEXT[:-2])
    assert (facts.usage, facts.finish_reasons) == (Usage(68, 2), ())
    assert facts.messages == [{"role": "assistant", "parts": [{"type": "text", "content": "4000 ✓"}]}]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("token_quota_reached", "token_quota_reached"),
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        ("brand_new", "_OTHER"),
        (None, "_OTHER"),
    ],
)
def test_error_in_a_response_and_in_a_stream(code: Any, expected: str) -> None:
    assert plain(failure(code)) == ResponseFacts(error_type=expected)
    facts = streamed(*TEXT[:3], event(failure(code), "error"))
    assert (facts.error_type, facts.usage) == (expected, Usage(68, 1))


@pytest.mark.parametrize("reason", ["error", "ERROR"])
def test_finish_reason_of_an_error_is_an_error(reason: str) -> None:
    assert plain(response("", 12, 0, reason)).error_type == "_OTHER"
    facts = streamed(*TEXT[:3], event(response("", 0, 1, reason)))
    assert (facts.error_type, facts.finish_reasons) == ("_OTHER", (reason,))


@pytest.mark.parametrize("value", [None, True, -1, "", [], [1], {"generated_text": 1}, [{"stop_reason": {}}], [[]]])
@pytest.mark.parametrize("name", ["model_id", "results"])
def test_unexpected_values_never_raise(name: str, value: Any) -> None:
    assert plain({name: value}) == ResponseFacts()
    assert streamed(event({name: value})) == ResponseFacts(messages=[])


BODY = json.dumps({"model_id": MODEL, "input": "Hi", "parameters": {"max_new_tokens": 9}, "project_id": "p"}).encode()


@pytest.mark.parametrize(("path", "stream"), [(PLAIN, False), (STREAM, True)])
def test_request_streams_if_its_path_says_so(path: str, stream: bool) -> None:
    assert read_request(HOST, path, BODY) == RequestFacts("text_completion", "ibm.watsonx.ai", MODEL, stream)
    deployed = path.replace("/v1/", "/v1/deployments/my-deployment/")
    assert read_request("cpd.corp.example", deployed, BODY) == RequestFacts("text_completion", None, MODEL, stream)


@pytest.mark.parametrize(
    "host", [HOST, "private.eu-de.ml.cloud.ibm.com", "ap-south-1.aws.wxai.ibm.com", "wxai.ibmforusgov.com"]
)
def test_hosts_of_all_regions_have_the_provider(host: str) -> None:
    assert provider_of(host) == "ibm.watsonx.ai"


@pytest.mark.parametrize(
    "path", ["/ml/v1/text/chat", "/ml/v1/text/tokenization", "/ml/v1/text/generations", "/v2/text/generation"]
)
def test_path_of_another_api_is_not_read(path: str) -> None:
    assert read_request(HOST, path, BODY).operation_name is None
