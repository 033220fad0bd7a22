"""Anthropic's Messages API, plain and streamed.

Source: the API reference of `POST /v1/messages` and its page on streaming. `input_tokens` excludes tokens read from or
written to the cache. The counts in `message_delta` are cumulative and replace those in `message_start`. `output_tokens`
in `message_start` is only an initial count, so the output tokens of an aborted stream are unknown.

The counts exclude the tokens of a compaction and of an advisor, although both are billed. Only `iterations` has these
counts (`BetaUsage` in the SDK), so the reader adds them. A compaction uses the model of the request. An advisor
uses a different model, so the cost of the response is then unknown.
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
from openclaw_egress.llm.stated_cost import MEMBERS as COST_MEMBERS
from openclaw_egress.llm.stated_cost import stated_cost

_EXCLUDED = ("compaction", "advisor_message")
_USAGE_MEMBERS = COST_MEMBERS | {
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation",
    "output_tokens_details", "iterations", "service_tier", "speed", "inference_geo", "server_tool_use",
}  # fmt: skip
"""Members of the usage object to keep. Ignore others, because a server can send any number of them."""


def _iterations(usage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [object_of(item) for item in list_of(usage.get("iterations"))]


def _with_excluded(usage: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a usage object whose counts include compactions and advisors, which the API's own counts exclude."""
    excluded = [item for item in _iterations(usage) if item.get("type") in _EXCLUDED]
    if not excluded:
        return usage
    total = dict(usage)
    for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
        more = sum(count_of(item.get(name)) or 0 for item in excluded)
        if more and (count_of(usage.get(name)) is not None or name.startswith("cache_")):
            total[name] = (count_of(usage.get(name)) or 0) + more
    return total


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the token counts. The total input is the sum of uncached tokens, cache reads and cache writes."""
    usage = _with_excluded(usage)
    uncached = count_of(usage.get("input_tokens"))
    read = count_of(usage.get("cache_read_input_tokens"))
    written = count_of(usage.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=None if uncached is None else count_of(uncached + (read or 0) + (written or 0)),
        output_tokens=count_of(usage.get("output_tokens")),
        cache_read_input_tokens=read,
        cache_write_input_tokens=written,
        reasoning_output_tokens=count_of(object_of(usage.get("output_tokens_details")).get("thinking_tokens")),
    )


def billing_of(usage: Mapping[str, Any]) -> Billing:
    """Return the values that the price depends on, except for the run time of containers."""
    iterations = _iterations(usage)
    kinds = [item.get("type") for item in iterations]
    compactions = [item for item in iterations if item.get("type") == "compaction"]
    return Billing(
        stated_cost=stated_cost(usage),  # OpenRouter reports it.
        speed=text_of(usage.get("speed"), 64),
        region=text_of(usage.get("inference_geo"), 64),
        several_prompts=len(kinds) > 1,
        incomplete=any(kind not in ("message", "compaction") for kind in kinds),
        service_tier=text_of(usage.get("service_tier"), 64),
        cache_write_5m_tokens=_written("ephemeral_5m_input_tokens", usage, *compactions),
        cache_write_1h_tokens=_written("ephemeral_1h_input_tokens", usage, *compactions),
        web_searches=count_of(object_of(usage.get("server_tool_use")).get("web_search_requests")),
        web_fetches=count_of(object_of(usage.get("server_tool_use")).get("web_fetch_requests")),
    )


def _written(name: str, *usages: Mapping[str, Any]) -> int | None:
    """Return the sum of the counts ``cache_creation.<name>`` in the usage objects; None if no object has this count."""
    counts = [count_of(object_of(usage.get("cache_creation")).get(name)) for usage in usages]
    known = [count for count in counts if count is not None]
    return count_of(sum(known)) if known else None


def _priced(billing: Billing, container: object) -> Billing:
    """Mark the billing values as incomplete if code ran in a container: its run time is billed, but not reported."""
    return replace(billing, incomplete=True) if container else billing


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    stop = text_of(value.get("stop_reason"))
    return ResponseFacts(
        model=text_of(value.get("model")),
        id=text_of(value.get("id")),
        finish_reasons=(stop,) if stop else (),
        usage=usage_of(object_of(value.get("usage"))),
        billing=_priced(billing_of(object_of(value.get("usage"))), value.get("container")),
        error_type=error_of(value.get("error")),
    )


_KINDS = {"thinking": "reasoning", "tool_use": "tool_call", "server_tool_use": "tool_call", "mcp_tool_use": "tool_call"}
_DELTAS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("reasoning", "thinking"),
    "input_json_delta": ("tool_call", "partial_json"),
}


def _known_in(usage: object) -> dict[str, Any]:
    """Return those members of `usage` that are in `_USAGE_MEMBERS` and not null."""
    found = object_of(usage)
    return {name: found[name] for name in _USAGE_MEMBERS if found.get(name) is not None}


class _Assembler:
    def __init__(self) -> None:
        self._message: Mapping[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._stop: str | None = None
        self._container: object = None
        self._error: str | None = None
        self._parts = Parts()

    def take(self, value: Mapping[str, Any]) -> None:
        match value.get("type"):
            case "message_start":
                message = object_of(value.get("message"))
                self._message = {name: message.get(name) for name in ("id", "model", "role")}
                self._usage = _known_in(message.get("usage"))
                self._container = message.get("container")
                for name in ("output_tokens", "output_tokens_details"):
                    self._usage.pop(name, None)
                # Read content blocks in `message_start` too: the format permits them, although most streams have none.
                for place, block in enumerate(list_of(message.get("content"))):
                    self._block(place, object_of(block))
            case "content_block_start":
                self._block(value.get("index"), object_of(value.get("content_block")))
            case "content_block_delta":
                delta = object_of(value.get("delta"))
                kind, member = _DELTAS.get(str(delta.get("type")), ("", ""))
                index = count_of(value.get("index"))
                if kind and index is not None:
                    self._parts.append((index,), kind, delta.get(member))
            case "message_delta":
                delta = object_of(value.get("delta"))
                self._stop = text_of(delta.get("stop_reason")) or self._stop
                self._container = delta.get("container") or self._container
                self._usage |= _known_in(value.get("usage"))
            case "error":
                self._error = error_of(value.get("error") or {})

    def _block(self, index: object, block: Mapping[str, Any]) -> None:
        number, kind = count_of(index), text_of(block.get("type"), 64)
        if number is None or kind is None:
            return
        part = _KINDS.get(kind, kind)
        self._parts.open((number,), part, block.get("id"), block.get("name"))
        for member in ("text", "thinking"):
            self._parts.append((number,), part, block.get(member))

    def facts(self) -> ResponseFacts:
        known = ResponseFacts(
            model=text_of(self._message.get("model")),
            id=text_of(self._message.get("id")),
            finish_reasons=(self._stop,) if self._stop else (),
            usage=usage_of(self._usage),
            billing=_priced(billing_of(self._usage), self._container),
        )
        return self._parts.completed(known, self._error, role=text_of(self._message.get("role")) or "assistant")


API = Api(
    name="messages",
    path=re.compile(r"/v1/messages/?$"),
    examples=("/v1/messages", "/anthropic/v1/messages/"),
    members=frozenset({"model", "id", "stop_reason", "usage", "container", "error"}),
    whole=_whole,
    assembler=_Assembler,
    stream_default=False,
    hosts={"anthropic.com": "anthropic"},
    other_paths=re.compile(
        r"/complete/?$|/messages/batches/?$"
        r"|/messages/batches/[A-Za-z0-9_\-]{1,128}(?:/[A-Za-z0-9_\-/]*)?$"
    ),
)
