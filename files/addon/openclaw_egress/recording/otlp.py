"""Encoding of records as OTLP, with OpenTelemetry's own message types, resource detection and encoder.

The SDK's encoder groups records by resource and scope, and takes three times as long as its message types alone. This
module therefore encodes a record with only the message types. A test compares the bytes with the SDK's.

A record is encoded once, when it is committed. The bytes are stored, and each push is assembled from them. A retry
therefore sends exactly the same bytes, so that the destination can recognise duplicates. For the same reason the
observed time, which Loki stores as metadata, is the record's time.

The framing follows protobuf (https://protobuf.dev/programming-guides/encoding/) and
``opentelemetry/proto/collector/logs/v1/logs_service.proto``: ``ExportLogsServiceRequest{1: ResourceLogs{1: resource,
2: ScopeLogs{1: scope, 2: log record…}}}``.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as EncodedLogRecord
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from openclaw_egress import __version__
from openclaw_egress.recording.log_lines import AttributeValue, Line

SCOPE = InstrumentationScope("openclaw_egress", __version__)
DEFAULT_SERVICE_NAME = "openclaw-proxy"
NAMESPACE = "service.namespace"
"""A resource attribute that Loki's default ``otlp_config`` makes a label, like ``service.instance.id``."""
PROBE_SERVICE_NAME = "openclaw-egress-probe"
CONTENT_TYPE = "application/x-protobuf"
TRACE_ID_BYTES, SPAN_ID_BYTES = 16, 8

_EMPTY = Resource({})


def make_resource(instance_id: str, service_name: str | None = None, host_name: str | None = None) -> Resource:
    """Return the resource of this installation.

    ``service.name`` comes from the environment (``OTEL_SERVICE_NAME``, then ``OTEL_RESOURCE_ATTRIBUTES``), else from
    ``service_name``, else it is ``openclaw-proxy``. ``host.name`` comes from ``host_name``, else from the environment,
    else from the machine. ``service.instance.id`` is always the spool's, because each spool has its own hash chain.
    """
    said = OTELResourceDetector().detect().attributes
    return Resource.create(
        {
            "service.name": str(said.get("service.name") or service_name or DEFAULT_SERVICE_NAME),
            "service.version": str(said.get("service.version") or __version__),
            "service.instance.id": instance_id,
            "host.name": str(host_name or said.get("host.name") or socket.gethostname()),
        }
    )


def encode_resource(resource: Resource) -> bytes:
    """Return a resource and its scope for `assemble`: two encoded messages, each after its length as a varint."""
    probe = ReadableLogRecord(LogRecord(timestamp=0, observed_timestamp=0), resource, SCOPE)
    logs = encode_logs([probe]).resource_logs[0]
    scope_logs = logs.scope_logs[0]
    del scope_logs.log_records[:]
    del logs.scope_logs[:]
    head, scope = logs.SerializeToString(deterministic=True), scope_logs.SerializeToString(deterministic=True)
    return b"".join((_varint(len(head)), head, _varint(len(scope)), scope))


def with_namespace(encoded: bytes, part: str) -> bytes:
    """Return an encoded resource whose ``service.namespace`` ends with ``part``, so that Loki uses another stream.

    The namespace becomes ``part``, or ``NAMESPACE/part`` if the operator has set one. An earlier
    part of the same kind (with the same text up to the first hyphen) is replaced.
    """
    head, scope = _heads(encoded)
    logs = ResourceLogs.FromString(head)
    found = next((one for one in logs.resource.attributes if one.key == NAMESPACE), None)
    kind = part.partition("-")[0] + "-"
    names = found.value.string_value.split("/") if found is not None else []
    value = "/".join([name for name in names if not name.startswith(kind)] + [part])
    if found is None:
        logs.resource.attributes.append(KeyValue(key=NAMESPACE, value=AnyValue(string_value=value)))
    else:
        found.value.string_value = value
    head = logs.SerializeToString(deterministic=True)
    return b"".join((_varint(len(head)), head, _varint(len(scope)), scope))


def encode_record(line: Line, text: str, time_ns: int) -> bytes:
    """Return a line as an OTLP ``LogRecord`` with the body ``text``. The observed time is the commit time."""
    trace_id, span_id = _trace(line)
    record = EncodedLogRecord(
        time_unix_nano=time_ns,
        observed_time_unix_nano=time_ns,
        severity_number=line.severity_number,  # type: ignore[arg-type]  # the generated type is private to the stubs
        severity_text=line.severity_text,
        body=AnyValue(string_value=text),
        attributes=[KeyValue(key=name, value=_value(value)) for name, value in line.attributes.items()],
        trace_id=trace_id,
        span_id=span_id,
        event_name=line.event_name,
    )
    encoded: bytes = record.SerializeToString(deterministic=True)
    return encoded


def _value(value: AttributeValue) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):  # Check bool before int, because bool is a subclass of int.
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=item) for item in value]))


def make_probe() -> bytes:
    """Return a push of one small record, with its own service name, to test whether the destination accepts records.

    The record has no time, so a wrong clock cannot cause a refusal. It has no instance ID, so it does not belong to the
    proxy's own stream.
    """
    record = ReadableLogRecord(
        LogRecord(timestamp=0, observed_timestamp=0, body="is this store alive?", severity_text="INFO"), _EMPTY, SCOPE
    )
    encoded = encode_logs([record]).resource_logs[0].scope_logs[0].log_records[0]
    encoded.time_unix_nano = encoded.observed_time_unix_nano = 0
    resource = Resource({"service.name": PROBE_SERVICE_NAME})
    return assemble([(encode_resource(resource), encoded.SerializeToString(deterministic=True))])


def decode_text(encoded: bytes) -> str:
    """Return the text of the line in an encoded record.

    Raises:
        ValueError: the bytes are not an encoded record.
    """
    try:
        text: str = EncodedLogRecord.FromString(encoded).body.string_value
    except (DecodeError, TypeError):  # TypeError: a damaged row of the spool can contain a value of any type
        raise ValueError("the bytes are not an encoded record") from None
    return text


def decode_counts(encoded: bytes) -> dict[str, int]:
    """Return the integer attributes of an encoded record, by name.

    Raises:
        ValueError: the bytes are not an encoded record.
    """
    try:
        attributes = EncodedLogRecord.FromString(encoded).attributes
    except (DecodeError, TypeError):
        raise ValueError("the bytes are not an encoded record") from None
    return {found.key: found.value.int_value for found in attributes if found.value.HasField("int_value")}


def assemble(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a push (``ExportLogsServiceRequest``) of encoded records, in order.

    Args:
        records: pairs of an encoded resource (`encode_resource`) and an encoded record (`encode_record`). Adjacent
            records with the same resource share it in the push.
    """
    groups: list[tuple[bytes, list[bytes]]] = []
    for resource, record in records:
        if not groups or groups[-1][0] != resource:
            groups.append((resource, []))
        groups[-1][1].append(_field(2, record))
    push = []
    for resource, encoded in groups:
        head, scope = _heads(resource)
        push.append(_field(1, head + _field(2, scope + b"".join(encoded))))
    return b"".join(push)


def _heads(resource: bytes) -> tuple[bytes, bytes]:
    length, at = _read_varint(resource, 0)
    scope_length, scope_at = _read_varint(resource, at + length)
    return resource[at : at + length], resource[scope_at : scope_at + scope_length]


def _field(number: int, data: bytes) -> bytes:
    """Return a length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _trace(line: Line) -> tuple[bytes, bytes]:
    """Return the request's trace and span id; empty if one of them is missing or invalid."""
    try:
        trace_id, span_id = bytes.fromhex(line.trace_id or ""), bytes.fromhex(line.span_id or "")
    except ValueError:
        return b"", b""
    if len(trace_id) != TRACE_ID_BYTES or len(span_id) != SPAN_ID_BYTES or not any(trace_id) or not any(span_id):
        return b"", b""
    return trace_id, span_id
