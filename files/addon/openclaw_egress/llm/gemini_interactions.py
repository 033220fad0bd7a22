"""Google's Interactions API, as a part of the Gemini API and of Vertex AI, plain and streamed.

Source: https://ai.google.dev/api/interactions-api and the types of the package `google-genai`. `total_tokens` is the
sum of four counts: `total_input_tokens`, which includes `total_cached_tokens`; `total_tool_use_tokens`, which is input
too; `total_output_tokens`; and `total_thought_tokens`. The last event of a stream has the usage. Google does not
document how to add up the counts of earlier events, so an aborted stream has no usage. The finish reason is the status
of the interaction.

Other servers may use the path, because it is short. A missing model does not reveal such a server, because a request to
one of Google's agents names no model either. Therefore the reader accepts an object only if it is an interaction, one
of its events, or an error. Google does not document how the stored history of `previous_interaction_id` is billed, so
the cost of such a call is unknown.
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

_MEMBERS = frozenset(
    {"object", "model", "id", "status", "usage", "service_tier", "previous_interaction_id", "agent", "error"}
)
_KINDS = {"thought": "reasoning", "function_call": "tool_call", "mcp_server_tool_call": "tool_call"}


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the token counts in the usage object."""
    prompt, tools = count_of(usage.get("total_input_tokens")), count_of(usage.get("total_tool_use_tokens"))
    output, thoughts = count_of(usage.get("total_output_tokens")), count_of(usage.get("total_thought_tokens"))
    return Usage(
        input_tokens=None if prompt is None else count_of(prompt + (tools or 0)),
        output_tokens=output if thoughts is None else count_of((output or 0) + thoughts),
        cache_read_input_tokens=count_of(usage.get("total_cached_tokens")),
        reasoning_output_tokens=thoughts,
    )


def _billing_of(value: Mapping[str, Any]) -> Billing:
    usage = object_of(value.get("usage"))
    return Billing(
        service_tier=text_of(value.get("service_tier"), 64),
        input_audio_tokens=_tokens_of("audio", usage, "input_tokens_by_modality", "tool_use_tokens_by_modality"),
        output_audio_tokens=_tokens_of("audio", usage, "output_tokens_by_modality"),
        cache_read_audio_tokens=_tokens_of("audio", usage, "cached_tokens_by_modality"),
        output_image_tokens=_tokens_of("image", usage, "output_tokens_by_modality"),
        # Three cases make the cost unknown: Google does not document how it bills a stored history, a call to an agent
        # names no model, and searches have a separate price.
        incomplete=bool(
            value.get("previous_interaction_id") or value.get("agent") or usage.get("grounding_tool_count")
        ),
    )


def _tokens_of(modality: str, usage: Mapping[str, Any], *members: str) -> int | None:
    """Return the sum of the token counts of one modality in these members; None if there is no count."""
    found = [object_of(item) for name in members for item in list_of(usage.get(name))]
    counts = [count_of(item.get("tokens")) for item in found if item.get("modality") == modality]
    known = [count for count in counts if count is not None]
    return count_of(sum(known)) if known else None


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    error = error_of(value.get("error"))
    if value.get("object") != "interaction":
        return ResponseFacts(error_type=error)
    status = text_of(value.get("status"))
    return ResponseFacts(
        model=text_of(value.get("model")),
        id=text_of(value.get("id")),
        # Set no finish reason while an interaction still runs in the background.
        finish_reasons=(status,) if status and status != "in_progress" else (),
        usage=usage_of(object_of(value.get("usage"))),
        billing=_billing_of(value),
        error_type=error,
    )


class _Assembler:
    def __init__(self) -> None:
        self._interaction: Mapping[str, Any] = {}
        self._error: str | None = None
        self._parts = Parts()

    def take(self, value: Mapping[str, Any]) -> None:
        self._error = error_of(value.get("error")) or self._error
        interaction = object_of(value.get("interaction"))
        if interaction:
            self._interaction = {name: interaction[name] for name in _MEMBERS if name in interaction}
        index = count_of(value.get("index"))
        if index is None:
            return
        match value.get("event_type"):
            case "step.start":
                self._start(index, object_of(value.get("step")))
            case "step.delta":
                self._delta(index, object_of(value.get("delta")))

    def _start(self, index: int, step: Mapping[str, Any]) -> None:
        """Open the part for a new step, except for messages and thoughts: their parts open with their first text."""
        kind = text_of(step.get("type"), 64)
        if kind is None or kind == "thought":
            return
        if kind == "model_output":
            for piece in list_of(step.get("content")):
                self._parts.append((index, "text"), "text", object_of(piece).get("text"))
            return
        part = _KINDS.get(kind, kind)
        self._parts.open((index, part), part, step.get("id"), step.get("name"))
        if part == "tool_call":
            self._parts.call((index, part), None, None, step.get("arguments"))

    def _delta(self, index: int, delta: Mapping[str, Any]) -> None:
        match delta.get("type"):
            case "text":
                self._parts.append((index, "text"), "text", delta.get("text"))
            case "thought_summary":
                self._parts.append((index, "reasoning"), "reasoning", object_of(delta.get("content")).get("text"))
            case "arguments_delta":
                self._parts.append((index, "tool_call"), "tool_call", delta.get("arguments"))
            case "image" | "audio" | "document" | "video" as medium:
                self._parts.open((index, medium), medium)

    def facts(self) -> ResponseFacts:
        return self._parts.completed(_whole(self._interaction), self._error)


API = Api(
    name="interactions",
    path=re.compile(r"/v1(?:alpha|beta1?)?/(?:projects/[^/]{1,128}/locations/[^/]{1,64}/)?interactions/?$"),
    examples=("/v1beta/interactions", "/v1beta1/projects/p/locations/global/interactions"),
    members=_MEMBERS,
    whole=_whole,
    assembler=_Assembler,
    stream_default=False,
    operation="generate_content",
    certain_at=frozenset({"gcp.gemini", "gcp.vertex_ai"}),
)
