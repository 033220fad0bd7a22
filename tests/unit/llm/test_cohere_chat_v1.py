"""Tests of Cohere's Chat API, version 1, and of Writer's chat API, with examples in the format of their references."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader
from openclaw_egress.llm.model import Billing

COHERE = "api.cohere.com"
META = {"billed_units": {"input_tokens": 5, "output_tokens": 9}, "tokens": {"input_tokens": 71, "output_tokens": 10}}
DONE = {"response_id": "r1", "generation_id": "g1", "text": "Grüße ✓", "finish_reason": "COMPLETE", "meta": META}
EVENTS = [
    {"is_finished": False, "event_type": "stream-start", "generation_id": "g1"},
    {"is_finished": False, "event_type": "text-generation", "text": "Grü"},
    {"is_finished": False, "event_type": "text-generation", "text": "ße ✓"},
    {
        "is_finished": False,
        "event_type": "tool-calls-generation",
        "tool_calls": [{"name": "weather", "parameters": {"city": "Rom"}}],
    },
    {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": DONE},
]
PARTS = [
    {"type": "text", "content": "Grüße ✓"},
    {"type": "tool_call", "id": None, "name": "weather", "arguments": {"city": "Rom"}},
]

BILLING = Billing(billed_input_tokens=5, billed_output_tokens=9)


def read(content_type: str, *chunks: bytes) -> ResponseFacts:
    reader = response_reader(COHERE, "/v1/chat", content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def test_plain_response_is_read() -> None:
    assert read("application/json", json.dumps(DONE).encode()) == ResponseFacts(
        id="r1", finish_reasons=("COMPLETE",), usage=Usage(71, 10), billing=BILLING
    )


@pytest.mark.parametrize("content_type", ["application/stream+json", "application/x-ndjson"])
def test_stream_is_assembled_for_every_split_of_its_bytes(content_type: str) -> None:
    body = lines(*EVENTS)
    expected = ResponseFacts(
        id="r1",
        finish_reasons=("COMPLETE",),
        usage=Usage(71, 10),
        billing=BILLING,
        messages=[{"role": "assistant", "parts": PARTS, "finish_reason": "COMPLETE"}],
    )
    for at in range(len(body) + 1):
        assert read(content_type, body[:at], body[at:]) == expected


def test_aborted_stream_has_no_usage_and_no_finish_reason() -> None:
    facts = read("application/stream+json", lines(*EVENTS[:-1]))
    assert (facts.id, facts.usage, facts.finish_reasons) == ("g1", Usage(), ())
    assert facts.messages == [{"role": "assistant", "parts": PARTS}]


def test_writers_chat_is_read_as_chat_completions() -> None:
    usage = {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43}
    head = {"id": "w1", "model": "palmyra-x5"}
    plain = {**head, "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage}
    expected = ResponseFacts(model="palmyra-x5", id="w1", finish_reasons=("stop",), usage=Usage(40, 3))
    assert read("application/json", json.dumps(plain).encode()) == expected
    last = {**head, "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage}
    facts = read("text/event-stream", b"data: " + json.dumps(last).encode() + b"\n\n")
    assert (facts.model, facts.usage, facts.finish_reasons) == ("palmyra-x5", Usage(40, 3), ("stop",))


@pytest.mark.parametrize("value", [None, 1, "x", [], [1], {"text": 1}])
def test_other_values_have_no_metadata_and_never_raise(value: Any) -> None:
    events = [
        {"event_type": kind, "text": value, "generation_id": value, "tool_calls": value, "response": value}
        for kind in ("stream-start", "text-generation", "tool-calls-generation", "stream-end")
    ]
    assert read("application/stream+json", lines(*events)).usage == Usage()
    assert read("application/json", json.dumps({"id": "x", "text": value, "meta": META}).encode()) == ResponseFacts()


@pytest.mark.parametrize(
    ("host", "body", "expected"),
    [
        (COHERE, {"message": "x", "model": "command-r"}, RequestFacts("chat", "cohere", "command-r", False)),
        ("api.writer.com", {"model": "palmyra-x5", "stream": True}, RequestFacts("chat", "writer", "palmyra-x5", True)),
        ("host.example", {"message": "x"}, RequestFacts()),
    ],
)
def test_request(host: str, body: dict[str, Any], expected: RequestFacts) -> None:
    assert read_request(host, "/v1/chat", json.dumps(body).encode()) == expected
