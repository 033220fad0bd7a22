"""Everything that runs in one proxy process, put together: policy, CA, spool, exporter, health, and the two add-ons."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import certifi
from mitmproxy import connection, http

from openclaw_egress import __version__, ca, semconv
from openclaw_egress.denials import DenialRate, Key, counted_reason
from openclaw_egress.export import Exporter
from openclaw_egress.health import HealthServer
from openclaw_egress.metrics import Metrics
from openclaw_egress.policy import Decision, Policy, PolicyError, builtin_policy, load_policy
from openclaw_egress.proxy import memory
from openclaw_egress.proxy.gate import Gate
from openclaw_egress.proxy.memory_budget import MemoryBudget, container_limit, default_budget
from openclaw_egress.proxy.recorder import Recorder
from openclaw_egress.records import DeniedRecord, EventRecord
from openclaw_egress.settings import DEFAULT_LLM_HOSTS, Settings, SettingsError
from openclaw_egress.spool import Spool, SpoolError

log = logging.getLogger("openclaw_egress")

CHECKPOINT_SECONDS = 300.0
"""How often a line names the newest line and its hash, in the records, the log and the metrics."""

STALLED_SECONDS = 15.0
"""An event loop that was not seen for so long serves nobody."""


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
        if settings.ca_dir is None:
            # Nobody else makes it. A directory that was named holds what its maker put there, without the root's key.
            ca.create(self.ca_dir, settings.state_dir / "root", self.policy.inspect)
        self.ca_info = ca.show(self.ca_dir)
        self._check_ca(self.policy)
        self._policy_seen = _signature(settings.policy_file)
        self._policy_problem: str | None = None
        self.apply_listeners: Callable[[], None] | None = None
        """Set by who can open and close listeners while running; called from the housekeeping thread."""
        self._runtime = tempfile.TemporaryDirectory(prefix="openclaw-egress-")
        runtime = Path(self._runtime.name)
        # mitmproxy writes beside its CA (a DH parameter file), and the CA's directory may be read-only.
        (runtime / ca.ISSUING_FILE).symlink_to((self.ca_dir / ca.ISSUING_FILE).absolute())
        self.confdir = runtime
        self.trusted_ca = _trusted_roots(settings.upstream_ca, runtime)
        self.spool = Spool(
            settings.spool_path,
            settings.spool_max_bytes,
            settings.spool_full,
            local=not settings.logs_endpoint,
            service_name=settings.service_name,
            host_name=settings.host_name,
        )
        self.exporter = Exporter(self.spool, settings) if settings.logs_endpoint else None
        self._denials = DenialRate()
        self._denials_lock = threading.Lock()
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="housekeeping", daemon=True)
        self._beat = time.monotonic()
        self._checkpoint = self.spool.head()
        self.gate = Gate(lambda: self.policy, self)
        self.recorder = Recorder(self.spool, self.metrics, settings.body_limit)
        self.budget = MemoryBudget(
            settings.memory_budget or default_budget(container_limit()), lambda: list(self.policy.classes)
        )
        self.memory = memory.Accounts(self.budget, self, settings.memory_wait_seconds)
        memory.tune_allocator()
        memory.install(self.memory)
        self.metrics.gauges(self._gauges)
        self.metrics.by_class("memory_used_bytes", "Memory that traffic holds.", lambda: self._memory("used_bytes"))
        self.metrics.by_class("memory_room_bytes", "Memory that it may hold.", lambda: self._memory("room_bytes"))
        self.health = HealthServer(settings.health_port, self.metrics.registry, self.alive, self.ready)

    def start(self) -> None:
        """Recover what a crash left, then begin to export and to answer health checks."""
        interrupted = self.spool.recover()
        if interrupted:
            log.warning(
                "%d exchanges were interrupted when the proxy last ended; they are recorded as such", interrupted
            )
        self._keep_event("policy loaded", policy_digest=self.policy.digest)
        if self.exporter is not None:
            self.exporter.start()
        self.health.start()
        self._keeper.start()

    async def heartbeat(self) -> None:
        """Show once a second that the event loop is alive; runs for ever."""
        while True:
            self._beat = time.monotonic()
            self.memory.settle_all()
            await asyncio.sleep(1)

    def stop(self) -> None:
        """Flush what can be flushed in a moment, and close."""
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join(timeout=5)
            self._summarise_denials(everything=True)
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
        with self._denials_lock:
            singly = self._denials.singly(Key(class_name, destination, decision.rule, enforced), time.monotonic())
        if not singly:
            return
        host, port = _host_and_port(destination)
        self._keep_denial(
            DeniedRecord(
                class_name=class_name,
                rule=decision.rule,
                reason=decision.reason,
                host=host,
                port=port,
                method=method,
                client=client,
                enforced=enforced,
            )
        )

    def _keep_denial(self, record: DeniedRecord) -> None:
        try:
            self.spool.add(record)
        except SpoolError as error:
            # What is refused stays refused; only its record is lost, and the metric has it.
            log.error("a denial could not be recorded: %s", error)

    def allowed(self, class_name: str, *, inspect: bool) -> None:
        """Count it."""
        self.metrics.allowed.labels(class_name, str(inspect).lower()).inc()

    # ── Owner of the memory accounts ─────────────────────────────────────────────────────────────────────────

    def class_of(self, client: connection.Client) -> str | None:
        """Return the name of the class whose listener the client reached."""
        found = self.policy.class_for_port(int(client.sockname[1]))
        return found.name if found is not None else None

    def refused_for_memory(self, client: connection.Client, flow: http.HTTPFlow | None, decision: Decision) -> None:
        """Count and record a refusal; end the exchange's record."""
        destination = f"{flow.request.host}:{flow.request.port}" if flow is not None else "*"
        method = flow.request.method if flow is not None else "-"
        class_name = self.class_of(client) or "?"
        self.denied(class_name, destination, decision, method, str(client.peername[0]), enforced=True)
        if flow is not None:
            self.recorder.abandon(flow, decision.rule, decision.reason)

    def _memory(self, name: str) -> dict[str, float]:
        return {class_name: float(values[name]) for class_name, values in self.budget.report().items()}

    # ── housekeeping ─────────────────────────────────────────────────────────────────────────────────────────

    def _keep(self) -> None:
        next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS
        while not self._stopping.wait(1.0):
            self._reload_policy()
            try:
                self._summarise_denials()
                if time.monotonic() >= next_checkpoint:
                    next_checkpoint += CHECKPOINT_SECONDS
                    self._write_checkpoint()
            except SpoolError as error:
                log.error("%s", error)

    def _check_ca(self, policy: Policy) -> None:
        for host in policy.inspect:
            if not self.ca_info.permits(host.removeprefix("*.")):
                raise ca.CAError(
                    f"{self.ca_dir / ca.ISSUING_FILE} may not sign for {host}, which the policy inspects. "
                    "Run `egress ca create` again (by Ansible: site.yml)."
                )

    def _reload_policy(self) -> None:
        """Take a changed policy file; where it cannot be used the last good one stays, and `ready` says why."""
        file, seen = self.settings.policy_file, _signature(self.settings.policy_file)
        if file is None or seen == self._policy_seen:
            return
        self._policy_seen = seen
        try:
            policy = load_policy(file, self.settings.llm_hosts)
            self.ca_info = ca.show(self.ca_dir)
            self._check_ca(policy)
            if self.apply_listeners is None and _listeners(policy) != _listeners(self.policy):
                raise PolicyError(str(file), None, "other listeners need a start anew", "restart the proxy")
        except (PolicyError, ca.CAError) as error:
            self._policy_problem = f"the last good policy ({self.policy.digest}) is in force: {error}"
            log.error("%s", self._policy_problem)
            self._keep_event("policy refused", policy_digest=self.policy.digest, severity="ERROR", reason=str(error))
            return
        changed = _listeners(policy) != _listeners(self.policy)
        self.policy, self._policy_problem = policy, None
        for warning in policy.warnings:
            log.warning("%s", warning)
        log.info("policy %s is in force", policy.digest)
        self._keep_event("policy loaded", policy_digest=policy.digest)
        if changed and self.apply_listeners is not None:
            self.apply_listeners()

    def _keep_event(
        self, message: str, *, policy_digest: str, severity: Literal["INFO", "ERROR"] = "INFO", reason: str = ""
    ) -> None:
        try:
            self.spool.add(
                EventRecord(
                    event_name=semconv.EVENT_POLICY,
                    attributes={"openclaw.egress.policy.digest": policy_digest}
                    | ({semconv.REASON: reason} if reason else {}),
                    message=message,
                    severity=severity,
                )
            )
        except SpoolError as error:
            log.error("%s", error)

    def _summarise_denials(self, *, everything: bool = False) -> None:
        with self._denials_lock:
            due = self._denials.due(time.monotonic(), everything=everything)
        for key, count in due:
            host, port = _host_and_port(key.destination)
            self._keep_denial(
                DeniedRecord(
                    class_name=key.class_name,
                    rule=key.rule,
                    reason=counted_reason(count),
                    host=host,
                    port=port,
                    count=count,
                    enforced=key.enforced,
                )
            )

    def _write_checkpoint(self) -> None:
        if self.spool.head() == self._checkpoint:
            return
        seq, digest = self.spool.checkpoint()
        self._checkpoint = self.spool.head()
        log.info("checkpoint: %d lines, the last one sha256:%s", seq, digest)

    # ── health ───────────────────────────────────────────────────────────────────────────────────────────────

    def alive(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process serves at all; `ready` says whether it does all that it should."""
        silence = time.monotonic() - self._beat
        return silence < STALLED_SECONDS, {
            "version": __version__,
            "instance": self.spool.instance_id,
            "event_loop_seen_seconds_ago": round(silence, 1),
        }

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether all that was asked for is happening: records arrive where they should, the CA is valid."""
        problems = [problem] if (problem := self._policy_problem) else []
        export: Mapping[str, Any] = self.exporter.state if self.exporter is not None else {}
        if export.get("last_error"):
            problems.append(f"export: {export['last_error']}" + (f"; {export['remedy']}" if export["remedy"] else ""))
        if self.spool.full:
            problems.append("the spool is full")
        days = self._ca_days_left()
        if days < 7:
            problems.append(f"the issuing CA expires in {days:.0f} days: run site.yml (or `egress ca create`)")
        return not problems, {
            "problems": problems,
            "policy": self.policy.digest,
            "export": dict(export),
            "spool": self.spool.stats(),
            "memory": {
                "used_bytes": self.budget.total,
                "limit_bytes": self.budget.limit,
                "classes": self.budget.report(),
            },
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
        gauges["memory_budget_bytes"] = ("Memory that traffic of all classes may hold.", float(self.budget.limit))
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


def _signature(file: Path | None) -> tuple[int, int, int] | None:
    """Changes when the file's content may have; None where there is no file (any more)."""
    try:
        found = file.stat() if file is not None else None
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size) if found else None


def _listeners(policy: Policy) -> set[int]:
    return {item.listen for item in policy.classes.values()}


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


def _host_and_port(destination: str) -> tuple[str, int]:
    """``host:port`` in its parts; what is no such text (a name that could not be read) is all host, port 0."""
    host, _, port = destination.rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isascii() and port.isdigit() else (destination, 0)


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
