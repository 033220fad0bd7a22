"""Google's `generateContent`, `streamGenerateContent` and `embedContent`: Gemini API, Vertex AI and Cloud Code Assist.

Source: https://ai.google.dev/api/generate-content, the types of the package `google-genai`, and for Cloud Code Assist
`packages/core/src/code_assist` of google-gemini/gemini-cli. Cloud Code Assist wraps a request in `request` and a
response in `response`.

`totalTokenCount` is the sum of four counts: `promptTokenCount`, which includes `cachedContentTokenCount`;
`toolUsePromptTokenCount`, which is input too; `candidatesTokenCount`; and `thoughtsTokenCount`. Older models include
thoughts in `candidatesTokenCount`, as their total shows. JSON omits a count of 0. The chunks of a stream repeat the
usage, cumulative or without counts, so the reader uses the last one with counts. A blocked prompt has no candidates, so
its `blockReason` is the finish reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclaw_egress.llm.message_builder import MAX_CHARACTERS, Key, Parts
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
from openclaw_egress.llm.partial_arguments import PartialArguments, Room

_MAX_CANDIDATES = 128
# Responses to Google's Go client have numbers instead of names, because the client sends `$alt=json;enum-encoding=int`.
# This table has only the reasons whose numbers are the same in the Gemini API and in Vertex AI.
_NUMBERED_REASONS = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION", 5: "OTHER"}
# Parts for which the assembled message contains only the name, not the content.
_OTHER_PARTS = (
    "functionResponse",
    "inlineData",
    "fileData",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
)


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the token counts in the usage object."""
    prompt, tools = count_of(usage.get("promptTokenCount")), count_of(usage.get("toolUsePromptTokenCount"))
    answer, thoughts = count_of(usage.get("candidatesTokenCount")), count_of(usage.get("thoughtsTokenCount"))
    output = answer if thoughts is None else count_of((answer or 0) + thoughts)
    if prompt is not None and answer is not None and usage.get("totalTokenCount") == prompt + (tools or 0) + answer:
        output = answer
    return Usage(
        input_tokens=None if prompt is None else count_of(prompt + (tools or 0)),
        output_tokens=output,
        cache_read_input_tokens=count_of(usage.get("cachedContentTokenCount")),
        reasoning_output_tokens=thoughts,
    )


def billing_of(usage: Mapping[str, Any]) -> Billing:
    """Return the values that the price depends on, except for searches, which the usage does not count."""
    # The member is `serviceTier` in the Gemini API, and `trafficType` in Vertex AI.
    tier = (text_of(usage.get("serviceTier"), 64) or text_of(usage.get("trafficType"), 64) or "").lower()
    return Billing(
        service_tier=None if tier in ("", "unspecified", "traffic_type_unspecified") else tier,
        input_audio_tokens=_tokens_of("AUDIO", usage, "promptTokensDetails", "toolUsePromptTokensDetails"),
        output_audio_tokens=_tokens_of("AUDIO", usage, "candidatesTokensDetails"),
        cache_read_audio_tokens=_tokens_of("AUDIO", usage, "cacheTokensDetails"),
        output_image_tokens=_tokens_of("IMAGE", usage, "candidatesTokensDetails"),
    )


def _tokens_of(modality: str, usage: Mapping[str, Any], *members: str) -> int | None:
    """Return the sum of the token counts of one modality in these members; None if there is no count."""
    found = [object_of(item) for name in members for item in list_of(usage.get(name))]
    counts = [count_of(item.get("tokenCount")) for item in found if item.get("modality") == modality]
    known = [count for count in counts if count is not None]
    return count_of(sum(known)) if known else None


def _unwrapped(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the member ``response``, in which Cloud Code Assist wraps the response; without it, return ``value``."""
    return object_of(value.get("response")) or value


def _id_in(value: Mapping[str, Any]) -> str | None:
    # Use `traceId` as the id of a Cloud Code Assist response, because its client reports this id.
    return text_of(_unwrapped(value).get("responseId")) or text_of(value.get("traceId"))


def _candidates(response: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the candidates with their indexes. A missing index is 0, because JSON omits it."""
    found: list[tuple[int, Mapping[str, Any]]] = []
    for item in list_of(response.get("candidates")):
        candidate = object_of(item)
        index = count_of(candidate.get("index", 0))
        if index is not None and index < _MAX_CANDIDATES:
            found.append((index, candidate))
    return found


def _reasons(response: Mapping[str, Any]) -> dict[int, str]:
    """Return the finish reason of each candidate. Report the reason for a blocked prompt as that of candidate 0."""
    found: dict[int, str] = {}
    if blocked := text_of(object_of(response.get("promptFeedback")).get("blockReason")):
        found[0] = blocked
    for index, candidate in _candidates(response):
        reported = candidate.get("finishReason")
        if reason := text_of(reported) or _NUMBERED_REASONS.get(count_of(reported) or 0):
            found[index] = reason
    return found


def _searched(response: Mapping[str, Any]) -> bool:
    """Return whether the response uses grounding (Google Search, Maps or the client's own data), which is billed."""
    return any(object_of(item).get("groundingMetadata") for item in list_of(response.get("candidates")))


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    response = _unwrapped(value)
    # A body that is too large to parse has no candidates, so it is unknown whether the model searched.
    unknown = "candidates" not in response and "promptFeedback" not in response
    return ResponseFacts(
        model=text_of(response.get("modelVersion")),
        id=_id_in(value),
        finish_reasons=tuple(reason for _, reason in sorted(_reasons(response).items())),
        usage=usage_of(object_of(response.get("usageMetadata"))),
        billing=replace(
            billing_of(object_of(response.get("usageMetadata"))), incomplete=unknown or _searched(response)
        ),
        error_type=error_of(value.get("error")),
    )


class _Assembler:
    def __init__(self) -> None:
        self._model: str | None = None
        self._id: str | None = None
        self._usage = Usage()
        self._billing = Billing()
        self._searched = False
        self._reasons: dict[int, str] = {}
        self._error: str | None = None
        self._parts = Parts()
        # For each candidate: number and kind of the last part, and the tool call whose arguments are still incomplete.
        self._last: dict[int, tuple[int, str]] = {}
        self._continued: dict[int, tuple[Key, PartialArguments]] = {}
        self._room = Room(MAX_CHARACTERS)
        self._unread = False

    def take(self, value: Mapping[str, Any]) -> None:
        response = _unwrapped(value)
        self._model = text_of(response.get("modelVersion")) or self._model
        self._id = _id_in(value) or self._id
        self._error = error_of(value.get("error")) or self._error
        self._reasons |= _reasons(response)
        self._searched = self._searched or _searched(response)
        metadata = object_of(response.get("usageMetadata"))
        if (usage := usage_of(metadata)) != Usage():
            self._usage, self._billing = usage, billing_of(metadata)
        blocked = object_of(response.get("promptFeedback"))
        if blocked.get("blockReason"):
            self._parts.append(self._key(0, "refusal"), "refusal", blocked.get("blockReasonMessage"))
        for index, candidate in _candidates(response):
            for part in list_of(object_of(candidate.get("content")).get("parts")):
                self._part(index, object_of(part))

    def _key(self, candidate: int, kind: str, *, joins: bool = False) -> Key:
        """Return the key of a new part. With `joins`, return the key of the last part if it has the same kind."""
        number, last = self._last.get(candidate, (-1, ""))
        if not joins or kind != last:
            number += 1
        self._last[candidate] = number, kind
        return candidate, number

    def _part(self, candidate: int, part: Mapping[str, Any]) -> None:
        if isinstance(text := part.get("text"), str):
            # Ignore an empty text: in a stream, such a part contains only a `thoughtSignature`.
            if text:
                kind = "reasoning" if part.get("thought") is True else "text"
                self._parts.append(self._key(candidate, kind, joins=True), kind, text)
        elif isinstance(call := part.get("functionCall"), dict):
            self._call(candidate, call)
        else:
            for kind in _OTHER_PARTS:
                if kind in part:
                    self._parts.open(self._key(candidate, kind), kind)

    def _call(self, candidate: int, call: Mapping[str, Any]) -> None:
        """Process a tool call or a piece of it. More pieces follow (`partialArgs`) as long as `willContinue` is set."""
        key, arguments = self._continued.pop(candidate, (None, None))
        if key is None:
            key = self._key(candidate, "tool_call")
        self._parts.call(key, call.get("id"), call.get("name"), call.get("args"))
        if arguments is None and (call.get("willContinue") is True or call.get("partialArgs")):
            arguments = PartialArguments(self._room)
        if arguments is None:
            return
        arguments.add(call.get("partialArgs"))
        if call.get("willContinue") is True:
            self._continued[candidate] = key, arguments
        else:
            self._end_call(key, arguments)

    def _end_call(self, key: Key, arguments: PartialArguments) -> None:
        """Store the streamed arguments of a tool call as one object. Set `_unread` if some of them are missing."""
        self._unread = self._unread or not arguments.complete
        self._parts.call(key, None, None, arguments.result())

    def facts(self) -> ResponseFacts:
        for key, arguments in self._continued.values():
            self._end_call(key, arguments)
        self._continued.clear()
        reasons = dict(sorted(self._reasons.items()))
        candidates = sorted({head for head in self._parts.heads() if isinstance(head, int)} | set(reasons))
        messages: list[dict[str, Any]] = []
        for candidate in candidates:
            message = {"role": "assistant", "parts": self._parts.under((candidate,))}
            messages.append(message | ({"finish_reason": reasons[candidate]} if candidate in reasons else {}))
        return ResponseFacts(
            model=self._model,
            id=self._id,
            finish_reasons=tuple(reasons.values()),
            usage=self._usage,
            billing=replace(self._billing, incomplete=self._searched),
            messages=messages,
            messages_truncated=self._parts.truncated or self._unread,
            error_type=self._error,
        )


API = Api(
    name="generate-content",
    path=re.compile(r"/[^/]{1,256}:(?:generateContent|streamGenerateContent)$"),
    examples=(
        "/v1beta/models/gemini-2.5-flash:generateContent",
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro:generateContent",
        "/v1internal:streamGenerateContent",
    ),
    members=frozenset({"usageMetadata", "modelVersion", "responseId", "promptFeedback", "traceId", "error"}),
    whole=_whole,
    assembler=_Assembler,
    stream_default=None,
    stream_in_path=re.compile(r":streamGenerateContent$"),
    # Do not match the path `/v1internal:…` of Cloud Code Assist, because its model is in the body.
    model_in_path=re.compile(r"[^/]/([^/]{1,256}):(?:generateContent|streamGenerateContent)$"),
    operation="generate_content",
    hosts={
        "generativelanguage.googleapis.com": "gcp.gemini",
        "aiplatform.googleapis.com": "gcp.vertex_ai",
        "cloudcode-pa.googleapis.com": "gcp.gen_ai",
    },
)


def _embedded(value: Mapping[str, Any]) -> ResponseFacts:
    usage = usage_of(object_of(value.get("usageMetadata")))
    return ResponseFacts(usage=Usage(input_tokens=usage.input_tokens), error_type=error_of(value.get("error")))


EMBED = replace(
    API,
    name="embed-content",
    path=re.compile(r"/[^/]{1,256}:(?:embedContent|batchEmbedContents)$"),
    examples=("/v1beta/models/gemini-embedding-001:embedContent", "/v1beta/models/m:batchEmbedContents"),
    members=frozenset({"usageMetadata", "error"}),
    only_members=True,
    whole=_embedded,
    stream_default=False,
    stream_in_path=None,
    model_in_path=re.compile(r"/([^/]{1,256}):(?:embedContent|batchEmbedContents)$"),
    operation="embeddings",
    hosts={},
)
