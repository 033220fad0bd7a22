"""Tests of class budgets: tokens and dollars per hour or day. A restart of the proxy does not reset them."""

import logging

import pytest

from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.model import ClassPolicy, Limits, Policy
from openclaw_egress.proxy.budgets import Budgets, Spent

NANO = 10**9
HOUR_NS = 3600 * NANO
DAY = 24 * HOUR_NS
MIDNIGHT = 20_785 * DAY  # 2026-11-28T00:00:00Z


class Clock:
    now = MIDNIGHT

    def __call__(self) -> int:
        return self.now


def budgets(clock: Clock, stored: tuple[Spent, ...] = (), **limits: float) -> tuple[Budgets, ClassPolicy]:
    found = ClassPolicy("sandbox", 8082, "open", limits=Limits(**limits))
    policy = Policy({"sandbox": found}, (), {}, "0")
    return Budgets(lambda: policy, lambda since: [one for one in stored if one.hour >= since], clock), found


def test_class_without_budgets_is_never_refused():
    tested, found = budgets(Clock())
    tested.add("sandbox", 10**12, 10**6)
    assert tested.exceeded(found) is None
    assert tested.shares() == {}


def test_tokens_of_an_hour_are_refused_until_the_next_hour():
    clock = Clock()
    tested, found = budgets(clock, tokens_per_hour=1000)
    clock.now = MIDNIGHT + HOUR_NS // 2
    tested.add("sandbox", 999, None)
    assert tested.exceeded(found) is None
    tested.add("sandbox", 1, None)
    over = tested.exceeded(found)
    assert over.decision.code is Code.BUDGET_EXCEEDED
    assert not over.decision.allow
    assert over.decision.rule == "classes.sandbox.limits.tokens_per_hour"
    assert over.decision.evidence.allows == "2026-11-28T01:00:00Z"
    assert over.wait_seconds == 1800
    clock.now = MIDNIGHT + HOUR_NS - 1
    assert tested.exceeded(found).wait_seconds == 1
    clock.now = MIDNIGHT + HOUR_NS
    assert tested.exceeded(found) is None


def test_dollars_of_a_day_are_refused_until_the_next_day():
    clock = Clock()
    tested, found = budgets(clock, cost_usd_per_day=2.5)
    for hour in range(5):
        clock.now = MIDNIGHT + hour * HOUR_NS
        assert tested.exceeded(found) is None
        tested.add("sandbox", 7, 0.5)
    over = tested.exceeded(found)
    assert over.decision.evidence.allows == "2026-11-29T00:00:00Z"
    assert over.wait_seconds == 20 * 3600
    clock.now = MIDNIGHT + DAY - 1
    assert tested.exceeded(found) is not None
    clock.now = MIDNIGHT + DAY
    assert tested.exceeded(found) is None
    tested.add("sandbox", 1, 0.1)
    assert tested.shares() == {("sandbox", "cost_usd_per_day"): pytest.approx(0.04)}


def test_budget_with_the_longest_wait_is_reported():
    tested, found = budgets(Clock(), tokens_per_hour=10, tokens_per_day=10)
    tested.add("sandbox", 10, None)
    assert tested.exceeded(found).decision.evidence.limit == "tokens_per_day"


def test_other_classes_and_unknown_costs_do_not_count():
    tested, found = budgets(Clock(), tokens_per_day=10, cost_usd_per_day=1)
    tested.add("gateway", 100, 100.0)
    tested.add("sandbox", 9, None)
    assert tested.exceeded(found) is None


def test_stored_totals_of_the_day_count_after_a_restart():
    clock = Clock()
    clock.now = MIDNIGHT + 5 * HOUR_NS
    hour = MIDNIGHT // HOUR_NS
    stored = (
        Spent("sandbox", hour - 1, 1000, 0),
        Spent("sandbox", hour, 600, 0),
        Spent("sandbox", hour + 5, 300, 0),
        Spent("gateway", hour, 1000, 0),
    )
    tested, found = budgets(clock, stored, tokens_per_day=1000, tokens_per_hour=301)
    assert tested.exceeded(found) is None
    assert tested.shares()[("sandbox", "tokens_per_day")] == 0.9
    tested.add("sandbox", 1, None)
    assert tested.exceeded(found).decision.evidence.limit == "tokens_per_hour"
    tested.add("sandbox", 99, None)
    assert tested.exceeded(found).decision.evidence.limit == "tokens_per_day"


def test_warning_is_logged_once_in_a_period(caplog):
    clock = Clock()
    tested, _ = budgets(clock, tokens_per_hour=100)
    with caplog.at_level(logging.WARNING):
        for tokens in (79, 1, 5, 100):
            tested.add("sandbox", tokens, None)
        assert len(caplog.records) == 1
        clock.now += HOUR_NS
        tested.add("sandbox", 80, None)
        assert len(caplog.records) == 2


def test_memory_does_not_grow_with_the_hours():
    clock = Clock()
    tested, _ = budgets(clock, tokens_per_day=10)
    for hour in range(1000):
        clock.now = MIDNIGHT + hour * HOUR_NS
        tested.add("sandbox", 1, 0.1)
    assert len(tested._days["sandbox"].tokens) <= 24
    assert len(tested._warned) < 5
