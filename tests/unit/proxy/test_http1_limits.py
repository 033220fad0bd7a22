"""Tests of the time limit of a client connection. They use no network."""

import pytest
from mitmproxy import connection, options
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, events

from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.model import Limits
from openclaw_egress.proxy.http1_limits import BoundedHttp1Server


@pytest.fixture
def layers(monkeypatch):
    """Return a client, its two HTTP layers (outside and inside a CONNECT tunnel), and a list of denials.

    The time limit of both layers has been exceeded by one second.
    """
    denials = []

    def refuse(status, code, evidence, **_):
        denials.append(code)
        return b""

    client = connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), state=ConnectionState.OPEN)
    shared = context.Context(client, options.Options())
    found = [BoundedHttp1Server(shared, Limits(total_seconds=1), refuse, lambda: True) for _ in range(2)]
    for layer in found:
        assert isinstance(next(iter(layer.handle_event(events.Start()))), commands.RequestWakeup)
        layer.state = layer.passthrough
        layer._began -= 2
    return client, found, denials


def wake(layer):
    return list(layer.handle_event(events.Wakeup(commands.RequestWakeup(1))))


def test_connection_beyond_its_time_is_denied_once_although_two_layers_check_it(layers):
    client, (outer, inner), denials = layers
    assert [type(command) for command in wake(outer)] == [commands.CloseConnection]
    client.state = ConnectionState.CLOSED
    assert wake(inner) == [] and denials == [Code.CONNECTION_TIMEOUT]
