"""The operator's upstream proxy. The proxy opens allowed connections through it, with CONNECT.

The proxy sends CONNECT below mitmproxy, while a connection opens: `resolver.install` calls `Route.connect` instead of
connecting to the destination. The layers above see a connection to the destination. Grants, TLS, the recorder and the
limits therefore work as without an upstream proxy, and the credentials are in no flow.

Plain HTTP uses CONNECT too, not the absolute form. In a tunnel, the response of the upstream proxy cannot be mistaken
for one of the origin, and bytes that an origin or a client smuggles reach no other destination.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from openclaw_egress.policy.codes import Code, Evidence, reason
from openclaw_egress.policy.destination import Address, Destination, DestinationError, Network, canonical_host
from openclaw_egress.proxy.resolver import ResolutionError, Resolver, without_grant
from openclaw_egress.settings import ProxyURL, Settings, SettingsError
from openclaw_egress.wire.http1_syntax import END_OF_HEAD

HEAD_BYTES = 64 * 1024
"""Maximum size, in bytes, of the upstream proxy's response to CONNECT."""
DIAL_SECONDS = 20.0
"""Timeout for the connection to the upstream proxy, its TLS handshake and its response to CONNECT.

It is shorter than `resolver.CONNECT_SECONDS`, which would end the attempt without the code of the failure.
"""
KNOWN_SECONDS = 30.0
"""Seconds for which the addresses of the upstream proxy are used before its name is resolved again."""

LOGIN_REQUIRED = 407

_POOL = "upstream proxy"
"""Name of the resolver's thread pool. No class can have it, because the name of a class contains no space."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: |\r|\n)")
_CREDENTIALS = re.compile(r"[^:\x00-\x1f\x7f]+:[^\x00-\x1f\x7f]*")


class UpstreamProxyError(OSError):
    """The upstream proxy did not open a tunnel. ``code`` is the kind of the failure."""

    def __init__(self, code: Code, proxy: ProxyURL, detail: str, target: str = "") -> None:
        self.code = code
        self.evidence = Evidence(rule=proxy.place, detail=detail, allows=target)
        super().__init__(reason(code, self.evidence))


class NoProxy:
    """The destinations that the proxy reaches without the upstream proxy.

    Args:
        entries: names (with all names below them), suffixes such as ``.example.com``, addresses, and networks.

    Raises:
        SettingsError: an entry has none of these forms.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._suffixes: list[str] = []
        self._networks: list[Network] = []
        for entry in entries:
            self._add(entry)

    def _add(self, entry: str) -> None:
        try:
            self._networks.append(ipaddress.ip_network(entry.removeprefix("[").removesuffix("]")))
        except ValueError:
            pass
        else:
            return
        try:
            if "/" in entry:
                raise DestinationError("write a network without host bits, such as 10.0.0.0/8")
            suffix = entry.removeprefix("*").startswith(".")
            name, address = canonical_host(entry.removeprefix("*").removeprefix("."))
        except DestinationError as error:
            raise SettingsError(
                f"EGRESS_UPSTREAM_NO_PROXY: {entry!r} is invalid: {error}. Write a name, a suffix such as "
                ".example.com, an address or a network, without a port"
            ) from None
        if address is not None:
            self._networks.append(ipaddress.ip_network(address))
            return
        self._suffixes.append("." + name)
        if not suffix:
            self._names.add(name)

    def names(self, host: str) -> bool:
        """Return whether an entry is the host, or one of its parent domains."""
        return host in self._names or any(host.endswith(suffix) for suffix in self._suffixes)

    def contains(self, addresses: tuple[Address, ...]) -> bool:
        """Return whether every address is in a network of the list. Return False if there is no address."""
        return bool(addresses) and all(any(one in network for network in self._networks) for one in addresses)


class UpstreamProxy:
    """The upstream proxy of the settings.

    The constructor reads the file with the credentials, so that an invalid file prevents the start of the proxy.

    Raises:
        SettingsError: the credentials cannot be read, or an entry of ``no_proxy`` is invalid.
    """

    def __init__(self, settings: Settings, url: ProxyURL, trusted_ca: Path) -> None:
        self.url = url
        self.no_proxy = settings.upstream_no_proxy
        self.resolves = settings.upstream_resolve == "on"
        """Whether the proxy resolves the names of destinations, to apply the address guard to them."""
        self.problem = ""
        """The newest failure that concerns every destination. Empty after the next success."""
        self._direct = NoProxy(settings.upstream_no_proxy)
        self._auth_file = settings.upstream_proxy_auth_file
        self._tls = ssl.create_default_context(cafile=str(trusted_ca)) if url.scheme == "https" else None
        if self._tls is not None:
            self._tls.set_alpn_protocols(["http/1.1"])
        try:
            self._host, address = canonical_host(url.host)
        except DestinationError as error:
            raise SettingsError(f"EGRESS_UPSTREAM_PROXY: the host is invalid: {error}") from None
        self._known: tuple[str, ...] = () if address is None else (str(address),)
        self._known_until = float("inf") if self._known else 0.0
        self._resolver = Resolver()
        self._authorization()

    @classmethod
    def of(cls, settings: Settings, trusted_ca: Path) -> UpstreamProxy | None:
        """Return the upstream proxy of the settings, or None if none is set.

        Raises:
            SettingsError: see the class.
        """
        return cls(settings, settings.upstream_proxy, trusted_ca) if settings.upstream_proxy is not None else None

    def is_direct(self, destination: Destination, addresses: Iterable[str] = ()) -> bool:
        """Return whether the proxy connects to the destination itself.

        ``addresses`` are those of the destination, if it is a name and they are known.
        """
        if destination.address is None and self._direct.names(destination.host):
            return True
        return self._direct.contains(tuple(map(ipaddress.ip_address, addresses)))

    def is_named_by(self, destination: Destination, addresses: Iterable[str]) -> bool:
        """Return whether the destination has the name or an address of the upstream proxy. Ignore the port."""
        return destination.host == self._host or any(address in self._known for address in addresses)

    async def refresh(self) -> None:
        """Resolve the upstream proxy's name, unless its addresses are known.

        Raises:
            UpstreamProxyError: the name does not resolve.
        """
        if time.monotonic() < self._known_until:
            return
        try:
            self._known = await self._resolver.addresses(_POOL, self._host, self.url.port)
        except ResolutionError as error:
            if not self._known:
                raise self._failed(Code.UPSTREAM_PROXY_UNREACHABLE, str(error)) from None
            # Keep the known addresses, so that a DNS outage does not end connections that work.
        self._known_until = time.monotonic() + KNOWN_SECONDS

    def route(self, destination: Destination, fixed: Address | None = None) -> Route:
        """Return the route to a destination through the upstream proxy.

        If the policy has a fixed address for the name (``resolve``), pass it as ``fixed``: CONNECT then names the
        address. Otherwise, CONNECT names the same host as the client, because many upstream proxies filter by name.
        """
        host = destination.host if fixed is None else str(fixed)
        return Route(self, f"[{host}]:{destination.port}" if ":" in host else f"{host}:{destination.port}", self._known)

    async def dial(self, target: str, addresses: tuple[str, ...]) -> Tunnel:
        """Open a tunnel to ``target`` (HOST:PORT), at the first of the upstream proxy's ``addresses`` that responds.

        Raises:
            UpstreamProxyError: the upstream proxy opened no tunnel.
        """
        connected = False
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                tunnel = await self._connect(addresses)
                connected = True
                try:
                    status = await tunnel.request(target, self._authorization())
                    if not 200 <= status < 300:
                        raise self._refused(status, target)
                except BaseException:
                    tunnel.close()
                    raise
        except TimeoutError:
            detail = f"no response within {DIAL_SECONDS:g} s"
            if connected:
                raise self._of_destination(Code.UPSTREAM_PROXY_UNREACHABLE, f"{detail} to CONNECT", target) from None
            raise self._failed(Code.UPSTREAM_PROXY_UNREACHABLE, detail, target) from None
        except _MalformedError as error:
            raise self._of_destination(Code.UPSTREAM_PROXY_PROTOCOL, str(error), target) from None
        except SettingsError:
            detail = "EGRESS_UPSTREAM_PROXY_AUTH_FILE is missing or invalid"
            raise self._failed(Code.UPSTREAM_PROXY_LOGIN, detail, target) from None
        self.problem = ""
        return tunnel

    async def _connect(self, addresses: tuple[str, ...]) -> Tunnel:
        loop = asyncio.get_running_loop()
        error: OSError = OSError("it has no address")
        for address in addresses:
            try:
                # Divide the timeout among the addresses, so that an address that drops packets does not use all of it.
                async with asyncio.timeout(DIAL_SECONDS / len(addresses)):
                    with without_grant():
                        _, tunnel = await loop.create_connection(
                            Tunnel,
                            address,
                            self.url.port,
                            ssl=self._tls,
                            server_hostname=self.url.host if self._tls is not None else None,
                        )
                return tunnel
            except (ssl.SSLError, ssl.CertificateError) as problem:
                detail = getattr(problem, "verify_message", "") or problem.reason or "handshake failed"
                raise self._failed(Code.UPSTREAM_PROXY_TLS, detail) from None
            except TimeoutError:
                error = OSError(f"no response within {DIAL_SECONDS / len(addresses):g} s")
            except OSError as problem:
                error = problem
        if self._tls is not None and isinstance(error, ConnectionResetError):
            raise self._failed(Code.UPSTREAM_PROXY_TLS, "the connection ended during the handshake")
        raise self._failed(Code.UPSTREAM_PROXY_UNREACHABLE, error.strerror or str(error))

    def _refused(self, status: int, target: str) -> UpstreamProxyError:
        if status == LOGIN_REQUIRED:
            given = "the credentials" if self._auth_file is not None else "no credentials"
            return self._failed(Code.UPSTREAM_PROXY_LOGIN, f"it responded with 407 to {given}", target)
        # Use the standard phrase, because the phrase in the response is untrusted text.
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        return self._of_destination(Code.UPSTREAM_PROXY_REFUSED, f"{status} {phrase}".strip(), target)

    def _of_destination(self, code: Code, detail: str, target: str) -> UpstreamProxyError:
        """Return an error that may concern only this destination.

        ``/readyz`` does not report the error as a problem of the upstream proxy. Otherwise, a client could make the
        proxy unready by requesting such a destination.
        """
        return UpstreamProxyError(code, self.url, detail, target)

    def _failed(self, code: Code, detail: str, target: str = "") -> UpstreamProxyError:
        error = UpstreamProxyError(code, self.url, detail, target)
        self.problem = str(error)
        return error

    def _authorization(self) -> bytes:
        """Return the value of Proxy-Authorization; empty without credentials.

        Read the file for each connection, so that changed credentials apply without a restart.
        """
        if self._auth_file is None:
            return b""
        name = "EGRESS_UPSTREAM_PROXY_AUTH_FILE"
        try:
            text = self._auth_file.read_bytes().decode()
        except OSError as error:
            raise SettingsError(f"{name}: {self._auth_file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{name}: {self._auth_file} is not UTF-8") from None
        text = text.removesuffix("\n").removesuffix("\r")
        if not _CREDENTIALS.fullmatch(text):
            raise SettingsError(f"{name}: {self._auth_file} must contain one line USER:PASSWORD")
        return b"Basic " + base64.b64encode(text.encode())

    def report(self) -> dict[str, Any]:
        """Return the state for ``/readyz``, without credentials."""
        return {
            "url": str(self.url),
            "no_proxy": list(self.no_proxy),
            "authenticates": self._auth_file is not None,
            "resolves": self.resolves,
            "problem": self.problem,
        }

    def close(self) -> None:
        """Stop resolving the upstream proxy's name."""
        self._resolver.close()


@dataclass(eq=False, slots=True)
class Route:
    """A route to one destination through the upstream proxy. Part of a connection grant."""

    proxy: UpstreamProxy
    target: str
    """HOST:PORT, as CONNECT names it."""
    addresses: tuple[str, ...]
    """The addresses of the upstream proxy."""
    ready: Tunnel | None = None
    """A tunnel that `prepare` opened and that no connection uses yet."""
    failure: UpstreamProxyError | None = None
    """The failure of the newest attempt; None after a success."""

    async def prepare(self) -> None:
        """Open a tunnel now, so that the client learns of a failure before its own CONNECT succeeds.

        Raises:
            UpstreamProxyError: the upstream proxy opened no tunnel.
        """
        if self.ready is None or self.ready.closed:
            self.ready = await self.proxy.dial(self.target, self.addresses)

    async def connect(self, protocol_factory: Callable[[], asyncio.Protocol]) -> tuple[Any, asyncio.Protocol]:
        """Open a connection as ``loop.create_connection`` does, through the upstream proxy.

        Raises:
            UpstreamProxyError: the upstream proxy opened no tunnel.
        """
        self.failure = None
        tunnel, self.ready = self.ready, None
        try:
            if tunnel is None or tunnel.closed:
                tunnel = await self.proxy.dial(self.target, self.addresses)
        except UpstreamProxyError as error:
            self.failure = error
            raise
        # Await once: mitmproxy starts this task eagerly and registers it only at its first await. If the tunnel is
        # already open, the code above has not awaited anything.
        await asyncio.sleep(0)
        protocol = protocol_factory()
        return tunnel.hand_over(protocol), protocol

    def close(self) -> None:
        """Close the tunnel that `prepare` opened, if no connection uses it yet."""
        if self.ready is not None:
            self.ready.close()
            self.ready = None


class Tunnel(asyncio.Protocol):
    """The protocol of a connection to the upstream proxy, until `hand_over` passes the transport to another one."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: Any = None
        self._received = bytearray()
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Store the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect the response to CONNECT, and stop reading after its head."""
        self._received += data
        if self._status.done():
            return
        try:
            self._parse()
        except _MalformedError as error:
            self._status.set_exception(error)

    def _parse(self) -> None:
        while (end := END_OF_HEAD.search(self._received)) is not None:
            found = _STATUS_LINE.match(self._received)
            if found is None:
                raise _MalformedError("its response to CONNECT is not HTTP/1")
            status = int(found[1])
            del self._received[: end.end()]
            if status >= 200:
                self._transport.pause_reading()
                self._status.set_result(status)
                return
        if len(self._received) > HEAD_BYTES:
            raise _MalformedError(f"the head of its response has more than {HEAD_BYTES} bytes")

    def connection_lost(self, exc: Exception | None) -> None:
        """Record that the connection has ended. If no response has arrived, `request` then raises an error."""
        self.closed = True
        if not self._status.done():
            self._status.set_exception(_MalformedError("it closed the connection without a response to CONNECT"))
            # Mark the exception as retrieved, because no code awaits it if the connection ends before `request`.
            self._status.exception()

    async def request(self, target: str, authorization: bytes) -> int:
        """Send CONNECT, and return the status of the response."""
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n".encode("ascii")
        if authorization:
            head += b"Proxy-Authorization: " + authorization + b"\r\n"
        self._transport.write(head + b"\r\n")
        return await self._status

    def hand_over(self, protocol: asyncio.Protocol) -> Any:
        """Pass the connection to ``protocol``, with the received bytes that follow the response to CONNECT.

        Return the transport.
        """
        transport = self._transport
        if transport.get_extra_info("sslcontext") is not None:
            # asyncio's TLS transport cannot close only one direction and raises an error. Close the whole connection
            # instead; otherwise an idle tunnel would stay open after its client has left.
            transport.write_eof = transport.close
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._received:
            protocol.data_received(bytes(self._received))
        transport.resume_reading()
        return transport

    def close(self) -> None:
        """Abort the connection."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()


class _MalformedError(Exception):
    """The upstream proxy's response to CONNECT is malformed or missing."""
