"""Helpers to close a connection without a response, to abort it at any time, and to recognise TLS."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from mitmproxy import connection, ctx
from mitmproxy.proxy import commands, events, layer

type Commands = Generator[commands.Command, Any, None]
"""The commands that a layer yields for an event."""


class Refuse(layer.Layer):
    """A layer that closes the client's connection without a response. Use it if the client did not send HTTP.

    Code that selects this layer must also call :func:`abort`. If another layer raises an exception while it handles the
    same event, mitmproxy drops this layer's close command, and the connection would stay open.
    """

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)


def looks_like_tls(data: bytes) -> bool:
    """Return whether the first bytes are a TLS handshake record (RFC 8446, section 5.1): type 22, version 3.x."""
    return data[:1] == b"\x16" and (len(data) < 2 or data[1] == 3)


def abort(client: connection.Client) -> None:
    """Abort a client's connection and its upstream connections, in any state.

    This is how mitmproxy's own timeout ends a connection. ``flow.kill()`` has no effect while a body streams, and after
    an exception in a stream callable mitmproxy logs a crash and leaves the connection open.
    """
    proxyserver = ctx.master.addons.get("proxyserver")  # type: ignore[no-untyped-call]
    for handler in list(proxyserver.connections.values()):
        if handler.client.id == client.id and (found := handler.transports.get(handler.client)):
            found.handler.cancel("aborted by openclaw.egress")
