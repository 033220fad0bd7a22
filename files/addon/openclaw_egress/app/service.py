"""The composition root: policy, CA, spool, exporter, health endpoint and add-ons of one proxy process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ipaddress
import json
import logging
import math
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import certifi
from mitmproxy import connection, http

from openclaw_egress import __version__, certificates
from openclaw_egress.app.listeners import ListenError, check_listeners, check_ports, refuse_open_proxy
from openclaw_egress.export.exporter import Exporter
from openclaw_egress.observability.health import HealthError, HealthServer
from openclaw_egress.observability.metrics import Metrics
from openclaw_egress.policy.codes import ANYWHERE, UNREADABLE, Target, Unparsed, summary
from openclaw_egress.policy.configured import configured_policy
from openclaw_egress.policy.model import Decision, Policy, PolicyError
from openclaw_egress.proxy import memory, mitmproxy_patches
from openclaw_egress.proxy.access_control import AccessControl, sent_method
from openclaw_egress.proxy.memory_budget import MemoryBudget, container_limit, default_budget
from openclaw_egress.proxy.recorder import Recorder
from openclaw_egress.proxy.served_ca import ServedCA, file_signature
from openclaw_egress.proxy.tunnels import Tunnel
from openclaw_egress.recording import semconv
from openclaw_egress.recording.denials import MAX_KEYS, DenialRate, Key
from openclaw_egress.recording.records import DeniedRecord, EventRecord, rfc3339
from openclaw_egress.settings import Settings, SettingsError
from openclaw_egress.signatures import Signer
from openclaw_egress.spool.writer import Spool, SpoolError

log = logging.getLogger("openclaw_egress")

CHECKPOINT_SECONDS = 300.0
"""Interval between checkpoints. Each names the newest line and its hash in the records, the log and the metrics."""

RENEWAL_SECONDS = 600.0
"""Delay before the next attempt after a failed renewal."""

SEVERAL_CLIENTS = "several"
"""The client in a summary record that counts the denials of several clients."""

LISTEN_SECONDS = 10.0
"""Timeout for a change of listeners, and the delay before the next attempt after a failed one."""

STALLED_SECONDS = 15.0
"""`alive` fails when the event loop has not run its heartbeat for this long."""


type ApplyListeners = Callable[[Mapping[int, str]], Future[None]]
"""Open and close listeners until exactly these are open: port and name of the class.

If one cannot open, the open listeners stay unchanged, and the future raises ListenError.
"""


class Service:
    """The parts of one proxy. The constructor validates the configuration; nothing listens before :meth:`start`.

    The constructor raises EgressError for invalid settings, policy, CA, key or spool, with a message for the
    operator.
    """

    _heartbeat_problem = ""
    _next_listen = math.inf
    """Time of the next attempt to apply a policy whose listeners could not open."""
    _next_close = math.inf
    """Time of the next attempt to close listeners that the policy in force no longer has."""
    _dropped: Mapping[int, str] = {}
    """Classes, by port, of the listeners that the policy in force no longer has and that may still be open."""
    _dropped_problem: str | None = None

    def __init__(self, settings: Settings, clock: certificates.Clock = certificates.utc_now) -> None:
        self.settings = settings
        self._clock = clock
        self.policy = configured_policy(settings)
        mitmproxy_patches.check_version()
        check_ports(settings, self.policy)
        refuse_open_proxy(settings, self.policy, [settings.listen_host])
        for warning in self.policy.warnings:
            log.warning("%s", warning)
        self.metrics = Metrics()
        self.ca_dir = settings.effective_ca_dir
        if settings.ca_dir is None:
            # Create a CA in the default directory only. The operator puts a CA into a directory that the settings name,
            # and keeps the root's key elsewhere.
            certificates.create(self.ca_dir, settings.state_dir / "root", self.policy.inspect, clock=clock)
        self._policy_seen: tuple[object, ...] | None = self._policy_signature()
        self._policy_problem: str | None = None
        self._policy_waits_for_ca: Policy | None = None
        self._renewal_problem: str | None = None
        self._next_renewal = 0.0
        self.apply_listeners: ApplyListeners | None = None
        """Set by the launcher if it can open and close listeners at run time; called from the housekeeping thread."""
        self._runtime = tempfile.TemporaryDirectory(prefix="openclaw-egress-")
        runtime = Path(self._runtime.name)
        # mitmproxy writes a DH parameter file next to its CA, and the CA's directory may be read-only.
        (runtime / certificates.ISSUING_FILE).symlink_to((self.ca_dir / certificates.ISSUING_FILE).absolute())
        self.confdir = runtime
        self.served_ca = ServedCA(self.ca_dir, runtime, clock)
        self._check_ca(self.policy, self.served_ca.info)
        self.trusted_ca = _trusted_roots(settings.upstream_ca, runtime)
        self.spool = Spool(
            settings.spool_path,
            settings.spool_max_bytes,
            settings.spool_full,
            local=not settings.logs_endpoint,
            service_name=settings.service_name,
            host_name=settings.host_name,
            signer=Signer.in_directory(settings.state_dir),
        )
        self.exporter = Exporter(self.spool, settings) if settings.logs_endpoint else None
        self._was_full = False
        self._denials = DenialRate()
        self._denials_lock = threading.Lock()
        self._denied_clients: dict[Key, str] = {}
        self._stopping = threading.Event()
        self._wake = threading.Event()
        """Set to run the housekeeping tasks now."""
        self._housekeeping_thread = threading.Thread(target=self._run_housekeeping, name="housekeeping", daemon=True)
        self._beat = time.monotonic()
        self._checkpoint = self.spool.head()
        self.access_control = AccessControl(lambda: self.policy, self, neighbours=settings.neighbours)
        self.recorder = Recorder(self.spool, self.metrics, settings.body_limit)
        self.budget = MemoryBudget(
            settings.memory_budget or default_budget(container_limit()), lambda: list(self.policy.classes)
        )
        self.memory = memory.Accounts(self.budget, self, settings.memory_wait_seconds)
        memory.tune_allocator()
        mitmproxy_patches.install(self.memory)
        self._publish_gauges()
        try:
            self.health = HealthServer(settings.health_port, self.metrics.registry, self.alive, self.ready)
        except HealthError:
            self.spool.close()
            self._runtime.cleanup()
            raise

    def _publish_gauges(self) -> None:
        self.metrics.gauges(self._gauges)
        self.metrics.by_label(
            "dead_letters", "Lines that the destination refuses for good, by reason.", "reason", self._dead_letters
        )
        self.metrics.by_class("memory_used_bytes", "Memory in use by traffic.", lambda: self._memory("used_bytes"))
        self.metrics.by_class(
            "memory_room_bytes",
            "Maximum of memory that traffic may use at the moment.",
            lambda: self._memory("room_bytes"),
        )

    def start(self) -> None:
        """Recover after a crash, then start export, health endpoint and housekeeping."""
        if self.settings.logs_endpoint:
            threading.Thread(target=self._warn_of_plain_export, name="endpoint-check", daemon=True).start()
        interrupted = self.spool.recover()
        if interrupted:
            log.warning("%d exchanges were interrupted when the proxy last stopped; their records say so", interrupted)
        self._keep_event("policy loaded", policy_digest=self.policy.digest)
        if self.exporter is not None:
            self.exporter.start()
        self.health.start()
        self._housekeeping_thread.start()

    def _warn_of_plain_export(self) -> None:
        # Run in a thread, because the lookup of the endpoint's name may block.
        if (warning := plain_export_warning(self.settings.logs_endpoint)) is not None:
            log.warning("%s", warning)

    async def heartbeat(self) -> None:
        """Each second, show that the event loop is alive and serve the newest CA. Never return."""
        self.spool.failure_level = logging.ERROR
        while True:
            self._beat = time.monotonic()
            self._beat_once()
            await asyncio.sleep(1)

    def _beat_once(self) -> None:
        """Run the tasks of one heartbeat. A failure is logged and reported by `ready`; the heartbeat continues."""
        failed = ""
        for task in (self.served_ca.serve, self.memory.settle_all):
            try:
                task()
            except Exception as error:
                failed = f"heartbeat: {task.__name__} failed: {type(error).__name__}"
                if failed != self._heartbeat_problem:
                    log.error("%s", failed, exc_info=error)
        self._heartbeat_problem = failed

    def reload(self) -> None:
        """Reload the policy and run the housekeeping tasks at once, for SIGHUP; safe in a signal handler."""
        log.info("SIGHUP: reloading %s", self.settings.policy_file or "nothing, because no policy file is set")
        self._policy_seen = None
        self._wake.set()

    def stop(self) -> None:
        """Flush within the timeouts, and close."""
        self._stopping.set()
        self._wake.set()
        if self._housekeeping_thread.is_alive():
            self._housekeeping_thread.join(timeout=5)
            self._summarise_denials(everything=True)
        if self.exporter is not None:
            self.exporter.stop(timeout=5)
        self.health.stop()
        self.spool.close()
        self._runtime.cleanup()

    # ── Observer of access control ───────────────────────────────────────────────────────────────────────────

    def denied(
        self,
        class_name: str,
        destination: Target,
        decision: Decision,
        method: str,
        client: str,
        *,
        enforced: bool,
        status: int | None = None,
    ) -> None:
        """Count each denial, and record it up to a rate, so that a loop cannot push exchanges out of the spool."""
        self.metrics.denied.labels(class_name, decision.rule, decision.code, str(enforced).lower()).inc()
        host, port, address = destination.host.strip("[]"), destination.port, decision.evidence.address
        why = decision.reason if destination == UNREADABLE else ""
        key = Key(class_name, host, port, decision.rule, decision.code, enforced, status, why)
        with self._denials_lock:
            singly = self._denials.singly(key, time.monotonic())
        if not singly:
            self._remember_client(key, client)
            return
        self._keep_denial(
            DeniedRecord(
                class_name=class_name,
                rule=decision.rule,
                code=decision.code,
                reason=decision.reason,
                address=None if address is None else str(address),
                host=host,
                port=port,
                method=method,
                client=client,
                enforced=enforced,
                status=status,
            )
        )

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Record the metadata of a tunnel; its bytes were not read."""
        now = time.time_ns()
        attributes: dict[str, str | int | float | bool | list[str]] = {
            semconv.HTTP_REQUEST_METHOD: "CONNECT",
            semconv.SERVER_ADDRESS: tunnel.destination.host,
            semconv.SERVER_PORT: tunnel.destination.port,
            semconv.CLIENT_ADDRESS: tunnel.client,
            semconv.RULE: tunnel.rule,
            semconv.CODE: tunnel.code,
            semconv.REASON: tunnel.reason,
            semconv.BEGIN: rfc3339(tunnel.begin_ns),
            semconv.DURATION: max(0, now - tunnel.begin_ns) / 1e9,
            semconv.REQUEST_SIZE: tunnel.sent,
            semconv.RESPONSE_SIZE: tunnel.received,
        }
        message = f"{tunnel.client} to {tunnel.destination}: {tunnel.sent} bytes sent, {tunnel.received} received"
        try:
            self.spool.add(
                EventRecord(
                    event_name=semconv.EVENT_TUNNEL,
                    attributes=attributes,
                    message=message,
                    class_name=tunnel.class_name,
                )
            )
        except SpoolError as error:
            log.error("tunnel not recorded: %s", error)

    def _remember_client(self, key: Key, client: str) -> None:
        """Remember the refused client for the summary record of this window."""
        with self._denials_lock:
            for known in (key, Key.of_class(key.class_name, enforced=key.enforced)):
                if len(self._denied_clients) > MAX_KEYS:
                    self._denied_clients.clear()
                if self._denied_clients.setdefault(known, client) != client:
                    self._denied_clients[known] = SEVERAL_CLIENTS

    def _keep_denial(self, record: DeniedRecord) -> None:
        try:
            self.spool.add(record)
        except SpoolError as error:
            # Only the record is lost: the request stays refused and is counted. The spool logs the cause once.
            log.debug("denial not recorded: %s", error)

    def allowed(self, class_name: str, *, inspect: bool) -> None:
        """Count an allowed connection or request."""
        self.metrics.allowed.labels(class_name, str(inspect).lower()).inc()

    # ── Owner of the memory accounts ─────────────────────────────────────────────────────────────────────────

    def class_of(self, client: connection.Client) -> str | None:
        """Return the name of the class whose listener the client reached."""
        found = self.policy.class_for_port(int(client.sockname[1]))
        return found.name if found is not None else None

    def refused_for_memory(
        self, client: connection.Client, flow: http.HTTPFlow | None, decision: Decision, status: int | None
    ) -> None:
        """Record a refusal for lack of memory, and end the record of its exchange."""
        destination = Unparsed(flow.request.host, flow.request.port) if flow is not None else ANYWHERE
        method = sent_method(flow.request)[:32] if flow is not None else "-"
        class_name = self.class_of(client) or "?"
        address = str(client.peername[0])
        self.denied(class_name, destination, decision, method, address, enforced=True, status=status)
        if flow is not None:
            self.recorder.abandon(flow, decision, status)

    def _memory(self, name: str) -> dict[str, float]:
        return {class_name: float(values[name]) for class_name, values in self.budget.report().items()}

    def _dead_letters(self) -> dict[str, float]:
        return {code: float(count) for code, count in self.spool.dead_letters().items()}

    # ── housekeeping ─────────────────────────────────────────────────────────────────────────────────────────

    def _run_housekeeping(self) -> None:
        next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS
        while True:
            self._wake.wait(1.0)
            if self._stopping.is_set():
                return
            self._wake.clear()
            for task in (self._renew_ca, self._reload_ca, self._reload_policy, self._summarise_denials):
                self._do(task)
            if time.monotonic() >= next_checkpoint:
                next_checkpoint += CHECKPOINT_SECONDS
                self._do(self._write_checkpoint)
            self._do(self._log_full)

    def _do(self, task: Callable[[], None]) -> None:
        """Run one housekeeping task. A failing task does not stop the others."""
        try:
            task()
        except SpoolError as error:
            log.debug("%s", error)  # the spool logs the cause once
        except Exception as error:
            log.error("housekeeping: %s failed", task.__name__.strip("_"), exc_info=error)

    def _log_full(self) -> None:
        """Log once when a full spool starts to refuse exchanges, and once when it stops (EGRESS_SPOOL_FULL=block)."""
        full = self.spool.full
        if full != self._was_full:
            self._was_full = full
            if full:
                log.error(
                    "exchanges are refused until they can be recorded again: the spool is full "
                    "(EGRESS_SPOOL_FULL=block); `egress status` shows the backlog; to enlarge the spool, "
                    "raise EGRESS_SPOOL_MAX_BYTES"
                )
            else:
                log.info("the spool has space again: exchanges are accepted")

    def _renew_ca(self) -> None:
        """Renew a CA that this proxy created, at two thirds of its lifetime. Any other is renewed by its creator."""
        if self.settings.ca_dir is not None or time.monotonic() < self._next_renewal:
            return
        if self.served_ca.info.renewal_due(self._clock()) and not self._make_ca(self.policy.inspect):
            self._next_renewal = time.monotonic() + RENEWAL_SECONDS

    def _make_ca(self, inspect: Sequence[str]) -> bool:
        try:
            made = certificates.create(self.ca_dir, self.settings.state_dir / "root", inspect, clock=self._clock)
        except certificates.CAError as error:
            self._renewal_problem = f"the issuing CA could not be renewed: {error}"
            log.error("%s", self._renewal_problem)
            return False
        self._renewal_problem = None
        return made

    def _reload_ca(self) -> None:
        """Serve a changed CA from the next handshake on. If it is invalid, keep the previous one."""
        good = self.served_ca.look(self._accept_ca)
        if good is None:
            return
        if not good:
            problem = self.served_ca.problem or ""
            log.error("%s", problem)
            self._keep_event("CA refused", semconv.EVENT_CA, severity="ERROR", reason=problem)
            return
        settled = self.served_ca.settle()
        info = self.served_ca.newest
        text = "issuing CA valid until %s is in use (%s)"
        if not settled:
            text = "issuing CA valid until %s was read; the next TLS handshake uses it (%s)"
        log.info(text, info.issuing_expires, info.issuing_sha256)
        reason = f"issuing CA {info.issuing_sha256}, until {info.issuing_expires.isoformat()}"
        self._keep_event("CA loaded", semconv.EVENT_CA, reason=reason)
        if self._policy_problem is not None:
            self._policy_seen = ()

    def _accept_ca(self, info: certificates.CAInfo) -> None:
        now = self._clock()
        if not info.issuing_begins <= now < min(info.issuing_expires, info.root_expires):
            raise certificates.CAError(
                f"{self.ca_dir / certificates.ISSUING_FILE} is valid from {info.issuing_begins} to "
                f"{info.issuing_expires}, not now. Check the clock, then run `egress ca renew` (by Ansible: site.yml)."
            )
        try:
            self._check_ca(self.policy, info)
        except certificates.CAError:
            # A new policy and the CA for its hosts are two files. Accept a CA for the policy that is not yet in force,
            # too.
            if self._policy_waits_for_ca is None:
                raise
            self._check_ca(self._policy_waits_for_ca, info)

    def _check_ca(self, policy: Policy, info: certificates.CAInfo) -> None:
        for host in policy.inspect:
            if not info.permits(host.removeprefix("*.")):
                raise certificates.CAError(
                    f"{self.ca_dir / certificates.ISSUING_FILE} may not sign for {host}, which the policy inspects. "
                    "Run `egress ca create` again (by Ansible: site.yml)."
                )

    def _reload_policy(self) -> None:
        """Apply a changed policy file. If it is invalid, keep the last valid policy and let `ready` report why."""
        if self._dropped_problem is not None and time.monotonic() >= self._next_close:
            self._close_dropped()
        seen = self._policy_signature()
        if seen == self._policy_seen and time.monotonic() < self._next_listen:
            return
        self._policy_seen, self._next_listen = seen, math.inf
        self._policy_waits_for_ca = None
        try:
            policy = configured_policy(self.settings)
            if self.apply_listeners is None and _listeners(policy).keys() != _listeners(self.policy).keys():
                file = str(self.settings.policy_file)
                raise PolicyError(
                    file, None, "the listeners differ, and this proxy cannot change them at run time", "restart it"
                )
            check_ports(self.settings, policy)
            if self.apply_listeners is not None:
                open_now = self._dropped.keys() | _listeners(self.policy).keys()
                added = [
                    (found.name, found.listen) for found in policy.classes.values() if found.listen not in open_now
                ]
                check_listeners(self.settings.listen_host, added)
            try:
                self._check_ca(policy, self.served_ca.info)
            except certificates.CAError:
                self._policy_waits_for_ca = policy
                self.served_ca.look_again()
                if self.settings.ca_dir is None:
                    # Include the names of both policies, because the previous one stays in force until the new CA is
                    # served.
                    self._make_ca([*self.policy.inspect, *policy.inspect])
                    self._reload_ca()
                self._check_ca(policy, self.served_ca.info)
            # Open new listeners before the policy is in force; close dropped ones afterwards.
            if _listeners(policy).keys() - _listeners(self.policy).keys():
                self._listen(_listeners(self.policy) | _listeners(policy))
        except (PolicyError, SettingsError, certificates.CAError) as error:
            if isinstance(error, ListenError):
                self._next_listen = time.monotonic() + LISTEN_SECONDS
            problem = f"the last valid policy ({self.policy.digest}) stays in force: {error}"
            if problem == self._policy_problem:
                return
            self._policy_problem = problem
            log.error("%s", self._policy_problem)
            self._keep_event("policy refused", policy_digest=self.policy.digest, severity="ERROR", reason=str(error))
            return
        self._policy_waits_for_ca = None
        dropped = {**self._dropped, **_listeners(self.policy)}
        self._dropped = {port: name for port, name in dropped.items() if port not in _listeners(policy)}
        changed = _listeners(policy).keys() != _listeners(self.policy).keys()
        self.policy, self._policy_problem = policy, None
        for warning in policy.warnings:
            log.warning("%s", warning)
        log.info("policy %s is in force", policy.digest)
        self._keep_event("policy loaded", policy_digest=policy.digest)
        if changed and self.apply_listeners is not None:
            self._close_dropped()

    def _close_dropped(self) -> None:
        """Close the listeners that the policy in force no longer has. If one stays open, `ready` reports it."""
        self._next_close = time.monotonic() + LISTEN_SECONDS
        try:
            self._listen(_listeners(self.policy))
        except ListenError as error:
            ports = ", ".join(f"{port} (class {name})" for port, name in sorted(self._dropped.items()))
            problem = (
                f"the policy in force no longer has the listeners {ports}, but they may still be open: {error}. "
                f"The proxy tries to close them every {LISTEN_SECONDS:g} s; a restart closes them too."
            )
            if problem != self._dropped_problem:
                log.error("%s", problem)
            self._dropped_problem = problem
            return
        self._dropped, self._dropped_problem = {}, None

    def _listen(self, ports: Mapping[int, str]) -> None:
        """Open and close listeners until exactly these are open; on an error, leave the open ones unchanged.

        Raises:
            ListenError: a listener cannot open.
        """
        if self.apply_listeners is None:
            return
        try:
            applied = self.apply_listeners(ports)
            end = time.monotonic() + LISTEN_SECONDS
            # Check `_stopping`: the event loop may be in `stop`, which waits for this thread.
            while not applied.done() and time.monotonic() < end and not self._stopping.is_set():
                concurrent.futures.wait([applied], timeout=0.2)
            if not applied.done():
                applied.cancel()
            applied.result(timeout=0)
        except ListenError:
            raise
        except (Exception, concurrent.futures.CancelledError) as error:
            raise ListenError(f"the listeners cannot be changed: {type(error).__name__}: {error}") from error

    def _policy_signature(self) -> tuple[object, ...]:
        files = (self.settings.policy_file, self.settings.host_addresses_file)
        return tuple(file_signature(file) if file is not None else None for file in files)

    def _keep_event(
        self,
        message: str,
        event_name: str = semconv.EVENT_POLICY,
        *,
        policy_digest: str | None = None,
        severity: Literal["INFO", "ERROR"] = "INFO",
        reason: str = "",
    ) -> None:
        try:
            self.spool.add(
                EventRecord(
                    event_name=event_name,
                    attributes=({"openclaw.egress.policy.digest": policy_digest} if policy_digest else {})
                    | ({semconv.REASON: reason} if reason else {}),
                    message=message,
                    severity=severity,
                )
            )
        except SpoolError as error:
            log.debug("%s", error)  # the spool logs the cause once

    def _summarise_denials(self, *, everything: bool = False) -> None:
        with self._denials_lock:
            counts = self._denials.due(time.monotonic(), everything=everything)
            due = [(key, count, self._denied_clients.pop(key, "")) for key, count in counts]
        for key, count, client in due:
            self._keep_denial(
                DeniedRecord(
                    class_name=key.class_name,
                    rule=key.rule,
                    code=key.code,
                    reason=summary(count, key.reason),
                    host=key.host,
                    port=key.port,
                    count=count,
                    summary=True,
                    client=client,
                    enforced=key.enforced,
                    status=key.status,
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
        """Return whether clients can be served, now and in seven days; `ready` reports all other problems."""
        silence = time.monotonic() - self._beat
        expiring = self.served_ca.info.problems(self._clock())
        return silence < STALLED_SECONDS and not expiring, {
            "problems": expiring,
            "stopped": self.stopped(),
            "version": __version__,
            "instance": self.spool.instance_id,
            "event_loop_seen_seconds_ago": round(silence, 1),
        }

    def stopped(self) -> list[str]:
        """Return the problems that make the proxy refuse all exchanges with inspected hosts; `alive` ignores them."""
        found = [self.spool.problem] if self.spool.problem else []
        return found + (["the spool is full"] if self.spool.full else [])

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Return whether everything works: policy, export, recording, CA and housekeeping."""
        problems = [problem] if (problem := self._policy_problem) else []
        export: Mapping[str, Any] = self.exporter.state if self.exporter is not None else {}
        if export.get("last_error"):
            problems.append(f"export: {export['last_error']}" + (f"; {export['remedy']}" if export["remedy"] else ""))
        problems += self.stopped()
        now, authority = self._clock(), self.served_ca.info
        problems += authority.problems(now)
        others = (
            self._dropped_problem,
            self.served_ca.problem,
            self._renewal_problem,
            self._heartbeat_problem,
            self.spool.flush_problem,
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
            "policy": self.policy.digest,
            "export": dict(export),
            "spool": self.spool.stats(),
            "dead_letters": self.spool.dead_letters(),
            "memory": {
                "used_bytes": self.budget.total,
                "limit_bytes": self.budget.limit,
                "classes": self.budget.report(),
            },
        }

    def _gauges(self) -> dict[str, tuple[str, float]]:
        stats = self.spool.stats()
        gauges = {
            f"spool_{name}": (f"Spool: {name.replace('_', ' ')}.", float(value))
            for name, value in stats.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        gauges["ca_expiry_timestamp_seconds"] = (
            "When the issuing CA in use expires.",
            self.served_ca.info.issuing_expires.timestamp(),
        )
        gauges["ca_root_expiry_timestamp_seconds"] = (
            "When the root CA expires.",
            self.served_ca.info.root_expires.timestamp(),
        )
        gauges["policy_last_reload_successful"] = (
            "Whether the policy file is in force (1), or an earlier policy because the file was refused (0).",
            float(self._policy_problem is None),
        )
        gauges["memory_budget_bytes"] = (
            "Maximum of memory that the traffic of all classes may use.",
            float(self.budget.limit),
        )
        state = self.exporter.state if self.exporter is not None else {}
        for name, value in state.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                gauges[f"export_{name}"] = (f"Export: {name.replace('_', ' ')}.", float(value))
        return gauges


def plain_export_warning(endpoint: str, look_up: Callable[..., list[Any]] = socket.getaddrinfo) -> str | None:
    """Return a warning if records, which contain prompts, would cross a public network unencrypted, or None."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or not parts.hostname:
        return None
    try:
        found = [str(answer[4][0]).partition("%")[0] for answer in look_up(parts.hostname, parts.port or 80)]
        public = sorted({address for address in found if ipaddress.ip_address(address).is_global})
    except (OSError, UnicodeError, ValueError):
        return None
    if not public:
        return None
    return (
        f"records go to {parts.hostname} ({public[0]}) over plain HTTP: anyone on the network path can read "
        "prompts and responses. Use an https:// URL in OTEL_EXPORTER_OTLP_LOGS_ENDPOINT, or an address inside a VPN."
    )


def _listeners(policy: Policy) -> dict[int, str]:
    return {item.listen: item.name for item in policy.classes.values()}


def _trusted_roots(extra: Path | None, directory: Path) -> Path:
    """Write the public roots and the operator's into one file: mitmproxy's option replaces its own list."""
    roots = Path(certifi.where()).read_bytes()
    if extra is not None:
        try:
            added = extra.read_bytes()
        except OSError as error:
            raise SettingsError(f"EGRESS_UPSTREAM_CA: {extra} cannot be read: {error.strerror}") from None
        if b"-----BEGIN CERTIFICATE-----" not in added:
            raise SettingsError(f"EGRESS_UPSTREAM_CA: {extra} contains no certificate in PEM format")
        roots += b"\n" + added
    file = directory / "trusted-roots.pem"
    file.write_bytes(roots)
    return file


def describe(service: Service) -> str:
    """Return one log line for the start: the listeners, the inspected hosts and the destination of records."""
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


__all__ = ["Service", "SpoolError", "describe"]
