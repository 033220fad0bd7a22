"""Interface of .ci/run to CI: its exit code, the name of a failed part, its last line. `make` is a fake here."""

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
    ],
)
def test_failing_part_is_named_and_counted(tmp_path, broken, said, last, named):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    cases = [f"{name}) echo '{GREEN[name]}';;" for name in GREEN if name != broken]
    make.write_text("\n".join(["#!/bin/sh", 'case "$1" in', *cases, f"*) echo '{said}'; exit 2;;", "esac"]))
    make.chmod(0o755)
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
