"""Ollama's `/api/chat`, `/api/generate` and `/api/embed`, plain and as JSON lines.

Source: https://docs.ollama.com/api, its pages on streaming and errors, and `api/types.go` of ollama/ollama. A response
is a stream unless the request says `"stream": false`. `prompt_eval_count` includes `prompt_eval_cached_count`; thinking
has no separate count. Ollama omits a count of 0, and older versions also omit the count of a cached prompt. The counts
are in the last object, in which `done` is true. An error has only a message, so its error type is the HTTP status.

Other servers use these paths too. Therefore the reader accepts an object only if it has `model` and `done`, like every
response of Ollama. Embeddings have `total_duration` instead of `done`.
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
    ResponseFacts,
    Usage,
    count_of,
    list_of,
    object_of,
    text_of,
)


def _is_response(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("model"), str) and isinstance(value.get("done"), bool)


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    if not _is_response(value):
        return ResponseFacts()
    if value["done"] is not True:
        return ResponseFacts(model=text_of(value["model"]))
    reason = text_of(value.get("done_reason"))
    return ResponseFacts(
        model=text_of(value["model"]),
        finish_reasons=(reason,) if reason else (),
        usage=Usage(
            input_tokens=count_of(value.get("prompt_eval_count")),
            output_tokens=count_of(value.get("eval_count")),
            cache_read_input_tokens=count_of(value.get("prompt_eval_cached_count")),
        ),
    )


class _Assembler:
    def __init__(self) -> None:
        self._last = ResponseFacts()
        self._error: str | None = None
        self._parts = Parts()
        self._calls = 0

    def take(self, value: Mapping[str, Any]) -> None:
        if value.get("error"):
            self._error = OTHER_ERROR
        if not _is_response(value):
            return
        self._last = _whole(value)
        # In `/api/generate`, the members of the message are at the top level, and the content is named `response`.
        message = object_of(value.get("message")) or value
        self._parts.append(("thinking",), "reasoning", message.get("thinking"))
        self._parts.append(("text",), "text", message.get("content") or message.get("response"))
        for item in list_of(message.get("tool_calls")):
            call = object_of(item)
            function = object_of(call.get("function"))
            self._parts.call(("call", self._calls), call.get("id"), function.get("name"), function.get("arguments"))
            self._calls += 1

    def facts(self) -> ResponseFacts:
        return self._parts.completed(self._last, self._error)


CHAT = Api(
    name="ollama-chat",
    path=re.compile(r"/api/chat/?$"),
    examples=("/api/chat", "/ollama/api/chat"),
    members=frozenset({"model", "done", "done_reason", "prompt_eval_count", "prompt_eval_cached_count", "eval_count"}),
    whole=_whole,
    assembler=_Assembler,
    stream_default=True,
    hosts={"ollama.com": "ollama"},
    certain_at=frozenset({"ollama"}),
)
GENERATE = replace(
    CHAT,
    name="ollama-generate",
    path=re.compile(r"/api/generate/?$"),
    examples=("/api/generate",),
    operation="text_completion",
    hosts={},
)


def _embedded(value: Mapping[str, Any]) -> ResponseFacts:
    if not isinstance(value.get("model"), str) or "total_duration" not in value:
        return ResponseFacts()
    usage = Usage(input_tokens=count_of(value.get("prompt_eval_count")))
    return ResponseFacts(model=text_of(value["model"]), usage=usage)


EMBED = replace(
    GENERATE,
    name="ollama-embed",
    path=re.compile(r"/api/embed/?$"),
    examples=("/api/embed",),
    members=frozenset({"model", "total_duration", "prompt_eval_count"}),
    only_members=True,
    whole=_embedded,
    stream_default=False,
    operation="embeddings",
)
