"""Tests of the modules in ansible-playbook, on the oldest supported Python if it is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "#!/bin/bash\nset -e\ndocker build .\n"


def oldest_python() -> str:
    """Return the path of Python 3.9 if pyenv or the PATH has it, otherwise the path of the running Python."""
    kept = sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9"))
    for candidate in [*map(str, kept), "python3.9"]:
        try:
            subprocess.run([candidate, "-c", ""], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    return sys.executable


@pytest.mark.timeout(1200)
def test_each_module_changes_the_host_once_and_never_in_check_mode(tmp_path):
    (tmp_path / "build-openclaw.sh").write_text(SCRIPT)
    (tmp_path / ".env").write_text("TOKEN=hunter2")
    (tmp_path / "docker-compose.yml").touch()
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", "localhost,", "-c", "local"),
            *("-e", f"ansible_python_interpreter={oldest_python()}", "-e", f"directory={tmp_path}"),
            str(Path(__file__).with_name("four_steps.yml")),
        ],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hunter" not in done.stdout
    assert (tmp_path / "build-openclaw.sh").read_text() == SCRIPT
    assert (tmp_path / ".env").read_text() == "TOKEN=hunter2"


def test_module_documentation_is_found_and_complete():
    names = ("build_patch", "compose_env", "host_files", "openclaw_agents", "rollback_manifest")
    modules = [f"openclaw.egress.{name}" for name in names]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-doc")), "-t", "module", *modules],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    parts = re.split(r"^> MODULE ", done.stdout, flags=re.MULTILINE)[1:]
    assert [text.split()[0] for text in parts] == modules
    for text in parts:
        for part in ("OPTIONS", "ATTRIBUTES", "EXAMPLES", "RETURN VALUES", "idempotent", "check_mode", "diff_mode"):
            assert part in text
