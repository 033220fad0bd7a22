"""Tests of the connection guard: a DNS lookup needs a connection grant, and connection attempts have a timeout."""

import asyncio
import socket

import pytest

from openclaw_egress.policy.destination import parse_destination
from openclaw_egress.proxy import resolver
from openclaw_egress.proxy.connection_grants import ConnectionGrant


def in_a_loop(test):
    async def run():
        uninstall = resolver.install(asyncio.get_running_loop())
        try:
            return await test()
        finally:
            uninstall()

    return asyncio.run(run())


def test_without_a_grant_no_name_is_resolved():
    async def ask():
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    with pytest.raises(OSError, match="no connection grant"):
        in_a_loop(ask)


def test_grant_for_another_name_resolves_no_name():
    async def ask():
        resolver.current_grant.set(
            ConnectionGrant("a", parse_destination("www.example.com", 80), ("192.0.2.1",), inspect=False)
        )
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    with pytest.raises(OSError, match="no connection grant"):
        in_a_loop(ask)


def test_lookup_returns_only_the_addresses_of_the_grant():
    async def ask():
        destination = parse_destination("www.example.com", 80)
        resolver.current_grant.set(ConnectionGrant("a", destination, ("192.0.2.1", "2001:db8::1"), inspect=False))
        return await asyncio.get_running_loop().getaddrinfo("www.example.com", 80)

    assert [answer[4][0] for answer in in_a_loop(ask)] == ["192.0.2.1", "2001:db8::1"]


def test_connection_attempt_times_out(monkeypatch):
    monkeypatch.setattr(resolver, "CONNECT_SECONDS", 0.01)

    async def never(*_, **__):
        await asyncio.Event().wait()

    async def connect():
        await asyncio.open_connection("192.0.2.1", 80)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "create_connection", never)
    with pytest.raises(TimeoutError, match="no connection within"):
        in_a_loop(connect)


@pytest.mark.parametrize(
    ("error", "absent"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), True),
        (socket.gaierror(socket.EAI_NODATA, "No address associated with hostname"), True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), False),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution"), False),
        (OSError(24, "Too many open files"), False),
        (UnicodeError("label too long"), False),
    ],
)
def test_only_a_name_without_addresses_is_absent(monkeypatch, error, absent):
    """Expect that a failure of the resolver does not count as proof that a name does not exist."""

    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    lookup = resolver.Resolver()
    with pytest.raises(resolver.ResolutionError) as caught:
        asyncio.run(lookup.addresses("a", "www.example.com", 443))
    lookup.close()
    assert caught.value.absent is absent
