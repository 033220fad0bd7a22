"""Connection grants: the proxy opens no outgoing connection without one.

If the policy allows a request, access control writes a `ConnectionGrant` for one client connection, host and port. It
contains the addresses that were resolved and checked. The proxy refuses to connect without a grant, even if a hook has
a bug or raises an exception, or if a layer of mitmproxy tries to connect before a decision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from openclaw_egress.policy.destination import Destination

FRESH_SECONDS = 30.0
"""Seconds for which the checked addresses of a name may be used. Most DNS TTLs are longer."""


class Through(Protocol):
    """Interface of a route through the upstream proxy. `upstream_proxy.Route` implements it."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the addresses of the upstream proxy."""

    async def connect(self, protocol_factory: Callable[[], Any]) -> tuple[Any, Any]:
        """Open a connection to the destination."""

    def close(self) -> None:
        """Close the tunnel that was opened in advance, if no connection uses it yet."""


@dataclass(frozen=True, slots=True)
class ConnectionGrant:
    """Permission for one client to connect to one destination, at the checked ``addresses`` (as text).

    With a ``route``, the proxy connects to the upstream proxy. ``addresses`` is then empty if the proxy did not resolve
    the name.
    """

    class_name: str
    destination: Destination
    addresses: tuple[str, ...]
    inspect: bool
    tls: bool = True
    """Whether the client must send TLS after CONNECT."""
    rule: str = ""
    reason: str = ""
    code: str = ""
    route: Through | None = None
    made: float = field(default_factory=time.monotonic)

    @property
    def fresh(self) -> bool:
        """Return whether the addresses may still be used for a new connection."""
        return time.monotonic() - self.made < FRESH_SECONDS

    @property
    def peers(self) -> tuple[str, ...]:
        """Return the addresses that the proxy may connect to: the destination's, or the upstream proxy's."""
        return self.addresses if self.route is None else self.route.addresses

    def close(self) -> None:
        """Close the route's tunnel that was opened in advance, if no connection uses it yet."""
        if self.route is not None:
            self.route.close()


class ConnectionGrants:
    """The connection grants of one client, by host and port."""

    def __init__(self) -> None:
        self._grants: dict[tuple[str, int], ConnectionGrant] = {}

    def write(self, grant: ConnectionGrant) -> None:
        """Add a grant. Revoke an earlier one for the same host and port."""
        self.revoke(grant.destination.host, grant.destination.port)
        self._grants[grant.destination.host, grant.destination.port] = grant

    def find(self, host: str, port: int) -> ConnectionGrant | None:
        """Return the grant for this host and port, or None."""
        return self._grants.get((host, port))

    def revoke(self, host: str, port: int) -> None:
        """Revoke the grant for this host and port, if there is one."""
        if (grant := self._grants.pop((host, port), None)) is not None:
            grant.close()

    def revoke_all(self) -> None:
        """Revoke all grants of the client."""
        grants, self._grants = self._grants, {}
        for grant in grants.values():
            grant.close()
