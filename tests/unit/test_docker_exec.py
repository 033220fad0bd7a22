"""Tests that a `docker exec` command is repeated if the container runtime could not start it."""

import sys

import pytest

from tests.support import docker_exec
from tests.support.docker_exec import ATTEMPTS, completed

FAILED = "OCI runtime exec failed: exec failed: unable to start container process"
PROGRAM = """
import pathlib, sys
tries = pathlib.Path(sys.argv[1])
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) < int(sys.argv[2]):
    print(sys.argv[5], file=sys.stdout if sys.argv[3] == "stdout" else sys.stderr)
    sys.exit(int(sys.argv[4]))
"""


@pytest.mark.parametrize("output", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("succeeds_at", "code", "text", "tries"),
    [
        (2, 126, FAILED, 2),
        (2, 1, FAILED, 2),
        (9, 126, FAILED, ATTEMPTS),
        (9, 126, "permission denied", 1),
        (9, 1, "the program's own failure", 1),
    ],
)
def test_only_a_process_that_did_not_start_is_repeated(tmp_path, monkeypatch, output, succeeds_at, code, text, tries):
    monkeypatch.setattr(docker_exec, "PAUSE", 0.0)
    words = [sys.executable, "-c", PROGRAM, tmp_path / "tries", str(succeeds_at), output, str(code), text]
    done = completed(list(map(str, words)))
    assert (tmp_path / "tries").read_text() == "x" * tries
    assert done.returncode == (0 if succeeds_at == tries else code)
