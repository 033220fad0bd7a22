"""Amazon Bedrock's Converse and InvokeModel, plain and streamed.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference and the service model of `botocore`. A response has
neither a model name nor an id. `inputTokens` excludes tokens read from or written to the cache (user guide, prompt
caching). There is no separate count for reasoning. A stream of Converse has the counts in its last event.

InvokeModel uses the model's own format; the events of a stream contain its JSON as Base64. This module reads three
formats: Anthropic's, Amazon Nova's (like Converse, but with other names for the counts of cached tokens) and Chat
Completions (models of OpenAI and others). For other formats it reads Bedrock's own counts: from the headers of a plain
response, or from `amazon-bedrock-invocationMetrics` in the last event of a stream. AWS does not document whether the
input count includes cached tokens, so the input is unknown if tokens were cached. A plain response has the name of an
error in a header. In a stream, the error is an exception with that name.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclaw_egress.llm import anthropic, openai_chat
from openclaw_egress.llm.message_builder import Parts
from openclaw_egress.llm.model import (
    EXCEPTION,
    Api,
    Assembler,
    Billing,
    ResponseFacts,
    Usage,
    count_of,
    error_of,
    first_count,
    list_of,
    object_in,
    object_of,
    text_of,
)

_ERRORS = frozenset(
    """AccessDeniedException InternalServerException ModelErrorException ModelNotReadyException
    ModelStreamErrorException ModelTimeoutException ResourceNotFoundException ServiceQuotaExceededException
    ServiceUnavailableException ThrottlingException ValidationException""".split()  # noqa: SIM905
)
_METRICS = "amazon-bedrock-invocationMetrics"
_COUNT = re.compile(r"[0-9]{1,18}")


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the token counts. The total input is the sum of uncached tokens, cache reads and cache writes."""
    uncached = count_of(usage.get("inputTokens"))
    # In Nova's own format, the names of the cache counts end with `TokenCount`.
    read, written = (
        first_count(usage.get(f"cache{kind}InputTokens"), usage.get(f"cache{kind}InputTokenCount"))
        for kind in ("Read", "Write")
    )
    return Usage(
        input_tokens=None if uncached is None else count_of(uncached + (read or 0) + (written or 0)),
        output_tokens=count_of(usage.get("outputTokens")),
        cache_read_input_tokens=read,
        cache_write_input_tokens=written,
    )


def billing_of(value: Mapping[str, Any]) -> Billing:
    """Return the values in a response, or in the event `metadata`, that the price depends on."""
    details = [object_of(item) for item in list_of(object_of(value.get("usage")).get("cacheDetails"))]
    written = {
        ttl: [count for item in details if item.get("ttl") == ttl and (count := count_of(item.get("inputTokens")))]
        for ttl in ("5m", "1h")
    }
    latency = object_of(value.get("performanceConfig")).get("latency")
    return Billing(
        service_tier=_tier(object_of(value.get("serviceTier")).get("type"), latency),
        cache_write_5m_tokens=count_of(sum(written["5m"])) if written["5m"] else None,
        cache_write_1h_tokens=count_of(sum(written["1h"])) if written["1h"] else None,
    )


def _tier(tier: object, latency: object) -> str | None:
    """Return the service tier. Optimized latency has a separate price, so it counts as a tier."""
    return text_of(tier, 64) if latency in (None, "standard") else text_of(latency, 64)


def _counted(counts: Mapping[str, Any], *names: str) -> Usage:
    """Return Bedrock's own counts. ``names``: the members for input, output, cache reads and cache writes, in order."""
    given, made, read, written = (count_of(counts.get(name)) for name in names)
    return Usage(None if read or written else given, made, read, written)


def _error(name: str) -> str | None:
    """Return the error type for the name of an exception. In a stream, the name begins with a lower-case letter."""
    return error_of({"type": name[:1].upper() + name[1:]}, _ERRORS)


def _with_headers(headers: Mapping[str, str], facts: ResponseFacts) -> ResponseFacts:
    """Add error type and tier from the headers to ``facts``, and Bedrock's own token counts if the body has none."""
    if "x-amzn-errortype" in headers:
        # Extract the error's name, which can have a namespace before it and a URL after it: `space#Name:http://…`.
        name = headers["x-amzn-errortype"].partition(":")[0].rpartition("#")[2]
        facts = replace(facts, error_type=_error(name))
    tier, latency = (headers.get(f"x-amzn-bedrock-{name}") for name in ("service-tier", "performanceconfig-latency"))
    if stated := _tier(tier, latency):
        facts = replace(facts, billing=replace(facts.billing, service_tier=stated))
    if facts.usage == Usage():
        counts = {name: int(value) for name, value in headers.items() if _COUNT.fullmatch(value)}
        kinds = ("input", "output", "cache-read-input", "cache-write-input")
        facts = replace(facts, usage=_counted(counts, *(f"x-amzn-bedrock-{kind}-token-count" for kind in kinds)))
    return facts


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    reason = text_of(value.get("stopReason"))
    return ResponseFacts(
        finish_reasons=(reason,) if reason else (),
        usage=usage_of(object_of(value.get("usage"))),
        billing=billing_of(value),
    )


class _Assembler:
    def __init__(self) -> None:
        self._role = "assistant"
        self._end: dict[str, Any] = {}
        self._error: str | None = None
        self._parts = Parts()

    def take(self, value: Mapping[str, Any]) -> None:
        for name, content in value.items():
            event = object_of(content)
            match name:
                case "messageStart":
                    self._role = text_of(event.get("role")) or self._role
                case "contentBlockStart":
                    self._block(event.get("contentBlockIndex"), object_of(event.get("start")))
                case "contentBlockDelta":
                    self._block(event.get("contentBlockIndex"), object_of(event.get("delta")))
                case "messageStop":
                    self._end["stopReason"] = event.get("stopReason")
                case "metadata":
                    self._end |= {part: event.get(part) for part in ("usage", "serviceTier", "performanceConfig")}
                case _ if name == EXCEPTION:
                    self._error = _error(str(content))

    def _block(self, number: object, block: Mapping[str, Any]) -> None:
        index = count_of(number)
        if index is None:
            return
        for kind, content in block.items():
            piece = object_of(content)
            match kind:
                case "text":
                    self._parts.append((index, "text"), "text", content)
                case "reasoningContent":
                    self._parts.append((index, "reasoning"), "reasoning", piece.get("text"))
                case "toolUse":
                    self._parts.open((index, "call"), "tool_call", piece.get("toolUseId"), piece.get("name"))
                    self._parts.append((index, "call"), "tool_call", piece.get("input"))
                case "toolResult" | "image":
                    self._parts.open((index, kind), kind)

    def facts(self) -> ResponseFacts:
        return self._parts.completed(_whole(self._end), self._error, role=self._role)


_CONVERSE_EVENTS = ("messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata")


def _whole_invoked(value: Mapping[str, Any]) -> ResponseFacts:
    if value.get("type") in ("message", "error"):
        return anthropic.API.whole(value)
    if isinstance(value.get("choices"), list):
        return openai_chat.API.whole(value)
    return _whole(value) if "stopReason" in value else ResponseFacts()


class _InvokedAssembler:
    """Assembler of the events of InvokeModel. The first event in a known format selects the format."""

    def __init__(self) -> None:
        self._inner: Assembler | None = None
        self._metrics: Mapping[str, Any] = {}
        self._error: str | None = None

    def take(self, value: Mapping[str, Any]) -> None:
        if EXCEPTION in value:
            self._error = _error(str(value[EXCEPTION]))
        event = _decoded(object_of(value.get("chunk")).get("bytes"))
        self._metrics = object_of(event.get(_METRICS)) or self._metrics
        self._inner = self._inner or _assembler_for(event)
        if self._inner is not None:
            self._inner.take(event)

    def facts(self) -> ResponseFacts:
        facts = self._inner.facts() if self._inner is not None else ResponseFacts()
        if facts.usage == Usage():
            names = (f"{kind}TokenCount" for kind in ("input", "output", "cacheReadInput", "cacheWriteInput"))
            facts = replace(facts, usage=_counted(self._metrics, *names))
        return replace(facts, error_type=self._error or facts.error_type)


def _assembler_for(event: Mapping[str, Any]) -> Assembler | None:
    """Return the assembler for the format of an event; None if the format is unknown."""
    if event.get("type") in ("message_start", "error"):
        return anthropic.API.assembler()
    if isinstance(event.get("choices"), list):
        return openai_chat.API.assembler()
    return _Assembler() if any(name in event for name in _CONVERSE_EVENTS) else None


def _decoded(text: object) -> Mapping[str, Any]:
    """Return the JSON object in a Base64 text; an empty object if the text contains none."""
    try:
        return object_in(base64.b64decode(text, validate=True)) or {} if isinstance(text, str) else {}
    except (binascii.Error, ValueError):
        return {}


# Match only model IDs with a dot or a colon (percent-encoded in ARNs), because other servers may use the path
# `/model/NAME/invoke` with other names.
MODEL_ID = r"[^/.:%]{0,256}[.:%][^/]{0,2048}"

CONVERSE = Api(
    name="bedrock-converse",
    path=re.compile(rf"/model/{MODEL_ID}/converse(?:-stream)?/?$"),
    examples=(
        "/model/anthropic.claude-sonnet-4-5-20250929-v1:0/converse",
        "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Aapplication-inference-profile%2Fa1/converse-stream",
    ),
    members=frozenset({"stopReason", "usage", "serviceTier", "performanceConfig"}),
    whole=_whole,
    assembler=_Assembler,
    with_headers=_with_headers,
    stream_default=None,
    stream_in_path=re.compile(r"-stream/?$"),
    model_in_path=re.compile(r"/model/([^/]+)/"),
    certain_at=frozenset({"aws.bedrock"}),
    error_types=_ERRORS,
)
_INVOKE = "/invoke(?:-with-response-stream)?/?$"
INVOKE_ANTHROPIC = replace(
    CONVERSE,
    name="bedrock-invoke-anthropic",
    path=re.compile(rf"/model/(?=[^/]*anthropic\.){MODEL_ID}{_INVOKE}"),
    examples=("/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream",),
    members=anthropic.API.members | openai_chat.API.members | CONVERSE.members | {"type"},
    whole=_whole_invoked,
    assembler=_InvokedAssembler,
)
INVOKE_EMBEDDINGS = replace(
    INVOKE_ANTHROPIC,
    name="bedrock-invoke-embeddings",
    path=re.compile(rf"/model/(?![^/]*anthropic\.)(?=[^/]*embed){MODEL_ID}{_INVOKE}"),
    examples=("/model/amazon.titan-embed-text-v2:0/invoke",),
    operation="embeddings",
)
INVOKE_OTHER = replace(
    INVOKE_ANTHROPIC,
    name="bedrock-invoke",
    path=re.compile(rf"/model/(?![^/]*(?:anthropic\.|embed)){MODEL_ID}{_INVOKE}"),
    examples=("/model/meta.llama3-3-70b-instruct-v1:0/invoke", "/model/amazon.nova-canvas-v1:0/invoke"),
    # Use the most general operation name: the path does not show whether the model generates text, images or speech.
    operation="generate_content",
)
