"""Tests of `egress usage`: groups, formats, and the escaping of text that agents choose."""

import csv
import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openclaw_egress.cli.app import app
from openclaw_egress.llm.model import RequestFacts, ResponseFacts, Usage
from openclaw_egress.recording.records import ExchangeRecord
from openclaw_egress.spool.writer import Spool

HOUR_NS = 3600 * 10**9
START = 1_795_784_400_000_000_000
EVIL = "=cmd|' /C calc'!A0\x1b[31m"


def exchange(name: str, model: str | None, cost: float | None, **changes: object) -> ExchangeRecord:
    known: dict = {
        "id": name,
        "class_name": "gateway",
        "method": "POST",
        "url": "https://api.anthropic.com/v1/messages",
        "host": "api.anthropic.com",
        "port": 443,
        "begin_ns": 0,
        "end_ns": 2_000_000_000,
        "status": 200,
        "request_facts": RequestFacts("chat", "anthropic", model, False),
        "response_facts": ResponseFacts(usage=Usage(1000, 20)),
        "cost_usd": cost,
    }
    return ExchangeRecord(**known | changes)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    times = [START]
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True, clock_ns=lambda: times[-1]) as spool:
        spool.close_exchange(exchange("a", "cheap", 0.5))
        times.append(START + 30 * HOUR_NS)
        spool.close_exchange(exchange("b", "dear", 2.25, class_name="browser"))
        spool.close_exchange(exchange("c", "cheap", None, status=429))
        spool.close_exchange(exchange("d", None, None, response_facts=ResponseFacts()))
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["usage", "--since", "2026-01-01", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def lines(*arguments: str) -> list[dict]:
    return [json.loads(line) for line in run(*arguments, "--json").splitlines()]


def test_totals_by_model_begin_with_the_most_expensive_and_end_with_the_sum(state):
    rows = [row.split() for row in run().splitlines()]
    assert rows[0][:3] == ["model", "requests", "errors"]
    assert [row[0] for row in rows[1:]] == ["dear", "cheap", "(none)", "total"]
    assert rows[-1][1] == "4"
    assert "≥ 2.7500" in run()
    assert "≥ 0.5000" in run()
    assert lines()[1] == {
        "model": "cheap",
        "requests": 2,
        "errors": 1,
        "input_tokens": 2000,
        "output_tokens": 40,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "unpriced": 1,
        "cost_usd": 0.5,
        "duration_p50": pytest.approx(2, rel=0.03),
        "duration_p95": pytest.approx(2, rel=0.03),
        "first_chunk_p50": None,
        "first_chunk_p95": None,
    }


@pytest.mark.parametrize(
    ("by", "values"),
    [
        (["class"], ["browser", "gateway"]),
        (["status"], [200, 429]),
        (["day"], ["2026-11-27", "2026-11-28"]),
        (["provider"], ["anthropic"]),
        (["host"], ["api.anthropic.com"]),
        (["key"], [None]),
    ],
)
def test_totals_by_each_dimension(state, by, values):
    found = lines(*(f"--by={name}" for name in by))
    assert [row[by[0]] for row in found] == values
    assert sum(row["requests"] for row in found) == 4


def test_totals_by_two_dimensions_and_of_one_class(state):
    found = lines("--by=day", "--by=model", "--class", "gateway")
    assert [(row["day"], row["model"]) for row in found] == [
        ("2026-11-27", "cheap"),
        ("2026-11-28", None),
        ("2026-11-28", "cheap"),
    ]


def test_hours_at_the_end_of_summer_time_are_shown_separately(tmp_path, monkeypatch):
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    times = [int(datetime(2026, 11, 1, 5, 30, tzinfo=UTC).timestamp()) * 10**9]
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True, clock_ns=lambda: times[-1]) as spool:
        for number in range(2):
            spool.close_exchange(exchange(f"x{number}", "m", 1.0))
            times.append(times[-1] + HOUR_NS)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert [row["hour"] for row in lines("--by=hour")] == ["2026-11-01 01:00-0400", "2026-11-01 01:00-0500"]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_since_and_until_limit_the_hours(state):
    assert [row["model"] for row in lines("--until", "2026-11-28")] == ["cheap"]
    assert len(lines("--since", "2026-11-28")) == 3
    result = CliRunner().invoke(app, ["usage", "--since", "2027-01-01"])
    assert result.exit_code == 0
    assert "no exchanges since 2027-01-01" in result.output


def test_csv_escapes_names_that_a_spreadsheet_would_run(state):
    with Spool(state / "spool.db", sync_seconds=None, local=True) as spool:
        spool.close_exchange(exchange("e", EVIL, 1.0))
    rows = list(csv.DictReader(io.StringIO(run("--csv"))))
    assert [row["model"] for row in rows] == ["dear", "'=cmd|' /C calc'!A0\\x1b[31m", "cheap", ""]
    assert rows[0]["cost_usd"] == "2.25"
    assert "\x1b" not in run()


def test_rebuild_prints_the_same_totals(state):
    before = lines()
    assert lines("--rebuild") == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--json", "--csv"], "--json and --csv exclude each other"),
        (["--since", "yesterday"], "--since: 'yesterday' is not valid"),
        (["--by", "user"], "'user' is not one of"),
    ],
)
def test_invalid_options_are_refused(state, arguments, text):
    result = CliRunner().invoke(app, ["usage", *arguments])
    assert result.exit_code == 2
    assert text in result.output


def test_rebuild_is_refused_while_the_proxy_writes_and_without_a_spool(state, monkeypatch, tmp_path):
    # In a deployment, the command and the proxy are different processes. The test can run both in one process, because
    # the lock belongs to the open file, not to the process.
    with Spool(state / "spool.db", sync_seconds=None, local=True):
        result = CliRunner().invoke(app, ["usage", "--rebuild"])
        assert result.exception is not None
        assert "stop that process" in str(result.exception)
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path / "absent"))
    result = CliRunner().invoke(app, ["usage", "--rebuild"])
    assert "does not exist yet" in str(result.exception)
    assert not (tmp_path / "absent").exists()
