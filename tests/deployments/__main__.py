"""Run the tests of each minimal deployment and print a table: the input, and the behaviour before and now.

    python -m tests.deployments [--number N]

The exit code is 0 if each input has tests and all of them pass. A run takes a few minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

INPUTS = Path(__file__).parent / "inputs.yml"
PLANS = "tests/unit/plugins/test_gateway_plan.py::test_plan_equals_the_golden_file"
SCRIPTS = (
    "tests/unit/plugins/test_build_scripts.py::test_patched_script_differs_only_by_the_bootstrap_in_the_gateways_image"
)


def read_inputs() -> dict[int, dict[str, Any]]:
    """Return the inputs by number."""
    return dict(yaml.safe_load(INPUTS.read_text()))


def ids_of(entry: dict[str, Any]) -> list[str]:
    """Return pytest's ids of an input's tests. An id without parameters selects all parameters of the test."""
    plans = [f"{PLANS}[{name}]" for name in entry.get("plans", [])]
    scripts = [f"{SCRIPTS}[{name}]" for name in entry.get("scripts", [])]
    return [*plans, *scripts, *entry.get("tests", [])]


def results(ids: list[str]) -> tuple[dict[str, Counter[str]], str]:
    """Run the tests. Return the number of tests by result for each id, and the end of pytest's output."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", f"--junit-xml={report}", *ids]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if not report.exists():
            sys.exit(f"pytest wrote no report: {done.stdout[-2000:]}")
        cases = list(ET.parse(report).iter("testcase"))
    found: dict[str, Counter[str]] = {name: Counter() for name in ids}
    for case in cases:
        ran = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        for name in ids:
            if ran == name or ran.startswith(f"{name}["):
                found[name][outcome] += 1
    return found, done.stdout[-2000:]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.deployments", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--number", type=int, action="append", choices=sorted(read_inputs()), help="Run only the tests of this input."
    )
    arguments = parser.parse_args()
    chosen = {number: entry for number, entry in read_inputs().items() if number in (arguments.number or read_inputs())}
    found, said = results(sorted({name for entry in chosen.values() for name in ids_of(entry)}))
    wrong = 0
    for number, entry in chosen.items():
        counts = sum((found[name] for name in ids_of(entry)), Counter[str]())
        good = set(counts) == {"passed"} and all(found[name] for name in ids_of(entry))
        wrong += not good
        counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no test ran"
        print(f"{number:>2}  {entry['input']}\n    before: {entry['before']}\n    now:    {entry['now']} ({counted})")
    if wrong:
        print(said, file=sys.stderr)
    print(f"{len(chosen) - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
