"""OpenAI's Realtime API on a WebSocket (`/v1/realtime`).

Source: the API reference of the Realtime server events, and the types of the SDK `openai` 3.57 (`RealtimeServerEvent`).
One connection is one session with any number of responses. Each response ends with `response.done`, which contains its
usage. The usage of the session is the sum over all responses. `input_tokens` includes cached tokens. The model is in
the query of the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openclaw_egress.llm.message_builder import Parts
from openclaw_egress.llm.model import (
    Api,
    Billing,
    ResponseFacts,
    Usage,
    count_of,
    error_of,
    list_of,
    object_of,
    text_of,
)

_MAX_REASONS = 16
# Types of the delta events: first the current names, then the names in the beta version of the API.
_DELTAS = {
    "response.output_text.delta": "text",
    "response.output_audio_transcript.delta": "text",
    "response.function_call_arguments.delta": "tool_call",
    "response.text.delta": "text",
    "response.audio_transcript.delta": "text",
}


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the token counts of one response."""
    return Usage(
        input_tokens=count_of(usage.get("input_tokens")),
        output_tokens=count_of(usage.get("output_tokens")),
        cache_read_input_tokens=count_of(object_of(usage.get("input_token_details")).get("cached_tokens")),
    )


def _billing_of(usage: Mapping[str, Any]) -> Billing:
    given = object_of(usage.get("input_token_details"))
    return Billing(
        input_audio_tokens=count_of(given.get("audio_tokens")),
        input_image_tokens=count_of(given.get("image_tokens")),
        cache_read_audio_tokens=count_of(object_of(given.get("cached_tokens_details")).get("audio_tokens")),
        output_audio_tokens=count_of(object_of(usage.get("output_token_details")).get("audio_tokens")),
    )


def _sum(*counts: int | None) -> int | None:
    """Return the sum of the known counts; None if none is known."""
    known = [count for count in counts if count is not None]
    return count_of(sum(known)) if known else None


class _Session:
    def __init__(self) -> None:
        self._model: str | None = None
        self._id: str | None = None
        self._reasons: dict[str, None] = {}
        self._usage = Usage()
        self._billing = Billing()
        self._error: str | None = None
        self._parts = Parts()
        self._responses = 0

    def take(self, value: Mapping[str, Any]) -> None:
        kind = value.get("type")
        if kind in ("session.created", "session.updated"):
            session = object_of(value.get("session"))
            self._model = text_of(session.get("model")) or self._model
            self._id = text_of(session.get("id")) or self._id
        elif kind == "error":
            self._error = error_of(value.get("error")) or self._error
        elif kind == "response.done":
            self._done(object_of(value.get("response")))
        elif isinstance(kind, str) and (index := count_of(value.get("output_index"))) is not None:
            self._piece(kind, index, value)

    def _piece(self, kind: str, index: int, value: Mapping[str, Any]) -> None:
        """Add a piece of the response in progress. The event that ends the response replaces all pieces."""
        call, item = (self._responses, index, "call"), object_of(value.get("item"))
        part = _DELTAS.get(kind)
        if kind == "response.output_item.added" and item.get("type") == "function_call":
            self._parts.open(call, "tool_call", item.get("call_id"), item.get("name"))
        elif part == "tool_call":
            self._parts.append(call, part, value.get("delta"))
        elif part is not None:
            place = count_of(value.get("content_index")) or 0
            self._parts.append((self._responses, index, place), part, value.get("delta"))

    def _done(self, response: Mapping[str, Any]) -> None:
        usage = object_of(response.get("usage"))
        more = usage_of(usage)
        self._usage = Usage(
            input_tokens=_sum(self._usage.input_tokens, more.input_tokens),
            output_tokens=_sum(self._usage.output_tokens, more.output_tokens),
            cache_read_input_tokens=_sum(self._usage.cache_read_input_tokens, more.cache_read_input_tokens),
        )
        more_billing = _billing_of(usage)
        self._billing = Billing(
            input_audio_tokens=_sum(self._billing.input_audio_tokens, more_billing.input_audio_tokens),
            input_image_tokens=_sum(self._billing.input_image_tokens, more_billing.input_image_tokens),
            cache_read_audio_tokens=_sum(self._billing.cache_read_audio_tokens, more_billing.cache_read_audio_tokens),
            output_audio_tokens=_sum(self._billing.output_audio_tokens, more_billing.output_audio_tokens),
            several_prompts=self._responses > 0,
        )
        details = object_of(response.get("status_details"))
        self._error = error_of(details.get("error")) or self._error
        reason = text_of(details.get("reason")) or text_of(response.get("status"))
        if reason and len(self._reasons) < _MAX_REASONS:
            self._reasons[reason] = None
        number, self._responses = self._responses, self._responses + 1
        if list_of(response.get("output")):
            self._parts.drop((number,))
        for index, piece in enumerate(list_of(response.get("output"))):
            item = object_of(piece)
            if item.get("type") == "function_call":
                key = (number, index, "call")
                self._parts.open(key, "tool_call", item.get("call_id"), item.get("name"))
                self._parts.append(key, "tool_call", item.get("arguments"))
            for place, content in enumerate(map(object_of, list_of(item.get("content")))):
                self._parts.append((number, index, place), "text", content.get("text") or content.get("transcript"))

    def facts(self) -> ResponseFacts:
        parts = self._parts.under()
        return ResponseFacts(
            model=self._model,
            id=self._id,
            finish_reasons=tuple(self._reasons),
            usage=self._usage,
            billing=self._billing,
            messages=[{"role": "assistant", "parts": parts}] if parts else [],
            messages_truncated=self._parts.truncated,
            error_type=self._error,
        )


def _whole(_: Mapping[str, Any]) -> ResponseFacts:
    """Ignore a plain HTTP response, because the Realtime API sends usage and text only over a WebSocket."""
    return ResponseFacts()


API = Api(
    name="realtime",
    path=re.compile(r"/realtime/?$"),
    examples=("/v1/realtime", "/openai/realtime/"),
    members=frozenset(),
    whole=_whole,
    assembler=_Session,
    stream_default=None,
)
