"""Tests of `egress audit` against a real VictoriaLogs, if its program is in the lab's cache or on the PATH."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openclaw_egress.cli.app import app
from openclaw_egress.export.exporter import Exporter
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.writer import Spool
from tests.support import tampered_chains as chains
from tests.support.otlp_push import push_lines
from tests.support.victoria_logs import OTLP_PATH, PROGRAM, get, running, wait_until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no victoria-logs on the PATH or in the lab's cache")


@pytest.fixture(scope="module")
def victoria_logs(tmp_path_factory):
    """Return the OTLP endpoint of a VictoriaLogs on loopback."""
    with running(tmp_path_factory.mktemp("victoria-logs")) as endpoint:
        yield endpoint


@dataclass
class Endpoint:
    logs_endpoint: str


@pytest.fixture
def spool(tmp_path, monkeypatch):
    chains.write_chain(tmp_path / "spool.db")
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    return tmp_path / "spool.db"


def audited(endpoint: str, spool: Path, lines) -> dict:
    with SpoolReader(spool) as reader:
        instance = reader.instance_id
    push_lines(endpoint, instance, lines)
    base = endpoint.removesuffix(OTLP_PATH)
    query = f"{base}/select/logsql/query?query=%7B%22service.instance.id%22%3D%22{instance}%22%7D%20%7C%20count()%20n"
    wait_until(lambda: f'"n":"{len(lines)}"' in get(query).decode(), "the lines did not become visible")
    return audit(endpoint)


def audit(endpoint: str) -> dict:
    result = CliRunner().invoke(app, ["audit", "--json", "--store", endpoint])
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)["reports"][1]


def test_complete_store_has_no_findings(victoria_logs, spool):
    report = audited(victoria_logs, spool, chains.read_chain(spool)[1])
    assert (report["found"], report["findings"]) == (chains.LINES, [])


@pytest.mark.parametrize("name", chains.TAMPERINGS)
def test_every_tampering_is_found(victoria_logs, spool, name):
    tamper, expected = chains.TAMPERINGS[name]
    report = audited(victoria_logs, spool, tamper(list(chains.read_chain(spool)[1])))
    assert {(finding["code"], finding["first"]) for finding in report["findings"]} == expected


def test_resend_sends_missing_lines(victoria_logs, spool, monkeypatch):
    lines = chains.read_chain(spool)[1]
    report = audited(
        victoria_logs, spool, [line for line in lines if json.loads(line.text)["seq"] not in (3, 4, 9, 18)]
    )
    commands = [finding["remedy"] for finding in report["findings"]]
    assert commands == ["egress resend 3-4", "egress resend 9", "egress resend 18"]
    monkeypatch.setenv("EGRESS_HEALTH_PORT", "1")
    with Spool(spool, sync_seconds=0.01) as opened:
        exporter = Exporter(opened, Endpoint(victoria_logs), environ={})
        exporter.start()
        for command in commands:
            result = CliRunner().invoke(app, command.split()[1:])
            assert result.exit_code == 0, result.output
        wait_until(lambda: opened.stats()["acknowledged_records"] == chains.LINES + len(commands), "nothing was sent")
        exporter.stop(0.2)
    wait_until(lambda: not audit(victoria_logs)["findings"], "the lines did not become visible")
    report = audit(victoria_logs)
    assert (report["found"], report["duplicates"], report["explained"]) == (chains.LINES + len(commands), 0, {})
