"""The reports of ``/healthz`` and ``/readyz``, and the gauges of ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from openclaw_egress import __version__, certificates
from openclaw_egress.app.ca_reloader import CAReloader
from openclaw_egress.app.heartbeat import Heartbeat
from openclaw_egress.app.open_listeners import OpenListeners
from openclaw_egress.app.policy_reloader import PolicyReloader
from openclaw_egress.export.exporter import Exporter
from openclaw_egress.observability import catalogue
from openclaw_egress.observability.metrics import Metrics
from openclaw_egress.proxy.memory_budget import MemoryBudget
from openclaw_egress.proxy.upstream_proxy import UpstreamProxy
from openclaw_egress.spool.writer import Spool

STALLED_SECONDS = 15.0
"""`alive` returns False if the event loop has not run its heartbeat for this many seconds."""


class Readiness:
    """The state of all parts of the proxy, as the health server reports it."""

    def __init__(
        self,
        policies: PolicyReloader,
        listeners: OpenListeners,
        ca: CAReloader,
        heartbeat: Heartbeat,
        spool: Spool,
        exporter: Exporter | None,
        budget: MemoryBudget,
        clock: certificates.Clock,
        upstream_proxy: UpstreamProxy | None = None,
    ) -> None:
        self._upstream_proxy = upstream_proxy
        self._policies = policies
        self._listeners = listeners
        self._ca = ca
        self._heartbeat = heartbeat
        self._spool = spool
        self._exporter = exporter
        self._budget = budget
        self._clock = clock

    def alive(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the event loop runs and no CA certificate expires soon, and details about this state.

        `ready` reports these problems and all others.
        """
        silence = self._heartbeat.silence
        expiring = self._ca.served.info.problems(self._clock())
        return silence < STALLED_SECONDS and not expiring, {
            "problems": expiring,
            "stopped": self.stopped(),
            "version": __version__,
            "instance": self._spool.instance_id,
            "event_loop_seen_seconds_ago": round(silence, 1),
        }

    def stopped(self) -> list[str]:
        """Return the problems that make the proxy refuse all exchanges with inspected hosts; `alive` ignores them."""
        found = [self._spool.problem] if self._spool.problem else []
        return found + (["the spool is full"] if self._spool.full else [])

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Return whether policy, listeners, CA, export, spool and heartbeat work, and details about their state."""
        problems = [problem] if (problem := self._policies.problem) else []
        export: Mapping[str, Any] = self._exporter.state if self._exporter is not None else {}
        if export.get("last_error"):
            problems.append(f"export: {export['last_error']}" + (f"; {export['remedy']}" if export["remedy"] else ""))
        problems += self.stopped()
        now, authority = self._clock(), self._ca.served.info
        problems += authority.problems(now)
        others = (
            self._listeners.problem,
            self._ca.served.problem,
            self._ca.renewal_problem,
            self._heartbeat.problem,
            self._spool.flush_problem,
            self._upstream_proxy.problem if self._upstream_proxy is not None else "",
        )
        problems += [problem for problem in others if problem]
        return not problems, {
            "problems": problems,
            "warnings": authority.warnings(now),
            "ca": {
                "root_sha256": authority.root_sha256,
                "root_expires": authority.root_expires.isoformat(),
                "issuing_sha256": authority.issuing_sha256,
                "issuing_expires": authority.issuing_expires.isoformat(),
                "names": authority.names,
            },
            "policy": self._policies.current.digest,
            "upstream_proxy": self._upstream_proxy.report() if self._upstream_proxy is not None else None,
            "export": dict(export),
            "spool": self._spool.stats(),
            "dead_letters": self._spool.dead_letters(),
            "memory": {
                "used_bytes": self._budget.total,
                "limit_bytes": self._budget.limit,
                "classes": self._budget.report(),
            },
        }

    def publish(self, metrics: Metrics) -> None:
        """Register the gauges that report this state in `/metrics`."""
        metrics.gauges(self.gauges)
        metrics.by_label(catalogue.DEAD_LETTERS, self._dead_letters)
        metrics.by_label(catalogue.MEMORY_USED, lambda: self._memory("used_bytes"))
        metrics.by_label(catalogue.MEMORY_ROOM, lambda: self._memory("room_bytes"))

    def gauges(self) -> dict[str, float]:
        """Return the values of the unlabelled gauges by name."""
        info = self._ca.served.info
        state = self._exporter.state if self._exporter is not None else {}
        return {
            **{f"spool_{name}": value for name, value in _numbers(self._spool.stats())},
            "ca_expiry_timestamp_seconds": info.issuing_expires.timestamp(),
            "ca_root_expiry_timestamp_seconds": info.root_expires.timestamp(),
            "policy_last_reload_successful": float(self._policies.problem is None),
            "memory_budget_bytes": float(self._budget.limit),
            **{f"export_{name}": value for name, value in _numbers(state)},
        }

    def _dead_letters(self) -> dict[str, float]:
        return {code: float(count) for code, count in self._spool.dead_letters().items()}

    def _memory(self, name: str) -> dict[str, float]:
        return {class_name: float(values[name]) for class_name, values in self._budget.report().items()}


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)
