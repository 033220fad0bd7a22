"""State that access control stores for each client connection, and for each class."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from openclaw_egress.policy.destination import Destination
from openclaw_egress.proxy.connection_grants import ConnectionGrants
from openclaw_egress.proxy.rate_limiter import Rate


@dataclass(slots=True)
class ClientSession:
    """The state of one client connection, from connect to disconnect."""

    class_name: str
    """Name of the class whose listener accepted the client."""
    grants: ConnectionGrants = field(default_factory=ConnectionGrants)
    connect_target: Destination | None = None
    """The destination of the client's allowed CONNECT. A later refusal does not clear it, but revokes the grants."""
    tunnel_in_use: bool = False
    """Whether the client has begun to use its tunnel. Before that, ``header_seconds`` is the timeout."""
    relayed: bool = False
    """Whether the tunnel passes on bytes that the proxy does not parse."""
    first_byte_timer: asyncio.TimerHandle | None = None
    """Timer that aborts the connection unless the client sends its first byte within ``header_seconds``."""

    def stop_first_byte_timer(self) -> None:
        """Stop the timer, because the client has sent bytes or has disconnected."""
        if self.first_byte_timer is not None:
            self.first_byte_timer.cancel()
            self.first_byte_timer = None


@dataclass(slots=True)
class ClassUsage:
    """The connections and the request rate of all clients of one class, to enforce the limits of the class."""

    connections: int = 0
    """Number of clients that are connected now."""
    rate: Rate | None = None

    def take_request(self, per_minute: int | None) -> float:
        """Count one request. Return 0.0 if it may pass, otherwise the seconds to wait.

        If ``per_minute`` is None, there is no limit.
        """
        if per_minute is None:
            return 0.0
        if self.rate is None or self.rate.per_minute != per_minute:
            self.rate = Rate(per_minute)
        return self.rate.take(time.monotonic())
