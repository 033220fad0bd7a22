"""The operator's own patterns of secrets, from the policy's ``mask``, checked so that none can block the proxy.

Python's `re` cannot be interrupted, so a policy must not contain a pattern that takes exponential time. The check
refuses the constructs that make a search slow, and then measures the pattern on worst-case input.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

MAX_PATTERNS = 20
MAX_SOURCE = 500
"""Maximum number of characters of a pattern."""
SHORTEST, LONGEST = 8, 256
"""Limits for the length of a match, in bytes.

The maximum also bounds how many bytes of a streamed body are held back until they can be masked.
"""
NAME = r"[a-z][a-z0-9-]{0,31}"

_REPEATS = {kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT}
_REFUSED = {
    kinds.ASSERT: "a lookahead or lookbehind",
    kinds.ASSERT_NOT: "a lookahead or lookbehind",
    kinds.GROUPREF: "a back reference",
    kinds.GROUPREF_EXISTS: "a conditional group",
}
_SIZES = (8, 16, 24, 32, 48, 64, 128, 256, 512)
_MOST_SECONDS = 0.002


class PatternError(ValueError):
    """The pattern cannot be used. ``remedy`` says what to write instead."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class MaskPattern:
    r"""A checked pattern.

    ``longest`` is the maximum length of a match in bytes, plus 1, because ``\b`` also depends on the next byte.
    """

    name: str
    compiled: re.Pattern[bytes]
    longest: int


def mask_pattern(name: str, source: str) -> MaskPattern:
    """Return the checked pattern.

    Raises:
        PatternError: the pattern is invalid, too slow, or can match too few or too many bytes.
    """
    if len(source) > MAX_SOURCE or not source.isascii():
        raise PatternError(
            f"the pattern is longer than {MAX_SOURCE} characters or not ASCII", "write a shorter pattern in ASCII"
        )
    try:
        tree = _parser.parse(source.encode())
        compiled = re.compile(source.encode())
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"not a valid regular expression ({error})", "correct it; use Python's syntax") from None
    shortest, longest = map(int, tree.getwidth())
    if shortest < SHORTEST:
        raise PatternError(
            f"it can match as few as {shortest} bytes", f"write a pattern that matches at least {SHORTEST} bytes"
        )
    if longest > LONGEST:
        raise PatternError(
            f"it can match more than {LONGEST} bytes", "give each repetition a limit, as in {20,64} instead of +"
        )
    _check_tree(tree, repeated=False)
    _check_speed(compiled, source)
    return MaskPattern(name, compiled, longest + 1)


def _check_tree(tree: Iterable[Any], *, repeated: bool) -> None:
    for kind, value in tree:
        if kind in _REFUSED:
            raise PatternError(f"{_REFUSED[kind]} is not supported", "describe only the secret itself; \\b is possible")
        if kind is kinds.AT and value not in (kinds.AT_BOUNDARY, kinds.AT_NON_BOUNDARY):
            raise PatternError(
                "^, $, \\A and \\Z are not supported", "use \\b instead, because a body is searched in pieces"
            )
        if kind is kinds.BRANCH and repeated:
            raise PatternError(
                "alternatives inside a repetition are not supported", "use a set such as [a-z0-9], or two patterns"
            )
        if kind in _REPEATS:
            least, most, inner = value
            varies = least != most
            if varies and repeated:
                raise PatternError(
                    "a repetition inside a repetition is not supported", "write it without nested repetitions"
                )
            _check_tree(inner, repeated=repeated or varies or most > 1)
        else:
            for inner in _inner(value):
                _check_tree(inner, repeated=repeated)


def _inner(value: Any) -> Iterable[Any]:
    """Yield the subpatterns of a group or of alternatives."""
    parts = value if isinstance(value, tuple | list) else [value]
    for part in parts:
        if isinstance(part, _parser.SubPattern):
            yield part
        elif isinstance(part, list):
            yield from (one for one in part if isinstance(one, _parser.SubPattern))


def _check_speed(compiled: re.Pattern[bytes], source: str) -> None:
    """Refuse a pattern that is too slow on input of one repeated byte, which is the worst case for repetitions."""
    for byte in sorted({*b"aA0_-/ ", *source.encode()}):
        for size in _SIZES:
            if min(_seconds(compiled, bytes([byte]) * size) for _ in range(3)) > _MOST_SECONDS:
                raise PatternError(
                    f"a search of {size} bytes takes more than {_MOST_SECONDS * 1000:g} ms",
                    "begin it with a fixed text, and use fewer repetitions of the same characters",
                )


def _seconds(compiled: re.Pattern[bytes], text: bytes) -> float:
    start = time.thread_time()
    compiled.search(text)
    return time.thread_time() - start
