"""The add-on for a stock ``mitmdump -s otel_logger.py``. It runs the same service as ``egress run``.

mitmdump opens the listeners that its command line names (``--mode regular --listen-port 8080``). Each of them must
belong to a class of the policy. The add-on itself sets the options in `safe_options` and `stock_options`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy import mode_specs

from openclaw_egress.app.listeners import refuse_open_proxy
from openclaw_egress.app.service import Service, describe
from openclaw_egress.certificates import Clock, utc_now
from openclaw_egress.errors import EgressError
from openclaw_egress.proxy import log_scrubber, resolver
from openclaw_egress.proxy.options import safe_options, stock_options
from openclaw_egress.settings import Settings, SettingsError

log = logging.getLogger("openclaw_egress")


class StockAddon:
    """The add-on that loads the service into mitmdump. ``addons`` contains the service's add-ons for mitmproxy."""

    name = "openclaw_egress"

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock = clock
        self.addons: list[Any] = []
        self._service: Service | None = None
        self._uninstall: Callable[[], None] | None = None
        self._heartbeat: asyncio.Task[None] | None = None

    def load(self, loader: Loader) -> None:
        """Read the settings, create the service and set mitmproxy's options. If this fails, end mitmdump."""
        log_scrubber.guard_mitmproxy_logs()
        try:
            self._service = Service(Settings.load(), self._clock)
        except EgressError as error:
            # Log the error instead of raising it: mitmdump exits after an error in the log during start-up, and an
            # exception would add a traceback.
            log.error("%s", error)
            raise SystemExit(1) from None
        self.addons = [self._service.access_control, self._service.recorder, self._service.served_ca]
        settings = safe_options(self._service.confdir, self._service.trusted_ca) | stock_options()
        if not ctx.options.listen_host:
            settings["mode"] = [one for text in ctx.options.mode for one in _with_hosts(text, self._service)]
        ctx.options.update(**settings)  # type: ignore[no-untyped-call]

    def configure(self, updated: set[str]) -> None:
        """End mitmdump if a listener belongs to no class, or would be an open proxy."""
        if self._service is None or not updated & {"mode", "listen_port", "listen_host"}:
            return
        hosts: list[str] = []
        for text in ctx.options.mode:
            mode = mode_specs.ProxyMode.parse(text)
            hosts.append(mode.listen_host(ctx.options.listen_host))
            port = mode.listen_port(ctx.options.listen_port)
            if (
                mode.type_name != "regular"
                or port is None
                or self._service.policies.current.class_for_port(port) is None
            ):
                log.error(
                    "mode %r (port %s) does not belong to a class of the policy; use --mode regular with a port of %s",
                    text,
                    port,
                    ", ".join(
                        f"{item.listen} ({item.name})" for item in self._service.policies.current.classes.values()
                    ),
                )
                raise SystemExit(1)
        try:
            refuse_open_proxy(self._service.settings, self._service.policies.current, hosts)
        except SettingsError as error:
            log.error("%s", error)
            raise SystemExit(1) from None

    async def running(self) -> None:
        """Install the resolver and start the service. mitmdump calls this hook when its event loop runs."""
        if self._service is None:
            return
        # mitmdump opened its listeners before this add-on changed their addresses, so reopen the changed ones.
        if not await ctx.master.addons.get("proxyserver").setup_servers():  # type: ignore[no-untyped-call]
            ctx.master.shutdown()  # type: ignore[no-untyped-call]
            return
        self._uninstall = resolver.install(asyncio.get_running_loop())
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._service.reload)
        self._service.start()
        self._heartbeat = asyncio.create_task(self._service.heartbeat.run())
        log.info("%s", describe(self._service))

    def done(self) -> None:
        """Stop the service when mitmdump ends."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if self._uninstall is not None:
            self._uninstall()
        if self._service is not None:
            self._service.stop()
            self._service = None


def _with_hosts(text: str, service: Service) -> list[str]:
    """Return the mode with each listen address of its class added: one text per address.

    If the mode already has an address, return it unmodified. Without a listen address, mitmdump listens on all
    addresses.
    """
    mode = mode_specs.ProxyMode.parse(text)
    port = mode.listen_port(ctx.options.listen_port)
    if mode.custom_listen_host or port is None:
        return [text]
    found = service.policies.current.class_for_port(port)
    hosts = service.settings.listen_hosts(found.name if found is not None else "")
    return [f"{text.rpartition('@')[0] or text}@{f'[{host}]' if ':' in host else host}:{port}" for host in hosts]
