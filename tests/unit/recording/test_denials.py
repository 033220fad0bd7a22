"""Tests of denial records: one record per denial up to a rate limit, and above it a summary with the exact count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.app.service import Service
from openclaw_egress.policy.codes import Code, Evidence, summary
from openclaw_egress.policy.destination import parse_destination
from openclaw_egress.policy.model import Decision
from openclaw_egress.recording.denials import (
    ANY,
    MAX_KEYS,
    SINGLY_PER_CLASS,
    SINGLY_PER_KEY,
    WINDOW_SECONDS,
    Denial,
    DenialRate,
    Key,
    group_denials,
)
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import Filters, SpoolReader
from tests.support.proxy_process import free_ports

LOOP = Key("sandbox", "example.com", 443, "default", Code.NO_RULE)


def test_first_denials_are_recorded_and_the_rest_of_a_window_summarised():
    rate = DenialRate()
    kept = [rate.singly(LOOP, now=float(second)) for second in range(25)]
    assert kept == [True] * SINGLY_PER_KEY + [False] * (25 - SINGLY_PER_KEY)
    assert rate.due(now=WINDOW_SECONDS) == []
    assert rate.due(now=WINDOW_SECONDS + 1) == [(LOOP, 25 - SINGLY_PER_KEY)]
    assert rate.due(now=WINDOW_SECONDS + 2) == []


def test_denials_after_the_window_have_their_own_records_again():
    rate = DenialRate()
    for _ in range(SINGLY_PER_KEY + 1):
        rate.singly(LOOP, now=0.0)
    assert rate.singly(LOOP, now=WINDOW_SECONDS + 1)
    assert rate.due(now=WINDOW_SECONDS + 1) == [(LOOP, 1)]


def test_new_names_in_a_loop_do_not_raise_the_rate():
    rate = DenialRate()
    kept = sum(
        rate.singly(Key("sandbox", f"{number}.example", 443, "default", Code.NO_RULE), now=0.0)
        for number in range(1000)
    )
    assert kept == SINGLY_PER_CLASS
    assert rate.due(now=0.0, everything=True) == [(Key("sandbox", ANY, 0, ANY, Code.VARIOUS), 1000 - SINGLY_PER_CLASS)]


def test_rate_of_one_class_does_not_affect_another():
    rate = DenialRate()
    for number in range(1000):
        rate.singly(Key("sandbox", f"{number}.example", 443, "default", Code.NO_RULE), now=0.0)
    assert rate.singly(Key("browser", "example.com", 443, "default", Code.NO_RULE), now=0.0)


def test_memory_is_bounded():
    rate = DenialRate()
    for number in range(MAX_KEYS * 2):
        rate.singly(Key("sandbox", f"{number}.example", 443, "default", Code.NO_RULE), now=0.0)
    assert len(rate._windows) <= MAX_KEYS


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.floats(0, 30)), max_size=200))
def test_every_denial_is_kept_or_counted_exactly_once(steps):
    rate, now, kept, counted = DenialRate(), 0.0, 0, 0
    for class_name, destination, pause in steps:
        now += pause
        kept += rate.singly(Key(class_name, destination, 443, "default", Code.NO_RULE), now)
        counted += sum(count for _, count in rate.due(now))
    counted += sum(count for _, count in rate.due(now, everything=True))
    assert kept + counted == len(steps)


def test_reported_and_enforced_denials_are_counted_separately():
    rate = DenialRate()
    reported = LOOP._replace(enforced=False)
    for _ in range(SINGLY_PER_KEY + 2):
        rate.singly(LOOP, now=0.0)
        rate.singly(reported, now=0.0)
    assert rate.due(now=0.0, everything=True) == [(LOOP, 2), (reported, 2)]


# ── grouped denials ──────────────────────────────────────────────────────────────────────────────────────────────


def denial(**changes) -> Denial:
    known: dict = {
        "class_name": "sandbox", "host": "a.example", "port": 443, "rule": "default", "reason": "why", "time_ns": 1,
    }  # fmt: skip
    return Denial(**known | changes)


def test_denials_are_grouped_by_class_destination_and_rule_the_most_frequent_first():
    groups = group_denials(
        [
            denial(host="once.example", time_ns=3),
            denial(time_ns=5),
            denial(time_ns=4, count=7, reason=summary(7), summary=True),
            denial(port=80, time_ns=9),
            denial(class_name="browser", time_ns=1),
            denial(rule="classes.sandbox.deny[0]", time_ns=2),
        ]
    )
    assert [(group.class_name, group.destination, group.rule, group.count) for group in groups] == [
        ("sandbox", "a.example:443", "default", 8),
        ("sandbox", "a.example:80", "default", 1),
        ("sandbox", "once.example:443", "default", 1),
        ("sandbox", "a.example:443", "classes.sandbox.deny[0]", 1),
        ("browser", "a.example:443", "default", 1),
    ]
    assert groups[0].last_ns == 5


def test_group_counts_enforced_and_reported_denials():
    (group,) = group_denials([denial(), denial(enforced=False, count=4), denial(enforced=False)])
    assert (group.enforced, group.reported, group.count) == (1, 5, 6)


def test_group_has_the_reason_of_its_newest_single_record():
    counted = denial(count=3, reason=summary(3), time_ns=9, summary=True)
    (group,) = group_denials([counted, denial(reason="old", time_ns=1), denial(reason="new", time_ns=2), counted])
    assert group.reason == "new"


def test_destination_is_shown_as_requested():
    texts = [denial(host=host, port=port) for host, port in (("::1", 80), (ANY, 0), ("no host at all", 0))]
    assert {group.destination for group in group_denials(texts)} == {"[::1]:80", "*", "no host at all"}


@pytest.mark.parametrize("enforced", [True, False])
def test_summary_records_account_for_every_denial(tmp_path, enforced):
    (port,) = free_ports(1)
    service = Service(Settings.load(state_dir=tmp_path, logs_endpoint="", health_port=port))
    evidence = Evidence(detail="no rule lets it")
    decision = Decision(
        True, "default", Code.NAME_NOT_RESOLVED, inspect=False, would_deny=not enforced, evidence=evidence
    )
    service.start()
    for number in range(SINGLY_PER_CLASS + 50):
        service.decisions.denied(
            "sandbox", parse_destination("loop.example", 443), decision, "CONNECT", "192.0.2.1", enforced=enforced
        )
        other = parse_destination(f"{number}.example", 443)
        service.decisions.denied("sandbox", other, decision, "CONNECT", "192.0.2.1", enforced=enforced)
    service.stop()
    with SpoolReader(tmp_path / "spool.db") as reader:
        groups = {group.destination: group for group in group_denials(reader.denials(Filters()))}
    assert {(bool(group.enforced), bool(group.reported)) for group in groups.values()} == {(enforced, not enforced)}
    assert sum(group.count for group in groups.values()) == 2 * (SINGLY_PER_CLASS + 50)
    assert groups["loop.example:443"].count == SINGLY_PER_CLASS + 50
    assert groups["loop.example:443"].reason == decision.reason
    assert groups["loop.example:443"].code == Code.NAME_NOT_RESOLVED
    assert groups[ANY].count == 50 + SINGLY_PER_KEY
    assert groups[ANY].code == Code.VARIOUS
