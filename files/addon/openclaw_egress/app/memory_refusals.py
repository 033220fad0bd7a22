"""Callbacks of the memory accounts: they find the class of a connection, and record refusals for lack of memory."""

from __future__ import annotations

from mitmproxy import connection, http

from openclaw_egress.app.decision_log import DecisionLog
from openclaw_egress.app.policy_reloader import PolicyReloader
from openclaw_egress.policy.codes import ANYWHERE, Unparsed
from openclaw_egress.policy.model import Decision
from openclaw_egress.proxy.recorder import Recorder
from openclaw_egress.proxy.request_checks import sent_method


class MemoryRefusals:
    """The implementation of `memory.Owner`: it finds a client's class, and records refusals for lack of memory."""

    def __init__(self, policies: PolicyReloader, decisions: DecisionLog, recorder: Recorder) -> None:
        self._policies = policies
        self._decisions = decisions
        self._recorder = recorder

    def class_of(self, client: connection.Client) -> str | None:
        """Return the name of the class whose listener the client uses, or None."""
        found = self._policies.current.class_for_port(int(client.sockname[1]))
        return found.name if found is not None else None

    def refused_for_memory(
        self, client: connection.Client, flow: http.HTTPFlow | None, decision: Decision, status: int | None
    ) -> None:
        """Record a refusal for lack of memory. If the exchange is being recorded, record it as interrupted."""
        destination = Unparsed(flow.request.host, flow.request.port) if flow is not None else ANYWHERE
        method = sent_method(flow.request)[:32] if flow is not None else "-"
        class_name = self.class_of(client) or "?"
        address = str(client.peername[0])
        self._decisions.denied(class_name, destination, decision, method, address, enforced=True, status=status)
        if flow is not None:
            self._recorder.abandon(flow, decision, status)
