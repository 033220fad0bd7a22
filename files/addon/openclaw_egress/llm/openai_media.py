"""OpenAI's Embeddings, Images and Audio APIs, and compatible APIs.

Source: the API reference of `POST /v1/embeddings`, `/v1/images/…` and `/v1/audio/…`, and the types of the package
`openai`. Only responses with embeddings name their model. A request with a file is a form, which is not parsed, so its
model is unknown. Usage in seconds of audio is not read. Responses in a binary format have no usage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclaw_egress.llm.model import (
    Api,
    Billing,
    ResponseFacts,
    Usage,
    count_of,
    error_in,
    first_count,
    object_of,
    text_of,
)
from openclaw_egress.llm.stated_cost import stated_cost


def _embedded(value: Mapping[str, Any]) -> ResponseFacts:
    usage = object_of(value.get("usage"))
    return ResponseFacts(
        model=text_of(value.get("model")),
        id=text_of(value.get("id")),  # Only Mistral sends an ID.
        # Read the total, because Voyage AI reports nothing else. It equals the input: embeddings have no output tokens.
        usage=Usage(input_tokens=first_count(usage.get("prompt_tokens"), usage.get("total_tokens"))),
        billing=Billing(stated_cost=stated_cost(usage), no_output=True),
        error_type=error_in(value),
    )


def _made(value: Mapping[str, Any]) -> ResponseFacts:
    """Return usage and errors of a response with images, audio or a transcript, or of the last event of a stream."""
    usage = object_of(value.get("usage"))
    given = object_of(usage.get("input_tokens_details")) or object_of(usage.get("input_token_details"))
    made = object_of(usage.get("output_tokens_details"))
    output = count_of(usage.get("output_tokens"))
    billing = Billing(
        input_audio_tokens=count_of(given.get("audio_tokens")),
        input_image_tokens=count_of(given.get("image_tokens")),
        output_image_tokens=count_of(made.get("image_tokens")),
    )
    if value.get("type") in ("image_generation.completed", "image_edit.completed"):
        # In these events, all output tokens are image tokens.
        billing = replace(billing, output_image_tokens=output)
    elif value.get("type") != "speech.audio.done":
        # The price of text differs from that of images and audio, so the cost is unknown if one count includes both.
        reported = given and (made or "text" in value) and "svg_usage" not in value
        billing = replace(billing, incomplete=not reported)
    return ResponseFacts(
        usage=Usage(
            input_tokens=count_of(usage.get("input_tokens")),
            output_tokens=output,
            cache_read_input_tokens=count_of(given.get("cached_tokens")),
        ),
        billing=billing,
        error_type=error_in(value),
    )


class _Assembler:
    """Reader of the usage in a stream's last event. It assembles no message: the recorded body has all events."""

    def __init__(self) -> None:
        self._last = ResponseFacts()

    def take(self, value: Mapping[str, Any]) -> None:
        if "usage" in value or value.get("error") is not None:
            self._last = _made(value)

    def facts(self) -> ResponseFacts:
        return self._last


EMBEDDINGS = Api(
    name="embeddings",
    path=re.compile(r"/embeddings/?$"),
    examples=("/v1/embeddings", "/openai/deployments/my-embedder/embeddings"),
    members=frozenset({"model", "id", "usage", "error", "message", "type", "code"}),
    only_members=True,
    whole=_embedded,
    assembler=_Assembler,
    stream_default=False,
    model_in_path=re.compile(r"/deployments/([^/]{1,128})/"),
    operation="embeddings",
)
IMAGES = replace(
    EMBEDDINGS,
    name="images",
    path=re.compile(r"/images/(?:generations|edits|variations)/?$"),
    examples=("/v1/images/generations", "/v1/images/edits"),
    members=frozenset({"usage", "svg_usage", "error"}),
    whole=_made,
    # The semantic conventions define no operation for images or audio, so use the general one.
    operation="generate_content",
)
AUDIO = replace(
    IMAGES,
    name="audio",
    path=re.compile(r"/audio/(?:speech|transcriptions|translations)/?$"),
    examples=("/v1/audio/speech", "/v1/audio/transcriptions"),
    members=frozenset({"text", "usage", "error", "message", "type", "code"}),
    # The body does not show whether the response is streamed: transcriptions send `stream` as a form field, and speech
    # uses `stream_format` instead.
    stream_default=None,
)
