"""Tests of operator commands on stored lines. Each command runs exactly once, and a new line records it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from openclaw_egress.recording.records import EventRecord
from openclaw_egress.spool import commands
from openclaw_egress.spool.commands import Action, Command, submit
from openclaw_egress.spool.progress import progress_of
from openclaw_egress.spool.reader import Filters
from openclaw_egress.spool.schema import SpoolError
from openclaw_egress.spool.writer import Spool

ADDON = Path(__file__).parents[3] / "files" / "addon"
WHY = "an operator (uid 0): tested"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path):
    """Return a spool with acknowledged lines 1 to 4, dead letters 5 and 6, and their record in line 7."""
    with filled(path) as opened:
        yield opened


def filled(path: Path) -> Spool:
    spool = Spool(path, sync_seconds=None)
    for number in range(6):
        spool.add(EventRecord(event_name="openclaw.egress.policy", message=str(number)))
    spool.acknowledge([1, 2, 3, 4])
    spool.dead_letter([5, 6], "too_old: entry for stream has timestamp too old")
    return spool


def give(path: Path, action: Action, *ranges: tuple[int, int]) -> Command:
    command = Command(action, ranges, WHY)
    submit(path, command)
    return command


def states(spool: Spool) -> dict[int, str]:
    return {row.seq: row.state for state in STATES for row in spool.reader.query(Filters(state=state))}


STATES = ("pending", "acknowledged", "dead_letter")


def notes(spool: Spool, outcome: str) -> list[dict]:
    found = [json.loads(text) for _, text in spool.reader.lines()]
    return [line for line in found if line.get("openclaw.egress.outcome") == outcome]


def check_totals(spool: Spool) -> None:
    counted = spool.reader.stats()
    assert {name: value for name, value in spool.stats().items() if name in counted} == counted
    assert spool.reader.audit().problems == ()


def waiting(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if ".command." in file.name)


def test_retried_dead_letters_wait_for_the_exporter_again(spool, path):
    give(path, Action.RETRY, (5, 5))
    spool.run_commands()
    assert states(spool)[5] == "pending" and states(spool)[6] == "dead_letter"
    (note,) = notes(spool, "retried")
    assert note["message"] == f"lines queued to be sent again ({WHY}): 5"
    assert spool.dead_letters() == {"too_old": 1}
    assert waiting(path) == []
    check_totals(spool)


def test_resent_lines_wait_for_the_exporter_again(spool, path):
    give(path, Action.RESEND, (1, 2), (4, 4))
    spool.run_commands()
    assert [seq for seq, state in states(spool).items() if state == "pending"] == [1, 2, 4, 7, 8]
    (note,) = notes(spool, "resent")
    assert (note["openclaw.egress.spool.first_seq"], note["openclaw.egress.spool.last_seq"]) == (1, 4)
    assert note["openclaw.egress.spool.lines"] == 3
    check_totals(spool)


def test_the_exporter_is_woken(spool, path):
    spool.committed.clear()
    give(path, Action.RESEND, (1, 1))
    spool.run_commands()
    assert spool.committed.is_set()


def test_dropped_dead_letters_free_their_space_and_a_line_records_user_and_reason(spool, path):
    give(path, Action.DROP, (5, 6))
    spool.run_commands()
    assert spool.reader.line(5) is None and spool.stats()["dead_letter_bytes"] == 0
    (note,) = notes(spool, "dropped_by_operator")
    assert note["openclaw.egress.spool.reason"] == WHY
    *_, shown = spool.reader.query(Filters(event_names=["openclaw.egress.spool"]))
    assert (shown.outcome, shown.reason) == ("dropped_by_operator", WHY)
    assert note["message"].endswith(": 5-6")
    assert spool.dead_letters() == {}
    check_totals(spool)


@pytest.mark.parametrize("action", [Action.RETRY, Action.DROP])
def test_lines_in_another_state_are_not_changed(spool, path, action):
    before = states(spool)
    command = give(path, action, (1, 4), (7, 99))
    spool.run_commands()
    assert states(spool) == before and waiting(path) == []
    with closing(sqlite3.connect(path)) as db:
        assert progress_of(db, command.id).changed == 0


def test_command_that_ran_before_a_crash_is_not_repeated(spool, path):
    command = give(path, Action.RETRY, (5, 6))
    spool.run_commands()
    spool.dead_letter([5, 6], "too_old: again")
    submit(path, command)  # Simulate a crash after the command but before its file was deleted.
    spool.run_commands()
    assert states(spool)[5] == "dead_letter" and waiting(path) == []


def test_long_command_continues_after_a_restart(path, monkeypatch):
    monkeypatch.setattr(commands, "MAX_LINES", 1)
    with filled(path) as spool:
        command = give(path, Action.RESEND, (1, 4))
        spool._flusher.stopping.set()
        spool.run_commands()
        assert len(waiting(path)) == 1 and len(notes(spool, "resent")) == 1
    with Spool(path, sync_seconds=None) as spool:
        spool.run_commands()
        assert waiting(path) == []
        assert [note["openclaw.egress.spool.first_seq"] for note in notes(spool, "resent")] == [1, 2, 3, 4]
        with closing(sqlite3.connect(path)) as db:
            assert progress_of(db, command.id).changed == 4
        check_totals(spool)


def test_unreadable_command_is_ignored_and_the_next_one_runs(spool, path):
    path.with_name("spool.db.command.0").write_text('{"action": "destroy"}')
    path.with_name("spool.db.command.1.tmp").write_text("{")
    give(path, Action.RETRY, (5, 6))
    spool.run_commands()
    assert waiting(path) == ["spool.db.command.0.invalid", "spool.db.command.1.tmp"]
    assert states(spool)[5] == "pending"


def test_command_waits_while_the_disk_cannot_be_written(spool, path):
    give(path, Action.RETRY, (5, 6))
    spool._storage.db.execute("PRAGMA query_only = ON")
    with pytest.raises(SpoolError):
        spool.run_commands()
    assert len(waiting(path)) == 1
    spool._storage.db.execute("PRAGMA query_only = OFF")
    spool.run_commands()
    assert waiting(path) == [] and states(spool)[5] == "pending"
    check_totals(spool)


def test_flush_thread_runs_a_command(path):
    filled(path).close()
    with Spool(path, sync_seconds=0.01) as spool:
        give(path, Action.RETRY, (5, 6))
        deadline = time.monotonic() + 20
        while waiting(path):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert states(spool)[6] == "pending" and spool.flush_problem is None


def test_results_of_old_commands_are_forgotten(spool, path):
    submit(path, old := Command(Action.RETRY, ((5, 5),), WHY, "00000000000000000001-a"))
    submit(path, new := Command(Action.RETRY, ((6, 6),), WHY))
    spool.run_commands()
    with closing(sqlite3.connect(path)) as db:
        assert not progress_of(db, old.id).done
        assert progress_of(db, new.id).done


def test_counts_by_reason_survive_a_restart_and_the_limit(path):
    with filled(path) as spool:
        spool.acknowledge([7])
        spool.dead_letter(spool.add(EventRecord(event_name="x", message="y")), "line_too_long: max entry size")
        assert spool.dead_letters() == {"line_too_long": 1, "too_old": 2}
    with Spool(path, max_bytes=4000, sync_seconds=None) as spool:
        assert spool.dead_letters() == {"line_too_long": 1, "too_old": 2}
        for _ in range(8):
            spool.add(EventRecord(event_name="x", message="y"))
        assert spool.dead_letters() == {}
        check_totals(spool)


_KILLED = """
import sys
from openclaw_egress.spool import commands
from openclaw_egress.spool.writer import Spool
commands.MAX_LINES = 1
spool = Spool(sys.argv[1], sync_seconds=None)
print("opened", flush=True)
spool.run_commands()
"""


def test_killed_process_loses_no_command_and_repeats_none(path):
    with Spool(path, sync_seconds=None) as spool:
        for number in range(400):
            spool.add(EventRecord(event_name="openclaw.egress.policy", message=str(number)))
        spool.dead_letter(range(1, 401), "too_old: x")
    give(path, Action.RETRY, (1, 200))
    give(path, Action.DROP, (201, 400))
    for milliseconds in (1, 2, 5, 10, 20):
        with subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ADDON)},
        ) as process:
            process.stdout.readline()
            time.sleep(milliseconds / 1000)
            process.send_signal(signal.SIGKILL)
    with Spool(path, sync_seconds=None) as spool:
        spool.run_commands()
        assert waiting(path) == []
        for outcome, first in (("retried", 1), ("dropped_by_operator", 201)):
            numbers = [
                (note["openclaw.egress.spool.first_seq"], note["openclaw.egress.spool.last_seq"])
                for note in notes(spool, outcome)
            ]
            covered = [seq for begin, end in numbers for seq in range(begin, end + 1)]
            assert covered == list(range(first, first + 200))
        check_totals(spool)
