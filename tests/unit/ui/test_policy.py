"""Tests of the policy page: it counts the uses of each rule in a limited number of lines."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from openclaw_egress.app.event_log import record_event
from openclaw_egress.recording.records import DeniedRecord
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.writer import Spool
from openclaw_egress.ui import policy, ranges
from openclaw_egress.ui.pages import render

RULE = ("sandbox", "default")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SpoolReader]:
    """Yield a spool in which lines 3 and 11 record that a policy was loaded, and each other line records 2 denials."""
    monkeypatch.setattr(ranges, "STEP", 7)
    known = {"class_name": RULE[0], "host": "a.example", "port": 443, "rule": RULE[1]}
    denied = DeniedRecord(**known, code="no_rule", reason="no", count=2)  # type: ignore[arg-type]
    loads = {3: "old", 11: "new"}
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        for line in range(1, 31):
            if line in loads:
                record_event(spool, "policy loaded", policy_digest=loads[line])
            else:
                spool.add(denied)
        yield spool.reader


def test_uses_are_counted_since_the_policy_was_loaded(reader):
    uses, since_ns, why, is_assumed = policy.read_uses(reader, "new", 0, lambda: 0.0)
    assert not is_assumed and uses.text(RULE) == "refused 38" and why == "the policy was loaded at that time"
    assert since_ns == ranges.time_of(reader, 11)


def test_policy_that_is_not_the_newest_has_no_uses(reader):
    assert policy.read_uses(reader, "old", 0, lambda: 0.0) is None


def test_count_stops_at_its_time_limit_and_reports_the_oldest_time(reader):
    times = iter(range(100))
    uses, since_ns, why, is_assumed = policy.read_uses(reader, "new", 0, lambda: float(next(times)))
    assert is_assumed
    assert uses.text(RULE) == "refused 14" and why == "the spool has more records than can be counted here"
    assert since_ns == ranges.time_of(reader, 24)


def test_uses_are_counted_over_the_whole_period(reader):
    since_ns = ranges.time_of(reader, 20)
    uses, counted_since_ns, why, is_assumed = policy.read_uses(reader, "new", since_ns, lambda: 0.0)
    assert not is_assumed
    assert uses.text(RULE) == "refused 22" and (counted_since_ns, why) == (since_ns, "")


@pytest.mark.parametrize(
    ("digest", "begin", "counted"),
    [("new", 9, ("refused 38", "the policy was loaded at that time")), ("old", 20, None)],
)
def test_lines_before_the_events_of_the_period_belong_to_the_policy_loaded_before(reader, digest, begin, counted):
    found = policy.read_uses(reader, digest, ranges.time_of(reader, begin), lambda: 0.0)
    assert (found and (found[0].text(RULE), found[2])) == counted


def test_damaged_event_contains_no_policy_digest(reader):
    with closing(sqlite3.connect(reader.path)) as db, db:
        db.execute("UPDATE records SET otlp = x'00112233' WHERE seq = 11")
    assert policy.read_uses(reader, "new", 0, lambda: 0.0) is None


@pytest.mark.parametrize("cause", ["pruned", "too far away"])
def test_policy_without_an_event_is_shown_as_an_assumption(reader, cause):
    """Expect the page to count all lines of the period, because it finds no earlier record of a loaded policy."""
    if cause == "pruned":
        with closing(sqlite3.connect(reader.path)) as db, db:
            db.execute("DELETE FROM records WHERE seq < 20")
    # For "too far away", the clock stands still for three readings while the page counts. It then advances by one
    # second per reading, so the search for an earlier record of a loaded policy reaches its time limit after one range
    # of lines. That range contains no such record.
    times = iter([0.0] * 3 + [float(number) for number in range(100)])
    clock = (lambda: 0.0) if cause == "pruned" else lambda: next(times)
    uses, _, why, is_assumed = policy.read_uses(reader, "new", ranges.time_of(reader, 20), clock)
    assert (uses.text(RULE), why, is_assumed) == ("refused 22", "", True)
    view = policy.PolicyView(file="", lines=[], hidden_lines=0, digest="new", is_assumed=is_assumed)
    assert "The page assumes that it was this policy." in render("policy.html", view=view)
    assert "assumes" not in render("policy.html", view=replace(view, is_assumed=False))
