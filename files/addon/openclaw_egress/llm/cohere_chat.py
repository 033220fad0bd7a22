"""Cohere's Chat API, version 2, plain and streamed, and its Embed API.

Source: https://docs.cohere.com/reference/chat, https://docs.cohere.com/reference/embed,
https://docs.cohere.com/v2/docs/streaming, and the types of the package `cohere`. `usage.tokens` has the model's token
counts; `usage.billed_units` has the billed counts, on which the price depends. The reference does not say whether the
input includes `usage.cached_tokens`; in actual responses it does. A response does not contain the model's name. An
error response has only a message, so its error type is the HTTP status. A stream reports an error as text in
`delta.error`. Embeddings have only billed counts, for text and for images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclaw_egress.llm.message_builder import Parts
from openclaw_egress.llm.model import (
    OTHER_ERROR,
    Api,
    Billing,
    ResponseFacts,
    Usage,
    count_of,
    first_count,
    object_of,
    text_of,
)

_OTHER_UNITS = ("search_units", "classifications", "images", "image_tokens")
"""Billed units that have a separate price."""


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the token counts in the usage object."""
    tokens = object_of(usage.get("tokens"))
    given, cached = count_of(tokens.get("input_tokens")), count_of(usage.get("cached_tokens"))
    return Usage(
        input_tokens=given,
        output_tokens=count_of(tokens.get("output_tokens")),
        cache_read_input_tokens=cached if given is not None and cached is not None and cached <= given else None,
    )


def billing_of(usage: Mapping[str, Any]) -> Billing:
    """Return the values that the price depends on. Without the billed counts the price is unknown."""
    units = object_of(usage.get("billed_units"))
    given, made = count_of(units.get("input_tokens")), count_of(units.get("output_tokens"))
    return Billing(
        billed_input_tokens=given,
        billed_output_tokens=made,
        incomplete=given is None or made is None or any(units.get(kind) for kind in _OTHER_UNITS),
    )


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    reason = text_of(value.get("finish_reason"))
    return ResponseFacts(
        id=text_of(value.get("id")),
        finish_reasons=(reason,) if reason else (),
        usage=usage_of(object_of(value.get("usage"))),
        billing=billing_of(object_of(value.get("usage"))),
    )


class _Assembler:
    def __init__(self) -> None:
        self._id: str | None = None
        self._reason: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._error: str | None = None
        self._parts = Parts()

    def take(self, value: Mapping[str, Any]) -> None:
        delta = object_of(value.get("delta"))
        message = object_of(delta.get("message"))
        index = count_of(value.get("index"))
        match value.get("type"):
            case "message-start":
                self._id = text_of(value.get("id")) or self._id
            case "tool-plan-delta":
                self._parts.append(("plan",), "reasoning", message.get("tool_plan"))
            case "content-start" | "content-delta" if index is not None:
                content = object_of(message.get("content"))
                self._parts.append(("content", index, "thinking"), "reasoning", content.get("thinking"))
                self._parts.append(("content", index, "text"), "text", content.get("text"))
            case "tool-call-start" | "tool-call-delta" if index is not None:
                call = object_of(message.get("tool_calls"))
                function = object_of(call.get("function"))
                self._parts.open(("call", index), "tool_call", call.get("id"), function.get("name"))
                self._parts.append(("call", index), "tool_call", function.get("arguments"))
            case "message-end":
                self._reason = text_of(delta.get("finish_reason")) or self._reason
                self._usage = object_of(delta.get("usage")) or self._usage
                if delta.get("error"):
                    self._error = OTHER_ERROR

    def facts(self) -> ResponseFacts:
        reasons = (self._reason,) if self._reason else ()
        known = ResponseFacts(
            id=self._id, finish_reasons=reasons, usage=usage_of(self._usage), billing=billing_of(self._usage)
        )
        return self._parts.completed(known, self._error)


API = Api(
    name="cohere-chat",
    path=re.compile(r"/v2/chat/?$"),
    examples=("/v2/chat", "/v2/chat/"),
    members=frozenset({"id", "finish_reason", "usage"}),
    whole=_whole,
    assembler=_Assembler,
    stream_default=False,
    hosts={"cohere.com": "cohere", "cohere.ai": "cohere"},
)


def _embedded(value: Mapping[str, Any]) -> ResponseFacts:
    meta = object_of(value.get("meta"))
    units = object_of(meta.get("billed_units"))
    tokens = first_count(object_of(meta.get("tokens")).get("input_tokens"), units.get("input_tokens"))
    # Billed images make the cost incomplete, because the price of images differs from that of text.
    billed = count_of(units.get("input_tokens"))
    incomplete = billed is None or any(units.get(kind) for kind in _OTHER_UNITS)
    billing = Billing(no_output=True, billed_input_tokens=billed, incomplete=incomplete)
    return ResponseFacts(id=text_of(value.get("id")), usage=Usage(input_tokens=tokens), billing=billing)


EMBED = replace(
    API,
    name="cohere-embed",
    path=re.compile(r"/v[12]/embed/?$"),
    examples=("/v2/embed", "/v1/embed"),
    members=frozenset({"id", "meta"}),
    only_members=True,
    whole=_embedded,
    operation="embeddings",
    hosts={},
    certain_at=frozenset({"cohere"}),
)
