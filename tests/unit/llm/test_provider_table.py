"""The provider test table. Each cell compares the results of an SDK and of our readers for the same bytes.

If a case does not exist for a provider, the cell contains the reason. Print the table:

    pytest -q tests/unit/llm/test_provider_table.py --provider-table
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anthropic
import botocore.exceptions
import cohere
import cohere.core
import groq
import httpx
import mistralai.client.errors
import mistralai.gcp.client.errors
import ollama
import openai
import pytest
from google import genai
from google.genai import errors, types
from google.genai._interactions import GeminiNextGenAPIClientError

from openclaw_egress.llm import OTHER_ERROR, Usage
from openclaw_egress.llm.conversation import response_turns
from openclaw_egress.llm.registry import APIS, api_of
from tests.support.llm_providers import LLMProviders
from tests.unit import provider_replies
from tests.unit.llm_samples import sampled
from tests.unit.provider_dialects import DIALECTS, Dialect
from tests.unit.provider_recording import Clients, Reply
from tests.unit.sdk_usage import anthropic_stream, of_anthropic, of_bedrock, of_chat, of_gemini, of_ollama, of_responses

GEMINI = "generativelanguage.googleapis.com"
MESSAGES: Any = [{"role": "user", "content": "Grüße ✓"}]
CASES = ("plain", "streamed", "tools", "reasoning", "cached", "error", "aborted")
MODELS = {"tools": "tools", "error": "fail-429"}
ABORT = {"x-standin-events": "40", "x-standin-abort-after": "3500"}


class Refused(Exception):
    """An error that an SDK returns as an event instead of an exception."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body


@dataclass
class SdkResult:
    """The result that an SDK returns. ``usage`` is None if the SDK returns no usage, such as for an aborted stream."""

    usage: Usage | None = None
    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    reasons: tuple[str, ...] = ()
    error: str | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Ask:
    """One call of an SDK: the clients, the case of the table, the model, and headers that control the fake provider."""

    clients: Clients
    case: str
    model: str
    headers: dict[str, str]

    @property
    def streamed(self) -> bool:
        return self.case not in ("plain", "error")


@dataclass(frozen=True)
class Row:
    """A provider's API: its host, its name in the registry, functions for its SDK, and the cases that it lacks.

    ``call`` calls the SDK and fills the ``SdkResult``. ``error`` returns the error type of the SDK's exception.
    ``none`` contains the reason for each case that the API lacks. ``ignored`` names the fields of `Usage` that the SDK
    does not know.
    """

    host: str
    api: str
    call: Callable[[Ask, SdkResult], None]
    error: Callable[[Any], str | None]
    none: Mapping[str, str] = field(default_factory=dict)
    reasoning_model: str = "any-model"
    cached_model: str = "any-model"
    ignored: tuple[str, ...] = ()


def ask_anthropic(client: Callable[[Clients], Any]) -> Callable[[Ask, SdkResult], None]:
    def call(ask: Ask, sdk: SdkResult) -> None:
        thinking: Any = {"type": "enabled", "budget_tokens": 1024} if ask.case == "reasoning" else anthropic.omit
        given: Any = {"model": ask.model, "max_tokens": 2000, "messages": MESSAGES, "thinking": thinking}
        messages = client(ask.clients).messages
        if ask.streamed:
            with messages.stream(**given, extra_headers=ask.headers) as stream:
                for text in stream.text_stream:
                    sdk.text += text
                message = stream.get_final_message()
        else:
            message = messages.create(**given)
        take_anthropic(message, sdk)

    return call


def take_anthropic(message: anthropic.types.Message, sdk: SdkResult) -> None:
    sdk.usage, sdk.reasons = of_anthropic(message.usage), (str(message.stop_reason),)
    sdk.text = "".join(block.text for block in message.content if block.type == "text")
    sdk.reasoning = "".join(block.thinking for block in message.content if block.type == "thinking")
    sdk.calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]


def take_chat(choice: Any, message: Any, sdk: SdkResult) -> None:
    """Add a Chat Completions message of any SDK, or the delta of a chunk, to the result."""
    content = message.content if isinstance(message.content, list) else [message.content]
    for piece in content:
        for thought in getattr(piece, "thinking", None) or []:
            sdk.reasoning += thought.text
        # Mistral's client for Vertex AI has no type for reasoning, and returns it unmodified in `raw`.
        for thought in (getattr(piece, "raw", None) or {}).get("thinking", []):
            sdk.reasoning += thought["text"]
        sdk.text += piece if isinstance(piece, str) else getattr(piece, "text", None) or ""
    names = ("reasoning", "reasoning_content", "reasoning_text")
    sdk.reasoning += next((text for name in names if (text := getattr(message, name, None))), "")
    for call in getattr(message, "tool_calls", None) or []:
        name, arguments = sdk.calls.pop() if sdk.calls else ("", "")
        sdk.calls.append((name or call.function.name, arguments + (call.function.arguments or "")))
    if choice.finish_reason:
        sdk.reasons = (str(choice.finish_reason),)


def end_chat(sdk: SdkResult) -> None:
    sdk.calls = [(name, json.loads(arguments)) for name, arguments in sdk.calls]


def ask_chat(
    client: Callable[[Ask], Any],
    of_usage: Callable[[Any], tuple[Usage, float | None]] = lambda usage: (of_chat(usage), None),
) -> Callable[[Ask, SdkResult], None]:
    def call(ask: Ask, sdk: SdkResult) -> None:
        create = client(ask).chat.completions.create
        if not ask.streamed:
            whole = create(model=ask.model, messages=MESSAGES)
            take_chat(whole.choices[0], whole.choices[0].message, sdk)
            sdk.usage, sdk.cost = of_usage(whole.usage)
            return
        options = {} if client is of_groq else {"stream_options": {"include_usage": True}}
        for chunk in create(model=ask.model, messages=MESSAGES, stream=True, extra_headers=ask.headers, **options):
            # Groq sends the usage in `x_groq`; Moonshot AI sends it in a choice.
            holders = [chunk, getattr(chunk, "x_groq", None), *chunk.choices]
            for usage in filter(None, (getattr(holder, "usage", None) for holder in holders)):
                sdk.usage, sdk.cost = of_usage(usage)
            for choice in chunk.choices:
                take_chat(choice, choice.delta, sdk)
        end_chat(sdk)

    return call


def ask_dialect(dialect: Dialect) -> Callable[[Ask, SdkResult], None]:
    return ask_chat(lambda ask: dialect.client(ask.clients.replaying(dialect.reply(ask.case))), dialect.usage_of)


def ask_completions(ask: Ask, sdk: SdkResult) -> None:
    create, options = ask.clients.openai.completions.create, {"include_usage": True}
    given: Any = {"model": ask.model, "prompt": "Grüße ✓"}
    if ask.streamed:
        replies: Any = create(**given, stream=True, stream_options=options, extra_headers=ask.headers)
    else:
        replies = [create(**given)]
    for reply in replies:
        sdk.usage = of_chat(reply.usage) if reply.usage else sdk.usage
        for choice in reply.choices:
            sdk.text += choice.text
            sdk.reasons = (choice.finish_reason,) if choice.finish_reason else sdk.reasons


def of_groq(ask: Ask) -> groq.Groq:
    return ask.clients.groq


def ask_mistral(client: Callable[[Clients], Any], **given: Any) -> Callable[[Ask, SdkResult], None]:
    def call(ask: Ask, sdk: SdkResult) -> None:
        chat, headers = client(ask.clients), ask.headers
        if not ask.streamed:
            whole: Any = chat.complete(model=ask.model, **given)
            take_chat(whole.choices[0], whole.choices[0].message, sdk)
            sdk.usage = of_mistral(whole.usage)
            return
        for event in chat.stream(model=ask.model, **given, http_headers=headers):
            if event.data.usage:
                sdk.usage = of_mistral(event.data.usage)
            for choice in event.data.choices:
                take_chat(choice, choice.delta, sdk)
        end_chat(sdk)

    return call


def of_mistral(usage: Any) -> Usage:
    # Mistral's SDK has no type for the usage details, and returns them unmodified.
    extra = usage.additional_properties
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        cache_read_input_tokens=extra["prompt_tokens_details"]["cached_tokens"],
        reasoning_output_tokens=extra["completion_tokens_details"]["reasoning_tokens"],
    )


def ask_responses(client: Callable[[Ask], Any]) -> Callable[[Ask, SdkResult], None]:
    def call(ask: Ask, sdk: SdkResult) -> None:
        create = client(ask).responses.create
        if not ask.streamed:
            take_response(create(model=ask.model, input="x"), sdk)
        else:
            take_events(create(model=ask.model, input="x", stream=True, extra_headers=ask.headers), sdk)

    return call


def take_events(events: Iterable[Any], sdk: SdkResult) -> None:
    """Add the events of a Responses stream or WebSocket to the result. Raise Refused for an error event."""
    for event in events:
        if event.type == "error":
            raise Refused(event.model_dump())
        if event.type == "response.output_text.delta":
            sdk.text += event.delta
        if event.type == "response.completed":
            take_response(event.response, sdk)


def calls_in(response: Any) -> list[tuple[str, Any]]:
    """Return the tool calls in a response of the Responses API or the Realtime API."""
    return [(item.name, json.loads(item.arguments)) for item in response.output if item.type == "function_call"]


def take_response(response: Any, sdk: SdkResult) -> None:
    sdk.usage, sdk.reasons, sdk.text = of_responses(response.usage), (str(response.status),), response.output_text
    sdk.calls = calls_in(response)


def replayed_openai(host: str, base: str, reply: Callable[[str], Reply]) -> Callable[[Ask], openai.OpenAI]:
    """Return a function that creates a client of OpenAI's SDK. The client receives ``reply(ask.case)``."""

    def client(ask: Ask) -> openai.OpenAI:
        http = ask.clients.replaying(reply(ask.case))
        return openai.OpenAI(api_key="test", base_url=f"https://{host}{base}", max_retries=0, http_client=http)

    return client


def ask_responses_socket(ask: Ask, sdk: SdkResult) -> None:
    messages = provider_replies.response_messages(ask.case)
    with (
        ask.clients.speaking("/v1/responses", messages, cut=ask.case == "aborted") as client,
        client.responses.connect(max_retries=0) as connection,
    ):
        connection.response.create(model="m", input="x")
        take_events(connection, sdk)


def ask_realtime(ask: Ask, sdk: SdkResult) -> None:
    messages = provider_replies.realtime_messages(ask.case)
    with (
        ask.clients.speaking("/v1/realtime", messages, cut=ask.case == "aborted") as client,
        client.realtime.connect(model="m", max_retries=0) as connection,
    ):
        connection.response.create()
        for event in connection:
            if event.type == "error":
                raise Refused(event.model_dump())
            if event.type == "response.output_audio_transcript.delta":
                sdk.text += event.delta
            if event.type == "response.done":
                take_realtime(event.response, sdk)


def take_realtime(response: Any, sdk: SdkResult) -> None:
    usage = response.usage
    sdk.usage = Usage(usage.input_tokens, usage.output_tokens, usage.input_token_details.cached_tokens)
    sdk.reasons = (response.status,)
    sdk.calls = calls_in(response)


def ask_transcriptions(ask: Ask, sdk: SdkResult) -> None:
    client = replayed_openai("api.openai.com", "/v1", provider_replies.transcription)(ask)
    given: Any = {"model": ask.model, "file": b"RIFF"}
    if not ask.streamed:
        whole: Any = client.audio.transcriptions.create(**given)
        sdk.text, sdk.usage = whole.text, Usage(whole.usage.input_tokens, whole.usage.output_tokens)
        return
    for event in client.audio.transcriptions.create(**given, stream=True):
        if event.type == "transcript.text.done" and event.usage is not None:
            sdk.usage = Usage(event.usage.input_tokens, event.usage.output_tokens)


def ask_speech(ask: Ask, sdk: SdkResult) -> None:
    client = replayed_openai("api.openai.com", "/v1", provider_replies.speech)(ask)
    assert client.audio.speech.create(model=ask.model, input="x", voice="alloy").read()
    sdk.usage = Usage()


def ask_cohere_v1(ask: Ask, sdk: SdkResult) -> None:
    http = ask.clients.replaying(provider_replies.cohere_v1(ask.case), httpx)
    client = cohere.Client("test", base_url="https://api.cohere.com", max_retries=0, httpx_client=http)
    whole: Any = None
    if not ask.streamed:
        whole = client.chat(message="Grüße ✓")
        sdk.text = whole.text
    else:
        for event in client.chat_stream(message="Grüße ✓"):
            if event.event_type == "text-generation":
                sdk.text += event.text
            if event.event_type == "stream-end":
                whole = event.response
    if whole is not None:
        sdk.calls = [(one.name, one.parameters) for one in whole.tool_calls or []]
        tokens, sdk.reasons = whole.meta.tokens, (whole.finish_reason,)
        sdk.usage = Usage(tokens.input_tokens, tokens.output_tokens, whole.meta.cached_tokens)


def ask_interactions(ask: Ask, sdk: SdkResult) -> None:
    http = ask.clients.replaying(provider_replies.interactions(ask.case), httpx)
    # Keep a reference to the client: if it is garbage-collected, it closes its connections.
    client = genai.Client(api_key="test", http_options=types.HttpOptions(httpx_client=http))
    interactions: Any = client.interactions
    if not ask.streamed:
        whole = interactions.create(model=ask.model, input="x")
        sdk.text = "".join(piece.text for step in whole.steps for piece in step.content)
        take_interaction(whole, sdk)
        return
    for event in interactions.create(model=ask.model, input="x", stream=True):
        if event.event_type == "step.start" and event.step.type == "function_call":
            sdk.calls.append((event.step.name, ""))
        elif event.event_type == "step.delta" and event.delta.type == "text":
            sdk.text += event.delta.text
        elif event.event_type == "step.delta" and event.delta.type == "thought_summary":
            sdk.reasoning += event.delta.content.text
        elif event.event_type == "step.delta" and event.delta.type == "arguments_delta":
            name, arguments = sdk.calls.pop()
            sdk.calls.append((name, arguments + event.delta.arguments))
        elif event.event_type == "interaction.completed":
            take_interaction(event.interaction, sdk)
            end_chat(sdk)


def take_interaction(interaction: Any, sdk: SdkResult) -> None:
    usage, sdk.reasons = interaction.usage, (interaction.status,)
    sdk.usage = Usage(
        input_tokens=usage.total_input_tokens + usage.total_tool_use_tokens,
        output_tokens=usage.total_output_tokens + usage.total_thought_tokens,
        cache_read_input_tokens=usage.total_cached_tokens,
        reasoning_output_tokens=usage.total_thought_tokens,
    )


def ask_count(count: Callable[[Ask], Any]) -> Callable[[Ask, SdkResult], None]:
    """Return a function that calls ``count`` and leaves the usage empty, because counting tokens runs no model."""

    def call(ask: Ask, sdk: SdkResult) -> None:
        assert count(ask) > 0
        sdk.usage = Usage()

    return call


def count_anthropic(client: Any, ask: Ask) -> Any:
    return client.messages.count_tokens(model=ask.model, messages=MESSAGES).input_tokens


def count_bedrock(ask: Ask) -> Any:
    given: Any = {"converse": {"messages": [{"role": "user", "content": [{"text": "x"}]}]}}
    return ask.clients.bedrock.count_tokens(modelId=f"anthropic.{ask.model}", input=given)["inputTokens"]


def ask_batch(ask: Ask, sdk: SdkResult) -> None:
    http = ask.clients.replaying(provider_replies.batch(ask.case))
    request: Any = {"custom_id": "1", "params": {"model": ask.model, "max_tokens": 9, "messages": MESSAGES}}
    client = anthropic.Anthropic(api_key="test", max_retries=0, http_client=http)
    assert client.messages.batches.create(requests=[request]).processing_status == "in_progress"
    sdk.usage = Usage()


def ask_gemini(ask: Ask, sdk: SdkResult) -> None:
    config = types.GenerateContentConfig(
        thinking_config=types.ThinkingConfig(include_thoughts=True) if ask.case == "reasoning" else None,
        http_options=types.HttpOptions(headers=ask.headers),
    )
    given: Any = {"model": ask.model, "contents": "Grüße ✓", "config": config}
    models = ask.clients.gemini.models
    for chunk in models.generate_content_stream(**given) if ask.streamed else [models.generate_content(**given)]:
        take_gemini(chunk, sdk)


def take_gemini(chunk: types.GenerateContentResponse, sdk: SdkResult) -> None:
    sdk.usage = of_gemini(chunk.usage_metadata)
    for part in chunk.parts or []:
        if part.function_call:
            sdk.calls.append((str(part.function_call.name), part.function_call.args))
        elif part.thought:
            sdk.reasoning += part.text or ""
        else:
            sdk.text += part.text or ""
    if chunk.candidates and chunk.candidates[0].finish_reason:
        sdk.reasons = (chunk.candidates[0].finish_reason.value,)


def ask_code_assist(ask: Ask, sdk: SdkResult) -> None:
    """Call Cloud Code Assist as Google's own client does, because it has no SDK. Use the types of `google-genai`."""
    method = "streamGenerateContent?alt=sse" if ask.streamed else "generateContent"
    url = f"https://cloudcode-pa.googleapis.com/v1internal:{method}"
    http = ask.clients.replaying(provider_replies.code_assist(ask.case))
    with http.stream("POST", url, json={"model": ask.model, "request": {"contents": []}}) as response:
        if response.status_code != 200:
            raise Refused(json.loads(response.read()))
        lines = response.iter_lines() if ask.streamed else [f"data: {response.read().decode()}"]
        for line in lines:
            if line.startswith("data: "):
                found = json.loads(line.removeprefix("data: "))["response"]
                take_gemini(types.GenerateContentResponse.model_validate(found), sdk)


def ask_ollama(ask: Ask, sdk: SdkResult) -> None:
    with ask.clients.ollama_with(ask.headers) as client:
        given: Any = {"model": ask.model, "messages": MESSAGES, "think": ask.case == "reasoning"}
        for chunk in client.chat(**given, stream=True) if ask.streamed else [client.chat(**given)]:
            sdk.text += chunk.message.content or ""
            sdk.reasoning += chunk.message.thinking or ""
            sdk.calls += [(one.function.name, one.function.arguments) for one in chunk.message.tool_calls or []]
            if chunk.done:
                sdk.usage, sdk.reasons = of_ollama(chunk), (str(chunk.done_reason),)


def ask_cohere(ask: Ask, sdk: SdkResult) -> None:
    given: Any = {"model": ask.model, "messages": MESSAGES}
    if not ask.streamed:
        whole: Any = ask.clients.cohere.chat(**given)
        sdk.text = "".join(part.text for part in whole.message.content)
        take_cohere(whole, sdk)
        return
    options: Any = {"additional_headers": ask.headers}
    event: Any
    for event in ask.clients.cohere.chat_stream(**given, request_options=options):
        match event.type:
            case "content-delta":
                sdk.text += event.delta.message.content.text or ""
                sdk.reasoning += event.delta.message.content.thinking or ""
            case "tool-plan-delta":
                sdk.reasoning += event.delta.message.tool_plan
            case "tool-call-start":
                sdk.calls.append((event.delta.message.tool_calls.function.name, ""))
            case "tool-call-delta":
                name, arguments = sdk.calls.pop()
                sdk.calls.append((name, arguments + event.delta.message.tool_calls.function.arguments))
            case "message-end":
                take_cohere(event.delta, sdk)
                end_chat(sdk)


def take_cohere(end: Any, sdk: SdkResult) -> None:
    tokens, cached = end.usage.tokens, end.usage.cached_tokens
    sdk.usage, sdk.reasons = Usage(tokens.input_tokens, tokens.output_tokens, cached), (end.finish_reason,)


def ask_converse(ask: Ask, sdk: SdkResult) -> None:
    given: Any = {"modelId": f"anthropic.{ask.model}", "messages": [{"role": "user", "content": [{"text": "x"}]}]}
    if not ask.streamed:
        whole = ask.clients.bedrock.converse(**given)
        sdk.usage, sdk.reasons = of_bedrock(whole["usage"]), (whole["stopReason"],)
        sdk.text = "".join(block.get("text", "") for block in whole["output"]["message"]["content"])
        return
    for event in ask.clients.bedrock.converse_stream(**given)["stream"]:
        delta = event.get("contentBlockDelta", {}).get("delta", {})
        sdk.text += delta.get("text", "")
        sdk.reasoning += delta.get("reasoningContent", {}).get("text", "")
        if "contentBlockStart" in event:
            sdk.calls.append((event["contentBlockStart"]["start"]["toolUse"]["name"], ""))
        if "toolUse" in delta:
            name, arguments = sdk.calls.pop()
            sdk.calls.append((name, arguments + delta["toolUse"]["input"]))
        if "messageStop" in event:
            sdk.reasons = (event["messageStop"]["stopReason"],)
        if "metadata" in event:
            sdk.usage = of_bedrock(event["metadata"]["usage"])
    end_chat(sdk)


def ask_invoke(ask: Ask, sdk: SdkResult) -> None:
    thinking = {"thinking": {"type": "enabled"}} if ask.case == "reasoning" else {}
    given: Any = {"modelId": f"anthropic.{ask.model}", "body": json.dumps({"messages": MESSAGES} | thinking)}
    if not ask.streamed:
        body = ask.clients.bedrock.invoke_model(**given)["body"].read()
        take_anthropic(anthropic.types.Message.model_validate_json(body), sdk)
        return
    events: list[Any] = []
    try:
        for event in ask.clients.bedrock.invoke_model_with_response_stream(**given)["body"]:
            events.append(json.loads(event["chunk"]["bytes"]))
    finally:
        with anthropic_stream(events) as stream:
            sdk.text = "".join(stream.text_stream)
            if events[-1]["type"] == "message_stop":
                take_anthropic(stream.get_final_message(), sdk)


def ask_embeddings(ask: Ask, sdk: SdkResult) -> None:
    sdk.usage = Usage(ask.clients.openai.embeddings.create(model=ask.model, input="x").usage.prompt_tokens)


def ask_images(ask: Ask, sdk: SdkResult) -> None:
    images = ask.clients.openai.images
    if not ask.streamed:
        usage: Any = images.generate(model=ask.model, prompt="x").usage
        sdk.usage = Usage(usage.input_tokens, usage.output_tokens)
        return
    for event in images.generate(model=ask.model, prompt="x", stream=True, extra_headers=ask.headers):
        if event.type == "image_generation.completed":
            sdk.usage = Usage(event.usage.input_tokens, event.usage.output_tokens)


def error_in(body: Any) -> str | None:
    """Return the code or type of an error in the format of OpenAI or Google; None if the body has another format.

    Accept a body without the outer object `error`, because some SDKs remove it.
    """
    inner = body[0] if isinstance(body, list) else body
    inner = inner.get("error", inner) if isinstance(inner, dict) else inner
    if not isinstance(inner, dict):
        return OTHER_ERROR
    if not {"code", "error", "message", "type"} & inner.keys():
        return None
    words = (inner.get(name) for name in ("code", "type", "status"))
    return next((word for word in words if isinstance(word, str) and not word.isdecimal()), OTHER_ERROR)


NO_NAME = {"error": "an error has a message, and no name"}
NO_CACHE = {"cached": "the SDK drops the count of cached tokens"}
BINARY = {"tools": "no tools", "reasoning": "no reasoning", "cached": "no count of cached tokens"}
ROWS = {
    "anthropic": Row(
        "api.anthropic.com",
        "messages",
        ask_anthropic(lambda clients: clients.anthropic),
        lambda e: str(e.body["error"]["type"]),
    ),
    "vertex anthropic": Row(
        "aiplatform.googleapis.com",
        "vertex-anthropic",
        ask_anthropic(lambda clients: clients.vertex),
        lambda e: str(e.body["error"]["type"]),
    ),
    "openai chat": Row("api.openai.com", "chat", ask_chat(lambda ask: ask.clients.openai), lambda e: error_in(e.body)),
    "openai completions": Row(
        "api.openai.com",
        "completions",
        ask_completions,
        lambda e: error_in(e.body),
        {"tools": "no tools", "reasoning": "no reasoning"},
    ),
    "openai responses": Row(
        "api.openai.com", "responses", ask_responses(lambda ask: ask.clients.openai), lambda e: error_in(e.body)
    ),
    "openai embeddings": Row(
        "api.openai.com",
        "embeddings",
        ask_embeddings,
        lambda e: error_in(e.body),
        BINARY | {"streamed": "no stream", "aborted": "no stream"},
    ),
    "openai images": Row("api.openai.com", "images", ask_images, lambda e: error_in(e.body), BINARY),
    "gemini": Row(GEMINI, "generate-content", ask_gemini, lambda e: str(e.status)),
    "bedrock converse": Row(
        "bedrock-runtime.us-east-1.amazonaws.com",
        "bedrock-converse",
        ask_converse,
        lambda e: str(e.response["Error"]["Code"]),
        reasoning_model="thinks",
        cached_model="cached",
    ),
    "bedrock invoke": Row(
        "bedrock-runtime.us-east-1.amazonaws.com",
        "bedrock-invoke-anthropic",
        ask_invoke,
        lambda e: str(e.response["Error"]["Code"]),
    ),
    "cohere": Row(
        "api.cohere.com",
        "cohere-chat",
        ask_cohere,
        lambda e: None,
        NO_NAME,
        reasoning_model="thinks",
    ),
    "groq": Row("api.groq.com", "chat", ask_chat(of_groq), lambda e: error_in(e.body), reasoning_model="thinks"),
    "mistral": Row(
        "api.mistral.ai",
        "chat",
        ask_mistral(lambda clients: clients.mistral.chat, messages=MESSAGES),
        lambda e: error_in(json.loads(e.body)),
        reasoning_model="thinks",
    ),
    "mistral fim": Row(
        "codestral.mistral.ai",
        "completions",
        ask_mistral(lambda clients: clients.mistral.fim, prompt="def f(", suffix="return a + b"),
        lambda e: error_in(json.loads(e.body)),
        {"tools": "no tools", "reasoning": "no reasoning"},
    ),
    "vertex mistral": Row(
        "europe-west4-aiplatform.googleapis.com",
        "vertex-mistral",
        ask_mistral(lambda clients: clients.mistral_on_vertex.chat, messages=MESSAGES),
        lambda e: error_in(json.loads(e.body)),
        reasoning_model="thinks",
    ),
    "ollama": Row(
        "ollama.com",
        "ollama-chat",
        ask_ollama,
        lambda e: None,
        NO_NAME | NO_CACHE,
        ignored=("cache_read_input_tokens",),
    ),
}
NO_STREAM = {"streamed": "no stream", "aborted": "no stream"}
COUNT = BINARY | NO_STREAM
ROWS |= {
    "gemini responses": Row(
        GEMINI,
        "responses",
        ask_responses(replayed_openai(GEMINI, "/v1beta/openai", provider_replies.responses)),
        lambda e: error_in(e.body),
    ),
    "chatgpt codex": Row(
        "chatgpt.com",
        "responses",
        ask_responses(replayed_openai("chatgpt.com", "/backend-api/codex", provider_replies.codex)),
        lambda e: error_in(e.body),
        {"plain": "only streams"},
    ),
    "cloud code assist": Row(
        "cloudcode-pa.googleapis.com", "generate-content", ask_code_assist, lambda e: error_in(e.body)
    ),
    "responses socket": Row(
        "api.openai.com", "responses", ask_responses_socket, lambda e: error_in(e.body), {"plain": "only streams"}
    ),
    "openai realtime": Row(
        "api.openai.com",
        "realtime",
        ask_realtime,
        lambda e: error_in(e.body),
        {"plain": "only streams", "reasoning": "no reasoning"},
    ),
    "openai transcript": Row("api.openai.com", "audio", ask_transcriptions, lambda e: error_in(e.body), BINARY),
    "openai speech": Row(
        "api.openai.com",
        "audio",
        ask_speech,
        lambda e: error_in(e.body),
        BINARY | dict.fromkeys(("streamed", "aborted"), "the SDK returns bytes without events"),
    ),
    "cohere v1": Row(
        "api.cohere.com", "cohere-chat-v1", ask_cohere_v1, lambda e: None, NO_NAME | {"reasoning": "no reasoning"}
    ),
    "gemini interactions": Row(GEMINI, "interactions", ask_interactions, lambda e: error_in(e.body)),
    "anthropic count": Row(
        "api.anthropic.com",
        "messages-count",
        ask_count(lambda ask: count_anthropic(ask.clients.anthropic, ask)),
        lambda e: str(e.body["error"]["type"]),
        COUNT,
    ),
    "vertex count": Row(
        "aiplatform.googleapis.com",
        "vertex-anthropic-count",
        ask_count(lambda ask: count_anthropic(ask.clients.vertex, ask)),
        lambda e: str(e.body["error"]["type"]),
        COUNT,
    ),
    "openai count": Row(
        "api.openai.com",
        "responses-count",
        ask_count(lambda ask: ask.clients.openai.responses.input_tokens.count(model=ask.model, input="x").input_tokens),
        lambda e: error_in(e.body),
        COUNT,
    ),
    "gemini count": Row(
        GEMINI,
        "gemini-count",
        ask_count(lambda ask: ask.clients.gemini.models.count_tokens(model=ask.model, contents="x").total_tokens),
        lambda e: str(e.status),
        COUNT,
    ),
    "bedrock count": Row(
        "bedrock-runtime.us-east-1.amazonaws.com",
        "bedrock-count",
        ask_count(count_bedrock),
        lambda e: str(e.response["Error"]["Code"]),
        COUNT,
    ),
    # The results of a batch do not count as usage, because a client can download them again; see test_sdks.py.
    "anthropic batch": Row(
        "api.anthropic.com",
        "",
        ask_batch,
        lambda e: None,
        COUNT | {"error": "nothing reads the responses of this path"},
    ),
}
ROWS |= {
    name: Row(one.host, "chat", ask_dialect(one), lambda e: error_in(e.body), one.none)
    for name, one in DIALECTS.items()
}
FAILURES = (
    Refused,
    GeminiNextGenAPIClientError,
    anthropic.APIStatusError,
    openai.APIStatusError,
    groq.APIStatusError,
    errors.APIError,
    ollama.ResponseError,
    cohere.core.ApiError,
    mistralai.client.errors.MistralError,
    mistralai.gcp.client.errors.MistralGCPError,
    botocore.exceptions.ClientError,
)


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with LLMProviders() as providers:
        clients = Clients(providers)
        yield clients
        clients.close()


def sdk_result(row: Row, ask: Ask) -> SdkResult:
    sdk = SdkResult()
    ask.clients.bedrock_tap.extra = ask.headers
    try:
        if ask.case == "error":
            with pytest.raises(FAILURES) as caught:
                row.call(ask, sdk)
            sdk.error = row.error(caught.value)
        elif ask.case == "aborted":
            # After an abort, most SDKs raise an exception of their own. Some end as if the stream were complete.
            with suppress(Exception):
                row.call(ask, sdk)
        else:
            row.call(ask, sdk)
    finally:
        ask.clients.bedrock_tap.extra = {}
    return sdk


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ROWS)
def test_sdk_and_reader_return_equal_results_in_each_cell(
    clients: Clients, name: str, case: str, record_property: Callable[[str, object], None]
) -> None:
    row = ROWS[name]

    def state(result: str) -> None:
        record_property("cell", (list(ROWS).index(name), CASES.index(case), name, case, result))

    model = {"reasoning": row.reasoning_model, "cached": row.cached_model}.get(case, MODELS.get(case, "any-model"))
    ask = Ask(clients, case, model, ABORT if case == "aborted" else {})
    if (reason := row.none.get(case)) and case != "error":
        state(f"none: {reason}")
        return
    sdk = sdk_result(row, ask)
    exchange = clients.last
    api = api_of(exchange.path)
    assert (api.name if api is not None else "") == row.api
    facts = exchange.response_facts(row.host)
    found = dict.fromkeys(row.ignored)
    usage = Usage(**{**vars(facts.usage), **found})
    if case == "error":
        assert (facts.error_type, facts.usage) == (sdk.error, Usage())
    elif case == "aborted":
        assert exchange.aborted or clients.providers.log[-1]["outcome"] == "aborted"
        assert sdk.usage is None or usage == sdk.usage
        assert facts.finish_reasons == sdk.reasons == ()
        assert facts.usage.output_tokens is None or sdk.usage is not None
    else:
        assert usage == sdk.usage
        assert facts.finish_reasons == sdk.reasons
        assert facts.error_type is None
        assert sdk.cost is None or facts.billing.stated_cost == pytest.approx(sdk.cost)
    if case == "cached":
        assert facts.usage.cache_read_input_tokens
    if case == "reasoning":
        assert sdk.reasoning or facts.usage.reasoning_output_tokens
    if case == "tools":
        assert sdk.calls
    if ask.streamed and facts.messages is not None:
        assert said(facts.messages) == (sdk.text, sdk.reasoning, sdk.calls)
    elif case == "plain":
        parts = [part for turn in response_turns(exchange.decoded().decode()) for part in turn.parts]
        assert "".join(part.text for part in parts if part.kind == "text") == sdk.text
    state(f"none: {reason}" if reason else "equal")


def said(messages: list[dict[str, Any]]) -> tuple[str, str, list[tuple[str, Any]]]:
    parts = [part for message in messages for part in message["parts"]]
    texts = ["".join(part["content"] for part in parts if part["type"] == kind) for kind in ("text", "reasoning")]
    calls = [(part["name"], part["arguments"]) for part in parts if part["type"] == "tool_call"]
    return texts[0], texts[1], calls


def test_every_registered_api_has_a_row() -> None:
    # These APIs need no row: they have no SDK, or other tests compare their readers with the SDK's types.
    without = sampled() | {"ollama-generate"}
    without |= {"bedrock-invoke", "bedrock-invoke-embeddings", "vertex-anthropic-regional"}
    assert {row.api for row in ROWS.values() if row.api} | without == {api.name for api in APIS}
