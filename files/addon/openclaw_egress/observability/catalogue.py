"""All metrics of ``/metrics``: name, type, labels, unit and meaning. `make docs` generates docs/metrics.md from them.

Naming: https://prometheus.io/docs/practices/naming/. OpenTelemetry's conventions for generative AI
(https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-metrics.md) define the names,
attributes and boundaries of the metrics that begin with ``gen_ai``. Their names follow OpenTelemetry's exporters for
Prometheus: a dot becomes an underscore, the unit ``s`` becomes the suffix ``_seconds``, and a unit in braces, such as
``{token}``, adds no suffix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

PREFIX = "openclaw_egress"

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Bucket boundaries for the duration of model calls, as OpenTelemetry's conventions define them."""
TOKENS = tuple(4**power for power in range(14))
"""Bucket boundaries for token counts (1 to 67,108,864), as OpenTelemetry's conventions define them."""
LONG_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
"""Bucket boundaries for the duration of exchanges, which include long downloads and WebSocket sessions."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. The name of a counter includes the suffix ``_total``, as in Prometheus."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    """The help text: one line that ends with a full stop."""
    labels: tuple[str, ...] = ()
    unit: str = ""
    """Unit of the values; empty for a count, because ``text`` names the counted things."""
    buckets: Sequence[float] = ()

    def counter(self, registry: CollectorRegistry) -> Counter:
        """Return a new Prometheus counter for this metric."""
        return Counter(self.name.removesuffix("_total"), self.text, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """Return a new Prometheus histogram for this metric."""
        return Histogram(self.name, self.text, self.labels, registry=registry, buckets=self.buckets)

    def gauge(self, values: Iterable[tuple[Sequence[str], float]]) -> GaugeMetricFamily:
        """Return the gauge with one sample for each pair ``(label values, number)``."""
        family = GaugeMetricFamily(self.name, self.text, labels=self.labels)
        for labels, value in values:
            family.add_metric(labels, value)
        return family


def _counter(name: str, text: str, *labels: str, unit: str = "") -> Metric:
    return Metric(f"{PREFIX}_{name}_total", "counter", text, labels, unit)


def _gauge(name: str, text: str, *labels: str, unit: str = "") -> Metric:
    return Metric(f"{PREFIX}_{name}", "gauge", text, labels, unit)


CALL_LABELS = (
    "egress_class",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
)
_TIME = "Unix time in seconds"
_FLAG = "0 or 1"

ALLOWED = _counter("allowed", "Allowed requests and tunnels.", "egress_class", "inspect")
DENIED = _counter(
    "denied",
    "Requests and tunnels that the policy denies, including those that are only reported.",
    "egress_class",
    "rule",
    "code",
    "enforced",
)
EXCHANGES = _counter("exchanges", "Recorded exchanges.", "egress_class", "outcome")
RESPONSES = _counter("responses", "Recorded exchanges by response status.", "egress_class", "status")
DURATION = Metric(
    f"{PREFIX}_exchange_duration_seconds",
    "histogram",
    "Time from the first byte of the request to the last byte of the response.",
    ("egress_class",),
    "seconds",
    LONG_SECONDS,
)
UNRECORDED = _counter("unrecorded", "Requests refused with 503 because they could not be recorded.", "egress_class")
HOOK_FAILURES = _counter("hook_failures", "Exceptions in the proxy's hooks. The traffic was refused.")

CALL_TOKENS = _counter(
    "tokens",
    "Tokens that providers reported. Input includes cached tokens, and output includes reasoning.",
    "egress_class",
    "provider",
    "model",
    "type",
    unit="tokens",
)
CALL_COST = _counter("cost_usd", "Known cost of calls.", "egress_class", "provider", "model", unit="US dollars")
TOKEN_USAGE = Metric(
    "gen_ai_client_token_usage",
    "histogram",
    "Tokens per call, as the provider reported them.",
    (*CALL_LABELS, "gen_ai_token_type"),
    "tokens",
    TOKENS,
)
CALL_DURATION = Metric(
    "gen_ai_client_operation_duration_seconds",
    "histogram",
    "Time from the first byte of a call to the last byte of its response.",
    (*CALL_LABELS, "error_type"),
    "seconds",
    SECONDS,
)
FIRST_CHUNK = Metric(
    "gen_ai_client_operation_time_to_first_chunk_seconds",
    "histogram",
    "Time from the first byte of a call to the first chunk of its streamed response.",
    CALL_LABELS,
    "seconds",
    SECONDS,
)
BUDGET_USED = _gauge(
    "budget_used_ratio",
    "Used share of each budget in the policy.",
    "egress_class",
    "limit",
    unit="1 = the whole budget",
)

MEMORY_USED = _gauge("memory_used_bytes", "Memory in use by traffic.", "egress_class", unit="bytes")
MEMORY_ROOM = _gauge("memory_room_bytes", "Memory that the class may use at the moment.", "egress_class", unit="bytes")
DEAD_LETTERS = _gauge("dead_letters", "Stored lines that the destination refuses for good.", "reason")

_STATES = {
    "pending": "that wait for the destination",
    "acknowledged": "that the destination has confirmed",
    "dead_letter": "that the destination refuses for good",
    "local": "of a spool without a destination",
}
_LINES = tuple(
    metric
    for state, which in _STATES.items()
    for metric in (
        _gauge(f"spool_{state}_records", f"Stored lines {which}."),
        _gauge(f"spool_{state}_bytes", f"Bytes of the stored lines {which}.", unit="bytes"),
    )
)

GROUPS: dict[str, tuple[Metric, ...]] = {
    "traffic": (ALLOWED, DENIED, EXCHANGES, RESPONSES, DURATION, UNRECORDED, HOOK_FAILURES),
    "calls": (CALL_TOKENS, CALL_COST, TOKEN_USAGE, CALL_DURATION, FIRST_CHUNK, BUDGET_USED),
    "spool": (
        *_LINES,
        _gauge("spool_open_exchanges", "Exchanges in progress."),
        _gauge("spool_journal_bytes", "Bytes that are stored for exchanges in progress.", unit="bytes"),
        _gauge("spool_used_bytes", "Bytes that count against the limit of the spool.", unit="bytes"),
        _gauge("spool_max_bytes", "Limit of the spool (EGRESS_SPOOL_MAX_BYTES).", unit="bytes"),
        _gauge("spool_dropped_lines", "Lines dropped before the destination confirmed them, since the proxy's start."),
        _gauge("spool_last_seq", "Number of the newest line in the hash chain."),
        _gauge("spool_refusing", "Whether requests are refused because they cannot be recorded.", unit=_FLAG),
        DEAD_LETTERS,
    ),
    "export": (
        _gauge("export_backlog_records", "Stored lines that wait for the destination."),
        _gauge("export_backlog_bytes", "Bytes of the stored lines that wait for the destination.", unit="bytes"),
        _gauge("export_backlog_seconds", "Age of the oldest waiting line.", unit="seconds"),
        _gauge("export_pushed_records", "Lines that the destination has accepted since the proxy's start."),
        _gauge(
            "export_pushed_bytes",
            "Bytes of the lines that the destination has accepted since the proxy's start, each with its resource.",
            unit="bytes",
        ),
        _gauge("export_dead_letters", "Lines that the destination has refused for good since the proxy's start."),
        _gauge("export_failures_in_a_row", "Failed pushes since the last successful one."),
        _gauge(
            "export_last_success",
            "When the destination last accepted lines. Absent until it has accepted some.",
            unit=_TIME,
        ),
        _gauge("export_push_limit_bytes", "Maximum size of a push at the moment.", unit="bytes"),
        _gauge(
            "export_records_ahead_of_clock",
            "Lines held back because their time is further in the future than the destination accepts.",
        ),
    ),
    "state": (
        MEMORY_USED,
        MEMORY_ROOM,
        _gauge("memory_budget_bytes", "Memory that the traffic of all classes may use.", unit="bytes"),
        _gauge("ca_expiry_timestamp_seconds", "When the issuing CA in use expires.", unit=_TIME),
        _gauge("ca_root_expiry_timestamp_seconds", "When the root CA expires.", unit=_TIME),
        _gauge(
            "policy_last_reload_successful",
            "Whether the policy file is in force (1), or an earlier policy because the file is invalid (0).",
            unit=_FLAG,
        ),
        _gauge("audit_findings", "Findings of the last `egress audit` of this spool. Absent before the first audit."),
        _gauge("audit_timestamp_seconds", "When the last `egress audit` of this spool ended.", unit=_TIME),
    ),
}
"""All metrics, in the groups of docs/metrics.md."""

BY_NAME = {metric.name: metric for group in GROUPS.values() for metric in group}

LABELS = {
    "egress_class": "Class of the policy. `?` if the proxy could not determine it.",
    "inspect": "`true` if the host is inspected, else `false`.",
    "rule": "Rule that decided, such as `classes.sandbox.deny[0]`; or `address-guard`, `default`, `syntax` …",
    "code": "Kind of decision ([all codes](codes.md)).",
    "enforced": "`false` if the action of the class is `report`, else `true`.",
    "outcome": "`complete`, `client_aborted`, `upstream_error` or `interrupted`.",
    "status": "HTTP status; `none` without a response.",
    "provider": "Same as `gen_ai_provider_name`; `unknown` if the host belongs to no known provider.",
    "model": "Model that the response names, else the requested model; `other` beyond the limit; `unknown` without a "
    "model.",
    "type": "`input`, `output`, `cache_read`, `cache_write`, `reasoning`. The last three are parts of the first two.",
    "gen_ai_operation_name": "`chat`, `embeddings`, `text_completion`, `generate_content`, `count_tokens` …",
    "gen_ai_provider_name": "Provider by host ([list](providers.md)); empty if the host belongs to no known provider.",
    "gen_ai_request_model": "Requested model; `other` beyond the limit; empty if unknown.",
    "gen_ai_response_model": "Model that the response names; `other` beyond the limit; empty if unknown.",
    "gen_ai_token_type": "`input` or `output`.",
    "error_type": "Same as `error.type` of the record; `_OTHER` beyond the limit; empty for a call without an error.",
    "limit": "`tokens_per_hour`, `tokens_per_day` or `cost_usd_per_day`.",
    "reason": "Why the destination refuses the lines, such as `too_old` or `line_too_long`.",
}
"""Description of each label's values."""
