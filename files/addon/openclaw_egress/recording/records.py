"""Records of exchanges, denials and events, as attributes and log lines. Pure functions.

`lines_of` converts a record into one or more log lines; `log_lines` serialises and splits them.

The JSON of an exchange::

    {"seq": 7, "prev": "<sha256>", "method": "POST", "url": "https://…", "status": 200,
     "request":  {"headers": {…}, "body": "…", "body_sha256": "…", "body_size": 12, "body_encoding": "utf-8"},
     "response": {"headers": {…}, "body": "…", …},
     "messages": […assembled message of a stream…], "messages_truncated": true,
     "websocket": {…}}

``messages_truncated`` is present only if the assembled message exceeded the limit or an event was unreadable.
``websocket`` is present only on a WebSocket (`websocket_messages.WebSocket.facts`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from openclaw_egress.llm.model import OTHER_ERROR, RequestFacts, ResponseFacts
from openclaw_egress.llm.registry import PROVIDER_ERRORS
from openclaw_egress.recording import semconv
from openclaw_egress.recording.log_lines import (
    MAX_ATTRIBUTE_BYTES,
    AttributeValue,
    Line,
    bounded_fields,
    make_lines,
)
from openclaw_egress.recording.redaction import MAX_URL_BYTES, clean_text, truncate_utf8

OUTCOMES = ("complete", "client_aborted", "upstream_error", "interrupted")
"""All ways in which an exchange can end."""
Headers = Sequence[tuple[str, str]]

_TRANSPORT_ERRORS = """timeout connect_error dns_error tls_error protocol_error connection_reset upstream_closed
    client_aborted interrupted decode_error spool_full denied upstream_proxy_unreachable upstream_proxy_tls
    upstream_proxy_login upstream_proxy_refused upstream_proxy_protocol"""
ERROR_TYPES = PROVIDER_ERRORS | {*_TRANSPORT_ERRORS.split(), OTHER_ERROR}
"""All values of ``error.type`` other than HTTP status codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A body after content decoding.

    ``size`` and ``sha256`` describe the whole decoded body, even if ``text`` is truncated. ``sha256`` is ``None`` if
    the end of the body did not arrive.
    """

    text: str
    encoding: str = "utf-8"
    """Encoding of ``text``: ``utf-8`` or ``base64``."""
    size: int = 0
    sha256: str | None = None
    truncated: bool = False
    masked: int = 0
    """Number of secrets that are masked in ``text``. ``size`` and ``sha256`` describe the body before masking."""

    @classmethod
    def of(cls, data: bytes, *, whole: bool = True) -> Body:
        """Return a body with the bytes ``data``. If it is not ``whole``, drop an incomplete character at the end."""
        digest = hashlib.sha256(data).hexdigest() if whole else None
        try:
            text, encoding = _decode(data, cut=not whole), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(data).decode(), "base64"
        return cls(text=text, encoding=encoding, size=len(data), sha256=digest, truncated=not whole)

    def content(self) -> bytes:
        """Return the body's bytes: the decoded content of ``text``."""
        return base64.b64decode(self.text) if self.encoding == "base64" else self.text.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRecord:
    """One request to an inspected host and its response, already redacted. Times are Unix nanoseconds."""

    id: str
    class_name: str
    method: str
    url: str
    host: str
    port: int
    begin_ns: int
    end_ns: int
    client: str = ""
    """IP address of the client."""
    instance: str = ""
    """Gateway instance whose listener accepted the client; empty if the policy names none."""
    outcome: str = "complete"
    """How the exchange ended: one of `OUTCOMES`."""
    rule: str = ""
    reason: str = ""
    code: str = ""
    """Code of the decision: one of `codes.Code`."""
    first_chunk_ns: int | None = None
    http_version: str | None = None
    status: int | None = None
    request_headers: Headers = field(default_factory=list)
    response_headers: Headers = field(default_factory=list)
    request_body: Body | None = None
    response_body: Body | None = None
    request_size: int | None = None
    """Size of the body on the wire, before decoding and truncation. `response_size` is the same for the response."""
    response_size: int | None = None
    body_truncated: bool = False
    masked: int = 0
    """Number of secrets that are masked in the bodies and in the assembled message."""
    request_facts: RequestFacts = field(default_factory=RequestFacts)
    response_facts: ResponseFacts = field(default_factory=ResponseFacts)
    cost_usd: float | None = None
    error_type: str | None = None
    key_fingerprint: str | None = None
    trace_id: str | None = None
    """Trace ID from ``traceparent``: 32 hex digits; ``span_id`` has 16."""
    span_id: str | None = None
    output_messages: list[dict[str, Any]] | None = None
    websocket: Mapping[str, Any] | None = None
    """Messages of a WebSocket: see `websocket_messages.WebSocket.facts`."""

    @property
    def model(self) -> str | None:
        """Return the model in the response, else the requested model."""
        return self.response_facts.model or self.request_facts.model

    @property
    def time_to_first_chunk(self) -> float | None:
        """Return the seconds until the first bytes of the response's body; None if there are none."""
        return None if self.first_chunk_ns is None else max(0, self.first_chunk_ns - self.begin_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedRecord:
    """A denial: client, destination, rule and reason. With ``enforced=False``, the request was allowed and reported."""

    class_name: str
    host: str
    port: int
    rule: str
    code: str
    """Code of the denial: one of `codes.Code`."""
    reason: str
    client: str = ""
    instance: str = ""
    """Gateway instance, as in `ExchangeRecord`."""
    address: str | None = None
    """The IP address that the decision is about: a literal in the request, or a result of name resolution."""
    method: str | None = None
    url: str | None = None
    count: int = 1
    summary: bool = False
    """Whether the record is a summary of ``count`` denials."""
    enforced: bool = True
    time_ns: int | None = None
    """Time of the denial in Unix nanoseconds; None for the time of recording."""
    id: str = ""
    status: int | None = None
    """HTTP status of the response to the client; None if the connection ended without a response."""
    trace_id: str | None = None
    span_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """An event of the proxy itself, such as a loaded or refused policy, dropped records, or a checkpoint."""

    event_name: str
    message: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    severity: Literal["INFO", "WARN", "ERROR"] = "INFO"
    class_name: str = ""
    instance: str = ""
    """Gateway instance, as in `ExchangeRecord`; empty in records about the proxy itself."""


Record = ExchangeRecord | DeniedRecord | EventRecord


def lines_of(record: Record) -> list[Line]:
    """Return the log lines of a record, the line with the attributes first. Each line fits Loki's default limits."""
    if isinstance(record, ExchangeRecord):
        return _exchange_lines(record)
    if isinstance(record, DeniedRecord):
        return _denied_lines(record)
    return _event_lines(record)


def severity(status: int | None, outcome: str, error_type: str | None = None) -> str:
    """Return ERROR for 5xx, transport errors and errors in a stream, WARN for 4xx and aborted exchanges, else INFO."""
    if outcome in ("upstream_error", "interrupted") or (status is not None and status >= 500):
        return "ERROR"
    if (status is not None and status >= 400) or outcome in ("client_aborted", "denied"):
        return "WARN"
    return "ERROR" if error_type is not None else "INFO"


def error_type_of(record: ExchangeRecord) -> str | None:
    """Return ``error.type``: the transport error, else the provider's error, else the status code of a failure."""
    for candidate in (record.error_type, record.response_facts.error_type):
        if candidate is not None and candidate in ERROR_TYPES:
            return candidate
    if record.status is not None and record.status >= 400:
        return str(record.status)
    if record.error_type or record.response_facts.error_type or record.outcome == "upstream_error":
        return OTHER_ERROR
    return record.outcome if record.outcome in ("client_aborted", "interrupted") else None


def _exchange_lines(record: ExchangeRecord) -> list[Line]:
    request, response, usage = record.request_facts, record.response_facts, record.response_facts.usage
    billing, error_type = record.response_facts.billing, error_type_of(record)
    attributes: dict[str, AttributeValue | None] = {
        semconv.EXCHANGE_ID: record.id,
        semconv.CLASS: record.class_name,
        semconv.INSTANCE: record.instance or None,
        semconv.RULE: record.rule or None,
        semconv.CODE: record.code or None,
        semconv.REASON: record.reason or None,
        semconv.OUTCOME: record.outcome,
        semconv.BEGIN: rfc3339(record.begin_ns),
        semconv.DURATION: max(0, record.end_ns - record.begin_ns) / 1e9,
        semconv.KEY: record.key_fingerprint,
        semconv.REQUEST_SIZE: record.request_size,
        semconv.RESPONSE_SIZE: record.response_size,
        semconv.BODY_TRUNCATED: record.body_truncated,
        semconv.MASKED: record.masked or None,
        semconv.HTTP_REQUEST_METHOD: record.method,
        semconv.HTTP_RESPONSE_STATUS_CODE: record.status,
        semconv.URL_FULL: record.url,
        semconv.SERVER_ADDRESS: record.host,
        semconv.SERVER_PORT: record.port,
        semconv.CLIENT_ADDRESS: record.client or None,
        semconv.NETWORK_PROTOCOL_NAME: "websocket" if record.websocket else None,
        semconv.NETWORK_PROTOCOL_VERSION: record.http_version,
        semconv.CONNECTION_ID: (record.websocket or {}).get("connection"),
        semconv.ERROR_TYPE: error_type,
        semconv.GEN_AI_OPERATION_NAME: request.operation_name,
        semconv.GEN_AI_PROVIDER_NAME: request.provider_name,
        semconv.GEN_AI_REQUEST_MODEL: request.model,
        semconv.GEN_AI_REQUEST_STREAM: request.stream,
        semconv.GEN_AI_RESPONSE_MODEL: response.model,
        semconv.GEN_AI_RESPONSE_ID: response.id,
        semconv.GEN_AI_RESPONSE_FINISH_REASONS: list(response.finish_reasons) or None,
        semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: record.time_to_first_chunk,
        semconv.GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
        semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: usage.cache_read_input_tokens,
        semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: usage.cache_write_input_tokens,
        semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: usage.reasoning_output_tokens,
        semconv.GEN_AI_USAGE_AUDIO_INPUT_TOKENS: billing.input_audio_tokens,
        semconv.GEN_AI_USAGE_AUDIO_CACHE_READ_INPUT_TOKENS: billing.cache_read_audio_tokens,
        semconv.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS: billing.output_audio_tokens,
        semconv.GEN_AI_USAGE_IMAGE_INPUT_TOKENS: billing.input_image_tokens,
        semconv.GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS: billing.output_image_tokens,
        semconv.CACHE_WRITE_5M: billing.cache_write_5m_tokens,
        semconv.CACHE_WRITE_1H: billing.cache_write_1h_tokens,
        semconv.WEB_SEARCHES: billing.web_searches,
        semconv.WEB_FETCHES: billing.web_fetches,
        semconv.COST: record.cost_usd,
    }
    fields: dict[str, Any] = {
        "method": truncate_utf8(clean_text(record.method), MAX_ATTRIBUTE_BYTES),
        "url": truncate_utf8(clean_text(record.url), MAX_URL_BYTES),
        "status": record.status,
        "request": _message_json(record.request_headers, record.request_body),
        "response": _message_json(record.response_headers, record.response_body),
    }
    messages = record.output_messages if record.output_messages is not None else response.messages
    if messages is not None:
        fields["messages"] = messages
        if response.messages_truncated:
            fields["messages_truncated"] = True
    if record.websocket is not None:
        fields["websocket"] = record.websocket
    return make_lines(
        semconv.EVENT_EXCHANGE,
        severity(record.status, record.outcome, error_type),
        attributes,
        fields,
        record.trace_id,
        record.span_id,
    )


def _denied_lines(record: DeniedRecord) -> list[Line]:
    attributes: dict[str, AttributeValue | None] = {
        semconv.EXCHANGE_ID: record.id or None,
        semconv.CLASS: record.class_name,
        semconv.INSTANCE: record.instance or None,
        semconv.RULE: record.rule,
        semconv.CODE: record.code,
        semconv.REASON: record.reason,
        semconv.ADDRESS: record.address,
        semconv.SUMMARY: record.summary or None,
        semconv.OUTCOME: "denied" if record.enforced else "reported",
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
        "code": record.code,
        "reason": record.reason,
        "address": record.address,
        "count": record.count,
        "summary": record.summary,
        "enforced": record.enforced,
    }
    return make_lines(semconv.EVENT_DENIED, "WARN", attributes, bounded_fields(fields), record.trace_id, record.span_id)


def _event_lines(record: EventRecord) -> list[Line]:
    attributes: dict[str, AttributeValue | None] = {
        **record.attributes,
        semconv.CLASS: record.class_name or None,
        semconv.INSTANCE: record.instance or None,
    }
    fields = {"message": truncate_utf8(clean_text(record.message), 16 * 1024), **bounded_fields(record.attributes)}
    return make_lines(record.event_name, record.severity, attributes, fields)


def _message_json(headers: Headers, body: Body | None) -> dict[str, Any]:
    message: dict[str, Any] = {"headers": headers_json(headers)}
    if body is not None:
        message["body"] = body.text
        message["body_sha256"] = body.sha256
        message["body_size"] = body.size
        message["body_encoding"] = body.encoding
        if body.truncated:
            message["body_truncated"] = True
        if body.masked:
            message["body_masked"] = body.masked
    return message


def headers_json(headers: Headers) -> dict[str, str | list[str]]:
    """Return headers as an object. If a name is repeated (ignoring case), its values form a list, in order."""
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
    """Return Unix nanoseconds as RFC 3339 in UTC with microseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def _decode(data: bytes, *, cut: bool) -> str:
    """Decode UTF-8. If the end was cut off, drop the incomplete character there (at most 3 bytes)."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if cut and error.end == len(data) and error.reason == "unexpected end of data":
            return data[: error.start].decode()
        raise
