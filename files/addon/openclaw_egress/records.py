"""What is kept of one exchange, decision or event, as attributes and log lines.

A record becomes one `Line`, or, where its JSON passes `MAX_LINE_BYTES`, a first line with the attributes and the
headers and further lines with parts of the bodies. `seal` turns a line into the text that is stored and sent; each
text holds the SHA-256 of the one before. Pure functions; limits are those of a stock Loki (256 KB a line, 128
entries and 64 KB of metadata), kept with room to spare.

The JSON of an exchange::

    {"seq": 7, "prev": "<sha256>", "method": "POST", "url": "https://…", "status": 200,
     "request":  {"headers": {…}, "body": "…", "body_sha256": "…", "body_size": 12, "body_encoding": "utf-8"},
     "response": {"headers": {…}, "body": "…", …},
     "messages": […folded final message of a stream…]}
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from openclaw_egress import semconv
from openclaw_egress.providers.facts import RequestFacts, ResponseFacts
from openclaw_egress.redaction import clean_text, truncate_utf8

MAX_LINE_BYTES = 200_000
"""Longest sealed line, in bytes of UTF-8."""
MAX_ATTRIBUTE_BYTES = 1024
"""Longest attribute value but for the URL (8 KB)."""
MAX_LIST_ITEMS = 16
MAX_ATTRIBUTES = 96
GENESIS = "0" * 64
"""``prev`` of the very first line."""

_SEAL_BYTES = 128  # room for {"seq":…,"prev":"…",
_PART_BYTES = MAX_LINE_BYTES - 1024  # room for what a part says of itself

OUTCOMES = ("complete", "client_aborted", "upstream_error", "interrupted")
"""How an exchange can end."""
Direction = Literal["request", "response"]
AttributeValue = str | int | float | bool | list[str]
Headers = Sequence[tuple[str, str]]

_TRANSPORT_ERRORS = """timeout connect_error dns_error tls_error protocol_error connection_reset upstream_closed
    client_aborted interrupted decode_error spool_full denied"""
_PROVIDER_ERRORS = """invalid_request_error authentication_error permission_error billing_error not_found_error
    conflict_error request_too_large rate_limit_error timeout_error api_error overloaded_error server_error
    rate_limit_exceeded insufficient_quota content_filter context_length_exceeded invalid_api_key model_not_found"""
ERROR_TYPES = frozenset([*_TRANSPORT_ERRORS.split(), *_PROVIDER_ERRORS.split(), "_OTHER"])
"""All values of ``error.type`` besides HTTP status codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A body after content decoding.

    ``size`` and ``sha256`` are of the whole decoded body, though ``text`` be truncated; ``sha256`` is ``None`` where
    the body's end was not seen.
    """

    text: str
    encoding: str = "utf-8"
    """``utf-8`` or ``base64``."""
    size: int = 0
    sha256: str | None = None
    truncated: bool = False

    @classmethod
    def of(cls, data: bytes, *, whole: bool = True) -> Body:
        """The body that is ``data``, or, where it is not ``whole``, began with it: a cut character is left out."""
        digest = hashlib.sha256(data).hexdigest() if whole else None
        try:
            text, encoding = _decode(data, cut=not whole), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(data).decode(), "base64"
        return cls(text=text, encoding=encoding, size=len(data), sha256=digest, truncated=not whole)

    def content(self) -> bytes:
        """The bytes that ``text`` stands for."""
        return base64.b64decode(self.text) if self.encoding == "base64" else self.text.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRecord:
    """One request to an inspected host and its answer. Already redacted. Times are Unix nanoseconds."""

    id: str
    class_name: str
    method: str
    url: str
    host: str
    port: int
    begin_ns: int
    end_ns: int
    outcome: str = "complete"
    """One of `OUTCOMES`."""
    rule: str = ""
    reason: str = ""
    first_chunk_ns: int | None = None
    http_version: str | None = None
    status: int | None = None
    request_headers: Headers = field(default_factory=list)
    response_headers: Headers = field(default_factory=list)
    request_body: Body | None = None
    response_body: Body | None = None
    request_size: int | None = None
    """Bytes of the body on the wire, before decoding and truncation; the same for the response's."""
    response_size: int | None = None
    body_truncated: bool = False
    request_facts: RequestFacts = field(default_factory=RequestFacts)
    response_facts: ResponseFacts = field(default_factory=ResponseFacts)
    error_type: str | None = None
    key_fingerprint: str | None = None
    trace_id: str | None = None
    """32 hex digits, from ``traceparent``; ``span_id`` 16."""
    span_id: str | None = None
    output_messages: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedRecord:
    """What was refused (or, with ``enforced=False``, would have been): who, where, which rule and why."""

    class_name: str
    host: str
    port: int
    rule: str
    reason: str
    client: str = ""
    method: str | None = None
    url: str | None = None
    count: int = 1
    enforced: bool = True
    time_ns: int | None = None
    """When, where that is not when it is recorded (Unix nanoseconds)."""
    id: str = ""
    status: int | None = None
    trace_id: str | None = None
    span_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that happened to the proxy itself: policy loaded or refused, records dropped, a checkpoint."""

    event_name: str
    message: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    severity: Literal["INFO", "WARN", "ERROR"] = "INFO"
    class_name: str = ""


Record = ExchangeRecord | DeniedRecord | EventRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One log line before it is sealed: its attributes, and its JSON without ``seq`` and ``prev``."""

    attributes: dict[str, AttributeValue]
    fields: dict[str, Any]
    event_name: str
    severity_text: str
    severity_number: int
    trace_id: str | None = None
    span_id: str | None = None


SEVERITY_NUMBERS = {"INFO": 9, "WARN": 13, "ERROR": 17}


def lines_of(record: Record) -> list[Line]:
    """The lines of a record, the one with the attributes first. None is over the limits of a stock Loki."""
    if isinstance(record, ExchangeRecord):
        line = _exchange_line(record)
    elif isinstance(record, DeniedRecord):
        line = _denied_line(record)
    else:
        line = _event_line(record)
    return _split(line)


def seal(line: Line, seq: int, prev: str) -> str:
    """The text of a line at its place in the chain: compact JSON that starts with ``seq`` and ``prev``."""
    rest = _json(line.fields)[1:]
    return f'{{"seq":{seq},"prev":"{prev}"' + ("," if rest != "}" else "") + rest


def line_hash(text: str) -> str:
    """The SHA-256 of a sealed line: ``prev`` of the next."""
    return hashlib.sha256(text.encode()).hexdigest()


def reassemble(lines: Iterable[str]) -> dict[str, Any]:
    """The JSON object of a record from its sealed lines in any order, parts put back where they belong.

    ``seq`` and ``prev`` are the first line's. Parts that are missing leave ``"missing_parts": [index, …]``; what
    they would have held is absent.

    Raises:
        ValueError: where a line is no JSON object, or there is no first line.
    """
    first: dict[str, Any] | None = None
    parts: dict[int, dict[str, Any]] = {}
    for text in lines:
        loaded = json.loads(text)
        if not isinstance(loaded, dict):
            raise ValueError("a line is no JSON object")  # noqa: TRY004 - it is the text that is wrong
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


def severity(status: int | None, outcome: str, error_type: str | None = None) -> str:
    """ERROR for 5xx, transport errors and errors inside a stream; WARN for 4xx and clients that left; else INFO."""
    if outcome in ("upstream_error", "interrupted") or (status is not None and status >= 500):
        return "ERROR"
    if (status is not None and status >= 400) or outcome in ("client_aborted", "denied"):
        return "WARN"
    return "ERROR" if error_type is not None else "INFO"


def error_type_of(record: ExchangeRecord) -> str | None:
    """``error.type`` from the fixed list: the transport's, else the provider's, else the status code."""
    for candidate in (record.error_type, record.response_facts.error_type):
        if candidate is not None and candidate in ERROR_TYPES:
            return candidate
    if record.status is not None and record.status >= 400:
        return str(record.status)
    if record.error_type or record.response_facts.error_type or record.outcome == "upstream_error":
        return "_OTHER"
    return record.outcome if record.outcome in ("client_aborted", "interrupted") else None


def _exchange_line(record: ExchangeRecord) -> Line:
    asked, answered, usage = record.request_facts, record.response_facts, record.response_facts.usage
    error_type = error_type_of(record)
    first_chunk = None
    if record.first_chunk_ns is not None:
        first_chunk = max(0, record.first_chunk_ns - record.begin_ns) / 1e9
    attributes: dict[str, AttributeValue | None] = {
        semconv.EXCHANGE_ID: record.id,
        semconv.CLASS: record.class_name,
        semconv.RULE: record.rule or None,
        semconv.REASON: record.reason or None,
        semconv.OUTCOME: record.outcome,
        semconv.BEGIN: rfc3339(record.begin_ns),
        semconv.DURATION: max(0, record.end_ns - record.begin_ns) / 1e9,
        semconv.KEY: record.key_fingerprint,
        semconv.REQUEST_SIZE: record.request_size,
        semconv.RESPONSE_SIZE: record.response_size,
        semconv.BODY_TRUNCATED: record.body_truncated,
        semconv.HTTP_REQUEST_METHOD: record.method,
        semconv.HTTP_RESPONSE_STATUS_CODE: record.status,
        semconv.URL_FULL: record.url,
        semconv.SERVER_ADDRESS: record.host,
        semconv.SERVER_PORT: record.port,
        semconv.NETWORK_PROTOCOL_VERSION: record.http_version,
        semconv.ERROR_TYPE: error_type,
        semconv.GEN_AI_OPERATION_NAME: asked.operation_name,
        semconv.GEN_AI_PROVIDER_NAME: asked.provider_name,
        semconv.GEN_AI_REQUEST_MODEL: asked.model,
        semconv.GEN_AI_REQUEST_STREAM: asked.stream,
        semconv.GEN_AI_RESPONSE_MODEL: answered.model,
        semconv.GEN_AI_RESPONSE_ID: answered.id,
        semconv.GEN_AI_RESPONSE_FINISH_REASONS: list(answered.finish_reasons) or None,
        semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: first_chunk,
        semconv.GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
        semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: usage.cache_read_input_tokens,
        semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: usage.cache_write_input_tokens,
        semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: usage.reasoning_output_tokens,
    }
    fields: dict[str, Any] = {
        "method": truncate_utf8(clean_text(record.method), MAX_ATTRIBUTE_BYTES),
        "url": truncate_utf8(clean_text(record.url), 8 * 1024),
        "status": record.status,
        "request": _message_json(record.request_headers, record.request_body),
        "response": _message_json(record.response_headers, record.response_body),
    }
    messages = record.output_messages if record.output_messages is not None else answered.messages
    if messages is not None:
        fields["messages"] = messages
    return _line(
        semconv.EVENT_EXCHANGE,
        severity(record.status, record.outcome, error_type),
        attributes,
        fields,
        record.trace_id,
        record.span_id,
    )


def _denied_line(record: DeniedRecord) -> Line:
    attributes: dict[str, AttributeValue | None] = {
        semconv.EXCHANGE_ID: record.id or None,
        semconv.CLASS: record.class_name,
        semconv.RULE: record.rule,
        semconv.REASON: record.reason,
        semconv.OUTCOME: "denied",
        semconv.ENFORCED: record.enforced,
        semconv.COUNT: record.count,
        semconv.BEGIN: None if record.time_ns is None else rfc3339(record.time_ns),
        semconv.HTTP_REQUEST_METHOD: record.method,
        semconv.HTTP_RESPONSE_STATUS_CODE: record.status,
        semconv.URL_FULL: record.url,
        semconv.SERVER_ADDRESS: record.host,
        semconv.SERVER_PORT: record.port,
        semconv.CLIENT_ADDRESS: record.client or None,
    }
    fields = {
        "class": record.class_name,
        "method": record.method,
        "url": record.url,
        "host": record.host,
        "port": record.port,
        "client": record.client,
        "rule": record.rule,
        "reason": record.reason,
        "count": record.count,
        "enforced": record.enforced,
    }
    return _line(semconv.EVENT_DENIED, "WARN", attributes, _bounded(fields), record.trace_id, record.span_id)


def _event_line(record: EventRecord) -> Line:
    attributes: dict[str, AttributeValue | None] = {**record.attributes, semconv.CLASS: record.class_name or None}
    fields = {"message": truncate_utf8(clean_text(record.message), 16 * 1024), **_bounded(record.attributes)}
    return _line(record.event_name, record.severity, attributes, fields)


def _line(
    event_name: str,
    level: str,
    attributes: Mapping[str, AttributeValue | None],
    fields: dict[str, Any],
    trace_id: str | None = None,
    span_id: str | None = None,
) -> Line:
    """A line whose attributes are within the limits; those that are ``None`` are left out."""
    kept: dict[str, AttributeValue] = {semconv.EVENT_NAME: event_name}
    for name, value in attributes.items():
        if value is not None and len(kept) < MAX_ATTRIBUTES:
            kept[name] = _bounded_value(value, 8 * 1024 if name == semconv.URL_FULL else MAX_ATTRIBUTE_BYTES)
    return Line(
        attributes=kept, fields=fields, event_name=event_name, severity_text=level,
        severity_number=SEVERITY_NUMBERS[level], trace_id=trace_id, span_id=span_id,
    )  # fmt: skip


def _split(line: Line) -> list[Line]:
    """``line``, or the line without its largest fields and then their parts."""
    size = _size(_json(line.fields))
    if size + _SEAL_BYTES <= MAX_LINE_BYTES:
        return [line]
    fields = {key: dict(value) if isinstance(value, dict) else value for key, value in line.fields.items()}
    bulky: list[tuple[int, tuple[str, ...], str, Any]] = []
    for path, holder in _bulky_places(fields):
        value = holder[path[-1]]
        text = value if isinstance(value, str) else _json(value)
        bulky.append((_size(_json(value)), path, text, holder))
    taken: list[tuple[tuple[str, ...], str]] = []
    for bytes_saved, path, text, holder in sorted(bulky, key=lambda item: -item[0]):
        if size + _SEAL_BYTES + 32 <= MAX_LINE_BYTES:
            break
        del holder[path[-1]]
        size -= bytes_saved
        taken.append((path, text))
    order = [path for path, _ in _bulky_places(line.fields)]
    taken.sort(key=lambda item: order.index(item[0]))  # request before response
    pieces = [(path, piece) for path, text in taken for piece in _pieces(text)]
    fields["parts"] = len(pieces)
    first = replace(line, fields=fields, attributes={**line.attributes, semconv.PART_COUNT: len(pieces)})
    return [first, *(_part(line, path, piece, i, len(pieces)) for i, (path, piece) in enumerate(pieces, 1))]


def _bulky_places(fields: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """What may leave the first line: path, and the dict that holds its last key."""
    for side in ("request", "response"):
        holder = fields.get(side)
        if isinstance(holder, dict):
            for key in ("body", "headers"):
                if key in holder:
                    yield (side, key), holder
    if "messages" in fields:
        yield ("messages",), fields


def _part(line: Line, path: tuple[str, ...], piece: str, index: int, count: int) -> Line:
    direction: Direction = "request" if path[0] == "request" else "response"
    exchange = line.attributes.get(semconv.EXCHANGE_ID, "")
    attributes: dict[str, AttributeValue] = {
        semconv.EVENT_NAME: line.event_name,
        semconv.EXCHANGE_ID: exchange,
        semconv.CLASS: line.attributes.get(semconv.CLASS, ""),
        semconv.PART_INDEX: index,
        semconv.PART_COUNT: count,
        semconv.PART_DIRECTION: direction,
    }
    part = {"index": index, "count": count, "direction": direction, "path": list(path)}
    return replace(line, attributes=attributes, fields={"exchange": exchange, "part": part, "data": piece})


def _pieces(text: str) -> Iterator[str]:
    """``text`` in pieces whose JSON takes at most `_PART_BYTES`; cut between characters."""
    start = 0
    while start < len(text):
        length = _PART_BYTES
        while (size := _size(_json(text[start : start + length]))) > _PART_BYTES:
            length = min(len(text) - start, length)
            length = max(1, length * _PART_BYTES // size - 8)
        yield text[start : start + length]
        start += length


def _message_json(headers: Headers, body: Body | None) -> dict[str, Any]:
    message: dict[str, Any] = {"headers": headers_json(headers)}
    if body is not None:
        message["body"] = clean_text(body.text)
        message["body_sha256"] = body.sha256
        message["body_size"] = body.size
        message["body_encoding"] = body.encoding
        if body.truncated:
            message["body_truncated"] = True
    return message


def headers_json(headers: Headers) -> dict[str, str | list[str]]:
    """Headers as an object; a name that comes again (in any case) holds a list, in order."""
    result: dict[str, str | list[str]] = {}
    names: dict[str, str] = {}
    for raw_name, raw_value in headers:
        value = clean_text(raw_value)
        name = names.setdefault(raw_name.lower(), clean_text(raw_name))
        known = result.get(name)
        if known is None:
            result[name] = value
        else:
            result[name] = [*known, value] if isinstance(known, list) else [known, value]
    return result


def rfc3339(time_ns: int) -> str:
    """Unix nanoseconds as RFC 3339 in UTC with microseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def _bounded(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _bounded_value(value, 8 * 1024) for name, value in list(fields.items())[:MAX_ATTRIBUTES]}


def _bounded_value(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return truncate_utf8(clean_text(value), limit)
    if isinstance(value, list):
        return [truncate_utf8(clean_text(str(item)), limit // MAX_LIST_ITEMS) for item in value[:MAX_LIST_ITEMS]]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return str(value)  # an int that OTLP cannot hold
    return value


def _decode(data: bytes, *, cut: bool) -> str:
    """UTF-8; where the end was cut off, without the up to 3 bytes of a character that the cut went through."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if cut and error.end == len(data) and error.reason == "unexpected end of data":
            return data[: error.start].decode()
        raise


def _json(value: Any) -> str:
    """Compact JSON in valid UTF-8: lone surrogates of inner strings are replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text if text.isascii() else clean_text(text)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
