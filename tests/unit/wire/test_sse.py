"""Tests of the parser of server-sent events: it follows the standard for every split of the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.wire.sse import MAX_OTHER_BYTES, Event, EventStream


def parse(*chunks: bytes, max_event_bytes: int = 1 << 20) -> tuple[list[Event], int]:
    stream = EventStream(max_event_bytes)
    events = [event for chunk in chunks for event in stream.feed(chunk)]
    stream.finish()
    return events, stream.dropped


CASES: dict[str, tuple[bytes, list[Event]]] = {
    "data alone": (b"data: hello\n\n", [Event(None, "hello", None)]),
    "a named event": (b"event: ping\ndata: {}\n\n", [Event("ping", "{}", None)]),
    "the name holds for one event": (
        b"event: a\ndata: 1\n\ndata: 2\n\n",
        [Event("a", "1", None), Event(None, "2", None)],
    ),
    "several data lines": (b"data: one\ndata:two\ndata\ndata:  four\n\n", [Event(None, "one\ntwo\n\n four", None)]),
    "an id stays until another": (
        b"id: 7\ndata: a\n\ndata: b\n\nid\ndata: c\n\n",
        [Event(None, "a", "7"), Event(None, "b", "7"), Event(None, "c", "")],
    ),
    "an id with NUL is not an id": (b"id: 1\0\ndata: a\n\n", [Event(None, "a", None)]),
    "comments and unknown fields": (b": keep-alive\n\nretry: 10\nfoo: bar\ndata: a\n\n", [Event(None, "a", None)]),
    "no data, no event": (b"event: lonely\n\nid: 3\n\n\n\ndata: a\n\n", [Event(None, "a", "3")]),
    "an empty data line is an event": (b"data:\n\n", [Event(None, "", None)]),
    "CR": (b"data: a\rdata: b\r\rdata: c\r\r", [Event(None, "a\nb", None), Event(None, "c", None)]),
    "CRLF": (b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [Event(None, "a\nb", None), Event(None, "c", None)]),
    "mixed ends": (b"data: a\r\n\ndata: b\n\r\ndata: c\n\r", [Event(None, c, None) for c in "abc"]),
    "a BOM at the start alone": (
        b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n",
        [Event(None, "a", None), Event(None, "c", None)],
    ),
    "text that is not ASCII": ("event: é\ndata: ✓ 🐾\n\n".encode(), [Event("é", "✓ 🐾", None)]),
    "other line ends of Unicode are text": (
        "data: a\u2028b\x0bc\x85\n\n".encode(),
        [Event(None, "a\u2028b\x0bc\x85", None)],
    ),
    "bytes that are no UTF-8": (b"data: \xff\n\n", [Event(None, "\ufffd", None)]),
    "cut off": (b"data: a\n\ndata: b\n", [Event(None, "a", None)]),
}


@pytest.mark.parametrize("name", list(CASES))
def test_parsing_rules_hold_for_every_split(name: str) -> None:
    text, expected = CASES[name]
    assert parse(text) == (expected, 0)
    assert parse(*(text[at : at + 1] for at in range(len(text)))) == (expected, 0)
    for at in range(len(text) + 1):
        assert parse(text[:at], b"", text[at:]) == (expected, 0)


def test_event_is_complete_at_its_blank_line() -> None:
    stream = EventStream()
    assert stream.feed(b"data: a\r\n\r") == [Event(None, "a", None)]
    assert stream.feed(b"\ndata: b\n") == []
    assert stream.feed(b"\n") == [Event(None, "b", None)]


def test_event_over_the_size_limit_is_dropped_and_counted_for_every_split() -> None:
    text = (
        b"data: 12345678\n\ndata: " + b"x" * 40 + b"\ndata: more\r\n\r\ndata: 1\n\n: " + b"c" * 40 + b"\n\ndata: 2\n\n"
    )
    expected = [Event(None, data, None) for data in ("12345678", "1", "2")]
    for at in range(len(text) + 1):
        assert parse(text[:at], text[at:], max_event_bytes=16) == (expected, 2)
    assert parse(*(bytes([byte]) for byte in text), max_event_bytes=16) == (expected, 2)


def test_endless_line_does_not_grow_memory() -> None:
    stream = EventStream(max_event_bytes=1000)
    for _ in range(1000):
        assert stream.feed(b"x" * 1000) == []
    assert len(stream._line) <= 1
    assert stream.dropped == 1


PIECES = st.lists(
    st.sampled_from(
        [b"data: a", b"data", b"event: e", b"id: 1", b":c", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"\xc3\xa9"]
    ),
    max_size=30,
)


@given(PIECES, st.lists(st.integers(0, 200), max_size=8), st.sampled_from([10, 1 << 20]))
def test_any_split_gives_the_same_events(pieces: list[bytes], places: list[int], limit: int) -> None:
    text = b"".join(pieces)
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    assert parse(*chunks, max_event_bytes=limit) == parse(text, max_event_bytes=limit)


def other(*chunks: bytes) -> bytes:
    stream = EventStream()
    for chunk in chunks:
        stream.feed(chunk)
    stream.finish()
    return bytes(stream.other)


def test_lines_that_are_not_fields_are_stored_for_every_split() -> None:
    body = b': comment\nretry: 1\nevent: a\nid: 1\0\ndata: 1\n\n{\r\n  "error": {"code": 1}\r\n}'
    for at in range(len(body) + 1):
        assert other(body[:at], body[at:]) == b'{\n  "error": {"code": 1}\n}\n'
    assert other(b'data: 1\n\ndata: {"a"') == b""


def test_lines_that_are_not_fields_are_stored_up_to_a_limit() -> None:
    kept = other(*[b"x" * 1000 + b"\n\n"] * 1000)
    assert len(kept) == MAX_OTHER_BYTES
    assert kept.startswith(b"x" * 1000 + b"\nx")
