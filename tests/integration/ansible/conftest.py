"""Fixtures that run Ansible as operators do, from the checkout or the built artifact, without root or Docker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
type Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a program of the virtual environment, by default in the checkout."""
    home = tmp_path_factory.mktemp("home")

    def call(*words: str, cwd: Path = ROOT, collections: Path = ROOT / "collections", **variables: str):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment |= {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/support/callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "preload",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            **variables,
        }
        return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=900)

    return call
