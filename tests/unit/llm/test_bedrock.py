"""Tests of Bedrock's Converse and InvokeModel with examples from AWS's reference: responses, streams and requests."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader
from openclaw_egress.llm.model import Billing
from tests.support.llm_providers import aws_event, aws_exception, aws_message

HOST = "bedrock-runtime.us-east-1.amazonaws.com"
CONVERSE = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream"
CLAUDE = "/model/anthropic.claude-3-haiku-20240307-v1:0/invoke-with-response-stream"
LLAMA = "/model/meta.llama3-3-70b-instruct-v1:0/invoke-with-response-stream"
STREAM = "application/vnd.amazon.eventstream"
USAGE = {
    "inputTokens": 20,
    "outputTokens": 30,
    "cacheReadInputTokens": 1000,
    "cacheWriteInputTokens": 200,
    "totalTokens": 1250,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 150}, {"ttl": "5m", "inputTokens": 50}],
}
COUNTED = Usage(1220, 30, 1000, 200)


def read(path: str, content_type: str | None, *chunks: bytes, headers: dict[str, str] | None = None) -> ResponseFacts:
    reader = response_reader(HOST, path, content_type, headers)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def delta(index: int, **members: Any) -> bytes:
    return aws_event("contentBlockDelta", {"contentBlockIndex": index, "delta": members})


def chunk(value: dict[str, Any]) -> bytes:
    return aws_event("chunk", {"bytes": base64.b64encode(json.dumps(value).encode()).decode()})


END = [
    aws_event("messageStop", {"stopReason": "tool_use"}),
    aws_event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 9}, "serviceTier": {"type": "default"}}),
]
EVENTS = [
    aws_event("messageStart", {"role": "assistant"}),
    delta(0, reasoningContent={"text": "wh"}),
    delta(0, reasoningContent={"text": "y"}),
    delta(0, reasoningContent={"signature": "c2ln"}),
    aws_event("contentBlockStop", {"contentBlockIndex": 0}),
    delta(1, text="Grü"),
    delta(1, text="ße ✓"),
    aws_event("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t1", "name": "w"}}}),
    delta(2, toolUse={"input": '{"city": '}),
    delta(2, toolUse={"input": '"Rom"}'}),
    *END,
]
PARTS = [
    {"type": "reasoning", "content": "why"},
    {"type": "text", "content": "Grüße ✓"},
    {"type": "tool_call", "id": "t1", "name": "w", "arguments": {"city": "Rom"}},
]


def test_converse_stream_is_assembled_for_every_split_of_its_bytes() -> None:
    body = b"".join(EVENTS)
    expected = ResponseFacts(
        finish_reasons=("tool_use",),
        usage=COUNTED,
        billing=Billing(service_tier="default", cache_write_5m_tokens=50, cache_write_1h_tokens=150),
        messages=[{"role": "assistant", "parts": PARTS, "finish_reason": "tool_use"}],
    )
    for at in range(len(body) + 1):
        assert read(CONVERSE, STREAM, body[:at], body[at:]) == expected


def test_stream_without_its_content_type_is_read() -> None:
    assert read(CONVERSE, None, *EVENTS).usage == COUNTED


def test_usage_and_stop_reason_of_a_plain_converse_response_are_read() -> None:
    body = {
        "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
        "stopReason": "end_turn",
        "usage": USAGE,
        "performanceConfig": {"latency": "optimized"},
        "serviceTier": {"type": "default"},
    }
    # Optimized latency has its own price, so the price of the service tier must not apply.
    assert read(CONVERSE, "application/json", json.dumps(body).encode()) == ResponseFacts(
        finish_reasons=("end_turn",),
        usage=COUNTED,
        billing=Billing(service_tier="optimized", cache_write_5m_tokens=50, cache_write_1h_tokens=150),
    )


def test_aborted_stream_has_no_usage_and_no_stop_reason() -> None:
    facts = read(CONVERSE, STREAM, b"".join(EVENTS[:-2])[:-1])
    assert (facts.finish_reasons, facts.usage, facts.messages_truncated) == ((), Usage(), False)
    assert facts.messages is not None
    assert facts.messages[0]["parts"][:2] == PARTS[:2]


# Each case changes one byte: in the prelude CRC, in a header, in the payload, or in the message CRC.
@pytest.mark.parametrize("at", [9, 20, -6, -1])
def test_events_before_a_wrong_crc_are_kept_and_marked_as_truncated(at: int) -> None:
    wrong = bytearray(EVENTS[6])
    wrong[at] ^= 0x10
    facts = read(CONVERSE, STREAM, b"".join([*EVENTS[:6], bytes(wrong), *EVENTS[7:]]))
    assert facts.messages == [{"role": "assistant", "parts": [PARTS[0], {"type": "text", "content": "Grü"}]}]
    assert facts.messages_truncated
    assert (facts.usage, facts.finish_reasons) == (Usage(), ())


@pytest.mark.parametrize("path", [CONVERSE, CLAUDE, LLAMA])
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("throttlingException", "ThrottlingException"),
        ("modelStreamErrorException", "ModelStreamErrorException"),
        ("somethingNew", "_OTHER"),
        ("", "_OTHER"),
    ],
)
def test_exception_in_a_stream_is_the_error_type(path: str, name: str, word: str) -> None:
    facts = read(path, STREAM, EVENTS[0], aws_exception(name, "no"))
    assert (facts.error_type, facts.usage) == (word, Usage())


def test_error_message_of_a_stream_is_the_error_type() -> None:
    failed = aws_message({":message-type": "error", ":error-code": "InternalServerException"}, b"")
    assert read(CONVERSE, STREAM, failed).error_type == "InternalServerException"


@pytest.mark.parametrize("path", [CONVERSE, CLAUDE])
@pytest.mark.parametrize(
    ("header", "word"),
    [
        ("ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/", "ValidationException"),
        ("com.amazon.bedrock#ThrottlingException", "ThrottlingException"),
        ("SomethingNew", "_OTHER"),
    ],
)
def test_error_type_of_a_response_is_in_its_header(path: str, header: str, word: str) -> None:
    body = b'{"message": "no"}'
    assert read(path, "application/json", body, headers={"x-amzn-errortype": header}).error_type == word
    assert read(path, "application/json", body).error_type is None


START = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "claude-3-haiku", "role": "assistant", "usage": {"input_tokens": 5}},
}
CLAUDE_EVENTS = [
    START,
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi ✓"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
    {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 1, "outputTokenCount": 1}},
]


def test_anthropic_stream_of_invoke_is_read_for_every_split_of_its_bytes() -> None:
    body = b"".join(map(chunk, CLAUDE_EVENTS))
    expected = ResponseFacts(
        model="claude-3-haiku",
        id="msg_1",
        finish_reasons=("end_turn",),
        usage=Usage(5, 7),
        messages=[{"role": "assistant", "parts": [{"type": "text", "content": "Hi ✓"}], "finish_reason": "end_turn"}],
    )
    for at in range(len(body) + 1):
        assert read(CLAUDE, STREAM, body[:at], body[at:]) == expected


def test_anthropic_response_of_invoke_is_read_with_its_own_counts() -> None:
    body = {"type": "message", "id": "m", "model": "claude", "stop_reason": "end_turn", "usage": {"input_tokens": 3}}
    headers = {"x-amzn-bedrock-input-token-count": "9", "x-amzn-bedrock-output-token-count": "9"}
    assert read(CLAUDE, "application/json", json.dumps(body).encode(), headers=headers) == ResponseFacts(
        model="claude", id="m", finish_reasons=("end_turn",), usage=Usage(3)
    )


def test_error_in_the_events_of_anthropic_is_read() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error"}}
    assert read(CLAUDE, STREAM, chunk(START), chunk(error)).error_type == "overloaded_error"


NOVA = "/model/us.amazon.nova-lite-v1:0/invoke"
GPT = "/model/openai.gpt-oss-120b-1:0/invoke"
NOVA_USAGE = {"inputTokens": 5, "outputTokens": 7, "cacheReadInputTokenCount": 20, "cacheWriteInputTokenCount": 0}
METRICS = {"inputTokenCount": 5, "outputTokenCount": 7, "cacheReadInputTokenCount": 20}
CHAT_USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}
TEXT = [{"type": "text", "content": "Grüße ✓"}]


def test_response_of_invoke_in_novas_format_is_read() -> None:
    text = {"role": "assistant", "content": [{"text": "Hi"}]}
    body = {"output": {"message": text}, "stopReason": "end_turn", "usage": NOVA_USAGE}
    headers = {"x-amzn-bedrock-input-token-count": "5", "x-amzn-bedrock-output-token-count": "7"}
    assert read(NOVA, "application/json", json.dumps(body).encode(), headers=headers) == ResponseFacts(
        finish_reasons=("end_turn",), usage=Usage(25, 7, 20, 0)
    )


def test_stream_of_invoke_in_novas_format_is_read() -> None:
    events: list[dict[str, Any]] = [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"text": "Grü"}, "contentBlockIndex": 0}},
        {"contentBlockDelta": {"delta": {"text": "ße ✓"}, "contentBlockIndex": 0}},
        {"messageStop": {"stopReason": "max_tokens"}},
        {"metadata": {"usage": NOVA_USAGE}, "amazon-bedrock-invocationMetrics": METRICS},
    ]
    assert read(f"{NOVA}-with-response-stream", STREAM, *map(chunk, events)) == ResponseFacts(
        finish_reasons=("max_tokens",),
        usage=Usage(25, 7, 20, 0),
        messages=[{"role": "assistant", "parts": TEXT, "finish_reason": "max_tokens"}],
    )


def test_response_of_invoke_in_the_format_of_chat_completions_is_read() -> None:
    choice = {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}
    body = {"id": "c1", "model": "gpt-oss", "choices": [choice], "usage": CHAT_USAGE}
    assert read(GPT, "application/json", json.dumps(body).encode()) == ResponseFacts(
        model="gpt-oss", id="c1", finish_reasons=("stop",), usage=Usage(5, 7, 2)
    )


@pytest.mark.parametrize(("usage", "counted"), [({"usage": CHAT_USAGE}, Usage(5, 7, 2)), ({}, Usage(5, 7))])
def test_stream_of_invoke_in_the_format_of_chat_completions_is_read(usage: dict[str, Any], counted: Usage) -> None:
    head = {"id": "c1", "model": "gpt-oss"}
    metrics = {"inputTokenCount": 5, "outputTokenCount": 7}
    events = [
        {**head, "choices": [{"index": 0, "delta": {"content": "Grü"}}]},
        {**head, "choices": [{"index": 0, "delta": {"content": "ße ✓"}, "finish_reason": "length"}]},
        {**head, "choices": [], **usage, "amazon-bedrock-invocationMetrics": metrics},
    ]
    assert read(f"{GPT}-with-response-stream", STREAM, *map(chunk, events)) == ResponseFacts(
        model="gpt-oss",
        id="c1",
        finish_reasons=("length",),
        usage=counted,
        messages=[{"role": "assistant", "parts": TEXT, "finish_reason": "length"}],
    )


OTHERS = [{"generation": "Hi", "stop_reason": None, "usage": {"input_tokens": 99}}, {"generation": ""}]


@pytest.mark.parametrize(
    ("cached", "usage"),
    [
        ({}, Usage(5, 7)),
        ({"cacheReadInputTokenCount": 0, "cacheWriteInputTokenCount": 0}, Usage(5, 7, 0, 0)),
        # The input count is unknown: the documentation does not say whether it includes the cached tokens.
        ({"cacheReadInputTokenCount": 3}, Usage(None, 7, 3)),
    ],
)
def test_other_model_of_invoke_has_only_the_counts_of_bedrock(cached: dict[str, int], usage: Usage) -> None:
    metrics = {"inputTokenCount": 5, "outputTokenCount": 7} | cached
    last = {"generation": "", "amazon-bedrock-invocationMetrics": metrics}
    assert read(LLAMA, STREAM, *map(chunk, [*OTHERS, last])) == ResponseFacts(usage=usage)
    assert read(LLAMA, STREAM, *map(chunk, OTHERS)) == ResponseFacts()


def test_counts_of_an_other_models_plain_response_are_in_its_headers() -> None:
    headers = {
        "x-amzn-bedrock-input-token-count": "5",
        "x-amzn-bedrock-output-token-count": "7",
        "x-amzn-bedrock-cache-read-input-token-count": "x",
        "x-amzn-bedrock-service-tier": "flex",
    }
    body = json.dumps(OTHERS[0]).encode()
    path = LLAMA.replace("-with-response-stream", "")
    expected = ResponseFacts(usage=Usage(5, 7), billing=Billing(service_tier="flex"))
    assert read(path, "application/json", body, headers=headers) == expected
    assert read(path, "application/json", body) == ResponseFacts()


def test_event_without_valid_json_is_ignored() -> None:
    junk = [aws_event("chunk", {"bytes": text}) for text in ("!", "é", "e30", 1, None, "W10=")]
    assert read(CLAUDE, STREAM, *junk, *map(chunk, CLAUDE_EVENTS)).usage == Usage(5, 7)


@pytest.mark.parametrize("value", [None, 1, "x", [], {"text": 1, "toolUse": [1], "reasoningContent": {"text": {}}}])
@pytest.mark.parametrize("path", [CONVERSE, CLAUDE, LLAMA])
@pytest.mark.parametrize(
    "kind", ["messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata", "chunk"]
)
def test_unexpected_values_never_raise(path: str, kind: str, value: Any) -> None:
    events = [{"contentBlockIndex": 0, "start": value, "delta": value, "usage": value, "bytes": value}, {"delta": 1}]
    assert read(path, STREAM, *(aws_event(kind, event) for event in events)).usage == Usage()


@pytest.mark.parametrize(
    ("path", "operation", "model", "stream"),
    [
        (CONVERSE, "chat", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        (CONVERSE.removesuffix("-stream"), "chat", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", False),
        (CLAUDE, "chat", "anthropic.claude-3-haiku-20240307-v1:0", True),
        (LLAMA, "generate_content", "meta.llama3-3-70b-instruct-v1:0", True),
        ("/model/amazon.titan-embed-text-v2:0/invoke", "embeddings", "amazon.titan-embed-text-v2:0", False),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aapplication-inference-profile%2Fa1/invoke",
            "generate_content",
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/a1",
            False,
        ),
    ],
)
def test_request_names_model_and_stream_in_its_path(path: str, operation: str, model: str, stream: bool) -> None:
    # Bedrock uses the model in the path, even if the body contains another model.
    sent = json.dumps({"messages": [], "model": "other", "stream": not stream}).encode()
    assert read_request(HOST, path, sent) == RequestFacts(operation, "aws.bedrock", model, stream)
    assert read_request("gateway.example", path, sent) == RequestFacts(operation, None, model, stream)
