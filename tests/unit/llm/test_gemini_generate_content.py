"""Tests of Google's generateContent (Gemini API, Vertex AI, Cloud Code Assist): responses, streams and requests."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader
from openclaw_egress.llm.message_builder import MAX_CHARACTERS
from openclaw_egress.llm.registry import api_of, is_model_api

PLAIN = "/v1beta/models/gemini-2.5-flash:generateContent"
STREAM = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
EVENTS = "text/event-stream"
USAGE = {
    "promptTokenCount": 120,
    "cachedContentTokenCount": 100,
    "toolUsePromptTokenCount": 30,
    "candidatesTokenCount": 7,
    "thoughtsTokenCount": 50,
    "totalTokenCount": 207,
}
COUNTS = Usage(150, 57, 100, None, 50)
WEATHER = {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Zürich", "days": [1, {"x": None}]}}}


def read(content_type: str | None, *chunks: bytes, path: str = STREAM) -> ResponseFacts:
    reader = response_reader("generativelanguage.googleapis.com", path, content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def plain(value: Any) -> ResponseFacts:
    return read("application/json", json.dumps(value).encode(), path=PLAIN)


def chunk(*parts: Any, index: int | None = None, **members: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": list(parts), "role": "model"}}
    candidate |= {} if index is None else {"index": index}
    if "finishReason" in members:
        candidate["finishReason"] = members.pop("finishReason")
    return {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": "r1", **members}


def stream(*chunks: Any) -> bytes:
    return b"".join(f"data: {json.dumps(value, ensure_ascii=False)}\r\n\r\n".encode() for value in chunks)


CHUNKS = [
    chunk({"text": "**Plan**", "thought": True}, usageMetadata={"promptTokenCount": 120}),
    chunk({"text": " first", "thought": True}),
    chunk({"text": "Coca "}),
    chunk({"text": "✓"}),
    chunk(WEATHER, {"functionCall": {"name": "now", "args": {}}}),
    chunk({"text": "", "thoughtSignature": "c2ln"}, finishReason="STOP", usageMetadata=USAGE),
]
EXPECTED = ResponseFacts(
    model="gemini-2.5-flash",
    id="r1",
    finish_reasons=("STOP",),
    usage=COUNTS,
    messages=[
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "**Plan** first"},
                {"type": "text", "content": "Coca ✓"},
                {
                    "type": "tool_call",
                    "id": "c1",
                    "name": "weather",
                    "arguments": {"city": "Zürich", "days": [1, {"x": None}]},
                },
                {"type": "tool_call", "id": None, "name": "now", "arguments": {}},
            ],
            "finish_reason": "STOP",
        }
    ],
)


@pytest.mark.parametrize("content_type", [EVENTS, None])
def test_stream_is_assembled_for_every_split_of_its_bytes(content_type: str | None) -> None:
    body = stream(*CHUNKS)
    assert read(content_type, *(body[at : at + 1] for at in range(len(body)))) == EXPECTED
    for at in range(len(body) + 1):
        assert read(content_type, body[:at], body[at:]) == EXPECTED


ERROR = {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize("content_type", ["application/json; charset=UTF-8", None])
@pytest.mark.parametrize("indent", [None, 2])
def test_array_is_assembled_for_every_split_of_its_bytes(content_type: str | None, indent: int | None) -> None:
    body = b"\n" + json.dumps(CHUNKS, indent=indent, ensure_ascii=False).encode()
    assert read(content_type, *(body[at : at + 1] for at in range(len(body)))) == EXPECTED
    for at in range(len(body) + 1):
        assert read(content_type, body[:at], body[at:]) == EXPECTED
        if at < len(body) - 2:
            assert read(content_type, body[:at]).usage in (Usage(), Usage(120))


def test_error_in_an_array_is_read() -> None:
    assert read("application/json", json.dumps([ERROR]).encode()).error_type == "UNAVAILABLE"
    facts = read("application/json", json.dumps([*CHUNKS[:3], ERROR]).encode())
    assert (facts.error_type, facts.usage) == ("UNAVAILABLE", Usage(120))
    assert facts.messages


def test_element_over_the_limit_is_dropped_in_bounded_memory() -> None:
    reader = response_reader("h.example", STREAM, "application/json")
    tracemalloc.start()
    reader.feed(b'[{"candidates": [{"content": {"parts": [{"text": "')
    for _ in range(400):
        reader.feed(b"x" * 65536)
    reader.feed(b'"}]}}]},')
    reader.feed(json.dumps(CHUNKS[-1]).encode() + b"]")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    facts = reader.finish()
    assert (facts.usage, facts.messages_truncated) == (COUNTS, True)
    assert peak < 24 << 20


@pytest.mark.parametrize("tail", [json.dumps(ERROR).encode(), json.dumps(ERROR, indent=2).encode() + b"\n"])
@pytest.mark.parametrize("begun", [0, 3])
def test_error_outside_of_an_event_is_read_for_every_split(begun: int, tail: bytes) -> None:
    head = stream(*CHUNKS[:begun])
    body = head + tail
    for at in range(len(body) + 1):
        facts = read(EVENTS, body[:at], body[at:])
        assert facts.error_type == "UNAVAILABLE"
        assert bool(facts.messages) == bool(begun)
    for at in range(len(head), len(body) - 2):
        assert read(EVENTS, body[:at]).error_type is None


def test_every_cut_of_a_stream_has_counts_and_text_that_the_provider_sent() -> None:
    body = stream(*CHUNKS)
    # Do not cut before the last LF. The stream is already complete there, because the CR before it ends the last event.
    for at in range(len(body) - 1):
        facts = read(EVENTS, body[:at])
        assert facts.usage in (Usage(), Usage(120))
        assert (facts.finish_reasons, facts.error_type) == ((), None)
        for message in facts.messages or []:
            assert EXPECTED.messages is not None
            texts = [part["content"] for part in message["parts"] if "content" in part]
            assert all(
                whole["content"].startswith(text)
                for text, whole in zip(texts, EXPECTED.messages[0]["parts"], strict=False)
            )


@pytest.mark.parametrize(("sdk", "reasons"), [(1, ("STOP",)), (5, ("OTHER",)), (6, ()), (0, ()), (True, ()), (-1, ())])
def test_numbered_finish_reason_has_its_name_where_all_apis_agree(sdk: object, reasons: tuple[str, ...]) -> None:
    value = chunk({"text": "Hi"}, finishReason=sdk)
    assert plain(value).finish_reasons == reasons
    assert read(EVENTS, stream(value)).finish_reasons == reasons


@pytest.mark.parametrize("wrapped", [False, True])
def test_plain_response_has_usage_and_finish_reason(wrapped: bool) -> None:
    value = chunk({"text": "Hi"}, finishReason="MAX_TOKENS", usageMetadata=USAGE)
    facts = plain({"response": value, "traceId": "t1"} if wrapped else value)
    assert facts == ResponseFacts(
        model="gemini-2.5-flash", id="r1", finish_reasons=("MAX_TOKENS",), usage=COUNTS, messages=None
    )


def test_stream_of_cloud_code_assist_is_unwrapped_and_its_trace_is_the_id() -> None:
    inner = [{name: value for name, value in one.items() if name != "responseId"} for one in CHUNKS]
    body = stream(*({"response": one, "traceId": "t1"} for one in inner))
    facts = read(EVENTS, body, path="/v1internal:streamGenerateContent?alt=sse")
    assert facts.id == "t1"
    assert (facts.messages, facts.usage, facts.model) == (EXPECTED.messages, EXPECTED.usage, EXPECTED.model)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"promptTokenCount": 5, "totalTokenCount": 5}, Usage(5)),
        ({"promptTokenCount": 5, "candidatesTokenCount": 0}, Usage(5, 0)),
        # The model used all output tokens for thoughts. The JSON omits the candidates count, because it is 0.
        ({"promptTokenCount": 5, "thoughtsTokenCount": 9, "totalTokenCount": 14}, Usage(5, 9, None, None, 9)),
        # The total shows that the candidates count includes the thoughts.
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 9, "thoughtsTokenCount": 4, "totalTokenCount": 14},
            Usage(5, 9, None, None, 4),
        ),
        ({"candidatesTokenCount": 9}, Usage(None, 9)),
        ({"toolUsePromptTokenCount": 9}, Usage()),
        ({"promptTokenCount": True, "candidatesTokenCount": -1, "thoughtsTokenCount": "3"}, Usage()),
        ({"promptTokenCount": 2**63 - 1, "toolUsePromptTokenCount": 1}, Usage()),
        ({"trafficType": "ON_DEMAND"}, Usage()),
    ],
)
def test_usage_counts_are_read(usage: dict[str, Any], expected: Usage) -> None:
    assert plain({"usageMetadata": usage}).usage == expected
    assert read(EVENTS, stream({"usageMetadata": usage})).usage == expected


def test_usage_without_counts_does_not_replace_counts() -> None:
    later = {"usageMetadata": {"trafficType": "ON_DEMAND"}}
    facts = read(EVENTS, stream({"usageMetadata": USAGE | {"serviceTier": "flex"}}, later, {}))
    assert (facts.usage, facts.billing.service_tier) == (COUNTS, "flex")


def test_usage_of_a_plain_response_over_the_limit_is_read() -> None:
    value = chunk({"inlineData": {"mimeType": "image/png", "data": "A" * (9 << 20)}}, usageMetadata=USAGE)
    facts = plain(value)
    assert (facts.usage, facts.model, facts.id) == (COUNTS, "gemini-2.5-flash", "r1")


def test_several_candidates_are_several_messages() -> None:
    facts = read(
        EVENTS,
        stream(
            chunk({"text": "b"}, index=1),
            chunk({"text": "a"}),
            chunk({"text": "c"}, index=1, finishReason="SAFETY"),
            chunk(finishReason="STOP"),
            chunk({"text": "z"}, index=128, finishReason="STOP"),
            chunk({"text": "z"}, index=-1, finishReason="STOP"),
        ),
    )
    assert facts.finish_reasons == ("STOP", "SAFETY")
    assert facts.messages == [
        {"role": "assistant", "parts": [{"type": "text", "content": "a"}], "finish_reason": "STOP"},
        {"role": "assistant", "parts": [{"type": "text", "content": "bc"}], "finish_reason": "SAFETY"},
    ]


def test_other_parts_are_named_without_their_content() -> None:
    facts = read(
        EVENTS,
        stream(
            chunk({"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "QUFB"}}),
            chunk({"text": "b"}, {"functionResponse": {"name": "f", "response": {"x": 1}}}, {"unknown": 1}),
            chunk({"executableCode": {"language": "PYTHON", "code": "1"}}, {"codeExecutionResult": {"output": "1"}}),
        ),
    )
    assert facts.messages is not None
    assert facts.messages[0]["parts"] == [
        {"type": "text", "content": "a"},
        {"type": "inlineData"},
        {"type": "text", "content": "b"},
        {"type": "functionResponse"},
        {"type": "executableCode"},
        {"type": "codeExecutionResult"},
    ]


def call(**members: Any) -> dict[str, Any]:
    return chunk({"functionCall": members})


def partial(path: str, *, more: bool = False, **value: Any) -> dict[str, Any]:
    return {"jsonPath": path, **value} | ({"willContinue": True} if more else {})


def test_arguments_that_are_streamed_as_values_are_assembled() -> None:
    facts = read(
        EVENTS,
        stream(
            call(id="c1", name="weather", willContinue=True),
            call(partialArgs=[partial("$.city", stringValue="Zü", more=True)], willContinue=True),
            call(partialArgs=[partial("$.city", stringValue="rich")], willContinue=True),
            call(
                partialArgs=[
                    partial("$.days[0].name", stringValue="Mon"),
                    partial("$['days'][1]['name']", stringValue="Tue"),
                    partial("$.unit", nullValue="NULL_VALUE"),
                    partial("$.limit", numberValue=1.5),
                    partial("$.brief", boolValue=True),
                ],
                willContinue=True,
            ),
            call(),
            chunk({"functionCall": {"name": "now", "args": {"a": 1}}}, finishReason="STOP"),
        ),
    )
    assert facts.messages is not None
    arguments = {
        "city": "Zürich",
        "days": [{"name": "Mon"}, {"name": "Tue"}],
        "unit": None,
        "limit": 1.5,
        "brief": True,
    }
    assert facts.messages[0]["parts"] == [
        {"type": "tool_call", "id": "c1", "name": "weather", "arguments": arguments},
        {"type": "tool_call", "id": None, "name": "now", "arguments": {"a": 1}},
    ]
    assert not facts.messages_truncated


def test_arguments_of_an_aborted_stream_are_kept() -> None:
    pieces = [partial("$.city", stringValue="Zü", more=True)]
    facts = read(EVENTS, stream(call(name="weather", willContinue=True), call(partialArgs=pieces, willContinue=True)))
    assert facts.messages is not None
    assert facts.messages[0]["parts"][0]["arguments"] == {"city": "Zü"}


@pytest.mark.parametrize(
    "path",
    ["", "$", "city", "$.a..b", "$.*", "$[1]", "$.a[5]", "$.city.b", "$" + ".a" * 40, "$.a[-1]", 7],
)  # fmt: skip
def test_value_without_a_place_marks_the_message_as_incomplete(path: Any) -> None:
    pieces = [partial("$.city", stringValue="Oslo"), {"jsonPath": path, "stringValue": "x"}]
    facts = read(EVENTS, stream(call(name="weather", partialArgs=pieces)))
    assert facts.messages is not None and facts.messages_truncated
    assert facts.messages[0]["parts"][0]["arguments"]["city"] == "Oslo"


def test_no_text_is_stored_after_text_was_dropped() -> None:
    pieces = [partial("$.a", stringValue=text, more=True) for text in ("START", "x" * 2_000_000, "END")]
    facts = read(EVENTS, stream(call(name="f", partialArgs=pieces)))
    assert facts.messages is not None and facts.messages_truncated
    assert facts.messages[0]["parts"][0]["arguments"] == {"a": "START"}


def test_deep_paths_use_the_limit() -> None:
    pieces = [partial(f"$.b{n}" + ".a" * 30, boolValue=True) for n in range(2000)]
    facts = read(EVENTS, stream(call(name="f", partialArgs=pieces)))
    assert facts.messages is not None and facts.messages_truncated
    assert 100 < len(facts.messages[0]["parts"][0]["arguments"]) < 1000


def test_streamed_arguments_of_all_candidates_share_one_limit() -> None:
    pieces = [partial("$.a", stringValue="x" * 400_000, more=True)]
    candidates = [
        {"index": n, "content": {"parts": [{"functionCall": {"partialArgs": pieces, "willContinue": True}}]}}
        for n in range(5)
    ]
    facts = read(EVENTS, stream({"candidates": candidates}))
    assert facts.messages_truncated and facts.messages is not None
    assert len(json.dumps(facts.messages)) < MAX_CHARACTERS + 10_000


@pytest.mark.parametrize("streamed", [False, True])
def test_blocked_prompt_has_its_reason(streamed: bool) -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "Not allowed"}
    value = {"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4}}
    facts = read(EVENTS, stream(value)) if streamed else plain(value)
    assert (facts.finish_reasons, facts.usage, facts.error_type) == (("PROHIBITED_CONTENT",), Usage(4), None)
    if streamed:
        part = {"type": "refusal", "content": "Not allowed"}
        message = {"role": "assistant", "parts": [part], "finish_reason": "PROHIBITED_CONTENT"}
        assert facts.messages == [message]


def test_feedback_without_a_reason_is_not_a_refusal() -> None:
    value = chunk({"text": "a"}, promptFeedback={"safetyRatings": [], "blockReasonMessage": "x"})
    facts = read(EVENTS, stream(value))
    assert facts.finish_reasons == ()
    assert facts.messages == [{"role": "assistant", "parts": [{"type": "text", "content": "a"}]}]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        ({"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}, "RESOURCE_EXHAUSTED"),
        ({"code": 400, "message": "key", "status": "INVALID_ARGUMENT"}, "INVALID_ARGUMENT"),
        ({"code": 503, "message": "busy", "status": "NEW_NAME"}, "_OTHER"),
        ({"code": "rate_limit_exceeded", "message": "of a gateway"}, "rate_limit_exceeded"),
        ({"code": 500}, "_OTHER"),
        ("text", "_OTHER"),
        (None, None),
    ],
)
def test_error_type_is_the_status_of_the_error(error: Any, word: str | None) -> None:
    assert plain({"error": error}).error_type == word
    facts = read(EVENTS, stream(chunk({"text": "a"}), {"error": error}))
    assert facts.error_type == word
    assert facts.messages


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["STOP", "SAFETY", "UNAVAILABLE", "AUDIO", "\ud800", "$.a", "$.a[0]", "$.a.b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                """candidates content parts text thought functionCall args name id willContinue index finishReason
                promptFeedback blockReason blockReasonMessage usageMetadata promptTokenCount candidatesTokenCount
                thoughtsTokenCount toolUsePromptTokenCount totalTokenCount cachedContentTokenCount response error
                status code modelVersion responseId traceId inlineData serviceTier promptTokensDetails modality
                tokenCount partialArgs jsonPath stringValue numberValue boolValue nullValue""".split()  # noqa: SIM905
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)
PARTS = st.builds(lambda parts, rest: chunk(*parts, **rest), st.lists(VALUES, max_size=4), st.just({}))


@settings(max_examples=300)
@given(st.lists(VALUES | PARTS, max_size=4))
def test_arbitrary_json_never_raises_and_gives_storable_values(values: list[Any]) -> None:
    for facts in [read(EVENTS, *(stream_ascii(value) for value in values)), *(plain(value) for value in values)]:
        json.dumps(
            [vars(facts.usage), vars(facts.billing), facts.messages, facts.model, facts.id, facts.finish_reasons],
            allow_nan=False,
            ensure_ascii=False,
        ).encode()
        for count in vars(facts.usage).values():
            assert count is None or 0 <= count < 2**63


def stream_ascii(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@given(st.binary(max_size=300), st.sampled_from([EVENTS, "application/json", None]))
def test_arbitrary_bytes_never_raise(data: bytes, content_type: str | None) -> None:
    read(content_type, data)
    read_request("host.example", STREAM, data)


@pytest.mark.parametrize("depth", [500, 5_000, 100_000])
def test_deep_arguments_never_raise(depth: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    part = f'{{"functionCall": {{"name": "f", "args": {nested}}}}}'
    body = f'{{"candidates": [{{"content": {{"parts": [{part}]}}}}], "usageMetadata": {{"promptTokenCount": 1}}}}'
    for facts in (read(EVENTS, b"data: " + body.encode() + b"\n\n"), read("application/json", body.encode())):
        assert facts.usage in (Usage(), Usage(1))
        json.dumps(facts.messages)


def test_long_stream_is_assembled_in_bounded_memory() -> None:
    reader = response_reader("h.example", STREAM, EVENTS)
    calls = stream(chunk(*[{"functionCall": {"name": "f" * 300, "args": {"a": "x" * 100}}}] * 100))
    texts = stream(chunk({"text": "x" * 1000}, index=1), chunk({"text": "y" * 1000, "thought": True}, index=1))
    tracemalloc.start()
    for _ in range(1000):
        reader.feed(calls)
        reader.feed(texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reader.finish().messages_truncated
    assert peak < 32 << 20


VERTEX = "/v1/projects/p/locations/l/publishers/google/models"
GOOGLE = "generativelanguage.googleapis.com"
CODE_ASSIST = "cloudcode-pa.googleapis.com"


@pytest.mark.parametrize(
    ("host", "path", "body", "expected"),
    [
        (GOOGLE, PLAIN, {}, ("gcp.gemini", "gemini-2.5-flash", False)),
        (GOOGLE, STREAM, {}, ("gcp.gemini", "gemini-2.5-flash", True)),
        (GOOGLE, "/v1beta/tunedModels/t-1:generateContent", {}, ("gcp.gemini", "t-1", False)),
        ("aiplatform.googleapis.com", f"{VERTEX}/g-2:generateContent", {}, ("gcp.vertex_ai", "g-2", False)),
        ("eu-aiplatform.googleapis.com", f"{VERTEX}/g:streamGenerateContent", {}, ("gcp.vertex_ai", "g", True)),
        ("aiplatform.eu.rep.googleapis.com", f"{VERTEX}/g@001:generateContent", {}, ("gcp.vertex_ai", "g@001", False)),
        ("us-aiplatform.googleapis.com", "/v1/p/p/endpoints/7:generateContent", {}, ("gcp.vertex_ai", "7", False)),
        (
            CODE_ASSIST,
            "/v1internal:streamGenerateContent?alt=sse",
            {"model": "gemini-3-pro", "request": {"model": "x"}},
            ("gcp.gen_ai", "gemini-3-pro", True),
        ),
        (CODE_ASSIST, "/v1internal:generateContent", {"request": {}}, ("gcp.gen_ai", None, False)),
        ("gateway.example", f"/gemini{PLAIN}", {}, (None, "gemini-2.5-flash", False)),
    ],
)
def test_request(host: str, path: str, body: dict[str, Any], expected: tuple[str | None, str | None, bool]) -> None:
    sent = json.dumps({"contents": [{"parts": [{"text": "x", "functionResponse": {}}]}]} | body).encode()
    assert read_request(host, path, sent) == RequestFacts("generate_content", *expected)
    assert is_model_api(host, path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/gemini-2.5-flash:generateAnswer",
        f"{VERTEX}/imagen-4:predict",
        "/v1/projects/p/locations/l/publishers/ai21/models/jamba:streamRawPredict",
    ],
)
@pytest.mark.parametrize("host", [GOOGLE, "eu-aiplatform.googleapis.com", CODE_ASSIST])
def test_other_methods_are_model_apis_only_at_googles_hosts(host: str, path: str) -> None:
    assert api_of(path) is None
    assert is_model_api(host, path)
    assert not is_model_api("host.example", path)
    assert not is_model_api("googleapis.com", path)
