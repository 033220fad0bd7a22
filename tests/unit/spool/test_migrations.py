"""Tests of spools of other versions. Older ones are migrated with their records; newer or damaged ones are refused."""

import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openclaw_egress.cli.app import app
from openclaw_egress.export.exporter import Exporter
from openclaw_egress.policy.codes import Code
from openclaw_egress.recording.records import DeniedRecord
from openclaw_egress.spool.migrations import migrate
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.schema import COLUMNS, USER_VERSION, user_version
from openclaw_egress.spool.writer import Spool, SpoolError
from tests.support.egress_command import run_egress
from tests.support.loki import FakeLoki

ADDON = Path(__file__).parents[3] / "files" / "addon"
FIXTURE = Path(__file__).parent / "fixtures" / "spool-2026-11-27.db"
DENIALS = [
    # The expected values of each denial: host, code, address, enforced, summary, count.
    ("8.8.8.8", Code.LITERAL_WITHOUT_RULE, None, True, False, 1),
    ("intra.example", Code.ADDRESS_GUARDED, "10.1.2.3", True, False, 1),
    ("git.example", Code.NOT_TLS, None, True, False, 1),
    ("me.example", Code.OWN_ADDRESS, "192.0.2.7", True, False, 1),
    ("reported.example", Code.NO_RULE, None, False, False, 1),
    ("reported.example", "", None, False, True, 41),
    ("*", Code.VARIOUS, None, True, True, 7),
]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a state directory with the spool of 2026-11-27."""
    shutil.copy(FIXTURE, tmp_path / "spool.db")
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("EGRESS_HEALTH_PORT", "1")
    return tmp_path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def denials(reader: SpoolReader) -> list[tuple]:
    return [
        (found.host, found.code, found.address, found.enforced, found.summary, found.count)
        for found in reader.denials(Filters())
    ]


def test_the_old_spool_is_read_without_being_changed(state):
    before = (state / "spool.db").read_bytes()
    with SpoolReader(state / "spool.db") as reader:
        assert denials(reader) == DENIALS
        assert not reader.audit().problems
    assert (state / "spool.db").read_bytes() == before


def filtered(reader: SpoolReader, **filters: object) -> list[tuple]:
    rows = reader.query(Filters(event_names=["openclaw.egress.denied"], **filters))
    return [(row.host, row.code, row.outcome) for row in rows]


@pytest.mark.parametrize("how", ["not migrated", "written after a downgrade", "migrated"])
def test_filters_find_the_denials_of_an_older_version(state, how):
    if how != "not migrated":
        Spool(state / "spool.db", sync_seconds=None).close()
    if how == "written after a downgrade":
        empty = "client = NULL, code = NULL, address = NULL, enforced = NULL, summary = NULL, outcome = NULL"
        change(state / "spool.db", f"UPDATE records SET {empty} WHERE event_name = 'openclaw.egress.denied'")
    with SpoolReader(state / "spool.db") as reader:
        every = filtered(reader)
        assert {"denied", "reported"} == {outcome for _, _, outcome in every}
        for wanted in ("denied", "reported"):
            assert filtered(reader, outcome=wanted) == [row for row in every if row[2] == wanted]
        for code in {code for _, code, _ in every if code}:
            assert filtered(reader, code=code) == [row for row in every if row[1] == code]
        # The limit counts matching records, not searched records.
        assert filtered(reader, code=Code.LITERAL_WITHOUT_RULE, limit=1)[0][0] == "8.8.8.8"


def test_old_spool_is_migrated_and_accepts_new_records(state):
    path = state / "spool.db"
    with Spool(path, sync_seconds=None) as spool:
        assert user_version(spool._storage.db) == USER_VERSION
        assert denials(spool.reader) == DENIALS
        assert spool.recover() == 1
        spool.add(DeniedRecord(class_name="a", host="b.example", port=1, rule="default", code="no_rule", reason="why"))
        exchanges = spool.reader.query(Filters(event_names=["openclaw.egress.exchange"]))
        outcomes = {row.id: row.outcome for row in exchanges}
        assert outcomes == {"0190-ok": "complete", "0190-error": "upstream_error", "0190-interrupted": "interrupted"}
        assert not spool.reader.audit().problems
        assert denials(spool.reader)[-1][:2] == ("b.example", "no_rule")
    with closing(sqlite3.connect(path)) as db:
        stored = db.execute("SELECT host, code, enforced FROM records WHERE event_name LIKE '%denied' ORDER BY seq")
        assert stored.fetchall()[4] == ("reported.example", "no_rule", 0)


def test_spool_of_the_version_before_gets_the_column_for_the_gateway_instance(tmp_path):
    path = tmp_path / "spool.db"
    denied = {"class_name": "a", "host": "b.example", "port": 1, "rule": "default", "code": "no_rule", "reason": "why"}
    with Spool(path, sync_seconds=None, local=True) as spool:
        spool.add(DeniedRecord(**denied))
    change(path, "ALTER TABLE records DROP COLUMN instance")
    change(path, "PRAGMA user_version = 2")
    with SpoolReader(path) as reader:
        assert [row.instance for row in reader.query()] == [None]
        assert not list(reader.query(Filters(instance="gw-a")))
    with Spool(path, sync_seconds=None, local=True) as spool:
        spool.add(DeniedRecord(**denied, instance="gw-a"))
        assert [row.instance for row in spool.reader.query()] == [None, "gw-a"]
        assert not spool.reader.audit().problems


def test_interrupted_exchange_names_the_gateway_instance(tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.open_exchange("0190", "gateway-b", {"instance": "gw-b", "host": "a.example"})
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        assert spool.recover() == 1
        assert [(row.outcome, row.instance) for row in spool.reader.query()] == [("interrupted", "gw-b")]


def test_every_line_of_the_old_spool_is_exported(state):
    def clock() -> int:
        # 2026-11-27T13:00:00Z, shortly after the spool's newest line, because Loki refuses lines older than a week
        return 1_795_784_400_000_000_000

    with (
        Spool(state / "spool.db", sync_seconds=None, clock_ns=clock) as spool,
        FakeLoki(now_ns=clock) as loki,
    ):
        spool.recover()
        lines = dict(spool.reader.lines())
        exporter = Exporter(spool, Endpoint(f"{loki.url}/otlp/v1/logs"), environ={})
        exporter.start()
        try:
            deadline = time.monotonic() + 30
            while spool.stats()["pending_records"] and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            exporter.stop(1)
        assert spool.stats()["acknowledged_records"] == len(lines) == 12
        assert sorted(loki.lines()) == sorted(lines.values())


class Endpoint:
    def __init__(self, url: str) -> None:
        self.logs_endpoint = url


@pytest.mark.parametrize("migrated", [False, True])
def test_the_commands_read_the_old_spool(state, migrated):
    if migrated:
        Spool(state / "spool.db", sync_seconds=None).close()

    def egress(*words: str) -> list[dict]:
        done = CliRunner().invoke(app, [*words, "--json"])
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    groups = {group["destination"]: group for group in egress("denials", "--since", "2026-11-01")}
    assert groups["git.example:22"]["allow"][0]["text"] == "{host: git.example, ports: [22], tls: false}"
    assert groups["intra.example:443"]["allow"][0]["rule"]["cidr"] == "10.1.2.3/32"
    assert not groups["me.example:443"]["allow"]
    assert (groups["reported.example:443"]["reported"], groups["reported.example:443"]["enforced"]) == (42, 0)
    assert [row["outcome"] for row in egress("records", "--event", "denied")].count("reported") == 2
    assert egress("show", "0190-ok")[0]["exchange"]["response"]["body"] == '{"id": "msg_1"}'


@pytest.mark.parametrize(
    "damage",
    ["otlp = x'00ff'", "otlp = 'text'", "otlp = x''", "reason = x'ff00'", "rule = x'ff00'", "rule = 7, reason = NULL"],
)
def test_one_damaged_denial_does_not_stop_readers_and_migration(state, damage):
    path = state / "spool.db"
    change(
        path, f"UPDATE records SET {damage} WHERE seq = (SELECT max(seq) FROM records WHERE event_name LIKE '%denied')"
    )
    with SpoolReader(path) as reader:
        assert len(denials(reader)) == len(DENIALS)
    with Spool(path, sync_seconds=None) as spool:
        assert user_version(spool._storage.db) == USER_VERSION
        assert len(denials(spool.reader)) == len(DENIALS)
        assert denials(spool.reader)[0] == DENIALS[0]
        assert bool(spool.reader.audit().problems) == damage.startswith("otlp")


def test_a_migration_that_fails_changes_nothing(state, monkeypatch):
    path = state / "spool.db"
    before = FIXTURE.read_bytes()

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("openclaw_egress.spool.migrations.create", fail)
    with pytest.raises(SpoolError, match="disk I/O error"):
        Spool(path, sync_seconds=None)
    monkeypatch.undo()
    with closing(sqlite3.connect(path)) as db:
        assert user_version(db) == 0
        assert "code" not in [row[1] for row in db.execute("PRAGMA table_info(records)")]
    assert FIXTURE.read_bytes() == before
    Spool(path, sync_seconds=None).close()


def test_a_new_file_has_every_column_and_a_second_migration_changes_nothing(tmp_path):
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        migrate(db, tmp_path / "new.db")
        assert {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in COLUMNS} == COLUMNS
        changes = db.total_changes
        migrate(db, tmp_path / "new.db")
        assert db.total_changes == changes


def test_a_newer_spool_is_refused_with_one_message_and_code_2(state):
    change(state / "spool.db", f"PRAGMA user_version = {USER_VERSION + 1}")
    for opener in (Spool, SpoolReader):
        with pytest.raises(SpoolError) as refused:
            opener(state / "spool.db")
        assert str(refused.value) == (
            f"spool {state / 'spool.db'}: its schema is version {USER_VERSION + 1}, this program supports up to "
            f"{USER_VERSION}; run the version that wrote it, or a newer one"
        )
    done = run_egress("records", environment=os.environ)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "run the version that wrote it" in done.stderr


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *(("records", name) for name in ("url", "code", "summary", "client", "why", "first_chunk")),
        *(("ledger", name) for name in ("hash", "time_ns")),
        ("exchanges", "head"),
        ("chunks", "data"),
    ],
)
def test_a_spool_that_lacks_a_column_is_refused_before_the_first_write(tmp_path, table, column):
    path = tmp_path / "spool.db"
    Spool(path, sync_seconds=None).close()
    change(path, f"ALTER TABLE {table} DROP COLUMN {column}")
    for opener in (Spool, SpoolReader):
        with pytest.raises(SpoolError, match=f"table {table} lacks the column {column}; move it aside"):
            opener(path)


def test_a_spool_that_lacks_a_table_is_refused_by_a_reader(tmp_path):
    Spool(tmp_path / "spool.db", sync_seconds=None).close()
    change(tmp_path / "spool.db", "DROP TABLE chunks")
    with pytest.raises(SpoolError, match="table chunks is missing"):
        SpoolReader(tmp_path / "spool.db")
