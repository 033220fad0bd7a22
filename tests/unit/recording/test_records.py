"""Tests of the records of an exchange: attributes, the split into log lines, and reassembly."""

import base64
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_egress.llm.model import Billing, RequestFacts, ResponseFacts, Usage
from openclaw_egress.llm.registry import PROVIDER_ERRORS
from openclaw_egress.recording.hash_chain import GENESIS, chained, line_hash
from openclaw_egress.recording.log_lines import MAX_LINE_BYTES, Line, reassemble
from openclaw_egress.recording.records import Body, DeniedRecord, EventRecord, ExchangeRecord, lines_of, severity
from openclaw_egress.recording.semconv import USAGE_DETAILS

SECOND = 1_000_000_000


def exchange(**changes) -> ExchangeRecord:
    known = {
        "id": "0195",
        "class_name": "gateway",
        "rule": "classes.gateway.action",
        "method": "POST",
        "url": "https://api.anthropic.com/v1/messages",
        "host": "api.anthropic.com",
        "port": 443,
        "begin_ns": 1_795_524_247 * SECOND,
        "end_ns": 1_795_524_249 * SECOND + SECOND // 2,
        "status": 200,
    }
    return ExchangeRecord(**{**known, **changes})


def chain(lines: list[Line]) -> list[str]:
    prev, texts = GENESIS, []
    for seq, line in enumerate(lines, 1):
        texts.append(chained(line, seq, prev))
        prev = line_hash(texts[-1])
    return texts


def test_known_values_become_attributes_with_standard_names():
    record = exchange(
        http_version="1.1",
        first_chunk_ns=1_795_524_248 * SECOND,
        request_size=10,
        response_size=20,
        key_fingerprint="0123456789ab",
        request_facts=RequestFacts("chat", "anthropic", "claude-opus-5", True),
        response_facts=ResponseFacts("claude-opus-5-1", "msg_1", ("end_turn",), Usage(10, 5, 3, 2, 1)),
    )
    (line,) = lines_of(record)
    assert line.attributes == {
        "event_name": "openclaw.egress.exchange",
        "openclaw.egress.exchange.id": "0195",
        "openclaw.egress.class": "gateway",
        "openclaw.egress.rule": "classes.gateway.action",
        "openclaw.egress.outcome": "complete",
        "openclaw.egress.begin": "2026-11-24T12:44:07.000000Z",
        "openclaw.egress.duration": 2.5,
        "openclaw.egress.key": "0123456789ab",
        "openclaw.egress.request.size": 10,
        "openclaw.egress.response.size": 20,
        "body_truncated": False,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.full": "https://api.anthropic.com/v1/messages",
        "server.address": "api.anthropic.com",
        "server.port": 443,
        "network.protocol.version": "1.1",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-opus-5",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "claude-opus-5-1",
        "gen_ai.response.id": "msg_1",
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.response.time_to_first_chunk": 1.0,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.cache_write.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 1,
    }


def test_counts_of_sound_images_caches_and_searches_are_attributes_with_standard_names():
    billing = Billing(
        input_audio_tokens=1,
        cache_read_audio_tokens=2,
        output_audio_tokens=3,
        input_image_tokens=4,
        output_image_tokens=5,
        cache_write_5m_tokens=6,
        cache_write_1h_tokens=0,
        web_searches=7,
        web_fetches=8,
    )
    (line,) = lines_of(exchange(response_facts=ResponseFacts(billing=billing)))
    (without,) = lines_of(exchange(response_facts=ResponseFacts()))
    assert dict(line.attributes.items() - without.attributes.items()) == {
        "gen_ai.usage.audio.input_tokens": 1,
        "gen_ai.usage.audio.cache_read.input_tokens": 2,
        "gen_ai.usage.audio.output_tokens": 3,
        "gen_ai.usage.image.input_tokens": 4,
        "gen_ai.usage.image.output_tokens": 5,
        "openclaw.egress.usage.cache_write_5m.input_tokens": 6,
        "openclaw.egress.usage.cache_write_1h.input_tokens": 0,
        "openclaw.egress.usage.web_searches": 7,
        "openclaw.egress.usage.web_fetches": 8,
    }
    assert set(USAGE_DETAILS) == set(line.attributes) - set(without.attributes)


def test_unknown_values_are_absent_and_zero_is_kept():
    (line,) = lines_of(exchange(response_facts=ResponseFacts(usage=Usage(output_tokens=0))))
    assert line.attributes["gen_ai.usage.output_tokens"] == 0
    assert "gen_ai.usage.input_tokens" not in line.attributes
    assert "error.type" not in line.attributes


def test_line_is_compact_json_that_starts_with_seq_and_prev():
    record = exchange(request_headers=[("Accept", "*/*")], request_body=Body.of(b'{"a":1}'))
    (text,) = chain(lines_of(record))
    assert text.startswith(
        f'{{"seq":1,"prev":"{GENESIS}","method":"POST","url":"https://api.anthropic.com/v1/messages"'
    )
    assert list(json.loads(text)) == ["seq", "prev", "method", "url", "status", "request", "response"]
    assert json.loads(text)["request"] == {
        "headers": {"Accept": "*/*"},
        "body": '{"a":1}',
        "body_sha256": hashlib.sha256(b'{"a":1}').hexdigest(),
        "body_size": 7,
        "body_encoding": "utf-8",
    }


def test_each_line_contains_the_hash_of_the_previous_line():
    one, two = chain([*lines_of(exchange()), *lines_of(exchange(id="2"))])
    assert json.loads(two)["prev"] == hashlib.sha256(one.encode()).hexdigest()


def test_repeated_header_keeps_all_values():
    (text,) = chain(lines_of(exchange(response_headers=[("Vary", "a"), ("x", "1"), ("vary", "b")])))
    assert json.loads(text)["response"]["headers"] == {"Vary": ["a", "b"], "x": "1"}


def test_assembled_message_of_a_stream_is_next_to_its_body():
    message = [{"role": "assistant", "parts": [{"type": "text", "content": "hi"}]}]
    (text,) = chain(lines_of(exchange(response_facts=ResponseFacts(messages=message))))
    assert json.loads(text)["messages"] == message


def test_a_truncated_assembled_message_is_marked():
    message = [{"role": "assistant", "parts": [{"type": "text", "content": "hi"}]}]
    (whole,) = chain(lines_of(exchange(response_facts=ResponseFacts(messages=message))))
    (cut,) = chain(lines_of(exchange(response_facts=ResponseFacts(messages=message, messages_truncated=True))))
    assert "messages_truncated" not in json.loads(whole)
    assert json.loads(cut)["messages_truncated"] is True


@pytest.mark.parametrize("word", sorted(PROVIDER_ERRORS))
def test_each_error_type_of_a_provider_reaches_the_record(word):
    (line,) = lines_of(exchange(status=400, response_facts=ResponseFacts(error_type=word)))
    assert line.attributes["error.type"] == word


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        (b"", "", "utf-8"),
        ("é\0".encode(), "é\0", "utf-8"),
        (b"\xff\x00", base64.b64encode(b"\xff\0").decode(), "base64"),
    ],
)
def test_body_text_can_be_converted_back_to_its_bytes(data, text, encoding):
    body = Body.of(data)
    assert (body.text, body.encoding, body.size) == (text, encoding, len(data))
    assert body.content() == data
    assert body.sha256 == hashlib.sha256(data).hexdigest()


def test_body_cut_inside_a_character_is_text_without_a_hash():
    body = Body.of("aé€".encode()[:-1], whole=False)
    assert (body.text, body.encoding, body.truncated, body.sha256, body.size) == ("aé", "utf-8", True, None, 5)


@pytest.mark.parametrize(
    ("status", "outcome", "error", "level"),
    [
        (200, "complete", None, "INFO"),
        (304, "complete", None, "INFO"),
        (404, "complete", "404", "WARN"),
        (429, "complete", "rate_limit_error", "WARN"),
        (500, "complete", "500", "ERROR"),
        (529, "complete", "overloaded_error", "ERROR"),
        (None, "upstream_error", "connect_error", "ERROR"),
        (200, "upstream_error", "upstream_closed", "ERROR"),
        (200, "interrupted", "interrupted", "ERROR"),
        (200, "client_aborted", "client_aborted", "WARN"),
        (200, "complete", "overloaded_error", "ERROR"),
    ],
)
def test_severity_follows_status_and_outcome(status, outcome, error, level):
    assert severity(status, outcome, error) == level


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": 404}, "404"),
        ({"status": 429, "response_facts": ResponseFacts(error_type="rate_limit_error")}, "rate_limit_error"),
        ({"status": None, "outcome": "upstream_error", "error_type": "tls_error"}, "tls_error"),
        ({"status": 200, "error_type": "whatever the peer said: sk-ant-oops"}, "_OTHER"),
        ({"status": 200, "outcome": "client_aborted"}, "client_aborted"),
    ],
)
def test_error_type_comes_from_a_fixed_list(changes, expected):
    (line,) = lines_of(exchange(**changes))
    assert line.attributes["error.type"] == expected


def test_denial_has_class_destination_rule_and_reason():
    denied = DeniedRecord(
        class_name="sandbox", host="evil.example", port=443, rule="default", code="no_rule",
        reason="no rule allows it",
        client="172.30.0.9", method="CONNECT",
    )  # fmt: skip
    (line,) = lines_of(denied)
    assert line.severity_text == "WARN"
    assert line.attributes["event_name"] == "openclaw.egress.denied"
    assert line.attributes["openclaw.egress.outcome"] == "denied"
    assert line.attributes["client.address"] == "172.30.0.9"
    fields = json.loads(line.json)
    assert fields["reason"] == "no rule allows it"
    assert line.attributes["openclaw.egress.code"] == fields["code"] == "no_rule"


def test_event_contains_its_message_and_attributes():
    (line,) = lines_of(EventRecord(event_name="openclaw.egress.policy", message="loaded", attributes={"x": 1}))
    assert (json.loads(line.json), line.attributes["x"]) == ({"message": "loaded", "x": 1}, 1)


def test_only_a_line_over_the_limit_is_split():
    overhead = len(chain(lines_of(exchange(response_body=Body.of(b"")))).pop().encode())
    fits = exchange(response_body=Body.of(b"x" * (MAX_LINE_BYTES - overhead - 100)))
    assert len(lines_of(fits)) == 1
    assert len(lines_of(exchange(response_body=Body.of(b"x" * MAX_LINE_BYTES)))) > 1


def test_parts_of_a_record_have_an_index_and_no_usage():
    facts = ResponseFacts(usage=Usage(1, 2))
    first, *parts = lines_of(exchange(response_body=Body.of(b"x" * 500_000), response_facts=facts))
    assert first.attributes["gen_ai.usage.input_tokens"] == 1
    assert first.attributes["openclaw.egress.part.count"] == len(parts) == 3
    assert "headers" in json.loads(first.json)["response"]
    for index, part in enumerate(parts, 1):
        assert part.attributes == {
            "event_name": "openclaw.egress.exchange",
            "openclaw.egress.exchange.id": "0195",
            "openclaw.egress.class": "gateway",
            "openclaw.egress.part.index": index,
            "openclaw.egress.part.count": 3,
            "openclaw.egress.part.direction": "response",
        }


def test_small_body_stays_in_the_first_line_if_the_other_is_split_off():
    first, *_ = lines_of(exchange(request_body=Body.of(b"small"), response_body=Body.of(b"x" * 500_000)))
    assert json.loads(first.json)["request"]["body"] == "small"
    assert "body" not in json.loads(first.json)["response"]


def test_missing_part_is_reported_and_the_rest_is_shown():
    texts = chain(lines_of(exchange(response_body=Body.of(b"x" * 500_000))))
    found = reassemble([texts[0], texts[1], texts[3]])
    assert found["missing_parts"] == [2]
    assert found["status"] == 200


def test_lines_without_the_first_cannot_be_assembled():
    texts = chain(lines_of(exchange(response_body=Body.of(b"x" * 500_000))))
    with pytest.raises(ValueError, match="first line"):
        reassemble(texts[1:])


# Characters of one to four bytes in UTF-8, and characters that JSON escapes with two or six bytes.
PIECES = ["a" * 997, "é", "€", "😀", '"\\', "\0\x1b", "\n", "中" * 333]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=8),
    st.integers(0, 900_000),
    st.integers(0, 400_000),
    st.integers(0, 300_000),
)
def test_split_record_is_reassembled_and_no_line_is_too_long(pieces, answer, question, header):
    pattern = "".join(pieces)

    def fill(size: int) -> str:
        return (pattern * (size // len(pattern) + 1))[:size]

    record = exchange(
        request_headers=[("x-long", fill(header))],
        request_body=Body.of(fill(question).encode()),
        response_body=Body.of(fill(answer).encode()),
        output_messages=[{"role": "assistant", "parts": [{"type": "text", "content": fill(answer // 3)}]}],
    )
    texts = chain(lines_of(record))
    assert max(len(text.encode()) for text in texts) <= MAX_LINE_BYTES
    found = reassemble(reversed(texts))
    assert found["request"]["headers"] == {"x-long": fill(header)}
    assert found["request"]["body"] == fill(question)
    assert found["response"]["body"] == fill(answer)
    assert found["messages"][0]["parts"][0]["content"] == fill(answer // 3)


any_text = st.text(st.characters(codec=None, categories=None), max_size=50)


@given(any_text, any_text)
def test_any_text_makes_valid_lines_within_the_limits_of_metadata(text, other):
    long = text * 2000 + other
    facts = ResponseFacts(long, long, (long,) * 40, Usage(2**70))
    record = exchange(
        id=other, method=long, url=long, host=long, reason=long, rule=long, response_facts=facts,
        response_headers=[(other, long)], response_body=Body(text=text),
        output_messages=[{"content": text}],
    )  # fmt: skip
    for line in lines_of(record):
        json.loads(chained(line, 1, GENESIS).encode())
        assert len(line.attributes) <= 96
        assert sum(len(str(k)) + len(str(v).encode()) for k, v in line.attributes.items()) < 48 * 1024


@pytest.mark.parametrize("surrogate", ["\udc80", "\udcff", "\ud800"])
def test_lone_surrogate_in_an_assembled_message_leaves_valid_json(surrogate):
    (line,) = lines_of(exchange(output_messages=[{"content": f'"{surrogate}"'}]))
    assert json.loads(chained(line, 1, GENESIS).encode())["messages"] == [{"content": f'"{chr(0xFFFD) * 3}"'}]


def test_each_line_of_a_record_names_the_gateway_instance():
    large = Body.of(b"a" * 300_000)
    split = lines_of(exchange(class_name="gateway-b", instance="gw-b", request_body=large))
    denied = lines_of(
        DeniedRecord(
            class_name="sandbox-b",
            instance="gw-b",
            host="a.example",
            port=443,
            rule="default",
            code="no_rule",
            reason="why",
        )
    )
    tunnel = lines_of(
        EventRecord(event_name="openclaw.egress.tunnel", message="1 byte", class_name="gateway-b", instance="gw-b")
    )
    assert len(split) > 1
    assert {line.attributes["openclaw.egress.instance"] for line in (*split, *denied, *tunnel)} == {"gw-b"}


def test_record_of_a_class_without_instance_has_no_such_attribute():
    lines = lines_of(exchange(request_body=Body.of(b"a" * 300_000)))
    assert not any("openclaw.egress.instance" in line.attributes for line in lines)
