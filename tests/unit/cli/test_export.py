"""Tests of `egress export`: JSON lines, an HTTP Archive and CSV."""

import csv
import io
import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from openclaw_egress.cli.app import app
from openclaw_egress.llm.model import RequestFacts
from openclaw_egress.recording.records import Body
from openclaw_egress.spool.writer import Spool
from tests.support.hostile_records import HIDDEN, hostile_denial, hostile_exchange

LONG = b"long " * 100_000


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a state directory with a denial and two exchanges. One exchange is split and has a binary response."""
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.close_exchange(
            hostile_exchange("1" * 32, request_facts=RequestFacts("chat", "anthropic", "=cmd()", False))
        )
        spool.add(hostile_denial())
        bodies = {"request_body": Body.of(LONG), "response_body": Body.of(b"\xff\x00binary")}
        spool.close_exchange(hostile_exchange("2" * 32, **bodies))
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    return tmp_path


def egress(*words: str) -> Result:
    return CliRunner().invoke(app, [*words])


def test_archive_has_each_exchange_with_its_bodies(state):
    file = state / "records.har"
    assert egress("export", "--format", "har", "--output", str(file)).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    log = json.loads(file.read_text())["log"]
    first, second = log["entries"]
    assert log["version"] == "1.2" and first["response"]["status"] == 200
    assert second["request"]["postData"]["text"] == LONG.decode()
    assert second["response"]["content"]["encoding"] == "base64"


def test_archive_without_bodies_has_only_their_sizes(state):
    text = egress("export", "--format", "har", "--no-bodies").stdout
    assert "postData" not in text and "long long" not in text
    assert [entry["request"]["bodySize"] for entry in json.loads(text)["log"]["entries"]][1] == len(LONG)


def test_archive_of_a_period_without_exchanges_is_empty(state):
    assert json.loads(egress("export", "--format", "har", "--until", "2020-01-01").stdout)["log"]["entries"] == []


def test_csv_has_a_row_for_each_record_and_no_formula(state):
    text = egress("export", "--format", "csv").stdout
    first, denial, second = csv.DictReader(io.StringIO(text))
    assert (first["id"], second["id"], denial["outcome"]) == ("1" * 32, "2" * 32, "denied")
    assert first["input_tokens"] == "1000" and first["status"] == "200" and first["time"].endswith("Z")
    assert first["model"] == "'=cmd()"
    assert not any(character in text for character in HIDDEN if not character.isprintable())


def test_lines_for_an_audit_have_their_bodies(state):
    result = egress("export", "--no-bodies")
    assert result.exit_code == 2 and "--no-bodies works only with --format har" in result.stderr


def test_existing_file_is_never_overwritten(state):
    file = state / "records.csv"
    file.write_text("mine")
    result = egress("export", "--format", "csv", "-o", str(file))
    assert result.exit_code == 2 and "use another file name" in result.stderr and file.read_text() == "mine"
