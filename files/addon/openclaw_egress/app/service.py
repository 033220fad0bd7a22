"""The composition root: policy, CA, spool, exporter, health endpoint and add-ons of one proxy process."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from openclaw_egress import __version__, certificates
from openclaw_egress.app.ca_reloader import CAReloader, check_ca
from openclaw_egress.app.decision_log import DecisionLog
from openclaw_egress.app.endpoint_check import plain_export_warning
from openclaw_egress.app.event_log import record_event
from openclaw_egress.app.heartbeat import Heartbeat
from openclaw_egress.app.housekeeping import Housekeeping
from openclaw_egress.app.listeners import check_ports, refuse_open_proxy
from openclaw_egress.app.memory_refusals import MemoryRefusals
from openclaw_egress.app.open_listeners import OpenListeners
from openclaw_egress.app.policy_reloader import PolicyReloader, policy_signature
from openclaw_egress.app.readiness import Readiness
from openclaw_egress.export.exporter import Exporter
from openclaw_egress.llm.openai_responses import retrieved_id
from openclaw_egress.llm.pricing import PriceTable
from openclaw_egress.llm.registry import bare_path
from openclaw_egress.observability import catalogue, last_audit
from openclaw_egress.observability.health import HealthError, HealthServer, MetricsServer
from openclaw_egress.observability.metrics import Metrics
from openclaw_egress.policy.configured import configured_policy
from openclaw_egress.policy.model import Policy
from openclaw_egress.proxy import memory, mitmproxy_patches
from openclaw_egress.proxy.access_control import AccessControl
from openclaw_egress.proxy.budgets import Budgets, Spent
from openclaw_egress.proxy.counted_responses import CountedResponses, Retrieved
from openclaw_egress.proxy.memory_budget import MemoryBudget, container_limit, default_budget
from openclaw_egress.proxy.options import trusted_roots
from openclaw_egress.proxy.recorder import Recorder
from openclaw_egress.proxy.served_ca import ServedCA
from openclaw_egress.proxy.upstream_proxy import UpstreamProxy
from openclaw_egress.settings import Settings
from openclaw_egress.signatures import Signer
from openclaw_egress.spool import usage_totals
from openclaw_egress.spool.writer import Spool

log = logging.getLogger("openclaw_egress")


class Service:
    """The parts of one proxy. The constructor creates them and validates the configuration; `start` starts them.

    The constructor raises EgressError, with a message for the operator, if the settings, the policy, the CA, a key or
    the spool is invalid. Certificates and budgets get the time from ``clock``.
    """

    def __init__(self, settings: Settings, clock: certificates.Clock = certificates.utc_now) -> None:
        self.settings = settings
        signature = policy_signature(settings)
        policy = configured_policy(settings)
        mitmproxy_patches.check_version()
        check_ports(settings, policy)
        refuse_open_proxy(settings, policy, {host for name in policy.classes for host in settings.listen_hosts(name)})
        _warn(settings, policy)
        ca_dir = settings.effective_ca_dir
        if settings.ca_dir is None:
            # Create a CA in the default directory only. If a directory is configured, the operator puts a CA there and
            # keeps the root's key elsewhere.
            certificates.create(ca_dir, settings.state_dir / "root", policy.inspect, clock=clock)
        self._runtime = tempfile.TemporaryDirectory(prefix="openclaw-egress-")
        self.confdir = Path(self._runtime.name)
        # Link the CA into a temporary directory: mitmproxy writes a DH parameter file next to its CA, and the CA's
        # directory may be read-only.
        (self.confdir / certificates.ISSUING_FILE).symlink_to((ca_dir / certificates.ISSUING_FILE).absolute())
        self.served_ca = ServedCA(ca_dir, self.confdir, clock)
        check_ca(self.served_ca.info, policy)
        prices = PriceTable(settings.prices_file)
        self.trusted_ca = trusted_roots(settings.upstream_ca, self.confdir)
        self.upstream_proxy = UpstreamProxy.of(settings, self.trusted_ca)
        self.spool = Spool(
            settings.spool_path,
            settings.spool_max_bytes,
            settings.spool_full,
            local=not settings.logs_endpoint,
            max_age=settings.retention,
            service_name=settings.service_name,
            host_name=settings.host_name,
            signer=Signer.in_directory(settings.state_dir),
        )
        pace = settings.export_max_bytes_per_second
        self.exporter = Exporter(self.spool, settings, max_bytes_per_second=pace) if settings.logs_endpoint else None
        stopping = threading.Event()
        self.listeners = OpenListeners(settings, stopping)
        self.ca = CAReloader(settings, self.served_ca, self.spool, clock)
        self.policies = PolicyReloader(settings, policy, signature, self.ca, self.listeners, self.spool)
        self.metrics = Metrics()

        def instance_of(class_name: str) -> str:
            return self.policies.current.instance_of(class_name)

        self.decisions = DecisionLog(self.spool, self.metrics, instance_of)
        self.housekeeping = Housekeeping(self.policies, self.ca, self.decisions, self.spool, stopping)
        budgets = Budgets(lambda: self.policies.current, self._spent_since, lambda: int(clock().timestamp() * 10**9))
        self.metrics.by_labels(catalogue.BUDGET_USED, budgets.shares)
        self.access_control = AccessControl(
            lambda: self.policies.current,
            self.decisions,
            neighbours=settings.neighbours,
            class_networks=settings.class_networks,
            budgets=budgets,
            upstream_proxy=self.upstream_proxy,
        )
        counted = CountedResponses(self._counted_responses())
        self.recorder = Recorder(
            self.spool,
            self.metrics,
            settings.body_limit,
            prices=prices,
            budgets=budgets,
            counted=counted,
            masks=lambda: self.policies.current.mask if settings.mask_bodies == "on" else None,
            instance_of=instance_of,
        )
        budget = MemoryBudget(
            settings.memory_budget or default_budget(container_limit()), lambda: list(self.policies.current.classes)
        )
        refusals = MemoryRefusals(self.policies, self.decisions, self.recorder)
        accounts = memory.Accounts(budget, refusals, settings.memory_wait_seconds)
        memory.tune_allocator()
        mitmproxy_patches.install(accounts)
        self.heartbeat = Heartbeat(self.spool, self.served_ca, accounts)
        self.readiness = Readiness(
            self.policies,
            self.listeners,
            self.ca,
            self.heartbeat,
            self.spool,
            self.exporter,
            budget,
            clock,
            self.upstream_proxy,
        )
        self.readiness.publish(self.metrics)
        self.metrics.gauges(lambda: last_audit.gauges(settings.state_dir))
        try:
            self.health = HealthServer(
                settings.health_port, self.metrics.registry, self.readiness.alive, self.readiness.ready
            )
            self.metrics_server = (
                MetricsServer(*settings.metrics_listen, self.metrics.registry) if settings.metrics_listen else None
            )
        except HealthError:
            self.spool.close()
            self._runtime.cleanup()
            raise

    def start(self) -> None:
        """Recover exchanges that a crash interrupted, then start the exporter, the health endpoint and housekeeping."""
        if self.settings.logs_endpoint:
            threading.Thread(target=self._warn_of_plain_export, name="endpoint-check", daemon=True).start()
        interrupted = self.spool.recover()
        if interrupted:
            log.warning(
                "%d exchanges were recorded as `interrupted`, because the proxy stopped during them",
                interrupted,
            )
        record_event(self.spool, "policy loaded", policy_digest=self.policies.current.digest)
        if self.exporter is not None:
            self.exporter.start()
        self.health.start()
        if self.metrics_server is not None:
            self.metrics_server.start()
        self.housekeeping.start()

    def _spent_since(self, hour: int) -> Iterator[Spent]:
        """Yield the usage of each class in each hour since ``hour`` (in hours since 1970), from the spool's totals."""
        for (name, of), usage in self.spool.reader.usage(("class", "hour"), hour * usage_totals.HOUR_NS):
            tokens = usage.counts["input_tokens"] + usage.counts["output_tokens"]
            yield Spent(str(name), int(of), tokens, usage.counts["cost_nano_usd"])

    def _counted_responses(self) -> Iterator[Retrieved]:
        """Yield the background responses (Responses API) whose usage is already counted in the newest records.

        If a client retrieves one of them again after a restart, its usage must not be counted a second time.
        """
        for class_name, host, url in self.spool.reader.counted_urls("/responses/"):
            if (response_id := retrieved_id(bare_path(url))) is not None:
                yield Retrieved(class_name, host.lower(), response_id)

    def _warn_of_plain_export(self) -> None:
        # Run this in a separate thread, because resolving the name of the endpoint may block.
        if (warning := plain_export_warning(self.settings.logs_endpoint)) is not None:
            log.warning("%s", warning)

    def reload(self) -> None:
        """Make the housekeeping thread reload the policy and the CA now. The signal handler for SIGHUP calls this."""
        log.info("SIGHUP: reloading %s", self.settings.policy_file or "nothing, because no policy file is set")
        self.policies.look_again()
        self.housekeeping.wake()

    def stop(self) -> None:
        """Stop all parts of the proxy. The exporter gets up to 5 s to send records; the rest stays in the spool."""
        self.housekeeping.stop()
        if self.exporter is not None:
            self.exporter.stop(timeout=5)
        self.health.stop()
        if self.metrics_server is not None:
            self.metrics_server.stop()
        self.spool.close()
        self._runtime.cleanup()


def _warn(settings: Settings, policy: Policy) -> None:
    """Log a warning for each valid setting that is probably a mistake."""
    for warning in policy.warnings:
        log.warning("%s", warning)
    for name in sorted(settings.class_networks.interfaces.keys() - policy.classes.keys()):
        log.warning("EGRESS_CLASS_NETWORKS: the policy has no class %s, so no listener uses its network", name)


def describe(service: Service) -> str:
    """Return the log line for a started proxy, with its listeners, its inspected hosts and the records' destination."""
    classes = ", ".join(
        f"{item.name} :{item.listen} {item.action}" for item in service.policies.current.classes.values()
    )
    return json.dumps(
        {
            "event": "started",
            "version": __version__,
            "classes": classes,
            "inspect": list(service.policies.current.inspect),
            "records": service.settings.logs_endpoint or str(service.settings.spool_path),
        }
        | ({} if service.upstream_proxy is None else {"upstream_proxy": str(service.upstream_proxy.url)})
    )
