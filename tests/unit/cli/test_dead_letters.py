"""Tests of `egress dead-letter` and `egress resend`. They also run the commands that the messages advise."""

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from openclaw_egress.cli import dead_letters as command
from openclaw_egress.cli.app import app
from openclaw_egress.export.exporter import Exporter
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.writer import Spool
from tests.support import tampered_chains as chains
from tests.support.otlp_push import push_lines

HOUR = 3600 * 10**9
TOO_LONG = "line_too_long: max entry size '262144' bytes exceeded"
TOO_OLD = "too_old: entry has timestamp \x1b[31mtoo old"


@dataclass
class Endpoint:
    logs_endpoint: str


@pytest.fixture
def path(stopped):
    """Return a spool of 20 lines. Lines 2 and 9 are dead letters; lines 19 and 20 record this.

    All lines except the dead letters are acknowledged.
    """
    chains.write_chain(stopped / "spool.db")
    with Spool(stopped / "spool.db", sync_seconds=None) as spool:
        for seq, why in ((2, TOO_OLD), (9, TOO_LONG)):
            spool._storage.db.execute("UPDATE records SET state = 0 WHERE seq = ?", (seq,))
            spool.dead_letter([seq], why)
        spool.acknowledge([19, 20])
    return stopped / "spool.db"


@contextmanager
def proxy(path, loki, monkeypatch):
    """Run the spool's flush thread, which runs operator commands, and the exporter, which sends lines to Loki."""
    monkeypatch.setattr(command, "WAIT_SECONDS_STOPPED", 30)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{loki.url}/otlp/v1/logs")
    with Spool(path, sync_seconds=0.01) as spool:
        exporter = Exporter(spool, Endpoint(f"{loki.url}/otlp/v1/logs"), environ={}, jitter=lambda: 0.001)
        exporter.start()
        yield spool
        exporter.stop(0.2)


def until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "the condition did not become true within 30 s"
        time.sleep(0.01)


def egress(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def states(path) -> dict[int, str]:
    with SpoolReader(path) as reader:
        found = {row.seq: row.state for row in reader.query(Filters())}
        return found | {letter.seq: "dead_letter" for letter in reader.dead_letters()}


def commands_of(path) -> list[str]:
    return [file.name for file in path.parent.iterdir() if ".command." in file.name]


def audited(path) -> list[dict]:
    result = egress("audit", "--json")
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)["reports"]


def fill_loki(path, loki, *absent: int) -> None:
    """Push the lines of the spool to Loki, except those in ``absent``."""
    with SpoolReader(path) as reader:
        instance = reader.instance_id
    lines = [line for line in chains.read_chain(path)[1] if json.loads(line.text)["seq"] not in absent]
    push_lines(f"{loki.url}/otlp/v1/logs", instance, lines)


# ── list and show ────────────────────────────────────────────────────────────────────────────────────────────────


def test_list_shows_each_dead_letter_with_the_destinations_reason(path):
    result = egress("dead-letter", "list")
    assert result.exit_code == 0, result.output
    head, first, second, last = result.stdout.splitlines()
    assert head.split() == ["seq", "time", "class", "host", "size", "reason"]
    assert "api.anthropic.com" in first and "too_old: entry has timestamp \\x1b[31mtoo old" in first
    # Line 9 is a later line of a split exchange. Only the first line of the exchange contains the host.
    assert second.split()[0] == "9" and "api.anthropic.com" in second and "line_too_long" in second
    assert last == "2 dead letters: 1 too_old, 1 line_too_long"


def test_list_filters_by_reason(path):
    result = egress("dead-letter", "list", "--reason", "line_too_long", "--json")
    (found,) = map(json.loads, result.stdout.splitlines())
    assert (found["seq"], found["code"], found["reason"]) == (9, "line_too_long", TOO_LONG)
    assert (found["class"], found["host"], found["part"], found["parts"]) == ("gateway", "api.anthropic.com", 2, 3)
    assert found["size"] > 150_000 and found["time"].endswith("Z")
    result = egress("dead-letter", "list", "--reason", "too_new")
    assert result.exit_code == 0 and result.stdout == ""
    assert (
        result.stderr == "egress: no dead letter has the reason too_new; the reasons are: 1 too_old, 1 line_too_long\n"
    )


def test_list_is_limited_to_the_newest(path):
    result = egress("dead-letter", "list", "--limit", 1)
    assert result.stdout.splitlines()[1].split()[0] == "9"
    assert "of which 1 are shown (--limit N shows more)" in result.stdout


def test_show_prints_reason_and_line(path):
    result = egress("dead-letter", "show", 2)
    assert "reason       too_old: entry has timestamp \\x1b[31mtoo old\n" in result.stdout
    assert '\n│ {"seq":2,' in result.stdout
    found = json.loads(egress("dead-letter", "show", 2, "--json").stdout)
    assert json.loads(found["line"])["seq"] == found["seq"] == 2
    result = egress("dead-letter", "show", 3)
    assert result.exit_code == 1 and "line 3 is not a dead letter" in result.stderr


# ── with a running proxy ─────────────────────────────────────────────────────────────────────────────────────────


def test_retry_sends_dead_letters_again_and_the_audit_finds_them(path, loki, monkeypatch):
    fill_loki(path, loki, 2, 9)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{loki.url}/otlp/v1/logs")
    audit = egress("audit")
    assert audit.exit_code == 0 and "2 dead letter" in audit.stdout
    assert "`egress dead-letter retry` sends them again" in audit.stdout
    with proxy(path, loki, monkeypatch) as spool:
        result = egress("dead-letter", "retry", "--all")
        assert result.exit_code == 0, result.output
        assert result.stdout == "lines to be sent again: 2; `egress status` shows how many wait\n"
        until(lambda: not spool.stats()["pending_records"])
        assert spool.dead_letters() == {}
    own, store = audited(path)
    assert (own["findings"], store["findings"]) == ([], [])
    assert store["found"] == store["lines"] == 21 and store["explained"] == {}


def test_line_that_is_refused_again_is_a_dead_letter_again(path, loki, monkeypatch):
    loki.faults.set(refuse_lines_matching='"seq":2,')
    with proxy(path, loki, monkeypatch) as spool:
        assert egress("dead-letter", "retry", 2).exit_code == 0
        until(lambda: spool.dead_letters() == {"line_too_long": 1, "refused": 1})
        until(lambda: not spool.stats()["pending_records"])


def test_record_of_dropped_dead_letters_explains_the_gap_to_every_audit(path, loki, monkeypatch, tmp_path):
    fill_loki(path, loki, 2, 9)
    with proxy(path, loki, monkeypatch) as spool:
        result = egress("dead-letter", "drop", 2, "--yes", "--by", "alice", "--why", "a test of ours")
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("dropped lines: 1; a record contains the user and the reason")
        until(lambda: not spool.stats()["pending_records"])
        note = json.loads(spool.reader.line(21))
        assert "alice (uid " in note["message"] and note["message"].endswith("): a test of ours): 2")
    own, store = audited(path)
    assert (own["findings"], store["findings"]) == ([], [])
    assert own["explained"] == {"dropped": 1} and store["explained"] == {"dropped": 1, "dead_letter": 1}
    assert egress("export", "-o", tmp_path / "x.jsonl").exit_code == 0
    assert egress("audit", "--file", tmp_path / "x.jsonl").exit_code == 0


def test_audit_prints_the_command_that_resends_missing_lines(path, loki, monkeypatch):
    fill_loki(path, loki, 2, 9, 3, 4, 8, 14, 20)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{loki.url}/otlp/v1/logs")
    audit = egress("audit")
    assert audit.exit_code == 1
    (said,) = [line for line in audit.stdout.splitlines() if "egress resend" in line]
    assert said == "  to send the absent lines again: egress resend 3-4,8,14,20"
    remedies = [finding.get("remedy") for finding in audited(path)[1]["findings"]]
    assert remedies == ["egress resend 3-4", "egress resend 8", "egress resend 14", "egress resend 20"]
    with proxy(path, loki, monkeypatch) as spool:
        result = egress(*said.partition("egress ")[2].split())
        assert result.exit_code == 0, result.output
        assert result.stdout == "lines to be sent again: 5; `egress status` shows how many wait\n"
        until(lambda: not spool.stats()["pending_records"])
    assert egress("audit").exit_code == 0
    own, store = audited(path)
    assert store["found"] == 19 and store["duplicates"] == 0 and own["findings"] == store["findings"] == []


def test_lines_that_the_destination_has_are_stored_only_once(path, loki, monkeypatch):
    """Resend lines that Loki already has. Loki ignores them: timestamp, text and metadata are identical."""
    with proxy(path, loki, monkeypatch) as spool:
        for _ in range(2):
            assert egress("resend", "1,3-8,10-20").exit_code == 0
            until(lambda: not spool.stats()["pending_records"])
    report = audited(path)[1]
    assert (report["found"], report["duplicates"], report["findings"]) == (20, 0, [])


def test_audit_reports_which_absent_lines_are_lost(path, loki, monkeypatch):
    fill_loki(path, loki, 1, 3, 2, 9)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{loki.url}/otlp/v1/logs")
    with Spool(path, sync_seconds=None) as spool, spool._storage.transaction() as (db, _):
        db.execute(
            "DELETE FROM records WHERE seq = 1"
        )  # Simulate pruning: at its size limit, the spool deletes its oldest acknowledged lines.
    first, second = audited(path)[1]["findings"]
    assert "the spool no longer has 1 of them" in first["detail"] and "remedy" not in first
    assert second["remedy"] == "egress resend 3"
    result = egress("resend", "1-3")
    assert result.exit_code == 2 and commands_of(path) == []
    assert "line 1: no longer in the spool, so no copy is left to send" in result.stderr


# ── without a proxy ──────────────────────────────────────────────────────────────────────────────────────────────


def test_command_without_a_proxy_is_kept_until_its_start(path):
    result = egress("dead-letter", "retry", 2)
    assert result.exit_code == 0
    assert "no proxy is running on this spool: the command is saved in " in result.stdout
    (file,) = commands_of(path)
    assert file in result.stdout
    assert json.loads(egress("resend", 5, "--json").stdout) == {
        "action": "resend", "lines": 1, "state": "kept", "changed": 0
    }  # fmt: skip
    with Spool(path, sync_seconds=0.01) as spool:
        until(lambda: not commands_of(path))
        assert [line.seq for line in spool.pending(1 << 40)] == [2, 5, 21, 22]


def test_result_is_also_printed_as_json(path, monkeypatch):
    monkeypatch.setattr(command, "WAIT_SECONDS_STOPPED", 30)
    with Spool(path, sync_seconds=0.01):
        result = egress("dead-letter", "drop", "--all", "--yes", "--json")
        assert json.loads(result.stdout) == {"action": "drop", "lines": 2, "state": "done", "changed": 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dead-letter", "retry"], "select dead letters by number"),
        (["dead-letter", "retry", "2", "--all"], "or add --all, not both"),
        (["dead-letter", "retry", "2", "3"], "no dead letter has the number 3;"),
        (["dead-letter", "retry", "10-99"], "no dead letter has the number 10-99;"),
        (["dead-letter", "retry", "x"], "'x' is not a number of lines; write 12, 12-40 or 12,14-16"),
        (["dead-letter", "retry", "0"], "'0' is not a number of lines"),
        (["dead-letter", "retry", "5-3"], "'5-3' is not a number of lines"),
        (["dead-letter", "retry", "2,"], "'' is not a number of lines"),
        (["dead-letter", "retry", "9" * 30], "is not a number of lines"),
        (["dead-letter", "drop", "--all"], "this deletes 2 dead letters ("),
        (["resend", "2"], "line 2: dead letters (`egress dead-letter retry` sends them)"),
        (["resend", "1-30"], "lines 21-30: not recorded yet (the newest line is 20)"),
        (["resend", "\x1b[2J"], "'\\x1b[2J' is not a number of lines"),
    ],
)
def test_invalid_input_causes_one_message_and_no_change(path, words, message):
    result = egress(*words)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.startswith("egress: nothing was changed: ")
    assert result.stderr.count("\n") == 1 and commands_of(path) == []


def test_lines_that_wait_already_or_were_recorded_without_a_destination_are_not_resent(path):
    with Spool(path, sync_seconds=None) as spool:
        spool.checkpoint()
    with Spool(path, sync_seconds=None, local=True) as spool:
        spool.checkpoint()
    result = egress("resend", "21-22")
    assert "line 21: already waiting for the exporter; line 22: recorded without a destination" in result.stderr


@pytest.mark.parametrize("action", ["retry", "drop"])
def test_reason_without_a_dead_letter_exits_with_1(path, action):
    result = egress("dead-letter", action, "--all", "--reason", "too_new")
    assert result.exit_code == 1 and "the reasons are: 1 too_old, 1 line_too_long" in result.stderr


def test_empty_spool_has_no_dead_letters(tmp_path, monkeypatch):
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    Spool(tmp_path / "spool.db", sync_seconds=None).close()
    assert egress("dead-letter", "list").stderr == "egress: no dead letters\n"
    assert egress("dead-letter", "retry", "--all").exit_code == 1


# ── lines that Loki refuses as too old ───────────────────────────────────────────────────────────────────────────


def spool_at(path, *ages: int):
    """Write an acknowledged line of each of these ages (in hours), and return the spool's path."""
    now = time.time_ns()
    clock = iter([now - hours * HOUR for hours in ages])
    with Spool(path, sync_seconds=None, clock_ns=lambda: next(clock)) as spool:
        for name in "abcdef"[: len(ages)]:
            spool.close_exchange(chains.exchange(name))
        spool.acknowledge(range(1, len(ages) + 1))
    return path


@pytest.fixture
def old(tmp_path, monkeypatch, path):
    """Return a spool with two acknowledged lines, one of them eight days old."""
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path / "old"))
    return spool_at(tmp_path / "old" / "spool.db", 8 * 24, 0)


@pytest.fixture
def behind(tmp_path, monkeypatch, path):
    """Return a spool with acknowledged lines that are five hours, two hours and five minutes old, and a new one."""
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path / "behind"))
    return spool_at(tmp_path / "behind" / "spool.db", 5, 2, 0, 0)


def resent(loki) -> dict[int, str]:
    """Return the label `service_namespace` of the lines in Loki by line number. Only resent lines have this label."""
    return {
        json.loads(line)["seq"]: labels["service_namespace"]
        for _, line, labels in loki.records("openclaw-proxy")
        if "service_namespace" in labels
    }


def test_line_far_behind_is_resent_in_a_stream_of_its_own_and_the_audit_finds_it(behind, loki, monkeypatch):
    fill_loki(behind, loki, 1, 2, 3)
    with proxy(behind, loki, monkeypatch) as spool:
        assert egress("resend", "1-3").exit_code == 0
        until(lambda: not spool.stats()["pending_records"])
        assert spool.dead_letters() == {}
    found = resent(loki)
    assert set(found) == {1, 2}, "line 3 is not far behind"
    assert len(set(found.values())) == 1
    loki.store.flush()  # Before a flush, queries do not find lines that are older than three hours.
    own, store = audited(behind)
    assert (store["found"], store["duplicates"], own["findings"], store["findings"]) == (5, 0, [], [])


def test_each_resend_has_its_own_stream(behind, loki, monkeypatch):
    fill_loki(behind, loki, 1, 2)
    with proxy(behind, loki, monkeypatch) as spool:
        for seq in (2, 1, 1):
            assert egress("resend", seq).exit_code == 0
            until(lambda: not spool.stats()["pending_records"])
        assert spool.dead_letters() == {}
    assert set(resent(loki)) == {1, 2}
    namespaces = [labels["service_namespace"] for *_, labels in loki.records() if "service_namespace" in labels]
    assert len(namespaces) == len(set(namespaces)) == 3
    assert all(namespace.count("resent-") == 1 for namespace in namespaces)


def test_dead_letter_far_behind_is_accepted_after_a_retry(behind, loki, monkeypatch):
    fill_loki(behind, loki, 1)
    with Spool(behind, sync_seconds=None) as spool:
        spool._storage.db.execute("UPDATE records SET state = 0 WHERE seq = 1")
    with proxy(behind, loki, monkeypatch) as spool:
        until(lambda: spool.dead_letters() == {"too_far_behind": 1})
        assert egress("dead-letter", "retry", 1).exit_code == 0
        until(lambda: not spool.stats()["pending_records"])
        assert spool.dead_letters() == {}
    assert set(resent(loki)) == {1}


def test_line_that_is_too_old_for_loki_is_reported_before_it_is_sent(old):
    result = egress("resend", "1-2")
    assert result.exit_code == 2 and commands_of(old) == []
    assert "Loki with default limits refuses 1 of 2 lines (1) for ever: they are older than 7 days" in result.stderr
    assert "(reject_old_samples_max_age)" in result.stderr
    assert egress("resend", 2).exit_code == 0
    assert egress("resend", 1, "--old").exit_code == 0


def test_line_that_is_too_old_for_loki_becomes_a_dead_letter_with_this_reason(old, loki, monkeypatch):
    with proxy(old, loki, monkeypatch) as spool:
        assert egress("resend", 1, "--old").exit_code == 0
        until(spool.dead_letters)
        assert spool.dead_letters() == {"too_old": 1}


def test_retry_warns_about_lines_that_are_too_old_for_loki(old):
    with Spool(old, sync_seconds=None) as spool:
        spool._storage.db.execute("UPDATE records SET state = 0 WHERE seq = 1")
        spool.dead_letter([1], TOO_OLD)
    result = egress("dead-letter", "retry", 1)
    assert result.exit_code == 0
    assert result.stderr.startswith(
        "egress: warning: Loki with default limits refuses 1 of 1 lines (1) for ever: they are older than 7 days"
    )


def test_victoria_logs_accepts_lines_of_any_age(old, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://10.0.0.2:9428/insert/opentelemetry/v1/logs")
    assert egress("resend", "1-2").exit_code == 0
