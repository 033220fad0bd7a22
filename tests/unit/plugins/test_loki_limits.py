"""Tests of the check that Loki's configuration accepts the records and the export rates of the proxies.

Each finding must contain the wrong setting, its value and the required value. Its suggested lines must correct it.
"""

import copy
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.openclaw.egress.plugins.filter.loki_limits import FilterModule
from ansible_collections.openclaw.egress.plugins.module_utils import loki_limits as limits
from ansible_collections.openclaw.egress.plugins.module_utils.loki_limits import Finding, check_config, parse_quantity

from openclaw_egress.export.exporter import MAX_PUSH_BYTES
from openclaw_egress.recording import log_lines, semconv
from openclaw_egress.recording.otlp import assemble, encode_record, encode_resource, make_resource
from openclaw_egress.settings import Settings
from tests.support.loki.entries import streams
from tests.support.loki.wire import read_protobuf

TODAY = date(2026, 12, 1)
# The relevant part of what the recorded Loki prints (tests/contract/loki).
MAIN = yaml.safe_load((Path(__file__).parents[2] / "support" / "loki" / "config.yaml").read_text())
MAIN["server"] |= {"grpc_server_max_recv_msg_size": 4194304, "grpc_server_max_send_msg_size": 4194304}


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """Return the configuration with these changes. The value None removes a key."""
    config = copy.deepcopy(MAIN)
    for key, value in changes:
        *sections, name = key.split(".")
        holder = config
        for section in sections:
            holder = holder.setdefault(section, {})
        holder[name] = value
        if value is None:
            del holder[name]
    return config


def merge(config: Any, lines: Any) -> Any:
    """Return a configuration with these lines merged into its sections, as an operator would do it."""
    if isinstance(config, dict) and isinstance(lines, dict):
        return config | {name: merge(config.get(name), value) for name, value in lines.items()}
    if isinstance(config, list) and isinstance(lines, list):
        both = lines + config
        return sorted(both, key=lambda item: item["from"]) if "from" in lines[0] else both
    return lines


def corrected(config: dict[str, Any], found: list[Finding]) -> dict[str, Any]:
    lines = yaml.load("\n".join(limits.configuration_lines(found)), yaml.BaseLoader)
    result: dict[str, Any] = merge(config, lines or {})
    return result


def stopping(config: dict[str, Any], *rates: float) -> list[Finding]:
    return [finding for finding in check_config(config, TODAY, rates or (2_500_000,)) if finding.stops]


def warnings(config: dict[str, Any], *rates: float) -> list[Finding]:
    return [finding for finding in check_config(config, TODAY, rates or (2_500_000,)) if not finding.stops]


WITH_DEFAULTS = {
    "main of 2026-08": MAIN,
    # Loki 3.4 has other defaults than main (pkg/loghttp/push/otlp_config.go and pkg/validation/limits.go).
    "3.4": changed(
        ("limits_config.discover_service_name", ["service", "app", "application", "name"]),
        (
            "limits_config.otlp_config.resource_attributes.attributes_config",
            [{"action": "index_label", "attributes": ["service.name", "service.namespace", "service.instance.id"]}],
        ),
    ),
    "3.0": changed(("limits_config.otlp_config", None), ("limits_config.discover_service_name", None)),
    "with absent keys": {
        "limits_config": {"allow_structured_metadata": True, "reject_old_samples": True},
        "schema_config": MAIN["schema_config"],
    },
}


@pytest.mark.parametrize("version", WITH_DEFAULTS)
def test_default_configuration_gives_no_problem_and_warns_of_large_results_only(version):
    config = WITH_DEFAULTS[version]
    assert stopping(config) == []
    found = warnings(config)
    assert [finding.key for finding in found] == [
        "server.grpc_server_max_recv_msg_size",
        "server.grpc_server_max_send_msg_size",
    ]
    assert check_config(corrected(config, found), TODAY) == []


PUSH = "Loki always refuses a push that exceeds it"
WRONG = [
    (
        "limits_config.max_line_size", "64KB",
        "limits_config.max_line_size is 64KB. The minimum is 200000 bytes: Loki refuses longer lines.",
        "max_line_size: 256KB",
    ),
    (
        "limits_config.max_structured_metadata_size", "16KB",
        "is 16KB. The minimum is 50000 bytes: Loki refuses lines with more metadata.",
        "max_structured_metadata_size: 64KB",
    ),
    (
        "limits_config.max_structured_metadata_entries_count", 64,
        "is 64. The minimum is 112: Loki refuses lines with more metadata.",
        "max_structured_metadata_entries_count: 128",
    ),
    (
        "limits_config.ingestion_rate_mb", 1,
        "is 1. The minimum is 2.4 (2500000 bytes): a gateway exports faster, so Loki refuses its pushes with 429.",
        "ingestion_rate_mb: 4",
    ),
    (
        "limits_config.ingestion_burst_size_mb", 1.5,
        f"is 1.5. The minimum is 2.1 (2100000 bytes): {PUSH}.",
        "ingestion_burst_size_mb: 6",
    ),
    (
        "limits_config.per_stream_rate_limit", "1MB",
        "is 1MB. The minimum is 2500000 bytes: a gateway exports faster, and Loki may drop lines of a push that it "
        "acknowledges.",
        "per_stream_rate_limit: 3MB",
    ),
    (
        "limits_config.per_stream_rate_limit_burst", "2MB",
        f"is 2MB. The minimum is 2100000 bytes: {PUSH}.",
        "per_stream_rate_limit_burst: 15MB",
    ),
    (
        "server.grpc_server_max_recv_msg_size", 1048576,
        "is 1048576. The minimum is 3000000 bytes: Loki always refuses a larger push with 503.",
        "grpc_server_max_recv_msg_size: 16777216",
    ),
    (
        "limits_config.allow_structured_metadata", None,
        "is false (GET /config omits false values). It must be true: Loki refuses records with metadata.",
        "allow_structured_metadata: true",
    ),
    (
        "limits_config.allow_structured_metadata", False, "is false", "allow_structured_metadata: true",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message", "line"), WRONG)
def test_wrong_setting_stops_the_role_and_the_printed_lines_correct_it(key, value, message, line):
    config = changed((key, value))
    (found,) = stopping(config)
    assert found.key == key and message in found.message
    section = key.partition(".")[0]
    assert limits.configuration_lines([found]) == [f"{section}:", f"  {line}"]
    assert stopping(corrected(config, [found])) == []


SLOW = [
    (
        "limits_config.reject_old_samples_max_age", "24h",
        "is 24h. The minimum is 168h: after a longer outage Loki refuses the older records, which become dead letters.",
        "reject_old_samples_max_age: 1w",
    ),
    (
        "limits_config.creation_grace_period", "0s",
        "is 0s. The minimum is 60s: records wait if the gateway's clock is ahead by more.",
        "creation_grace_period: 10m",
    ),
    (
        "limits_config.max_line_size_truncate", True,
        "is true. It must be false: if max_line_size shrinks, Loki cuts records.",
        "max_line_size_truncate: false",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message", "line"), SLOW)
def test_setting_that_loses_no_record_now_causes_a_warning(key, value, message, line):
    config = changed((key, value))
    assert stopping(config) == []
    found = [finding for finding in warnings(config) if finding.key == key]
    assert len(found) == 1 and message in found[0].message
    assert limits.configuration_lines(found) == ["limits_config:", f"  {line}"]
    assert [finding.key for finding in warnings(corrected(config, found)) if finding.key == key] == []


def test_truncation_of_the_proxys_lines_stops_the_role():
    found = stopping(changed(("limits_config.max_line_size_truncate", True), ("limits_config.max_line_size", "64KB")))
    assert [finding.key for finding in found] == ["limits_config.max_line_size", "limits_config.max_line_size_truncate"]
    assert "Loki cuts records without an error" in found[1].message


def test_report_has_all_messages_and_one_block_for_each_section():
    found = stopping(
        changed(
            ("limits_config.max_line_size", "1KB"),
            ("server.grpc_server_max_recv_msg_size", 1),
            ("limits_config.allow_structured_metadata", None),
        )
    )
    text = limits.report(found)
    assert len(found) == 3 and text[:3] == [finding.message for finding in found]
    assert text[3:] == [
        "Put these lines into the sections of Loki's configuration file and restart Loki:",
        "limits_config:",
        "  allow_structured_metadata: true",
        "  max_line_size: 256KB",
        "server:",
        "  grpc_server_max_recv_msg_size: 16777216",
    ]
    assert limits.report([]) == []


@pytest.mark.parametrize(
    "key",
    ["max_line_size", "max_structured_metadata_size", "max_structured_metadata_entries_count"],
)
@pytest.mark.parametrize("zero", [0, "0B"])
def test_zero_means_no_limit_for_the_limits_for_which_loki_defines_it(key, zero):
    value = 0 if key.endswith("count") else zero
    assert stopping(changed((f"limits_config.{key}", value))) == []


@pytest.mark.parametrize("key", ["ingestion_rate_mb", "per_stream_rate_limit", "per_stream_rate_limit_burst"])
def test_zero_refuses_everything_in_other_limits(key):
    assert [finding.key for finding in stopping(changed((f"limits_config.{key}", 0)))] == [f"limits_config.{key}"]


def test_old_records_are_not_limited_if_loki_accepts_them():
    config = changed(("limits_config.reject_old_samples", False), ("limits_config.reject_old_samples_max_age", "1h"))
    assert "limits_config.reject_old_samples_max_age" not in [finding.key for finding in warnings(config)]


# ── rates ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_rates_of_several_gateways_are_added_up_for_the_tenant_but_not_for_a_stream():
    assert stopping(MAIN, 2_500_000, 2_500_000) == []
    (found, *_) = warnings(MAIN, 2_500_000, 2_500_000)
    assert found.key == "limits_config.ingestion_rate_mb"
    assert "is 4. The minimum is 4.8 (5000000 bytes): the gateways together can export faster" in found.message
    assert found.lines == ("ingestion_rate_mb: 5",)
    better = corrected(MAIN, [found])
    assert "limits_config.ingestion_rate_mb" not in [one.key for one in check_config(better, TODAY, (2.5e6, 2.5e6))]


def test_fast_gateway_needs_higher_rates():
    found = stopping(MAIN, 10_000_000, 2_500_000)
    assert limits.configuration_lines(found) == [
        "limits_config:",
        "  ingestion_rate_mb: 12",
        "  per_stream_rate_limit: 10MB",
    ]
    assert stopping(corrected(MAIN, found), 10_000_000, 2_500_000) == []


def test_gateway_without_a_maximum_rate_causes_a_warning():
    found = [finding for finding in warnings(MAIN, 0) if finding.key == "limits_config.per_stream_rate_limit"]
    assert "a gateway exports without a maximum rate" in found[0].message and found[0].lines == ()


def test_rates_are_compared_only_with_gateways_that_have_a_maximum():
    slow = changed(("limits_config.per_stream_rate_limit", "1MB"), ("limits_config.ingestion_rate_mb", 1))
    assert stopping(slow, 0) == [] and stopping(slow, 500_000, 0) == []
    assert [one.key for one in stopping(slow, 2_500_000, 0)] == [
        "limits_config.ingestion_rate_mb",
        "limits_config.per_stream_rate_limit",
    ]
    assert not any("rate_limit:" in line or "rate_mb" in line for line in limits.requirements([0]))


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("4MB", "bytes", 4 * 2**20), ("256KB", "bytes", 2**18), ("256kb", "bytes", 2**18), ("64 K", "bytes", 2**16),
        (4194304, "bytes", 4194304), ("4194304", "bytes", 4194304), ("262145B", "bytes", 262145), ("0B", "bytes", 0),
        ("1GB", "bytes", 2**30),
        (4, "megabytes", 4 * 2**20), (4.5, "megabytes", 4.5 * 2**20), ("1e+06", "megabytes", 10**6 * 2**20),
        ("1w", "seconds", 604_800), ("168h", "seconds", 604_800), ("168h0m0s", "seconds", 604_800),
        ("30d1h", "seconds", 2_595_600), ("10m", "seconds", 600), ("1m30.5s", "seconds", 90.5),
        ("500ms", "seconds", 0.5), ("0s", "seconds", 0), (0, "seconds", 0), ("1y", "seconds", 31_536_000),
        (128, "count", 128), ("128", "count", 128),
    ],
)  # fmt: skip
def test_values_are_read_in_every_form_that_loki_prints(value, kind, expected):
    assert parse_quantity(value, kind) == expected


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("4 parsecs", "bytes"), ("", "bytes"), ("-1", "bytes"), ("1.5MB", "bytes"), ("4BB", "bytes"), (True, "bytes"),
        ([], "bytes"), ({}, "count"), ("nan", "count"), ("inf", "megabytes"), (-1, "count"), ("four", "megabytes"),
        ("10", "seconds"), (600, "seconds"), ("10 m", "seconds"), ("m", "seconds"), ("-1h", "seconds"), ("", "seconds"),
    ],
)  # fmt: skip
def test_other_values_are_refused(value, kind):
    with pytest.raises(ValueError):
        parse_quantity(value, kind)


@pytest.mark.parametrize(
    "key",
    [
        "limits_config.max_line_size",
        "limits_config.ingestion_rate_mb",
        "limits_config.creation_grace_period",
        "server.grpc_server_max_recv_msg_size",
    ],
)
def test_unreadable_value_is_reported_and_not_guessed(key):
    config = changed((key, "a lot"))
    assert stopping(config) == []
    found = [finding for finding in warnings(config) if finding.key == key]
    assert len(found) == 1
    assert f"{key} is a lot, which this role cannot read. It was not checked. The minimum is " in found[0].message


# ── labels and attributes ────────────────────────────────────────────────────────────────────────────────────────────
RESOURCE = "limits_config.otlp_config.resource_attributes"


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        ([{"action": "index_label", "attributes": ["service.name"]}], "service.instance.id"),
        ([{"action": "drop", "regex": "service.*"}], "service.name and service.instance.id"),
        (
            [
                {"action": "structured_metadata", "attributes": ["service.instance.id"]},
                {"action": "index_label", "regex": "service[.].*"},
            ],
            "service.instance.id",
        ),
        ([], "service.name and service.instance.id"),
    ],
)
def test_labels_of_the_audit_are_required(rules, missing):
    config = changed((RESOURCE, {"ignore_defaults": True, "attributes_config": rules}))
    (found,) = stopping(config)
    assert f"does not make {missing} a label" in found.message and "Put the rule first." in found.message
    assert stopping(corrected(config, [found])) == []


def test_missing_label_of_resent_lines_causes_a_warning():
    rules = [{"action": "index_label", "attributes": ["service.name", "service.instance.id"]}]
    config = changed((RESOURCE, {"ignore_defaults": True, "attributes_config": rules}))
    assert stopping(config) == []
    (found,) = [one for one in warnings(config) if one.key == RESOURCE]
    assert "does not make service.namespace a label" in found.message
    assert not [one for one in check_config(corrected(config, [found]), TODAY) if one.key == RESOURCE]


@pytest.mark.parametrize(
    "rules",
    [
        [{"action": "index_label", "regex": r"\pL+[.].*"}],  # Go's syntax
        [{"action": "index_label", "regex": "[[:alpha:].]*"}],  # Go's syntax that Python reads differently
        ["service.name"],
        [{"action": "index_label", "attributes": 7}],
        {"action": "index_label"},
    ],
)
def test_unreadable_rules_do_not_stop_the_role(rules):
    config = changed((RESOURCE, {"ignore_defaults": True, "attributes_config": rules}))
    assert stopping(config) == []
    (found,) = [one for one in warnings(config) if one.key.startswith(RESOURCE)]
    assert "which this role cannot read. It was not checked: service.name and service.instance.id and" in found.message
    dropping = warnings(changed(("limits_config.otlp_config.log_attributes", rules)))[-1]
    assert "log_attributes is" in dropping.message and "which this role cannot read" in dropping.message


def test_rule_before_an_unreadable_one_decides():
    rules = [
        {"action": "index_label", "attributes": ["service.name", "service.namespace", "service.instance.id"]},
        {"action": "drop", "regex": "(?<x"},
    ]
    config = changed((RESOURCE, {"ignore_defaults": True, "attributes_config": rules}))
    assert not [one for one in check_config(config, TODAY) if one.key.startswith(RESOURCE)]


def test_rules_of_other_attributes_are_accepted():
    rules = MAIN["limits_config"]["otlp_config"]["resource_attributes"]["attributes_config"]
    config = changed((f"{RESOURCE}.attributes_config", [*rules, {"action": "drop", "regex": ".*"}]))
    assert stopping(config) == []
    # Loki anchors the pattern.
    config = changed((f"{RESOURCE}.attributes_config", [{"action": "drop", "regex": "name|instance"}, *rules]))
    assert stopping(config) == []
    assert stopping(changed((RESOURCE, None))) == []


def test_dropped_attribute_of_records_causes_a_warning():
    rules = [{"action": "drop", "regex": r"openclaw\.egress\.c.*"}, {"action": "drop", "regex": "(?<x"}]
    found = warnings(changed(("limits_config.otlp_config.log_attributes", rules)))
    assert "log_attributes drops openclaw.egress.class, openclaw.egress.code. Queries" in found[-1].message


def test_limits_of_single_tenants_are_named_as_unchecked():
    found = warnings(changed(("runtime_config", {"file": "/etc/loki/runtime.yaml"})))
    assert found[-1].message.startswith("runtime_config.file is /etc/loki/runtime.yaml. Limits of single tenants")


# ── schema ───────────────────────────────────────────────────────────────────────────────────────────────────────────
OLD = {"from": "2023-01-01", "store": "boltdb-shipper", "object_store": "s3", "schema": "v12"}
NEW = {"from": "2026-12-01", "store": "tsdb", "object_store": "s3", "schema": "v13"}


def test_v13_that_begins_today_is_active():
    assert stopping(changed(("schema_config.configs", [NEW, OLD]))) == []
    assert stopping(changed(("schema_config.configs", [{**NEW, "from": TODAY}]))) == []


def test_schema_message_has_both_steps_the_date_and_the_period_to_add():
    index = {"prefix": "loki_", "period": "24h"}
    config = changed(
        ("schema_config.configs", [{**OLD, "index": index}]), ("limits_config.allow_structured_metadata", None)
    )
    (found,) = stopping(config)
    assert "active today is v12 on boltdb-shipper" in found.message
    assert "(1) append to schema_config.configs the period below, with `from: 2026-12-02`" in found.message
    assert "(2) from 2026-12-02 on (UTC), set limits_config.allow_structured_metadata: true" in found.message
    lines = yaml.load("\n".join(limits.configuration_lines([found])), yaml.BaseLoader)
    assert lines["schema_config"]["configs"] == [{**NEW, "from": "2026-12-02", "index": index}]
    tomorrow = check_config(corrected(config, [found]), date(2026, 12, 2))
    assert [one.key for one in tomorrow if one.stops] == ["limits_config.allow_structured_metadata"]


def test_planned_period_is_named_with_its_date():
    (found,) = stopping(changed(("schema_config.configs", [OLD, {**NEW, "from": "2026-12-09"}])))
    assert "(1) nothing to do: schema_config.configs has such a period from 2026-12-09" in found.message
    assert "(2) from 2026-12-09 on (UTC)" in found.message and found.lines == ()


@pytest.mark.parametrize("period", [{**NEW, "store": "boltdb-shipper"}, {**NEW, "schema": "v9"}])
def test_v13_needs_tsdb(period):
    assert [one.key for one in stopping(changed(("schema_config.configs", [period])))] == ["schema_config.configs"]
    (found,) = stopping(changed(("schema_config.configs", [OLD, {**period, "from": "2026-12-09"}])))
    assert "(1) append to schema_config.configs" in found.message


@pytest.mark.parametrize(
    "periods",
    [
        7,
        "v13",
        ["v13"],
        [{**OLD, "schema": "the newest"}],
        [{**OLD, "from": "a while ago"}],
        [{"store": "tsdb", "from": "2024-01-01"}],
    ],
)
def test_unreadable_schema_does_not_stop_the_role(periods):
    config = changed(("schema_config.configs", periods))
    assert stopping(config) == []
    assert "schema_config.configs is" in warnings(config)[0].message
    assert "which this role cannot read. It was not checked: v13 on tsdb" in warnings(config)[0].message


def test_unreadable_permission_of_metadata_does_not_stop_the_role():
    config = changed(("limits_config.allow_structured_metadata", "perhaps"))
    assert stopping(config) == []
    assert "is perhaps, which this role cannot read" in warnings(config)[0].message


def test_missing_schema_is_reported_as_unchecked():
    assert stopping(changed(("schema_config", None))) == []
    assert "schema_config.configs is not in GET /config" in warnings(changed(("schema_config", None)))[0].message


# ── the filter ───────────────────────────────────────────────────────────────────────────────────────────────────────
loki_limits = FilterModule().filters()["loki_limits"]


def test_filter_returns_text():
    config = changed(("limits_config.allow_structured_metadata", None), ("limits_config.max_line_size", "1KB"))
    found = loki_limits(config, rates=["2500000"])
    assert not found["metadata_allowed"] and loki_limits(MAIN)["metadata_allowed"]
    assert found["problems"][-2:] == ["  allow_structured_metadata: true", "  max_line_size: 256KB"]
    assert found["problems_without_metadata"][-1] == "  max_line_size: 256KB"
    assert not any("allow_structured_metadata" in line for line in found["problems_without_metadata"])
    assert loki_limits(MAIN)["problems"] == []
    assert "limits_config.max_line_size: at least 200000 bytes" in loki_limits({})["requirements"]


def test_empty_section_means_defaults_and_no_metadata():
    found = loki_limits({"limits_config": None, "schema_config": MAIN["schema_config"]})
    assert found["problems"][-2:] == ["limits_config:", "  allow_structured_metadata: true"]
    assert found["problems_without_metadata"] == []


@pytest.mark.parametrize("rate", [0, "0"])
def test_filter_warns_of_no_maximum_rate(rate):
    assert any("without a maximum rate" in line for line in loki_limits(MAIN, rates=[rate])["warnings"])


def test_filter_refuses_other_input():
    with pytest.raises(AnsibleFilterError, match="as a mapping, not str"):
        loki_limits("<html>")
    with pytest.raises(AnsibleFilterError, match="an export rate is invalid: not a size: fast"):
        loki_limits(MAIN, rates=["fast"])


# ── what the proxy sends ─────────────────────────────────────────────────────────────────────────────────────────────
def test_default_rate_equals_that_of_the_proxy():
    assert Settings.model_fields["export_max_bytes_per_second"].default == limits.EXPORT_BYTES_PER_SECOND


def test_every_checked_attribute_is_one_that_the_proxy_sends():
    names = {value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)}
    assert set(limits.ATTRIBUTES) - names == set()


INTEGERS = {f"a{number}": 10**15 for number in range(200)}
TEXTS = {f"a{number}": "x" * 490 for number in range(200)}
PUSHES = {
    "small records": ({}, {"a": 1}),
    "many attributes": (INTEGERS, {"a": 1}),
    "long attributes": (TEXTS, {"a": 1}),
    "split bodies": (TEXTS, {"request": {"body": "é" * 2_000_000}}),
}


@pytest.mark.parametrize("name", PUSHES)
def test_minimums_are_above_the_sizes_that_the_proxy_sends(name):
    """Encode a push of the largest size and count it as Loki does."""
    attributes, fields = PUSHES[name]
    lines = log_lines.make_lines(semconv.EVENT_DENIED, "WARN", attributes, fields, "1" * 32, "2" * 16)
    resource = encode_resource(make_resource("0" * 32, None, "host"))
    chain = '{"seq":1234567890,"prev":"%s",' % ("0" * 64)
    records: list[tuple[bytes, bytes]] = []
    size = 0
    while size < MAX_PUSH_BYTES:
        for line in lines:
            encoded = encode_record(line, chain + line.json[1:], 1_796_000_000_000_000_000 + len(records))
            size += len(resource) + len(encoded)
            if size >= MAX_PUSH_BYTES:
                break
            records.append((resource, encoded))
    entries = [entry for _, found in streams(read_protobuf(assemble(records)), 0) for entry in found]
    metadata = [sum(len(key.encode()) + len(value.encode()) for key, value in entry.metadata) for entry in entries]
    counted = sum(len(entry.line) for entry in entries) + sum(metadata)
    # Protobuf adds at most 24 bytes per line, for tags, lengths and the timestamp. Per metadata entry, it adds three
    # tags and three lengths of one byte each. From 128 bytes, the lengths of the entry and its value need two bytes.
    framing = sum(8 if len(key) + len(value) > 120 else 6 for entry in entries for key, value in entry.metadata)
    message = counted + framing + 24 * len(entries)
    assert max(len(entry.line) for entry in entries) <= limits.LONGEST_LINE_BYTES == log_lines.MAX_LINE_BYTES
    assert max(len(entry.metadata) for entry in entries) <= limits.METADATA_ENTRIES
    assert max(metadata) <= limits.METADATA_BYTES
    assert counted <= limits.LARGEST_PUSH_BYTES
    assert message <= limits.LARGEST_MESSAGE_BYTES
