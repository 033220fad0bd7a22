"""Checks that run before the proxy opens the listeners of the classes."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable

from openclaw_egress.policy.model import Policy
from openclaw_egress.proxy.resolver import is_own_address
from openclaw_egress.settings import Settings, SettingsError, without_mapping

_REMEDIES = {
    errno.EADDRINUSE: "another process listens there: stop it, or give the class another port (`listen` in the policy)",
    errno.EADDRNOTAVAIL: "this machine does not have that address: set EGRESS_LISTEN_HOST to one that it has "
    "(EGRESS_CLASS_NETWORKS for a class with its own network)",
    errno.EACCES: "a port below 1024 requires a privilege: use port 1024 or higher for the class "
    "(`listen` in the policy)",
    errno.EAFNOSUPPORT: "this machine has no IPv6: set EGRESS_LISTEN_HOST to an IPv4 address",
}


class ListenError(SettingsError):
    """A listener cannot open. The message contains the address, the port, the class, the cause and the remedy."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to a listener on ``host``."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower() == "localhost"
    return without_mapping(address).is_loopback


def refuse_open_proxy(settings: Settings, policy: Policy, hosts: Iterable[str]) -> None:
    """Refuse to serve other machines with the built-in policy, because it allows every name.

    Raises:
        SettingsError: no policy file is set, a class is ``open``, and one of ``hosts`` is not loopback.
    """
    if settings.policy_file is not None or settings.open_to_network:
        return
    found = next((item for item in policy.classes.values() if item.action == "open"), None)
    host = next((host for host in hosts if not is_loopback(host)), None)
    if found is not None and host is not None:
        raise SettingsError(
            f"{at(host, found.listen)} (class {found.name}) would be an open proxy: it is not loopback, and without a "
            "policy file the class may reach every name. Set EGRESS_POLICY_FILE to a policy file, or listen on "
            "127.0.0.1."
        )


def check_ports(settings: Settings, policy: Policy) -> None:
    """Refuse a class whose listener uses the health port or the metrics port, or is the upstream proxy.

    Raises:
        SettingsError: the message contains the class and the port.
    """
    _refuse_itself_as_upstream(settings, policy)
    for variable, kind, port in (
        ("EGRESS_HEALTH_PORT", "health port", settings.health_port),
        ("EGRESS_METRICS_LISTEN", "port of metrics", settings.metrics_listen[1] if settings.metrics_listen else 0),
    ):
        found = policy.class_for_port(port)
        if found is not None:
            raise SettingsError(
                f"{variable}: port {port} is also the listener of class {found.name}. "
                f"Choose another {kind}, or another `listen` for the class."
            )


def _refuse_itself_as_upstream(settings: Settings, policy: Policy) -> None:
    """Refuse an upstream proxy that is a listener of this proxy, because connections would loop.

    Raises:
        SettingsError: the upstream proxy is a listener of a class on loopback or on the listeners' address.
    """
    upstream = settings.upstream_proxy
    if upstream is None:
        return
    found = policy.class_for_port(upstream.port)
    if found is None:
        return
    hosts = settings.listen_hosts(found.name)
    here = is_loopback(upstream.host) or upstream.host in hosts
    if here or (any(map(_is_unspecified, hosts)) and _is_own(upstream.host)):
        raise SettingsError(
            f"EGRESS_UPSTREAM_PROXY: {upstream} is a listener of this proxy (class {found.name}). "
            "Name the proxy of your network."
        )


def _is_unspecified(host: str) -> bool:
    """Return whether a listener on this address accepts connections to every address of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_own(host: str) -> bool:
    """Return whether the host is an address of this machine. Return False for a name."""
    try:
        return is_own_address(str(ipaddress.ip_address(host)))
    except ValueError:
        return False


def check_listeners(settings: Settings, classes: Iterable[tuple[str, int]]) -> None:
    """Bind and release each listener, so that a port in use is reported before the proxy starts.

    Raises:
        ListenError: a listener cannot open; the message contains the first such listener.
    """
    for name, port in classes:
        for host in settings.listen_hosts(name):
            try:
                _try(host, port)
            except OSError as error:
                raise ListenError(describe_failure(name, host, port, error)) from None


def _try(host: str, port: int) -> None:
    """Bind every address that ``host`` resolves to. Like asyncio, skip addresses that this machine does not have.

    If every address is skipped, raise the error for the last one.
    """
    missing: OSError | None = None
    opened = False
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
                # Also listen, because two sockets with SO_REUSEADDR can bind one port, but only one can listen.
                probe.listen(1)
                opened = True
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            missing = error
    if missing is not None and not opened:
        raise missing


def describe_failure(name: str, host: str, port: int, error: OSError) -> str:
    """Return the message for a listener that did not open."""
    if isinstance(error, socket.gaierror):
        return (
            f"cannot listen on {at(host, port)} (class {name}): {host} does not resolve here ({error.strerror}); "
            "set EGRESS_LISTEN_HOST to an address that this machine has"
        )
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    remedy = _REMEDIES.get(cause.errno or 0, "check EGRESS_LISTEN_HOST and the class's `listen` in the policy")
    what = errno.errorcode.get(cause.errno or 0, "")
    text = cause.strerror if cause.errno not in _REMEDIES else _TEXTS[cause.errno]
    return f"cannot listen on {at(host, port)} (class {name}): {text}{f' ({what})' if what else ''}; {remedy}"


_TEXTS = {
    errno.EADDRINUSE: "address already in use",
    errno.EADDRNOTAVAIL: "address not available",
    errno.EACCES: "permission denied",
    errno.EAFNOSUPPORT: "address family not supported",
}


def at(host: str, port: int) -> str:
    """Return ``host:port`` as in a URL: with brackets around an IPv6 address. An empty host becomes ``*``."""
    return f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"
