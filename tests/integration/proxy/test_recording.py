"""Tests that the official SDKs' requests and responses through the gateway's listener are recorded exactly."""

import gzip
import hashlib
import json
import time

import anthropic
import httpx2 as httpx
import openai
import pytest

from openclaw_egress.spool.reader import Row, SpoolReader

KEY = "sk-ant-api03-a-key-that-must-not-be-kept-anywhere"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def claude(proxy):
    with proxy.client() as http:
        yield anthropic.Anthropic(api_key=KEY, base_url=proxy.url("api.anthropic.com"), http_client=http, max_retries=0)


@pytest.fixture
def gpt(proxy):
    with proxy.client() as http:
        yield openai.OpenAI(api_key=KEY, base_url=proxy.url("api.openai.com", "/v1"), http_client=http, max_retries=0)


@pytest.fixture
def recorded(proxy):
    """Return a function that waits for the only exchange recorded since the test began, and returns it."""
    before = {row.id for row in proxy.exchanges()}

    def only() -> Row:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            new = [row for row in proxy.exchanges() if row.id not in before]
            if new:
                assert len(new) == 1
                return new[0]
            time.sleep(0.02)
        raise AssertionError("no exchange was recorded within 10 s")

    return only


@pytest.fixture
def http(proxy):
    with proxy.client(headers={"x-api-key": KEY}) as client:
        yield client


def message(**more: object) -> dict:
    return {"model": "claude-opus-5", "max_tokens": 9, "messages": HELLO, **more}


def whole_line(proxy, row: Row) -> dict:
    assert row.parts in (0, 1)
    return proxy.line(row.id)


def test_plain_anthropic_message_is_recorded_as_the_sdk_reads_it(proxy, providers, claude, recorded):
    answer = claude.messages.create(model="claude-opus-5", max_tokens=100, messages=HELLO)
    row = recorded()
    usage = answer.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert row.input_tokens == usage.input_tokens + cached
    assert row.output_tokens == usage.output_tokens
    assert (row.class_name, row.method, row.status, row.outcome) == ("gateway", "POST", 200, "complete")
    assert (row.provider, row.model, row.stream) == ("anthropic", answer.model, False)
    line = whole_line(proxy, row)
    assert json.loads(line["request"]["body"])["messages"] == HELLO
    assert json.loads(line["response"]["body"])["id"] == answer.id
    headers = {name.lower(): value for name, value in line["request"]["headers"].items()}
    assert "[redacted]" in (headers.get("x-api-key"), headers.get("authorization"))


def test_streamed_anthropic_message_is_recorded_as_the_sdk_reads_it(proxy, providers, claude, recorded):
    with claude.messages.stream(model="claude-opus-5", max_tokens=100, messages=HELLO) as stream:
        answer = stream.get_final_message()
    row = recorded()
    assert row.output_tokens == answer.usage.output_tokens
    assert row.stream is True
    assert row.first_chunk is not None and row.duration is not None and row.first_chunk <= row.duration
    line = whole_line(proxy, row)
    assert hashlib.sha256(line["response"]["body"].encode()).hexdigest() == providers.log[-1]["body_sha256"]
    assert answer.content[0].text in json.dumps(line["messages"], ensure_ascii=False)


def test_plain_chat_completion_is_recorded_as_the_sdk_reads_it(proxy, gpt, recorded):
    answer = gpt.chat.completions.create(model="gpt-6", messages=HELLO)
    row = recorded()
    assert answer.usage is not None
    assert (row.input_tokens, row.output_tokens) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert (row.provider, row.model) == ("openai", answer.model)


def test_streamed_chat_completion_is_recorded_as_the_sdk_reads_it(proxy, gpt, recorded):
    chunks = list(
        gpt.chat.completions.create(model="gpt-6", messages=HELLO, stream=True, stream_options={"include_usage": True})
    )
    row = recorded()
    usage = chunks[-1].usage
    assert usage is not None
    assert (row.input_tokens, row.output_tokens) == (usage.prompt_tokens, usage.completion_tokens)


def test_plain_openai_response_is_recorded_as_the_sdk_reads_it(proxy, gpt, recorded):
    answer = gpt.responses.create(model="gpt-6", input="hello")
    row = recorded()
    assert answer.usage is not None
    assert (row.input_tokens, row.output_tokens) == (answer.usage.input_tokens, answer.usage.output_tokens)


def test_streamed_openai_response_is_recorded_as_the_sdk_reads_it(proxy, gpt, recorded):
    events = list(gpt.responses.create(model="gpt-6", input="hello", stream=True))
    row = recorded()
    usage = events[-1].response.usage
    assert (row.input_tokens, row.output_tokens) == (usage.input_tokens, usage.output_tokens)


@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
def test_error_response_of_the_provider_is_recorded(proxy, claude, recorded, status):
    with pytest.raises(anthropic.APIStatusError) as raised:
        claude.messages.create(model=f"fail-{status}", max_tokens=100, messages=HELLO)
    row = recorded()
    assert row.status == raised.value.status_code == status
    assert row.outcome == "complete"
    assert row.error_type == raised.value.body["error"]["type"]
    assert row.input_tokens is None


def test_error_inside_a_stream_is_recorded(claude, recorded):
    with (
        pytest.raises(anthropic.APIError),
        claude.messages.stream(model="fail-stream", max_tokens=100, messages=HELLO) as stream,
    ):
        stream.get_final_message()
    row = recorded()
    assert row.status == 200
    assert row.error_type == "overloaded_error"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("stream", [False, True])
def test_recorded_body_is_decoded(proxy, http, recorded, encoding, stream):
    answer = http.post(
        proxy.url("api.anthropic.com", "/v1/messages"),
        headers={"x-standin-encoding": encoding},
        json=message(stream=stream),
    )
    assert answer.headers["content-encoding"] == encoding
    line = whole_line(proxy, recorded())
    assert line["response"]["body"] == answer.text
    assert "claude-opus-5" in line["response"]["body"]


def test_events_are_passed_immediately(proxy, http, providers):
    """Assert that the client has the first of 20 events before the provider sends the last."""
    began = time.time()
    with http.stream(
        "POST",
        proxy.url("api.anthropic.com", "/v1/messages"),
        headers={"x-standin-events": "20", "x-standin-delay-ms": "50"},
        json=message(stream=True),
    ) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: message_start"
        assert not providers.asked_since(began)
        assert 'data: {"type": "message_stop"}' in list(lines)
    assert len(providers.asked_since(began)) == 1


def test_long_response_is_forwarded_completely_and_recorded_truncated(proxy, http, providers, recorded):
    answer = http.post(
        proxy.url("api.anthropic.com", "/v1/messages"),
        headers={"x-standin-body-bytes": "3000000"},
        json=message(),
    )
    assert len(answer.content) > 3_000_000
    assert hashlib.sha256(answer.content).hexdigest() == providers.log[-1]["body_sha256"]
    row = recorded()
    assert row.output_tokens == answer.json()["usage"]["output_tokens"]
    with SpoolReader(proxy.directory / "state" / "spool.db") as reader:
        lines = reader.lines_for(row.id)
    assert all(len(line.encode()) <= 262_144 for line in lines)
    assert 1_000_000 < sum(map(len, lines)) < 1_300_000
    assert json.loads(lines[0])["response"]["body_sha256"] == hashlib.sha256(answer.content).hexdigest()


@pytest.mark.parametrize("length", ["known", "unknown"])
def test_long_request_is_streamed_and_recorded_truncated(proxy, http, providers, recorded, length):
    body = json.dumps(message(messages=[{"role": "user", "content": "x" * 2_500_000}])).encode()
    pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))
    answer = http.post(
        proxy.url("api.anthropic.com", "/v1/messages"),
        content=body if length == "known" else pieces,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 200
    assert providers.log[-1]["request_body_sha256"] == hashlib.sha256(body).hexdigest()
    row = recorded()
    assert row.model == "claude-opus-5"


def test_compressed_request_is_recorded_decoded(proxy, http, recorded):
    body = json.dumps(message()).encode()
    answer = http.post(
        proxy.url("api.anthropic.com", "/v1/messages"),
        content=gzip.compress(body),
        headers={"content-type": "application/json", "content-encoding": "gzip"},
    )
    assert answer.status_code == 200
    assert whole_line(proxy, recorded())["request"]["body"] == body.decode()


def test_client_disconnect_is_recorded(proxy, http, recorded):
    with http.stream(
        "POST",
        proxy.url("api.anthropic.com", "/v1/messages"),
        headers={"x-standin-events": "100", "x-standin-delay-ms": "50"},
        json=message(stream=True),
    ) as answer:
        next(answer.iter_lines())
    row = recorded()
    assert row.outcome == "client_aborted"
    assert "message_start" in whole_line(proxy, row)["response"]["body"]


def test_provider_disconnect_is_recorded(proxy, http, recorded):
    with pytest.raises(httpx.HTTPError):
        http.post(
            proxy.url("api.anthropic.com", "/v1/messages"),
            headers={"x-standin-abort-after": "200"},
            json=message(stream=True),
        )
    row = recorded()
    assert row.outcome == "upstream_error"
    assert row.error_type in ("upstream_closed", "protocol_error")


def test_request_without_a_body_is_recorded(proxy, http, recorded):
    http.get(proxy.url("api.anthropic.com", "/v1/models?key=secret-in-the-query"))
    row = recorded()
    assert row.url is not None and "secret-in-the-query" not in row.url
    assert row.url.startswith(proxy.url("api.anthropic.com", "/v1/models?key="))


def test_no_api_key_is_on_the_disk(proxy):
    """Search the disk after all calls of this module. Keep this test last."""
    for file in proxy.directory.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert KEY.encode() not in data, file
            assert b"secret-in-the-query" not in data, file
