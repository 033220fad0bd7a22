"""Tests of the capture of an exchange: for every split of the bytes, it is bounded in size, exact and redacted."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.recording.capture import BodyCapture, ExchangeCapture
from openclaw_egress.recording.records import Body, ExchangeRecord

KEY = "sk-ant-api03-abcdefghijklmnop"
REQUEST = b'{"model":"claude-opus-5","max_tokens":9,"stream":true,"messages":[]}'
EVENTS = b"".join(
    b"event: " + json.loads(data)["type"].encode() + b"\ndata: " + data + b"\n\n"
    for data in (
        b'{"type":"message_start","message":{"id":"msg_1","model":"claude-opus-5","role":"assistant","content":[],'
        b'"usage":{"input_tokens":11,"output_tokens":1}}}',
        b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße ✓"}}'.encode(),
        b'{"type":"content_block_stop","index":0}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}',
        b'{"type":"message_stop"}',
    )
)


def capture(**more: object) -> ExchangeCapture:
    fields: dict = {
        "id": "one",
        "class_name": "gateway",
        "rule": "default",
        "reason": "because",
        "method": "POST",
        "url": "https://api.anthropic.com/v1/messages?key=secret",
        "host": "api.anthropic.com",
        "port": 443,
        "http_version": "1.1",
        "request_headers": [("X-Api-Key", KEY), ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")],
        "begin_ns": 1_000_000_000,
        "body_limit": 1000,
        "path": "/v1/messages",
    }
    return ExchangeCapture(**(fields | more))


def exchange(chunks: list[bytes], headers: list[tuple[str, str]], outcome: str = "complete", **more) -> ExchangeRecord:
    found = capture(**more)
    list(found.request.feed(REQUEST))
    found.request_done()
    found.response_began(200, [("content-type", "text/event-stream"), *headers])
    for number, chunk in enumerate(chunks):
        list(found.response_chunk(chunk, 1_500_000_000 + number))
    return found.record(outcome, 3_000_000_000)


@pytest.mark.parametrize(("host", "withheld"), [("ollama", True), ("ollama.com", False)])
def test_credential_in_a_response_at_a_generic_path_withholds_its_message_too(host: str, withheld: bool) -> None:
    text = json.dumps({"content": "client_secret=s3cr3t-Value_0123456789"})
    line = f'{{"model":"m","message":{text},"done":true,"eval_count":3}}\n'.encode()
    found = capture(host=host, path="/api/chat")
    found.request_done()
    found.response_began(200, [("content-type", "application/x-ndjson")])
    list(found.response_chunk(line, 1))
    record = found.record("complete", 2)
    assert ("s3cr3t" not in repr(record)) == withheld
    assert (record.response_facts.usage.output_tokens is None) == withheld


@pytest.mark.parametrize("encode", [bytes, lambda data: gzip.compress(data, mtime=0), zstd.compress])
def test_every_split_of_the_bytes_gives_the_same_record(encode) -> None:
    coding = {bytes: None, zstd.compress: "zstd"}.get(encode, "gzip")
    headers = [("content-encoding", coding)] if coding else []
    wire = encode(EVENTS)
    whole = exchange([wire], headers)
    assert whole.response_body == Body.of(EVENTS)
    assert whole.response_facts.usage.input_tokens == 11
    assert whole.response_facts.usage.output_tokens == 7
    for at in range(1, len(wire)):
        assert exchange([wire[:at], wire[at:]], headers) == whole
    assert exchange([wire[at : at + 1] for at in range(len(wire))], headers) == whole


@pytest.mark.parametrize("body", [b'{"model":"\xff"}', b'{"model":"m","stream":' + b"1" * 4301 + b"}", b"[" * 900])
def test_body_that_is_almost_json_is_recorded(body: bytes) -> None:
    found = capture(body_limit=10_000)
    list(found.request_chunk(body))
    found.request_done()
    record = found.record("client_aborted", 2_000_000_000)
    assert record.request_body is not None
    assert record.request_body.content() == body


def test_capture_redacts_secrets() -> None:
    record = exchange([EVENTS], [("set-cookie", "session=1"), ("request-id", "req_1")])
    assert KEY not in repr(record) and "session=1" not in repr(record) and "secret" not in record.url
    assert record.key_fingerprint is not None
    assert ("request-id", "req_1") in record.response_headers
    assert KEY not in repr(capture().known()) and "secret" not in repr(capture().known())


def test_record_has_times_trace_and_sizes() -> None:
    record = exchange([EVENTS[:10], EVENTS[10:]], [])
    assert (record.begin_ns, record.first_chunk_ns, record.end_ns) == (1_000_000_000, 1_500_000_000, 3_000_000_000)
    assert (record.trace_id, record.span_id) == ("a" * 32, "b" * 16)
    assert (record.request_size, record.response_size) == (len(REQUEST), len(EVENTS))


@pytest.mark.parametrize("value", ["", "00-xyz", f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'g' * 32}-{'b' * 16}-01"])
def test_invalid_trace_is_omitted(value: str) -> None:
    record = capture(request_headers=[("traceparent", value)]).record("upstream_error", 2)
    assert (record.trace_id, record.span_id) == (None, None)


def test_aborted_stream_keeps_its_decodable_part() -> None:
    wire = gzip.compress(EVENTS, mtime=0)
    record = exchange([wire[: len(wire) - 20]], [("content-encoding", "gzip")], "client_aborted")
    assert record.response_body is not None
    assert record.response_body.encoding == "utf-8"
    assert EVENTS.decode().startswith(record.response_body.text) and record.response_body.text
    assert record.response_body.sha256 is None


def test_aborted_body_that_ends_inside_a_character_is_text() -> None:
    at = EVENTS.index("✓".encode()) + 1
    record = exchange([EVENTS[:at]], [], "upstream_error")
    assert record.response_body is not None
    assert record.response_body.text == EVENTS[: at - 1].decode()


def test_bodies_of_token_endpoints_are_not_kept() -> None:
    found = capture(path="/v1/oauth/token", url="https://api.anthropic.com/v1/oauth/token")
    list(found.request.feed(b"refresh_token=rt-1-hush"))
    found.response_began(200, [("content-type", "application/json")])
    list(found.response_chunk(b'{"access_token": "at-1-hush"}', 2))
    assert "hush" not in repr(found.record("complete", 3))


@given(st.binary(max_size=3000), st.integers(0, 1500), st.integers(1, 700))
def test_body_is_complete_or_has_its_head_and_tail(data: bytes, limit: int, step: int) -> None:
    body = BodyCapture(limit, None)
    for at in range(0, len(data), step):
        assert b"".join(piece for piece, _ in body.feed(data[at : at + step])) == data[at : at + step]
    body.finish()
    kept = body.body()
    assert body.truncated == (len(data) > limit)
    if kept is None:
        assert data == b""
        return
    assert (kept.size, kept.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    if not body.truncated:
        assert kept.content() == data
    elif kept.encoding == "base64":
        content = base64.b64decode(kept.text)
        assert len(content) <= limit
        assert data.startswith(content[: limit - limit // 4 - 4])
    else:
        head, _, tail = kept.text.partition("\n[… ")
        assert data.startswith(head.encode())
        assert data.endswith(tail.partition(" …]\n")[2].encode())


def test_body_that_cannot_be_decoded_is_kept_unmodified() -> None:
    body = BodyCapture(1000, "gzip")
    assert list(body.feed(b"no gzip at all")) == []
    body.finish()
    kept = body.body()
    assert kept is not None and kept.encoding == "base64" and kept.content() == b"no gzip at all"


def test_decompression_bomb_is_truncated_and_its_wire_size_counted() -> None:
    bomb = zstd.compress(b"\0" * (100 * 1024 * 1024))
    body = BodyCapture(1000, "zstd")
    assert all(len(piece) <= 1024 * 1024 for piece in body.feed(bomb))
    body.finish()
    assert body.truncated and body.wire_size == len(bomb) and body.size <= 64 * 1024 * 1024
    kept = body.body()
    assert kept is not None and len(kept.text) < 1200
