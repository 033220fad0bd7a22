"""Tests that our readers and OpenAI's SDK return equal results for embeddings, images and audio."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cohere import EmbedByTypeResponse
from ollama import EmbedResponse
from openai.types import CreateEmbeddingResponse, ImageGenCompletedEvent, ImagesResponse
from openai.types.audio import Transcription, TranscriptionTextDoneEvent, TranscriptionVerbose

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader
from openclaw_egress.llm.model import Billing
from openclaw_egress.llm.parsers import MAX_PLAIN_BYTES

EMBEDDINGS, IMAGES, SPEECH = "/v1/embeddings", "/v1/images/generations", "/v1/audio/speech"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
EMBEDDED: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.0023, -0.0093]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
PAINTED: dict[str, Any] = {
    "created": 1713833628,
    "data": [{"b64_json": "QUJD"}],
    "usage": {
        "total_tokens": 100,
        "input_tokens": 50,
        "output_tokens": 50,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
        "output_tokens_details": {"text_tokens": 5, "image_tokens": 45},
    },
}
HEARD: dict[str, Any] = {
    "text": "Grüße ✓",
    "usage": {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
        "output_tokens": 45,
        "total_tokens": 59,
    },
}


def read(path: str, body: dict[str, Any] | bytes, content_type: str = "application/json") -> ResponseFacts:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    expected = whole(path, content_type, data)
    for at in range(0, len(data), max(len(data) // 100, 1)):
        assert whole(path, content_type, data[:at], data[at:]) == expected
    return expected


def whole(path: str, content_type: str, *chunks: bytes) -> ResponseFacts:
    reader = response_reader("api.openai.com", path, content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def events(*values: dict[str, Any]) -> bytes:
    return b"".join(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values)


def test_embeddings_equal_openais_type() -> None:
    sdk = CreateEmbeddingResponse.model_validate(EMBEDDED)
    assert read(EMBEDDINGS, EMBEDDED) == ResponseFacts(
        model=sdk.model, usage=Usage(sdk.usage.prompt_tokens), billing=Billing(no_output=True)
    )


@pytest.mark.parametrize("path", [EMBEDDINGS, TRANSCRIPTIONS])
def test_error_without_an_outer_object_is_read(path: str) -> None:
    error = {"object": "error", "message": "bad file", "type": "invalid_request_file", "code": "3310"}
    assert read(path, error) == ResponseFacts(billing=read(path, {}).billing, error_type="invalid_request_file")
    assert read(path, {"message": "x", "type": "unknown"}).error_type is None


def test_total_of_voyage_ai_counts_as_input() -> None:
    assert read(EMBEDDINGS, {**EMBEDDED, "usage": {"total_tokens": 8}}).usage == Usage(8)


@pytest.mark.parametrize("size", [MAX_PLAIN_BYTES // 2, MAX_PLAIN_BYTES + 1])
def test_usage_after_a_long_list_of_numbers_is_read(size: int) -> None:
    body = json.dumps(EMBEDDED | {"data": [0.5] * (size // 5)}).encode()
    before, name, after = body.partition(b', "model"')
    assert whole(EMBEDDINGS, "application/json", before, name + after).usage == Usage(8)


def test_images_equal_openais_type() -> None:
    sdk = ImagesResponse.model_validate(PAINTED).usage
    assert sdk is not None
    assert sdk.output_tokens_details is not None
    billing = Billing(
        input_image_tokens=sdk.input_tokens_details.image_tokens,
        output_image_tokens=sdk.output_tokens_details.image_tokens,
    )
    assert read(IMAGES, PAINTED) == ResponseFacts(usage=Usage(sdk.input_tokens, sdk.output_tokens), billing=billing)


@pytest.mark.parametrize("missing", ["input_tokens_details", "output_tokens_details"])
def test_images_without_details_have_counts_but_no_price(missing: str) -> None:
    usage = {name: value for name, value in PAINTED["usage"].items() if name != missing}
    facts = read(IMAGES, PAINTED | {"usage": usage})
    assert (facts.usage, facts.billing.incomplete) == (Usage(50, 50), True)
    assert read(IMAGES, PAINTED | {"svg_usage": {}}).billing.incomplete
    assert read(IMAGES, {"created": 1, "data": []}).usage == Usage()


def test_last_event_of_an_image_has_the_usage() -> None:
    partial = {"type": "image_generation.partial_image", "b64_json": "QUJD", "partial_image_index": 0}
    usage = {name: value for name, value in PAINTED["usage"].items() if name != "output_tokens_details"}
    last: Any = {"type": "image_generation.completed", "b64_json": "QUJD", "usage": usage}
    sdk = ImageGenCompletedEvent.model_construct(**last).usage
    facts = read(IMAGES, events(partial, last), "text/event-stream")
    assert facts.usage == Usage(sdk.input_tokens, sdk.output_tokens)
    assert facts.billing == Billing(input_image_tokens=40, output_image_tokens=50)
    assert read(IMAGES, events(partial), "text/event-stream") == ResponseFacts()


def test_transcription_equals_openais_types() -> None:
    sdk = Transcription.model_validate(HEARD).usage
    assert sdk is not None
    assert sdk.type == "tokens"
    expected = ResponseFacts(usage=Usage(sdk.input_tokens, sdk.output_tokens), billing=Billing(input_audio_tokens=10))
    assert read(TRANSCRIPTIONS, HEARD) == expected
    done = HEARD | {"type": "transcript.text.done"}
    assert TranscriptionTextDoneEvent.model_validate(done).usage is not None
    delta = {"type": "transcript.text.delta", "delta": "Grü"}
    assert read(TRANSCRIPTIONS, events(delta, done), "text/event-stream") == expected
    assert read(TRANSCRIPTIONS, events(delta), "text/event-stream") == ResponseFacts()


def test_usage_in_seconds_is_not_counted_as_tokens() -> None:
    body = {"text": "x", "duration": 9.0, "language": "en", "usage": {"type": "duration", "seconds": 9.0}}
    assert TranscriptionVerbose.model_validate(body).usage is not None
    assert read(TRANSCRIPTIONS, body).usage == Usage()


def test_speech_has_usage_only_in_events() -> None:
    done = {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}}
    audio = {"type": "speech.audio.delta", "audio": "QUJD"}
    assert read(SPEECH, events(audio, done), "text/event-stream") == ResponseFacts(usage=Usage(14, 101))
    assert read(SPEECH, b'{"usage": {"input_tokens": 1}}\n' * 9, "audio/mpeg") == ResponseFacts()


@pytest.mark.parametrize("path", [EMBEDDINGS, IMAGES, TRANSCRIPTIONS, SPEECH])
def test_error_is_read_and_other_values_never_raise(path: str) -> None:
    error = {"error": {"type": "invalid_request_error", "code": "invalid_api_key", "message": "no"}}
    assert read(path, error).error_type == "invalid_api_key"
    assert read(path, events({"type": "error"} | error), "text/event-stream").error_type == "invalid_api_key"
    values: list[Any] = [None, 1, "x", [], {"input_tokens": "1", "prompt_tokens": -1, "input_tokens_details": 3}]
    for value in values:
        assert read(path, {"model": value, "usage": value, "id": value}).usage == Usage()


@pytest.mark.parametrize(
    ("host", "path", "body", "expected"),
    [
        ("api.openai.com", EMBEDDINGS, {"model": "m"}, RequestFacts("embeddings", "openai", "m", False)),
        ("api.mistral.ai", EMBEDDINGS, {"model": "m"}, RequestFacts("embeddings", "mistral_ai", "m", False)),
        (
            "corp.openai.azure.com",
            "/openai/deployments/d/embeddings?api-version=1",
            {},
            RequestFacts("embeddings", "azure.ai.openai", "d", False),
        ),
        (
            "api.openai.com",
            IMAGES,
            {"model": "m", "stream": True},
            RequestFacts("generate_content", "openai", "m", True),
        ),
        ("api.openai.com", SPEECH, {"model": "m"}, RequestFacts("generate_content", "openai", "m")),
        ("api.openai.com", TRANSCRIPTIONS, None, RequestFacts("generate_content", "openai")),
        ("api.cohere.com", "/v2/embed", {"model": "m"}, RequestFacts("embeddings", "cohere", "m", False)),
        ("ollama.com", "/api/embed", {"model": "m"}, RequestFacts("embeddings", "ollama", "m", False)),
        (
            "generativelanguage.googleapis.com",
            "/v1beta/models/gemini-embedding-001:batchEmbedContents",
            {"requests": []},
            RequestFacts("embeddings", "gcp.gemini", "gemini-embedding-001", False),
        ),
    ],
)
def test_request(host: str, path: str, body: dict[str, Any] | None, expected: RequestFacts) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b--\r\n'
    assert read_request(host, path, form if body is None else json.dumps(body).encode()) == expected


def test_embeddings_of_cohere_equal_its_type() -> None:
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 3}}
    body = {"id": "e1", "embeddings": {"float": [[0.1]]}, "texts": ["x"], "meta": meta}
    sdk = EmbedByTypeResponse.model_validate(body)
    assert sdk.meta is not None
    assert sdk.meta.billed_units is not None
    facts = read("/v2/embed", body)
    assert facts == ResponseFacts(id=sdk.id, usage=Usage(3), billing=Billing(no_output=True, billed_input_tokens=3))
    assert facts.usage.input_tokens == sdk.meta.billed_units.input_tokens
    meta["billed_units"] = {"images": 1, "input_tokens": 3}
    assert read("/v2/embed", body).billing.incomplete


def test_embeddings_of_ollama_equal_its_type() -> None:
    body = {"model": "all-minilm", "embeddings": [[0.1]], "total_duration": 9, "prompt_eval_count": 8}
    sdk = EmbedResponse.model_validate(body)
    assert read("/api/embed", body) == ResponseFacts(model=sdk.model, usage=Usage(sdk.prompt_eval_count))
    assert read("/api/embed", {"model": "m", "prompt_eval_count": 8}) == ResponseFacts()


def test_embeddings_of_gemini_have_the_usage_of_the_response() -> None:
    body = {"embeddings": [{"values": [0.1]}], "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4}}
    assert read("/v1beta/models/m:embedContent", body) == ResponseFacts(usage=Usage(4))
    error = {"error": {"code": 400, "status": "INVALID_ARGUMENT"}}
    assert read("/v1beta/models/m:embedContent", error).error_type == "INVALID_ARGUMENT"
