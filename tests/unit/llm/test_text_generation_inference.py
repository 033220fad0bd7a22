"""Tests of Text Generation Inference's own API, in the format of its router: responses, streams and requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader

HOST = "x1.us-east-1.aws.endpoints.huggingface.cloud"
GENERATE, STREAM = "/generate", "/generate_stream"
COUNTED = {"x-prompt-tokens": "5", "x-generated-tokens": "7"}


def read(path: str, content_type: str | None, *chunks: bytes, headers: dict[str, str] | None = None) -> ResponseFacts:
    reader = response_reader(HOST, path, content_type, headers)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def plain(value: Any, headers: dict[str, str] | None = None) -> ResponseFacts:
    return read(GENERATE, "application/json", json.dumps(value).encode(), headers=headers)


def event(text: str = "", *, special: bool = False, **members: Any) -> bytes:
    token = {"id": 1, "text": text, "logprob": -0.5, "special": special}
    value = {"index": 1, "token": token, "generated_text": None, "details": None} | members
    return f"data:{json.dumps(value, ensure_ascii=False)}\n\n".encode()


def failed(kind: str) -> bytes:
    return b"data:" + json.dumps({"error": "Request failed during generation", "error_type": kind}).encode() + b"\n\n"


DETAILS = {"finish_reason": "eos_token", "generated_tokens": 7, "seed": None, "input_length": 5}
TEXT = [event("Grü"), event("ße ✓"), event("</s>", special=True, generated_text="Say: Grüße ✓", details=DETAILS)]


def test_counts_of_a_plain_response_are_in_its_headers() -> None:
    assert plain([], COUNTED).usage == plain({"generated_text": "x"}, COUNTED).usage == Usage(5, 7)
    assert plain({"generated_text": "x"}).usage == Usage()


def test_details_of_a_plain_response_have_the_finish_reason() -> None:
    details = {"finish_reason": "length", "generated_tokens": 7, "seed": 1, "prefill": [], "tokens": []}
    expected = ResponseFacts(finish_reasons=("length",), usage=Usage(None, 7))
    assert plain({"generated_text": "x", "details": details}) == expected
    assert plain({"generated_text": "x", "details": details}, COUNTED).usage == Usage(5, 7)


@pytest.mark.parametrize("header", ["", "-5", "5.0", "9" * 30, "٣"])
def test_header_that_is_not_a_count_is_not_read(header: str) -> None:
    assert plain({"generated_text": "x"}, {"x-prompt-tokens": header}).usage == Usage()


@pytest.mark.parametrize("content_type", ["text/event-stream", None])
def test_stream_is_assembled_for_every_split_of_its_bytes(content_type: str | None) -> None:
    body = b":\n\n" + b"".join(TEXT)
    parts = [{"type": "text", "content": "Grüße ✓"}]
    expected = ResponseFacts(
        finish_reasons=("eos_token",),
        usage=Usage(5, 7),
        messages=[{"role": "assistant", "parts": parts, "finish_reason": "eos_token"}],
    )
    for at in range(len(body) + 1):
        assert read(STREAM, content_type, body[:at], body[at:]) == expected


def test_stream_without_details_has_its_text_and_no_counts() -> None:
    facts = read(STREAM, "text/event-stream", *TEXT[:2], event("</s>", special=True, generated_text="Grüße ✓"))
    assert (facts.usage, facts.finish_reasons) == (Usage(), ())
    assert facts.messages == [{"role": "assistant", "parts": [{"type": "text", "content": "Grüße ✓"}]}]


def test_aborted_stream_has_no_usage_and_no_finish_reason() -> None:
    facts = read(STREAM, "text/event-stream", *TEXT[:-1])
    assert (facts.usage, facts.finish_reasons) == (Usage(), ())
    assert facts.messages


@pytest.mark.parametrize(("kind", "expected"), [("overloaded", "overloaded"), ("brand_new", "_OTHER")])
def test_error_in_a_response_and_in_a_stream(kind: str, expected: str) -> None:
    assert plain({"error": "Model is overloaded", "error_type": kind}).error_type == expected
    facts = read(STREAM, "text/event-stream", TEXT[0], failed(kind))
    assert facts.error_type == expected
    assert facts.messages == [{"role": "assistant", "parts": [{"type": "text", "content": "Grü"}]}]


@pytest.mark.parametrize("value", [None, 1, "x", [], {"text": 1, "special": "x"}, {"generated_tokens": True}])
@pytest.mark.parametrize("name", ["token", "details", "error_type", "generated_text"])
def test_unexpected_values_never_raise(name: str, value: Any) -> None:
    assert plain({name: value}).usage == Usage()
    assert read(STREAM, "text/event-stream", event("x", **{name: value})).usage == Usage()


@pytest.mark.parametrize(
    "value",
    [{"text": "x", "meta_info": {"prompt_tokens": 5}}, {"details": "x", "token": "x"}, {"model_name": "m", "usage": 1}],
)
def test_response_of_another_server_has_no_facts(value: dict[str, Any]) -> None:
    assert plain(value) == ResponseFacts()
    facts = read(STREAM, "text/event-stream", b"data: " + json.dumps(value).encode() + b"\n\n")
    assert (facts.usage, facts.messages, facts.error_type) == (Usage(), [], None)


BODY = json.dumps({"inputs": "Hi", "parameters": {"details": True}}).encode()


@pytest.mark.parametrize(("path", "stream"), [(GENERATE, False), ("/generate/", False), (STREAM, True)])
def test_request_has_no_model_and_the_path_says_whether_it_streams(path: str, stream: bool) -> None:
    assert read_request(HOST, path, BODY) == RequestFacts("text_completion", "hugging_face", None, stream)


def test_operators_own_server_is_recognised_only_by_the_path_of_its_streams() -> None:
    assert read_request("tgi.corp.example", STREAM, BODY) == RequestFacts("text_completion", None, None, True)
    assert read_request("tgi.corp.example", GENERATE, BODY) == RequestFacts()


@pytest.mark.parametrize("path", ["/api/generate", "/v1/generate", "/v2/generate", "/regenerate", "/generate_streams"])
def test_path_of_another_api_is_not_read(path: str) -> None:
    assert read_request(HOST, path, BODY).operation_name is None
