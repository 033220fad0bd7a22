"""Tests of .ci/run and molecule/run-all.sh: the exit code, the name of a failed part, and the summary in the last line.

`make`, `molecule`, the lab and the playbook tests are fakes here.
"""

import os
import shutil
import subprocess

import pytest

from tests.integration.ansible.conftest import ROOT

GREEN = {"setup": "up to date", "test": "=== 303 passed, 2 skipped in 3.20s ===", "molecule": "12 passed, 0 failed"}


@pytest.mark.parametrize(
    ("broken", "said", "last", "named"),
    [
        (None, "", "315 passed, 0 failed", None),
        ("setup", "no Python", "0 passed, 1 failed", "setup"),
        ("test", "lint: FAILED: ruff", "12 passed, 1 failed", "test"),
        ("test", "=== 2 failed, 300 passed, 1 error in 3.20s ===", "312 passed, 3 failed", "test"),
        ("molecule", "7 passed in 2s\n10 passed, 1 failed", "313 passed, 1 failed", "molecule"),
        # If the lab fails, LAB_READY stays unset, so that the scenarios create the lab themselves.
        ("lab", "", "315 passed, 1 failed", "lab"),
    ],
)
def test_failing_part_is_named_and_counted(tmp_path, broken, said, last, named):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    cases = [f"{name}) echo '{GREEN[name]}';;" for name in GREEN if name != broken]
    calls = 'touch "$1.began"; echo "$1 ${LAB_READY:-}" >>calls'
    make.write_text("\n".join(["#!/bin/sh", calls, 'case "$1" in', *cases, f"*) echo '{said}'; exit 2;;", "esac"]))
    make.chmod(0o755)
    lab = tmp_path / "molecule" / "lab" / "lab"
    lab.parent.mkdir(parents=True)
    # The fake `lab up` ends only after the tests have begun, so this test passes only if both run in parallel.
    waiting = "until test -e test.began; do sleep 0.1; done; "
    lab.write_text(f"#!/bin/sh\ntest $1 = up || exit 0\n{waiting}exit {int(broken == 'lab')}\n")
    lab.chmod(0o755)
    done = subprocess.run(
        ["bash", str(tmp_path / ".ci" / "run")],
        env=os.environ | {"PATH": f"{make.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == last
    assert (done.returncode == 0) == (broken is None)
    assert [line.split()[1] for line in lines if line.startswith("failed: ")] == ([named] if named else [])
    if broken != "setup":
        called = (tmp_path / "calls").read_text().splitlines()
        assert called == ["setup ", "test ", "molecule " if broken == "lab" else "molecule 1"]


SCENARIOS = ("bare_check", "collector", "rollback", "deployments", "default", "classes", "network")
# The fake of each scenario runs five tests, and the fake of the playbooks' tests ten.
OF_SCENARIOS = 5 * len(SCENARIOS)


@pytest.mark.parametrize(
    ("broken", "last"),
    [
        (None, f"{OF_SCENARIOS + 10} passed, 0 failed"),
        ("playbooks", f"{OF_SCENARIOS + 10} passed, 1 failed"),
        ("classes", f"{OF_SCENARIOS + 10} passed, 1 failed"),
        ("nothing ran", f"{OF_SCENARIOS} passed, 1 failed"),
        ("three tests", f"{OF_SCENARIOS + 10} passed, 3 failed"),
        ("lab", "0 passed, 1 failed"),
    ],
)
def test_scenarios_run_beside_the_playbooks_tests_and_all_are_counted(tmp_path, broken, last):
    (tmp_path / "molecule" / "lab").mkdir(parents=True)
    shutil.copy(ROOT / "molecule" / "run-all.sh", tmp_path / "molecule")
    counted = {
        "nothing ran": "nothing",
        "three tests": "===== 2 failed, 10 passed, 1 error in 2s =====",
    }.get(broken, "10 passed in 2s")
    programs = {
        "molecule/lab/lab": f"test $1 != up || exit {int(broken == 'lab')}",
        # The fake playbook tests end only after the last scenario, so this test passes only if both run in parallel.
        "bin/python": "until test -e network.ran; do sleep 0.1; done; "
        f"echo '{counted}'; exit {int(broken in ('playbooks', 'nothing ran', 'three tests'))}",
        "bin/molecule": f'touch $3.ran; echo 5 passed in 1s; echo "Start $3 ----- 4.21s"; test $3 != "{broken}"',
    }
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(tmp_path / "molecule" / "run-all.sh")],
        env=os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == last, done.stdout + done.stderr
    assert (done.returncode == 0) == (broken is None)
    if broken == "lab":
        return
    assert {f"4.21 {name} Start {name}" for name in SCENARIOS} <= set(lines)
    table = [line.split() for line in lines[lines.index(next(line for line in lines if line.startswith("part "))) :]]
    rows = {row[0]: row[1] for row in table if row and row[-1].isdigit()}
    failed = "playbooks" if broken in ("nothing ran", "three tests") else broken
    assert rows.pop("lab") == "up" and rows.pop("whole") == "run"
    assert rows == {name: "failed" if name == failed else "passed" for name in (*SCENARIOS, "playbooks")}


@pytest.mark.parametrize(("ready", "calls"), [("", ["down", "up", "down"]), ("1", ["up", "down"])])
def test_scenarios_use_a_lab_that_the_caller_created(tmp_path, ready, calls):
    (tmp_path / "molecule" / "lab").mkdir(parents=True)
    shutil.copy(ROOT / "molecule" / "run-all.sh", tmp_path / "molecule")
    for name, text in {
        "molecule/lab/lab": "echo $1 >>calls",
        "bin/python": "echo 10 passed in 2s",
        "bin/molecule": "echo 5 passed in 1s",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", str(tmp_path / "molecule" / "run-all.sh")],
        env=os.environ | {"PATH": path, "LAB_READY": ready, "KEEP": ""},
        capture_output=True,
        check=True,
    )
    assert (tmp_path / "calls").read_text().split() == calls
