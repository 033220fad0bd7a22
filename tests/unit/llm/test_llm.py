"""Tests of the request and response parsers: the fields of each API, every split of the bytes, and random bytes."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_egress.llm import (
    RequestFacts,
    ResponseFacts,
    Usage,
    provider_of,
    read_request,
    request_reader,
    response_reader,
)
from openclaw_egress.llm.openai_chat import API as CHAT
from openclaw_egress.llm.parsers import PlainReader
from openclaw_egress.llm.registry import api_of
from openclaw_egress.wire.json_members import TopLevelMembers
from tests.support.llm_providers import Request, anthropic_message, openai_chat, openai_response

EVENTS = "text/event-stream; charset=utf-8"
PATHS = {"/v1/messages": anthropic_message, "/v1/chat/completions": openai_chat, "/v1/responses": openai_response}


def read(path: str, content_type: str | None, *chunks: bytes) -> ResponseFacts:
    reader = response_reader("host.example", path, content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def stream(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def sent(path: str, model: str, *, streamed: bool) -> bytes:
    """Return the body of the fake provider's response to a request that asks for reasoning and for the usage."""
    body: dict[str, Any] = {"model": model, "messages": [], "input": "x", "stream": streamed}
    body |= {"thinking": {"type": "enabled"}, "stream_options": {"include_usage": True}}
    request = Request("POST", "host.example", path, {}, {}, json.dumps(body).encode(), body)
    return b"".join(PATHS[path](request).pieces)


@pytest.mark.parametrize("content_type", [EVENTS, None])
@pytest.mark.parametrize("model", ["any-model", "tools", "fail-stream"])
@pytest.mark.parametrize("path", list(PATHS))
def test_stream_gives_the_same_result_for_every_split(path: str, model: str, content_type: str | None) -> None:
    body = sent(path, model, streamed=True)
    whole = read(path, content_type, body)
    assert whole.model == model
    assert whole.messages
    assert read(path, content_type, *(body[at : at + 1] for at in range(len(body)))) == whole
    for at in range(len(body) + 1):
        assert read(path, content_type, body[:at], body[at:]) == whole


@pytest.mark.parametrize("content_type", ["application/json", None])
@pytest.mark.parametrize("path", list(PATHS))
def test_plain_response_gives_the_same_result_for_every_split(path: str, content_type: str | None) -> None:
    body = sent(path, "any-model", streamed=False)
    whole = read(path, content_type, body)
    assert whole.usage.output_tokens
    for at in range(len(body) + 1):
        assert read(path, content_type, body[:at], body[at:]) == whole


@pytest.mark.parametrize("limit", [0, 1, 50, 300])
def test_usage_of_a_plain_response_over_the_limit_is_read_for_every_split(limit: int) -> None:
    body = sent("/v1/chat/completions", "any-model", streamed=False)
    kept = read("/v1/chat/completions", "application/json", body)
    for at in range(len(body) + 1):
        reader = PlainReader(CHAT, limit)
        reader.feed(body[:at])
        reader.feed(body[at:])
        facts = reader.finish()
        assert (facts.usage, facts.model, facts.id) == (kept.usage, kept.model, kept.id)


def test_aborted_stream_never_has_wrong_usage() -> None:
    for path in PATHS:
        body = sent(path, "any-model", streamed=True)
        full = read(path, EVENTS, body).usage
        for at in range(len(body)):
            usage = read(path, EVENTS, body[:at]).usage
            for name, count in vars(usage).items():
                assert count in (None, vars(full)[name])


def test_aborted_plain_response_keeps_its_complete_members() -> None:
    body = b'{"id": "msg_1", "model": "m", "usage": {"input_tokens": 5, "output_tokens": 7}, "content": [{"ty'
    facts = read("/v1/messages", "application/json", body)
    assert (facts.id, facts.model, facts.usage) == ("msg_1", "m", Usage(5, 7))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["message_start", "content_block_start", "content_block_delta", "message_delta", "error"])
    | st.sampled_from(["text_delta", "input_json_delta", "tool_use", "text", "\ud800"])
    | st.sampled_from(["response.completed", "response.output_item.done", "message", "function_call", "reasoning"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                """type index delta content_block message usage error choices tool_calls function arguments response
                item output output_index content summary text name id model status finish_reason input_tokens
                input_tokens_details cached_tokens x_groq stop_reason partial_json incomplete_details reason""".split()  # noqa: SIM905
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=300)
@given(st.lists(JSON_VALUES, max_size=4), st.sampled_from(list(PATHS)))
def test_arbitrary_json_never_raises_and_gives_storable_values(events: list[Any], path: str) -> None:
    for facts in [read(path, EVENTS, stream(*events))] + [
        read(path, "application/json", json.dumps(event).encode()) for event in events
    ]:
        json.dumps(
            [vars(facts.usage), facts.messages, facts.model, facts.id], allow_nan=False, ensure_ascii=False
        ).encode()
        for count in vars(facts.usage).values():
            assert count is None or 0 <= count < 2**63


@given(
    st.binary(max_size=300),
    st.sampled_from(list(PATHS)),
    st.sampled_from([EVENTS, "application/json", None, "text/html"]),
)
def test_arbitrary_bytes_never_raise(data: bytes, path: str, content_type: str | None) -> None:
    read(path, content_type, data)
    read_request("host.example", path, data)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b'{"usage": ' + b"9" * 5000 + b"}"]
)
def test_hostile_json_gives_an_empty_result(body: bytes) -> None:
    assert read("/v1/messages", "application/json", body) == ResponseFacts()
    assert read("/v1/messages", EVENTS, b"data: " + body + b"\n\n").usage == Usage()


@pytest.mark.parametrize("rest", [b"", b"\n", b"garbage", b"\n[1]", b'{"usage": '])
def test_bytes_after_a_plain_response_do_not_hide_it(rest: bytes) -> None:
    body = b'{"id": "msg_1", "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": 7}}'
    facts = read("/v1/messages", "application/json", body + rest)
    assert (facts.id, facts.finish_reasons, facts.usage) == ("msg_1", ("end_turn",), Usage(5, 7))


# ── Fields of each API ───────────────────────────────────────────────────────────────────────────────────────────


def test_anthropic_input_is_the_sum_and_its_parts_are_kept() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 200,
        "cache_creation_input_tokens": 3000,
        "output_tokens": 4,
    }
    facts = read("/v1/messages", "application/json", json.dumps({"usage": usage}).encode())
    assert facts.usage == Usage(3210, 4, 200, 3000)


def test_null_in_message_delta_keeps_the_value_of_message_start() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 10, "cache_read_input_tokens": 20}}}
    delta = {
        "type": "message_delta",
        "usage": {"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": 3},
    }
    assert read("/v1/messages", EVENTS, stream(start, delta)).usage == Usage(30, 3, 20)


def test_zero_count_is_kept_and_missing_count_is_none() -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 0, "cache_creation_input_tokens": None, "output_tokens": 0}
    facts = read("/v1/messages", "application/json", json.dumps({"usage": usage}).encode())
    assert facts.usage == Usage(10, 0, 0, None)
    assert read("/v1/messages", "application/json", b'{"usage": {}}').usage == Usage()


def test_invalid_counts_are_absent() -> None:
    usage = {"prompt_tokens": True, "completion_tokens": -1, "prompt_tokens_details": {"cached_tokens": 2**64}}
    assert read("/chat/completions", "application/json", json.dumps({"usage": usage}).encode()).usage == Usage()


def test_last_chat_chunk_with_usage_is_used_with_or_without_choices() -> None:
    first = {
        "choices": [{"index": 0, "delta": {"content": "a"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
    last = {"choices": [{"index": 0, "delta": {}}], "usage": {"prompt_tokens": 1, "completion_tokens": 9}}
    empty = {"choices": [], "usage": None}
    assert read("/chat/completions", EVENTS, stream(first, last, empty)).usage == Usage(1, 9)


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ({"x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}, Usage(3, 4)),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4, "prompt_cache_hit_tokens": 2}}, Usage(3, 4, 2)),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 2}}, Usage(3, 4, 2)),
        (
            {"choices": [{"delta": {}}, {"usage": {"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 1}}]},
            Usage(3, 4, 1),
        ),
        (
            {
                "usage": {
                    "prompt_tokens": 3,
                    "completion_tokens": 4,
                    "total_tokens": 17,
                    "completion_tokens_details": {"reasoning_tokens": 10},
                }
            },
            Usage(3, 14, None, None, 10),
        ),
    ],
    ids=["groq", "deepseek", "together", "moonshot", "xai"],
)
def test_usage_of_compatible_chat_apis_is_read(chunk: dict[str, Any], expected: Usage) -> None:
    assert read("/openai/v1/chat/completions", EVENTS, stream(chunk)).usage == expected
    assert read("/v1/chat/completions", "application/json", json.dumps(chunk).encode()).usage == expected


def test_several_choices_are_several_messages() -> None:
    chunks = [
        {"choices": [{"index": 1, "delta": {"content": "b"}}]},
        {"choices": [{"index": 0, "delta": {"content": "a", "reasoning_content": "why"}}]},
        {"choices": [{"index": 1, "finish_reason": "length"}, {"index": 0, "finish_reason": "stop"}]},
    ]
    facts = read("/v1/chat/completions", EVENTS, stream(*chunks))
    assert facts.finish_reasons == ("stop", "length")
    reasoning = {"type": "reasoning", "content": "why"}
    assert facts.messages == [
        {"role": "assistant", "parts": [reasoning, {"type": "text", "content": "a"}], "finish_reason": "stop"},
        {"role": "assistant", "parts": [{"type": "text", "content": "b"}], "finish_reason": "length"},
    ]


def test_invalid_json_in_tool_arguments_is_kept_as_text() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a": '}}
    facts = read("/v1/chat/completions", EVENTS, stream({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
    assert facts.messages is not None
    assert facts.messages[0]["parts"] == [{"type": "tool_call", "id": "c", "name": "f", "arguments": '{"a": '}]


def test_nan_and_infinity_in_tool_arguments_become_null() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a": 1e999, "b": NaN, "c": 1.5}'}}
    facts = read("/v1/chat/completions", EVENTS, stream({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
    assert facts.messages is not None
    assert facts.messages[0]["parts"][0]["arguments"] == {"a": None, "b": None, "c": 1.5}


def test_aborted_response_keeps_the_text_received_so_far() -> None:
    body = sent("/v1/responses", "any-model", streamed=True)
    facts = read("/v1/responses", EVENTS, body[: body.index(b"event: response.output_text.done")])
    assert facts.messages == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello from the provider stand-in ✓"}]}
    ]
    assert (facts.finish_reasons, facts.usage) == ((), Usage())


def test_surrogate_pair_split_over_two_deltas_is_joined() -> None:
    deltas = [{"choices": [{"index": 0, "delta": {"content": half}}]} for half in ("\ud83d", "\udc3e", "\ud83d")]
    facts = read("/v1/chat/completions", EVENTS, stream(*deltas))
    assert facts.messages is not None
    assert facts.messages[0]["parts"] == [{"type": "text", "content": "🐾\ufffd"}]


def test_unknown_error_type_is_other() -> None:
    assert read("/v1/messages", "application/json", b'{"error": {"type": "brand_new"}}').error_type == "_OTHER"
    assert read("/v1/messages", "application/json", b'{"error": "text"}').error_type == "_OTHER"
    assert read("/v1/messages", "application/json", b'{"error": null}').error_type is None


def test_long_stream_is_assembled_in_bounded_memory() -> None:
    event = stream({"choices": [{"index": 0, "delta": {"content": "x" * 1000}}]})
    reader = response_reader("host.example", "/v1/chat/completions", EVENTS)
    tracemalloc.start()
    for _ in range(5000):
        reader.feed(event)
    many = [{"index": number, "function": {"name": "f" * 300}} for number in range(1000)]
    for start in range(0, 100_000, 1000):
        moved = [call | {"index": start + number} for number, call in enumerate(many)]
        reader.feed(stream({"choices": [{"index": 1, "delta": {"tool_calls": moved}}]}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    facts = reader.finish()
    assert facts.messages_truncated
    assert peak < 32 << 20


# ── Requests, paths, hosts ───────────────────────────────────────────────────────────────────────────────────────


def test_model_and_stream_of_a_request_are_found_at_any_position_for_every_split() -> None:
    decoy = {"role": "user", "content": '"model": "decoy", \\"', "model": "inner", "stream": False}
    body = json.dumps({"messages": [decoy, [{"model": "deep"}]], "stream": True, "model": "claude-✓", "z": {}}).encode()
    expected = RequestFacts("chat", "anthropic", "claude-✓", True)
    for at in range(len(body) + 1):
        reader = request_reader("api.anthropic.com", "/v1/messages?beta=true")
        reader.feed(body[:at])
        reader.feed(body[at:])
        assert reader.finish() == expected


def test_large_request_is_read_in_bounded_memory() -> None:
    reader = request_reader("api.openai.com", "/v1/responses")
    tracemalloc.start()
    reader.feed(b'{"input": [{"image": "')
    for _ in range(500):
        reader.feed(b"A" * 65536)
    reader.feed(b'"}], "model": "gpt-5", "stream": true}')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reader.finish() == RequestFacts("chat", "openai", "gpt-5", True)
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("body", "model", "stream_asked"),
    [
        (b'{"model": "m", "messages": []}', "m", False),
        (b'{"model": "m", "messages": [', "m", None),
        (b'{"model": "m', None, None),
        (b'{"model": 7, "stream": "yes"}', None, None),
        (b"not json", None, None),
        (b"[1]", None, None),
    ],
)
def test_missing_request_fields_are_absent(body: bytes, model: str | None, stream_asked: bool | None) -> None:
    facts = read_request("api.openai.com", "/v1/chat/completions", body)
    assert facts.model == model
    if body.startswith(b'{"model": '):
        assert facts.stream is stream_asked


@pytest.mark.parametrize("body", [b"", None])
def test_request_without_a_body_has_no_operation(body: bytes | None) -> None:
    assert read_request("api.openai.com", "/v1/responses", body) == RequestFacts(provider_name="openai")


def test_azure_names_the_model_in_the_path() -> None:
    path = "/openai/deployments/my-gpt/chat/completions?api-version=2026-01-01"
    facts = read_request("corp.openai.azure.com", path, b'{"messages": []}')
    assert facts == RequestFacts("chat", "azure.ai.openai", "my-gpt", False)


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/messages", "messages"),
        ("/anthropic/v1/messages?beta=true", "messages"),
        ("/v1/messages/count_tokens", "messages-count"),
        ("/v1/messages/batches", None),
        ("/v1/chat/completions", "chat"),
        ("/api/v1/chat/completions/", "chat"),
        ("/v1/responses", "responses"),
        ("/v1/responses/resp_1", "responses-retrieved"),
        ("/v1/responses/resp_1/input_items", None),
        ("/v1/models", None),
        ("/?x=/v1/messages", None),
    ],
)
def test_path_selects_the_api(path: str, api: str | None) -> None:
    found = api_of(path)
    assert (found.name if found is not None else None) == api


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.anthropic.com", "anthropic"),
        ("API.OpenAI.com.", "openai"),
        ("eu.api.openai.com", "openai"),
        ("notopenai.com", None),
        ("api.openai.com.evil.example", None),
        ("corp.openai.azure.com", "azure.ai.openai"),
        ("api.groq.com", "groq"),
        ("api.deepseek.com", "deepseek"),
        ("api.x.ai", "x_ai"),
        ("max.ai", None),
        ("api.mistral.ai", "mistral_ai"),
        ("openrouter.ai", "openrouter"),
        ("adb-1.1.azuredatabricks.net", "databricks"),
        ("ai-gateway.vercel.sh", "vercel"),
        ("vercel.sh", None),
        ("europe-west4-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "aws.bedrock"),
        ("10.0.0.1", None),
        ("", None),
    ],
)
def test_host_selects_the_provider(host: str, name: str | None) -> None:
    assert provider_of(host) == name


def test_unknown_path_has_no_parser() -> None:
    assert read("/v1/models", "application/json", b'{"model": "m", "usage": {"input_tokens": 1}}') == ResponseFacts()
    assert read_request("api.openai.com", "/v1/models", b"{}") == RequestFacts(provider_name="openai")


# ── Unneeded object members ──────────────────────────────────────────────────────────────────────────────────────

NAMES = st.sampled_from(["model", "usage", "a", 'q"uo\\te', "é", ""])


@given(st.dictionaries(NAMES, JSON_VALUES, max_size=5), st.booleans(), st.integers(0, 400), st.sampled_from([None, 1]))
def test_members_equal_those_of_the_json_module(
    value: dict[str, Any], ascii_: bool, at: int, indent: int | None
) -> None:
    try:
        text = json.dumps(value, ensure_ascii=ascii_, indent=indent).encode()
    except UnicodeEncodeError:
        text = json.dumps(value).encode()
    members = TopLevelMembers(frozenset(NAMES.elements))  # type: ignore[attr-defined]
    members.feed(text[:at])
    members.feed(text[at:])
    assert members.ended
    expected = {name: inner for name, inner in json.loads(text).items() if inner is not None}
    assert repr(members.found) == repr(expected)
    at_once = TopLevelMembers(frozenset(NAMES.elements))  # type: ignore[attr-defined]
    if at_once.take(memoryview(text)):
        assert at_once.ended
        assert at_once.found == expected
    else:
        assert not at_once.found


@pytest.mark.parametrize(
    "text",
    [
        b'{"model": "a", "stream": true, "x": [{"model": "b"}, "}"]}',
        b' {"mo\\u0064el": "a", "model": "b"} ',
        b'{"model": {"a": [1]}, "stream": 1e400}',
        b"{}",
        b"{" + b" " * 300 + b'"model"' + b" " * 300 + b":" + b"\n" * 70_000 + b'"x"' + b"\t" * 70_000 + b"}",
    ],
)
def test_whole_object_is_read_at_once(text: bytes) -> None:
    wanted = frozenset({"model", "stream"})
    at_once, by_byte = TopLevelMembers(wanted), TopLevelMembers(wanted)
    assert at_once.take(text)
    for at in range(len(text)):
        by_byte.feed(text[at : at + 1])
    assert (at_once.found, at_once.ended) == (by_byte.found, by_byte.ended)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"model": "a"',
        b'{"model": "a"} {}',
        b'{"model": nul}',
        b'{"model": "a", "model": null}',
        b'{"model": "' + b"m" * 70_000 + b'"}',
        b'\xef\xbb\xbf{"model": "a"}',
        b'{"model": "a", "x": NaN}',
        b'{"model": "\xff"}',
        b'{"model": {"a": "\xff"}}',
        b'{"model": "m", "stream": ' + b"1" * 4301 + b"}",
        b"[" * 100_000,
        b'{"x":' * 100_000,
    ],
)
def test_other_bodies_are_checked_by_the_reader_of_chunks(text: bytes) -> None:
    members = TopLevelMembers(frozenset({"model", "stream"}))
    assert not members.take(text)
    assert not members.found
    members.feed(text)


def test_wanted_member_over_the_size_limit_is_skipped() -> None:
    members = TopLevelMembers(frozenset({"model", "usage"}))
    members.feed(b'{"model": "' + b"m" * 70_000 + b'", "usage": {"input_tokens": 1}}')
    assert members.found == {"usage": {"input_tokens": 1}}


def test_plain_response_over_the_limit_is_not_kept() -> None:
    reader = PlainReader(CHAT, 10_000)
    tracemalloc.start()
    reader.feed(b'{"choices": [{"message": {"content": "')
    for _ in range(500):
        reader.feed(b"x" * 4096)
    reader.feed(b'"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reader.finish().usage == Usage(1, 2)
    assert peak < 200_000


def test_error_at_the_end_of_groqs_stream_is_read() -> None:
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "Hi"}}]},
        {"choices": [], "x_groq": {"id": "r", "error": "over capacity"}},
    ]
    reader = response_reader("api.groq.com", "/openai/v1/chat/completions", "text/event-stream")
    for chunk in chunks:
        reader.feed(f"data: {json.dumps(chunk)}\n\n".encode())
    facts = reader.finish()
    assert (facts.error_type, facts.usage) == ("_OTHER", Usage())
    assert facts.messages == [{"role": "assistant", "parts": [{"type": "text", "content": "Hi"}]}]


def test_calls_with_the_same_index_are_distinguished_by_their_ids() -> None:
    # Gemini's OpenAI-compatible API sends each tool call in one chunk, without an index or with the index 0.
    assembler = CHAT.assembler()
    for call_id, name in (("c1", "weather"), ("c2", "time")):
        function = {"name": name, "arguments": '{"city": "Rom"}'}
        delta = {"tool_calls": [{"id": call_id, "type": "function", "function": function}]}
        assembler.take({"choices": [{"index": 0, "delta": delta}]})
    (message,) = assembler.facts().messages or []
    assert [(part["id"], part["name"]) for part in message["parts"]] == [("c1", "weather"), ("c2", "time")]
    assert all(part["arguments"] == {"city": "Rom"} for part in message["parts"])


def test_error_in_a_choice_is_recorded() -> None:
    choice = {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "broken function call"}}
    assembler = CHAT.assembler()
    assembler.take({"choices": [choice | {"delta": {"content": ""}}]})
    for facts in (assembler.facts(), CHAT.whole({"choices": [choice | {"message": {"content": ""}}]})):
        assert (facts.error_type, facts.finish_reasons) == ("_OTHER", ("error",))
