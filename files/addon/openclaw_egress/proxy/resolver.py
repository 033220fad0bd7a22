"""Name resolution with enforcement: names are resolved only for a connection grant, and every address is checked.

asyncio calls its loop's ``getaddrinfo`` whenever it opens a connection. :func:`install` replaces that method. If the
current task has a grant (`current_grant`), the method returns the grant's checked addresses; otherwise it raises an
error. Each name is thus resolved once, and its address cannot change between check and use.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

from openclaw_egress.proxy.connection_grants import ConnectionGrant

LOOKUP_SECONDS = 10.0
CONNECT_SECONDS = 30.0
"""Timeout of a connection attempt.

The kernel's own timeout is two minutes or more, and the client's data stays in memory until then.
"""

THREADS_PER_CLASS = 4

current_grant: ContextVar[ConnectionGrant | None] = ContextVar("current_grant", default=None)

type AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]


@contextlib.contextmanager
def without_grant() -> Iterator[None]:
    """Suspend the current grant, so that the loop connects directly and not through the grant's route."""
    token = current_grant.set(None)
    try:
        yield
    finally:
        current_grant.reset(token)


class ResolutionError(Exception):
    """A name that the policy allows cannot be resolved.

    ``absent`` is True if the resolver responded that the name has no address. It is False if the resolver did not
    respond, or could not find out.
    """

    def __init__(self, message: str, *, absent: bool = False) -> None:
        super().__init__(message)
        self.absent = absent


class Resolver:
    """The resolver. Each class has a small thread pool, so that no class waits for the slow look-ups of another."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}

    async def addresses(self, class_name: str, host: str, port: int) -> tuple[str, ...]:
        """Return all addresses that the system's resolver gives for ``host``, in its order, without duplicates.

        Raises:
            ResolutionError: the name has no address, or the resolver did not respond in time.
        """
        pool = self._pools.setdefault(
            class_name, ThreadPoolExecutor(THREADS_PER_CLASS, thread_name_prefix=f"resolve-{class_name}")
        )
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                answers = await loop.run_in_executor(
                    pool, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
                )
        except TimeoutError:
            raise ResolutionError(f"no DNS response for {host} within {LOOKUP_SECONDS:.0f} s") from None
        except (OSError, UnicodeError) as error:
            # Other errors, such as EAI_AGAIN, say nothing about the name: the resolver is down, or refuses to respond.
            absent = getattr(error, "errno", None) in (socket.EAI_NONAME, socket.EAI_NODATA)
            raise ResolutionError(f"{host} does not resolve ({error})", absent=absent) from None
        return tuple(dict.fromkeys(str(answer[4][0]).split("%")[0] for answer in answers))

    def close(self) -> None:
        """Stop the threads. Do not wait for look-ups in progress."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._pools.clear()


def install(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Replace two methods of the loop, and return the function that restores them.

    The new ``getaddrinfo`` returns only checked addresses. The new ``create_connection`` has the timeout
    `CONNECT_SECONDS`, and opens the connection through the upstream proxy if the grant has a route.
    """
    original: Callable[..., Awaitable[Any]] = loop.getaddrinfo
    original_connect: Callable[..., Awaitable[Any]] = loop.create_connection
    # Clear the search list of resolv.conf, which could turn an allowed name into another one (resolver(5)).
    os.environ["LOCALDOMAIN"] = ""

    async def getaddrinfo(
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002  (the loop's parameter has this name)
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        try:
            if flags & socket.AI_PASSIVE:  # the lookup is for a listener of the proxy
                own: list[AddressInfo] = await original(host, port, family=family, type=type, proto=proto, flags=flags)
                return own
            grant = current_grant.get()
            if grant is None or grant.destination.host != host:
                raise OSError("openclaw.egress: this connection has no connection grant")
            return [_address_info(address, int(port)) for address in grant.addresses]
        except OSError:
            raise
        except Exception as error:
            # Raise OSError, because mitmproxy handles no other exception here: the client would wait forever.
            raise OSError("openclaw.egress: cannot return the addresses of this connection") from error

    async def create_connection(*arguments: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                grant = current_grant.get()
                if grant is None or grant.route is None:
                    return await original_connect(*arguments, **options)
                factory, host, port = arguments
                if (host, port) != (grant.destination.host, grant.destination.port):
                    raise OSError("openclaw.egress: this connection has no connection grant")
                return await grant.route.connect(factory)
        except TimeoutError:
            raise TimeoutError(f"timed out: no connection within {CONNECT_SECONDS:g} s") from None
        except OSError:
            raise
        except Exception as error:
            raise OSError("openclaw.egress: cannot open the connection") from error

    loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign, assignment]
    loop.create_connection = create_connection  # type: ignore[method-assign]

    def uninstall() -> None:
        loop.create_connection = original_connect  # type: ignore[method-assign, assignment]
        loop.getaddrinfo = original  # type: ignore[method-assign, assignment]

    return uninstall


def _address_info(address: str, port: int) -> AddressInfo:
    if ipaddress.ip_address(address).version == 6:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def is_own_address(address: str) -> bool:
    """Return whether the address belongs to this machine or container. A connection to it would reach this host.

    Connecting a UDP socket sends nothing, but makes the kernel choose the source address. If the address belongs to
    this machine, the source address is the same address.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return bool(probe.getsockname()[0] == address)
    except OSError as error:
        # Return True if no descriptor or memory was free: the check was not possible, and True makes the proxy refuse
        # the address. Other errors mean that no route exists.
        return error.errno in _NO_ROOM
