"""Conversion of a record's attributes and JSON to log lines that a default Loki accepts, and back.

A record whose JSON exceeds `MAX_LINE_BYTES` is split over several log lines. The first has the attributes and the
headers; the others have parts of the bodies, cut between characters. `hash_chain` adds the sequence number and the
hash; `reassemble` reverses both steps. The limits are Loki's default limits with some margin: 256 KB per line, 128
entries and 64 KB of metadata, including severity, trace, scope and resource. Pure functions.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from openclaw_egress.recording import semconv
from openclaw_egress.recording.redaction import MAX_URL_BYTES, clean_text, truncate_utf8

MAX_LINE_BYTES = 200_000
"""Maximum length of a line in bytes of UTF-8, including the sequence number and the hash."""
MAX_ATTRIBUTE_BYTES = 1024
"""Maximum length of an attribute value in bytes. The URL may have 8 KB."""
MAX_LIST_ITEMS = 16
MAX_ATTRIBUTES = 96
MAX_ATTRIBUTES_BYTES = 48_000
"""Maximum size of all attributes of a line, names and values together, in bytes."""
SEVERITY_NUMBERS = {"INFO": 9, "WARN": 13, "ERROR": 17}

_CHAIN_BYTES = 128  # room for {"seq":…,"prev":"…",
_PART_BYTES = MAX_LINE_BYTES - 1024  # room for the fields that identify the part

AttributeValue = str | int | float | bool | list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One log line before it is added to the hash chain: its attributes, and its JSON without ``seq`` and ``prev``."""

    attributes: dict[str, AttributeValue]
    json: str
    event_name: str
    severity_text: str
    severity_number: int
    trace_id: str | None = None
    span_id: str | None = None


def make_lines(
    event_name: str,
    level: str,
    attributes: Mapping[str, AttributeValue | None],
    fields: dict[str, Any],
    trace_id: str | None = None,
    span_id: str | None = None,
) -> list[Line]:
    """Return the lines of a record: one line if its JSON is short enough, otherwise the first line and its parts.

    Attributes that are None or exceed the limits are dropped. The largest fields move from the first line to the parts.
    """
    line = Line(
        attributes=_bounded_attributes(event_name, attributes),
        json="",
        event_name=event_name,
        severity_text=level,
        severity_number=SEVERITY_NUMBERS[level],
        trace_id=trace_id,
        span_id=span_id,
    )
    # Add up the texts first, to avoid encoding a record that cannot fit: its JSON is at least as long as its texts.
    texts = (holder[path[-1]] for path, holder in _bulky_places(fields))
    if sum(len(text) for text in texts if isinstance(text, str)) <= MAX_LINE_BYTES:
        text = _json(fields)
        if _size(text) + _CHAIN_BYTES <= MAX_LINE_BYTES:
            return [replace(line, json=text)]
        del text  # Free the JSON text before the split, because it is at least as long as the bodies.
    kept, pieces = _split(fields)
    count = len(pieces)
    kept["parts"] = count
    lines = [replace(line, json=_json(kept), attributes={**line.attributes, semconv.PART_COUNT: count})]
    while pieces:  # Free each piece once a line contains it.
        path, encoded = pieces.popleft()
        lines.append(_part(line, path, encoded, len(lines), count))
    return lines


def _bounded_attributes(event_name: str, attributes: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    kept: dict[str, AttributeValue] = {semconv.EVENT_NAME: event_name}
    room = MAX_ATTRIBUTES_BYTES
    for name, value in attributes.items():
        if value is None or len(kept) >= MAX_ATTRIBUTES:
            continue
        short = bounded_value(value, MAX_URL_BYTES if name == semconv.URL_FULL else MAX_ATTRIBUTE_BYTES)
        room -= len(name) + _size(str(short))
        if room >= 0:
            kept[name] = short
    return kept


def reassemble(lines: Iterable[str]) -> dict[str, Any]:
    """Return a record's JSON object from its lines in any order, with all parts back in place.

    ``seq`` and ``prev`` are those of the first line. If parts are missing, ``"missing_parts": [index, …]`` lists them,
    and their content is absent.

    Raises:
        ValueError: a line is not a JSON object, or the first line is missing.
    """
    first: dict[str, Any] | None = None
    parts: dict[int, dict[str, Any]] = {}
    for text in lines:
        loaded = json.loads(text)
        if not isinstance(loaded, dict):
            raise ValueError("a log line of the record is not a JSON object")  # noqa: TRY004 - the text is invalid, not its type
        if "part" in loaded:
            parts[int(loaded["part"]["index"])] = loaded
        else:
            first = loaded
    if first is None:
        raise ValueError("the first line of the record is missing")
    count = int(first.pop("parts", 0))
    missing = [index for index in range(1, count + 1) if index not in parts]
    texts: dict[tuple[str, ...], list[str]] = {}
    for index in sorted(parts):
        texts.setdefault(tuple(parts[index]["part"]["path"]), []).append(parts[index]["data"])
    for path, pieces in texts.items():
        holder = first
        for key in path[:-1]:
            holder = holder.setdefault(key, {})
        whole = "".join(pieces)
        if path[-1] not in ("headers", "messages"):
            holder[path[-1]] = whole
        elif not missing:
            holder[path[-1]] = json.loads(whole)
    if missing:
        first["missing_parts"] = missing
    return first


class _Bulky(NamedTuple):
    """A field that may move from the first line to the parts: its path, its value and the size of its JSON."""

    path: tuple[str, ...]
    holder: dict[str, Any]
    value: Any
    size: int
    text: str


def _split(fields: dict[str, Any]) -> tuple[dict[str, Any], deque[tuple[tuple[str, ...], str]]]:
    """Return the fields that stay in the first line, and pieces of the other fields as pairs of path and JSON text."""
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in fields.items()}
    found: list[_Bulky] = []
    for path, holder in _bulky_places(kept):
        value = holder[path[-1]]
        encoded = _json(value)
        text = value if isinstance(value, str) else encoded
        found.append(_Bulky(path, holder, value, _size(encoded), text))
        holder[path[-1]] = 0
    size = _size(_json(kept)) + sum(bulky.size - 1 for bulky in found)
    taken = set()
    for bulky in sorted(found, key=lambda bulky: -bulky.size):
        if size + _CHAIN_BYTES + 32 <= MAX_LINE_BYTES:
            bulky.holder[bulky.path[-1]] = bulky.value
        else:
            del bulky.holder[bulky.path[-1]]
            size -= bulky.size
            taken.add(bulky.path)
    # Keep the order of `found`, so that parts of the request come before parts of the response.
    parts = ((bulky.path, piece) for bulky in found if bulky.path in taken for piece in _pieces(bulky.text))
    return kept, deque(parts)


def _bulky_places(fields: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield the fields that may move to the parts: the path, and the dict that holds the path's last key."""
    for side in ("request", "response"):
        holder = fields.get(side)
        if isinstance(holder, dict):
            for key in ("body", "headers"):
                if key in holder:
                    yield (side, key), holder
    if "messages" in fields:
        yield ("messages",), fields


def _part(line: Line, path: tuple[str, ...], encoded: str, index: int, count: int) -> Line:
    direction = "request" if path[0] == "request" else "response"
    exchange = line.attributes.get(semconv.EXCHANGE_ID, "")
    attributes: dict[str, AttributeValue] = {
        semconv.EVENT_NAME: line.event_name,
        semconv.EXCHANGE_ID: exchange,
        semconv.CLASS: line.attributes.get(semconv.CLASS, ""),
        semconv.PART_INDEX: index,
        semconv.PART_COUNT: count,
        semconv.PART_DIRECTION: direction,
    }
    if (instance := line.attributes.get(semconv.INSTANCE)) is not None:
        attributes[semconv.INSTANCE] = instance
    part = {"index": index, "count": count, "direction": direction, "path": list(path)}
    head = _json({"exchange": exchange, "part": part})
    return replace(line, attributes=attributes, json=f'{head[:-1]},"data":{encoded}}}')


def _pieces(text: str) -> Iterator[str]:
    """Yield the JSON of pieces of ``text``, each at most `_PART_BYTES` long, cut between characters."""
    start = 0
    length = _PART_BYTES
    while start < len(text):
        encoded = _json(text[start : start + length])
        size = _size(encoded)
        taken = min(length, len(text) - start)
        # Adapt the length of the next piece, assuming that its text needs about as many escapes as this one.
        length = max(1, taken * _PART_BYTES // size - 8)
        if size <= _PART_BYTES:
            yield encoded
            start += taken


def bounded_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a line's JSON, with long values truncated."""
    return {name: bounded_value(value, 8 * 1024) for name, value in list(fields.items())[:MAX_ATTRIBUTES]}


def bounded_value(value: Any, limit: int) -> Any:
    """Return a value truncated to ``limit`` bytes; an integer that OTLP cannot hold becomes text."""
    if isinstance(value, str):
        return truncate_utf8(clean_text(value), limit)
    if isinstance(value, list):
        return [truncate_utf8(clean_text(str(item)), limit // MAX_LIST_ITEMS) for item in value[:MAX_LIST_ITEMS]]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return str(value)
    return value


def _json(value: Any) -> str:
    """Return compact JSON in valid UTF-8; lone surrogates inside strings become U+FFFD.

    Do not use `clean_text` here: its escape ``\\xff`` is not valid inside a JSON string.
    """
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except (ValueError, TypeError, OverflowError, RecursionError):
        # Use `json` below: msgspec refuses lone surrogates, integers beyond 64 bits, and keys that are not text.
        pass
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
