"""Results of measurements, printed as a table and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """A measured number and its goal, in the same unit. Without a goal, the number is only reported."""

    name: str
    value: float
    unit: str
    goal: float | None
    met: bool


def at_most(name: str, value: float, unit: str, goal: float) -> Result:
    """Return a result that must not exceed its goal."""
    return Result(name, round(value, 2), unit, goal, value <= goal)


def exactly(name: str, value: int, unit: str, goal: int) -> Result:
    """Return a result that must equal its goal."""
    return Result(name, value, unit, goal, value == goal)


def at_least(name: str, value: float, unit: str, goal: float) -> Result:
    """Return a result that must not be below its goal."""
    return Result(name, round(value, 2), unit, goal, value >= goal)


def reported(name: str, value: float, unit: str) -> Result:
    """Return a result without a goal."""
    return Result(name, round(value, 2), unit, None, True)


def line(result: Result) -> str:
    """Format a result as a line of the table."""
    goal = "" if result.goal is None else f"goal {result.goal:g}: {'met' if result.met else 'NOT MET'}"
    return f"{result.name:<62} {result.value:>10g} {result.unit:<10} {goal}".rstrip()


def write(results: Sequence[Result], file: Path) -> int:
    """Write the results to a JSON file. Return 0 if there are results and all goals are met, otherwise 1."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"results": [asdict(result) for result in results]}, indent=2) + "\n")
    return 0 if results and all(result.met for result in results) else 1


def unmet(results: Iterable[Result]) -> list[Result]:
    """Return the results that did not meet their goal."""
    return [result for result in results if not result.met]
