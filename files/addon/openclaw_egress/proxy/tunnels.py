"""Tunnels in progress that are recorded (``log_tunnels``): client, destination, and bytes in each direction."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from mitmproxy.proxy import events, layers

from openclaw_egress.policy.destination import Destination


@dataclass(slots=True)
class Tunnel:
    """One tunnel whose bytes the proxy does not read; times are Unix nanoseconds."""

    class_name: str
    destination: Destination
    client: str
    rule: str
    reason: str
    code: str
    begin_ns: int
    sent: int = 0
    """Bytes from the client; ``received`` counts the bytes to it."""
    received: int = 0


_open: dict[str, Tunnel] = {}
"""The open tunnels, by the id of the client's connection."""


def begin(client_id: str, tunnel: Tunnel) -> None:
    """Count the bytes of this connection from now on."""
    _open[client_id] = tunnel


def end(client_id: str) -> Tunnel | None:
    """Return the tunnel with its byte counts, once; None for a connection that is not counted."""
    return _open.pop(client_id, None)


def install() -> None:
    """Make mitmproxy's layer for opaque bytes count them; calling this again changes nothing."""
    original = layers.TCPLayer.relay_messages
    if getattr(original, "counts", False):
        return

    def relay_messages(self: layers.TCPLayer, event: events.Event) -> Generator[Any, Any, None]:
        if isinstance(event, events.DataReceived) and (tunnel := _open.get(self.context.client.id)) is not None:
            if event.connection is self.context.client:
                tunnel.sent += len(event.data)
            else:
                tunnel.received += len(event.data)
        return original(self, event)  # type: ignore[no-any-return]

    relay_messages.counts = True  # type: ignore[attr-defined]
    layers.TCPLayer.relay_messages = relay_messages  # type: ignore[method-assign]
