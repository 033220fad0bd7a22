"""Parsers of the search conditions that operators write: times, status ranges, events and codes. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from openclaw_egress.errors import EgressError
from openclaw_egress.policy.codes import Code

EVENTS = ("exchange", "denied", "tunnel", "policy", "ca", "spool", "checkpoint")
_AGO = re.compile(r"(\d+)\s*([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class InvalidCondition(EgressError):
    """The condition is invalid. The message says what to write instead."""


def moment(text: str) -> int:
    """Parse a time. Return it in Unix nanoseconds.

    Raises:
        InvalidCondition: the text is not a time.
    """
    try:
        if ago := _AGO.fullmatch(text.strip()):
            then = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            then = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        then = datetime.min.replace(tzinfo=UTC)
    # Records store times as 64-bit nanoseconds, so accept only times in that range.
    if not datetime(1970, 1, 1, tzinfo=UTC) <= then < datetime(2262, 1, 1, tzinfo=UTC):
        raise InvalidCondition("write 15m, 2h, 3d, or a date and time such as 2026-11-25T08:00")
    return int(then.timestamp() * 1e9)


def status_range(text: str) -> tuple[int, int]:
    """Parse a status or a range. Return the lowest and the highest status.

    Raises:
        InvalidCondition: the text is not a status or a range.
    """
    for pattern, read in _STATUS:
        if found := pattern.fullmatch(text.strip().lower()):
            return read(found)
    raise InvalidCondition("write 429, 4xx or 500-529")


def known_code(text: str) -> str:
    """Check that the text is the code of a decision. Return it unmodified.

    Raises:
        InvalidCondition: no decision has such a code.
    """
    if text not in set(Code):
        raise InvalidCondition("write a code such as no_rule or address_guarded (docs/codes.md lists all)")
    return text


def event_names(text: str | None) -> list[str]:
    """Return the full names of the events to search for: the given event, or by default exchanges and denials.

    Raises:
        InvalidCondition: the event is unknown.
    """
    if text is not None and text not in EVENTS:
        raise InvalidCondition(f"write one of {', '.join(EVENTS)}")
    return [f"openclaw.egress.{name}" for name in ([text] if text else ["exchange", "denied"])]


_STATUS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], tuple[int, int]]]] = [
    (re.compile(r"([0-9]{3})"), lambda found: (int(found[1]), int(found[1]))),
    (re.compile(r"([0-9])xx"), lambda found: (int(found[1]) * 100, int(found[1]) * 100 + 99)),
    (re.compile(r"([0-9]{3})-([0-9]{3})"), lambda found: (int(found[1]), int(found[2]))),
]
