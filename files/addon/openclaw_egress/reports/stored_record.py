"""Functions that combine the stored lines of a record into one JSON object. They are pure and never raise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from openclaw_egress.llm.model import object_in, object_of
from openclaw_egress.recording.log_lines import reassemble


def lines_of(exchange_id: str, stored: Iterable[str]) -> list[str]:
    """Return the lines of a record. ``stored`` begins with its first line and may contain lines of other records.

    ``exchange_id`` is empty for a record that is not an exchange.
    """
    lines = list(stored)
    return [*lines[:1], *(line for line in lines[1:] if exchange_id and _exchange_of_part(line) == exchange_id)]


def _exchange_of_part(line: str) -> object:
    loaded = object_in(line) or {}
    return loaded.get("exchange") if "part" in loaded else None


def whole_of(lines: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return the JSON object of a record, and the reason why it cannot be read (empty if it was read)."""
    try:
        return reassemble(lines), ""
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}, "the stored lines are damaged; `egress audit` checks the whole chain"


def headers_of(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the headers of a request or a response. Yield a repeated header once for each value."""
    for name, values in object_of(message.get("headers")).items():
        for value in values if isinstance(values, list) else [values]:
            yield str(name), str(value)


def body_size(message: Mapping[str, Any]) -> int:
    """Return the size of a body in bytes, as stored in the record; 0 without a body."""
    found = message.get("body_size")
    return found if isinstance(found, int) else 0
