"""All patches of mitmproxy. Each changes behaviour for which mitmproxy has neither an option nor a hook.

The patches were checked against `CHECKED_VERSION`. The proxy does not start with another version, because that version
may not call the replaced functions. Other modules make further changes: `resolver` replaces two methods of asyncio's
event loop, `launcher` chooses mitmproxy's add-ons, and `memory` limits the read-ahead of sockets.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from mitmproxy import version
from mitmproxy.proxy import events, layers, server
from mitmproxy.proxy.layers import http as http_layers

from openclaw_egress.proxy import memory, tunnels
from openclaw_egress.proxy.fair_scheduling import FairScheduler
from openclaw_egress.proxy.http1_responses import BoundedHttp1Client
from openclaw_egress.settings import SettingsError

CHECKED_VERSION = "12.2.3"

_installed = False


def check_version() -> None:
    """Raise an error if the patches were not checked against the installed version of mitmproxy.

    Raises:
        SettingsError: another version is installed.
    """
    if version.VERSION != CHECKED_VERSION:
        raise SettingsError(
            f"mitmproxy {version.VERSION} is installed, and this proxy works only with {CHECKED_VERSION}. "
            f"Install that version: pip install mitmproxy=={CHECKED_VERSION}"
        )


def install(accounts: memory.Accounts) -> None:
    """Patch mitmproxy once per process, and use these memory accounts from now on."""
    global _installed  # noqa: PLW0603  (mitmproxy's classes are global, too)
    memory.use(accounts)
    if _installed:
        return
    _installed = True
    http_layers.Http1Client = BoundedHttp1Client  # type: ignore[attr-defined]
    _patch_connections()
    _patch_tunnels()


def _patch_connections() -> None:
    """Patch connections: charge their memory, schedule them fairly, and close all their sockets when they end."""
    handler = server.ConnectionHandler
    handle_client, server_event, drain_writers = handler.handle_client, handler.server_event, handler.drain_writers
    scheduler = FairScheduler()

    async def handled(self: server.ConnectionHandler) -> None:
        accounts = memory.in_use()
        if accounts is not None:
            accounts.open(self)
        try:
            await handle_client(self)
        finally:
            # Close all sockets here. If a connection is cancelled while its task waits for the lock of `server_event`,
            # mitmproxy leaves the socket open forever, and a client could use up all descriptors.
            for transport in self.transports.values():
                if transport.writer is not None:
                    transport.writer.close()
            if accounts is not None:
                accounts.close(self)

    async def settled(self: server.ConnectionHandler, event: Any) -> None:
        await server_event(self, event)
        # Do not update the charge here after a read, because `admit` updates it.
        if (accounts := memory.in_use()) is not None and not isinstance(event, events.DataReceived):
            accounts.settle(self.client)

    async def admitted(self: server.ConnectionHandler) -> None:
        await drain_writers(self)  # type: ignore[no-untyped-call]
        await scheduler.wait(self.client.sockname[1])
        if (accounts := memory.in_use()) is not None:
            await accounts.admit(self)

    handler.handle_client = handled  # type: ignore[method-assign]
    handler.server_event = settled  # type: ignore[method-assign]
    handler.drain_writers = admitted  # type: ignore[method-assign]


def _patch_tunnels() -> None:
    """Make mitmproxy's TCP layer count the bytes of recorded tunnels."""
    original = layers.TCPLayer.relay_messages

    def relay_messages(self: layers.TCPLayer, event: events.Event) -> Generator[Any, Any, None]:
        if isinstance(event, events.DataReceived):
            client = self.context.client
            tunnels.count(client.id, len(event.data), sent=event.connection is client)
        return original(self, event)  # type: ignore[no-any-return]

    layers.TCPLayer.relay_messages = relay_messages  # type: ignore[method-assign]
