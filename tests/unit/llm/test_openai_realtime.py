"""Tests of the Realtime API: the usage of a session is the sum of the usage of its responses."""

from __future__ import annotations

import json

import pytest

from openclaw_egress.llm import message_reader
from openclaw_egress.llm.model import Usage


def facts_of(*events, step=7):
    reader = message_reader("/v1/realtime")
    data = b"\n".join(json.dumps(event).encode() for event in events)
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
    return reader.finish()


def done(usage, **more):
    return {"type": "response.done", "response": {"id": "resp", "status": "completed", "usage": usage, **more}}


@pytest.mark.parametrize("step", [1, 13, 100_000])
def test_usage_is_the_sum_over_responses(step):
    details = {"cached_tokens": 4, "audio_tokens": 3}
    found = facts_of(
        {"type": "session.created", "session": {"id": "sess", "model": "gpt-realtime"}},
        done({"input_tokens": 10, "output_tokens": 2, "input_token_details": details}),
        done({"input_tokens": 20, "output_tokens": 3, "output_token_details": {"audio_tokens": 1}}),
        step=step,
    )
    assert found.usage == Usage(input_tokens=30, output_tokens=5, cache_read_input_tokens=4)
    assert (found.billing.input_audio_tokens, found.billing.output_audio_tokens) == (3, 1)
    assert (found.model, found.id, found.finish_reasons) == ("gpt-realtime", "sess", ("completed",))


def test_absent_counts_stay_absent():
    assert facts_of(done({}), done({"output_tokens": 1})).usage == Usage(output_tokens=1)
    assert facts_of({"type": "response.done"}).usage == Usage()


def test_sum_beyond_64_bits_is_absent():
    assert facts_of(*[done({"input_tokens": 2**62})] * 2).usage == Usage()


def test_failed_response_has_an_error_type():
    failed = done({}, status="failed", status_details={"type": "failed", "error": {"code": "rate_limit_exceeded"}})
    assert facts_of(failed).error_type == "rate_limit_exceeded"
    assert facts_of({"type": "error", "error": {"type": "invalid_request_error"}}).error_type == "invalid_request_error"


def test_transcripts_and_calls_are_the_message():
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"x": 1}'}
    said = {"type": "message", "content": [{"type": "output_audio", "transcript": "hello"}]}
    (message,) = facts_of(done({}, output=[said]), done({}, output=[call])).messages
    assert message["parts"] == [
        {"type": "text", "content": "hello"},
        {"type": "tool_call", "id": "c1", "name": "look", "arguments": {"x": 1}},
    ]


@pytest.mark.parametrize("value", [None, [], "x", 1, {"response": []}, {"response": {"output": [1, {"content": 2}]}}])
def test_other_json_is_ignored(value):
    assert facts_of({"type": "response.done", "response": value}, {"type": 3}, value or {}).error_type is None
