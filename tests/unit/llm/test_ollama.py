"""Tests of Ollama's chat and generate with examples from its reference, and of other servers that use these paths."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader

CHAT, GENERATE = "/api/chat", "/api/generate"
LINES = "application/x-ndjson"
PLAIN = "application/json; charset=utf-8"
END = {
    "model": "gemma3",
    "created_at": "2025-10-17T23:14:07.414671Z",
    "done": True,
    "done_reason": "stop",
    "total_duration": 174560334,
    "prompt_eval_count": 11,
    "prompt_eval_cached_count": 4,
    "eval_count": 18,
}
COUNTS = Usage(11, 18, 4)


def read(content_type: str | None, *chunks: bytes, path: str = CHAT) -> ResponseFacts:
    reader = response_reader("ollama", path, content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def said(**message: Any) -> dict[str, Any]:
    return {"model": "gemma3", "created_at": "x", "message": {"role": "assistant"} | message, "done": False}


WEATHER = {"function": {"name": "weather", "arguments": {"city": "Zürich"}}}
CHUNKS = [
    said(content="", thinking="Let me "),
    said(content="", thinking="think"),
    said(content="Grü"),
    said(content="ße ✓"),
    said(content="", tool_calls=[{"id": "c1", **WEATHER}, {"function": {"name": "now", "arguments": {}}}]),
    END | {"message": {"role": "assistant", "content": ""}},
]
PARTS = [
    {"type": "reasoning", "content": "Let me think"},
    {"type": "text", "content": "Grüße ✓"},
    {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Zürich"}},
    {"type": "tool_call", "id": None, "name": "now", "arguments": {}},
]
EXPECTED = ResponseFacts(
    model="gemma3",
    finish_reasons=("stop",),
    usage=COUNTS,
    messages=[{"role": "assistant", "parts": PARTS, "finish_reason": "stop"}],
)


@pytest.mark.parametrize("content_type", [LINES, "application/json", None])
def test_stream_is_assembled_for_every_split_of_its_bytes(content_type: str | None) -> None:
    body = lines(*CHUNKS)
    assert read(content_type, *(body[at : at + 1] for at in range(len(body)))) == EXPECTED
    for at in range(len(body) + 1):
        assert read(content_type, body[:at], body[at:]) == EXPECTED
    assert read(content_type, body.removesuffix(b"\n")) == EXPECTED


def test_stream_of_generate_is_assembled() -> None:
    pieces = [{"model": "m", "response": text, "done": False} for text in ("The", " sky")]
    thought = {"model": "m", "response": "", "thinking": "hm", "done": False}
    facts = read(LINES, lines(thought, *pieces, END | {"model": "m", "response": "", "context": [1, 2]}), path=GENERATE)
    assert facts.usage == COUNTS
    assert facts.messages is not None
    assert facts.messages[0]["parts"] == [
        {"type": "reasoning", "content": "hm"},
        {"type": "text", "content": "The sky"},
    ]


@pytest.mark.parametrize("path", [CHAT, GENERATE])
@pytest.mark.parametrize("content_type", [PLAIN, None])
def test_plain_response_has_usage_and_finish_reason(path: str, content_type: str | None) -> None:
    body = json.dumps(END | {"response": "x", "message": {"content": "x"}}).encode()
    expected = ResponseFacts(model="gemma3", finish_reasons=("stop",), usage=COUNTS)
    for at in range(len(body) + 1):
        assert read(content_type, body[:at], body[at:], path=path) == expected


def test_usage_of_a_plain_response_over_the_limit_is_read() -> None:
    body = json.dumps({"response": "x" * (9 << 20)} | END | {"context": [1] * 100_000}).encode()
    facts = read(PLAIN, body, path=GENERATE)
    assert (facts.usage, facts.model, facts.finish_reasons) == (COUNTS, "gemma3", ("stop",))


def test_every_cut_of_a_stream_has_no_wrong_count() -> None:
    body = lines(*CHUNKS)
    for at in range(len(body) - 1):
        facts = read(LINES, body[:at])
        assert facts.usage in (Usage(), COUNTS)
        assert (facts.usage == COUNTS) == (facts.finish_reasons == ("stop",))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"prompt_eval_count": None}, Usage(None, 18, 4)),
        ({"prompt_eval_count": 0, "eval_count": 0, "prompt_eval_cached_count": None}, Usage(0, 0)),
        ({"prompt_eval_count": True, "eval_count": -1, "prompt_eval_cached_count": "4"}, Usage()),
        ({"done": False}, Usage()),
    ],
)
def test_usage_counts_are_read(members: dict[str, Any], expected: Usage) -> None:
    value = {name: number for name, number in (END | members).items() if number is not None}
    assert read(PLAIN, json.dumps(value).encode()).usage == expected
    assert read(LINES, lines(value)).usage == expected


def test_loading_a_model_has_no_counts() -> None:
    value = {"model": "m", "created_at": "x", "response": "", "done": True, "done_reason": "load"}
    for content_type in (PLAIN, LINES):
        facts = read(content_type, lines(value), path=GENERATE)
        assert (facts.usage, facts.finish_reasons) == (Usage(), ("load",))


def test_error_line_keeps_the_text_and_an_error_response_has_no_type() -> None:
    facts = read(LINES, lines(*CHUNKS[:3], {"error": "an error was encountered while running the model"}))
    assert (facts.error_type, facts.usage, facts.finish_reasons) == ("_OTHER", Usage(), ())
    assert facts.messages is not None
    assert facts.messages[0]["parts"][1] == {"type": "text", "content": "Grü"}
    assert read(PLAIN, b'{"error": "model \'x\' not found"}') == ResponseFacts()


def test_invalid_line_does_not_hide_the_others() -> None:
    body = lines(CHUNKS[2]) + b'{"model": "gemma3", "message": {"content": "lost\n' + lines(*CHUNKS[3:])
    facts = read(LINES, body)
    assert facts.usage == COUNTS
    assert facts.messages_truncated


def test_long_line_is_dropped_in_bounded_memory() -> None:
    reader = response_reader("ollama", CHAT, LINES)
    tracemalloc.start()
    reader.feed(b'{"model": "m", "done": false, "message": {"content": "')
    for _ in range(400):
        reader.feed(b"x" * 65536)
    reader.feed(b'"}}\n')
    for _ in range(3000):
        reader.feed(lines(said(content="y" * 1000)))
    reader.feed(lines(*CHUNKS[-2:]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    facts = reader.finish()
    assert facts.usage == COUNTS
    assert facts.messages_truncated
    assert peak < 32 << 20


# ── Other servers at the same paths ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "value",
    [
        {"token": "t", "eval_count": 5, "prompt_eval_count": 6},
        {"model": "m", "eval_count": 5, "prompt_eval_count": 6},
        {"model": "m", "done": "yes", "eval_count": 5},
        {"model": {"id": "m"}, "done": True, "eval_count": 5, "usage": {"prompt_tokens": 1}},
        {"done": True, "eval_count": 5, "message": {"content": "x"}},
        {"id": "x", "model": "gpt-5", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ],
)
@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_unknown_response_has_no_facts(path: str, value: dict[str, Any]) -> None:
    assert read(PLAIN, json.dumps(value).encode(), path=path) == ResponseFacts()
    events = b"data: " + json.dumps(value).encode() + b"\n\n"
    for facts in (read(LINES, lines(value, value), path=path), read("text/event-stream", events, path=path)):
        assert (facts.usage, facts.model, facts.messages, facts.error_type) == (Usage(), None, [], None)


@pytest.mark.parametrize("body", [{"messages": []}, {"prompt": "x"}, {"model": 1}, {"model": "", "stream": True}])
def test_request_without_a_model_is_of_another_api(body: dict[str, Any]) -> None:
    assert read_request("app.example", CHAT, json.dumps(body).encode()) == RequestFacts()


@pytest.mark.parametrize(
    ("path", "body", "stream"),
    [(CHAT, {}, True), (CHAT, {"stream": False}, False), (CHAT, {"stream": True}, True), (GENERATE, {}, True)],
)
@pytest.mark.parametrize(("host", "provider"), [("ollama.com", "ollama"), ("127.0.0.1", None), ("ollama", None)])
def test_request(path: str, body: dict[str, Any], stream: bool, host: str, provider: str | None) -> None:
    sent = json.dumps({"model": "gemma3:27b", "messages": []} | body).encode()
    operation = "chat" if path == CHAT else "text_completion"
    assert read_request(host, path, sent) == RequestFacts(operation, provider, "gemma3:27b", stream)
    assert read_request(host, path, sent[:-1]) == RequestFacts(operation, provider, "gemma3:27b", None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                """model done done_reason message content thinking response tool_calls function name arguments id
                error prompt_eval_count eval_count prompt_eval_cached_count""".split()  # noqa: SIM905
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
ANSWERS = VALUES.map(
    lambda value: {"model": "m", "done": True, "message": value} | (value if isinstance(value, dict) else {})
)


@settings(max_examples=300)
@given(st.lists(VALUES | ANSWERS, max_size=4), st.sampled_from([CHAT, GENERATE]))
def test_arbitrary_json_never_raises_and_gives_storable_values(values: list[Any], path: str) -> None:
    sent = [json.dumps(value).encode() + b"\n" for value in values]
    results = [read(LINES, *sent, path=path), read("text/event-stream", *(b"data: " + one + b"\n" for one in sent))]
    for facts in results + [read(PLAIN, one, path=path) for one in sent]:
        json.dumps(
            [vars(facts.usage), facts.messages, facts.model, facts.finish_reasons], allow_nan=False, ensure_ascii=False
        ).encode()
        for count in vars(facts.usage).values():
            assert count is None or 0 <= count < 2**63


@given(st.binary(max_size=300), st.sampled_from([LINES, PLAIN, "text/event-stream", None]))
def test_arbitrary_bytes_never_raise(data: bytes, content_type: str | None) -> None:
    read(content_type, data)
    read_request("host.example", CHAT, data)
