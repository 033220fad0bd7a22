"""The proxy of ``egress run``: mitmproxy's ``Master`` with only the add-ons that it needs.

A stock mitmdump sends every event to about 35 add-ons, and spends most of its CPU time on this. This launcher does not
import the add-ons that the proxy does not need: their dependencies, such as Flask and LDAP, cost memory and start-up
time, and add attack surface.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import mitmproxy
from mitmproxy import addonmanager, hooks, options
from mitmproxy.exceptions import AddonHalt

from openclaw_egress.app.listeners import ListenError, check_listeners, describe_failure
from openclaw_egress.app.service import Service, describe
from openclaw_egress.proxy import log_scrubber, resolver
from openclaw_egress.proxy.options import safe_options

log = logging.getLogger("openclaw_egress")


def _addon(name: str) -> ModuleType:
    """Import one mitmproxy add-on. Do not run ``mitmproxy.addons.__init__``, because it imports all add-ons."""
    package = "mitmproxy.addons"
    if package not in sys.modules:
        folder = ModuleType(package)
        folder.__path__ = [str(Path(path) / "addons") for path in mitmproxy.__path__]
        sys.modules[package] = folder
    return importlib.import_module(f"{package}.{name}")


core, errorcheck, proxyserver, tlsconfig = map(_addon, ("core", "errorcheck", "proxyserver", "tlsconfig"))


def serve(service: Service) -> None:
    """Run the proxy until SIGTERM or SIGINT, and return after a clean stop. SIGHUP reloads the policy and the CA.

    Raises:
        ListenError: a listener cannot open. The service is stopped and its spool is closed.
    """
    log_scrubber.guard_mitmproxy_logs()
    for name in ("mitmproxy", "asyncio", "hpack"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Raise the limit of open files. A proxied connection uses two, so the usual soft limit of 1024 is too low for the
    # connection limits of all classes together.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_serve(service))


class _Addons(addonmanager.AddonManager):
    """mitmproxy's add-on manager, changed to call only the add-ons that have a hook for the event.

    mitmproxy's manager calls every add-on for every event, although most add-ons have no hook for it. These calls took
    a tenth of the time that an exchange needs.
    """

    def __init__(self, master: Any) -> None:
        super().__init__(master)  # type: ignore[no-untyped-call]
        self._hooked: dict[str, list[Any]] = {}
        self._seen: tuple[int, int] = (0, 0)

    async def trigger_event(self, event: hooks.Hook) -> None:
        """Call only the add-ons that have a hook for this event."""
        # mitmproxy can modify or replace `chain`, its list of add-ons. After a change, look up all hooks again.
        if (seen := (id(self.chain), len(self.chain))) != self._seen:
            self._hooked, self._seen = {}, seen
        hooked = self._hooked.get(event.name)
        if hooked is None:
            hooked = [addon for addon in self.chain if any(self._iter_hooks(addon, event))]
            self._hooked[event.name] = hooked
        for addon in hooked:
            try:
                with addonmanager.safecall():
                    await self.invoke_addon(addon, event)
            except AddonHalt:
                return


class _Started:
    """The add-on that logs the start once every listener is open, and stops the proxy if a listener fails to open."""

    def __init__(self, service: Service, server: Any, shutdown: Callable[[], None]) -> None:
        self._service, self._server, self._shutdown = service, server, shutdown
        self.problem: str | None = None

    def running(self) -> None:
        """Check the listeners. mitmproxy calls this hook after it tried to open them, even if that failed."""
        self.problem = _closed_listener(
            self._service, self._server, {port: name for name, port in _listeners(self._service)}
        )
        if self.problem is not None:
            self._shutdown()
            return
        log.info("%s", describe(self._service))


def _closed_listener(service: Service, server: Any, names: Mapping[int, str]) -> str | None:
    """Return the error of the first listener that is not open, or None if all listeners of ``server`` are open.

    ``names`` maps the port of each listener to the name of its class.
    """
    for instance in server.servers:
        if not instance.is_running:
            host, port = instance.mode.listen_host(""), instance.mode.listen_port(None)
            error = instance.last_exception
            cause = error if isinstance(error, OSError) else OSError(0, str(error))
            return describe_failure(names.get(port, "?"), host, port, cause)
    return None


async def _serve(service: Service) -> None:
    try:
        check_listeners(service.settings, _listeners(service))
    except BaseException:
        service.stop()
        raise
    from mitmproxy.master import Master  # noqa: PLC0415  (this imports `mitmproxy.addons`, which `_addon` replaces first)

    loop = asyncio.get_running_loop()
    uninstall = resolver.install(loop)
    master = Master(options.Options())
    master.addons = _Addons(master)
    # Name access control after the mitmproxy add-on that it replaces: mitmproxy warns if no add-on has this name.
    service.access_control.name = "nextlayer"
    server = proxyserver.Proxyserver()
    started = _Started(service, server, master.shutdown)
    master.addons.add(  # type: ignore[no-untyped-call]
        core.Core(),
        server,
        service.access_control,
        service.recorder,
        service.served_ca,
        tlsconfig.TlsConfig(),
        started,
        errorcheck.ErrorCheck(),
    )
    master.options.update(  # type: ignore[no-untyped-call]
        mode=_modes(service, {port: name for name, port in _listeners(service)}),
        **{
            name: value
            for name, value in safe_options(service.confdir, service.trusted_ca).items()
            if name in master.options
        },
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, master.shutdown)
    loop.add_signal_handler(signal.SIGHUP, service.reload)

    async def listen(ports: Mapping[int, str]) -> None:
        before = list(master.options.mode)
        try:
            # mitmproxy opens only new listeners and closes only dropped ones; the other listeners keep their
            # connections. It does this in a task that reports no result, so wait until the task ends, and then check
            # the listeners.
            master.options.update(mode=_modes(service, ports))  # type: ignore[no-untyped-call]
            await server.setup_servers()
            if (problem := _closed_listener(service, server, ports)) is not None:
                raise ListenError(problem)
        except BaseException:
            master.options.update(mode=before)  # type: ignore[no-untyped-call]
            raise

    service.listeners.apply = lambda ports: asyncio.run_coroutine_threadsafe(listen(ports), loop)
    service.start()
    heartbeat = asyncio.create_task(service.heartbeat.run())
    try:
        await master.run()
    except SystemExit:
        # If a listener does not open, mitmproxy raises SystemExit before it calls `running`, so check the listeners
        # here.
        started.running()
        if started.problem is None:
            raise
    finally:
        heartbeat.cancel()
        service.stop()
        uninstall()
    if started.problem is not None:
        raise ListenError(started.problem)


def _listeners(service: Service) -> list[tuple[str, int]]:
    return [(item.name, item.listen) for item in service.policies.current.classes.values()]


def _modes(service: Service, ports: Mapping[int, str]) -> list[str]:
    """Return the values of mitmproxy's option ``mode`` for listeners on these ports, each with its class name."""
    return [
        f"regular@{f'[{host}]' if ':' in host else host}:{port}"
        for port, name in ports.items()
        for host in service.settings.listen_hosts(name)
    ]
