"""Tests that no code parses the text of a reason: other tests pass with every reason replaced by its code.

This module runs the tests of code that reads records. To run all tests, use `EGRESS_TEST_REWORDED=1 pytest -m "not
wording"`.
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
    "unit/spool/test_migrations.py",
    "unit/cli/test_cli.py",
    "unit/policy/test_host_addresses.py",
    "integration/test_export.py",
)


@pytest.mark.timeout(900)
def test_other_tests_pass_with_every_reason_replaced_by_its_code():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not wording", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *(f"tests/{suite}" for suite in SUITES)],
        cwd=ROOT, env=os.environ | {VARIABLE: "1"}, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
