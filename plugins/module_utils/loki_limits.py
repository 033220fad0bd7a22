# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Comparison of Loki's effective configuration (``GET /config``) with what the proxies send.

:func:`check_config` is pure. It returns findings: each names the value found, the value needed, and the lines of
configuration that correct it.

Names, types and defaults of the limits are those of ``pkg/validation/limits.go`` in grafana/loki, from 3.0 to the main
branch of 2026-08. ``GET /config`` prints the effective value of each key, including the defaults of its version.
Exceptions are keys with ``omitempty``, such as ``allow_structured_metadata``: they are absent if they are false. Sizes
are multiples of 1024 (``pkg/util/flagext/bytesize.go``), and so is the MB of ``ingestion_rate_mb``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

Config = Mapping[str, Any]

# What the proxy sends. A unit test compares these numbers with the addon's constants and with encoded pushes.
LONGEST_LINE_BYTES = 200_000
# Size of the largest push as Loki's rate limits count it (lines and metadata), and size of the gRPC message that
# contains it.
LARGEST_PUSH_BYTES = 2_100_000
LARGEST_MESSAGE_BYTES = 3_000_000
# Limits of the metadata of one line: attributes, severity, trace, scope, and the resource attributes that are not
# labels.
METADATA_BYTES = 50_000
METADATA_ENTRIES = 112
# Speed at which a proxy exports a backlog by default, in bytes per second.
EXPORT_BYTES_PER_SECOND = 2_500_000
# After an outage of this length, Loki must still accept the oldest records.
BACKLOG_SECONDS = 7 * 86_400
# Clocks that use NTP differ by less than this. If a record is too far ahead for Loki, the proxy keeps it in the spool
# and retries.
CLOCK_SKEW_SECONDS = 60
# Size of the gRPC messages that queries for whole lines need. 16 MiB is also the smallest default limit of Loki's gRPC
# clients.
QUERY_RESULT_BYTES = 16 * 2**20

# Resource attributes that queries, dashboards and the audit use as labels.
LABELS = ("service.name", "service.instance.id")
# Resource attribute by which lines that the proxy resends late get a separate stream.
RESENT_LABEL = "service.namespace"
# Attributes of records that queries and dashboards filter by.
ATTRIBUTES = (
    "event_name",
    "openclaw.egress.class",
    "openclaw.egress.code",
    "openclaw.egress.exchange.id",
    "openclaw.egress.part.index",
    "openclaw.egress.rule",
    "gen_ai.request.model",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "server.address",
)

_SIZES: dict[str, int] = {"": 1, "B": 1}
for _power, _unit in enumerate("KMGTPE", 1):
    _SIZES[_unit] = _SIZES[_unit + "B"] = 1024**_power
_DURATIONS: dict[str, float] = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800,
    "y": 31_536_000,
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A setting of Loki that is unsuitable for the proxies' records, or that could not be checked.

    ``lines`` are the configuration lines that correct it. The first part of ``key`` is the section that they belong in.
    """

    key: str
    message: str
    stops: bool
    lines: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Limit:
    """A limit of Loki, with the minimum that the proxies need. ``kind`` is bytes, megabytes, seconds or count."""

    key: str
    kind: str
    default: str
    needed: float
    # The value in the configuration line that corrects the setting.
    remedy: str
    reason: str
    stops: bool = True
    # True if Loki treats 0 as "no limit" (pkg/distributor/validator.go). With 0 in any other limit, Loki refuses
    # everything.
    zero_is_unlimited: bool = False

    @property
    def line(self) -> str:
        return "%s: %s" % (self.key.partition(".")[2], self.remedy)

    @property
    def minimum(self) -> str:
        """Return the minimum as text, in the unit of the key's values."""
        if self.kind == "megabytes":
            return "%.1f (%d bytes)" % (math.ceil(self.needed / 2**20 * 10) / 10, self.needed)
        if self.kind == "seconds":
            return "%dh" % (self.needed / 3600) if self.needed >= 3600 else "%ds" % self.needed
        return "%d%s" % (self.needed, " bytes" if self.kind == "bytes" else "")


def parse_quantity(value: object, kind: str) -> float:
    """Parse a value of Loki's configuration. Return its number of bytes or seconds, or its count.

    Args:
        value: The value as YAML holds it: `4MB`, `4194304`, `1w`, `2h0m0s`, `4`, `4.5`.
        kind: `bytes`, `megabytes`, `seconds` or `count`.

    Raises:
        ValueError: The value is not a quantity of this kind.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("not a quantity: %r" % (value,))  # noqa: TRY004 - the caller handles one kind of error
    text = str(value).strip()
    if kind == "seconds":
        return _parse_duration(text)
    if kind == "bytes":
        size = re.match(r"([0-9]+)\s*([A-Z]*)\Z", text.upper())
        if not size or size[2] not in _SIZES:
            raise ValueError("not a size: %s" % text)
        return int(size[1]) * _SIZES[size[2]]
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise ValueError("not a limit: %s" % text)
    return number * 2**20 if kind == "megabytes" else number


def _parse_duration(text: str) -> float:
    if re.match(r"0+\Z", text):
        return 0
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|[smhdwy])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("not a duration: %s" % text)
    return sum(float(number) * _DURATIONS[unit] for number, unit in parts)


def make_limits(rates: Sequence[float]) -> List[Limit]:
    """Return the limits to check, for proxies with these maximum export rates in bytes per second (0: no maximum).

    Omit Loki's rate limits if no proxy has a maximum export rate.
    """
    paced = [rate for rate in rates if rate > 0]
    push = "Loki always refuses a push that exceeds it"
    return [
        Limit(
            "limits_config.max_line_size", "bytes", "256KB", LONGEST_LINE_BYTES, "256KB",
            "Loki refuses longer lines", zero_is_unlimited=True,
        ),
        Limit(
            "limits_config.max_structured_metadata_size", "bytes", "64KB", METADATA_BYTES, "64KB",
            "Loki refuses lines with more metadata", zero_is_unlimited=True,
        ),
        Limit(
            "limits_config.max_structured_metadata_entries_count", "count", "128", METADATA_ENTRIES, "128",
            "Loki refuses lines with more metadata", zero_is_unlimited=True,
        ),
        *(_make_rates(max(paced), sum(paced)) if paced else ()),
        Limit(
            "limits_config.ingestion_burst_size_mb", "megabytes", "6", LARGEST_PUSH_BYTES, "6", push,
        ),
        Limit(
            "limits_config.per_stream_rate_limit_burst", "bytes", "15MB", LARGEST_PUSH_BYTES, "15MB", push,
        ),
        Limit(
            "server.grpc_server_max_recv_msg_size", "bytes", "4194304", LARGEST_MESSAGE_BYTES, str(QUERY_RESULT_BYTES),
            "Loki always refuses a larger push with 503",
        ),
        Limit(
            "server.grpc_server_max_recv_msg_size", "bytes", "4194304", QUERY_RESULT_BYTES, str(QUERY_RESULT_BYTES),
            "queries for whole lines (not those of the dashboards) fail above it with 500", stops=False,
        ),
        Limit(
            "server.grpc_server_max_send_msg_size", "bytes", "4194304", QUERY_RESULT_BYTES, str(QUERY_RESULT_BYTES),
            "queries for whole lines (not those of the dashboards) fail above it with 500", stops=False,
        ),
        Limit(
            "limits_config.reject_old_samples_max_age", "seconds", "1w", BACKLOG_SECONDS, "1w",
            "after a longer outage Loki refuses the older records, which become dead letters", stops=False,
        ),
        Limit(
            "limits_config.creation_grace_period", "seconds", "10m", CLOCK_SKEW_SECONDS, "10m",
            "records wait if the gateway's clock is ahead by more", stops=False,
        ),
    ]  # fmt: skip


def _make_rates(fastest: float, together: float) -> Tuple[Limit, ...]:
    return (
        Limit(
            "limits_config.ingestion_rate_mb", "megabytes", "4", fastest, _megabytes(together, 4),
            "a gateway exports faster, so Loki refuses its pushes with 429",
        ),
        Limit(
            "limits_config.ingestion_rate_mb", "megabytes", "4", together, _megabytes(together, 4),
            "the gateways together can export faster; then Loki refuses pushes with 429 and they wait", stops=False,
        ),
        Limit(
            "limits_config.per_stream_rate_limit", "bytes", "3MB", fastest, _megabytes(fastest, 3) + "MB",
            "a gateway exports faster, and Loki may drop lines of a push that it acknowledges",
        ),
    )  # fmt: skip


def _megabytes(size: float, least: int) -> str:
    return "%d" % max(least, math.ceil(size / 2**20))


def check_config(config: Config, today: date, rates: Sequence[float] = (EXPORT_BYTES_PER_SECOND,)) -> List[Finding]:
    """Return the settings of Loki that are unsuitable for the proxies' records, or that could not be checked.

    Args:
        config: The response to `GET /config`.
        today: The current day in UTC.
        rates: The maximum export rate of each proxy, in bytes per second. 0 means that a proxy has no maximum.
    """
    found: List[Finding] = []
    schema = list(_check_schema(config, today))
    found += schema
    # Loki does not start if structured metadata is allowed before schema v13 is active. So while the schema has a
    # problem, do not also advise allowing structured metadata.
    if not any(finding.stops for finding in schema):
        found += _check_metadata(config)
    stopping: set[str] = set()
    for limit in make_limits(rates):
        if limit.key in stopping:
            continue
        if limit.key.endswith("reject_old_samples_max_age") and not flag(config, "limits_config.reject_old_samples"):
            continue
        for finding in _check_limit(config, limit):
            found.append(finding)
            stopping.add(finding.key)
    found += _check_truncation(config, "limits_config.max_line_size" in stopping)
    found += _check_labels(config)
    found += _check_dropped_attributes(config)
    found += _check_what_is_not_in_it(config, rates)
    return found


def report(findings: Iterable[Finding]) -> List[str]:
    """Return the findings as lines of text: their messages, then the configuration that corrects all of them."""
    chosen = list(findings)
    lines = configuration_lines(chosen)
    heading = "Put these lines into the sections of Loki's configuration file and restart Loki:"
    return [finding.message for finding in chosen] + ([heading, *lines] if lines else [])


def configuration_lines(findings: Iterable[Finding]) -> List[str]:
    """Return the lines of all findings as YAML, with one block for each section."""
    sections: dict[str, List[str]] = {}
    for finding in findings:
        section = sections.setdefault(finding.key.partition(".")[0], [])
        section += [line for line in finding.lines if line not in section]
    return [
        text for name, lines in sections.items() if lines for text in ("%s:" % name, *("  " + line for line in lines))
    ]


def requirements(rates: Sequence[float] = (EXPORT_BYTES_PER_SECOND,)) -> List[str]:
    """Return the settings that Loki must have, as text for an operator whose Loki does not serve `GET /config`."""
    minimums = ["%s: at least %s" % (limit.key, limit.minimum) for limit in make_limits(rates) if limit.stops]
    return [
        "limits_config.allow_structured_metadata: true",
        "limits_config.max_line_size_truncate: false",
        *minimums,
        "schema_config: v13 on tsdb, active today",
    ]


def _get(config: Config, key: str) -> Any:
    """Return the value at a dotted path, or None."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def flag(config: Config, key: str) -> bool:
    """Return whether the boolean at a dotted path is true. Loki omits some booleans that are false."""
    return str(_get(config, key)).lower() == "true"


def _check_limit(config: Config, limit: Limit) -> Iterator[Finding]:
    given = _get(config, limit.key)
    shown = "%s (Loki's default)" % limit.default if given is None else str(given)
    try:
        value = parse_quantity(limit.default if given is None else given, limit.kind)
    except ValueError:
        text = "%s is %s, which this role cannot read. It was not checked. The minimum is %s: %s."
        yield Finding(limit.key, text % (limit.key, shown, limit.minimum, limit.reason), False)
        return
    if value < limit.needed and not (value == 0 and limit.zero_is_unlimited):
        text = "%s is %s. The minimum is %s: %s."
        yield Finding(limit.key, text % (limit.key, shown, limit.minimum, limit.reason), limit.stops, (limit.line,))


def _unreadable(key: str, value: object, needed: str) -> Finding:
    text = "%s is %s, which this role cannot read. It was not checked: %s."
    shown = str(value)
    return Finding(key, text % (key, shown if len(shown) <= 100 else shown[:100] + "…", needed), False)


def _check_metadata(config: Config) -> Iterator[Finding]:
    given = _get(config, "limits_config.allow_structured_metadata")
    if given is not None and str(given).lower() not in ("true", "false"):
        yield _unreadable("limits_config.allow_structured_metadata", given, "it must be true")
    elif not flag(config, "limits_config.allow_structured_metadata"):
        yield Finding(
            "limits_config.allow_structured_metadata",
            "limits_config.allow_structured_metadata is false (GET /config omits false values). It must be true: Loki "
            "refuses records with metadata.",
            True,
            ("allow_structured_metadata: true",),
        )


def _check_truncation(config: Config, too_short: bool) -> Iterator[Finding]:
    key = "limits_config.max_line_size_truncate"
    if flag(config, key):
        effect = "Loki cuts records without an error" if too_short else "if max_line_size shrinks, Loki cuts records"
        yield Finding(key, "%s is true. It must be false: %s." % (key, effect), too_short, ("%s: false" % key[14:],))


def _check_labels(config: Config) -> Iterator[Finding]:
    key = "limits_config.otlp_config.resource_attributes"
    rules = _get(config, key + ".attributes_config") or []
    # Loki merges its default labels into the printed rules, except with ignore_defaults.
    if not rules and not flag(config, key + ".ignore_defaults"):
        return
    actions = {name: _action(rules, name) for name in (*LABELS, RESENT_LABEL)}
    unknown = [name for name, action in actions.items() if action is None]
    if unknown:
        yield _unreadable(key + ".attributes_config", rules, "%s must be a label" % " and ".join(unknown))
    lines = (
        "otlp_config:",
        "  resource_attributes:",
        "    attributes_config:",
        "      - action: index_label",
        "        attributes: [%s]" % ", ".join(actions),
    )
    missing = [name for name in LABELS if actions[name] not in ("index_label", None)]
    if missing:
        text = "%s does not make %s a label. The audit and the dashboards select records by it. Put the rule first."
        yield Finding(key, text % (key, " and ".join(missing)), True, lines)
    elif actions[RESENT_LABEL] not in ("index_label", None):
        text = (
            "%s does not make %s a label. By this label, lines that the proxy resends late get a separate stream. "
            "Without this stream, Loki refuses the lines. Put the rule first."
        )
        yield Finding(key, text % (key, RESENT_LABEL), False, lines)


def _check_dropped_attributes(config: Config) -> Iterator[Finding]:
    key = "limits_config.otlp_config.log_attributes"
    rules = _get(config, key) or []
    actions = {name: _action(rules, name) for name in ATTRIBUTES}
    if None in actions.values():
        yield _unreadable(key, rules, "it must not drop attributes that queries and dashboards filter by")
    dropped = [name for name, action in actions.items() if action == "drop"]
    if dropped:
        text = "%s drops %s. Queries and dashboards filter by these attributes. Remove them from the rule."
        yield Finding(key, text % (key, ", ".join(dropped)), False)


def _action(rules: Any, attribute: str) -> Optional[str]:
    """Return the action of the first rule that matches the attribute, or None if a rule before it is unreadable.

    Loki: pkg/loghttp/push/otlp_config.go.
    """
    if not isinstance(rules, (list, tuple)):
        return None
    for rule in rules:
        names = (rule.get("attributes") or ()) if isinstance(rule, Mapping) else None
        if not isinstance(names, (list, tuple)):
            return None
        matches = attribute in names or _matches(rule.get("regex"), attribute)
        if matches is None:
            return None
        if matches:
            return str(rule.get("action") or "structured_metadata")
    return "structured_metadata"


def _matches(pattern: object, attribute: str) -> Optional[bool]:
    """Return whether the pattern matches, or None if Python would read Go's regular expression differently."""
    text = str(pattern or "")
    if "[:" in text:  # A class such as [[:alpha:]], which Python reads as a set of characters.
        return None
    try:
        return bool(text) and re.fullmatch(text, attribute) is not None
    except re.error:
        return None


def _check_what_is_not_in_it(config: Config, rates: Sequence[float]) -> Iterator[Finding]:
    overrides = _get(config, "runtime_config.file")
    if overrides:
        text = "runtime_config.file is %s. Limits of single tenants in it are not in GET /config and were not checked."
        yield Finding("runtime_config.file", text % overrides, False)
    if any(rate <= 0 for rate in rates):
        yield Finding(
            "limits_config.per_stream_rate_limit",
            "limits_config.per_stream_rate_limit was not checked for each gateway, because a gateway exports without a "
            "maximum rate. "
            "Above the limit Loki may drop lines of a push that it acknowledges. Set "
            "openclaw_proxy_export_max_bytes_per_second for the gateway.",
            False,
        )


def _check_schema(config: Config, today: date) -> Iterator[Finding]:
    key = "schema_config.configs"
    given = _get(config, key) or []
    needed = "v13 on tsdb must be active"
    periods = [period for period in given if isinstance(period, Mapping)] if isinstance(given, (list, tuple)) else []
    if not periods and given:
        yield _unreadable(key, given, needed)
        return
    if not periods:
        yield Finding(key, "%s is not in GET /config. It was not checked: %s." % (key, needed), False)
        return
    periods.sort(key=_begin)
    # Dates in the form YYYY-MM-DD can be compared as strings.
    active = [period for period in periods if _begin(period) <= today.isoformat()]
    current = active[-1] if active else {}
    if _fits(current):
        return
    unreadable = [period for period in periods if not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", _begin(period))]
    if current and not re.match(r"v[0-9]+\Z", str(current.get("schema", ""))):
        unreadable = unreadable or [current]
    if unreadable:
        yield _unreadable(key, unreadable[0], needed)
        return
    planned = [_begin(period) for period in periods if _begin(period) > today.isoformat() and _fits(period)]
    begin = planned[0] if planned else (today + timedelta(days=1)).isoformat()
    first = (
        "nothing to do: schema_config.configs has such a period from %s" % begin
        if planned
        else "append to schema_config.configs the period below, with `from: %s`, and restart Loki" % begin
    )
    yield Finding(
        key,
        "Loki's schema active today is %s on %s. Structured metadata needs v13 on tsdb, and Loki does not start with "
        "allow_structured_metadata: true before v13 is active. Two steps: (1) %s; (2) from %s on (UTC), set "
        "limits_config.allow_structured_metadata: true, restart Loki (or let this role do it: loki_otlp_manage_config: "
        "true), and run site.yml again."
        % (current.get("schema", "unknown"), current.get("store", "an unknown store"), first, begin),
        True,
        () if planned else _new_period(periods[-1], begin),
    )


def _begin(period: Config) -> str:
    return str(period.get("from", ""))[:10]


def _fits(period: Config) -> bool:
    version = re.match(r"v([0-9]+)\Z", str(period.get("schema", "")))
    return version is not None and int(version[1]) >= 13 and period.get("store") == "tsdb"


def _new_period(last: Config, begin: str) -> Tuple[str, ...]:
    """Return a v13 period that continues the last one. A tsdb index has periods of 24 hours."""
    return (
        "configs:",
        "  # after the existing periods",
        "  - from: %s" % begin,
        "    store: tsdb",
        "    object_store: %s" % (last.get("object_store") or "filesystem"),
        "    schema: v13",
        "    index:",
        "      prefix: %s" % (_get(last, "index.prefix") or "index_"),
        "      period: 24h",
    )
