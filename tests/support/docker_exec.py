"""Function that runs commands in containers. It repeats a command that the container runtime could not start."""

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

    On a busy machine, runc sometimes cannot start the process of a `docker exec`. The program has not run in that case,
    so try again. Look for runc's message in both outputs, because an outer `docker exec` can print it to either one.
    The exit code is 126, or 1 with `--detach`.
    """
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE if attempt else 0)
        done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
        if done.returncode not in (1, 126) or "OCI runtime exec failed" not in done.stdout + done.stderr:
            break
    return done
