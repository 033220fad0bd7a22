"""Parsers for OTLP log requests in protobuf and JSON. They return dataclasses with plain values.

The fake has its own protobuf parser for two reasons: Loki accepts strings that are not UTF-8, which Python's protobuf
refuses, and the fake must need only the standard library. In strings, bytes that are not UTF-8 become surrogates
("surrogateescape"). Source of the field numbers: opentelemetry-proto, `logs.proto` and `common.proto`.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# An OTLP value: str, bool, int, float, bytes, None, a list of values, or Pairs.
type Value = Any


class Pairs(list[tuple[str, Value]]):
    """An OTLP map: (key, value) pairs in the order of the request."""


class RequestError(ValueError):
    """Error for a request that cannot be parsed. Its text is Loki's message."""


@dataclass
class Record:
    """One log record. Times are in nanoseconds; 0 means that the time is absent."""

    # Like Loki, interpret the time as a signed number: a time after the year 2262 becomes negative (before 1970).
    time_ns: int = 0
    observed_ns: int = 0
    severity_number: int = 0
    severity_text: str = ""
    body: Value = None
    attributes: Pairs = field(default_factory=Pairs)
    dropped: int = 0
    flags: int = 0
    trace_id: bytes = b""
    span_id: bytes = b""
    event_name: str = ""


@dataclass
class Scope:
    """One instrumentation scope and its records."""

    name: str = ""
    version: str = ""
    attributes: Pairs = field(default_factory=Pairs)
    dropped: int = 0
    records: list[Record] = field(default_factory=list)


@dataclass
class Resource:
    """One resource and its scopes."""

    attributes: Pairs = field(default_factory=Pairs)
    scopes: list[Scope] = field(default_factory=list)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise RequestError("unexpected EOF")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift >= 70:
            raise RequestError("proto: integer overflow")


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield (number, wire type, value) of each field. The value is an int for wire type 0, otherwise bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, kind, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise RequestError(f"proto: illegal wireType {kind}")
        if at + size > len(data):
            raise RequestError("unexpected EOF")
        yield number, kind, data[at : at + size]
        at += size


def _expect(number: int, kind: int, expected: int) -> None:
    if kind != expected:
        raise RequestError(f"proto: wrong wireType = {kind} for field {number}")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


# Wire type of each field number of AnyValue.
_ANY_KINDS = {1: 2, 2: 0, 3: 0, 4: 1, 5: 2, 6: 2, 7: 2}


def _any(data: bytes, depth: int = 0) -> Value:
    if depth > 64:
        raise RequestError("proto: nested too deeply")
    value: Value = None
    for number, kind, raw in _fields(data):
        if number not in _ANY_KINDS:
            continue
        _expect(number, kind, _ANY_KINDS[number])
        match number:
            case 1:
                value = _text(raw)
            case 2:
                value = bool(raw)
            case 3:
                value = _signed(raw)
            case 4:
                value = struct.unpack("<d", raw)[0]
            case 5:
                value = [_any(item, depth + 1) for n, _, item in _fields(raw) if n == 1]
            case 6:
                value = Pairs(_pair(item, depth + 1) for n, _, item in _fields(raw) if n == 1)
            case 7:
                value = raw
    return value


def _pair(data: bytes, depth: int = 0) -> tuple[str, Value]:
    key, value = "", None
    for number, kind, raw in _fields(data):
        if number in (1, 2):
            _expect(number, kind, 2)
            if number == 1:
                key = _text(raw)
            else:
                value = _any(raw, depth)
    return key, value


def _record(data: bytes) -> Record:
    record = Record()
    kinds = {1: 1, 2: 0, 3: 2, 5: 2, 6: 2, 7: 0, 8: 5, 9: 2, 10: 2, 11: 1, 12: 2}
    for number, kind, raw in _fields(data):
        if number not in kinds:
            continue
        _expect(number, kind, kinds[number])
        match number:
            case 1:
                record.time_ns = struct.unpack("<q", raw)[0]
            case 2:
                record.severity_number = raw
            case 3:
                record.severity_text = _text(raw)
            case 5:
                record.body = _any(raw)
            case 6:
                record.attributes.append(_pair(raw))
            case 7:
                record.dropped = raw
            case 8:
                record.flags = struct.unpack("<I", raw)[0]
            case 9:
                record.trace_id = _id(raw, 16, "TraceID")
            case 10:
                record.span_id = _id(raw, 8, "SpanID")
            case 11:
                record.observed_ns = struct.unpack("<q", raw)[0]
            case 12:
                record.event_name = _text(raw)
    return record


def _id(raw: bytes, size: int, name: str) -> bytes:
    if len(raw) not in (0, size):
        raise RequestError(f"invalid length for {name}")
    return raw if raw.strip(b"\0") else b""


def _scope(data: bytes) -> Scope:
    scope = Scope()
    for number, kind, raw in _fields(data):
        if number in (1, 2):
            _expect(number, kind, 2)
        if number == 2:
            scope.records.append(_record(raw))
        elif number == 1:
            for inner, _, value in _fields(raw):
                match inner:
                    case 1:
                        scope.name = _text(value)
                    case 2:
                        scope.version = _text(value)
                    case 3:
                        scope.attributes.append(_pair(value))
                    case 4:
                        scope.dropped = value
    return scope


def _resource(data: bytes) -> Resource:
    resource = Resource()
    for number, kind, raw in _fields(data):
        if number in (1, 2):
            _expect(number, kind, 2)
        if number == 1:
            resource.attributes.extend(_pair(value) for inner, _, value in _fields(raw) if inner == 1)
        elif number == 2:
            resource.scopes.append(_scope(raw))
    return resource


def read_protobuf(data: bytes) -> list[Resource]:
    """Return the resources of an ExportLogsServiceRequest. Raise RequestError with Loki's message for invalid bytes."""
    resources = []
    for number, kind, raw in _fields(data):
        if number == 1:
            _expect(number, kind, 2)
            resources.append(_resource(raw))
    return resources


def _json_any(value: Any) -> Value:
    match value:
        case {"stringValue": text}:
            return str(text)
        case {"boolValue": flag}:
            return bool(flag)
        case {"intValue": number}:
            return int(number)
        case {"doubleValue": number}:
            return float(number)
        case {"bytesValue": text}:
            return base64.b64decode(text)
        case {"arrayValue": array}:
            return [_json_any(item) for item in array.get("values", [])]
        case {"kvlistValue": pairs}:
            return _json_pairs(pairs.get("values", []))
    return None


def _json_pairs(items: list[dict[str, Any]]) -> Pairs:
    return Pairs((str(item.get("key", "")), _json_any(item.get("value", {}))) for item in items)


def _json_record(item: dict[str, Any]) -> Record:
    return Record(
        time_ns=int(item.get("timeUnixNano", 0)),
        observed_ns=int(item.get("observedTimeUnixNano", 0)),
        severity_number=int(item.get("severityNumber", 0)),
        severity_text=str(item.get("severityText", "")),
        body=_json_any(item.get("body", {})),
        attributes=_json_pairs(item.get("attributes", [])),
        dropped=int(item.get("droppedAttributesCount", 0)),
        flags=int(item.get("flags", 0)),
        trace_id=_id(bytes.fromhex(item.get("traceId", "")), 16, "TraceID"),
        span_id=_id(bytes.fromhex(item.get("spanId", "")), 8, "SpanID"),
        event_name=str(item.get("eventName", "")),
    )


def read_json(data: bytes) -> list[Resource]:
    """Return the resources of a request in OTLP's JSON (lowerCamelCase, ids as hex, 64-bit numbers as strings)."""
    resources = []
    try:
        for item in json.loads(data.decode("utf-8", "replace")).get("resourceLogs", []):
            resource = Resource(_json_pairs(item.get("resource", {}).get("attributes", [])))
            for inner in item.get("scopeLogs", []):
                scope = inner.get("scope", {})
                resource.scopes.append(
                    Scope(
                        str(scope.get("name", "")),
                        str(scope.get("version", "")),
                        _json_pairs(scope.get("attributes", [])),
                        int(scope.get("droppedAttributesCount", 0)),
                        [_json_record(record) for record in inner.get("logRecords", [])],
                    )
                )
            resources.append(resource)
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        # The recordings contain no response to invalid JSON, so the fake uses its own message.
        raise RequestError(f"Loki fake: cannot parse the JSON: {error}") from error
    return resources
