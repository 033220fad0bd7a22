"""Tests of Cohere's Chat API, version 2, with examples from its reference: plain responses, streams and requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader
from openclaw_egress.llm.model import Billing

PATH = "/v2/chat"
USAGE = {
    "billed_units": {"input_tokens": 5, "output_tokens": 418},
    "tokens": {"input_tokens": 71, "output_tokens": 419},
}

BILLING = Billing(billed_input_tokens=5, billed_output_tokens=418)


def read(content_type: str | None, *chunks: bytes) -> ResponseFacts:
    reader = response_reader("api.cohere.com", PATH, content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def event(kind: str, message: Any = None, **members: Any) -> bytes:
    delta = members.pop("delta", {"message": message})
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'delta': delta, **members})}\n\n".encode()


def call(**members: Any) -> dict[str, Any]:
    return {"tool_calls": members}


END = event("message-end", delta={"finish_reason": "COMPLETE", "usage": USAGE})
TEXT = [
    event("message-start", {"role": "assistant", "content": []}, id="a8fc192e"),
    event("content-start", {"content": {"type": "thinking", "thinking": ""}}, index=0),
    event("content-delta", {"content": {"thinking": "why"}}, index=0),
    event("content-end", index=0),
    event("content-start", {"content": {"type": "text", "text": ""}}, index=1),
    event("content-delta", {"content": {"text": "C"}}, index=1),
    event("content-delta", {"content": {"text": "oca ✓"}}, index=1),
    event("content-end", index=1),
    END,
]
TOOLS = [
    event("message-start", {"role": "assistant"}, id="fba98ad3"),
    event("tool-plan-delta", {"tool_plan": "I will "}),
    event("tool-plan-delta", {"tool_plan": "search"}),
    event("tool-call-start", call(id="w_1", type="function", function={"name": "w", "arguments": ""}), index=0),
    event("tool-call-delta", call(function={"arguments": '{"location"'}), index=0),
    event("tool-call-delta", call(function={"arguments": ': "Madrid"}'}), index=0),
    event("tool-call-end", index=0),
    event("message-end", delta={"finish_reason": "TOOL_CALL", "usage": USAGE}),
]


def test_usage_and_finish_reason_of_a_plain_response_are_read() -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}
    body = json.dumps({"id": "c14c80c3", "finish_reason": "COMPLETE", "message": message, "usage": USAGE}).encode()
    assert read("application/json", body) == ResponseFacts(
        id="c14c80c3", finish_reasons=("COMPLETE",), usage=Usage(71, 419), billing=BILLING
    )


@pytest.mark.parametrize(("cached", "counted"), [(64, 64), (0, 0), (72, None), (None, None)])
def test_cached_tokens_are_a_part_of_the_input(cached: int | None, counted: int | None) -> None:
    usage = {**USAGE, "cached_tokens": cached}
    plain = json.dumps({"id": "c", "finish_reason": "COMPLETE", "usage": usage}).encode()
    ended = event("message-end", delta={"finish_reason": "COMPLETE", "usage": usage})
    assert read("application/json", plain).usage == Usage(71, 419, counted)
    assert read("text/event-stream", ended).usage == Usage(71, 419, counted)


@pytest.mark.parametrize("content_type", ["text/event-stream", None])
def test_stream_is_assembled_for_every_split_of_its_bytes(content_type: str | None) -> None:
    body = b"".join(TEXT)
    parts = [{"type": "reasoning", "content": "why"}, {"type": "text", "content": "Coca ✓"}]
    expected = ResponseFacts(
        id="a8fc192e",
        finish_reasons=("COMPLETE",),
        usage=Usage(71, 419),
        billing=BILLING,
        messages=[{"role": "assistant", "parts": parts, "finish_reason": "COMPLETE"}],
    )
    for at in range(len(body) + 1):
        assert read(content_type, body[:at], body[at:]) == expected


def test_tool_call_has_its_plan_and_arguments() -> None:
    facts = read("text/event-stream", *TOOLS)
    assert facts.messages is not None
    assert facts.messages[0]["parts"] == [
        {"type": "reasoning", "content": "I will search"},
        {"type": "tool_call", "id": "w_1", "name": "w", "arguments": {"location": "Madrid"}},
    ]
    assert facts.finish_reasons == ("TOOL_CALL",)


def test_aborted_stream_has_no_usage_and_no_finish_reason() -> None:
    facts = read("text/event-stream", *TEXT[:-1])
    assert (facts.id, facts.finish_reasons, facts.usage) == ("a8fc192e", (), Usage())
    assert facts.messages


def test_error_in_a_stream_has_type_other_and_an_error_response_has_none() -> None:
    end = event("message-end", delta={"finish_reason": "ERROR", "error": "generation failed"})
    facts = read("text/event-stream", end)
    assert (facts.error_type, facts.finish_reasons) == ("_OTHER", ("ERROR",))
    assert read("application/json", b'{"id": "e", "message": "invalid api token"}').error_type is None


@pytest.mark.parametrize("value", [None, 1, "x", [], {"content": 1, "tool_calls": [1], "tool_plan": {}}])
@pytest.mark.parametrize(
    "kind", ["message-start", "content-delta", "tool-call-delta", "tool-plan-delta", "message-end"]
)
def test_unexpected_values_never_raise(kind: str, value: Any) -> None:
    assert read("text/event-stream", event(kind, value, index=0), event(kind, delta=value, index="x")).usage == Usage()


@pytest.mark.parametrize(("body", "stream"), [({"stream": True}, True), ({"stream": False}, False), ({}, False)])
def test_request(body: dict[str, Any], stream: bool) -> None:
    sent = json.dumps({"model": "command-a-03-2025", "messages": []} | body).encode()
    assert read_request("api.cohere.com", PATH, sent) == RequestFacts("chat", "cohere", "command-a-03-2025", stream)
