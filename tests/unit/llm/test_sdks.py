"""Tests that our parsers and the official SDKs return equal results for the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anthropic
import botocore.exceptions
import httpx
import httpx2
import ollama
import openai
import pytest
import urllib3
from google.genai import errors, types

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader
from openclaw_egress.llm.registry import is_model_api
from tests.support.llm_providers import LLMProviders
from tests.unit.provider_recording import Clients
from tests.unit.sdk_usage import anthropic_stream, of_anthropic, of_bedrock, of_chat, of_gemini, of_ollama, of_responses

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


def parts_of_gemini(parts: list[types.Part]) -> list[dict[str, Any]]:
    """Convert the SDK's parts to our format. Join adjacent texts of one kind, because a stream splits texts."""
    found: list[dict[str, Any]] = []
    for part in parts:
        if call := part.function_call:
            found.append({"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.args})
        elif part.text:
            kind = "reasoning" if part.thought else "text"
            if found and found[-1]["type"] == kind:
                found[-1]["content"] += part.text
            else:
                found.append({"type": kind, "content": part.text})
    return found


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
        sdk = stream.get_final_message()
    facts = clients.last.response_facts("api.anthropic.com")
    assert (facts.usage, facts.model, facts.id) == (of_anthropic(sdk.usage), sdk.model, sdk.id)
    assert facts.finish_reasons == (sdk.stop_reason,)
    assert facts.messages == [{"role": "assistant", "parts": parts_of_anthropic(sdk), "finish_reason": sdk.stop_reason}]
    assert facts.error_type is None
    request = clients.last.request_facts("api.anthropic.com")
    assert request.operation_name == "chat"
    assert (request.provider_name, request.model, request.stream) == ("anthropic", model, True)


@CODINGS
@MODELS
def test_plain_anthropic_message_equals_the_sdks(clients: Clients, model: str, coding: str) -> None:
    sdk = clients.anthropic.messages.create(
        model=model, max_tokens=100, messages=MESSAGES, extra_headers={"x-standin-encoding": coding}
    )
    facts = clients.last.response_facts("api.anthropic.com")
    assert (facts.usage, facts.model, facts.id) == (of_anthropic(sdk.usage), sdk.model, sdk.id)
    assert (facts.finish_reasons, facts.messages) == ((sdk.stop_reason,), None)
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
        sdk = stream.get_final_completion()
    facts = clients.last.response_facts("api.openai.com")
    assert sdk.usage is not None
    assert (facts.usage, facts.model, facts.id) == (of_chat(sdk.usage), sdk.model, sdk.id)
    choice = sdk.choices[0]
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


def test_results_of_a_batch_have_no_usage() -> None:
    # If the results counted as usage, a client that downloads them again would count the same tokens twice.
    message: Any = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-5", "content": []}
    message |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 7}}
    result = {"type": "succeeded", "message": message}
    body = b"".join(json.dumps({"custom_id": str(n), "result": result}).encode() + b"\n" for n in range(3))
    batch: Any = {"id": "b_1", "type": "message_batch", "results_url": "/v1/messages/batches/b_1/results"}
    seen: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        if request.url.path.endswith("/results"):
            return httpx2.Response(200, headers={"content-type": "application/x-jsonl"}, content=body)
        return httpx2.Response(200, json=batch)

    client = httpx2.Client(transport=httpx2.MockTransport(respond))
    sdk = list(anthropic.Anthropic(api_key="k", http_client=client).messages.batches.results("b_1"))
    assert [one.result.message.usage.output_tokens for one in sdk if one.result.type == "succeeded"] == [7, 7, 7]
    path = seen[-1].url.path
    assert path == batch["results_url"]
    assert is_model_api("api.anthropic.com", path)
    assert read_request("api.anthropic.com", path, b"") == RequestFacts(provider_name="anthropic")
    for content_type in ("application/x-jsonl", "application/x-ndjson", "application/json", None):
        reader = response_reader("api.anthropic.com", path, content_type)
        for at in range(0, len(body), 7):
            reader.feed(body[at : at + 7])
        assert reader.finish() == ResponseFacts()


def test_streamed_chat_without_include_usage_has_no_usage(clients: Clients) -> None:
    chunks = list(clients.openai.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert clients.last.response_facts("api.openai.com").usage == Usage()


@CODINGS
@MODELS
def test_plain_chat_completion_equals_the_sdks(clients: Clients, model: str, coding: str) -> None:
    sdk = clients.openai.chat.completions.create(
        model=model, messages=MESSAGES, extra_headers={"x-standin-encoding": coding}
    )
    facts = clients.last.response_facts("api.openai.com")
    assert sdk.usage is not None
    assert (facts.usage, facts.model, facts.id) == (of_chat(sdk.usage), sdk.model, sdk.id)
    assert facts.finish_reasons == (sdk.choices[0].finish_reason,)


@CODINGS
@MODELS
def test_streamed_openai_response_equals_the_sdks(clients: Clients, model: str, coding: str) -> None:
    with clients.openai.responses.stream(
        model=model, input="Grüße", extra_headers={"x-standin-encoding": coding}
    ) as stream:
        sdk = stream.get_final_response()
    facts = clients.last.response_facts("api.openai.com")
    assert sdk.usage is not None
    assert (facts.usage, facts.model, facts.id) == (of_responses(sdk.usage), sdk.model, sdk.id)
    assert facts.finish_reasons == (sdk.status,)
    item = sdk.output[0]
    if item.type == "function_call":
        arguments = json.loads(item.arguments)
        parts = [{"type": "tool_call", "id": item.call_id, "name": item.name, "arguments": arguments}]
    else:
        parts = [{"type": "text", "content": sdk.output_text}]
    assert facts.messages == [{"role": "assistant", "parts": parts, "finish_reason": "completed"}]


@MODELS
def test_plain_openai_response_equals_the_sdks(clients: Clients, model: str) -> None:
    sdk = clients.openai.responses.create(model=model, input="hello")
    facts = clients.last.response_facts("api.openai.com")
    assert sdk.usage is not None
    assert (facts.usage, facts.model, facts.id) == (of_responses(sdk.usage), sdk.model, sdk.id)


def test_incomplete_response_has_its_reason_and_usage(clients: Clients) -> None:
    for event in clients.openai.responses.create(model="incomplete", input="hello", stream=True):
        last = event
    assert last.type == "response.incomplete"
    assert last.response.usage is not None
    facts = clients.last.response_facts("api.openai.com")
    assert facts.usage == of_responses(last.response.usage)
    assert facts.finish_reasons == ("max_output_tokens",)


def gemini_config(thinking: bool = False, **headers: str) -> types.GenerateContentConfig:
    weather = types.FunctionDeclaration(name="weather", parameters_json_schema={"type": "object"})
    return types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[weather])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        thinking_config=types.ThinkingConfig(include_thoughts=True) if thinking else None,
        http_options=types.HttpOptions(headers={f"x-standin-{n}".replace("_", "-"): v for n, v in headers.items()}),
    )


GEMINI = "generativelanguage.googleapis.com"
THINKING = pytest.mark.parametrize("thinking", [False, True])


@CODINGS
@MODELS
@THINKING
def test_streamed_gemini_response_equals_the_sdks(clients: Clients, model: str, coding: str, thinking: bool) -> None:
    chunks = list(
        clients.gemini.models.generate_content_stream(
            model=model, contents="Grüße ✓", config=gemini_config(thinking, encoding=coding)
        )
    )
    facts = clients.last.response_facts(GEMINI)
    sdk = chunks[-1]
    assert sdk.candidates
    assert sdk.candidates[0].finish_reason is not None
    assert (facts.usage, facts.model, facts.id) == (
        of_gemini(sdk.usage_metadata),
        sdk.model_version,
        sdk.response_id,
    )
    assert facts.finish_reasons == (sdk.candidates[0].finish_reason.value,)
    parts = parts_of_gemini([part for chunk in chunks for part in chunk.parts or []])
    assert facts.messages == [{"role": "assistant", "parts": parts, "finish_reason": "STOP"}]
    text = "".join(part["content"] for part in facts.messages[0]["parts"] if part["type"] == "text")
    assert text == "".join(chunk.text or "" for chunk in chunks)
    assert not facts.messages_truncated
    request = clients.last.request_facts(GEMINI)
    assert (request.operation_name, request.provider_name) == ("generate_content", "gcp.gemini")
    assert (request.model, request.stream) == (model, True)


@CODINGS
@MODELS
@THINKING
def test_plain_gemini_response_equals_the_sdks(clients: Clients, model: str, coding: str, thinking: bool) -> None:
    sdk = clients.gemini.models.generate_content(
        model=model, contents="Grüße ✓", config=gemini_config(thinking, encoding=coding)
    )
    facts = clients.last.response_facts(GEMINI)
    assert (facts.usage, facts.model, facts.id) == (
        of_gemini(sdk.usage_metadata),
        sdk.model_version,
        sdk.response_id,
    )
    assert (facts.finish_reasons, facts.messages, facts.error_type) == (("STOP",), None, None)
    assert clients.last.request_facts(GEMINI).stream is False


@pytest.mark.parametrize("streamed", [False, True])
def test_blocked_prompt_of_gemini_equals_the_sdks(clients: Clients, streamed: bool) -> None:
    models = clients.gemini.models
    if streamed:
        sdk = list(models.generate_content_stream(model="blocked", contents="x"))[-1]
    else:
        sdk = models.generate_content(model="blocked", contents="x")
    assert sdk.prompt_feedback is not None
    assert sdk.prompt_feedback.block_reason is not None
    facts = clients.last.response_facts(GEMINI)
    assert facts.finish_reasons == (sdk.prompt_feedback.block_reason.value,)
    assert facts.usage == of_gemini(sdk.usage_metadata)
    assert facts.usage.output_tokens is None


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
def test_gemini_error_equals_the_sdks(clients: Clients, status: int, streamed: bool) -> None:
    models = clients.gemini.models
    with pytest.raises(errors.APIError) as caught:
        if streamed:
            list(models.generate_content_stream(model=f"fail-{status}", contents="x"))
        else:
            models.generate_content(model=f"fail-{status}", contents="x")
    facts = clients.last.response_facts(GEMINI)
    assert (facts.error_type, facts.usage) == (caught.value.status, Usage())
    assert facts.error_type != "_OTHER"


@pytest.mark.parametrize("model", ["fail-stream", "fail-tail"])
def test_error_within_a_gemini_stream_keeps_the_text(clients: Clients, model: str) -> None:
    sdk: list[types.GenerateContentResponse] = []
    with pytest.raises(errors.APIError) as caught:
        for chunk in clients.gemini.models.generate_content_stream(model=model, contents="x"):
            sdk.append(chunk)
    facts = clients.last.response_facts(GEMINI)
    assert facts.error_type == caught.value.status == "UNAVAILABLE"
    assert facts.messages == [
        {"role": "assistant", "parts": [{"type": "text", "content": "".join(chunk.text or "" for chunk in sdk)}]}
    ]
    assert facts.usage == of_gemini(sdk[-1].usage_metadata)


def test_aborted_gemini_stream_equals_the_sdks(clients: Clients) -> None:
    sdk: list[types.GenerateContentResponse] = []
    with pytest.raises(httpx.HTTPError):
        for chunk in clients.gemini.models.generate_content_stream(
            model="m", contents="x", config=gemini_config(events="20", abort_after="2000")
        ):
            sdk.append(chunk)
    facts = clients.last.response_facts(GEMINI)
    assert sdk
    assert facts.usage == of_gemini(sdk[-1].usage_metadata)
    assert (facts.finish_reasons, facts.error_type) == ((), None)
    text = "".join(chunk.text or "" for chunk in sdk)
    assert facts.messages == [{"role": "assistant", "parts": [{"type": "text", "content": text}]}]


@MODELS
@THINKING
def test_array_of_gemini_responses_equals_the_sdks_types(clients: Clients, model: str, thinking: bool) -> None:
    config = {"thinkingConfig": {"includeThoughts": thinking}}
    body = {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": config}
    clients.rest(f"/v1beta/models/{model}:streamGenerateContent", body)
    chunks = [types.GenerateContentResponse.model_validate(value) for value in json.loads(clients.last.decoded())]
    facts = clients.last.response_facts(GEMINI)
    assert len(chunks) > 1
    assert (facts.usage, facts.model) == (of_gemini(chunks[-1].usage_metadata), model)
    parts = parts_of_gemini([part for chunk in chunks for part in chunk.parts or []])
    assert facts.messages == [{"role": "assistant", "parts": parts, "finish_reason": "STOP"}]
    assert clients.last.request_facts(GEMINI).stream is True


def test_error_in_an_array_of_gemini_responses_is_read(clients: Clients) -> None:
    clients.rest("/v1beta/models/fail-stream:streamGenerateContent", {"contents": [{"parts": [{"text": "x"}]}]})
    *chunks, error = json.loads(clients.last.decoded())
    facts = clients.last.response_facts(GEMINI)
    assert facts.error_type == errors.APIError(503, error).status == "UNAVAILABLE"
    assert facts.usage == of_gemini(types.GenerateContentResponse.model_validate(chunks[-1]).usage_metadata)
    assert facts.messages


def parts_of_ollama(messages: list[ollama.Message]) -> list[dict[str, Any]]:
    thinking = "".join(message.thinking or "" for message in messages)
    text = "".join(message.content or "" for message in messages)
    parts = [{"type": "reasoning", "content": thinking}] if thinking else []
    parts += [{"type": "text", "content": text}] if text else []
    return parts + [
        {"type": "tool_call", "name": call.function.name, "arguments": call.function.arguments}
        for message in messages
        for call in message.tool_calls or []
    ]


def without_ids(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in part.items() if name != "id"} for part in parts]


OLLAMA = "ollama.com"
OLLAMA_MODELS = pytest.mark.parametrize("model", ["any-model", "tools", "cached"])


@OLLAMA_MODELS
@THINKING
def test_streamed_ollama_chat_equals_the_sdks(clients: Clients, model: str, thinking: bool) -> None:
    chunks = list(clients.ollama.chat(model, MESSAGES, tools=OPENAI_TOOLS, stream=True, think=thinking))
    facts = clients.last.response_facts(OLLAMA)
    sdk = chunks[-1]
    assert replace(facts.usage, cache_read_input_tokens=None) == of_ollama(sdk)
    assert (facts.model, facts.finish_reasons, facts.error_type) == (sdk.model, (sdk.done_reason,), None)
    assert (facts.usage.input_tokens is None) == (model == "cached")
    assert facts.messages is not None
    assert without_ids(facts.messages[0]["parts"]) == parts_of_ollama([chunk.message for chunk in chunks])
    request = clients.last.request_facts(OLLAMA)
    assert (request.operation_name, request.provider_name, request.model, request.stream) == (
        "chat",
        "ollama",
        model,
        True,
    )


@OLLAMA_MODELS
@THINKING
def test_plain_ollama_chat_equals_the_sdks(clients: Clients, model: str, thinking: bool) -> None:
    sdk = clients.ollama.chat(model, MESSAGES, tools=OPENAI_TOOLS, think=thinking)
    facts = clients.last.response_facts(OLLAMA)
    assert replace(facts.usage, cache_read_input_tokens=None) == of_ollama(sdk)
    assert (facts.model, facts.finish_reasons, facts.messages) == (sdk.model, (sdk.done_reason,), None)
    assert clients.last.request_facts(OLLAMA).stream is False


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("prompt", ["", "Grüße ✓"])
@THINKING
def test_ollama_generate_equals_the_sdks(clients: Clients, prompt: str, streamed: bool, thinking: bool) -> None:
    if streamed:
        chunks = list(clients.ollama.generate("m", prompt, stream=True, think=thinking))
    else:
        chunks = [clients.ollama.generate("m", prompt, think=thinking)]
    facts = clients.last.response_facts(OLLAMA)
    sdk = chunks[-1]
    assert replace(facts.usage, cache_read_input_tokens=None) == of_ollama(sdk)
    assert (facts.model, facts.finish_reasons) == (sdk.model, (sdk.done_reason,))
    if streamed:
        messages = [ollama.Message(role="", content=one.response, thinking=one.thinking) for one in chunks]
        assert facts.messages is not None
        assert facts.messages[0]["parts"] == parts_of_ollama(messages)
    assert clients.last.request_facts(OLLAMA).operation_name == "text_completion"


def test_error_within_an_ollama_stream_keeps_the_text(clients: Clients) -> None:
    sdk: list[ollama.ChatResponse] = []
    with pytest.raises(ollama.ResponseError):
        for chunk in clients.ollama.chat("fail-stream", MESSAGES, stream=True):
            sdk.append(chunk)
    facts = clients.last.response_facts(OLLAMA)
    assert (facts.error_type, facts.usage, facts.finish_reasons) == ("_OTHER", Usage(), ())
    assert facts.messages == [{"role": "assistant", "parts": parts_of_ollama([chunk.message for chunk in sdk])}]


@pytest.mark.parametrize("streamed", [False, True])
def test_error_response_of_ollama_has_no_type_of_its_own(clients: Clients, streamed: bool) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        list(clients.ollama.chat("fail-404", MESSAGES, stream=streamed))
    assert caught.value.status_code == 404
    facts = clients.last.response_facts(OLLAMA)
    assert (facts.error_type, facts.usage, facts.messages) == (None, Usage(), None)


def test_aborted_ollama_stream_equals_the_sdks(clients: Clients) -> None:
    sdk: list[ollama.ChatResponse] = []
    client = clients.ollama_with({"x-standin-events": "20", "x-standin-abort-after": "1000"})
    with client, pytest.raises(httpx.HTTPError):
        for chunk in client.chat("m", MESSAGES, stream=True):
            sdk.append(chunk)
    facts = clients.last.response_facts(OLLAMA)
    assert sdk
    assert (facts.usage, facts.finish_reasons, facts.error_type) == (Usage(), (), None)
    assert facts.messages == [{"role": "assistant", "parts": parts_of_ollama([chunk.message for chunk in sdk])}]


BEDROCK = "bedrock-runtime.us-east-1.amazonaws.com"
BEDROCK_MODELS = pytest.mark.parametrize("name", ["any-model", "tools", "thinks", "cached"])
CONVERSATION: Any = [{"role": "user", "content": [{"text": "Grüße ✓"}]}]


def parts_of_bedrock(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Convert the SDK's events to message parts in our format. Join the deltas of each content block."""
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        if start := event.get("contentBlockStart"):
            call = start["start"]["toolUse"]
            found[start["contentBlockIndex"]] = {"type": "tool_call", "id": call["toolUseId"], "name": call["name"]}
        elif block := event.get("contentBlockDelta"):
            delta, index = block["delta"], block["contentBlockIndex"]
            if "toolUse" in delta:
                found[index]["arguments"] = found[index].get("arguments", "") + delta["toolUse"]["input"]
            elif text := delta.get("text") or delta.get("reasoningContent", {}).get("text"):
                kind = "text" if "text" in delta else "reasoning"
                part = found.setdefault(index, {"type": kind, "content": ""})
                part["content"] += text
    return [
        part | ({"arguments": json.loads(part["arguments"])} if "arguments" in part else {}) for part in found.values()
    ]


@BEDROCK_MODELS
def test_streamed_converse_equals_botocore(clients: Clients, name: str) -> None:
    model = f"us.anthropic.{name}:0"
    events = list(clients.bedrock.converse_stream(modelId=model, messages=CONVERSATION)["stream"])
    sdk = {kind: value for event in events for kind, value in event.items()}
    facts = clients.last.response_facts(BEDROCK)
    assert facts.usage == of_bedrock(sdk["metadata"]["usage"])
    assert facts.billing.service_tier == sdk["metadata"]["serviceTier"]["type"]
    reason = sdk["messageStop"]["stopReason"]
    assert facts.messages == [{"role": "assistant", "parts": parts_of_bedrock(events), "finish_reason": reason}]
    assert (facts.finish_reasons, facts.error_type, facts.messages_truncated) == ((reason,), None, False)
    request = clients.last.request_facts(BEDROCK)
    assert (request.operation_name, request.provider_name) == ("chat", "aws.bedrock")
    assert (request.model, request.stream) == (model, True)


@BEDROCK_MODELS
def test_plain_converse_equals_botocore(clients: Clients, name: str) -> None:
    sdk = clients.bedrock.converse(modelId=f"anthropic.{name}", messages=CONVERSATION)
    facts = clients.last.response_facts(BEDROCK)
    assert (facts.usage, facts.finish_reasons, facts.messages) == (
        of_bedrock(sdk["usage"]),
        (sdk["stopReason"],),
        None,
    )
    details = sdk["usage"].get("cacheDetails", [])
    assert facts.billing.cache_write_1h_tokens == next((one["inputTokens"] for one in details), None)
    assert clients.last.request_facts(BEDROCK).stream is False


@MODELS
@THINKING
def test_invoked_anthropic_model_equals_both_sdks(clients: Clients, model: str, thinking: bool) -> None:
    body = json.dumps({"messages": MESSAGES, "thinking": {"type": "enabled" if thinking else "disabled"}})
    given = {"modelId": f"anthropic.{model}", "body": body}
    events = list(clients.bedrock.invoke_model_with_response_stream(**given)["body"])
    with anthropic_stream([json.loads(event["chunk"]["bytes"]) for event in events]) as stream:
        sdk = stream.get_final_message()
    facts = clients.last.response_facts(BEDROCK)
    assert (facts.usage, facts.model, facts.id) == (of_anthropic(sdk.usage), sdk.model, sdk.id)
    parts = parts_of_anthropic(sdk)
    assert facts.messages == [{"role": "assistant", "parts": parts, "finish_reason": sdk.stop_reason}]
    whole = anthropic.types.Message.model_validate_json(clients.bedrock.invoke_model(**given)["body"].read())
    facts = clients.last.response_facts(BEDROCK)
    assert (facts.usage, facts.model, facts.id) == (of_anthropic(whole.usage), whole.model, whole.id)
    assert (facts.finish_reasons, facts.messages) == ((whole.stop_reason,), None)
    assert clients.last.request_facts(BEDROCK).operation_name == "chat"


def test_other_invoked_model_has_the_counts_that_botocore_returns(clients: Clients) -> None:
    given = {"modelId": "meta.any-model", "body": '{"prompt": "x"}'}
    events = list(clients.bedrock.invoke_model_with_response_stream(**given)["body"])
    counts = json.loads(events[-1]["chunk"]["bytes"])["amazon-bedrock-invocationMetrics"]
    facts = clients.last.response_facts(BEDROCK)
    assert facts == ResponseFacts(usage=Usage(counts["inputTokenCount"], counts["outputTokenCount"]))
    headers = clients.bedrock.invoke_model(**given)["ResponseMetadata"]["HTTPHeaders"]
    facts = clients.last.response_facts(BEDROCK)
    sdk = [int(headers[f"x-amzn-bedrock-{kind}-token-count"]) for kind in ("input", "output")]
    assert facts == ResponseFacts(usage=Usage(*sdk))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", [400, 403, 404, 424, 429, 500, 503])
def test_bedrock_error_equals_botocores(clients: Clients, status: int, streamed: bool) -> None:
    call = clients.bedrock.converse_stream if streamed else clients.bedrock.converse
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(modelId=f"anthropic.fail-{status}", messages=CONVERSATION)
    facts = clients.last.response_facts(BEDROCK)
    assert (facts.error_type, facts.usage) == (caught.value.response["Error"]["Code"], Usage())
    assert facts.error_type != "_OTHER"


@pytest.mark.parametrize("vendor", ["anthropic", "meta"])
@pytest.mark.parametrize("operation", ["converse", "invoke"])
def test_exception_within_a_bedrock_stream_equals_botocores(clients: Clients, operation: str, vendor: str) -> None:
    events: list[dict[str, Any]] = []
    with pytest.raises(botocore.exceptions.EventStreamError) as caught:
        events.extend(bedrock_stream_of(clients, operation, f"{vendor}.fail-stream"))
    facts = clients.last.response_facts(BEDROCK)
    code = caught.value.response["Error"]["Code"]
    assert (facts.error_type, facts.finish_reasons) == (code[:1].upper() + code[1:], ())
    assert facts.usage.output_tokens is None


def bedrock_stream_of(clients: Clients, operation: str, model: str) -> Any:
    if operation == "converse":
        return clients.bedrock.converse_stream(modelId=model, messages=CONVERSATION)["stream"]
    body = json.dumps({"messages": MESSAGES})
    return clients.bedrock.invoke_model_with_response_stream(modelId=model, body=body)["body"]


@pytest.mark.parametrize("operation", ["converse", "invoke"])
def test_aborted_bedrock_stream_equals_botocores(clients: Clients, operation: str) -> None:
    clients.bedrock_tap.extra = {"x-standin-abort-after": "1500", "x-standin-events": "20"}
    events: list[dict[str, Any]] = []
    try:
        with pytest.raises(urllib3.exceptions.ProtocolError):
            for event in bedrock_stream_of(clients, operation, "anthropic.any-model"):
                events.append(event)
    finally:
        clients.bedrock_tap.extra = {}
    facts = clients.last.response_facts(BEDROCK)
    assert events
    assert (facts.usage.output_tokens, facts.finish_reasons, facts.error_type) == (None, (), None)
    if operation == "converse":
        parts = parts_of_bedrock(events)
    else:
        chunks = [json.loads(event["chunk"]["bytes"]) for event in events]
        text = "".join(chunk["delta"]["text"] for chunk in chunks if chunk["type"] == "content_block_delta")
        parts = [{"type": "text", "content": text}]
    assert facts.messages == [{"role": "assistant", "parts": parts}]


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
        sdk = stream.get_final_message()
    facts = clients.last.response_facts("api.anthropic.com")
    assert facts.usage == of_anthropic(sdk.usage)
    assert facts.messages_truncated
    assert facts.messages is not None
    text = facts.messages[0]["parts"][0]["content"]
    assert len(text) < 1 << 20
    assert sdk.content[0].type == "text"
    assert sdk.content[0].text.startswith(text)


def test_fake_logs_its_responses(clients: Clients, providers: LLMProviders) -> None:
    sdk = clients.openai.responses.create(
        model="gpt-5", input="hello", extra_headers={"x-standin-encoding": "gzip", "X-Extra": "1"}
    )
    entry = providers.log[-1]
    body = clients.last.decoded()
    assert sdk.usage is not None
    assert entry["usage"] == sdk.usage.model_dump(exclude_unset=True)
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
