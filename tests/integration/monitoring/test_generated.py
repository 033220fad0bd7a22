"""Tests that the committed dashboards and rules equal the output of their generators."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.prometheus import NO_PROMETHEUS, PROMTOOL
from tools.monitoring.__main__ import FILES, generated
from tools.monitoring.alerts import rules_file

CASES = Path(__file__).with_name("alerts_test.yml")


@pytest.mark.parametrize(("path", "text"), generated().items(), ids=lambda value: getattr(value, "name", ""))
def test_committed_file_equals_the_generated_file(path, text):
    assert path.read_text() == text, "run `make docs`"


def test_no_other_file_is_committed():
    assert {path for path in FILES.rglob("*") if path.is_file()} == set(generated())


@pytest.mark.skipif(PROMTOOL is None, reason=NO_PROMETHEUS)
@pytest.mark.parametrize(
    "words", [("check", "rules", "openclaw_egress.rules.yml"), ("test", "rules", "alerts_test.yml")], ids=" ".join
)
def test_promtool_accepts_the_rules_and_each_alert_fires_in_its_case(tmp_path, words):
    for source in (FILES / "prometheus" / "openclaw_egress.rules.yml", CASES):
        shutil.copy(source, tmp_path)
    done = subprocess.run(["promtool", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_in_which_it_fires():
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules_file()["groups"][0]["rules"]}
