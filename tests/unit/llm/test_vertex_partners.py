"""Tests of Anthropic's and Mistral's models on Vertex AI: requests, Google's errors, prices, unsupported formats."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
import pytest

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader
from openclaw_egress.llm.pricing import PriceTable
from openclaw_egress.llm.registry import api_of, is_model_api
from tests.support.llm_providers import LLMProviders
from tests.unit.provider_recording import Clients

HOST = "europe-west1-aiplatform.googleapis.com"
CLAUDE = "/v1/projects/p/locations/{}/publishers/anthropic/models/claude-sonnet-4-5@20250929:{}"
MISTRAL = "/v1/projects/p/locations/europe-west4/publishers/mistralai/models/mistral-medium-3:{}"
MESSAGE = {
    "id": "msg_vrtx_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1000, "output_tokens": 100},
}
EVENTS = [
    {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grüße ✓"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 100}},
    {"type": "message_stop"},
]
UNAVAILABLE = {"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}


def read(path: str, content_type: str | None, *chunks: bytes) -> ResponseFacts:
    reader = response_reader(HOST, path, content_type, {})
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with LLMProviders() as providers:
        clients = Clients(providers)
        yield clients
        clients.close()


@pytest.mark.parametrize("location", ["global", "europe-west1", "us"])
def test_stream_of_claude_is_read_for_every_split_of_its_bytes(location: str) -> None:
    path = CLAUDE.format(location, "streamRawPredict")
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS).encode()
    parts = [{"type": "text", "content": "Grüße ✓"}]
    for at in range(len(body) + 1):
        facts = read(path, "text/event-stream", body[:at], body[at:])
        assert (facts.model, facts.id, facts.usage) == ("claude-sonnet-4-5-20250929", "msg_vrtx_1", Usage(1000, 100))
        assert facts.messages == [{"role": "assistant", "parts": parts, "finish_reason": "end_turn"}]


@pytest.mark.parametrize(
    ("location", "dollars"), [("global", (1000 * 3 + 100 * 15) / 1e6), ("europe-west1", None), ("us", None)]
)
def test_cost_is_known_at_the_global_endpoint_only(location: str, dollars: float | None) -> None:
    facts = read(CLAUDE.format(location, "rawPredict"), "application/json", json.dumps(MESSAGE).encode())
    assert facts.usage == Usage(1000, 100)
    requested = RequestFacts("chat", "gcp.vertex_ai")
    cost = PriceTable().cost_of("aiplatform.googleapis.com", requested, facts, 1_795_800_000_000_000_000)
    assert cost == (None if dollars is None else pytest.approx(dollars))


@pytest.mark.parametrize("path", [CLAUDE.format("global", "{}"), CLAUDE.format("us-east5", "{}"), MISTRAL])
def test_error_of_google_is_read_in_each_form(path: str) -> None:
    plain, stream = path.format("rawPredict"), path.format("streamRawPredict")
    error = json.dumps(UNAVAILABLE).encode()
    assert read(plain, "application/json", error).error_type == "UNAVAILABLE"
    assert read(stream, "application/json; charset=UTF-8", b"[" + error + b"]").error_type == "UNAVAILABLE"
    assert read(stream, "text/event-stream", b"data: " + error + b"\n\n").error_type == "UNAVAILABLE"


def test_error_of_the_vendor_in_a_stream_is_read() -> None:
    event = b'data: {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}\n\n'
    path = CLAUDE.format("global", "streamRawPredict")
    assert read(path, "text/event-stream", event).error_type == "overloaded_error"


def test_error_of_google_equals_the_sdks(clients: Clients) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        clients.vertex.messages.create(model="fail-503", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    assert isinstance(caught.value.body, dict)
    assert clients.last.response_facts(HOST).error_type == caught.value.body["error"]["status"] == "UNAVAILABLE"


@pytest.mark.parametrize("stream", [False, True])
def test_model_and_stream_flag_of_the_sdks_request_are_in_its_path(clients: Clients, stream: bool) -> None:
    model = "claude-sonnet-4-5@20250929"
    reply = clients.vertex.messages.create(
        model=model, max_tokens=9, messages=[{"role": "user", "content": "x"}], stream=stream
    )
    if isinstance(reply, anthropic.Stream):
        list(reply)
    assert b'"model"' not in clients.last.request
    assert clients.last.request_facts(HOST) == RequestFacts("chat", "gcp.vertex_ai", model, stream)
    assert clients.last.request_facts("gateway.example") == RequestFacts("chat", None, model, stream)


def test_request_to_mistral_names_its_model() -> None:
    facts = read_request(HOST, MISTRAL.format("rawPredict"), b'{"model": "mistral-medium-3", "messages": []}')
    assert facts == RequestFacts("chat", "gcp.vertex_ai", "mistral-medium-3", False)


@pytest.mark.parametrize("model", ["mistralai/models/mistral-ocr-2505", "ai21/models/jamba", "meta/models/llama"])
def test_other_formats_are_not_read(model: str) -> None:
    path = f"/v1/projects/p/locations/global/publishers/{model}:rawPredict"
    assert api_of(path) is None
    assert is_model_api(HOST, path)
