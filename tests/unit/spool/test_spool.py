"""Tests of the spool: committed records are never lost, the hash chain has no gap, and the limits are enforced."""

import hashlib
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from itertools import count, pairwise, product
from pathlib import Path

import pytest

from openclaw_egress.llm.model import RequestFacts, ResponseFacts, Usage
from openclaw_egress.recording.hash_chain import GENESIS
from openclaw_egress.recording.log_lines import reassemble
from openclaw_egress.recording.records import Body, DeniedRecord, EventRecord, ExchangeRecord
from openclaw_egress.recording.redaction import redact_headers, redact_url
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.writer import Spool, SpoolError


def exchange(name: str, size: int = 10, class_name: str = "gateway", **changes) -> ExchangeRecord:
    known = {
        "id": name,
        "class_name": class_name,
        "method": "POST",
        "url": "https://api.anthropic.com/v1/messages",
        "host": "api.anthropic.com",
        "port": 443,
        "begin_ns": 1_000,
        "end_ns": 2_000,
        "status": 200,
        "response_body": Body.of(b"x" * size),
    }
    return ExchangeRecord(**{**known, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool.db"


@pytest.fixture
def spool(path: Path):
    with Spool(path, sync_seconds=None) as opened:
        yield opened


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement)


def seqs(spool: Spool) -> list[int]:
    return [record.seq for record in spool.pending(1 << 40)]


# ── the chain ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_have_numbers_from_1_and_the_previous_lines_hash(spool):
    assert spool.head() == (0, GENESIS)
    assert spool.close_exchange(exchange("a")) == [1]
    assert spool.add(EventRecord(event_name="openclaw.egress.policy", message="loaded")) == [2]
    first, second = spool.reader.line(1), spool.reader.line(2)
    assert json.loads(first)["prev"] == GENESIS
    assert json.loads(second)["prev"] == hashlib.sha256(first.encode()).hexdigest()
    assert spool.head() == (2, hashlib.sha256(second.encode()).hexdigest())


def test_number_chain_and_instance_continue_after_a_restart(path):
    with Spool(path, sync_seconds=None) as before:
        before.close_exchange(exchange("a"))
        instance = before.instance_id
    with Spool(path, sync_seconds=None) as after:
        assert after.close_exchange(exchange("b")) == [2]
        assert after.instance_id == instance
        assert after.reader.audit().problems == ()


def test_time_increases_even_if_the_clock_is_set_back(path):
    clock = iter([100, 100, 50, 101])
    with Spool(path, sync_seconds=None, clock_ns=lambda: next(clock)) as spool:
        for name in "abcd":
            spool.close_exchange(exchange(name))
        times = [record.time_ns for record in spool.pending(1 << 40)]
    assert times == [100, 101, 102, 103]


def test_time_increases_across_a_restart(path):
    with Spool(path, sync_seconds=None, clock_ns=lambda: 500) as spool:
        spool.close_exchange(exchange("a"))
    with Spool(path, sync_seconds=None, clock_ns=lambda: 400) as spool:
        spool.close_exchange(exchange("b"))
        assert [record.time_ns for record in spool.pending(1 << 40)] == [500, 501]


def test_times_follow_the_clock_again_after_a_clock_far_ahead(path):
    hour = 3600 * 10**9
    times = iter([hour, 4 * hour, hour + 5, hour + 5, hour + 6])
    with Spool(path, sync_seconds=None, clock_ns=lambda: next(times)) as spool:
        for name in "abcd":
            spool.close_exchange(exchange(name))
        # Line 3 reports that the clock was set back. Line 2 is exported last, because its timestamp is in the future.
        assert [(line.seq, line.time_ns - hour) for line in spool.pending(1 << 40)] == [
            (1, 0), (3, 6), (4, 7), (5, 8), (2, 3 * hour)
        ]  # fmt: skip
        assert json.loads(spool.reader.line(3))["openclaw.egress.outcome"] == "clock_set_back"
        assert spool.reader.audit().problems == ()


def test_search_for_a_period_finds_the_same_lines_as_reading_the_whole_ledger(path):
    hour = 3600 * 10**9
    times = (9 * hour + at if 5 <= at < 9 else hour + 2 * at for at in count())
    with Spool(path, sync_seconds=None, clock_ns=lambda: next(times)) as spool:
        for number in range(14):
            spool.close_exchange(exchange(str(number)))
        assert spool.reader.lines_after_clock_change()
        stored = [time_ns for _, time_ns, _, _ in spool.reader.ledger(1, 99)]
        edges = [None, 0, *(time_ns + step for time_ns in stored for step in (0, 1))]
        for since, until in product(edges, edges):
            assert spool.reader.find_range(since, until) == spool.reader.range_of(since, until)


def test_search_in_an_empty_spool_finds_no_lines(path):
    with Spool(path, sync_seconds=None) as spool:
        assert spool.reader.find_range() == spool.reader.find_range(1, 2) == (1, 0)


def test_times_never_restart_before_an_acknowledged_line(path):
    """Set the clock back by more than an hour after an acknowledged line. Expect new lines not to use the new time.

    The destination accepted the timestamp of the acknowledged line, which shows that the clock was right then and is
    wrong now. Loki would refuse new lines that are more than an hour older than that line.
    """
    hour = 3600 * 10**9
    with Spool(path, sync_seconds=None, clock_ns=lambda: 4 * hour) as spool:
        spool.close_exchange(exchange("a"))
        spool.acknowledge([1])
    with Spool(path, sync_seconds=None, clock_ns=lambda: hour) as spool:
        spool.close_exchange(exchange("b"))
        spool.close_exchange(exchange("c"))
        assert [line.time_ns for line in spool.pending(1 << 40)] == [4 * hour + 1, 4 * hour + 2]
        spool.acknowledge([2])
        spool.close_exchange(exchange("d"))
        assert [line.seq for line in spool.pending(1 << 40)] == [3, 4]


def test_a_checkpoint_names_the_newest_line(spool):
    spool.close_exchange(exchange("a"))
    assert spool.checkpoint() == (1, hashlib.sha256(spool.reader.line(1).encode()).hexdigest())
    assert json.loads(spool.reader.line(2))["openclaw.egress.checkpoint.seq"] == 1


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE records SET otlp = (SELECT otlp FROM records WHERE seq = 1) WHERE seq = 2", "line 2 was changed"),
        ("DELETE FROM ledger WHERE seq = 2", "lines 2 to 2 are missing"),
        ("UPDATE ledger SET hash = zeroblob(32) WHERE seq = 1", "line 1 was changed"),
        ("UPDATE ledger SET time_ns = 0 WHERE seq = 3", "line 3 does not have a later time"),
    ],
)
def test_audit_finds_every_change(path, damage, problem):
    with Spool(path, sync_seconds=None) as spool:
        for name in "abc":
            spool.close_exchange(exchange(name))
    change(path, damage)
    with SpoolReader(path) as reader:
        assert any(found.startswith(problem) for found in reader.audit().problems)


# ── the journal ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_exchange_that_is_closed_leaves_no_journal(spool, path):
    spool.open_exchange("a", "gateway", {"method": "POST"})
    spool.append("a", "response", b"abc")
    assert spool.stats()["journal_bytes"] == 3
    spool.close_exchange(exchange("a"))
    assert (spool.stats()["journal_bytes"], spool.stats()["open_exchanges"]) == (0, 0)
    assert spool.recover() == 0
    assert [row.id for row in spool.reader.query()] == ["a"]


def test_exchange_in_progress_at_a_crash_becomes_an_interrupted_record(path):
    with Spool(path, sync_seconds=None) as spool:
        head = {
            "method": "POST", "url": "https://api.openai.com/v1/responses", "host": "api.openai.com", "port": 443,
            "request_headers": [["accept", "*/*"]], "request_facts": RequestFacts(model="gpt-6"), "begin_ns": 5,
            "unknown": "ignored",
        }  # fmt: skip
        spool.open_exchange("a", "sandbox", head)
        spool.append_pieces("a", "request", [b'{"model"', b':"gpt-6"}'])
        spool.update("a", {**head, "status": 200, "response_headers": [["x", "y"]], "request_complete": True})
        spool.append("a", "response", "data: é".encode()[:-1])
    with Spool(path, sync_seconds=None) as spool:
        assert spool.recover() == 1
        assert spool.recover() == 0
        (row,) = spool.reader.query()
        found = reassemble(spool.reader.lines_for("a"))
    assert (row.outcome, row.class_name, row.model, row.status) == ("interrupted", "sandbox", "gpt-6", 200)
    assert found["request"]["body"] == '{"model":"gpt-6"}'
    assert found["request"]["body_sha256"] == hashlib.sha256(b'{"model":"gpt-6"}').hexdigest()
    assert (found["response"]["body"], found["response"]["body_size"]) == ("data: ", 7)
    assert found["response"]["body_sha256"] is None


@pytest.mark.parametrize("how", ["withheld", "left"])
def test_interrupted_record_has_no_bodies_that_are_credentials(path, how):
    with Spool(path, sync_seconds=None) as spool:
        head = {"method": "POST", "url": "https://h.example/x", "request_complete": True, "request_size": 6}
        spool.open_exchange("e1", "gateway", head)
        spool.append("e1", "request", b"hunter")
        if how == "withheld":
            spool.withhold("e1")
            spool.recover()
        else:
            spool.leave("e1", recorded=True, secret=True)
            assert spool.relieve()
        (row,) = spool.reader.query()
        request = reassemble(spool.reader.lines_for("e1"))["request"]
    assert row.outcome == "interrupted"
    assert (request["body"], request["body_size"], request["body_sha256"]) == ("[redacted]", 6, None)


def test_interrupted_exchange_without_known_fields_is_recorded(spool):
    spool.open_exchange("a", "gateway", {})
    assert spool.recover() == 1
    assert [(row.id, row.outcome) for row in spool.reader.query()] == [("a", "interrupted")]


def test_invalid_unicode_is_recorded(spool):
    odd = "a\udcff\ud800"
    spool.open_exchange("a", "gateway", {"url": odd, "request_headers": [[odd, odd]]})
    spool.close_exchange(exchange("b", url=odd, request_headers=[(odd, odd)], reason=odd))
    assert spool.recover() == 1


# ── queries ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_long_exchange_is_one_row_and_is_reassembled_completely(spool):
    body = "é€😀" * 100_000
    assert len(spool.close_exchange(exchange("long", response_body=Body.of(body.encode())))) > 4
    assert len(list(spool.reader.query())) == 1
    assert reassemble(spool.reader.lines_for("long"))["response"]["body"] == body


def test_rows_have_the_values_that_the_cli_shows(spool):
    facts = ResponseFacts("claude-opus-5-1", "msg", ("end_turn",), Usage(10, 5))
    spool.close_exchange(exchange("a", response_facts=facts, end_ns=2_500_001_000))
    (row,) = spool.reader.query()
    assert (row.method, row.host, row.status, row.outcome) == ("POST", "api.anthropic.com", 200, "complete")
    assert (row.model, row.input_tokens, row.output_tokens) == ("claude-opus-5-1", 10, 5)
    assert (row.cache_read_tokens, row.duration, row.state) == (None, 2.5, "pending")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(), ["a", "b", "c", "d"]),
        (Filters(newest_first=True), ["d", "c", "b", "a"]),
        (Filters(limit=2), ["c", "d"]),
        (Filters(class_name="sandbox"), ["b", "d"]),
        (Filters(status=200), ["a"]),
        (Filters(status_min=400, status_max=499), ["b"]),
        (Filters(model="claude-*"), ["c"]),
        (Filters(host="api.*.com"), ["a", "b", "c"]),
        (Filters(outcome="upstream_error"), ["c"]),
        (Filters(event_names=["openclaw.egress.denied"]), ["d"]),
        (Filters(after_seq=2), ["c", "d"]),
        (Filters(since_ns=102, until_ns=104), ["b", "c"]),
        (Filters(id="c"), ["c"]),
        (Filters(state="acknowledged"), ["a"]),
        (Filters(method="CONNECT"), ["d"]),
    ],
)
def test_each_filter_finds_its_rows(path, filters, found):
    clock = iter(range(101, 200))
    with Spool(path, sync_seconds=None, clock_ns=lambda: next(clock)) as spool:
        spool.close_exchange(exchange("a"))
        spool.close_exchange(exchange("b", status=429, class_name="sandbox"))
        facts = RequestFacts(model="claude-x")
        spool.close_exchange(exchange("c", status=None, outcome="upstream_error", request_facts=facts))
        spool.add(
            DeniedRecord(
                id="d", class_name="sandbox", host="x", port=1, rule="r", code="no_rule", reason="w", method="CONNECT"
            )
        )
        spool.acknowledge([1])
        assert [row.id for row in spool.reader.query(filters)] == found


def test_another_connection_reads_while_the_proxy_writes(spool, path):
    spool.close_exchange(exchange("a"))
    with SpoolReader(path) as reader:
        spool.close_exchange(exchange("b"))
        assert [row.id for row in reader.query()] == ["a", "b"]
        assert reader.instance_id == spool.instance_id
        assert reader.stats().items() <= spool.stats().items()


def test_reader_reports_a_missing_spool(path):
    with pytest.raises(SpoolError, match="the file does not exist yet"):
        SpoolReader(path)


# ── the queue ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pending_returns_lines_in_order_up_to_a_size_and_at_least_one(spool):
    for name in "abc":
        spool.close_exchange(exchange(name, 10_000))
    assert [record.seq for record in spool.pending(25_000)] == [1, 2]
    assert [record.seq for record in spool.pending(1)] == [1]


def test_no_query_for_export_or_pruning_sorts_the_backlog(path):
    """Check the query plans. A sort would read every pending line, including its body, for each push."""
    said: list[str] = []
    with Spool(path, 40_000, sync_seconds=None) as spool:
        for connection in (spool._storage.db, spool.reader._read()):
            connection.set_trace_callback(said.append)
        for number in range(30):
            spool.add(exchange(f"e{number}", 2_000))
            if number % 2:
                spool.acknowledge([spool.pending(1)[0].seq])
        assert spool.oldest_pending() is not None and spool.pending_since(0)
        spool.relieve()
        queries = {text for text in said if text.startswith("SELECT") and "FROM records" in text}
        plans = {query: spool._storage.db.execute(f"EXPLAIN QUERY PLAN {query}").fetchall() for query in queries}
    # Ignore queries for dead letters (state 2): sorting them is cheap, because there are few.
    sorting = [query for query, plan in plans.items() if "TEMP B-TREE" in str(plan) and "state = 2" not in query]
    assert len(queries) > 5 and not sorting


def test_acknowledged_line_is_not_pending_but_stays_readable(spool):
    for name in "abc":
        spool.close_exchange(exchange(name))
    spool.acknowledge([1, 3])
    assert seqs(spool) == [2]
    assert [row.state for row in spool.reader.query()] == ["acknowledged", "pending", "acknowledged"]


def test_the_encoded_bytes_are_the_same_after_a_restart_under_another_name(path):
    with Spool(path, sync_seconds=None, host_name="one") as spool:
        spool.close_exchange(exchange("a"))
        before = spool.pending(1)
    with Spool(path, sync_seconds=None, host_name="two") as spool:
        assert spool.pending(1) == before
        spool.close_exchange(exchange("b"))
        first, second = spool.pending(1 << 20)
        assert first.resource != second.resource


def test_dead_letter_is_marked_and_a_line_names_it(spool):
    for name in "abc":
        spool.close_exchange(exchange(name))
    spool.dead_letter([2], "line_too_long: max entry size")
    assert seqs(spool) == [1, 3, 4]
    (dead,) = spool.reader.query(Filters(state="dead_letter"))
    assert (dead.id, dead.why) == ("b", "line_too_long: max entry size")
    note = json.loads(spool.reader.line(4))
    assert note["openclaw.egress.spool.first_seq"] == note["openclaw.egress.spool.last_seq"] == 2
    assert note["openclaw.egress.spool.last_hash"] == hashlib.sha256(spool.reader.line(2).encode()).hexdigest()


def test_without_a_destination_lines_are_kept_and_none_is_pending(path):
    with Spool(path, sync_seconds=None, local=True) as spool:
        spool.close_exchange(exchange("a"))
        assert seqs(spool) == []
        assert [row.state for row in spool.reader.query()] == ["local"]


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────

LIMIT = 1_000_000


def fill(spool: Spool, count: int, class_name: str = "gateway", prefix: str = "") -> None:
    for n in range(count):
        spool.close_exchange(exchange(f"{prefix}{class_name}{n}", 20_000, class_name))


def test_acknowledged_lines_are_pruned_before_pending_ones(path):
    with Spool(path, LIMIT, sync_seconds=None) as spool:
        fill(spool, 20)
        spool.acknowledge(range(11, 21))
        fill(spool, 35, prefix="later")
        assert {1, 10, 55} <= set(seqs(spool))
        assert spool.reader.line(11) is None
        assert spool.used_bytes <= LIMIT
        assert spool.dropped_lines == 0


def test_ledger_keeps_the_hashes_of_pruned_lines(path):
    with Spool(path, LIMIT, sync_seconds=None, local=True) as spool:
        fill(spool, 100)
        audit = spool.reader.audit()
        assert spool.used_bytes <= LIMIT
    assert (audit.lines, audit.problems) == (100, ())
    assert audit.kept < 60


DAY_NS = 86_400 * 10**9


def aged(path: Path, **more) -> tuple[Spool, Callable[[float], None]]:
    """Return a spool whose lines have a maximum age of 30 days, and a function that sets its clock to day N."""
    now = [0.0]
    spool = Spool(path, sync_seconds=None, max_age=timedelta(days=30), clock_ns=lambda: int(now[0] * DAY_NS), **more)
    return spool, lambda day: now.__setitem__(0, day)


def test_acknowledged_lines_are_deleted_at_their_maximum_age_and_others_stay(path):
    spool, set_day = aged(path)
    with spool:
        for day in range(1, 7):
            set_day(day)
            spool.close_exchange(exchange(f"{day}"))
        spool.acknowledge([1, 2, 4, 5])
        set_day(32.5)
        assert spool.expire() and not spool.expire()
        kept = [row.seq for row in spool.reader.query()]
        assert kept == [3, 4, 5, 6], "lines 3 and 6 are not acknowledged, and lines 4 and 5 are younger"
        set_day(400)
        assert spool.expire() and [row.seq for row in spool.reader.query()] == [3, 6]
        assert spool.reader.audit().problems == ()
        assert spool.stats()["acknowledged_records"] == 0 and spool.stats()["pending_records"] == 2


def test_lines_without_a_destination_have_a_maximum_age_and_the_audit_explains_them(path):
    spool, set_day = aged(path, local=True)
    with spool:
        for day in (1, 2, 40):
            set_day(day)
            spool.close_exchange(exchange(f"{day}", 2_000_000))
        assert spool.expire() and not spool.expire()
        assert {row.id for row in spool.reader.query()} == {"40"}
        assert spool.reader.audit().problems == ()


def test_line_of_a_clock_set_back_keeps_the_lines_behind_it(path):
    """Expect pruning to stop at the first line that it keeps: an audit could not distinguish a gap from tampering."""
    spool, set_day = aged(path, local=True)
    with spool:
        for day in (5, 90, 6):
            set_day(day)
            spool.close_exchange(exchange(f"{day}"))
        set_day(100)
        spool.expire()
        assert [row.id for row in spool.reader.query() if row.id] == ["90", "6"]


def test_line_with_a_time_in_the_future_is_deleted_with_the_old_ones_behind_it(path):
    spool, set_day = aged(path, local=True)
    with spool:
        for day in (5000, 11, 12, 399):
            set_day(day)
            spool.close_exchange(exchange(f"{day}"))
        set_day(20)
        assert not spool.expire(), "a line with a time in the future may be new"
        set_day(400)
        assert spool.expire()
        assert [row.id for row in spool.reader.query() if row.id] == ["399"]
        assert spool.reader.audit().problems == ()


def test_without_a_maximum_age_nothing_is_deleted(path):
    with Spool(path, sync_seconds=None, local=True, clock_ns=lambda: 2**62) as spool:
        spool.close_exchange(exchange("a"))
        assert not spool.expire() and spool.reader.line(1)


def test_at_the_limit_the_oldest_waiting_lines_are_dropped_and_named(path):
    with Spool(path, LIMIT, sync_seconds=None) as spool:
        fill(spool, 100)
        assert spool.used_bytes <= LIMIT
        waiting = seqs(spool)
        events = spool.reader.query(Filters(event_names=["openclaw.egress.spool"]))
        notes = [json.loads(spool.reader.line(row.seq)) for row in events]
        total = spool.head()[0]
        ledger = {seq: bytes(h).hex() for seq, h in spool.reader._read().execute("SELECT seq, hash FROM ledger")}
    named = {
        seq
        for note in notes
        for seq in range(note["openclaw.egress.spool.first_seq"], note["openclaw.egress.spool.last_seq"] + 1)
    } - {note["seq"] for note in notes}
    assert named == set(range(1, total + 1)) - set(waiting)
    assert sum(note["openclaw.egress.spool.lines"] for note in notes) == len(named) == spool.dropped_lines
    for note in notes:
        assert note["openclaw.egress.spool.last_hash"] == ledger[note["openclaw.egress.spool.last_seq"]]


def test_lines_of_one_class_do_not_displace_another_classs(path):
    with Spool(path, LIMIT, sync_seconds=None) as spool:
        fill(spool, 5, "gateway")
        fill(spool, 200, "sandbox")
        kept = [row.id for row in spool.reader.query(Filters(class_name="gateway"))]
    assert kept == [f"gateway{n}" for n in range(5)]


def test_all_lines_of_an_exchange_are_dropped_together(path):
    with Spool(path, LIMIT * 2, sync_seconds=None) as spool:
        for n in range(10):
            spool.close_exchange(exchange(str(n), 500_000))
        for row in spool.reader.query(Filters(class_name="gateway")):
            assert "missing_parts" not in reassemble(spool.reader.lines_for(row.id))
        orphans = (
            "SELECT count(*) FROM records "
            "WHERE part > 0 AND exchange_id NOT IN (SELECT exchange_id FROM records WHERE part = 0)"
        )
        assert spool.reader._read().execute(orphans).fetchone()[0] == 0


def test_full_spool_in_mode_block_drops_no_line(path):
    with Spool(path, LIMIT, "block", sync_seconds=None) as spool:
        assert not spool.full
        fill(spool, 60)
        assert spool.full
        assert len(seqs(spool)) == 60
        spool.acknowledge(range(1, 31))
        assert not spool.full


def test_counters_agree_with_the_file(path):
    with Spool(path, LIMIT, sync_seconds=None) as spool:
        fill(spool, 70)
        fill(spool, 30, "sandbox")
        spool.acknowledge(seqs(spool)[:5])
        spool.dead_letter(seqs(spool)[:3], "why")
        spool.open_exchange("o", "gateway", {})
        spool.append("o", "request", b"12345")
        counted = spool.stats()
        with SpoolReader(path) as reader:
            assert reader.stats().items() <= counted.items()
    with Spool(path, LIMIT, sync_seconds=None) as spool:
        assert {**spool.stats(), "dropped_lines": 0} == {**counted, "dropped_lines": 0}


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_the_owner_can_access_file_and_directory(spool, path):
    spool.close_exchange(exchange("a"))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for name in path.parent.iterdir():
        assert stat.S_IMODE(name.stat().st_mode) == 0o600, name


def test_second_writer_gets_the_process_id_of_the_first(spool, path):
    with pytest.raises(SpoolError, match=rf"another process \(pid {os.getpid()}\)"):
        Spool(path, sync_seconds=None)


def test_spool_can_be_opened_after_the_first_writer_closes(path):
    Spool(path, sync_seconds=None).close()
    Spool(path, sync_seconds=None).close()


def test_a_newer_schema_is_refused_by_both_kinds_of_reader(path):
    Spool(path, sync_seconds=None).close()
    change(path, "UPDATE meta SET value = 99 WHERE key = 'schema_version'")
    for opener in (Spool, SpoolReader):
        with pytest.raises(SpoolError, match="version 99"):
            opener(path)


@pytest.mark.wording
def test_file_that_is_not_a_database_is_refused_by_name(path):
    path.parent.mkdir()
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(SpoolError, match=r"spool\.db.*damaged"):
        Spool(path, sync_seconds=None)


@pytest.mark.wording
def test_full_disk_is_reported_in_one_message_and_loses_no_record(path):
    with Spool(path, sync_seconds=None) as spool:
        spool.close_exchange(exchange("a"))
        pages = spool._storage.db.execute("PRAGMA page_count").fetchone()[0]
        spool._storage.db.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLite reports a full disk above this size.
        spool.open_exchange("b", "gateway", {})
        with pytest.raises(SpoolError, match="the disk is full"):
            spool.close_exchange(exchange("b", 150_000))
        spool._storage.db.execute("PRAGMA max_page_count = 1000000")
        assert spool.close_exchange(exchange("b", 150_000)) == [2]
        assert spool.reader.audit().problems == ()
        assert spool.stats()["open_exchanges"] == 0


@pytest.mark.wording
def test_read_only_disk_is_reported_in_one_message(spool):
    spool._storage.db.execute("PRAGMA query_only = ON")  # Writes then fail as on a read-only disk.
    with pytest.raises(SpoolError, match=r"make .* writable"):
        spool.close_exchange(exchange("a"))
    assert spool.head() == (0, GENESIS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every directory")
def test_unwritable_directory_is_refused_by_name(path):
    path.parent.mkdir(mode=0o500)
    with pytest.raises(SpoolError, match="EGRESS_STATE_DIR"):
        Spool(path, sync_seconds=None)


def test_state_directory_that_is_a_file_is_refused_by_name(path):
    path.parent.write_text("")
    with pytest.raises(SpoolError, match="EGRESS_STATE_DIR"):
        Spool(path, sync_seconds=None)


def test_closed_spool_raises_a_clear_error(path):
    spool = Spool(path, sync_seconds=None)
    spool.close()
    with pytest.raises(SpoolError, match="closed"):
        spool.close_exchange(exchange("a"))


def test_flush_thread_moves_sqlites_log_into_the_file(path):
    with Spool(path, sync_seconds=0.01) as spool:
        before = path.stat().st_size
        for n in range(12):
            spool.close_exchange(exchange(str(n), 1_000_000))
        deadline = time.monotonic() + 30
        while path.stat().st_size <= before + 1_000_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_size > before + 1_000_000


def waits_for(holds) -> bool:
    deadline = time.monotonic() + 30
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(holds())


def test_only_the_flush_thread_probes_the_disk_after_a_failure(path, monkeypatch):
    with Spool(path, sync_seconds=0.05) as spool:
        probes = []
        fsync, fails = os.fsync, [True]

        def flush(descriptor):
            probes.append(threading.current_thread().name)
            if fails[0]:
                raise OSError(5, "Input/output error")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", flush)
        spool.add(EventRecord(event_name="a", message="b"))
        assert waits_for(lambda: spool.problem)
        head = spool._storage.totals.seq
        began = time.monotonic()
        assert [spool.works() for _ in range(1000)] == [False] * 1000
        assert time.monotonic() - began < 1 and spool._storage.totals.seq == head
        fails[0] = False
        assert waits_for(spool.works)
        assert set(probes) == {"spool-flush"}


def test_successful_probe_does_not_hide_a_failure_during_it(spool, monkeypatch):
    spool._storage.failed("the first failure")
    monkeypatch.setattr(spool._flusher, "sync", lambda: spool._storage.failed("the second failure"))
    assert not spool.relieve()
    assert spool.problem == "the second failure"


def test_the_flush_thread_survives_a_fault_and_reports_it(path, monkeypatch, caplog):
    with Spool(path, sync_seconds=0.02) as spool:
        faults = [RuntimeError("a fault")]

        def renew() -> None:
            if faults:
                raise faults[0]

        monkeypatch.setattr(spool._flusher, "_renew_reserve", renew)
        assert waits_for(lambda: spool.flush_problem)
        assert "RuntimeError: a fault" in spool.flush_problem
        faults.clear()
        assert waits_for(lambda: spool.flush_problem is None)
        assert spool._flusher.thread.is_alive()
    assert sum("the flush thread failed" in record.getMessage() for record in caplog.records) == 1


def test_no_secret_reaches_the_disk(path):
    secret = "sk-ant-api03-NeverOnDisk"
    headers = redact_headers([("authorization", f"Bearer {secret}"), ("x-api-key", secret), ("cookie", f"a={secret}")])
    url = redact_url(f"https://user:{secret}@api.anthropic.com/?key={secret}")
    with Spool(path, sync_seconds=None) as spool:
        spool.open_exchange("a", "gateway", {"url": url, "request_headers": headers})
        spool.close_exchange(exchange("a", url=url, request_headers=headers))
        spool.sync()
        for file in path.parent.iterdir():
            assert secret.encode() not in file.read_bytes(), file


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────────────────────────

WRITER = """
import sys, itertools
sys.path[:0] = [{addon!r}, {here!r}]
from test_spool import Spool, exchange
spool = Spool({path!r}, sync_seconds=0.05)
spool.recover()
print("ready", flush=True)
for n in itertools.count():
    name = f"{{sys.argv[1]}}-{{n}}"
    spool.open_exchange(name, "gateway", {{"method": "POST"}})
    print("open", name, flush=True)
    spool.append(name, "response", b"x" * 3000)
    print("closed", name, *spool.close_exchange(exchange(name, 400_000 if n % 7 == 0 else 500)), flush=True)
"""


def test_committed_lines_and_the_chain_survive_kill_9(path):
    here = Path(__file__).parent
    addon = str(here.parents[2] / "files" / "addon")
    code = WRITER.format(addon=addon, here=str(here), path=str(path))
    chance = random.Random(5)
    closed: dict[str, list[int]] = {}
    opened: set[str] = set()
    for life in range(5):
        command = [sys.executable, "-c", code, str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.05, 0.4))
            child.send_signal(signal.SIGKILL)
            said = child.stdout.read()
        for line in said.splitlines(keepends=True):
            words = line.split()
            if line.endswith("\n") and words[0] == "closed":
                closed[words[1]] = [int(seq) for seq in words[2:]]
            elif line.endswith("\n"):
                opened.add(words[1])
    with Spool(path, sync_seconds=None) as spool:
        spool.recover()
        rows = {row.id: row for row in spool.reader.query()}
        audit = spool.reader.audit()
        assert len(rows) == len(list(spool.reader.query())), "an exchange has two records"
        for name in closed:
            assert rows[name].outcome == "complete"
            assert reassemble(spool.reader.lines_for(name))["response"]["body_size"] in (500, 400_000)
        for name in opened - set(closed):
            assert rows[name].outcome in ("interrupted", "complete")
        assert all(later > earlier for earlier, later in pairwise(record.time_ns for record in spool.pending(1 << 40)))
    assert len(closed) > 5
    assert audit.problems == ()
    assert audit.kept == audit.lines == audit.last_seq
