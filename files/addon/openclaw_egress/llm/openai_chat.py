"""OpenAI's Chat Completions, plain and streamed, and compatible APIs.

Source: the API reference of `POST /v1/chat/completions`. `prompt_tokens` includes cached tokens. In a stream, the
reader uses the last chunk with a `usage`, with or without `choices`. Without `stream_options.include_usage`, no chunk
has a `usage`. Compatible APIs differ:

- Groq repeats the usage in `x_groq.usage`, and ends a stream early with a text in `x_groq.error`.
- DeepSeek's name for the cached tokens is `prompt_cache_hit_tokens`.
- Mistral's content can be a list that contains `thinking`.
- xAI excludes reasoning from `completion_tokens`, as its `total_tokens` shows.
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
    error_in,
    error_of,
    first_count,
    list_of,
    object_of,
    text_of,
)
from openclaw_egress.llm.stated_cost import stated_cost

_MAX_CHOICES = 128


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the token counts in the usage object."""
    prompt_details = object_of(usage.get("prompt_tokens_details"))
    output = count_of(usage.get("completion_tokens"))
    prompt = count_of(usage.get("prompt_tokens"))
    reasoning = count_of(object_of(usage.get("completion_tokens_details")).get("reasoning_tokens"))
    if output is not None and prompt is not None and reasoning:
        total = prompt + output + reasoning
        if usage.get("total_tokens") == total:
            output = count_of(output + reasoning)
    return Usage(
        input_tokens=prompt,
        output_tokens=output,
        cache_read_input_tokens=first_count(
            prompt_details.get("cached_tokens"),
            usage.get("prompt_cache_hit_tokens"),  # the name in DeepSeek's API
            usage.get("cached_tokens"),  # the name in the APIs of Moonshot AI and Together AI
        ),
        cache_write_input_tokens=count_of(prompt_details.get("cache_write_tokens")),
        reasoning_output_tokens=reasoning,
    )


def billing_of(usage: Mapping[str, Any], service_tier: object) -> Billing:
    """Return the values that the price depends on."""
    return Billing(
        stated_cost=stated_cost(usage),
        service_tier=text_of(service_tier, 64),
        input_audio_tokens=count_of(object_of(usage.get("prompt_tokens_details")).get("audio_tokens")),
        output_audio_tokens=count_of(object_of(usage.get("completion_tokens_details")).get("audio_tokens")),
    )


def _groq(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return object_of(value.get("x_groq"))


def _usage_in(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the usage object. Moonshot AI sends it in a choice of a stream's last chunk."""
    if usage := object_of(value.get("usage")) or object_of(_groq(value).get("usage")):
        return usage
    found = (object_of(object_of(choice).get("usage")) for choice in list_of(value.get("choices")))
    return next(filter(None, found), {})


def _error_in(value: Mapping[str, Any]) -> str | None:
    """Return the error type of a response. OpenRouter can report the error in a choice."""
    holders = [_groq(value), *map(object_of, list_of(value.get("choices")))]
    return error_in(value) or next(filter(None, (error_of(holder.get("error")) for holder in holders)), None)


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    reasons = [text_of(object_of(choice).get("finish_reason")) for choice in list_of(value.get("choices"))]
    return ResponseFacts(
        model=text_of(value.get("model")),
        id=text_of(value.get("id")),
        finish_reasons=tuple(reason for reason in reasons[:_MAX_CHOICES] if reason),
        usage=usage_of(_usage_in(value)),
        billing=billing_of(_usage_in(value), value.get("service_tier")),
        error_type=_error_in(value),
    )


class _Assembler:
    def __init__(self) -> None:
        self._model: str | None = None
        self._id: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._tier: object = None
        self._reasons: dict[int, str] = {}
        self._error: str | None = None
        self._parts = Parts()
        self._images = 0
        # Number of tool calls that have ended, by choice and index.
        self._repeated: dict[tuple[int, int], int] = {}

    def take(self, value: Mapping[str, Any]) -> None:
        self._model = text_of(value.get("model")) or self._model
        self._id = text_of(value.get("id")) or self._id
        self._usage = _usage_in(value) or self._usage
        self._tier = value.get("service_tier") or self._tier
        self._error = _error_in(value) or self._error
        for item in list_of(value.get("choices")):
            choice = object_of(item)
            index = count_of(choice.get("index", 0))
            if index is None or index >= _MAX_CHOICES:
                continue
            if reason := text_of(choice.get("finish_reason")):
                self._reasons[index] = reason
            delta = object_of(choice.get("delta"))
            self._delta(index, delta)
            if not delta.get("content"):
                # Completions have the text in the choice itself. Skip it if the delta has content, because Together AI
                # repeats that content there.
                self._parts.append((index, "text"), "text", choice.get("text"))

    def _delta(self, choice: int, delta: Mapping[str, Any]) -> None:
        # Providers use different names for the reasoning. GitHub Copilot uses `reasoning_text`.
        names = ("reasoning_content", "reasoning", "reasoning_text")
        reasoning = next((text for name in names if (text := delta.get(name))), None)
        self._parts.append((choice, "reasoning"), "reasoning", reasoning)
        self._parts.append((choice, "text"), "text", delta.get("content"))
        for piece in map(object_of, list_of(delta.get("content"))):
            self._parts.append((choice, "text"), "text", piece.get("text"))
            for thought in map(object_of, list_of(piece.get("thinking"))):
                self._parts.append((choice, "reasoning"), "reasoning", thought.get("text"))
        self._parts.append((choice, "refusal"), "refusal", delta.get("refusal"))
        for _ in list_of(delta.get("images")):  # OpenRouter sends images here.
            self._parts.open((choice, "image", self._images), "image")
            self._images += 1
        for place, item in enumerate(list_of(delta.get("tool_calls"))):
            call = object_of(item)
            index = count_of(call.get("index", place))
            if index is not None:
                self._call(choice, index, call)

    def _call(self, choice: int, index: int, call: Mapping[str, Any]) -> None:
        function, number = object_of(call.get("function")), self._repeated.get((choice, index), 0)
        if function.get("name") and self._parts.is_another_call((choice, "call", index, number), call.get("id")):
            # Number the tool calls here, because Gemini gives the same index to each call.
            number = self._repeated[choice, index] = number + 1
        key = (choice, "call", index, number)
        self._parts.open(key, "tool_call", call.get("id"), function.get("name"))
        self._parts.append(key, "tool_call", function.get("arguments"))

    def facts(self) -> ResponseFacts:
        reasons = dict(sorted(self._reasons.items()))
        choices = sorted({head for head in self._parts.heads() if isinstance(head, int)} | set(reasons))
        messages: list[dict[str, Any]] = []
        for choice in choices:
            message = {"role": "assistant", "parts": self._parts.under((choice,))}
            messages.append(message | ({"finish_reason": reasons[choice]} if choice in reasons else {}))
        return ResponseFacts(
            model=self._model,
            id=self._id,
            finish_reasons=tuple(reasons.values()),
            usage=usage_of(self._usage),
            billing=billing_of(self._usage, self._tier),
            messages=messages,
            messages_truncated=self._parts.truncated,
            error_type=self._error,
        )


API = Api(
    name="chat",
    path=re.compile(r"/chat/completions/?$"),
    examples=("/v1/chat/completions", "/openai/deployments/my-gpt/chat/completions"),
    members=frozenset({"model", "id", "usage", "service_tier", "x_groq", "error"}),
    whole=_whole,
    assembler=_Assembler,
    stream_default=False,
    model_in_path=re.compile(r"/deployments/([^/]{1,128})/"),  # Azure OpenAI has the model in the path.
    hosts={
        "openai.com": "openai",
        "openai.azure.com": "azure.ai.openai",
        "cognitiveservices.azure.com": "azure.ai.openai",
        "services.ai.azure.com": "azure.ai.inference",
        "models.ai.azure.com": "azure.ai.inference",
        "groq.com": "groq",
        "deepseek.com": "deepseek",
        "x.ai": "x_ai",
        "mistral.ai": "mistral_ai",
        "perplexity.ai": "perplexity",
        "moonshot.ai": "moonshot_ai",
        "moonshot.cn": "moonshot_ai",
        "openrouter.ai": "openrouter",
        # The semantic conventions define no names for the following providers.
        "cerebras.ai": "cerebras",
        "chatgpt.com": "chatgpt",  # Not `openai`: ChatGPT users pay a subscription, so list prices would be wrong.
        "dashscope.aliyuncs.com": "qwen",
        "dashscope-intl.aliyuncs.com": "qwen",
        "dashscope-us.aliyuncs.com": "qwen",
        "fireworks.ai": "fireworks_ai",
        "githubcopilot.com": "github_copilot",
        "huggingface.co": "hugging_face",
        "kimi.com": "kimi",
        "minimax.io": "minimax",
        "minimaxi.com": "minimax",
        "integrate.api.nvidia.com": "nvidia",
        "together.ai": "together_ai",
        "together.xyz": "together_ai",
        "ai-gateway.vercel.sh": "vercel",
        "azuredatabricks.net": "databricks",
        "databricks.com": "databricks",
        "voyageai.com": "voyage_ai",
        "writer.com": "writer",
        "z.ai": "z_ai",
        "bigmodel.cn": "z_ai",
    },
    other_paths=re.compile(
        r"/(?:usage/completions|moderations)/?$|/chat/completions/[A-Za-z0-9_\-]{1,128}(?:/[A-Za-z0-9_\-/]*)?$"
    ),
)
