"""Tests of Gemini's Interactions API with examples in the format of its reference: responses, streams and requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai._interactions.types import Interaction

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader
from openclaw_egress.llm.conversation import Part, Turn, request_turns, response_turns
from openclaw_egress.llm.model import Billing
from openclaw_egress.llm.registry import is_model_api

HOST = "generativelanguage.googleapis.com"
PATH = "/v1beta/interactions"
USAGE = {
    "total_tokens": 164,
    "total_input_tokens": 100,
    "input_tokens_by_modality": [{"modality": "text", "tokens": 90}, {"modality": "audio", "tokens": 10}],
    "total_cached_tokens": 40,
    "total_output_tokens": 20,
    "total_tool_use_tokens": 4,
    "total_thought_tokens": 40,
}
HEAD = {"id": "v1_Ab", "object": "interaction", "model": "gemini-2.5-flash", "service_tier": "standard"}
DONE = {**HEAD, "status": "completed", "usage": USAGE}
COUNTED = Usage(104, 60, 40, None, 40)
BILLING = Billing(service_tier="standard", input_audio_tokens=10)
STEPS: list[dict[str, Any]] = [
    {"type": "thought", "signature": "c2ln", "summary": [{"type": "text", "text": "why"}]},
    {"type": "model_output", "content": [{"type": "text", "text": "Grüße ✓"}]},
    {"type": "function_call", "id": "c1", "name": "weather", "arguments": {"city": "Rom"}},
]


def read(content_type: str | None, *chunks: bytes) -> ResponseFacts:
    reader = response_reader(HOST, PATH, content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def event(kind: str, **members: Any) -> bytes:
    data = json.dumps({**members, "event_type": kind}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def delta(index: int, kind: str, **members: Any) -> bytes:
    early = {"usage": {"total_input_tokens": 1, "total_output_tokens": 1}}
    return event("step.delta", index=index, delta={"type": kind, **members}, metadata=early)


EVENTS = [
    event("interaction.created", interaction={**HEAD, "status": "in_progress"}),
    event("interaction.status_update", interaction_id="v1_Ab", status="in_progress"),
    event("step.start", index=0, step={"type": "thought"}),
    delta(0, "thought_summary", content={"type": "text", "text": "wh"}),
    delta(0, "thought_summary", content={"type": "text", "text": "y"}),
    delta(0, "thought_signature", signature="c2ln"),
    event("step.stop", index=0),
    event("step.start", index=1, step={"type": "model_output"}),
    delta(1, "text", text="Grü"),
    delta(1, "text", text="ße ✓"),
    event("step.start", index=2, step={"type": "function_call", "id": "c1", "name": "weather", "arguments": {}}),
    delta(2, "arguments_delta", arguments='{"city": '),
    delta(2, "arguments_delta", arguments='"Rom"}'),
    event("step.start", index=3, step={"type": "google_search_call", "id": "s1"}),
    event("interaction.completed", interaction=DONE),
    b"event: done\ndata: [DONE]\n\n",
]
PARTS = [
    {"type": "reasoning", "content": "why"},
    {"type": "text", "content": "Grüße ✓"},
    {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Rom"}},
    {"type": "google_search_call"},
]


def test_plain_response_is_read() -> None:
    body = {**DONE, "created": "2026-06-05T17:35:35Z", "updated": "2026-06-05T17:35:35Z", "steps": STEPS}
    sdk = Interaction.model_validate(body)
    facts = read("application/json", json.dumps(body).encode())
    assert facts == ResponseFacts(
        model=str(sdk.model), id=sdk.id, finish_reasons=(sdk.status,), usage=COUNTED, billing=BILLING
    )
    assert sdk.usage is not None
    assert sdk.usage.total_tokens == (facts.usage.input_tokens or 0) + (facts.usage.output_tokens or 0)


def test_stream_is_assembled_for_every_split_of_its_bytes() -> None:
    body = b"".join(EVENTS)
    expected = ResponseFacts(
        model="gemini-2.5-flash",
        id="v1_Ab",
        finish_reasons=("completed",),
        usage=COUNTED,
        billing=BILLING,
        messages=[{"role": "assistant", "parts": PARTS, "finish_reason": "completed"}],
    )
    for at in range(len(body) + 1):
        assert read("text/event-stream", body[:at], body[at:]) == expected


def test_aborted_stream_has_no_usage_and_no_finish_reason() -> None:
    facts = read("text/event-stream", *EVENTS[:-2])
    assert (facts.model, facts.usage, facts.finish_reasons) == ("gemini-2.5-flash", Usage(), ())
    assert facts.messages == [{"role": "assistant", "parts": PARTS}]


def test_interaction_in_the_background_has_no_finish_reason() -> None:
    body = json.dumps({**HEAD, "status": "in_progress"}).encode()
    assert read("application/json", body).finish_reasons == ()


@pytest.mark.parametrize("name", ["previous_interaction_id", "agent"])
def test_cost_of_stored_history_and_of_an_agent_is_unknown(name: str) -> None:
    assert read("application/json", json.dumps({**DONE, name: "x"}).encode()).billing.incomplete is True


def test_errors_are_read() -> None:
    error = {"error": {"code": 400, "message": "bad key", "status": "INVALID_ARGUMENT"}}
    for body in (error, [error]):
        assert read("application/json", json.dumps(body).encode()).error_type == "INVALID_ARGUMENT"
    ended = event("error", error={"code": "service_unavailable", "message": "busy"})
    assert read("text/event-stream", EVENTS[0], ended).error_type == "_OTHER"


@pytest.mark.parametrize("value", [None, 1, "x", [], [1], {"type": 1}, {"type": "text", "text": 1, "content": [1]}])
def test_unexpected_values_never_raise(value: Any) -> None:
    events = [
        event(kind, index=0, step=value, delta=value, interaction=value, error=value)
        for kind in ("step.start", "step.delta", "interaction.completed")
    ]
    assert read("text/event-stream", *events).usage == Usage()
    assert read("application/json", json.dumps({**HEAD, "usage": value, "status": value}).encode()).usage == Usage()


def test_object_of_another_server_has_no_metadata() -> None:
    assert read("application/json", b'{"id": "1", "model": "m", "status": "ok"}') == ResponseFacts()


@pytest.mark.parametrize(
    ("host", "path", "body", "expected"),
    [
        (HOST, PATH, {"model": "m", "input": "x"}, RequestFacts("generate_content", "gcp.gemini", "m", False)),
        (HOST, PATH, {"model": "m", "stream": True}, RequestFacts("generate_content", "gcp.gemini", "m", True)),
        (
            "aiplatform.googleapis.com",
            "/v1beta1/projects/p/locations/global/interactions",
            {"model": "m"},
            RequestFacts("generate_content", "gcp.vertex_ai", "m", False),
        ),
        (HOST, PATH, {"agent": "deep-research"}, RequestFacts("generate_content", "gcp.gemini", None, False)),
        ("discord.com", PATH, {"agent": "deep-research"}, RequestFacts()),
        ("discord.com", "/api/v10/interactions", {"model": "m"}, RequestFacts()),
    ],
)
def test_request(host: str, path: str, body: dict[str, Any], expected: RequestFacts) -> None:
    assert read_request(host, path, json.dumps(body).encode()) == expected


def test_bodies_of_an_interaction_are_model_output_at_googles_hosts_only() -> None:
    for path in (PATH, f"{PATH}/v1_Ab-c?stream=true", f"{PATH}/v1_Ab/cancel"):
        assert is_model_api(HOST, path)
        assert not is_model_api("host.example", path)


def test_conversation_is_shown() -> None:
    given = [{"type": "text", "text": "Hi"}, {"role": "user", "content": "x"}]
    requested = {"system_instruction": "be kind", "input": given}
    assert request_turns(json.dumps(requested)) == [
        Turn("system", (Part(kind="text", text="be kind"),)),
        Turn("user", (Part(kind="text", text="Hi"),)),
        Turn("user", (Part(kind="text", text="x"),)),
    ]
    result = {"type": "function_result", "call_id": "c1", "name": "weather", "result": "sunny"}
    assert response_turns(json.dumps({**DONE, "steps": [*STEPS, result]})) == [
        Turn("assistant", (Part(kind="reasoning", text="why"),)),
        Turn("assistant", (Part(kind="text", text="Grüße ✓"),)),
        Turn("assistant", (Part(kind="tool_call", text='{\n  "city": "Rom"\n}', name="weather", call_id="c1"),)),
        Turn("tool", (Part(kind="tool_result", text="sunny", name="weather", call_id="c1"),)),
    ]
