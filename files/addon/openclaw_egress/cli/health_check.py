"""Asks the running proxy how it is; loads nothing but the standard library."""

from __future__ import annotations

import http.client
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
    """What the running proxy reports, whatever the status; None where none runs, or something else answers."""
    # Not by way of a proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        try:
            answer = opener.open(health_url() + path, timeout=5)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            found = json.load(answer)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return found if isinstance(found, dict) and "ok" in found else None


def check() -> int:
    """Print what the proxy says of itself; returns the exit code, 0 or 1."""
    report = ask("/healthz")
    if report is None:
        print(
            f"egress: no proxy answers on {health_url()}: the proxy is not running, or EGRESS_HEALTH_PORT differs",
            file=sys.stderr,
        )
        return 1
    print(json.dumps(report))
    # A proxy that is alive but cannot record refuses every exchange: Docker shall show that.
    return 0 if report.get("ok") and not report.get("stopped") else 1
