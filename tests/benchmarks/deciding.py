"""Benchmark of policy decisions: time per decision, growth with the number of rules, and agreement with `explain`.

Prints a table and writes build/deciding.json; exits with 1 if a goal is missed. The times depend on the machine and its
load.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from openclaw_egress.policy.destination import Destination, parse_destination
from openclaw_egress.policy.evaluate import decide
from openclaw_egress.policy.loader import read_policy
from openclaw_egress.policy.model import Policy
from tests.support.policy_fuzz import compare
from tests.support.results import at_most, exactly, line, reported, write

FEW, MANY = 1_000, 10_000
ROUNDS, DECISIONS = 15, 2_000
GOAL_MICROSECONDS = 20.0
GOAL_GROWTH = 2.0
"""Maximum factor by which a decision takes longer if a class has ten times as many rules."""
POLICIES, REQUESTS = 34, 310


def policy_of(rules: int) -> tuple[Policy, list[Destination]]:
    """Return a policy with this number of rules, of several kinds, and destinations that match some of them."""
    chance = random.Random(rules)
    names = [f"host-{number}.zone-{number % 97}.example" for number in range(rules)]
    third = rules // 3
    found = read_policy(
        json.dumps(
            {
                "version": 1,
                "inspect": ["api.llm.example"],
                "classes": {
                    "sandbox": {
                        "listen": 8082,
                        "action": "enforce",
                        "allow": [*names[:third], *(f"*.{name}" for name in names[third : 2 * third])],
                        "deny": names[2 * third :],
                    }
                },
            }
        ).encode(),
        "policy.yml",
    )
    hosts = [chance.choice((f"{name}", f"a.b.{name}", f"no.{name}.invalid")) for name in chance.sample(names, 500)]
    return found, [parse_destination(host, 443) for host in hosts]


def microseconds(one: Callable[[Destination], object], destinations: list[Destination]) -> float:
    """Return the time of one decision in microseconds: the median over several rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for number in range(DECISIONS):
            one(destinations[number % len(destinations)])
        rounds.append((time.perf_counter() - began) / DECISIONS * 1e6)
    return statistics.median(rounds)


def main() -> int:
    """Run the benchmark. Print the results and write them to a file. Return the exit code."""
    taken = {}
    for rules in (FEW, MANY):
        policy, destinations = policy_of(rules)
        taken[rules] = microseconds(lambda where, policy=policy: decide(policy, "sandbox", where), destinations)  # type: ignore[misc]
    different, outcomes = asyncio.run(compare(seed=20_261, policies=POLICIES, requests=REQUESTS))
    results = [
        at_most(f"a decision with {FEW:,} rules", taken[FEW], "us", GOAL_MICROSECONDS),
        reported(f"a decision with {MANY:,} rules", taken[MANY], "us"),
        at_most(f"{MANY:,} rules as against {FEW:,}", taken[MANY] / taken[FEW], "times", GOAL_GROWTH),
        reported("requests decided by both explain and access control", sum(outcomes.values()), "requests"),
        exactly("of these decided differently", len(different), "requests", 0),
    ]
    for result in results:
        print(line(result))
    return write(results, Path("build/deciding.json"))


if __name__ == "__main__":
    sys.exit(main())
