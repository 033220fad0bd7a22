"""What ends a connection (a layer, and a way that always works), and what bytes after CONNECT may be."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from mitmproxy import connection, ctx
from mitmproxy.proxy import commands, events, layer


class Refuse(layer.Layer):
    """Closes the client's connection without an answer; for bytes that are no HTTP we could answer to.

    Who chooses it calls :func:`cut` as well: whatever raises in a layer leaves the connection open.
    """

    def _handle_event(self, event: events.Event) -> Generator[commands.Command, Any, None]:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)


def looks_like_tls(data: bytes) -> bool:
    """Whether the first bytes are a TLS handshake record (RFC 8446, section 5.1): type 22, version 3.x."""
    return data[:1] == b"\x16" and (len(data) < 2 or data[1] == 3)


def cut(client: connection.Client) -> None:
    """End a client's connection, and with it those upstream, whatever they are in the middle of.

    As mitmproxy's own time-out does. ``flow.kill()`` is not looked at while a body streams, and after an exception in a
    stream callable mitmproxy logs that it crashed and leaves the connection open.
    """
    proxyserver = ctx.master.addons.get("proxyserver")  # type: ignore[no-untyped-call]
    for handler in list(proxyserver.connections.values()):
        if handler.client.id == client.id and (found := handler.transports.get(handler.client)):
            found.handler.cancel("cut by openclaw.egress")
