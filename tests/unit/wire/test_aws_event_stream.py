"""Tests of Amazon's event stream encoding, with `botocore` as the reference, for every split of the bytes."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.wire.aws_event_stream import AwsEventStream, Message

KINDS = {":event-type": "chunk", ":message-type": "event"}


def header(name: str, kind: int, value: bytes) -> bytes:
    return bytes([len(name)]) + name.encode() + bytes([kind]) + value


def string(name: str, value: str) -> bytes:
    return header(name, 7, struct.pack(">H", len(value.encode())) + value.encode())


def framed(headers: bytes, payload: bytes) -> bytes:
    head = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = head + struct.pack(">I", crc32(head)) + headers + payload
    return message + struct.pack(">I", crc32(message))


def message(payload: bytes = b"{}") -> bytes:
    return framed(b"".join(string(name, value) for name, value in KINDS.items()), payload)


def read(*chunks: bytes, limit: int = 1 << 20) -> tuple[list[Message], AwsEventStream]:
    stream = AwsEventStream(limit)
    return [one for chunk in chunks for one in stream.feed(chunk)], stream


def by_botocore(body: bytes) -> tuple[list[Message], bool]:
    """Return the messages that `botocore` finds, and whether it raises an error after them."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    found: list[Message] = []
    try:
        for one in buffer:
            texts = {name: value for name, value in one.headers.items() if isinstance(value, str)}
            found.append(Message(texts, one.payload))
    except (ParserError, KeyError, UnicodeDecodeError, struct.error):
        return found, True
    return found, False


EVERY_TYPE = framed(
    string("s", "é✓")
    + header("true", 0, b"")
    + header("false", 1, b"")
    + header("byte", 2, b"\x01")
    + header("short", 3, b"\0\1")
    + header("integer", 4, bytes(4))
    + header("long", 5, bytes(8))
    + header("bytes", 6, b"\0\2ab")
    + header("time", 8, bytes(8))
    + header("uuid", 9, bytes(16))
    + string("last", "z"),
    b"payload",
)
BODY = message(b'{"a": 1}') + EVERY_TYPE + framed(b"", b"") + message(bytes(range(256)))


def test_messages_equal_botocores_for_every_split() -> None:
    expected, failed = by_botocore(BODY)
    assert len(expected) == 4
    assert not failed
    assert expected[1].headers == {"s": "é✓", "last": "z"}
    for at in range(len(BODY) + 1):
        found, stream = read(BODY[:at], BODY[at:])
        assert (found, stream.damaged, stream.dropped) == (expected, False, 0)
    assert read(*(bytes([byte]) for byte in BODY))[0] == expected


def test_each_wrong_byte_ends_the_stream_as_in_botocore() -> None:
    body = message(b"1") + EVERY_TYPE + message(b"3")
    whole = by_botocore(body)[0]
    for at in range(len(body)):
        wrong = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        expected, failed = by_botocore(wrong)
        assert failed
        assert expected == whole[: len(expected)]
        found, stream = read(wrong)
        assert (found, stream.damaged) == (expected, True)
        assert stream.feed(message(b"later")) == []
        assert read(*(bytes([byte]) for byte in wrong))[0] == expected


@pytest.mark.parametrize(
    "headers",
    [
        b"\x05abc",
        header("a", 10, b""),
        header("a", 7, b"\xff\xff"),
        header("a", 7, b"\0\1\xff"),
        header("a", 4, b"\0"),
        string("a", "1") + string("a", "2"),
        b"\xff",
    ],
)
def test_invalid_headers_end_the_stream(headers: bytes) -> None:
    found, stream = read(message(b"1") + framed(headers, b"2") + message(b"3"))
    assert ([one.payload for one in found], stream.damaged) == ([b"1"], True)


@pytest.mark.parametrize(("total", "headers"), [(0, 0), (15, 0), (16, 1), (2**31, 0), (200_000, 150_000)])
def test_impossible_lengths_end_the_stream_although_their_crc_is_right(total: int, headers: int) -> None:
    head = struct.pack(">II", total, headers)
    found, stream = read(message(b"1") + head + struct.pack(">I", crc32(head)) + bytes(300))
    assert (len(found), stream.damaged, len(stream._held)) == (1, True, 0)


def test_incomplete_message_at_the_end_is_dropped() -> None:
    found, stream = read(message(b"1") + message(b"2")[:-1])
    assert ([one.payload for one in found], stream.damaged, stream.dropped) == ([b"1"], False, 0)


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
@pytest.mark.parametrize("right", [True, False])
def test_long_message_is_skipped_without_keeping_it(size: int, right: bool) -> None:
    long = message(bytes(50_000))
    if not right:
        long = long[:-1] + bytes([long[-1] ^ 1])
    body = message(b"1") + long + message(b"3")
    stream = AwsEventStream(1000)
    found: list[bytes] = []
    for at in range(0, len(body), size):
        found += [one.payload for one in stream.feed(body[at : at + size])]
        assert len(stream._held) < 1000
    assert (found, stream.dropped, stream.damaged) == (([b"1", b"3"], 1, False) if right else ([b"1"], 0, True))


@given(st.lists(st.one_of(st.just(message()), st.just(EVERY_TYPE), st.binary(max_size=40)), max_size=6), st.data())
def test_random_bytes_have_the_same_messages_as_in_botocore_for_every_split(
    pieces: list[bytes], data: st.DataObject
) -> None:
    body = b"".join(pieces)
    at = data.draw(st.integers(0, len(body)))
    found, stream = read(body[:at], body[at:])
    expected, failed = by_botocore(body)
    assert found == expected
    assert stream.damaged or not failed
