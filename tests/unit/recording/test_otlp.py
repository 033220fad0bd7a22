"""Tests of the OTLP encoding: it equals the encoding of OpenTelemetry's SDK, and a repeated push has the same bytes."""

import pytest
from opentelemetry._logs import LogRecord as SdkLogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from openclaw_egress import __version__
from openclaw_egress.recording.log_lines import Line
from openclaw_egress.recording.otlp import (
    SCOPE,
    assemble,
    decode_text,
    encode_record,
    encode_resource,
    make_resource,
    with_namespace,
)
from openclaw_egress.recording.records import EventRecord, lines_of

TIME = 1_795_524_247_856_487_169


def line(**changes) -> Line:
    known = {
        "attributes": {"event_name": "openclaw.egress.exchange", "n": 7, "f": 1.5, "b": True, "l": ["x", "y"]},
        "json": "{}",
        "event_name": "openclaw.egress.exchange",
        "severity_text": "WARN",
        "severity_number": 13,
    }
    return Line(**{**known, **changes})


@pytest.fixture(autouse=True)
def no_otel_environment(monkeypatch):
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


def test_record_contains_line_time_severity_event_name_and_attributes():
    record = LogRecord.FromString(encode_record(line(), '{"seq":1}', TIME))
    assert record.body.string_value == '{"seq":1}'
    assert (record.time_unix_nano, record.severity_text, record.severity_number) == (TIME, "WARN", 13)
    assert record.event_name == "openclaw.egress.exchange"
    values = {item.key: item.value for item in record.attributes}
    assert values["event_name"].string_value == "openclaw.egress.exchange"
    assert (values["n"].int_value, values["f"].double_value, values["b"].bool_value) == (7, 1.5, True)
    assert [item.string_value for item in values["l"].array_value.values] == ["x", "y"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attributes": {}},
        {"attributes": {"zero": 0, "small": -(2**63), "false": False, "empty": "", "none": [], "é": "😀\0", "f": 0.0}},
        {"trace_id": "0a" * 16, "span_id": "0b" * 8},
        {"severity_text": "ERROR", "severity_number": 17, "event_name": ""},
    ],
)
def test_a_record_equals_that_of_the_sdks_encoder(changes):
    """Compare the bytes with the output of the SDK's encoder, so that the test detects changes in new SDK releases."""
    given = line(**changes)
    context = Context()
    if given.trace_id:
        span = SpanContext(int(given.trace_id, 16), int(given.span_id, 16), is_remote=True, trace_flags=TraceFlags(0))
        context = set_span_in_context(NonRecordingSpan(span), context)
    record = SdkLogRecord(
        timestamp=TIME,
        observed_timestamp=TIME,
        context=context,
        severity_text=given.severity_text,
        severity_number=SeverityNumber(given.severity_number),
        body="the line",
        attributes=given.attributes,
        event_name=given.event_name,
    )
    logs = encode_logs([ReadableLogRecord(record, Resource({}), SCOPE)]).resource_logs[0]
    expected = logs.scope_logs[0].log_records[0].SerializeToString(deterministic=True)
    assert encode_record(given, "the line", TIME) == expected


def test_observed_time_equals_the_records_time():
    first, second = encode_record(line(), "x", TIME), encode_record(line(), "x", TIME)
    assert LogRecord.FromString(first).observed_time_unix_nano == TIME
    assert first == second


def test_the_trace_of_the_request_is_on_the_record():
    record = LogRecord.FromString(encode_record(line(trace_id="0a" * 16, span_id="0b" * 8), "x", TIME))
    assert (record.trace_id, record.span_id) == (b"\x0a" * 16, b"\x0b" * 8)


@pytest.mark.parametrize("ids", [(None, None), ("zz", "0b" * 8), ("0" * 32, "0" * 16), ("0a" * 16, None)])
def test_record_has_no_trace_if_the_traceparent_header_is_invalid(ids):
    record = LogRecord.FromString(encode_record(line(trace_id=ids[0], span_id=ids[1]), "x", TIME))
    assert (record.trace_id, record.span_id) == (b"", b"")


def test_log_line_can_be_decoded_from_the_encoded_record():
    assert decode_text(encode_record(line(), "é€😀\0", TIME)) == "é€😀\0"


def attributes_of(push: ExportLogsServiceRequest, n: int = 0) -> dict[str, str]:
    return {item.key: item.value.string_value for item in push.resource_logs[n].resource.attributes}


def test_a_push_is_a_valid_request_with_the_records_bytes_unchanged():
    resource = encode_resource(make_resource("instance-1", host_name="vps1"))
    records = [encode_record(line(), "x" * size, TIME + size) for size in (0, 1, 127, 128, 20_000, 200_000)]
    push = ExportLogsServiceRequest.FromString(assemble((resource, record) for record in records))
    (logs,) = push.resource_logs
    (scope,) = logs.scope_logs
    assert [record.SerializeToString(deterministic=True) for record in scope.log_records] == records
    assert (scope.scope.name, scope.scope.version) == ("openclaw_egress", __version__)
    assert (
        attributes_of(push).items()
        >= {
            "service.name": "openclaw-proxy",
            "service.version": __version__,
            "service.instance.id": "instance-1",
            "host.name": "vps1",
        }.items()
    )


def test_push_keeps_each_records_resource_and_the_order():
    old, new = (encode_resource(make_resource("i", host_name=name)) for name in ("old", "new"))
    records = [(old, encode_record(line(), "1", 1)), (old, encode_record(line(), "2", 2))]
    records += [(new, encode_record(line(), "3", 3))]
    push = ExportLogsServiceRequest.FromString(assemble(records))
    assert [attributes_of(push, n)["host.name"] for n in (0, 1)] == ["old", "new"]
    assert [[r.body.string_value for r in logs.scope_logs[0].log_records] for logs in push.resource_logs] == [
        ["1", "2"],
        ["3"],
    ]


def test_no_records_give_an_empty_push():
    assert assemble([]) == b""


def test_the_environment_names_the_service_and_adds_attributes(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=by-attributes")
    found = make_resource("i", "by-argument").attributes
    assert (found["service.name"], found["deployment.environment.name"]) == ("by-attributes", "prod")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "by-name")
    assert make_resource("i", "by-argument").attributes["service.name"] == "by-name"


def test_instance_id_is_the_spools_despite_the_environment(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=other,host.name=from-env")
    found = make_resource("mine").attributes
    assert (found["service.instance.id"], found["host.name"]) == ("mine", "from-env")


def test_the_longest_record_stays_under_the_metadata_limit_of_loki():
    (made,) = lines_of(EventRecord(event_name="e", message="m", attributes={f"k{n}": "v" * 5000 for n in range(200)}))
    record = LogRecord.FromString(encode_record(made, made.json, TIME))
    assert len(record.attributes) <= 128
    assert sum(len(item.key) + len(item.value.string_value) for item in record.attributes) <= 65_536


@pytest.mark.parametrize(
    ("before", "namespace"),
    [({}, "resent-2"), ({"service.namespace": "agents"}, "agents/resent-2")],
)
def test_another_namespace_does_not_change_other_attributes_of_a_resource(before, namespace):
    attributes = {"service.name": "p", "service.instance.id": "i", **before}
    again = with_namespace(with_namespace(encode_resource(Resource(attributes)), "resent-1"), "resent-2")
    assert again == encode_resource(Resource({**attributes, "service.namespace": namespace}))
