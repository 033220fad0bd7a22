"""Permits: the only thing that opens a connection to the outside.

A positive decision writes a permit for one client connection, host and port, with the addresses that were resolved and
checked. Whatever else happens (a bug, an exception in a hook, a layer that dials on its own), a connection for which
there is no permit is not opened.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from openclaw_egress.destinations import Destination

FRESH_SECONDS = 30.0
"""How long the checked addresses of a name serve new connections; a few seconds short of a usual DNS time to live."""


@dataclass(frozen=True, slots=True)
class Permit:
    """One client may connect to one destination, at these checked addresses (text, as from ``getaddrinfo``)."""

    class_name: str
    destination: Destination
    addresses: tuple[str, ...]
    inspect: bool
    tls: bool = True
    """What follows CONNECT must be TLS."""
    rule: str = ""
    reason: str = ""
    made: float = field(default_factory=time.monotonic)

    @property
    def fresh(self) -> bool:
        """Whether the addresses may still be used for a new connection."""
        return time.monotonic() - self.made < FRESH_SECONDS


class Permits:
    """The permits of all clients that are connected now."""

    def __init__(self) -> None:
        self._of_client: dict[str, dict[tuple[str, int], Permit]] = {}

    def write(self, client_id: str, permit: Permit) -> None:
        """Allow ``client_id`` to connect where ``permit`` says."""
        key = (permit.destination.host, permit.destination.port)
        self._of_client.setdefault(client_id, {})[key] = permit

    def find(self, client_id: str, host: str, port: int) -> Permit | None:
        """The permit for this client, host and port, or None."""
        return self._of_client.get(client_id, {}).get((host, port))

    def revoke(self, client_id: str, host: str, port: int) -> None:
        """Take one permit back."""
        self._of_client.get(client_id, {}).pop((host, port), None)

    def forget(self, client_id: str) -> None:
        """The client has gone: take all of its permits back."""
        self._of_client.pop(client_id, None)
