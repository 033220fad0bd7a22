"""Renewal of the CA, if this proxy created it, and reload of the CA when its files change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from openclaw_egress import certificates
from openclaw_egress.app.event_log import record_event
from openclaw_egress.policy.model import Policy
from openclaw_egress.proxy.served_ca import ServedCA
from openclaw_egress.recording import semconv
from openclaw_egress.settings import Settings
from openclaw_egress.spool.writer import Spool

log = logging.getLogger("openclaw_egress")

RENEWAL_SECONDS = 600.0
"""Delay, in seconds, between a failed renewal and the next attempt."""


def check_ca(info: certificates.CAInfo, policy: Policy) -> None:
    """Check that the CA may sign certificates for each host that the policy inspects.

    Raises:
        CAError: the CA may not sign for an inspected host; the message contains the first such host.
    """
    for host in policy.inspect:
        if not info.permits(host.removeprefix("*.")):
            raise certificates.CAError(
                f"{info.directory / certificates.ISSUING_FILE} may not sign for {host}, which the policy inspects. "
                "Run `egress ca create` again (with Ansible: site.yml)."
            )


class CAReloader:
    """The tasks that renew and reload the CA of the proxy. The housekeeping thread calls them."""

    def __init__(self, settings: Settings, served: ServedCA, spool: Spool, clock: certificates.Clock) -> None:
        self.served = served
        self.owned = settings.ca_dir is None
        """Whether this proxy created the CA. If a CA directory is configured, the creator of that CA renews it."""
        self.renewal_problem: str | None = None
        self._root_dir = settings.state_dir / "root"
        self._spool = spool
        self._clock = clock
        self._next_renewal = 0.0

    def renew(self, inspect: Sequence[str]) -> None:
        """Renew a CA that this proxy created, once two thirds of its lifetime have passed."""
        if not self.owned or time.monotonic() < self._next_renewal:
            return
        if self.served.info.renewal_due(self._clock()) and not self.create(inspect):
            self._next_renewal = time.monotonic() + RENEWAL_SECONDS

    def create(self, inspect: Sequence[str]) -> bool:
        """Create an issuing CA if the current one is due for renewal, or its hosts are not those in ``inspect``.

        Return whether a CA was created. Log an error if this fails.
        """
        try:
            made = certificates.create(self.served.directory, self._root_dir, inspect, clock=self._clock)
        except certificates.CAError as error:
            self.renewal_problem = f"the issuing CA could not be renewed: {error}"
            log.error("%s", self.renewal_problem)
            return False
        self.renewal_problem = None
        return made

    def reload(self, check: Callable[[certificates.CAInfo], None]) -> bool:
        """Serve a changed CA from the next handshake on. If the changed CA is invalid, keep the previous one.

        ``check`` raises CAError for a CA that does not cover the policy. Return whether a new valid CA is served.
        """
        good = self.served.look(lambda info: self._accept(info, check))
        if good is None:
            return False
        if not good:
            problem = self.served.problem or ""
            log.error("%s", problem)
            record_event(self._spool, "CA refused", semconv.EVENT_CA, severity="ERROR", reason=problem)
            return False
        settled = self.served.settle()
        info = self.served.newest
        text = "issuing CA valid until %s is in use (%s)"
        if not settled:
            text = "issuing CA valid until %s was read; the next TLS handshake uses it (%s)"
        log.info(text, info.issuing_expires, info.issuing_sha256)
        reason = f"issuing CA {info.issuing_sha256}, until {info.issuing_expires.isoformat()}"
        record_event(self._spool, "CA loaded", semconv.EVENT_CA, reason=reason)
        return True

    def _accept(self, info: certificates.CAInfo, check: Callable[[certificates.CAInfo], None]) -> None:
        now = self._clock()
        if not info.issuing_begins <= now < min(info.issuing_expires, info.root_expires):
            raise certificates.CAError(
                f"{self.served.directory / certificates.ISSUING_FILE} is valid from {info.issuing_begins} to "
                f"{info.issuing_expires}, not now. Check the clock, then run `egress ca renew` (with "
                "Ansible: site.yml)."
            )
        check(info)
