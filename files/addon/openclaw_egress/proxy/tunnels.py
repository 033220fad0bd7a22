"""Open tunnels of the classes with ``log_tunnels``: client, destination, and bytes in each direction."""

from __future__ import annotations

from dataclasses import dataclass

from openclaw_egress.policy.destination import Destination


@dataclass(slots=True)
class Tunnel:
    """One tunnel, whose content the proxy does not decrypt. Times are Unix nanoseconds."""

    class_name: str
    destination: Destination
    client: str
    rule: str
    reason: str
    code: str
    begin_ns: int
    sent: int = 0
    """Number of bytes from the client. ``received`` is the number of bytes sent to the client."""
    received: int = 0


_open: dict[str, Tunnel] = {}
"""The open tunnels, by the id of the client's connection."""


def begin(client_id: str, tunnel: Tunnel) -> None:
    """Start to count the bytes of this client connection."""
    _open[client_id] = tunnel


def end(client_id: str) -> Tunnel | None:
    """Remove the connection's tunnel and return it with its byte counts. Return None if `begin` was not called."""
    return _open.pop(client_id, None)


def count(client_id: str, size: int, *, sent: bool) -> None:
    """Add ``size`` to the byte count of the connection's tunnel, if `begin` was called for the connection."""
    if (tunnel := _open.get(client_id)) is None:
        return
    if sent:
        tunnel.sent += size
    else:
        tunnel.received += size
