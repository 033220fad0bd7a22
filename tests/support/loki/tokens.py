"""Tokenizer for LogQL. Each token has its column, which error messages name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<duration>(?:\d+(?:ms|[smhdwy]))+)
    |(?P<number>-?\d+(?:\.\d+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<op>\|=|\|~|!=|!~|=~|==|>=|<=|[{}()\[\],|=<>.+*/%^-])""",
    re.VERBOSE,
)
_UNITS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9, "w": 7 * 86400 * 10**9}
_UNITS["y"] = 365 * _UNITS["d"]
TOKEN_NAMES = {"string": "STRING", "name": "IDENTIFIER", "number": "NUMBER", "duration": "DURATION"}


class LogQLError(ValueError):
    """Error for an invalid query. Its text is the body of the 400 response."""


@dataclass(frozen=True)
class Token:
    """A token. `kind` is a group name in the pattern above, or "end". Columns count from 1."""

    kind: str
    text: str
    column: int


def duration_ns(text: str) -> int:
    """Return a duration such as `1h30m` in nanoseconds."""
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))


def tokens(text: str) -> list[Token]:
    """Return all tokens and an end token. Raise LogQLError if a character cannot start a token."""
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise LogQLError(f"parse error at line 1, col {at + 1}: syntax error: unexpected {text[at]}")
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup or "", match.group(), at + 1))
        at = match.end()
    return [*found, Token("end", "$end", len(text) + 1)]


def unquote(text: str) -> str:
    """Return the content of a quoted string, with escape sequences resolved."""
    if text[0] == "`":
        return text[1:-1]
    try:
        return str(json.loads(text))
    except ValueError:
        raise LogQLError(f"parse error : Loki fake: unsupported escape in {text}") from None
