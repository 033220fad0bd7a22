"""The health check of the running proxy. It imports only the standard library, because Docker runs it often."""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

_MAX_BODY = 16 * 1024 * 1024
_TYPES = {"problems": list, "warnings": list, "export": dict, "ca": dict, "memory": dict}


def health_url() -> str:
    """Return the URL of the health server on this machine (or in this container)."""
    return f"http://127.0.0.1:{os.environ.get('EGRESS_HEALTH_PORT') or 9464}"


def fetch(path: str) -> bytes | None:
    """Return the body of the health server's response with any status code; None if no server responds."""
    # Ignore the proxy variables of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        try:
            response = opener.open(health_url() + path, timeout=5)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            body: bytes = response.read(_MAX_BODY)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return body


def ask(path: str) -> dict[str, Any] | None:
    """Return the running proxy's health report, with any status code; None if no proxy sends a report."""
    body = fetch(path)
    try:
        found = json.loads(body) if body is not None else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "ok" in found and _has_types(found) else None


def _has_types(report: dict[str, Any]) -> bool:
    """Return whether the values have the expected types. Another program on this port may send any JSON."""
    return all(isinstance(report.get(name, kind()), kind) for name, kind in _TYPES.items())


def check() -> int:
    """Print the proxy's health report. Return exit code 0 if the proxy is healthy, else 1."""
    report = ask("/healthz")
    if report is None:
        print(
            f"egress: no proxy responds on {health_url()}: the proxy is not running, or it uses another "
            "EGRESS_HEALTH_PORT",
            file=sys.stderr,
        )
        return 1
    print(json.dumps(report))
    # A proxy that runs but cannot record refuses every exchange, so Docker must report it as unhealthy.
    return 0 if report.get("ok") and not report.get("stopped") else 1
