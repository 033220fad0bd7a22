"""Function that runs a command in a container, and tries again if the container runtime could not start it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import Any

ATTEMPTS = 5
PAUSE = 1.0
"""Seconds between two attempts."""


def completed(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and return its result, with its output as text.

    On a busy machine, runc sometimes cannot start the process of a `docker exec`. The exit code is then 126, or 1 with
    `--detach`. In this case the program has not run, so it is safe to try again. Search both standard output and
    standard error for runc's message, because a nested `docker exec` can print it to either.
    """
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE if attempt else 0)
        done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
        if done.returncode not in (1, 126) or "OCI runtime exec failed" not in done.stdout + done.stderr:
            break
    return done
