"""Tests of `egress support-bundle`: the bundle has the documented contents, and no secret and no body."""

import json
import sqlite3
import stat
from contextlib import closing

import pytest
from typer.testing import CliRunner

from openclaw_egress import reports
from openclaw_egress.cli import support_bundle
from openclaw_egress.cli.app import app
from openclaw_egress.errors import EgressError
from openclaw_egress.recording.records import Body, DeniedRecord, EventRecord, ExchangeRecord
from openclaw_egress.recording.semconv import EVENT_POLICY, EVENT_SPOOL
from openclaw_egress.reports.support_bundle import NEWEST_EVENTS
from openclaw_egress.spool.writer import Spool

KEY = "sk-ant-api03-" + "k" * 24
SECRETS = ("hunter2", "c2VjcmV0", KEY, "text of a prompt", "text of a response", "secret/path", "no/such/place")
METRICS = f"""\
# HELP openclaw_egress_exchanges_total Exchanges.
# TYPE openclaw_egress_exchanges_total counter
openclaw_egress_exchanges_total{{model="{KEY}",token_type="input"}} 3.0
"""


@pytest.fixture
def state(tmp_path, monkeypatch):
    """Return a state directory whose spool has a secret in every field that comes from traffic or settings."""
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(
            ExchangeRecord(
                id="one",
                class_name="gateway",
                method="POST",
                url="https://api.anthropic.com/secret/path",
                host="api.anthropic.com",
                port=443,
                begin_ns=1,
                end_ns=2,
                status=529,
                request_headers=[("x-note", "hunter2")],
                request_body=Body.of(b"text of a prompt"),
                response_body=Body.of(b"text of a response"),
            )
        )
        spool.add(
            DeniedRecord(
                class_name="sandbox",
                host="evil.example",
                port=443,
                rule="default",
                code="no_rule",
                reason="no rule",
                url="https://evil.example/no/such/place",
            )
        )
        for at in range(NEWEST_EVENTS + 5):
            spool.add(EventRecord(event_name=EVENT_SPOOL, message=f"event {at}"))
        spool.add(EventRecord(event_name=EVENT_POLICY, message=f"refused: Bearer {KEY}", severity="ERROR"))
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://writer:hunter2@loki.example/otlp/v1/logs")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic c2VjcmV0")
    monkeypatch.setenv("OTHER_PASSWORD", "hunter2")
    monkeypatch.setattr(support_bundle, "fetch", lambda path: METRICS.encode() if path == "/metrics" else None)
    monkeypatch.setattr(support_bundle, "ask", lambda _: {"ok": False, "problems": [f"export: 401 for {KEY}"]})
    return tmp_path


def egress(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def test_bundle_contains_versions_settings_health_counters_and_events(state):
    result = egress("support-bundle")
    assert result.exit_code == 0, result.output
    bundle = json.loads(result.stdout)
    assert bundle["versions"]["mitmproxy"].startswith("1")
    assert bundle["settings"]["spool_max_bytes"] == 2 * 1024**3
    assert {"EGRESS_STATE_DIR", "OTEL_EXPORTER_OTLP_HEADERS"} <= set(bundle["variables"])
    assert "OTHER_PASSWORD" not in bundle["variables"]
    assert bundle["policy"]["classes"]["gateway"]["action"] == "open"
    assert bundle["status"]["running"] and not bundle["status"]["ready"]
    assert [sample["value"] for sample in bundle["metrics"]] == [3.0]
    assert bundle["metrics"][0]["labels"]["token_type"] == "input"
    assert bundle["spool"]["exchanges"] == [{"class": "gateway", "status": 529, "exchanges": 1}]
    events = bundle["spool"]["events"]
    assert len(events) == NEWEST_EVENTS
    assert events[-1]["event"] == EVENT_POLICY and events[-2]["message"] == f"event {NEWEST_EVENTS + 4}"
    files = {found["name"]: found for found in bundle["machine"]["files"][str(state)]}
    assert files["spool.db"]["mode"].startswith("-rw")


@pytest.mark.parametrize("secret", SECRETS)
def test_bundle_contains_no_secret_no_body_and_no_url_of_traffic(state, secret):
    result = egress("support-bundle")
    assert result.exit_code == 0 and "loki.example" in result.stdout
    assert secret not in result.stdout


def test_file_is_readable_for_its_owner_only_and_never_overwritten(state):
    file = state / "bundle.json"
    assert egress("support-bundle", "-o", file).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    assert json.loads(before)["versions"]
    again = egress("support-bundle", "-o", file)
    assert again.exit_code == 2 and "exists already" in again.stderr
    assert file.read_bytes() == before


@pytest.mark.parametrize("metrics", [None, b"", b"\xff\xfe", b"no metrics at all {{{"])
def test_bundle_reports_unreadable_parts(tmp_path, monkeypatch, metrics):
    (tmp_path / "spool.db").write_bytes(b"no database" * 1000)
    (tmp_path / "policy.yml").write_text("version: 1\nclasses: 7\n")
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("EGRESS_POLICY_FILE", str(tmp_path / "policy.yml"))
    monkeypatch.setattr(support_bundle, "fetch", lambda _: metrics)
    monkeypatch.setattr(support_bundle, "ask", lambda _: None)
    result = egress("support-bundle")
    assert result.exit_code == 0, result.output
    bundle = json.loads(result.stdout)
    assert str(tmp_path / "spool.db") in bundle["spool"]["error"]
    assert "policy.yml" in bundle["policy"]["error"]
    assert not bundle["status"]["running"] and bundle["metrics"] == []


def test_bundle_is_valid_json_whatever_number_a_sample_has(state, monkeypatch):
    monkeypatch.setattr(support_bundle, "fetch", lambda _: b"a NaN\nb +Inf\nc 1\n")
    bundle = json.loads(egress("support-bundle").stdout, parse_constant=pytest.fail)
    assert [sample["value"] for sample in bundle["metrics"]] == ["nan", "inf", 1.0]


def test_damaged_event_has_no_message(state):
    with closing(sqlite3.connect(state / "spool.db")) as db, db:
        db.execute("UPDATE records SET otlp = x'00112233' WHERE seq = (SELECT max(seq) FROM records)")
    result = egress("support-bundle")
    assert result.exit_code == 0, result.output
    assert [event["message"] for event in json.loads(result.stdout)["spool"]["events"]][-2:] == [
        f"event {NEWEST_EVENTS + 4}",
        "",
    ]


def test_bundle_contains_the_events_of_an_older_spool_without_totals(state):
    with closing(sqlite3.connect(state / "spool.db")) as db, db:
        db.executescript("DROP TABLE usage_hours; PRAGMA user_version = 1")
    found = json.loads(egress("support-bundle").stdout)["spool"]
    assert len(found["events"]) == NEWEST_EVENTS and "exchanges" not in found
    assert "an older version wrote it" in found["error"]


def test_files_of_a_directory_are_bounded(state, monkeypatch):
    monkeypatch.setattr(reports.support_bundle, "_MAX_FILES", 3)
    for at in range(9):
        (state / f"a{at}").write_text("")
    files = json.loads(egress("support-bundle").stdout)["machine"]["files"][str(state)]
    assert [found.get("name") for found in files] == ["a0", "a1", "a2", None]
    assert files[-1]["error"].endswith(" more files")


def test_invalid_setting_causes_one_message(monkeypatch):
    monkeypatch.setenv("EGRESS_HEALTH_PORT", "many")
    result = CliRunner().invoke(app, ["support-bundle"])
    assert isinstance(result.exception, EgressError) and "EGRESS_HEALTH_PORT" in str(result.exception)
