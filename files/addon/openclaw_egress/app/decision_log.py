"""The log of access control decisions. It counts all decisions in metrics, and records denials and tunnels."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from openclaw_egress.observability.metrics import Metrics
from openclaw_egress.policy.codes import UNREADABLE, Target, summary
from openclaw_egress.policy.model import Decision
from openclaw_egress.proxy.tunnels import Tunnel
from openclaw_egress.recording import semconv
from openclaw_egress.recording.denials import MAX_KEYS, DenialRate, Key
from openclaw_egress.recording.records import DeniedRecord, EventRecord, rfc3339
from openclaw_egress.spool.writer import Spool, SpoolError

log = logging.getLogger("openclaw_egress")

SEVERAL_CLIENTS = "several"
"""Value of the field ``client`` in a summary record about several clients."""


class DecisionLog:
    """The implementation of `access_control.Observer`.

    The event loop reports each decision to it. The housekeeping thread calls `summarise_denials`.
    """

    def __init__(self, spool: Spool, metrics: Metrics, instance_of: Callable[[str], str] = lambda _: "") -> None:
        """Record into ``spool``. ``instance_of`` returns the gateway instance of a class, or an empty string."""
        self._instance_of = instance_of
        self._spool = spool
        self._metrics = metrics
        self._denials = DenialRate()
        self._denials_lock = threading.Lock()
        self._denied_clients: dict[Key, str] = {}

    def allowed(self, class_name: str, *, inspect: bool) -> None:
        """Count an allowed connection or request."""
        self._metrics.allowed.labels(class_name, str(inspect).lower()).inc()

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
        """Count every denial, but limit the rate of records, so that a client in a retry loop cannot fill the spool."""
        self._metrics.denied.labels(class_name, decision.rule, decision.code, str(enforced).lower()).inc()
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
                instance=self._instance_of(class_name),
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
        """Record the metadata of a tunnel. The proxy does not read the tunnel's content."""
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
            self._spool.add(
                EventRecord(
                    event_name=semconv.EVENT_TUNNEL,
                    attributes=attributes,
                    message=message,
                    class_name=tunnel.class_name,
                    instance=self._instance_of(tunnel.class_name),
                )
            )
        except SpoolError as error:
            log.error("a tunnel could not be recorded: %s", error)

    def summarise_denials(self, *, everything: bool = False) -> None:
        """Write a summary record for each time window of denials that has ended.

        If ``everything`` is True, also summarise the windows that have not ended. The caller sets it when the proxy
        stops.
        """
        with self._denials_lock:
            counts = self._denials.due(time.monotonic(), everything=everything)
            due = [(key, count, self._denied_clients.pop(key, "")) for key, count in counts]
        for key, count, client in due:
            self._keep_denial(
                DeniedRecord(
                    class_name=key.class_name,
                    instance=self._instance_of(key.class_name),
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

    def _remember_client(self, key: Key, client: str) -> None:
        """Add the refused client to two summary records: that of ``key``, and that of the whole class."""
        with self._denials_lock:
            for known in (key, Key.of_class(key.class_name, enforced=key.enforced)):
                if len(self._denied_clients) > MAX_KEYS:
                    self._denied_clients.clear()
                if self._denied_clients.setdefault(known, client) != client:
                    self._denied_clients[known] = SEVERAL_CLIENTS

    def _keep_denial(self, record: DeniedRecord) -> None:
        try:
            self._spool.add(record)
        except SpoolError as error:
            # Ignore the error: the record is lost, but the denial was already counted. Log it only at debug level,
            # because the spool itself logs the cause.
            log.debug("denial not recorded: %s", error)
