"""Tests of the indentation of JSON for human readers: it is correct, and its size is limited."""

import json

import pytest

from openclaw_egress.wire.json_indent import MOST_GROWTH, indented


def test_json_is_indented():
    assert indented('{"a":[1,"é"]}') == '{\n  "a": [\n    1,\n    "é"\n  ]\n}'


@pytest.mark.parametrize("text", ["", "word", '{"a":', "[" * 100_000])
def test_other_text_is_unmodified(text):
    assert indented(text) == text


def test_deeply_nested_json_is_not_indented():
    text = "[" * 900 + "0," * 20_000 + "0" + "]" * 900
    assert indented(text) == text
    flat = json.dumps(list(range(20_000)))
    assert flat != indented(flat)
    assert len(indented(flat)) <= MOST_GROWTH * len(flat)
