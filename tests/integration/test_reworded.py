"""Tests that no code parses or compares the text of a reason or a remedy: other tests pass with these texts replaced.

This module runs the tests of code that reads records, reports errors or gives advice. To run all tests with replaced
texts, use `EGRESS_TEST_REWORDED=1 pytest -m "not wording"`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.reworded import VARIABLE

ROOT = Path(__file__).parents[2]
SUITES = (
    "unit/recording/test_denials.py",
    "unit/advice/test_remediation.py",
    "unit/advice/test_suggest.py",
    "unit/app/test_service_health.py",
    "unit/cli/test_audit.py",
    "unit/cli/test_cli.py",
    "unit/policy/test_host_addresses.py",
    "unit/spool/test_migrations.py",
    "unit/test_certificates.py",
    "integration/test_export.py",
)
# Skip tests whose names contain these words: each takes seconds, and uses no reason or remedy.
SLOW = ("accepts_nothing", "closed_pipe", "slow_link")


@pytest.mark.timeout(900)
def test_other_tests_pass_with_every_reason_and_remedy_replaced():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not wording", "-p", "no:cacheprovider"]
    fast = " and ".join(f"not {name}" for name in SLOW)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-k", fast, *(f"tests/{suite}" for suite in SUITES)],
        cwd=ROOT, env=environment | {VARIABLE: "1"}, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
