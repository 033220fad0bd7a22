"""Conversion of OTLP records to Loki's data model: a stream (labels), a time, a line, structured metadata.

The cases `names`, `bodies`, `no-service-name` and `t-zero*` in tests/contract/loki/answers.json record the results of a
real Loki. The rules for `detected_level` and the order of metadata come from Loki's source code, not from a recording.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from .wire import Pairs, Record, Resource, Scope, Value

# Resource attributes that become stream labels. Source: Loki's setting
# otlp_config.resource_attributes.attributes_config with the action index_label.
INDEX_LABELS = frozenset(
    [
        "service.name",
        "service.namespace",
        "service.instance.id",
        "deployment.environment",
        "deployment.environment.name",
        "cloud.region",
        "cloud.availability_zone",
        "k8s.cluster.name",
        "k8s.namespace.name",
        "k8s.pod.name",
        "k8s.container.name",
        "container.name",
        "k8s.replicaset.name",
        "k8s.deployment.name",
        "k8s.statefulset.name",
        "k8s.daemonset.name",
        "k8s.cronjob.name",
        "k8s.job.name",
    ]
)
# If service_name is missing, it gets the value of the first of these labels that exists. Source: Loki's setting
# discover_service_name.
SERVICE_LABELS = [
    "service",
    "app",
    "application",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "k8s_container_name",
    "component",
    "workload",
    "job",
    "k8s_job_name",
]
LEVEL_FIELDS = [
    "level",
    "LEVEL",
    "Level",
    "log.level",
    "severity",
    "SEVERITY",
    "Severity",
    "SeverityText",
    "lvl",
    "LVL",
    "Lvl",
    "severity_text",
    "Severity_Text",
    "SEVERITY_TEXT",
]
_LEVELS = {
    **dict.fromkeys(("trace", "trc"), "trace"),
    **dict.fromkeys(("debug", "dbg"), "debug"),
    **dict.fromkeys(("info", "inf", "information"), "info"),
    **dict.fromkeys(("warn", "wrn", "warning"), "warn"),
    **dict.fromkeys(("error", "err"), "error"),
    "critical": "critical",
    "fatal": "fatal",
}
_SEVERITIES = ("trace", "debug", "info", "warn", "error", "fatal")

type Metadata = tuple[tuple[str, str], ...]


def utf8(text: str) -> bytes:
    """Return the bytes of the text as the client sent them, including invalid UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def shown(text: bytes) -> str:
    """Return the text as query results show it: each invalid UTF-8 byte becomes U+FFFD."""
    return text.decode("utf-8", "replace")


@dataclass(frozen=True)
class Entry:
    """One pushed line of a stream. `time_ns` is Unix time in nanoseconds."""

    time_ns: int
    line: bytes
    metadata: Metadata

    @property
    def metadata_bytes(self) -> int:
        """Return the bytes of the metadata's names and values, without `detected_level`, which Loki adds."""
        return sum(len(utf8(n)) + len(utf8(v)) for n, v in self.metadata if n != "detected_level")

    @property
    def size(self) -> int:
        """Return the number of bytes that count towards the rate limit."""
        return len(self.line) + self.metadata_bytes


def label_name(name: str) -> str:
    """Convert an attribute name to a label name: `_` replaces each invalid character, and `1st` becomes `key_1st`."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"key_{name}" if name[:1].isdigit() else name


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def _plain(value: Value) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Pairs):
        return {k: _plain(v) for k, v in sorted(value, key=lambda pair: pair[0])}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    return value


def as_text(value: Value) -> str:
    """Format a value as Loki does: maps and lists as compact JSON, bytes as base64, a missing value as ""."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case float():
            return _number(value) if math.isfinite(value) else str(value)
        case int():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
    return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)


def flatten(key: str, value: Value) -> list[tuple[str, str]]:
    """Convert one attribute to labels. A map becomes one label per leaf, such as `map_x_y_z`."""
    name = label_name(key)
    if isinstance(value, Pairs):
        return [pair for inner, v in value for pair in flatten(f"{name}_{inner}", v)]
    return [(name, as_text(value))]


def stream_name(labels: dict[str, str]) -> str:
    """Return the stream's name as Loki's messages show it: `{a="b", c="d"}`, sorted."""
    return "{" + ", ".join(f"{n}={json.dumps(v, ensure_ascii=False)}" for n, v in sorted(labels.items())) + "}"


def _level(labels: dict[str, str], metadata: dict[str, str], line: bytes) -> str:
    for source in (labels, metadata):
        for name in LEVEL_FIELDS:
            if source.get(name):
                return _LEVELS.get(source[name].lower(), source[name])
    if metadata.get("severity_number"):
        number = int(metadata["severity_number"])
        return _SEVERITIES[(number - 1) // 4] if 1 <= number <= 24 else "unknown"
    return _level_of_line(line)


def _level_of_line(line: bytes) -> str:
    text = shown(line)
    found: object = None
    if text.strip()[:1] == "{" and text.strip()[-1:] == "}":
        found = _level_of_json(text)
    elif "=" in text:
        match = re.search(r"(?i)\b(?:level|severity|lvl|severity_text)=\"?(\w+)", text)
        found = match and match.group(1)
    if isinstance(found, str) and found.lower() in _LEVELS:
        return _LEVELS[found.lower()]
    for level, words in (
        ("info", ("info", "INFO")),
        ("error", ("err:", "ERR:", "[err]", "[ERR]", "[error]", "[ERROR]")),
        ("warn", ("warn:", "WARN:", "[warn]", "[WARN]", "warning", "WARNING")),
        ("critical", ("critical:", "CRITICAL:", "[critical]", "[CRITICAL]")),
        ("debug", ("debug", "DEBUG")),
    ):
        if any(word in text for word in words):
            return level
    return "unknown"


def _level_of_json(text: str) -> object:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    waiting = [document]
    while waiting:
        for key, value in waiting.pop(0).items():
            if key in LEVEL_FIELDS and isinstance(value, str):
                return value
            if isinstance(value, dict):
                waiting.append(value)
    return None


def _resource_labels(resource: Resource) -> tuple[dict[str, str], list[tuple[str, str]]]:
    labels: dict[str, str] = {}
    metadata: list[tuple[str, str]] = []
    for key, value in resource.attributes:
        pairs = flatten(key, value)
        if key in INDEX_LABELS:
            labels.update(pairs)
        else:
            metadata.extend(pairs)
    labels = {name: value for name, value in labels.items() if value}
    if "service_name" not in labels:
        named = next((labels[name] for name in SERVICE_LABELS if name in labels), "unknown_service")
        labels["service_name"] = named
    return labels, metadata


def _scope_metadata(scope: Scope) -> list[tuple[str, str]]:
    metadata = [pair for key, value in scope.attributes for pair in flatten(key, value)]
    for name, value in (
        ("scope_name", scope.name),
        ("scope_version", scope.version),
        ("scope_dropped_attributes_count", scope.dropped),
    ):
        if value:
            metadata.append((name, str(value)))
    return metadata


def _record_metadata(record: Record) -> list[tuple[str, str]]:
    metadata = [pair for key, value in record.attributes for pair in flatten(key, value)]
    for name, value in (
        # If a record has no time, the observed time becomes the entry's time instead of metadata.
        ("observed_timestamp", record.observed_ns if record.time_ns else 0),
        ("severity_number", record.severity_number),
        ("severity_text", record.severity_text),
        ("dropped_attributes_count", record.dropped),
        ("flags", record.flags),
        ("trace_id", record.trace_id.hex()),
        ("span_id", record.span_id.hex()),
        ("event_name", record.event_name),
    ):
        if value:
            metadata.append((name, str(value)))
    return metadata


def with_level(labels: dict[str, str], entry: Entry) -> Entry:
    """Return the entry with `detected_level`, which Loki adds after the limit checks."""
    metadata = dict(entry.metadata)
    if "detected_level" in metadata:
        return entry
    level = _level(labels, metadata, entry.line)
    return Entry(entry.time_ns, entry.line, (*entry.metadata, ("detected_level", level)))


def streams(resources: list[Resource], now_ns: int) -> list[tuple[dict[str, str], list[Entry]]]:
    """Return the streams of a push request as (labels, entries), with the entries in the order of the request."""
    found: dict[str, tuple[dict[str, str], list[Entry]]] = {}
    for resource in resources:
        labels, of_resource = _resource_labels(resource)
        for scope in resource.scopes:
            of_scope = _scope_metadata(scope)
            for record in scope.records:
                entry = Entry(
                    record.time_ns or record.observed_ns or now_ns,
                    utf8(as_text(record.body)),
                    (*_record_metadata(record), *of_resource, *of_scope),
                )
                found.setdefault(stream_name(labels), (labels, []))[1].append(entry)
    return list(found.values())
