"""Tests of `egress delete`: no deleted content stays on disk, and the audit proves that no other line is gone."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime

import pytest
from typer.testing import CliRunner

from openclaw_egress.cli import dead_letters
from openclaw_egress.cli.app import app
from openclaw_egress.export.exporter import Exporter
from openclaw_egress.recording.records import DeniedRecord
from openclaw_egress.signatures import Signer
from openclaw_egress.spool.commands import Action, Command, submit
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.schema import SpoolError, connect_read_only
from openclaw_egress.spool.writer import Spool
from tests.support import tampered_chains as chains
from tests.support.otlp_push import push_lines
from tests.support.proxy_process import ADDON

STONE_FIELDS = ("seq", "time_ns", "lines", "count", "digest", "why", "signature")
WIDE = ("--since", "1d", "--until", "2099-01-01T00:00")


@pytest.fixture
def path(stopped):
    """Return a spool of 18 acknowledged lines with signed checkpoints. All exchanges are of class `gateway`."""
    chains.write_chain(stopped / "spool.db", signed=True)
    return stopped / "spool.db"


@contextmanager
def proxy(path, monkeypatch, **options):
    """Run the spool's flush thread, which runs operator commands."""
    monkeypatch.setattr(dead_letters, "WAIT_SECONDS_STOPPED", 30)
    with Spool(path, sync_seconds=0.01, signer=Signer.in_directory(path.parent), **options) as spool:
        yield spool


def egress(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def deleted(*words) -> dict:
    result = egress("delete", "--why", "erasure request 7", "--json", *words)
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def audit(*words) -> list[dict]:
    result = egress("audit", "--json", *words)
    assert result.exit_code in (0, 1), (result.output, result.exception)
    return json.loads(result.stdout)["reports"]


def codes(reports) -> list[set[tuple[str, int]]]:
    return [{(one["code"], one["first"]) for one in report["findings"]} for report in reports]


def on_disk(path, text: bytes) -> list[str]:
    """Return the names of the files in the state directory that contain ``text``."""
    return [file.name for file in path.parent.iterdir() if file.is_file() and text in file.read_bytes()]


# ── deleted content ──────────────────────────────────────────────────────────────────────────────────────────────


def test_without_yes_nothing_changes(path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://10.0.0.2:3100/otlp/v1/logs")
    before = path.read_bytes()
    result = egress("delete", *WIDE, "--why", "test")
    assert result.exit_code == 0, result.output
    assert "13 records, 16 lines" in result.stdout and "nothing was deleted: add --yes" in result.stdout
    assert "curl -G -X POST http://10.0.0.2:3100/loki/api/v1/delete --data-urlencode 'query={" in result.stdout
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.command.*"))


def test_deleted_content_is_in_no_file_and_the_chain_is_valid(path, monkeypatch):
    assert on_disk(path, b"early-3") and on_disk(path, b"x" * 1000)
    with SpoolReader(path) as reader:
        ledger = list(reader.ledger(1, 18))
    with proxy(path, monkeypatch):
        done = deleted(*WIDE, "--yes", "--by", "ada")
        assert (done["state"], done["records"], done["lines"], done["changed"]) == ("done", 13, 16, 16)
        for text in (b"early-3", b"late-2", b"x" * 1000, b"/v1/messages"):
            assert on_disk(path, text) == [], text
        (report,) = audit("--store", "none")
    assert report["findings"] == [] and report["explained"] == {"deleted": 16}
    with SpoolReader(path) as reader:
        assert [row[:3] for row in reader.ledger(1, 18)] == [row[:3] for row in ledger]
        (event,) = reader.query(Filters(event_names=["openclaw.egress.spool"]))
        (stone,) = reader.tombstones()
    assert (event.outcome, event.seq) == ("deleted", stone.seq)
    assert event.reason.startswith("ada (uid ") and event.reason.endswith("erasure request 7")
    assert (stone.lines, stone.count) == ("1-10,12-17", 16)
    # An audit of a range also accepts a deletion if the line that records it comes after the range.
    assert audit("--store", "none", "--until", "2099-01-01T00:00")[0]["findings"] == []


def test_exported_file_can_be_audited_without_a_ledger(path, monkeypatch, tmp_path):
    with proxy(path, monkeypatch) as spool:
        deleted(*WIDE, "--yes")
        spool.checkpoint()
        key = Signer.in_directory(path.parent).public
    file = tmp_path / "records.jsonl"
    assert egress("export", "-o", file).exit_code == 0
    (report,) = audit("--file", file, "--key", key)
    # The file begins at line 11, so the deletion of lines 1 to 10 is outside the audited range.
    assert report["findings"] == [] and report["explained"] == {"deleted": 6}
    file.write_text(file.read_text().replace("12-17", "12-16"))
    assert {code for code, _ in codes(audit("--file", file, "--key", key))[0]} >= {"signature", "missing"}


def test_deletion_by_class_keeps_the_other_classes(path, monkeypatch):
    with proxy(path, monkeypatch, local=True) as spool:
        denied = {"host": "x.example", "port": 443, "rule": "default", "reason": "no rule lets it", "code": "no_rule"}
        spool.add(DeniedRecord(class_name="sandbox", **denied))
        done = deleted(*WIDE, "--class", "sandbox", "--yes")
        assert (done["records"], done["changed"], done["states"]) == (1, 1, {"local": 1})
    assert on_disk(path, b"x.example") == [] and on_disk(path, b"early-3")
    assert audit()[0]["findings"] == []


def test_period_is_half_open_and_in_whole_seconds(path, monkeypatch):
    with SpoolReader(path) as reader:
        times = [row.time_ns for row in reader.query(Filters())]
    later = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(times[-1] // 10**9 + 1))
    assert egress("delete", "--since", later, "--until", "2099-01-01T00:00", "--why", "x").exit_code == 1
    assert egress("delete", "--since", "1d", "--until", later, "--why", "x").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--since", "1d"), "specify a period with --since and --until"),
        (("--since", "1d", "--until", "2d"), "--since is not before --until"),
        (("--session", "early-1", "--since", "1d"), "--session excludes"),
        ((), "specify a period"),
        ((*WIDE, "--why", " "), "--why is empty"),
        (("--session", ""), "--session is empty"),
    ],
)
def test_incomplete_selection_changes_nothing(path, words, message):
    result = egress("delete", "--why", "x", *words, "--yes")
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert egress("delete", *WIDE).exit_code == 2, "a deletion needs a reason"


def test_session_is_deleted_and_other_exchanges_stay(path, monkeypatch):
    with proxy(path, monkeypatch, local=True) as spool:
        for number in range(3):
            headers = [("traceparent", f"00-{'ab' * 16}-{number:016x}-01")]
            spool.close_exchange(replace(chains.exchange(f"turn-{number}"), request_headers=headers))
            spool.close_exchange(chains.exchange(f"other-{number}"))
        done = deleted("--session", "turn-1", "--yes")
    assert (done["records"], done["state"]) == (3, "done")
    assert 'openclaw_egress_exchange_id=~"turn-0|turn-1|turn-2"' in done["loki"][0]["query"]
    assert on_disk(path, b"turn-") == [] and on_disk(path, b"other-1")
    assert audit()[0]["findings"] == []


def test_show_prints_time_and_reason_of_deleted_records(path, monkeypatch):
    with proxy(path, monkeypatch):
        deleted(*WIDE, "--yes")
    result = egress("show", "early-3")
    assert result.exit_code == 1
    assert "16 lines (1-10,12-17) were deleted on " in result.stderr and "erasure request 7" in result.stderr


def test_totals_keep_counting_deleted_exchanges_also_after_a_rebuild(path, monkeypatch):
    before = egress("usage", "--json").stdout
    assert '"requests": 13' in before
    with proxy(path, monkeypatch):
        deleted(*WIDE, "--yes")
    assert egress("usage", "--json").stdout == before
    result = egress("usage", "--rebuild", "--json")
    assert result.exit_code == 0 and result.stdout == before


def test_retention_works_after_a_deletion(path, monkeypatch):
    with proxy(path, monkeypatch):
        deleted(*WIDE, "--yes")
    with Spool(path, 1, sync_seconds=None, signer=Signer.in_directory(path.parent)) as spool:
        spool.acknowledge(range(1, 30))
        spool.checkpoint()
    assert audit()[0]["findings"] == []


# ── the destination ──────────────────────────────────────────────────────────────────────────────────────────────


def fill(path, loki, *absent: int) -> None:
    with SpoolReader(path) as reader:
        instance = reader.instance_id
    lines = [line for line in chains.read_chain(path)[1] if json.loads(line.text)["seq"] not in absent]
    push_lines(f"{loki.url}/otlp/v1/logs", instance, lines)


def test_audit_accepts_deleted_lines_at_the_destination_and_only_those(path, loki, monkeypatch):
    store = ("--store", f"{loki.url}/otlp/v1/logs")
    fill(path, loki, *range(1, 11), 13)
    assert codes(audit(*store)) == [set(), {("missing", 1), ("missing", 13)}]
    with proxy(path, monkeypatch):
        # Delete lines 1 to 10. The command skips line 11, because it is a checkpoint.
        submit(path, Command(Action.DELETE, ((1, 11),), "ada: test"))
        until(lambda: not list(path.parent.glob("*.command.*")))
    reports = audit(*store)
    assert codes(reports) == [set(), {("missing", 13)}], reports
    assert reports[1]["explained"]["deleted"] == 10 and reports[1]["left"] == 0


def test_audit_counts_deleted_lines_that_the_destination_still_has(path, loki, monkeypatch):
    fill(path, loki)
    with proxy(path, monkeypatch):
        deleted(*WIDE, "--yes")
    reports = audit("--store", f"{loki.url}/otlp/v1/logs")
    assert codes(reports) == [set(), set()] and reports[1]["left"] == 16
    result = egress("audit", "--store", f"{loki.url}/otlp/v1/logs")
    assert "16 lines that an operator deleted from the spool are still at the destination" in result.stdout


def test_tombstone_without_a_valid_signature_explains_no_gap(path, loki):
    fill(path, loki, *range(12, 18))
    with Spool(path, sync_seconds=None) as spool:  # no signer: the tombstone is unsigned
        submit(path, Command(Action.DELETE, ((12, 17),), "eve: test"))
        spool.run_commands()
    reports = audit("--store", f"{loki.url}/otlp/v1/logs")
    assert codes(reports) == [{("signature", 19), ("missing", 12)}, {("missing", 12)}]


def test_tombstone_of_another_chain_with_the_same_key_explains_no_gap(path):
    """Expect the audit to reject a tombstone for lines of another chain, although the same key signed both chains.

    Two chains have the same key if the key file was copied, for example from a backup of the directory.
    """
    (other := path.parent / "other").mkdir()
    for name in ("signing-key.pem", "signing-key.pub"):
        (other / name).write_bytes((path.parent / name).read_bytes())
    with Spool(other / "spool.db", sync_seconds=None, signer=Signer.in_directory(other)) as spool:
        for number in range(18):
            spool.close_exchange(chains.exchange(f"other-{number}"))
        submit(other / "spool.db", Command(Action.DELETE, ((12, 17),), "eve: test"))
        spool.run_commands()
    with closing(connect_read_only(other / "spool.db")) as db:
        stones = db.execute("SELECT key, value FROM meta WHERE key GLOB 'deleted_*'").fetchall()
    assert len(stones) == 1
    with closing(sqlite3.connect(path)) as db:
        db.executemany("INSERT INTO meta VALUES (?, ?)", stones)
        db.execute("DELETE FROM records WHERE seq BETWEEN 12 AND 17")
        db.commit()
    (report,) = audit("--store", "none")
    assert codes([report]) == [{("missing", 12)}]


def test_forged_tombstone_at_the_destination_explains_no_gap(path, loki):
    with SpoolReader(path) as reader:
        instance, head = reader.instance_id, reader.head()
    fill(path, loki, 3)
    fields = {
        "seq": 19,
        "prev": head[1],
        "openclaw.egress.outcome": "deleted",
        "openclaw.egress.spool.deleted": "3",
        "openclaw.egress.spool.last_hash": "ab" * 32,
    }
    push_lines(f"{loki.url}/otlp/v1/logs", instance, [(time.time_ns(), json.dumps(fields, separators=(",", ":")))])
    assert codes(audit("--store", f"{loki.url}/otlp/v1/logs"))[1] == {("missing", 3), ("foreign", 19)}


def test_waiting_lines_are_deleted_and_never_sent(path, loki, monkeypatch):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE records SET state = 0")
    with proxy(path, monkeypatch) as spool:
        assert deleted(*WIDE, "--yes")["states"] == {"pending": 16}
        endpoint = f"{loki.url}/otlp/v1/logs"
        exporter = Exporter(spool, type("Endpoint", (), {"logs_endpoint": endpoint}), environ={}, jitter=lambda: 0.001)
        exporter.start()
        until(lambda: not spool.stats()["pending_records"])
        exporter.stop(0.2)
    assert len(loki.lines()) == 3 and not any("early" in line for line in loki.lines())
    reports = audit("--store", endpoint)
    assert codes(reports) == [set(), set()], reports


def test_printed_request_selects_exactly_the_deleted_lines(path, loki, monkeypatch):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE records SET state = 0")
    endpoint = f"{loki.url}/otlp/v1/logs"
    with proxy(path, monkeypatch) as spool:
        exporter = Exporter(spool, type("Endpoint", (), {"logs_endpoint": endpoint}), environ={}, jitter=lambda: 0.001)
        exporter.start()
        until(lambda: not spool.stats()["pending_records"])
        exporter.stop(0.2)
    (request,) = deleted(*WIDE, "--class", "gateway")["loki"]
    with SpoolReader(path) as reader:
        times = [row.time_ns for row in reader.query(Filters(event_names=["openclaw.egress.exchange"]))]
    first, last = (datetime.fromisoformat(request[name]).timestamp() for name in ("start", "end"))
    # Loki refuses a deletion request whose end is in the future or whose period is shorter than one second.
    assert first <= times[0] / 1e9 and times[-1] / 1e9 <= last < time.time() + 1 and last - first >= 1
    query = urllib.parse.urlencode(request | {"limit": 1000, "end": f"{time.time_ns()}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"{loki.url}/loki/api/v1/query_range?{query}"
    ) as response:
        streams = json.load(response)["data"]["result"]
    found = sorted(json.loads(value[1])["seq"] for stream in streams for value in stream["values"])
    assert found == [*range(1, 11), *range(12, 18)]


# ── deletion during other work ───────────────────────────────────────────────────────────────────────────────────


def until(true) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "the condition did not become true within 30 s"
        time.sleep(0.01)


def test_deletion_is_finished_only_after_the_last_reader_releases_the_wal(path, monkeypatch):
    monkeypatch.setattr(dead_letters, "WAIT_SECONDS", 0.5)
    with proxy(path, monkeypatch), closing(connect_read_only(path)) as reading:
        monkeypatch.setattr(dead_letters, "WAIT_SECONDS_STOPPED", 0.5)
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM records").fetchone()
        assert deleted(*WIDE, "--yes")["state"] == "kept"
        reading.execute("ROLLBACK")
        until(lambda: not list(path.parent.glob("*.command.*")))
        assert on_disk(path, b"early-3") == []


KILL = """
import os, signal, sys
from pathlib import Path
from openclaw_egress.signatures import Signer
from openclaw_egress.spool import commands
from openclaw_egress.spool.writer import Spool
path, name, when, calls = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
commands._DELETED_LINES = 3
original = getattr(commands.CommandQueue, name)
def killed(*arguments):
    global calls
    calls -= 1
    if calls < 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments)
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(commands.CommandQueue, name, killed)
Spool(path, sync_seconds=None, signer=Signer.in_directory(path.parent)).run_commands()
"""


@pytest.mark.parametrize(
    ("step", "when", "calls"),
    [
        ("_step", "after", 0),
        ("_step", "after", 2),
        ("_change", "after", 1),
        ("_clear_log", "before", 0),
        ("_clear_log", "after", 0),
        ("_finish", "after", 0),
    ],
)
def test_deletion_killed_at_any_step_is_completed_once(path, step, when, calls):
    submit(path, Command(Action.DELETE, ((1, 18),), "ada: test"))
    words = [sys.executable, "-c", KILL, str(path), step, when, str(calls)]
    environment = os.environ | {"PYTHONPATH": str(ADDON)}
    result = subprocess.run(words, check=False, env=environment, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert audit("--store", "none")[0]["findings"] == []
    with Spool(path, sync_seconds=None, signer=Signer.in_directory(path.parent)) as spool:
        spool.run_commands()
        assert list(path.parent.glob("*.command.*")) == []
        assert on_disk(path, b"early-3") == [] and on_disk(path, b"late-5") == []
    with SpoolReader(path) as reader:
        assert sum(stone.count for stone in reader.tombstones()) == 16
    (report,) = audit("--store", "none")
    assert report["findings"] == [] and report["explained"] == {"deleted": 16}


def test_command_file_cannot_delete_the_proofs(path, monkeypatch):
    with proxy(path, monkeypatch):
        submit(path, Command(Action.DELETE, ((1, 10**6),), "eve: test"))
        until(lambda: not list(path.parent.glob("*.command.*")))
    with SpoolReader(path) as reader:
        stored = {row.event_name for row in reader.query(Filters())}
    assert stored == {"openclaw.egress.checkpoint", "openclaw.egress.spool"}


def test_command_file_with_repeated_lines_changes_nothing(path, monkeypatch):
    for number, runs in enumerate((((3, 4), (3, 4)), ((3, 4), (1, 2)), ((9, 5),))):
        submit(path, Command(Action.DELETE, runs, "eve: test", f"{number}-wrong"))
    with proxy(path, monkeypatch) as spool:
        spool.run_commands()
    with SpoolReader(path) as reader:
        assert reader.head()[0] == 18 and reader.tombstones() == []


@pytest.mark.parametrize("value", ["{", "[]", "{}", json.dumps(dict.fromkeys(STONE_FIELDS))])
def test_damaged_tombstone_ends_the_audit_with_a_remedy(path, value):
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO meta VALUES ('deleted_18', ?)", (value,))
        db.commit()
    for words in (("audit", "--store", "none"), ("show", "absent")):
        result = egress(*words)
        assert isinstance(result.exception, SpoolError) and "deleted_18" in str(result.exception), result.output


def test_audit_reports_that_the_signature_of_a_deletion_was_not_checked(path, monkeypatch):
    with proxy(path, monkeypatch):
        deleted(*WIDE, "--yes")
    (path.parent / "signing-key.pub").unlink()
    assert "signatures of the deletions were not checked" in egress("audit", "--store", "none").stdout
