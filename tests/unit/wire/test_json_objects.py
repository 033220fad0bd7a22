"""Tests of the JSON object splitter: lines and arrays, every split of the bytes, limits, and random bytes."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.wire.json_objects import JsonObjects

VALUES: list[dict[str, Any]] = [
    {},
    {"a": 1},
    {"a": {"b": [{"c": "}"}, "]"]}},
    {'q"': '\\"{\\\\', "é✓": "\u2028"},
    {"text": "line\nbreak\r\n"},
]


def split(data: bytes, *cuts: int, limit: int = 1000, lines: bool = False) -> tuple[list[Any], int]:
    objects = JsonObjects(limit, lines=lines)
    found: list[bytes] = []
    for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        found += objects.feed(data[begin:end])
    return [json.loads(text) for text in found], objects.dropped


BODIES = {
    "lines": (b"\n".join(json.dumps(value).encode() for value in VALUES), True),
    "lines, CRLF and blank": (b"".join(json.dumps(v, ensure_ascii=False).encode() + b"\r\n\n" for v in VALUES), True),
    "array": (json.dumps(VALUES).encode(), False),
    "array, indented": (json.dumps(VALUES, indent=2, ensure_ascii=False).encode(), False),
    "array, other elements": (b'[1, "{", null, ' + json.dumps(VALUES).encode()[1:-1] + b', "}"]', False),
}


@pytest.mark.parametrize("name", BODIES)
def test_objects_are_found_for_every_split(name: str) -> None:
    body, lines = BODIES[name]
    assert split(body, lines=lines) == (VALUES, 0)
    assert split(body, *range(1, len(body)), lines=lines) == (VALUES, 0)
    for at in range(len(body) + 1):
        assert split(body, at, lines=lines) == (VALUES, 0)


def test_object_is_returned_with_its_last_byte() -> None:
    objects = JsonObjects()
    assert objects.feed(b'[{"a": "}"') == []
    assert objects.feed(b"}") == [b'{"a": "}"}']


@pytest.mark.parametrize("lines", [False, True])
def test_object_over_the_limit_is_dropped_and_the_next_is_found(lines: bool) -> None:
    body = b'{"a": "' + b"x" * 100 + b'{"}\n{"b": {"c": "' + b"y" * 30 + b'"}}\n{"d": 1}'
    for at in range(len(body) + 1):
        assert split(body, at, limit=50, lines=lines) == ([{"b": {"c": "y" * 30}}, {"d": 1}], 1)


@pytest.mark.parametrize("broken", [b'{"a": "', b'{"a": {', b'{"a": "x\\', b'"'])
def test_incomplete_line_does_not_hide_another_line(broken: bytes) -> None:
    body = broken + b'\n{"b": 1}\n'
    dropped = 1 if broken.startswith(b"{") else 0
    for at in range(len(body) + 1):
        assert split(body, at, lines=True) == ([{"b": 1}], dropped)


@given(st.binary(max_size=200), st.integers(0, 200), st.booleans(), st.integers(1, 50))
def test_split_never_changes_the_result(data: bytes, at: int, lines: bool, limit: int) -> None:
    whole = JsonObjects(limit, lines=lines)
    parts = JsonObjects(limit, lines=lines)
    expected = whole.feed(data)
    assert parts.feed(data[:at]) + parts.feed(data[at:]) == expected
    assert parts.dropped == whole.dropped
    assert all(len(text) <= limit for text in expected)


INNER = (
    st.text(max_size=5) | st.floats() | st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=3)), max_size=2)
)


@given(st.lists(st.dictionaries(st.text(max_size=5), INNER, max_size=3), max_size=3), st.integers(0, 100))
def test_objects_equal_those_of_the_json_module(values: list[Any], at: int) -> None:
    text = json.dumps(values).encode()
    assert repr(split(text, min(at, len(text)), limit=10_000)[0]) == repr(json.loads(text))


@pytest.mark.parametrize("piece", [b'{"a":', b"x" * 1000, b'"\\', b"[{", b"}"])
def test_memory_is_bounded(piece: bytes) -> None:
    objects = JsonObjects(10_000)
    objects.feed(b'{"a": "')
    tracemalloc.start()
    for _ in range(5000):
        objects.feed(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
