"""LogQL cut into tokens, each with its column, which errors name."""

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
    """The query is refused; the text is what stands in the 400's body."""


@dataclass(frozen=True)
class Token:
    """`kind` is a group of the pattern above, or "end"; columns count from 1."""

    kind: str
    text: str
    column: int


def duration_ns(text: str) -> int:
    """`1h30m` in nanoseconds."""
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))


def tokens(text: str) -> list[Token]:
    """All tokens and an end; LogQLError at a character that starts none."""
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
    """What a quoted string says."""
    if text[0] == "`":
        return text[1:-1]
    try:
        return str(json.loads(text))
    except ValueError:
        raise LogQLError(f"parse error : stand-in: does not know the escapes of {text}") from None
