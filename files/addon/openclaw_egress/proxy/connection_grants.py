"""Connection grants: the proxy opens no outgoing connection without one.

If the policy allows a request, access control writes a `ConnectionGrant` for one client connection, host and port. It
contains the addresses that were resolved and checked. The proxy refuses to connect without a grant, even if a hook has
a bug or raises an exception, or if a layer of mitmproxy tries to connect before a decision.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from openclaw_egress.policy.destination import Destination

FRESH_SECONDS = 30.0
"""Seconds for which the checked addresses of a name may be used. Most DNS TTLs are longer."""


@dataclass(frozen=True, slots=True)
class ConnectionGrant:
    """Permission for one client to connect to one destination, at the checked ``addresses`` (as text)."""

    class_name: str
    destination: Destination
    addresses: tuple[str, ...]
    inspect: bool
    tls: bool = True
    """Whether the client must send TLS after CONNECT."""
    rule: str = ""
    reason: str = ""
    code: str = ""
    made: float = field(default_factory=time.monotonic)

    @property
    def fresh(self) -> bool:
        """Return whether the addresses may still be used for a new connection."""
        return time.monotonic() - self.made < FRESH_SECONDS


class ConnectionGrants:
    """The connection grants of one client, by host and port."""

    def __init__(self) -> None:
        self._grants: dict[tuple[str, int], ConnectionGrant] = {}

    def write(self, grant: ConnectionGrant) -> None:
        """Allow the client to connect to the destination of ``grant``."""
        self._grants[grant.destination.host, grant.destination.port] = grant

    def find(self, host: str, port: int) -> ConnectionGrant | None:
        """Return the grant for this host and port, or None."""
        return self._grants.get((host, port))

    def revoke(self, host: str, port: int) -> None:
        """Revoke one grant."""
        self._grants.pop((host, port), None)

    def revoke_all(self) -> None:
        """Revoke all grants of the client."""
        self._grants.clear()
