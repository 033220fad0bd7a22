"""The support bundle: the state of an instance, without secrets or bodies, for people who have no access to it.

This module never reads bodies, headers or URLs of traffic. It also redacts every string with `redaction.redact_text`.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import sqlite3
import ssl
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from openclaw_egress import __version__
from openclaw_egress.errors import EgressError
from openclaw_egress.policy.configured import configured_policy
from openclaw_egress.recording import semconv
from openclaw_egress.recording.records import rfc3339
from openclaw_egress.recording.redaction import clean_text, redact_text, truncate_utf8
from openclaw_egress.reports.status import status_of
from openclaw_egress.reports.stored_record import whole_of
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import Filters, SpoolReader

PACKAGES = (
    "mitmproxy",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-http",
    "cryptography",
    "pydantic",
    "genai-prices",
)
EVENTS = (semconv.EVENT_POLICY, semconv.EVENT_CA, semconv.EVENT_SPOOL)
"""The proxy's own events in the bundle. Checkpoints are excluded, because there is at least one per hour."""
NEWEST_EVENTS = 100
"""Maximum number of the proxy's own events in the bundle. The bundle contains the newest events."""
COUNTED_HOURS = 24
"""Number of hours before now whose exchanges the bundle counts, by class and status."""
_MAX_TEXT = 4096
_MAX_FILES = 1000
_OUR_VARIABLES = ("EGRESS_", "PROXY_", "OTEL_")
_OTHER_VARIABLES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"})


def support_bundle(
    settings: Settings,
    environ: Iterable[str],
    running: Mapping[str, Any] | None,
    metrics: bytes | None,
) -> dict[str, Any]:
    """Return the bundle as a JSON value.

    Args:
        settings: the effective settings.
        environ: names of the environment variables. The bundle contains none of their values.
        running: the report of the running proxy (``/readyz``); None if no proxy responds.
        metrics: the running proxy's ``/metrics``; None if no proxy responds.
    """
    found = {
        "created": rfc3339(time.time_ns()),
        "versions": _versions(),
        "machine": _machine(settings),
        "settings": settings.model_dump(mode="json"),
        "variables": sorted(name for name in environ if _is_named(name)),
        "policy": _policy(settings),
        "status": status_of(settings, running).as_json(),
        "memory": (running or {}).get("memory"),
        "spool": _spool(settings),
        "metrics": list(_samples(metrics)),
    }
    clean: dict[str, Any] = _redacted(found)
    return clean


def _redacted(value: Any) -> Any:
    """Return a JSON value with each string redacted and truncated. Make the member names valid Unicode."""
    if isinstance(value, str):
        return truncate_utf8(redact_text(value), _MAX_TEXT)
    if isinstance(value, Mapping):
        return {clean_text(str(name)): _redacted(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(member) for member in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON cannot represent infinity or NaN.
    return value


def _is_named(name: str) -> bool:
    return name.startswith(_OUR_VARIABLES) or name.upper() in _OTHER_VARIABLES


def _versions() -> dict[str, str]:
    found = {
        "openclaw_egress": __version__,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "sqlite": sqlite3.sqlite_version,
        "kernel": platform.platform(),
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _machine(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {"processors": os.cpu_count(), "user": os.getuid()}
    with suppress(OSError):
        disk = shutil.disk_usage(settings.state_dir)
        found["disk"] = {"total_bytes": disk.total, "free_bytes": disk.free}
    found["files"] = {str(path): list(_files(path)) for path in (settings.state_dir, settings.effective_ca_dir)}
    return found


def _files(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield name, size, mode and owner of each file in a directory, or an error if it cannot be read."""
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        yield {"error": error.strerror or str(error)}
        return
    for path in paths[:_MAX_FILES]:
        try:
            known = path.lstat()
        except OSError as error:  # SQLite may have removed one of its files after the directory was listed.
            yield {"name": path.name, "error": error.strerror or str(error)}
            continue
        mode = stat.filemode(known.st_mode)
        yield {"name": path.name, "size": known.st_size, "mode": mode, "user": known.st_uid, "group": known.st_gid}
    if len(paths) > _MAX_FILES:
        yield {"error": f"{len(paths) - _MAX_FILES} more files"}


def _policy(settings: Settings) -> dict[str, Any]:
    """Return the digest of the policy, and the number of rules of each class. Do not include the hosts of rules."""
    try:
        policy = configured_policy(settings)
    except EgressError as error:
        return {"error": str(error)}
    classes = {
        found.name: {
            "listen": found.listen,
            "action": found.action,
            "instance": found.instance,
            "allow": len(list(found.allow)),
            "deny": len(list(found.deny)),
            "addresses": len(list(found.addresses)),
        }
        for found in policy.classes.values()
    }
    return {"digest": policy.digest, "inspected": len(policy.inspect), "classes": classes, "warnings": policy.warnings}


def _spool(settings: Settings) -> dict[str, Any]:
    try:
        with SpoolReader(settings.spool_path) as reader:
            newest = Filters(event_names=EVENTS, limit=NEWEST_EVENTS)
            events = [
                {"time": rfc3339(row.time_ns), "event": row.event_name, "message": _message(reader.line(row.seq))}
                for row in reader.query(newest)
            ]
            known = {"instance": reader.instance_id, "hours": COUNTED_HOURS, "events": events}
            return known | _exchanges(reader)
    except EgressError as error:
        return {"error": str(error)}


def _exchanges(reader: SpoolReader) -> dict[str, Any]:
    """Return the counts of exchanges. If the spool has an older format without totals, return the error."""
    since_ns = time.time_ns() - COUNTED_HOURS * 3600 * 10**9
    try:
        counts = [
            {"class": group[0], "status": group[1], "exchanges": usage.counts["requests"]}
            for group, usage in reader.usage(["class", "status"], since_ns, times=False)
        ]
    except EgressError as error:
        return {"error": str(error)}
    return {"exchanges": counts}


def _message(line: str | None) -> str:
    return str(whole_of([line] if line else [])[0].get("message", ""))


def _samples(metrics: bytes | None) -> Iterator[dict[str, Any]]:
    """Yield name, labels and value of each sample of ``/metrics``; nothing if they cannot be read."""
    try:
        for family in text_string_to_metric_families((metrics or b"").decode()):
            for sample in family.samples:
                yield {"name": sample.name, "labels": sample.labels, "value": sample.value}
    except ValueError:
        return
