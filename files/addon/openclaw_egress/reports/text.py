"""Functions that format text for people: times, sizes, and text from traffic without invisible characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby

_ASCII, _ASCII_LINES = re.compile("([ -~]+)"), re.compile("([ -~\n\t]+)")


def escape(text: object, *, lines: bool = False) -> str:
    """Return ``text`` with escapes for control characters, bidirectional overrides and invisible characters.

    Examples of escapes: ``\\x1b`` and ``\\u202e``. With ``lines``, keep line feeds and tabs.
    """
    return "".join(piece for _, piece in pieces(str(text), lines=lines))


def pieces(text: str, *, lines: bool = False) -> Iterator[tuple[bool, str]]:
    """Yield the text in pieces, either ``(True, unmodified)`` or ``(False, escaped)``; see `escape`."""
    # Bodies can be megabytes long, so skip runs of printable ASCII, and check only the other characters one by one.
    for at, run in enumerate((_ASCII_LINES if lines else _ASCII).split(text)):
        if at % 2 or run.isprintable():
            if run:
                yield True, run
            continue
        for plain, characters in groupby(run, _is_plain):
            found = "".join(characters)
            yield plain, found if plain else "".join(map(_escaped, found))


def _is_plain(char: str) -> bool:
    return char == " " or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def local_time(time_ns: int) -> str:
    """Format a time for people: in the local time zone, without fractions of a second."""
    return datetime.fromtimestamp(time_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def seconds(value: float | None) -> str:
    """Format a duration for people: ``0.35 s``. Return an empty text for None."""
    return "" if value is None else f"{value:.2f} s"


def size(value: float) -> str:
    """Format a number of bytes for people: ``1.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def csv_cell(value: object) -> object:
    """Return a value for a CSV file. Escape a text, so that no spreadsheet interprets it as a formula."""
    if not isinstance(value, str):
        return value
    text = escape(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
