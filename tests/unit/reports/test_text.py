"""Tests of the escaping of invisible characters."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.reports.text import escape, pieces

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@given(st.text(st.characters(exclude_categories=())), st.booleans())
def test_each_invisible_character_and_no_other_is_escaped(text, lines):
    found = list(pieces(text, lines=lines))
    plain = "".join(piece for is_plain, piece in found if is_plain)
    kept = [char for char in text if unicodedata.category(char) not in HIDDEN or (lines and char in "\n\t")]
    assert list(plain) == kept
    assert all(piece.isascii() and piece.startswith("\\") for is_plain, piece in found if not is_plain)
    assert escape(text, lines=lines) == "".join(piece for _, piece in found)


def test_escapes_equal_those_of_python():
    assert escape("a\x1b\u202e\U000e0001\n", lines=True) == "a\\x1b\\u202e\\U000e0001\n"
    assert escape("a\n\tb") == "a\\x0a\\x09b"
