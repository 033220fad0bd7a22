"""Differences between the Chat Completions of other providers and those of OpenAI, as data.

The comment above each dialect states its source, mostly the provider's API reference. Texts and numbers are invented.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2
import openai

from openclaw_egress.llm import Usage
from tests.unit.provider_recording import Reply

Json = dict[str, Any]
Paths = Mapping[str, tuple[str, ...]]
TEXTS = ("Grüße ", "von hier ", "✓")
THOUGHTS = ("Let me ", "think … ")
CALL = ("get_weather", '{"city": "Zürich"}')
OPENAI_PATHS: Paths = {
    "input_tokens": ("prompt_tokens",),
    "output_tokens": ("completion_tokens",),
    "cache_read_input_tokens": ("prompt_tokens_details.cached_tokens",),
    "cache_write_input_tokens": ("prompt_tokens_details.cache_write_tokens",),
    "reasoning_output_tokens": ("completion_tokens_details.reasoning_tokens",),
}
BY_NUMBER = {"error": "an error has a number, and no name"}


@dataclass(frozen=True)
class Dialect:
    """A provider's variant of Chat Completions.

    - `base`: the path before `/chat/completions`.
    - `usage`: the usage object of a response.
    - `error`: the body of an error response.
    - `paths`: the paths of each count in the SDK's usage object, if they differ from OpenAI's. If a count has several
      paths, it is the sum of their values.
    - `cost`: the path of the cost in the usage object. `unit`: US dollars per unit of that cost.
    - `head`: additional members of each response object and of each chunk.
    - `first`: bytes before the first event of a stream.
    - `choice`: additional members of every choice.
    - `twice`: the member of a choice in which a chunk repeats its text.
    - `reasoning`: the member of a message that contains the reasoning.
    - `usage_in`: the location of the usage in a stream: a chunk without choices (`own`), the chunk with the finish
      reason (`last`), the choice in that chunk (`choice`), or every chunk (`every`).
    - `azure`: the API version, if the provider uses the deployments path of Azure.
    - `none`: the reason for each case of the provider test table that does not exist for the provider.
    """

    host: str
    base: str
    usage: Json
    error: Any
    paths: Paths = field(default_factory=dict)
    cost: str | None = None
    unit: float = 1.0
    head: Json = field(default_factory=dict)
    first: bytes = b""
    choice: Json = field(default_factory=dict)
    twice: Literal["text", "message"] | None = None
    reasoning: str = "reasoning_content"
    usage_in: Literal["own", "last", "choice", "every"] = "own"
    azure: str | None = None
    none: Mapping[str, str] = field(default_factory=dict)

    def client(self, http: httpx2.Client) -> openai.OpenAI:
        """Return a client of OpenAI's SDK that calls this provider."""
        given: Any = {"api_key": "test", "max_retries": 0, "http_client": http}
        if self.azure is not None:
            return openai.AzureOpenAI(azure_endpoint=f"https://{self.host}", api_version=self.azure, **given)
        return openai.OpenAI(base_url=f"https://{self.host}{self.base}", **given)

    def usage_of(self, usage: Any) -> tuple[Usage, float | None]:
        """Return the token counts and the cost from the SDK's usage object. Without a cost path, the cost is None."""
        counts = {name: _sum(usage, places) for name, places in {**OPENAI_PATHS, **self.paths}.items()}
        cost = _at(usage, self.cost) if self.cost is not None else None
        return Usage(**counts), None if cost is None else cost * self.unit

    def reply(self, case: str) -> Reply:
        """Return this provider's response for one case of the provider test table."""
        if case == "error":
            return Reply(400, "application/json", [json.dumps(self.error).encode()])
        if case == "plain":
            message = {"role": "assistant", "content": "".join(TEXTS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"} | self.choice
            whole = self._object("chat.completion", [choice]) | {"usage": self.usage}
            return Reply(200, "application/json", [json.dumps(whole, ensure_ascii=False).encode()])
        pieces = [_event(chunk) for chunk in self._chunks(case)]
        return Reply(200, "text/event-stream", [self.first, *pieces, b"data: [DONE]\n\n"], case == "aborted")

    def _object(self, kind: str, choices: list[Json]) -> Json:
        return {"id": "c-1", "object": kind, "created": 1_790_000_000, "model": "m", "choices": choices} | self.head

    def _chunks(self, case: str) -> list[Json]:
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        if case == "reasoning":
            deltas += [{self.reasoning: text} for text in THOUGHTS]
        if case == "tools":
            name, arguments = CALL
            head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
            deltas.append({"tool_calls": [head]})
            for piece in (arguments[:7], arguments[7:]):
                deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        else:
            deltas += [{"content": text} for text in TEXTS * (4 if case == "aborted" else 1)]
        chunks = [self._chunk(delta, None) for delta in deltas]
        chunks.append(self._chunk({}, "tool_calls" if case == "tools" else "stop"))
        if self.usage_in == "own":
            chunks.append(self._object("chat.completion.chunk", []) | {"usage": self.usage})
        elif self.usage_in == "choice":
            chunks[-1]["choices"][0]["usage"] = self.usage
        elif self.usage_in == "last":
            chunks[-1]["usage"] = self.usage
        else:
            early = {"prompt_tokens": self.usage["prompt_tokens"], "completion_tokens": 1}
            chunks = [chunk | {"usage": early} for chunk in chunks[:-1]] + [chunks[-1] | {"usage": self.usage}]
        return chunks

    def _chunk(self, delta: Json, reason: str | None) -> Json:
        choice = {"index": 0, "delta": delta, "finish_reason": reason} | self.choice
        if self.twice == "text":
            choice["text"] = delta.get("content", "")
        elif self.twice == "message":
            choice["message"] = {"role": "assistant", "content": delta.get("content", "")}
        return self._object("chat.completion.chunk", [choice])


def _event(value: Json) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _at(value: Any, path: str) -> Any:
    """Return the value at a path in the SDK's object. Objects that the SDK has no type for are plain dicts."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value


def _sum(usage: Any, places: tuple[str, ...]) -> int | None:
    counts = [count for place in places if (count := _at(usage, place)) is not None]
    return sum(counts) if counts else None


def _usage(**more: Any) -> Json:
    return {"prompt_tokens": 125, "completion_tokens": 48, "total_tokens": 173} | more


def _error(**members: Any) -> Json:
    return {"error": {"message": "refused", **members}}


CACHED = {"prompt_tokens_details": {"cached_tokens": 98}}
THOUGHT = {"completion_tokens_details": {"reasoning_tokens": 30}}
AZURE_FILTER = {"hate": {"filtered": False, "severity": "safe"}, "jailbreak": {"filtered": False, "detected": False}}
AZURE_FIRST: Json = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
AZURE_FIRST |= {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": AZURE_FILTER}]}
DIALECTS = {
    # Source: learn.microsoft.com/azure/ai-foundry/openai/reference, and …/openai/concepts/content-filter-annotations.
    "azure deployment": Dialect(
        "my.openai.azure.com",
        "",
        _usage(**CACHED, **THOUGHT),
        _error(
            code="content_filter",
            param="prompt",
            type=None,
            status=400,
            innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": AZURE_FILTER},
        ),
        first=_event(AZURE_FIRST),
        choice={"content_filter_results": AZURE_FILTER, "logprobs": None},
        azure="2024-10-21",
    ),
    "azure v1": Dialect(
        "my.services.ai.azure.com",
        "/openai/v1",
        _usage(**CACHED, **THOUGHT),
        _error(code="DeploymentNotFound"),
        first=_event(AZURE_FIRST),
        choice={"content_filter_results": AZURE_FILTER},
    ),
    # Source: openrouter.ai/docs/api-reference/overview, …/use-cases/usage-accounting, …/api-reference/errors.
    "openrouter": Dialect(
        "openrouter.ai",
        "/api/v1",
        _usage(**CACHED, **THOUGHT, cost=0.95, is_byok=False, cost_details={"upstream_inference_cost": None}),
        _error(code=429, metadata={"provider_name": "Example"}),
        cost="cost",
        head={"provider": "Example"},
        first=b": OPENROUTER PROCESSING\n\n",
        choice={"native_finish_reason": None, "logprobs": None},
        reasoning="reasoning",
        none=BY_NUMBER,
    ),
    # Source: docs.x.ai/developers/rest-api-reference and …/advanced-api-usage/prompt-caching/usage-and-pricing.
    "xai": Dialect(
        "api.x.ai",
        "/v1",
        _usage(**CACHED, **THOUGHT, total_tokens=203, num_sources_used=2, cost_in_usd_ticks=6_200_000),
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided."},
        paths={"output_tokens": ("completion_tokens", "completion_tokens_details.reasoning_tokens")},
        cost="cost_in_usd_ticks",
        unit=1e-10,
        head={"citations": ["https://example.com"]},
        none={"error": "an error has texts, and no name"},
    ),
    # Source: api-docs.deepseek.com/api/create-chat-completion and …/guides/kv_cache.
    "deepseek": Dialect(
        "api.deepseek.com",
        "",
        _usage(**THOUGHT, prompt_cache_hit_tokens=98, prompt_cache_miss_tokens=27),
        _error(type="authentication_error", param=None, code="invalid_request_error"),
        paths={"cache_read_input_tokens": ("prompt_cache_hit_tokens",)},
        first=b": keep-alive\n\n",
    ),
    # Source: docs.together.ai/reference/chat-completions-1.
    "together": Dialect(
        "api.together.xyz",
        "/v1",
        _usage(cached_tokens=98),
        _error(type="invalid_request_error", param=None, code="invalid_api_key"),
        paths={"cache_read_input_tokens": ("cached_tokens",)},
        choice={"seed": 1, "logprobs": None},
        twice="text",
        reasoning="reasoning",
        usage_in="last",
    ),
    # Source: docs.fireworks.ai/api-reference/post-chatcompletions.
    "fireworks": Dialect(
        "api.fireworks.ai",
        "/inference/v1",
        _usage(**CACHED),
        _error(object="error", type="invalid_request_error"),
        usage_in="last",
    ),
    # Source: inference-docs.cerebras.ai/api-reference/chat-completions and …/support/error.
    "cerebras": Dialect(
        "api.cerebras.ai",
        "/v1",
        _usage(**CACHED, **THOUGHT),
        {"message": "refused", "type": "invalid_request_error", "param": "api_key", "code": "wrong_api_key"},
        head={"time_info": {"queue_time": 0.1, "total_time": 0.2}},
        reasoning="reasoning",
        usage_in="last",
    ),
    # Source: platform.moonshot.ai/docs/api/chat.
    "moonshot": Dialect(
        "api.moonshot.ai",
        "/v1",
        _usage(cached_tokens=98),
        _error(type="invalid_authentication_error"),
        paths={"cache_read_input_tokens": ("cached_tokens",)},
        usage_in="choice",
    ),
    # Source: docs.perplexity.ai/api-reference/sonar-post.
    "perplexity": Dialect(
        "api.perplexity.ai",
        "",
        _usage(search_context_size="low", cost={"input_tokens_cost": 0.0001, "total_cost": 0.006}),
        _error(type="invalid_model", code=400),
        cost="cost.total_cost",
        head={"citations": ["https://example.com"], "search_results": [{"title": "x", "url": "https://example.com"}]},
        twice="message",
        usage_in="every",
        none={
            "tools": "no tools",
            "reasoning": "the reasoning is a part of the text, between tags",
            "cached": "no count of cached tokens",
        },
    ),
    # Source: docs.z.ai/api-reference/llm/chat-completion.
    "z.ai": Dialect(
        "api.z.ai",
        "/api/paas/v4",
        _usage(**CACHED),
        _error(code="1302"),
        head={"request_id": "r-1"},
        usage_in="last",
        none=BY_NUMBER,
    ),
    # Source: alibabacloud.com/help/en/model-studio/qwen-api-via-openai-chat-completions.
    "qwen": Dialect(
        "dashscope-intl.aliyuncs.com",
        "/compatible-mode/v1",
        _usage(**CACHED, **THOUGHT),
        _error(type="invalid_request_error", param=None, code="invalid_api_key") | {"request_id": "r-1"},
    ),
    # Source: ai.google.dev/gemini-api/docs/openai. An error body is an array.
    "gemini chat": Dialect(
        "generativelanguage.googleapis.com",
        "/v1beta/openai",
        _usage(),
        [{"error": {"code": 400, "message": "refused", "status": "INVALID_ARGUMENT"}}],
        usage_in="every",
        none={"reasoning": "the reasoning is a part of the text", "cached": "no count of cached tokens"},
    ),
    # Source: platform.minimax.io/docs/api-reference/text-openai-api.
    "minimax": Dialect(
        "api.minimax.io",
        "/v1",
        _usage(**CACHED, **THOUGHT, total_characters=0),
        {"type": "error", **_error(type="rate_limit_error", http_code="429"), "request_id": "r-1"},
        head={"input_sensitive": False, "output_sensitive": False, "base_resp": {"status_code": 0, "status_msg": ""}},
    ),
    # Source: github.com/microsoft/vscode-copilot-chat, src/platform/networking: the provider's own client.
    "copilot": Dialect(
        "api.githubcopilot.com",
        "",
        _usage(**CACHED, copilot_usage={"total_nano_aiu": 1}),
        _error(code="rate_limited"),
        first=_event(AZURE_FIRST),
        choice={"content_filter_results": AZURE_FILTER},
        reasoning="reasoning_text",
        usage_in="last",
    ),
    # Source: huggingface.co/docs/inference-providers/tasks/chat-completion. The responses come from other providers.
    "hugging face": Dialect(
        "router.huggingface.co",
        "/v1",
        _usage(**CACHED),
        {"error": "Invalid username or password."},
        reasoning="reasoning",
        none={"error": "an error has a text, and no name"},
    ),
    # Source: docs.api.nvidia.com/nim/reference/llm-apis. An error has the format of RFC 9457.
    "nvidia": Dialect(
        "integrate.api.nvidia.com",
        "/v1",
        _usage(**CACHED),
        {"title": "Unauthorized", "status": 401, "detail": "refused"},
        none={"error": "an error has a number and a text, and no name"},
    ),
    # Source: docs.vllm.ai/en/latest/serving/openai_compatible_server.
    "vllm": Dialect(
        "vllm.example",
        "/v1",
        _usage(**CACHED),
        _error(type="BadRequestError", param=None, code=400),
        choice={"logprobs": None, "stop_reason": None, "token_ids": None},
        reasoning="reasoning",
    ),
    # Source: github.com/ggml-org/llama.cpp, tools/server/README.md.
    "llama.cpp": Dialect(
        "llama.example",
        "/v1",
        _usage(**CACHED),
        _error(type="invalid_request_error", code=400),
        head={"timings": {"cache_n": 98, "prompt_n": 27, "predicted_n": 48}},
    ),
    # Source: lmstudio.ai/docs/developer/openai-compat.
    "lm studio": Dialect(
        "lmstudio.example",
        "/v1",
        _usage(**THOUGHT),
        {"error": "refused"},
        head={"stats": {}, "system_fingerprint": "m"},
        reasoning="reasoning",
        none={"error": "an error has a text, and no name", "cached": "no count of cached tokens"},
    ),
}
