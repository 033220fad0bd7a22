"""Conversion of the SDKs' usage objects to `Usage`, the type that our readers return."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import ollama
import openai
from google.genai import types

from openclaw_egress.llm import Usage


def of_anthropic(usage: anthropic.types.Usage) -> Usage:
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    details = usage.output_tokens_details
    return Usage(
        input_tokens=usage.input_tokens + (read or 0) + (written or 0),
        output_tokens=usage.output_tokens,
        cache_read_input_tokens=read,
        cache_write_input_tokens=written,
        reasoning_output_tokens=details.thinking_tokens if details else None,
    )


def of_chat(usage: openai.types.CompletionUsage) -> Usage:
    given, made = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cache_read_input_tokens=given.cached_tokens if given else None,
        cache_write_input_tokens=getattr(given, "cache_write_tokens", None),
        reasoning_output_tokens=made.reasoning_tokens if made else None,
    )


def of_responses(usage: openai.types.responses.ResponseUsage) -> Usage:
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_input_tokens=usage.input_tokens_details.cached_tokens,
        cache_write_input_tokens=usage.input_tokens_details.cache_write_tokens,
        reasoning_output_tokens=usage.output_tokens_details.reasoning_tokens,
    )


def of_gemini(usage: types.GenerateContentResponseUsageMetadata | None) -> Usage:
    assert usage is not None
    assert usage.prompt_token_count is not None
    outputs = [usage.candidates_token_count, usage.thoughts_token_count]
    made = [count for count in outputs if count is not None]
    return Usage(
        input_tokens=usage.prompt_token_count + (usage.tool_use_prompt_token_count or 0),
        output_tokens=sum(made) if made else None,
        cache_read_input_tokens=usage.cached_content_token_count,
        reasoning_output_tokens=usage.thoughts_token_count,
    )


def of_ollama(result: ollama.ChatResponse | ollama.GenerateResponse) -> Usage:
    # Omit the cached tokens: the fake provider sends `prompt_eval_cached_count`, but the SDK does not know this member.
    return Usage(input_tokens=result.prompt_eval_count, output_tokens=result.eval_count)


def of_bedrock(usage: dict[str, Any]) -> Usage:
    read, written = usage.get("cacheReadInputTokens"), usage.get("cacheWriteInputTokens")
    return Usage(
        input_tokens=usage["inputTokens"] + (read or 0) + (written or 0),
        output_tokens=usage["outputTokens"],
        cache_read_input_tokens=read,
        cache_write_input_tokens=written,
    )


@contextmanager
def anthropic_stream(events: list[dict[str, Any]]) -> Iterator[Any]:
    """Yield a stream of Anthropic's SDK that reads ``events``, which `botocore` returned."""
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=text.encode())
    transport = httpx2.MockTransport(lambda request: response)
    messages: Any = [{"role": "user", "content": "x"}]
    with (
        anthropic.Anthropic(api_key="k", http_client=httpx2.Client(transport=transport)) as client,
        client.messages.stream(model="m", max_tokens=9, messages=messages) as stream,
    ):
        yield stream
