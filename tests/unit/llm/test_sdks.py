"""Tests that the parsers and the official SDKs report the same for the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from openclaw_egress.llm import Usage
from tests.support.llm_providers import LLMProviders
from tests.unit.provider_recording import Clients

MESSAGES: Any = [{"role": "user", "content": "Grüße ✓"}]
ANTHROPIC_TOOLS: Any = [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]
OPENAI_TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CODINGS = pytest.mark.parametrize("coding", ["identity", "gzip", "deflate", "br", "zstd"])
MODELS = pytest.mark.parametrize("model", ["any-model", "tools"])


@pytest.fixture(scope="module")
def providers() -> Iterator[LLMProviders]:
    with LLMProviders() as running:
        yield running


@pytest.fixture(scope="module")
def clients(providers: LLMProviders) -> Iterator[Clients]:
    clients = Clients(providers)
    yield clients
    clients.close()


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
        cache_write_input_tokens=given.cache_write_tokens if given else None,
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


def parts_of_anthropic(message: anthropic.types.Message) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for block in message.content:
        match block.type:
            case "text":
                parts.append({"type": "text", "content": block.text})
            case "thinking":
                parts.append({"type": "reasoning", "content": block.thinking})
            case "tool_use":
                parts.append({"type": "tool_call", "id": block.id, "name": block.name, "arguments": block.input})
    return parts


@CODINGS
@MODELS
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("delta_usage", ["full", "short"])
def test_streamed_anthropic_message_equals_the_sdks(
    clients: Clients, model: str, coding: str, thinking: bool, delta_usage: str
) -> None:
    with clients.anthropic.messages.stream(
        model=model,
        max_tokens=2000,
        messages=MESSAGES,
        tools=ANTHROPIC_TOOLS,
        thinking={"type": "enabled", "budget_tokens": 1024} if thinking else anthropic.omit,
        extra_headers={"x-standin-encoding": coding, "x-standin-delta-usage": delta_usage},
    ) as stream:
        told = stream.get_final_message()
    facts = clients.last.response_facts("api.anthropic.com")
    assert (facts.usage, facts.model, facts.id) == (of_anthropic(told.usage), told.model, told.id)
    assert facts.finish_reasons == (told.stop_reason,)
    assert facts.messages == [
        {"role": "assistant", "parts": parts_of_anthropic(told), "finish_reason": told.stop_reason}
    ]
    assert facts.error_type is None
    request = clients.last.request_facts("api.anthropic.com")
    assert request.operation_name == "chat"
    assert (request.provider_name, request.model, request.stream) == ("anthropic", model, True)


@CODINGS
@MODELS
def test_plain_anthropic_message_equals_the_sdks(clients: Clients, model: str, coding: str) -> None:
    told = clients.anthropic.messages.create(
        model=model, max_tokens=100, messages=MESSAGES, extra_headers={"x-standin-encoding": coding}
    )
    facts = clients.last.response_facts("api.anthropic.com")
    assert (facts.usage, facts.model, facts.id) == (of_anthropic(told.usage), told.model, told.id)
    assert (facts.finish_reasons, facts.messages) == ((told.stop_reason,), None)
    assert clients.last.request_facts("api.anthropic.com").stream is False


@CODINGS
@MODELS
def test_streamed_chat_completion_equals_the_sdks(clients: Clients, model: str, coding: str) -> None:
    with clients.openai.chat.completions.stream(
        model=model,
        messages=MESSAGES,
        tools=OPENAI_TOOLS,
        stream_options={"include_usage": True},
        extra_headers={"x-standin-encoding": coding},
    ) as stream:
        told = stream.get_final_completion()
    facts = clients.last.response_facts("api.openai.com")
    assert told.usage is not None
    assert (facts.usage, facts.model, facts.id) == (of_chat(told.usage), told.model, told.id)
    choice = told.choices[0]
    assert facts.finish_reasons == (choice.finish_reason,)
    parts: list[dict[str, Any]] = []
    if choice.message.content:
        parts.append({"type": "text", "content": choice.message.content})
    for call in choice.message.tool_calls or []:
        arguments = json.loads(call.function.arguments)
        parts.append({"type": "tool_call", "id": call.id, "name": call.function.name, "arguments": arguments})
    assert facts.messages == [{"role": "assistant", "parts": parts, "finish_reason": choice.finish_reason}]
    request = clients.last.request_facts("api.openai.com")
    assert (request.provider_name, request.model, request.stream) == ("openai", model, True)


def test_streamed_chat_without_include_usage_has_no_usage(clients: Clients) -> None:
    chunks = list(clients.openai.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert clients.last.response_facts("api.openai.com").usage == Usage()


@CODINGS
@MODELS
def test_plain_chat_completion_equals_the_sdks(clients: Clients, model: str, coding: str) -> None:
    told = clients.openai.chat.completions.create(
        model=model, messages=MESSAGES, extra_headers={"x-standin-encoding": coding}
    )
    facts = clients.last.response_facts("api.openai.com")
    assert told.usage is not None
    assert (facts.usage, facts.model, facts.id) == (of_chat(told.usage), told.model, told.id)
    assert facts.finish_reasons == (told.choices[0].finish_reason,)


@CODINGS
@MODELS
def test_streamed_openai_response_equals_the_sdks(clients: Clients, model: str, coding: str) -> None:
    with clients.openai.responses.stream(
        model=model, input="Grüße", extra_headers={"x-standin-encoding": coding}
    ) as stream:
        told = stream.get_final_response()
    facts = clients.last.response_facts("api.openai.com")
    assert told.usage is not None
    assert (facts.usage, facts.model, facts.id) == (of_responses(told.usage), told.model, told.id)
    assert facts.finish_reasons == (told.status,)
    item = told.output[0]
    if item.type == "function_call":
        arguments = json.loads(item.arguments)
        parts = [{"type": "tool_call", "id": item.call_id, "name": item.name, "arguments": arguments}]
    else:
        parts = [{"type": "text", "content": told.output_text}]
    assert facts.messages == [{"role": "assistant", "parts": parts, "finish_reason": "completed"}]


@MODELS
def test_plain_openai_response_equals_the_sdks(clients: Clients, model: str) -> None:
    told = clients.openai.responses.create(model=model, input="hello")
    facts = clients.last.response_facts("api.openai.com")
    assert told.usage is not None
    assert (facts.usage, facts.model, facts.id) == (of_responses(told.usage), told.model, told.id)


def test_incomplete_response_has_its_reason_and_usage(clients: Clients) -> None:
    for event in clients.openai.responses.create(model="incomplete", input="hello", stream=True):
        last = event
    assert last.type == "response.incomplete"
    assert last.response.usage is not None
    facts = clients.last.response_facts("api.openai.com")
    assert facts.usage == of_responses(last.response.usage)
    assert facts.finish_reasons == ("max_output_tokens",)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "word"),
    [(401, "authentication_error"), (429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error")],
)
def test_anthropic_error_equals_the_sdks(clients: Clients, status: int, word: str, streamed: bool) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        clients.anthropic.messages.create(model=f"fail-{status}", max_tokens=10, messages=MESSAGES, stream=streamed)
    assert caught.value.status_code == status
    facts = clients.last.response_facts("api.anthropic.com")
    assert (facts.error_type, facts.usage) == (word, Usage())


@pytest.mark.parametrize(
    ("status", "word"), [(401, "invalid_api_key"), (429, "rate_limit_exceeded"), (500, "server_error")]
)
def test_openai_error_equals_the_sdks(clients: Clients, status: int, word: str) -> None:
    with pytest.raises(openai.APIStatusError):
        clients.openai.chat.completions.create(model=f"fail-{status}", messages=MESSAGES)
    assert clients.last.response_facts("api.openai.com").error_type == word
    with pytest.raises(openai.APIStatusError):
        clients.openai.responses.create(model=f"fail-{status}", input="hello", stream=True)
    assert clients.last.response_facts("api.openai.com").error_type == word


def test_error_within_a_message_keeps_the_text_and_has_no_output_count(clients: Clients) -> None:
    with (
        pytest.raises(anthropic.APIStatusError),
        clients.anthropic.messages.stream(model="fail-stream", max_tokens=10, messages=MESSAGES) as stream,
    ):
        stream.get_final_message()
    facts = clients.last.response_facts("api.anthropic.com")
    assert facts.error_type == "overloaded_error"
    assert facts.usage.input_tokens is not None
    assert facts.usage.output_tokens is None
    assert facts.messages is not None
    assert facts.messages[0]["parts"] == [{"type": "text", "content": "Hello from the provider "}]


def test_error_in_the_middle_of_an_openai_stream_is_recorded(clients: Clients) -> None:
    with pytest.raises(openai.APIError):
        list(clients.openai.chat.completions.create(model="fail-stream", messages=MESSAGES, stream=True))
    assert clients.last.response_facts("api.openai.com").error_type == "server_error"
    list(clients.openai.responses.create(model="fail-stream", input="hello", stream=True))
    facts = clients.last.response_facts("api.openai.com")
    assert (facts.error_type, facts.finish_reasons, facts.usage) == ("server_error", ("failed",), Usage())


def test_usage_at_the_end_of_a_large_body_is_found(clients: Clients) -> None:
    size = {"x-standin-body-bytes": str(12 << 20)}
    plain = clients.anthropic.messages.create(model="m", max_tokens=10, messages=MESSAGES, extra_headers=size)
    facts = clients.last.response_facts("api.anthropic.com")
    assert (facts.usage, facts.finish_reasons) == (of_anthropic(plain.usage), ("end_turn",))
    many = size | {"x-standin-events": "300"}
    with clients.anthropic.messages.stream(model="m", max_tokens=10, messages=MESSAGES, extra_headers=many) as stream:
        told = stream.get_final_message()
    facts = clients.last.response_facts("api.anthropic.com")
    assert facts.usage == of_anthropic(told.usage)
    assert facts.messages_truncated
    assert facts.messages is not None
    text = facts.messages[0]["parts"][0]["content"]
    assert len(text) < 1 << 20
    assert told.content[0].type == "text"
    assert told.content[0].text.startswith(text)


def test_fake_logs_its_responses(clients: Clients, providers: LLMProviders) -> None:
    told = clients.openai.responses.create(
        model="gpt-5", input="hello", extra_headers={"x-standin-encoding": "gzip", "X-Extra": "1"}
    )
    entry = providers.log[-1]
    body = clients.last.decoded()
    assert told.usage is not None
    assert entry["usage"] == told.usage.model_dump(exclude_unset=True)
    assert (entry["host"], entry["path"], entry["model"], entry["status"]) == (
        "localhost",
        "/v1/responses",
        "gpt-5",
        200,
    )
    assert (entry["bytes"], entry["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert entry["wire_bytes"] == sum(len(chunk) for chunk in clients.last.chunks)
    assert entry["request_body_sha256"] == hashlib.sha256(clients.last.request).hexdigest()
    assert {"authorization", "x-extra"} <= set(entry["request_header_names"])
