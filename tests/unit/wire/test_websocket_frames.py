"""Tests of the WebSocket frame reader: every split of the bytes, and bytes that are not frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from openclaw_egress.wire import websocket_frames
from openclaw_egress.wire.websocket_frames import CLOSE, PING, TEXT, FrameError, FrameReader, server_frame

MESSAGES = st.lists(
    st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), st.lists(st.binary(max_size=300), min_size=1, max_size=4)),
    max_size=5,
)


def frames_of(messages, *, masked, pings=False):
    data = b""
    for opcode, fragments in messages:
        for index, fragment in enumerate(fragments):
            fin = index == len(fragments) - 1
            data += Frame(opcode if index == 0 else Opcode.CONT, fragment, fin=fin).serialize(mask=masked)
            if pings:
                data += Frame(Opcode.PING, b"p" * 125).serialize(mask=masked)
    return data


def read(reader, chunks):
    """Read the chunks. Return a list of messages and a list of control frames, each as (opcode, payload)."""
    messages, controls, payload = [], [], b""
    for chunk in chunks:
        end = 0
        for part in reader.feed(chunk):
            assert end <= part.end <= len(chunk)
            end = part.end
            if part.opcode >= CLOSE:
                controls.append((part.opcode, part.payload))
                continue
            payload += part.payload
            if part.ended:
                messages.append((part.opcode, payload))
                payload = b""
    return messages, controls


@given(MESSAGES, st.booleans(), st.booleans(), st.integers(1, 40))
def test_messages_are_read_at_every_split(messages, masked, pings, step):
    data = frames_of(messages, masked=masked, pings=pings)
    wanted = [(int(opcode), b"".join(fragments)) for opcode, fragments in messages]
    found, controls = read(FrameReader(masked=masked), [data[at : at + step] for at in range(0, len(data), step)])
    assert found == wanted
    assert len(controls) == (sum(len(fragments) for _, fragments in messages) if pings else 0)
    assert all(control == (PING, b"p" * 125) for control in controls)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 200_000])
def test_frame_of_the_proxy_is_read_back(size):
    assert read(FrameReader(masked=False), [server_frame(TEXT, b"x" * size)]) == ([(TEXT, b"x" * size)], [])


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x83\x00", "opcode 0x3"),
        (b"\x8f\x00", "opcode 0xf"),
        (b"\xc1\x00", "reserved bit"),
        (b"\x91\x00", "reserved bit"),
        (b"\x81\x80", "is masked"),
        (b"\x80\x00", "continuation"),
        (b"\x01\x00\x81\x00", "continuation"),
        (b"\x09\x00", "control frame"),
        (b"\x89\x7e", "control frame"),
        (b"\x82\x7f" + b"\xff" * 8, "2.63 bytes"),
        (b"\x88\x00\x81\x00", "after the close frame"),
    ],
)
def test_invalid_frames_raise(data, problem):
    for step in (1, len(data)):
        with pytest.raises(FrameError, match=problem):
            read(FrameReader(masked=False), [data[at : at + step] for at in range(0, len(data), step)])


def test_client_must_mask():
    with pytest.raises(FrameError, match="not masked"):
        list(FrameReader(masked=True).feed(b"\x81\x01x"))


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_frames_or_raise(data, masked):
    try:
        read(FrameReader(masked=masked), [data])
    except FrameError as error:
        assert str(error)


def test_reader_stores_no_payload():
    reader = FrameReader(masked=False)
    list(reader.feed(b"\x82\x7f" + (1 << 40).to_bytes(8)))
    for _ in range(100):
        (part,) = reader.feed(b"x" * 65536)
        assert (len(part.payload), part.ended) == (65536, False)
    assert not reader._head and not reader._control


@pytest.mark.parametrize(
    ("payload", "code"), [(b"", 1005), (b"\x03", 1005), (b"\x03\xe8", 1000), (b"\x03\xeabad", 1002)]
)
def test_close_code_is_read(payload, code):
    assert websocket_frames.close_code(payload) == code


def test_reason_of_a_close_frame_is_cut_between_characters():
    payload = websocket_frames.close_payload(1011, "é" * 100)
    assert len(payload) <= 125
    assert payload[2:].decode() == "é" * 61
