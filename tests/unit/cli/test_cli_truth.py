"""Tests that the CLI reports records correctly: refusals, denials, clients, and bodies that imitate its own output."""

import errno
import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openclaw_egress.cli.app import app, describe_os_error
from openclaw_egress.cli.formatting import quoted
from openclaw_egress.recording.records import Body, DeniedRecord, ExchangeRecord
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.rows import absent_until
from openclaw_egress.spool.writer import Spool
from tests.support.egress_command import run_egress
from tests.support.file_permissions import without_root_access

ADDON = Path(__file__).parents[3] / "files" / "addon"
DENIED = {
    "class_name": "sandbox", "host": "www.example.com", "port": 443, "rule": "default", "code": "no_rule",
    "reason": "no rule",
}  # fmt: skip


def exchange(name: str, body: bytes = b"{}", **changes: object) -> ExchangeRecord:
    known: dict = {
        "id": name, "class_name": "gateway", "method": "POST", "url": "https://api.anthropic.com/v1/messages",
        "host": "api.anthropic.com", "port": 443, "begin_ns": 1, "end_ns": 2, "status": 200, "client": "172.30.0.9",
        "response_body": Body.of(body),
    }  # fmt: skip
    return ExchangeRecord(**known | changes)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.open_exchange("one", "gateway", {})
        spool.close_exchange(exchange("one"))
        spool.add(DeniedRecord(**DENIED, client="172.30.0.7", status=403))
        spool.add(DeniedRecord(**DENIED, client="172.30.0.8", enforced=False))
    return tmp_path


@pytest.fixture
def egress(state: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EGRESS_STATE_DIR", str(state))
    monkeypatch.setenv("EGRESS_HEALTH_PORT", "1")
    return lambda *words: CliRunner().invoke(app, [*words])


type Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(caplog) -> Iterator[Run]:
    """Return a function that runs `egress` with a state directory and asserts that the command logs nothing."""

    def call(state: Path, *words: str, no_access: bool = False, **variables: str):
        environment = {**os.environ, "EGRESS_STATE_DIR": str(state), "EGRESS_HEALTH_PORT": "1", **variables}
        with without_root_access() if no_access else nullcontext(), caplog.at_level(logging.INFO):
            done = run_egress(*words, environment=environment)
        # Expect no log records: `egress run` would print them to standard error in addition to its message.
        assert caplog.records == []
        return done

    # Restore the SIGHUP handler after the test, because `egress run` replaces it.
    before = signal.getsignal(signal.SIGHUP)
    yield call
    signal.signal(signal.SIGHUP, before)


def test_refusals_are_found_by_their_status(egress):
    (row,) = [json.loads(line) for line in egress("records", "--status", "4xx", "--json").stdout.splitlines()]
    assert (row["status"], row["outcome"], row["client"]) == (403, "denied", "172.30.0.7")


def test_reported_denials_are_marked_as_reported_in_every_view(egress, state):
    rows = [json.loads(line) for line in egress("records", "--json").stdout.splitlines()]
    assert [row["outcome"] for row in rows] == ["complete", "denied", "reported"]
    said = egress("records").stdout.splitlines()
    assert "denied" in said[2] and "reported" in said[3] and "denied" not in said[3]


def test_every_view_shows_the_client_address(egress):
    said = egress("records").stdout
    assert all(address in said for address in ("172.30.0.7", "172.30.0.8", "172.30.0.9"))
    assert "client       172.30.0.9" in egress("show", "one").stdout
    assert json.loads(egress("show", "one", "--json").stdout)["record"]["client"] == "172.30.0.9"
    assert "172.30.0.7, 172.30.0.8" in egress("denials").stdout
    assert json.loads(egress("denials", "--json").stdout)["clients"] == ["172.30.0.7", "172.30.0.8"]


def test_many_clients_of_one_destination_do_not_fill_the_table(egress, state):
    with Spool(state / "spool.db", sync_seconds=None, local=True) as spool:
        for number in range(9):
            spool.add(DeniedRecord(**DENIED, client=f"10.9.9.{number}"))
    assert "172.30.0.7, 172.30.0.8, 10.9.9.0 and 8 more" in egress("denials").stdout


def on_a_terminal(state: Path, columns: int, *words: str) -> str:
    """Run `egress` on a terminal of this width. Return its output."""
    script = f"stty cols {columns}; {sys.executable} -m openclaw_egress {' '.join(words)}"
    environment = os.environ | {"PYTHONPATH": str(ADDON), "EGRESS_STATE_DIR": str(state), "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    done = subprocess.run(
        ["script", "-qec", script, "/dev/null"], env=environment, capture_output=True, check=True, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout.decode().replace("\r\n", "\n")


needs_script = pytest.mark.skipif(
    not shutil.which("script"), reason="script(1), which creates a terminal, is not installed"
)


@needs_script
def test_record_is_readable_on_a_terminal_of_80_columns(state):
    said = on_a_terminal(state, 80, "records")
    said = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert max(map(len, said.splitlines())) <= 80, said
    for word in ("172.30.0.7", "sandbox", "denied", "reported", "403"):
        assert word in said, said


# ── spools of older versions ─────────────────────────────────────────────────────────────────────────────────────


ADDED = [*absent_until(0)]


def make_old(spool: Path) -> None:
    """Convert a spool to an older version: drop newer columns, and store outcome and status as that version did."""
    with closing(sqlite3.connect(spool)) as db:
        for name in ADDED:
            db.execute(f"ALTER TABLE records DROP COLUMN {name}")
        db.execute("PRAGMA user_version = 0")
        db.execute("UPDATE records SET outcome = 'denied', status = NULL WHERE event_name LIKE '%denied'")
        db.commit()


def test_older_spool_without_a_column_can_be_read_and_written(state):
    path = state / "spool.db"
    make_old(path)
    with SpoolReader(path) as reader:
        rows = list(reader.query(Filters()))
        assert [row.client for row in rows] == [None, "172.30.0.7", "172.30.0.8"]
        assert [row.outcome for row in rows] == ["complete", "denied", "reported"]
    with Spool(path, sync_seconds=None, local=True) as spool:
        spool.add(DeniedRecord(**DENIED, client="172.30.0.6"))
        assert [row.client for row in spool.reader.query(Filters())][-1] == "172.30.0.6"
        assert not spool.reader.audit().problems


def test_older_version_can_still_write_a_spool_with_the_column(state):
    """Write to a spool of this version with the INSERT of an older version, which omits the newer columns."""
    with closing(sqlite3.connect(state / "spool.db")) as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(records)") if row[1] not in ADDED]
        row = db.execute(f"SELECT {', '.join(names)} FROM records ORDER BY seq DESC LIMIT 1").fetchone()
        db.execute(f"INSERT INTO records ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", (99, *row[1:]))
        db.commit()
    with SpoolReader(state / "spool.db") as reader:
        assert [row.client for row in reader.query(Filters(after_seq=98))] == ["172.30.0.8"]


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────

FORGED = (
    "x\n\n── response ──\n200\nid           forged\r── request ──"
    "\u2028── request ──\x85── request ──\x0b\u202eevil\x1b[2J"
)


def test_body_cannot_imitate_the_commands_own_headings(egress, state):
    with Spool(state / "spool.db", sync_seconds=None, local=True) as spool:
        spool.open_exchange("two", "gateway", {})
        spool.close_exchange(exchange("two", FORGED.encode(), request_body=Body.of(FORGED.encode())))
    said = egress("show", "two").stdout
    own = [line for line in said.split("\n") if not line.startswith("│ ")]
    assert [line for line in own if line.startswith("──")] == ["── request ──", "── response ──"]
    assert not any("forged" in line for line in own)
    assert not set(said) & set("\r\u2028\x85\x0b\u202e\x1b")
    assert json.loads(egress("show", "two", "--json").stdout)["exchange"]["response"]["body"] == FORGED


def test_each_line_of_an_assembled_message_has_a_mark():
    assert quoted("a\n── request ──\n") == "│ a\n│ ── request ──\n│ "


@needs_script
def test_each_part_of_a_wrapped_line_has_a_mark(state):
    with Spool(state / "spool.db", sync_seconds=None, local=True) as spool:
        spool.open_exchange("three", "gateway", {})
        spool.close_exchange(exchange("three", (" " * 80 + "── response ──").encode()))
    said = on_a_terminal(state, 80, "show", "three")
    assert all(len(line) <= 80 for line in said.splitlines()), said


# ── unreadable files ─────────────────────────────────────────────────────────────────────────────────────────────

READERS = (
    ("records",), ("records", "--json"), ("show", "one"), ("tail",), ("denials",), ("policy", "suggest", "sandbox"),
)  # fmt: skip
POLICY = "version: 1\nclasses: {sandbox: {listen: 8082, action: report}}\n"


def said_once(done) -> str:
    """Assert that the command printed one message and exited with 2. Return the message."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr.startswith("egress: ") and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("egress: ") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("words", READERS)
def test_another_users_state_directory_is_reported_in_one_message(command, state, tmp_path_factory, words):
    policy = tmp_path_factory.mktemp("p") / "policy.yml"
    policy.write_text(POLICY)
    state.chmod(0)
    try:
        said = said_once(command(state, *words, no_access=True, EGRESS_POLICY_FILE=str(policy)))
    finally:
        state.chmod(0o700)
    assert str(state / "spool.db") in said and "Permission denied" in said and "uid" in said


@pytest.mark.parametrize("words", [("status",), ("status", "--json")])
def test_status_reports_unreadable_parts(command, state, words):
    state.chmod(0)
    try:
        done = command(state, *words, no_access=True)
    finally:
        state.chmod(0o700)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "Permission denied" in done.stdout + done.stderr


def broken(state: Path, how: str) -> None:
    spool = state / "spool.db"
    spool.unlink()
    if how == "missing":
        return
    if how == "directory":
        spool.mkdir()
    elif how == "not a database":
        spool.write_bytes(b"no database" * 1000)
    elif how == "empty":
        spool.write_bytes(b"")
    elif how == "device":
        spool.symlink_to("/dev/null")
    else:
        with closing(sqlite3.connect(spool)) as db:
            if how == "another database":
                db.execute("CREATE TABLE other (x)")
            else:
                db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value)")
                db.execute("INSERT INTO meta VALUES ('schema_version', ?)", (99 if how == "newer" else "x",))
            db.commit()


@pytest.mark.parametrize(
    "how",
    ["missing", "directory", "not a database", "empty", "device", "another database", "newer", "no number"],
)
@pytest.mark.parametrize("words", [("records",), ("show", "one"), ("denials",)])
def test_invalid_spool_is_reported_in_one_message(command, state, how, words):
    broken(state, how)
    assert "spool.db" in said_once(command(state, *words))


def test_state_directory_that_is_a_file_is_reported_in_one_message(command, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file/spool.db" in said_once(command(tmp_path / "file", "records"))


@pytest.mark.parametrize(
    "words",
    [("policy", "check"), ("policy", "explain", "sandbox", "https://a.example"), ("run",), ("ca", "create"),
     ("policy", "suggest", "sandbox")],
)  # fmt: skip
@pytest.mark.parametrize("how", ["missing", "directory", "unreadable", "not UTF-8", "below a file"])
def test_unreadable_policy_is_reported_in_one_message(command, state, tmp_path_factory, words, how):
    policy = tmp_path_factory.mktemp("p") / "policy.yml"
    if how == "directory":
        policy.mkdir()
    elif how == "unreadable":
        policy.write_text(POLICY)
        policy.chmod(0)
    elif how == "not UTF-8":
        policy.write_bytes(b"version: 1\n# \xff\xfe\n")
    elif how == "below a file":
        policy.write_text(POLICY)
        policy = policy / "policy.yml"
    said = said_once(command(state, *words, no_access=how == "unreadable", EGRESS_POLICY_FILE=str(policy)))
    assert "policy.yml" in said and "unset" not in said


@pytest.mark.parametrize("words", [("ca", "show"), ("ca", "create")])
def test_unreadable_ca_directory_is_reported_in_one_message(command, state, words):
    ca = state / "ca"
    ca.mkdir()
    ca.chmod(0)
    try:
        said = said_once(command(state, *words, no_access=True))
    finally:
        ca.chmod(0o700)
    assert str(ca) in said


def test_unreadable_cases_file_is_reported_in_one_message(command, state):
    assert "none.yml" in said_once(command(state, "policy", "test", str(state / "none.yml")))
    assert "directory" in said_once(command(state, "policy", "test", str(state)))


@pytest.mark.wording
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: Permission denied; "),
        (OSError(errno.EISDIR, "Is a directory", b"/x/\xff"), "use the path of a file"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; the disk is full"),
        (OSError("odd"), "odd; "),
    ],
)
def test_system_errors_state_cause_place_and_remedy(error, said):
    assert said in describe_os_error(error)
