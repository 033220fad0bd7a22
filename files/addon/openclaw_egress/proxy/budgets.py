"""Budgets of classes: limits on the tokens per hour or day, and on the cost per day.

The usage is counted in memory, in hourly totals that are read from the spool when the proxy starts. A call counts only
when it has ended, because the provider reports its tokens at the end. Calls in progress can therefore exceed the
budget. Hours and days are in UTC.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from openclaw_egress.policy.codes import Code, Evidence
from openclaw_egress.policy.model import ClassPolicy, Decision, Policy
from openclaw_egress.spool.usage_totals import HOUR_NS, NANO, nano_usd

log = logging.getLogger("openclaw_egress")

WARN_AT = 0.8
"""Fraction of a budget at which a warning is logged."""
HOUR, DAY = 1, 24
"""Lengths of the budget periods, in hours."""


class Budget(NamedTuple):
    """One kind of budget. ``limit`` is the name of its field in `Limits`."""

    limit: str
    hours: int
    """Length of the period: `HOUR` or `DAY`."""
    counts_cost: bool
    """True if the budget counts dollars, False if it counts tokens."""


BUDGETS = (
    Budget("tokens_per_hour", HOUR, False),
    Budget("tokens_per_day", DAY, False),
    Budget("cost_usd_per_day", DAY, True),
)


class Spent(NamedTuple):
    """The usage of a class in one hour."""

    class_name: str
    hour: int
    """Number of the hour since the Unix epoch."""
    tokens: int
    """Sum of input and output tokens."""
    cost_nano_usd: int


@dataclass(slots=True)
class _Day:
    """The usage of one class in each hour of the current day."""

    tokens: dict[int, int] = field(default_factory=dict)
    cost: dict[int, int] = field(default_factory=dict)


class Exceeded(NamedTuple):
    """A budget that is used up: the denial, and the seconds until the next period."""

    decision: Decision
    wait_seconds: int


class Budgets:
    """The usage of each class in the current budget periods. Only `shares` may be called outside the event loop.

    Args:
        policy: returns the current policy.
        read: returns the usage of all classes since a given hour, from the spool's totals; called only once.
        clock_ns: returns the current time in Unix nanoseconds.
    """

    def __init__(
        self,
        policy: Callable[[], Policy],
        read: Callable[[int], Iterable[Spent]],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._policy = policy
        self._now = clock_ns
        self._days: dict[str, _Day] = {}
        self._warned: set[tuple[str, str, int]] = set()
        for spent in read(self._hour() // DAY * DAY):
            self._add(spent)

    def _hour(self) -> int:
        return self._now() // HOUR_NS

    def add(self, class_name: str, tokens: int, cost_usd: float | None) -> None:
        """Count a call that has ended. Log a warning once the class has used the fraction `WARN_AT` of a budget."""
        self._add(Spent(class_name, self._hour(), tokens, nano_usd(cost_usd)))
        found = self._policy().classes.get(class_name)
        if found is None:
            return
        for budget, most in _budgets_of(found):
            used, begin = self._used(class_name, budget), self._begin(budget)
            if used >= WARN_AT * most and (class_name, budget.limit, begin) not in self._warned:
                self._warned = {warned for warned in self._warned if warned[2] >= begin - DAY}
                self._warned.add((class_name, budget.limit, begin))
                log.warning(
                    "class %s has used %s; requests to inspected hosts are refused when the budget is used up "
                    "(classes.%s.limits.%s)",
                    class_name,
                    _amounts(budget, used, most),
                    class_name,
                    budget.limit,
                )

    def _add(self, spent: Spent) -> None:
        day = self._days.setdefault(spent.class_name, _Day())
        first = spent.hour // DAY * DAY
        for counted, amount in ((day.tokens, spent.tokens), (day.cost, spent.cost_nano_usd)):
            for old in [hour for hour in counted if hour < first]:
                del counted[old]
            counted[spent.hour] = counted.get(spent.hour, 0) + amount

    def _begin(self, budget: Budget) -> int:
        return self._hour() // budget.hours * budget.hours

    def _used(self, class_name: str, budget: Budget) -> float:
        """Return the tokens or dollars that the class has used in the current period of the budget."""
        day = self._days.get(class_name)
        if day is None:
            return 0
        begin = self._begin(budget)
        counted = day.cost if budget.counts_cost else day.tokens
        total = sum(amount for hour, amount in counted.copy().items() if begin <= hour < begin + budget.hours)
        return total / NANO if budget.counts_cost else total

    def exceeded(self, found: ClassPolicy) -> Exceeded | None:
        """Return the used-up budget with the longest wait until its next period, or None if no budget is used up."""
        over = []
        for budget, most in _budgets_of(found):
            used = self._used(found.name, budget)
            if used < most:
                continue
            opens = (self._begin(budget) + budget.hours) * 3600
            when = datetime.fromtimestamp(opens, UTC)
            evidence = Evidence(
                class_name=found.name,
                limit=budget.limit,
                detail=_amounts(budget, used, most),
                allows=f"{when:%Y-%m-%dT%H:%M:%SZ}",
            )
            wait = max(1, opens - self._now() // 10**9)
            over.append(Exceeded(Decision.denial(Code.BUDGET_EXCEEDED, evidence, inspect=True), wait))
        return max(over, key=lambda found: found.wait_seconds, default=None)

    def shares(self) -> dict[tuple[str, ...], float]:
        """Return the used fraction of each budget, by class and limit, for the metrics. Other threads may call this."""
        return {
            (found.name, budget.limit): self._used(found.name, budget) / most
            for found in self._policy().classes.values()
            for budget, most in _budgets_of(found)
        }


def _budgets_of(found: ClassPolicy) -> list[tuple[Budget, float]]:
    amounts = ((budget, getattr(found.limits, budget.limit)) for budget in BUDGETS)
    return [(budget, most) for budget, most in amounts if most is not None]


def _amounts(budget: Budget, used: float, most: float) -> str:
    period = "hour" if budget.hours == HOUR else "day"
    if budget.counts_cost:
        return f"{used:,.2f} of {most:,.2f} US dollars of this {period}"
    return f"{used:,.0f} of {most:,.0f} tokens of this {period}"
