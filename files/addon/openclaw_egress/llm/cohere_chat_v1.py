"""Cohere's Chat API, version 1, plain and as JSON lines, and Writer's Chat API, which has the same path.

Source: https://docs.cohere.com/v1/reference/chat and
https://dev.writer.com/api-reference/completion-api/chat-completion. The last line of Cohere's stream contains the whole
response. A response does not contain the model's name. An error has only a message, so its error type is the HTTP
status. Writer uses the format of Chat Completions.

Other servers use the path too. Therefore the reader treats an object as Cohere's only if it has `event_type`, or `text`
and an id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclaw_egress.llm import cohere_chat, openai_chat
from openclaw_egress.llm.message_builder import Parts
from openclaw_egress.llm.model import Api, Assembler, ResponseFacts, list_of, object_of, text_of

_MEMBERS = frozenset({"response_id", "generation_id", "text", "finish_reason", "meta"})


def _cohere(value: Mapping[str, Any]) -> ResponseFacts:
    identity = text_of(value.get("response_id")) or text_of(value.get("generation_id"))
    if identity is None or not isinstance(value.get("text"), str):
        return ResponseFacts()
    reason = text_of(value.get("finish_reason"))
    return ResponseFacts(
        id=identity,
        finish_reasons=(reason,) if reason else (),
        usage=cohere_chat.usage_of(object_of(value.get("meta"))),
        billing=cohere_chat.billing_of(object_of(value.get("meta"))),
    )


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    return openai_chat.API.whole(value) if isinstance(value.get("choices"), list) else _cohere(value)


class _Cohere:
    def __init__(self) -> None:
        self._id: str | None = None
        self._reason: str | None = None
        self._response: Mapping[str, Any] = {}
        self._parts = Parts()

    def take(self, value: Mapping[str, Any]) -> None:
        match value.get("event_type"):
            case "stream-start":
                self._id = text_of(value.get("generation_id")) or self._id
            case "text-generation":
                self._parts.append(("text",), "text", value.get("text"))
            case "tool-calls-generation":
                for index, item in enumerate(list_of(value.get("tool_calls"))):
                    call = object_of(item)
                    self._parts.call(("call", index), None, call.get("name"), call.get("parameters"))
            case "stream-end":
                self._reason = text_of(value.get("finish_reason")) or self._reason
                response = object_of(value.get("response"))
                self._response = {name: response[name] for name in _MEMBERS if name in response}

    def facts(self) -> ResponseFacts:
        end = _cohere(self._response)
        reasons = end.finish_reasons or ((self._reason,) if self._reason else ())
        return self._parts.completed(replace(end, id=end.id or self._id, finish_reasons=reasons), None)


class _Assembler:
    """Assembler of a stream; the first object shows whether the format is Cohere's or Writer's."""

    def __init__(self) -> None:
        self._inner: Assembler | None = None

    def take(self, value: Mapping[str, Any]) -> None:
        if self._inner is None:
            if isinstance(value.get("choices"), list):
                self._inner = openai_chat.API.assembler()
            elif isinstance(value.get("event_type"), str):
                self._inner = _Cohere()
        if self._inner is not None:
            self._inner.take(value)

    def facts(self) -> ResponseFacts:
        return self._inner.facts() if self._inner is not None else ResponseFacts()


API = Api(
    name="cohere-chat-v1",
    path=re.compile(r"/v1/chat/?$"),
    examples=("/v1/chat",),
    members=_MEMBERS | openai_chat.API.members,
    whole=_whole,
    assembler=_Assembler,
    stream_default=False,
    certain_at=frozenset({"cohere", "writer"}),
)
