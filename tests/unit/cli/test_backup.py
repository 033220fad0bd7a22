"""Tests of `egress backup` and `egress restore`. They restore each backup and audit it against the Loki fake."""

import json
import os
import re
import resource
import shlex
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openclaw_egress import certificates
from openclaw_egress.cli.app import app
from openclaw_egress.errors import EgressError
from openclaw_egress.export.exporter import Exporter
from openclaw_egress.signatures import KEY_FILE, PUBLIC_FILE, Signer, deletion_text
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.schema import SpoolError
from openclaw_egress.spool.writer import Spool
from tests.support import tampered_chains as chains
from tests.support.otlp_push import push_lines
from tests.support.proxy_process import ADDON


class Endpoint:
    def __init__(self, url):
        self.logs_endpoint = f"{url}/otlp/v1/logs"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return the path of a spool with the signed chain of `tampered_chains`. All its lines are pending."""
    state = tmp_path / "state"
    chains.write_chain(state / "spool.db", signed=True)
    with closing(sqlite3.connect(state / "spool.db", isolation_level=None)) as db:
        db.execute("UPDATE records SET state = 0")
    use(state, monkeypatch)
    return state / "spool.db"


def use(state: Path, monkeypatch) -> Path:
    monkeypatch.setenv("EGRESS_STATE_DIR", str(state))
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", raising=False)
    return state / "spool.db"


def egress(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def done(*words) -> dict:
    result = egress(*words, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def refused(*words) -> str:
    result = egress(*words)
    assert result.exit_code != 0
    assert isinstance(result.exception, EgressError), (result.output, result.exception)
    return str(result.exception)


def send(path, loki, more=()) -> None:
    """Record more exchanges in the spool, write a checkpoint, and send all pending lines to Loki."""
    with Spool(path, sync_seconds=None, signer=Signer.in_directory(path.parent)) as spool:
        for name in more:
            spool.close_exchange(chains.exchange(name))
        spool.checkpoint()
        exporter = Exporter(spool, Endpoint(loki.url), environ={}, jitter=lambda: 0.001)
        exporter.start()
        deadline = time.monotonic() + 30
        while spool.stats()["pending_records"]:
            assert time.monotonic() < deadline, "not sent"
            time.sleep(0.01)
        exporter.stop(0.2)


def audit(loki, *words) -> list[dict]:
    result = egress("audit", "--store", f"{loki.url}/otlp/v1/logs", *words, "--json")
    assert result.exit_code in (0, 1), (result.output, result.exception)
    return json.loads(result.stdout)["reports"]


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def findings(reports) -> list[list[tuple[str, int]]]:
    return [[(one["code"], one["first"]) for one in report["findings"]] for report in reports]


# ── backup ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_backup_is_a_private_file_without_private_keys(path, tmp_path):
    file = tmp_path / "one.backup"
    made = done("backup", file)
    assert (made["last_seq"], made["files"]) == (chains.LINES, [PUBLIC_FILE])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"PRIVATE KEY" not in file.read_bytes()
    assert names(tmp_path) == ["one.backup", "state"]


def test_backup_with_keys_contains_and_restores_signing_key_and_ca(path, tmp_path, monkeypatch):
    certificates.create(path.parent / "ca", path.parent / "root", ("api.example.com",))
    made = done("backup", tmp_path / "keys.backup", "--with-keys")
    state = tmp_path / "other"
    use(state, monkeypatch)
    restored = done("restore", tmp_path / "keys.backup")
    assert restored["files"] == made["files"]
    for name in made["files"]:
        before, after = path.parent / name, state / name
        assert before.read_bytes() == after.read_bytes(), name
        assert stat.S_IMODE(before.stat().st_mode) == stat.S_IMODE(after.stat().st_mode), name
    assert len(made["files"]) == 5
    assert certificates.show(state / "ca").root_expires


def test_backup_replaces_no_file_and_follows_no_link(path, tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("precious")
    link.symlink_to(victim)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "elsewhere")
    for target in (victim, link, dangling):
        assert "exists already" in refused("backup", target)
    assert victim.read_text() == "precious" and not (tmp_path / "elsewhere").exists()
    assert f"create the directory {tmp_path / 'absent'}" in refused("backup", tmp_path / "absent" / "file")
    assert "is a directory: use a new file" in refused("backup", "")
    assert "standard output" in refused("backup", "-")


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_lock_file_of_a_command_of_root_belongs_to_the_owner_of_the_directory(path):
    Path(f"{path}.lock").unlink()
    os.chown(path.parent, 1234, 1235)
    done("usage", "--rebuild")
    owner = Path(f"{path}.lock").stat()
    assert (owner.st_uid, owner.st_gid) == (1234, 1235)


def test_lock_file_is_not_a_link(path, tmp_path):
    (victim := tmp_path / "victim").write_text("precious")
    lock = Path(f"{path}.lock")
    lock.unlink()
    lock.symlink_to(victim)
    assert "cannot be written" in refused("usage", "--rebuild")
    assert victim.read_text() == "precious"


def test_backup_while_the_proxy_writes_has_a_whole_chain(path, tmp_path, monkeypatch):
    stop = threading.Event()
    with Spool(path, sync_seconds=0.01) as spool:
        spool.open_exchange("in-progress", "gateway", {}, [b"secret of an exchange in progress"])

        def write():
            while not stop.is_set():
                spool.close_exchange(chains.exchange(f"busy-{time.monotonic_ns()}", 50_000))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            made = [done("backup", tmp_path / f"{number}.backup") for number in range(3)]
        finally:
            stop.set()
            writer.join()
    assert made[0]["last_seq"] < made[1]["last_seq"] < made[2]["last_seq"]
    assert {one["open_exchanges"] for one in made} == {1}
    for number in range(3):
        assert b"exchange in progress" not in (tmp_path / f"{number}.backup").read_bytes()
        use(tmp_path / str(number), monkeypatch)
        assert done("restore", tmp_path / f"{number}.backup")["last_seq"] == made[number]["last_seq"]
        assert egress("audit").exit_code == 0


def test_next_backup_deletes_the_unfinished_file_of_a_killed_one(path, tmp_path):
    file = tmp_path / "one.backup"
    killed_in("_complete", "before", "backup", str(file))
    assert not file.exists() and len(left := list(tmp_path.glob(".one.backup.*"))) == 1
    assert stat.S_IMODE(left[0].stat().st_mode) == 0o600
    done("backup", file)
    assert list(tmp_path.glob(".one.backup.*")) == []


def test_failed_backup_on_a_full_disk_is_deleted(path):
    target = path.parent.parent / "too-large.backup"
    words = [sys.executable, "-m", "openclaw_egress", "backup", str(target)]
    limit = 100_000
    # Simulate a full disk: the kernel refuses to write a file beyond this size.
    result = subprocess.run(
        words,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ADDON)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert str(target) in result.stderr
    assert names(target.parent) == ["state"]


# ── restore ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_restored_instance_is_clean_and_continues_the_chain(path, tmp_path, loki, monkeypatch):
    send(path, loki)
    done("backup", tmp_path / "one.backup")
    state = tmp_path / "other-host"
    copy = use(state, monkeypatch)
    restored = done("restore", tmp_path / "one.backup", "--why", "move to another host", "--by", "ada")
    assert restored["previous_instance"] != restored["instance"] and restored["aside"] is None
    send(copy, loki, ["after-restore"])
    reports = audit(loki)
    assert findings(reports) == [[], []]
    assert [one["seq"] for one in reports[0]["restored"]] == [chains.LINES + 1]
    # The checkpoints before and after the restoration are signed with different keys. Both signatures are valid.
    assert reports[0]["signed_seq"] == reports[0]["last_seq"] - 1
    assert (path.parent / PUBLIC_FILE).read_text() != (state / PUBLIC_FILE).read_text()
    with SpoolReader(copy) as reader:
        (event,) = reader.query(Filters(event_names=["openclaw.egress.spool"]))
    assert (event.outcome, event.seq) == ("restored", chains.LINES + 2)
    assert event.reason.startswith("ada (uid ") and event.reason.endswith("move to another host")
    assert "restored from a backup after line 19" in egress("audit").stdout


def test_lines_after_the_backup_are_reported_and_do_not_count_as_forged(path, tmp_path, loki, monkeypatch):
    send(path, loki)
    done("backup", tmp_path / "one.backup")
    send(path, loki, ["lost-1", "lost-2"])
    done("restore", tmp_path / "one.backup", "--replace")
    send(path, loki, ["new-1", "new-2", "new-3"])
    reports = audit(loki)
    assert findings(reports) == [[], [], []], reports
    assert "wrote after the backup" in reports[2]["source"]
    # The four lines are the newest line of the backup, two exchanges, and a signed checkpoint.
    assert (reports[2]["found"], reports[2]["last_seq"], reports[2]["signed_seq"]) == (4, 22, 21)
    assert len(set(loki.lines())) == len(loki.lines()), "a line was sent twice"
    assert [f for f in findings(audit(loki, "--since", "2099-01-01T00:00")) if f] == []


def test_pending_lines_of_a_backup_are_sent_once_and_unmodified(path, tmp_path, loki):
    done("backup", tmp_path / "one.backup")
    send(path, loki)
    before = set(loki.lines())
    done("restore", tmp_path / "one.backup", "--replace")
    send(path, loki)
    assert before <= set(loki.lines())
    # Loki has each line only once, because the restored spool sent the same bytes as before.
    assert len(loki.lines()) == len(set(loki.lines()))
    assert findings(audit(loki))[:2] == [[], []]


def test_forged_lines_of_the_previous_instance_are_found(path, tmp_path, loki):
    send(path, loki)
    with SpoolReader(path) as reader:
        previous = reader.instance_id
    done("backup", tmp_path / "one.backup")
    send(path, loki, ["lost-1"])
    done("restore", tmp_path / "one.backup", "--replace")
    send(path, loki)
    now = time.time_ns()
    forged = json.dumps({"seq": 20, "prev": "ab" * 32, "url": "https://x.example/"}, separators=(",", ":"))
    push_lines(f"{loki.url}/otlp/v1/logs", previous, [(now, forged), (now + 1, "not a line")])
    codes = findings(audit(loki))
    assert codes[0] == []
    assert ("foreign", 0) in codes[1]
    assert ("foreign", 20) in codes[2]


def test_backup_of_a_restored_spool_can_be_restored(path, tmp_path, loki):
    send(path, loki)
    for number in range(3):
        done("backup", tmp_path / f"{number}.backup")
        send(path, loki, [f"lost-{number}"])
        done("restore", tmp_path / f"{number}.backup", "--replace")
        send(path, loki, [f"new-{number}"])
    reports = audit(loki)
    assert not any(findings(reports)), reports
    assert len(reports[0]["restored"]) == 3 and len(reports) == 5


def test_backup_of_an_empty_spool_can_be_restored(tmp_path, loki, monkeypatch):
    path = use(tmp_path / "empty", monkeypatch)
    with Spool(path, sync_seconds=None):
        pass
    done("backup", tmp_path / "one.backup")
    send(path, loki, ["lost"])
    assert done("restore", tmp_path / "one.backup", "--replace")["last_seq"] == 0
    send(path, loki, ["new"])
    assert findings(audit(loki)) == [[], [], []]


def test_restore_refuses_while_a_proxy_uses_the_directory(path, tmp_path):
    done("backup", tmp_path / "one.backup")
    with Spool(path, sync_seconds=None):
        assert f"another process (pid {os.getpid()}) is already writing it" in refused(
            "restore", tmp_path / "one.backup", "--replace"
        )


def test_restore_refuses_to_overwrite_records_without_an_option(path, tmp_path):
    done("backup", tmp_path / "one.backup")
    before = path.read_bytes()
    assert "it has records; add --replace" in refused("restore", tmp_path / "one.backup")
    assert path.read_bytes() == before
    restored = done("restore", tmp_path / "one.backup", "--replace")
    with SpoolReader(restored["aside"]) as reader:
        assert reader.audit().problems == () and reader.head()[0] == chains.LINES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_damaged_spool_is_moved_aside_with_its_wal(path, tmp_path):
    done("backup", tmp_path / "one.backup")
    path.write_bytes(b"garbage" * 1000)
    Path(f"{path}-wal").write_bytes(b"log")
    assert "--replace" in refused("restore", tmp_path / "one.backup")
    aside = done("restore", tmp_path / "one.backup", "--replace")["aside"]
    assert Path(aside).read_bytes() == b"garbage" * 1000 and Path(f"{aside}-wal").read_bytes() == b"log"
    result = egress("audit")
    assert result.exit_code == 0 and "the number of its lost lines is unknown" in result.stdout


def test_restore_refuses_a_spool_with_a_waiting_command(path, tmp_path):
    done("backup", tmp_path / "one.backup")
    waiting = Path(f"{path}.command.1-abc")
    waiting.write_text("{}")
    assert "a command for the existing spool has not run yet" in refused(
        "restore", tmp_path / "one.backup", "--replace"
    )


def test_restore_replaces_no_other_key(path, tmp_path, monkeypatch):
    done("backup", tmp_path / "keys.backup", "--with-keys")
    state = tmp_path / "other"
    key = Signer.in_directory(state).public
    use(state, monkeypatch)
    assert f"{state / KEY_FILE} differs" in refused("restore", tmp_path / "keys.backup")
    assert Signer.in_directory(state).public == key and not (state / "spool.db").exists()


def test_backup_can_be_restored_from_standard_input(path, tmp_path):
    done("backup", tmp_path / "one.backup")
    result = CliRunner().invoke(app, ["restore", "-", "--replace"], input=(tmp_path / "one.backup").read_bytes())
    assert result.exit_code == 0, result.exception
    assert egress("audit").exit_code == 0


def damaged(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(b"no database"), "the file is not a backup"),
        (lambda file: file.write_bytes(b""), "the file is not a backup"),
        (lambda file: file.write_bytes(file.read_bytes()[:-8192]), "damaged|malformed"),
        (lambda file: damaged(file, "PRAGMA user_version = 99"), "its schema is version 99"),
        (lambda file: damaged(file, "DELETE FROM meta WHERE key = 'backup'"), "the file is not a backup"),
        (lambda file: damaged(file, "CREATE TRIGGER t AFTER INSERT ON meta BEGIN SELECT 1; END"), "not a backup"),
        (lambda file: damaged(file, "DROP TABLE records"), "table records is missing"),
        (lambda file: damaged(file, "UPDATE ledger SET hash = zeroblob(32) WHERE seq = 3"), "the backup is damaged"),
        (lambda file: (file.unlink(), file.mkdir()), "not a file"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "not a file"),
        (lambda file: (file.rename(f"{file}.real"), file.symlink_to(f"{file}.real")), "name the file itself"),
        (lambda file: file.unlink(), "No such file"),
    ],
)
def test_wrong_file_changes_nothing(path, tmp_path, damage, message):
    file = tmp_path / "one.backup"
    done("backup", file)
    damage(file)
    before = path.read_bytes()
    text = refused("restore", file, "--replace")
    assert any(part in text for part in message.split("|")), text
    assert str(file) in text and "restoring" not in text
    assert path.read_bytes() == before
    assert [name for name in names(path.parent) if "restoring" in name or "replaced" in name] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file_names_the_permission(path, tmp_path):
    done("backup", tmp_path / "one.backup")
    (tmp_path / "one.backup").chmod(0)
    assert "needs permission" in refused("restore", tmp_path / "one.backup", "--replace")


# ── restorations and keys that an audit trusts ───────────────────────────────────────────────────────────────────


def forge_tombstone(path: Path, key: Signer, seq: int, lines: str) -> None:
    """Delete lines. Store a forged tombstone that claims to be line ``seq`` and is signed with ``key``."""
    last = int(lines.rpartition("-")[2])
    with SpoolReader(path) as reader:
        digest = (reader.digest(last) or b"").hex()
    signature = key.sign(deletion_text(lines, digest))
    stone = {"seq": seq, "time_ns": 1, "lines": lines, "count": 1, "digest": digest, "why": "", "signature": signature}
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("INSERT INTO meta VALUES (?, ?)", (f"deleted_{seq}", json.dumps(stone)))
        db.execute("DELETE FROM records WHERE seq BETWEEN ? AND ?", (int(lines.partition("-")[0]), last))


def test_restoration_that_is_not_in_the_chain_adds_no_key(path, tmp_path):
    eve = Signer.in_directory(tmp_path / "eve")
    claim = {
        "seq": 19,
        "openclaw.egress.outcome": "restored",
        "openclaw.egress.spool.last_seq": 18,
        "openclaw.egress.spool.instance": "x",
        "openclaw.egress.spool.key": eve.public,
    }
    damaged(path, "UPDATE records SET state = 1")
    # Forge two restorations. The first claims to be line 19, which does not exist. The second claims to be line 1, but
    # line 1 records an exchange.
    for newest in (18, 0):
        claim |= {"seq": newest + 1, "openclaw.egress.spool.last_seq": newest}
        damaged(path, f"INSERT INTO meta VALUES ('restored_{newest}', '{json.dumps(claim)}')")
    forge_tombstone(path, eve, 18, "12-17")
    result = egress("audit", "--json")
    (report,) = json.loads(result.stdout)["reports"]
    assert findings([report]) == [[("spool", 0), ("spool", 0), ("missing", 12)]] and report["restored"] == []
    assert "restore after line 18, but no line of the chain records it" in report["findings"][1]["detail"]


def test_restoration_with_another_key_invalidates_the_earlier_checkpoints(path, tmp_path):
    """Replace the key in a backup. Expect the audit to reject the earlier checkpoints, which another key signed."""
    eve = Signer.in_directory(tmp_path / "eve")
    done("backup", tmp_path / "one.backup")
    damaged(tmp_path / "one.backup", f"UPDATE backup_files SET content = CAST('{eve.public}' AS BLOB)")
    done("restore", tmp_path / "one.backup", "--replace")
    (report,) = json.loads(egress("audit", "--json").stdout)["reports"]
    assert findings([report]) == [[("signature", 11), ("signature", 18)]]


def test_key_of_a_previous_instance_signs_no_line_after_its_backup(path, tmp_path, loki, monkeypatch):
    old = Signer.in_directory(path.parent)
    done("backup", tmp_path / "one.backup")
    copy = use(tmp_path / "other", monkeypatch)
    done("restore", tmp_path / "one.backup")
    send(copy, loki, ["new-1", "new-2", "new-3"])
    assert egress("audit").exit_code == 0
    # Lines 19 and 20 record the restoration and the start of the proxy. The newest line is a checkpoint.
    forge_tombstone(copy, old, 23, "20-22")
    (report,) = json.loads(egress("audit", "--json").stdout)["reports"]
    assert findings([report]) == [[("missing", 20)]]
    damaged(copy, "DELETE FROM meta WHERE key = 'deleted_23'")
    forge_tombstone(copy, old, 18, "20-22")
    (report,) = json.loads(egress("audit", "--json").stdout)["reports"]
    assert findings([report]) == [[("missing", 20)]]


def test_restoration_is_known_after_retention_deleted_its_line(path, tmp_path, loki, monkeypatch):
    send(path, loki)
    done("backup", tmp_path / "one.backup")
    copy = use(tmp_path / "other", monkeypatch)
    done("restore", tmp_path / "one.backup")
    send(copy, loki, ["new-1"])
    with Spool(copy, 1, sync_seconds=None, signer=Signer.in_directory(copy.parent)) as spool:
        spool.checkpoint()
    with SpoolReader(copy) as reader:
        assert reader.line(chains.LINES + 2) is None
    (report,) = json.loads(egress("audit", "--json").stdout)["reports"]
    assert report["findings"] == [] and [one["seq"] for one in report["restored"]] == [chains.LINES + 1]


def test_restoration_with_a_clock_that_is_behind_is_known(path, tmp_path, loki):
    done("backup", tmp_path / "one.backup")
    damaged(tmp_path / "one.backup", "UPDATE ledger SET time_ns = time_ns + 7200000000000 WHERE seq = 18")
    done("restore", tmp_path / "one.backup", "--replace")
    with SpoolReader(path) as reader:
        assert [row.outcome for row in reader.query(Filters(after_seq=18))] == ["clock_set_back", "restored"]
        assert [one.seq for one in reader.restores()] == [18] and reader.unproven_restores() == []
    assert egress("audit").exit_code == 0


@pytest.mark.parametrize("value", ["{", "[]", "{}", "7", json.dumps({"openclaw.egress.outcome": "restored"})])
def test_damaged_restoration_ends_commands_with_a_remedy(path, value):
    damaged(path, f"INSERT INTO meta VALUES ('restored_18', '{value}')")
    wide = ("--since", "1d", "--until", "2099-01-01T00:00", "--why", "x")
    for words in (("audit",), ("audit", "--key", Signer.in_directory(path.parent).public), ("delete", *wide)):
        result = egress(*words)
        assert isinstance(result.exception, SpoolError) and "restored_18" in str(result.exception), result.output
        assert "egress restore" in str(result.exception)


# ── lines that a restoration loses ───────────────────────────────────────────────────────────────────────────────


def record(path: Path, *new: str) -> None:
    """Record exchanges in the spool without sending them to Loki."""
    with Spool(path, sync_seconds=None, signer=Signer.in_directory(path.parent)) as spool:
        for name in new:
            spool.close_exchange(chains.exchange(name))


def test_audit_names_lines_that_a_restoration_lost(path, tmp_path, loki):
    send(path, loki)
    done("backup", tmp_path / "one.backup")
    send(path, loki, ["sent-1", "sent-2"])
    record(path, "never-sent-1", "never-sent-2")
    restored = done("restore", tmp_path / "one.backup", "--replace")
    assert restored["lost_lines"] == 5
    send(path, loki)
    reports = audit(loki)
    assert findings(reports) == [[], [], []], "the audit must not report a finding for ever after a restore"
    (note,) = reports[0]["restored"]
    assert (note["seq"], note["lost_lines"], note["replaced_seq"]) == (19, 5, 24)
    assert (reports[2]["found"], reports[2]["explained"]) == (4, {"lost_by_restore": 2})
    text = egress("audit").stdout
    assert "5 lines of the replaced spool, up to line 24, are not in the restored one" in text
    assert "2 lost by restore" in egress("audit", "--store", f"{loki.url}/otlp/v1/logs").stdout


def test_audit_names_lost_lines_of_which_none_was_sent(path, tmp_path, loki):
    send(path, loki)
    done("backup", tmp_path / "one.backup")
    record(path, "never-sent")
    done("restore", tmp_path / "one.backup", "--replace")
    send(path, loki)
    reports = audit(loki)
    assert findings(reports) == [[], [], []] and reports[2]["explained"] == {"lost_by_restore": 1}


def test_forged_line_in_place_of_the_newest_lost_line_is_found(path, tmp_path, loki):
    send(path, loki)
    done("backup", tmp_path / "one.backup")
    with SpoolReader(path) as reader:
        previous, head = reader.instance_id, reader.head()[1]
    record(path, "never-sent")
    done("restore", tmp_path / "one.backup", "--replace")
    send(path, loki)
    forged = json.dumps({"seq": 20, "prev": head, "url": "https://x.example/"}, separators=(",", ":"))
    push_lines(f"{loki.url}/otlp/v1/logs", previous, [(time.time_ns(), forged)])
    assert findings(audit(loki))[2] == [("changed", 20)]


def test_checkpoints_of_the_previous_instance_after_the_backup_are_valid(path, tmp_path, loki, monkeypatch):
    send(path, loki)
    done("backup", tmp_path / "one.backup")
    send(path, loki, ["later"])
    copy = use(tmp_path / "other", monkeypatch)
    done("restore", tmp_path / "one.backup")
    send(copy, loki)
    reports = audit(loki)
    assert findings(reports) == [[], [], []] and reports[2]["signed_seq"] == 20


def test_replaced_spool_with_another_chain_is_named(path, tmp_path, loki, monkeypatch):
    done("backup", tmp_path / "one.backup")
    copy = use(tmp_path / "other", monkeypatch)
    record(copy, "first-1", "first-2")
    assert done("restore", tmp_path / "one.backup", "--replace")["lost_lines"] == 2
    send(copy, loki)
    reports = audit(loki)
    assert findings(reports) == [[], []] and reports[0]["restored"][0]["replaced_seq"] == 2


def test_damaged_ledger_of_the_replaced_spool_does_not_prevent_the_restoration(path, tmp_path):
    done("backup", tmp_path / "one.backup")
    damaged(path, "UPDATE ledger SET hash = 'text' WHERE seq = 18")
    assert done("restore", tmp_path / "one.backup", "--replace")["lost_lines"] is None


def test_second_restoration_of_a_backup_names_the_lines_of_the_first(path, tmp_path):
    done("backup", tmp_path / "one.backup")
    done("restore", tmp_path / "one.backup", "--replace")
    record(path, "new-1", "new-2")
    assert done("restore", tmp_path / "one.backup", "--replace")["lost_lines"] == 3
    assert done("restore", tmp_path / "one.backup", "--replace")["lost_lines"] == 1


def test_restoration_without_a_replaced_spool_loses_nothing(path, tmp_path, monkeypatch):
    done("backup", tmp_path / "one.backup")
    use(tmp_path / "other", monkeypatch)
    assert done("restore", tmp_path / "one.backup")["lost_lines"] == 0
    assert "replaced spool" not in egress("audit").stdout


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────────────────────────

KILL = """
import os, signal, sys
from openclaw_egress.cli.app import run_app
from openclaw_egress.spool import backup
name, when = sys.argv[1:3]
original = getattr(backup, name)
def killed(*arguments, **options):
    if when == "after":
        original(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(backup, name, killed)
sys.argv = ["egress", *sys.argv[3:]]
run_app()
"""


def killed_in(step: str, when: str, *words: str) -> None:
    """Run a command in a process that kills itself right before or after ``step``, a function of module `backup`."""
    result = subprocess.run(
        [sys.executable, "-c", KILL, step, when, *words],
        check=False,
        env=os.environ | {"PYTHONPATH": str(ADDON)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == -9, result.stderr


@pytest.mark.parametrize(
    ("step", "when"),
    [
        ("_check", "before"),
        ("_as_new_instance", "before"),
        ("_as_new_instance", "after"),
        ("_put_aside", "before"),
        ("_put_aside", "after"),
        ("_sync_directory", "before"),
    ],
)
def test_restore_killed_at_any_step_leaves_one_whole_spool(path, tmp_path, loki, step, when):
    send(path, loki)
    file = tmp_path / "one.backup"
    done("backup", file, "--with-keys")
    send(path, loki, ["lost"])
    killed_in(step, when, "restore", str(file), "--replace")
    assert path.exists(), "no spool is left, so the next start would create an empty one"
    send(path, loki, ["next-1"])
    assert not any(findings(audit(loki)))
    done("restore", file, "--replace")
    send(path, loki, ["next-2"])
    reports = audit(loki)
    assert findings(reports)[:2] == [[], []], reports
    assert [name for name in names(path.parent) if "restoring" in name] == []


# ── the guide ────────────────────────────────────────────────────────────────────────────────────────────────────

GUIDE = Path(__file__).parents[3] / "docs" / "operations.md"


def test_commands_of_the_guide_work_in_their_order(path, tmp_path, monkeypatch):
    """Run each `egress` command in docs/operations.md, with a temporary directory in place of `/spool`."""
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    words = [line.partition(" egress ")[2] for block in blocks for line in block.splitlines() if " egress " in line]
    assert len(words) >= 3
    monkeypatch.chdir(tmp_path)
    for line in words:
        command, _, source = line.partition(" < ")
        stdin = Path(source).read_bytes() if source else None
        result = CliRunner().invoke(app, shlex.split(command.replace("/spool/", f"{path.parent}/")), input=stdin)
        assert result.exit_code == 0, (line, result.output, result.exception)
        for name in re.findall(r"/spool/(\S+)", command):  # Copy the file as the guide does with `docker cp`.
            (tmp_path / name).write_bytes((path.parent / name).read_bytes())
