"""Everything that runs in one proxy process, put together: policy, CA, spool, exporter, health, and the two add-ons."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import certifi

from openclaw_egress import __version__, ca
from openclaw_egress.export import Exporter
from openclaw_egress.health import HealthServer
from openclaw_egress.metrics import Metrics
from openclaw_egress.policy import Decision, Policy, builtin_policy, load_policy
from openclaw_egress.proxy.gate import Gate
from openclaw_egress.proxy.recorder import Recorder
from openclaw_egress.records import DeniedRecord, EventRecord
from openclaw_egress.settings import DEFAULT_LLM_HOSTS, Settings, SettingsError
from openclaw_egress.spool import Spool, SpoolError

log = logging.getLogger("openclaw_egress")

DENIALS_PER_MINUTE = 30
"""Denials of one class, host and rule that are recorded singly; the others of that minute are counted."""

DENIAL_KEYS = 10_000
"""Different (class, host, rule) that are told apart at a time; the oldest are forgotten first."""


class Service:
    """One proxy's parts. Constructing it validates all that can be validated; nothing listens before :meth:`start`.

    Raises (from the constructor): SettingsError, PolicyError, CAError, SpoolError, HealthError; each one message.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.policy = read_policy(settings)
        for warning in self.policy.warnings:
            log.warning("%s", warning)
        self.metrics = Metrics()
        self.ca_dir = settings.effective_ca_dir
        if settings.ca_dir is None or not (self.ca_dir / ca.ISSUING_FILE).exists():
            # Without Ansible nobody else makes it; with Ansible it is there, and the root's key is not.
            ca.create(self.ca_dir, settings.state_dir / "root", self.policy.inspect)
        self.ca_info = ca.show(self.ca_dir)
        for host in self.policy.inspect:
            if not self.ca_info.permits(host.removeprefix("*.")):
                raise ca.CAError(
                    f"{self.ca_dir / ca.ISSUING_FILE} may not sign for {host}, which the policy inspects. "
                    "Run `egress ca create` again (by Ansible: site.yml)."
                )
        self._runtime = tempfile.TemporaryDirectory(prefix="openclaw-egress-")
        runtime = Path(self._runtime.name)
        # mitmproxy writes beside its CA (a DH parameter file), and the CA's directory may be read-only.
        (runtime / ca.ISSUING_FILE).symlink_to((self.ca_dir / ca.ISSUING_FILE).absolute())
        self.confdir = runtime
        self.trusted_ca = _trusted_roots(settings.upstream_ca, runtime)
        self.spool = Spool(settings.spool_path, max_bytes=settings.spool_max_bytes, full=settings.spool_full)
        self.exporter = Exporter(self.spool, settings) if settings.logs_endpoint else None
        self._denials: OrderedDict[tuple[str, str, str], list[float]] = OrderedDict()
        self.gate = Gate(lambda: self.policy, self)
        self.recorder = Recorder(self.spool, self.metrics, settings.body_limit)
        self.metrics.gauges(self._gauges)
        self.health = HealthServer(settings.health_port, self.metrics.registry, self.alive, self.ready)

    def start(self) -> None:
        """Recover what a crash left, then begin to export and to answer health checks."""
        interrupted = self.spool.recover()
        if interrupted:
            log.warning(
                "%d exchanges were interrupted when the proxy last ended; they are recorded as such", interrupted
            )
        self.spool.add(
            EventRecord(
                event_name="openclaw.egress.policy",
                attributes={"openclaw.egress.policy.digest": self.policy.digest},
                message="policy loaded",
            )
        )
        if self.exporter is not None:
            self.exporter.start()
        self.health.start()

    def stop(self) -> None:
        """Flush what can be flushed in a moment, and close."""
        if self.exporter is not None:
            self.exporter.stop(timeout=5)
        self.health.stop()
        self.spool.close()
        self._runtime.cleanup()

    # ── Observer of the gate ─────────────────────────────────────────────────────────────────────────────────

    def denied(
        self, class_name: str, destination: str, decision: Decision, method: str, client: str, *, enforced: bool
    ) -> None:
        """Count it always; record it singly up to a rate, so that a loop cannot push exchanges out of the spool."""
        self.metrics.denied.labels(class_name, decision.rule, str(enforced).lower()).inc()
        if not self._record_singly(class_name, destination, decision.rule):
            return
        self.spool.add(
            DeniedRecord(
                class_name=class_name,
                rule=decision.rule,
                reason=decision.reason,
                host=destination.rpartition(":")[0].strip("[]") or destination,
                port=_port_of(destination),
                method=method,
                client=client,
                enforced=enforced,
            )
        )

    def allowed(self, class_name: str, *, inspect: bool) -> None:
        """Count it."""
        self.metrics.allowed.labels(class_name, str(inspect).lower()).inc()

    def _record_singly(self, class_name: str, destination: str, rule: str) -> bool:
        key = (class_name, destination, rule)
        now = time.monotonic()
        seen = self._denials.setdefault(key, [])
        self._denials.move_to_end(key)
        seen[:] = [moment for moment in seen if now - moment < 60]
        if len(self._denials) > DENIAL_KEYS:
            self._denials.popitem(last=False)
        if len(seen) >= DENIALS_PER_MINUTE:
            return False
        seen.append(now)
        return True

    # ── health ───────────────────────────────────────────────────────────────────────────────────────────────

    def alive(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process works: what it cannot record it refuses, so a full spool in block mode is no life."""
        return not self.spool.full, {"version": __version__, "instance": self.spool.instance_id}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether all that was asked for is happening: records arrive where they should, the CA is valid."""
        problems: list[str] = []
        export: Mapping[str, Any] = self.exporter.state if self.exporter is not None else {}
        if export.get("last_error"):
            problems.append(f"export: {export['last_error']}")
        if self.spool.full:
            problems.append("the spool is full")
        days = self._ca_days_left()
        if days < 7:
            problems.append(f"the issuing CA expires in {days:.0f} days: run site.yml (or `egress ca create`)")
        return not problems, {
            "problems": problems,
            "policy": self.policy.digest,
            "endpoint": self.settings.logs_endpoint or None,
            "export": dict(export),
            "spool": self.spool.stats(),
        }

    def _ca_days_left(self) -> float:
        return (self.ca_info.issuing_expires.timestamp() - time.time()) / 86400

    def _gauges(self) -> dict[str, tuple[str, float]]:
        stats = self.spool.stats()
        gauges = {
            f"spool_{name}": (f"Spool: {name.replace('_', ' ')}.", float(value))
            for name, value in stats.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        gauges["ca_expiry_timestamp_seconds"] = (
            "When the issuing CA expires.",
            self.ca_info.issuing_expires.timestamp(),
        )
        state = self.exporter.state if self.exporter is not None else {}
        for name, value in state.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                gauges[f"export_{name}"] = (f"Export: {name.replace('_', ' ')}.", float(value))
        return gauges


def read_policy(settings: Settings) -> Policy:
    """The policy that the settings name, or the built-in one.

    Raises:
        PolicyError: the named file is missing or not valid.
    """
    if settings.policy_file is not None:
        return load_policy(settings.policy_file, settings.llm_hosts)
    return builtin_policy(settings.llm_hosts or DEFAULT_LLM_HOSTS)


def _trusted_roots(extra: Path | None, directory: Path) -> Path:
    """The public roots and the operator's, in one file: mitmproxy's option replaces its own list."""
    roots = Path(certifi.where()).read_bytes()
    if extra is not None:
        try:
            added = extra.read_bytes()
        except OSError as error:
            raise SettingsError(f"EGRESS_UPSTREAM_CA: {extra} cannot be read: {error.strerror}") from None
        if b"-----BEGIN CERTIFICATE-----" not in added:
            raise SettingsError(f"EGRESS_UPSTREAM_CA: {extra} holds no certificate in PEM form")
        roots += b"\n" + added
    file = directory / "trusted-roots.pem"
    file.write_bytes(roots)
    return file


def _port_of(destination: str) -> int:
    text = destination.rpartition(":")[2]
    return int(text) if text.isdigit() else 0


def describe(service: Service) -> str:
    """One line for the log at start: what listens, what is inspected, where records go."""
    classes = ", ".join(f"{item.name} :{item.listen} {item.action}" for item in service.policy.classes.values())
    return json.dumps(
        {
            "event": "started",
            "version": __version__,
            "classes": classes,
            "inspect": list(service.policy.inspect),
            "records": service.settings.logs_endpoint or str(service.settings.spool_path),
        }
    )


__all__ = ["Service", "SpoolError", "describe", "read_policy"]
