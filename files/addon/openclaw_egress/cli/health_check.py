"""Asks the running proxy how it is; loads nothing but the standard library."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any


def health_url() -> str:
    """Where the proxy of this machine (or container) answers."""
    return f"http://127.0.0.1:{os.environ.get('EGRESS_HEALTH_PORT') or 9464}"


def ask(path: str) -> dict[str, Any] | None:
    """The JSON that the running proxy answers, whatever its status; None where none runs."""
    # Not by way of a proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(health_url() + path, timeout=5) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        found = json.load(error)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def check() -> int:
    """Print what the proxy says of itself; returns the exit code, 0 or 1."""
    report = ask("/healthz")
    if report is None:
        print(
            f"egress: nothing answers on {health_url()}: the proxy is not running, or EGRESS_HEALTH_PORT differs",
            file=sys.stderr,
        )
        return 1
    print(json.dumps(report))
    return 0 if report.get("ok") else 1
