"""Function that runs the `egress` command in the test's own process.

A new process would be slower because of its imports.
"""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout

import pytest

from openclaw_egress.cli import main


def run_egress(*words: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run an `egress` command with only these environment variables. Return its exit code and output.

    The command must exit by itself, because a test cannot send it a signal.
    """
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        for name in set(os.environ) - set(environment):
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["egress", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert code is None or isinstance(code, int), code
    said = (stream.buffer.getvalue().decode() for stream in (stdout, stderr))
    return subprocess.CompletedProcess(words, code or 0, *said)
