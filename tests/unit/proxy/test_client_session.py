"""Tests that the proxy keeps the state of a client only while the client is connected."""

from __future__ import annotations

import asyncio

import pytest
from mitmproxy import connection, http
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from openclaw_egress.policy.loader import read_policy
from openclaw_egress.proxy.access_control import AccessControl
from openclaw_egress.proxy.client_session import ClassUsage

POLICY = """
version: 1
classes:
  gateway: {listen: 8080, action: open, limits: {connections: 2}}
  sandbox: {listen: 8082, action: open}
"""

HOST, ADDRESS = "www.example.com", "93.184.215.14"


class Notes:
    """An observer of access control that collects the codes of denials."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def denied(self, _class_name, _destination, decision, *_, **__) -> None:
        self.codes.append(decision.code)

    def allowed(self, *_, **__) -> None:
        pass

    def tunnel_ended(self, *_) -> None:
        pass


class SlowResolver:
    """A resolver that does not respond until the test sets ``go``."""

    def __init__(self) -> None:
        self.requested, self.go = asyncio.Event(), asyncio.Event()

    async def addresses(self, *_) -> tuple[str, ...]:
        self.requested.set()
        await self.go.wait()
        return (ADDRESS,)

    def close(self) -> None:
        pass


def client_of(port: int = 8080) -> connection.Client:
    return connection.Client(peername=("192.0.2.7", 50000), sockname=("192.0.2.1", port), timestamp_start=0)


def connect_of(client: connection.Client) -> http.HTTPFlow:
    flow = http.HTTPFlow(client, connection.Server(address=None))
    flow.request = http.Request.make("CONNECT", f"https://{HOST}:443/")
    return flow


def upstream_of(client: connection.Client) -> ServerConnectionHookData:
    return ServerConnectionHookData(connection.Server(address=(HOST, 443)), client)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def access_control(notes):
    policy = read_policy(POLICY.encode(), "policy.yml")
    return lambda resolver: AccessControl(lambda: policy, notes, resolver)


async def connected(control: AccessControl, resolver: SlowResolver) -> connection.Client:
    """Return a connected client whose CONNECT request was allowed."""
    client = client_of()
    control.client_connected(client)
    resolver.go.set()
    await control.http_connect(connect_of(client))
    return client


def test_a_grant_ends_with_its_connection(access_control):
    async def run() -> None:
        resolver = SlowResolver()
        control = access_control(resolver)
        client = await connected(control, resolver)
        before, after = upstream_of(client), upstream_of(client)
        control.server_connect(before)
        assert before.server.error is None
        control.client_disconnected(client)
        control.server_connect(after)
        assert "no connection grant" in after.server.error

    asyncio.run(run())


def test_grant_is_valid_for_one_connection_only(access_control):
    async def run() -> None:
        resolver = SlowResolver()
        control = access_control(resolver)
        await connected(control, resolver)
        other = client_of()
        control.client_connected(other)
        data = upstream_of(other)
        control.server_connect(data)
        assert "no connection grant" in data.server.error

    asyncio.run(run())


def test_grant_is_not_written_for_a_client_that_disconnects_during_the_lookup(access_control):
    async def run() -> None:
        resolver = SlowResolver()
        control = access_control(resolver)
        client = client_of()
        control.client_connected(client)
        deciding = asyncio.create_task(control.http_connect(connect_of(client)))
        await resolver.requested.wait()
        control.client_disconnected(client)
        resolver.go.set()
        await deciding
        data = upstream_of(client)
        control.server_connect(data)
        assert "no connection grant" in data.server.error

    asyncio.run(run())


def test_a_disconnect_releases_the_share_of_the_connection_limit_once(access_control, notes):
    async def run() -> None:
        control = access_control(SlowResolver())
        clients = [client_of() for _ in range(3)]
        for client in clients:
            control.client_connected(client)
        assert [client.error for client in clients] == [None, None, "too many connections"]
        assert notes.codes == ["connection_limit"]
        for client in (*clients[1:], clients[2]):  # mitmproxy also reports the disconnect of a refused client
            control.client_disconnected(client)
        later = [client_of() for _ in range(2)]
        for client in later:
            control.client_connected(client)
        assert [client.error for client in later] == [None, "too many connections"]
        other = client_of(8082)
        control.client_connected(other)
        assert other.error is None

    asyncio.run(run())


def test_the_rate_limit_starts_again_only_when_it_changes():
    usage = ClassUsage()
    assert usage.take_request(10) == 0.0
    assert usage.take_request(10) > 0.0
    assert usage.take_request(None) == 0.0
    assert usage.take_request(10) > 0.0
    assert usage.take_request(20) == 0.0
