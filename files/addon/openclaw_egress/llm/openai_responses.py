"""OpenAI's Responses API, plain and streamed.

Source: the API reference of `POST /v1/responses`. `input_tokens` includes cached tokens. A stream ends with
`response.completed`, `.incomplete` or `.failed`, which contain the whole response and its usage; an aborted stream has
no usage. The finish reason is the reason for an incomplete response, or else its status.

With `background`, the response to the request is `queued`. `GET /v1/responses/ID`, plain or as the rest of the stream,
and `POST /v1/responses/ID/cancel` return the result later, any number of times. `GET` also returns responses without
`background`, whose usage was already in the response to the first request. The reader therefore returns usage on these
paths only if a response has `"background": true` and has ended. The caller must count this usage once
(`ResponseFacts.background`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
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
from openclaw_egress.llm.stated_cost import stated_cost

_MEMBERS = frozenset(
    {"object", "model", "id", "status", "background", "incomplete_details", "usage", "service_tier", "error"}
)
_FINAL = ("completed", "incomplete", "failed", "cancelled")
_ENDS = ("response.completed", "response.incomplete", "response.failed")
_DELTAS = {
    "response.output_text.delta": ("text", "content_index"),
    "response.refusal.delta": ("refusal", "content_index"),
    "response.reasoning_text.delta": ("reasoning", "content_index"),
    "response.reasoning_summary_text.delta": ("reasoning", "summary_index"),
}
_PRICED_BY_TOKENS = frozenset(
    """message reasoning function_call custom_tool_call computer_call local_shell_call apply_patch_call mcp_list_tools
    mcp_call mcp_approval_request""".split()  # noqa: SIM905
)
"""Output items that are billed only by tokens. Calls of hosted tools have an additional price."""
_ARGUMENTS = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta")


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the token counts in the usage object."""
    input_details = object_of(usage.get("input_tokens_details"))
    return Usage(
        input_tokens=count_of(usage.get("input_tokens")),
        output_tokens=count_of(usage.get("output_tokens")),
        cache_read_input_tokens=count_of(input_details.get("cached_tokens")),
        cache_write_input_tokens=count_of(input_details.get("cache_write_tokens")),
        reasoning_output_tokens=count_of(object_of(usage.get("output_tokens_details")).get("reasoning_tokens")),
    )


def billing_of(usage: Mapping[str, Any], service_tier: object) -> Billing:
    """Return the values that the price depends on, except for hosted tools, whose calls the usage does not count."""
    return Billing(
        stated_cost=stated_cost(usage),
        service_tier=text_of(service_tier, 64),
        input_audio_tokens=count_of(object_of(usage.get("input_tokens_details")).get("audio_tokens")),
        output_audio_tokens=count_of(object_of(usage.get("output_tokens_details")).get("audio_tokens")),
    )


def _kinds_in(output: object) -> set[str | None]:
    """Return the types of the output items."""
    return {text_of(object_of(item).get("type"), 64) for item in list_of(output)}


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    # A body that is too large to parse has no `output`, so it is unknown which tools the model used.
    known = isinstance(value.get("output"), list) and _kinds_in(value["output"]) <= _PRICED_BY_TOKENS
    return _facts(value, incomplete=not known)


def _facts(value: Mapping[str, Any], *, incomplete: bool) -> ResponseFacts:
    status = text_of(value.get("status"))
    if status not in _FINAL:
        # Set no finish reason for a response that is queued or in progress.
        status = None
    reason = text_of(object_of(value.get("incomplete_details")).get("reason")) or status
    return ResponseFacts(
        model=text_of(value.get("model")),
        id=text_of(value.get("id")),
        finish_reasons=(reason,) if reason else (),
        usage=usage_of(object_of(value.get("usage"))),
        billing=replace(billing_of(object_of(value.get("usage")), value.get("service_tier")), incomplete=incomplete),
        error_type=error_of(value.get("error")),
        background=value.get("background") is True,
    )


def _counted_here(value: Mapping[str, Any], facts: ResponseFacts) -> ResponseFacts:
    """Remove usage and billing from ``facts``, unless the response ran in the background and has ended."""
    if facts.background and value.get("status") in _FINAL:
        return facts
    return replace(facts, usage=Usage(), billing=Billing())


def _retrieved(value: Mapping[str, Any]) -> ResponseFacts:
    if value.get("object") != "response":
        return ResponseFacts(error_type=error_of(value.get("error")))
    return _counted_here(value, _whole(value))


class _Assembler:
    def __init__(self, *, resumed: bool = False) -> None:
        # A resumed stream lacks earlier items, so the items in its last event replace the received ones.
        self._resumed = resumed
        self._response: Mapping[str, Any] = {}
        self._error: str | None = None
        self._kinds: set[str | None] = set()
        self._parts = Parts()

    def take(self, value: Mapping[str, Any]) -> None:
        kind = value.get("type")
        if not isinstance(kind, str):
            self._error = error_of(value.get("error")) or self._error
            return
        index = count_of(value.get("output_index"))
        response = object_of(value.get("response"))
        if response:
            self._response = {name: response[name] for name in _MEMBERS if name in response}
        if kind == "error":
            self._error = error_of({"code": value.get("code"), **object_of(value.get("error"))})
        elif kind in _ENDS:
            self._kinds |= _kinds_in(response.get("output"))
            # Read the items in the last event, because some compatible APIs send no events for items.
            if self._resumed or not self._parts.heads():
                for number, item in enumerate(list_of(response.get("output"))):
                    self._item(number, object_of(item))
        elif index is None:
            return
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self._item(index, object_of(value.get("item")))
        elif kind in _ARGUMENTS:
            self._parts.append((index, "call"), "tool_call", value.get("delta"))
        elif kind in _DELTAS:
            part, place = _DELTAS[kind]
            self._parts.append((index, part, count_of(value.get(place)) or 0), part, value.get("delta"))

    def _item(self, index: int, item: Mapping[str, Any]) -> None:
        """Store an output item.

        The server sends an item when it starts (empty) and when it ends (complete). The complete item replaces the text
        from the deltas.
        """
        kind = text_of(item.get("type"), 64)
        if kind is None:
            return
        if len(self._kinds) <= len(_PRICED_BY_TOKENS):
            self._kinds.add(kind)
        self._parts.drop((index,))
        if kind == "message":
            for place, piece in enumerate(list_of(item.get("content"))):
                content = object_of(piece)
                part = "refusal" if content.get("type") == "refusal" else "text"
                self._parts.append((index, part, place), part, content.get("refusal") or content.get("text"))
        elif kind == "reasoning":
            for member in ("summary", "content"):
                for place, piece in enumerate(list_of(item.get(member))):
                    key = (index, "reasoning", place) if member == "summary" else (index, "reasoning", "raw", place)
                    self._parts.append(key, "reasoning", object_of(piece).get("text"))
        elif kind in ("function_call", "custom_tool_call"):
            self._parts.open((index, "call"), "tool_call", item.get("call_id"), item.get("name"))
            self._parts.append((index, "call"), "tool_call", item.get("arguments") or item.get("input"))
        else:
            self._parts.open((index, kind), kind)

    def facts(self) -> ResponseFacts:
        heads = sorted(head for head in self._parts.heads() if isinstance(head, int))
        parts = [part for head in heads for part in self._parts.under((head,))]
        facts = _facts(self._response, incomplete=not self._kinds <= _PRICED_BY_TOKENS)
        if self._resumed:
            facts = _counted_here(self._response, facts)
        return self._parts.completed(facts, self._error, parts=parts)


API = Api(
    name="responses",
    path=re.compile(r"/responses/?$"),
    examples=("/v1/responses", "/openai/responses/"),
    members=_MEMBERS,
    whole=_whole,
    assembler=_Assembler,
    stream_default=False,
    model_in_path=re.compile(r"/deployments/([^/]{1,128})/"),  # Azure OpenAI has the model in the path.
    other_paths=re.compile(
        r"/(?:responses|conversations|threads)/[A-Za-z0-9_\-]{1,128}(?:/[A-Za-z0-9_\-/]*)?$"
        r"|/v[12]/(?:conversations|threads|responses/compact)/?$"
    ),
)
RETRIEVED = replace(
    API,
    name="responses-retrieved",
    path=re.compile(r"/responses/(?!(?:compact|input_tokens)/?$)[A-Za-z0-9_\-]{1,128}(?:/cancel)?/?$"),
    examples=("/v1/responses/resp_1", "/openai/v1/responses/resp_1/", "/v1/responses/resp_1/cancel"),
    whole=_retrieved,
    assembler=lambda: _Assembler(resumed=True),
    stream_default=None,
    model_in_path=None,
    operation=None,
    other_paths=None,
)
_ID = re.compile(r"/responses/([A-Za-z0-9_\-]{1,128})(?:/cancel)?/?$")


def retrieved_id(path: str) -> str | None:
    """Return the response ID in the path of a request that retrieves or cancels a response; None for another path."""
    found = _ID.search(path) if RETRIEVED.path.search(path) else None
    return found[1] if found is not None else None
