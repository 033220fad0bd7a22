"""The policy in force, and its replacement when the policy file changes."""

from __future__ import annotations

import logging
import math
import time

from openclaw_egress import certificates
from openclaw_egress.app import open_listeners
from openclaw_egress.app.ca_reloader import CAReloader, check_ca
from openclaw_egress.app.event_log import record_event
from openclaw_egress.app.listeners import ListenError
from openclaw_egress.policy.configured import configured_policy
from openclaw_egress.policy.model import Policy, PolicyError
from openclaw_egress.proxy.served_ca import file_signature
from openclaw_egress.settings import Settings, SettingsError
from openclaw_egress.spool.writer import Spool

log = logging.getLogger("openclaw_egress")


def policy_signature(settings: Settings) -> tuple[object, ...]:
    """Return a value that changes if the policy file or the file of host addresses may have changed."""
    files = (settings.policy_file, settings.host_addresses_file)
    return tuple(file_signature(file) if file is not None else None for file in files)


class PolicyReloader:
    """The policy in force. The housekeeping thread reloads it, together with the CA and the listeners that it needs."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        signature: tuple[object, ...],
        ca: CAReloader,
        listeners: open_listeners.OpenListeners,
        spool: Spool,
    ) -> None:
        self.current = policy
        """The policy in force."""
        self.problem: str | None = None
        """The reason why the current policy file is not in force, or None."""
        self._settings = settings
        self._seen: tuple[object, ...] | None = signature
        self._ca = ca
        self._listeners = listeners
        self._spool = spool
        self._waits_for_ca: Policy | None = None
        self._next_listen = math.inf
        """Time of the next attempt to apply a policy whose listeners could not open."""

    def look_again(self) -> None:
        """Make the next :meth:`reload_policy` read the files even if they are unchanged. Safe in a signal handler."""
        self._seen = None

    def reload_ca(self) -> None:
        """Serve the CA if it changed. Then make the next :meth:`reload_policy` retry a refused policy.

        The policy may have been refused only because the previous CA did not cover its hosts.
        """
        if self._ca.reload(self._check_ca) and self.problem is not None:
            self._seen = ()

    def reload_policy(self) -> None:
        """Apply a changed policy file. If it is invalid, keep the last valid policy and set `problem`."""
        self._listeners.retry_close(self.current)
        seen = policy_signature(self._settings)
        if seen == self._seen and time.monotonic() < self._next_listen:
            return
        self._seen, self._next_listen = seen, math.inf
        self._waits_for_ca = None
        try:
            policy = configured_policy(self._settings)
            self._listeners.check(self.current, policy)
            self._prepare_ca(policy)
            # Open new listeners before the policy is in force; close dropped ones afterwards.
            self._listeners.open(self.current, policy)
        except (PolicyError, SettingsError, certificates.CAError) as error:
            if isinstance(error, ListenError):
                self._next_listen = time.monotonic() + open_listeners.LISTEN_SECONDS
            self._refuse(error)
            return
        self._waits_for_ca = None
        previous, self.current, self.problem = self.current, policy, None
        for warning in policy.warnings:
            log.warning("%s", warning)
        log.info("policy %s is in force", policy.digest)
        record_event(self._spool, "policy loaded", policy_digest=policy.digest)
        self._listeners.close(previous, policy)

    def _prepare_ca(self, policy: Policy) -> None:
        """Check that the CA covers the inspected hosts of a new policy.

        If it does not, and this proxy created the CA, create and serve a CA that covers them.

        Raises:
            CAError: no CA that covers the new policy is served yet.
        """
        try:
            check_ca(self._ca.served.info, policy)
        except certificates.CAError:
            self._waits_for_ca = policy
            self._ca.served.look_again()
            if self._ca.owned:
                # Cover the inspected hosts of both policies, because the previous policy stays in force until the
                # new CA is served.
                self._ca.create([*self.current.inspect, *policy.inspect])
                self.reload_ca()
            check_ca(self._ca.served.info, policy)

    def _check_ca(self, info: certificates.CAInfo) -> None:
        try:
            check_ca(info, self.current)
        except certificates.CAError:
            # The policy file can change before the CA files do. The new policy is then refused, because the old CA does
            # not cover its hosts. Accept a CA that covers this refused policy, even if that CA does not cover the
            # policy in force.
            if self._waits_for_ca is None:
                raise
            check_ca(info, self._waits_for_ca)

    def _refuse(self, error: Exception) -> None:
        """Set `problem`, and log and record once why the policy file is not in force."""
        problem = f"the last valid policy ({self.current.digest}) stays in force: {error}"
        if problem == self.problem:
            return
        self.problem = problem
        log.error("%s", problem)
        digest = self.current.digest
        record_event(self._spool, "policy refused", policy_digest=digest, severity="ERROR", reason=str(error))
