"""The alert rules for Prometheus.

Format: https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/. The rules use metrics of the proxy's
`/metrics`. `tests/integration/monitoring` checks that a running proxy has each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import yaml

from openclaw_egress.certificates import ISSUING_OVERDUE_DAYS, ROOT_WARNS_DAYS

JOB = "openclaw-proxy"
"""`job_name` in the scrape configuration. Only the alert for an absent proxy depends on it."""
ALERTS_NAME = "OpenClawEgress"
"""Prefix of each alert's name."""
SPOOL_USED = (
    "(openclaw_egress_spool_pending_bytes%s + openclaw_egress_spool_dead_letter_bytes)"
    " / openclaw_egress_spool_max_bytes"
)
"""Fraction of the spool that deleting acknowledged records cannot free. ``%s`` stands for a label selector."""
HEAD = "# Written by `make docs` from tools/monitoring/alerts.py: changes made here are overwritten.\n---\n"


DAY = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The durations in alert rules, in seconds. Tests with a real Prometheus use shorter ones."""

    stalled: int = 600
    """The export is stalled if the oldest line has waited this long, and the destination accepted no line meanwhile."""
    away: int = 120
    """How long a proxy must be unreachable before the alert fires."""
    lasting: int = 300
    """How long any other problem must last before its alert fires."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``hold`` is how long ``expr`` must be true, in seconds. ``action`` tells the operator what to do."""

    name: str
    expr: str
    hold: int
    severity: Literal["warning", "critical"]
    summary: str
    action: str

    def rule(self) -> dict[str, Any]:
        """Return the alert in the format of a rules file."""
        return {
            "alert": ALERTS_NAME + self.name,
            "expr": self.expr,
            "for": f"{self.hold}s",
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.action},
        }


def _export_and_spool(times: Times) -> list[Alert]:
    return [
        Alert(
            "ExportStalled",
            # Also require that no record was pushed: after an outage, the oldest record stays old while the backlog
            # drains.
            f"openclaw_egress_export_backlog_seconds > {times.stalled}\n"
            f"and increase(openclaw_egress_export_pushed_records[{times.stalled}s]) == 0",
            times.lasting,
            "critical",
            "{{ $labels.instance }}: the destination accepts no records",
            "The oldest record has waited {{ $value | humanizeDuration }}. No record is lost before the spool is full. "
            "`egress status` names the destination's error and the remedy.",
        ),
        Alert(
            "DeadLetters",
            "sum by (instance, reason) (openclaw_egress_dead_letters) > 0",
            0,
            "warning",
            "{{ $labels.instance }}: the destination refused {{ $value }} lines for good ({{ $labels.reason }})",
            "`egress dead-letter list` shows the lines. Remove the cause, then send them again with "
            "`egress dead-letter retry`, or delete them with `egress dead-letter drop`.",
        ),
        Alert(
            "SpoolFilling",
            f"{SPOOL_USED % ''} > 0.7",
            times.lasting,
            "critical",
            "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the spool cannot be freed",
            "A full spool drops the oldest records, or refuses requests (EGRESS_SPOOL_FULL). Make the destination "
            "accept records again (`egress status`), retry or drop dead letters, or raise the spool's limit.",
        ),
        Alert(
            "NotRecording",
            "openclaw_egress_spool_refusing == 1",
            0,
            "critical",
            "{{ $labels.instance }}: requests to inspected hosts are refused, because they cannot be recorded",
            "The disk or the spool is full, or the disk fails. `egress status` names the reason.",
        ),
    ]


def _traffic() -> list[Alert]:
    denied = 'sum by (instance, egress_class) (increase(openclaw_egress_denied_total{enforced="true"}[%s]%s))'
    return [
        Alert(
            "DenialsRising",
            # Use `unless` instead of `and`: the alert must also fire for a class without denials in the previous day.
            # A run of verify.yml causes about 13 denials: do not fire for two runs in 15 minutes.
            f"{denied % ('15m', '')} > 50\n"
            f"unless {denied % ('15m', '')}\n"
            f"<= 3 * {denied % ('1d', ' offset 15m')} / (24 * 4)",
            0,
            "warning",
            "{{ $labels.instance }}: {{ $value | humanize }} denials of class {{ $labels.egress_class }} in 15 minutes",
            "This is more than three times the average of the day before. `egress denials --since 1h` names the "
            "destinations, and the rule that would allow each.",
        ),
        Alert(
            "BudgetNear",
            "openclaw_egress_budget_used_ratio >= 0.8",
            0,
            "warning",
            "{{ $labels.instance }}: class {{ $labels.egress_class }} has used {{ $value | humanizePercentage }} of "
            "{{ $labels.limit }}",
            "At 100 % the proxy refuses requests of the class to inspected hosts until the next hour or day (UTC). "
            "`egress usage --by model --since 24h` shows what used it.",
        ),
    ]


def _proxy(times: Times) -> list[Alert]:
    return [
        Alert(
            "CertificateExpiring",
            f"openclaw_egress_ca_expiry_timestamp_seconds - time() < {ISSUING_OVERDUE_DAYS * DAY}\n"
            f"or openclaw_egress_ca_root_expiry_timestamp_seconds - time() < {ROOT_WARNS_DAYS * DAY}",
            0,
            "warning",
            "{{ $labels.instance }}: a CA certificate expires in {{ $value | humanizeDuration }}",
            "`egress ca show` shows which. The daily job should have renewed the issuing CA: see its log. A new root "
            "needs the trust of all clients, so plan it.",
        ),
        Alert(
            "AuditFailed",
            "openclaw_egress_audit_findings > 0",
            0,
            "critical",
            "{{ $labels.instance }}: the last audit of the records had {{ $value }} findings",
            "Records are missing or were changed. `egress audit` lists them, with the remedy for each kind.",
        ),
        Alert(
            "PolicyRefused",
            "openclaw_egress_policy_last_reload_successful == 0",
            0,
            "warning",
            "{{ $labels.instance }}: the policy file is invalid, and an earlier policy is in force",
            "`egress status` names the line and the remedy.",
        ),
        Alert(
            "ProxyAway",
            f'up{{job="{JOB}"}} == 0 or absent(up{{job="{JOB}"}})',
            times.away,
            "critical",
            "The proxy{{ with $labels.instance }} {{ . }}{{ end }} does not respond to Prometheus",
            "Without the proxy its clients reach nothing. Look at `docker logs openclaw-proxy`, then at the network "
            "between Prometheus and the proxy.",
        ),
    ]


def rules_file(times: Times | None = None) -> dict[str, Any]:
    """Return the content of the rules file as JSON values."""
    times = times or Times()
    alerts = [*_export_and_spool(times), *_traffic(), *_proxy(times)]
    return {"groups": [{"name": "openclaw_egress", "rules": [alert.rule() for alert in alerts]}]}


class _Dumper(yaml.SafeDumper):
    """YAML dumper that indents lists, as yamllint requires, and writes multi-line strings as block scalars."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def rules_text(times: Times | None = None) -> str:
    """Return the rules file as YAML."""
    return HEAD + yaml.dump(rules_file(times), Dumper=_Dumper, sort_keys=False, width=150)
