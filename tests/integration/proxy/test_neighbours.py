"""Tests, with real connections, that a listener on a shared network serves only known client addresses."""

import contextlib
import socket

import pytest

from openclaw_egress.settings import Neighbours, Settings, SettingsError
from tests.integration.proxy.conftest import make_proxy

NETWORK = "127.66.0.0/16"


def served(port, source):
    """Return whether a client with this source address gets a response from the listener."""
    with contextlib.suppress(OSError), socket.socket() as sock:
        sock.settimeout(10)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
        return bool(sock.recv(1))
    return False


@pytest.mark.parametrize("kind", ["lean", "stock"])
def test_an_unknown_address_of_the_network_is_not_served_and_recorded(tmp_path, providers, kind):
    with make_proxy(tmp_path, providers, kind, EGRESS_NEIGHBOURS=f"{NETWORK}=127.66.0.3,127.66.0.5") as proxy:
        for port in proxy.ports.values():
            reached = {
                source
                for source in ("127.0.0.1", "127.65.255.255", "127.66.0.2", "127.66.0.3", "127.66.0.4", "127.66.0.5")
                if served(port, source)
            }
            assert reached == {"127.0.0.1", "127.65.255.255", "127.66.0.3", "127.66.0.5"}
        refused = [row for row in proxy.denials() if row.rule == "neighbours"]
        assert len(refused) == 2 * len(proxy.ports)
        assert {row.class_name for row in refused} == set(proxy.ports)
        with proxy.client("gateway") as http:
            assert http.get(proxy.url("api.anthropic.com", "/v1/models")).status_code < 500


def test_unknown_clients_do_not_use_up_the_connections_of_a_class(tmp_path, providers):
    with make_proxy(tmp_path, providers, EGRESS_NEIGHBOURS=f"{NETWORK}=127.66.0.3") as proxy:
        for _ in range(300):
            assert not served(proxy.ports["gateway"], "127.66.0.4")
        assert served(proxy.ports["gateway"], "127.66.0.3")


def test_each_network_has_its_own_known_addresses(tmp_path, providers):
    networks = f"{NETWORK}=127.66.0.3; 127.67.0.0/16=127.67.0.3"
    with make_proxy(tmp_path, providers, EGRESS_NEIGHBOURS=networks) as proxy:
        sources = ("127.66.0.3", "127.66.0.4", "127.67.0.3", "127.67.0.4", "127.68.0.4")
        reached = [source for source in sources if served(proxy.ports["gateway"], source)]
        assert reached == ["127.66.0.3", "127.67.0.3", "127.68.0.4"]


def test_without_egress_neighbours_every_address_is_served(lean):
    with lean:
        assert served(lean.ports["gateway"], "127.66.0.4")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("172.31.250.0/24", "write NETWORK=ADDRESS"),
        ("172.31.250.0/24=", "write NETWORK=ADDRESS"),
        ("172.31.250.1/24=172.31.250.3", "has host bits set"),
        ("172.31.250.0/24=172.31.251.3", "the address 172.31.251.3 is not in the network 172.31.250.0/24"),
        ("fd00::/64=fd00::1", "write NETWORK=ADDRESS"),
    ],
)
def test_invalid_egress_neighbours_is_reported_in_one_message(text, why, monkeypatch):
    monkeypatch.setenv("EGRESS_NEIGHBOURS", text)
    with pytest.raises(SettingsError, match="EGRESS_NEIGHBOURS") as caught:
        Settings.load()
    assert why in str(caught.value)


def test_egress_neighbours_of_the_role_is_valid(monkeypatch):
    monkeypatch.setenv("EGRESS_NEIGHBOURS", "172.31.250.0/24=172.31.250.3")
    assert Settings.load().neighbours == (Neighbours.read("172.31.250.0/24=172.31.250.3"),)
    monkeypatch.setenv("EGRESS_NEIGHBOURS", "")
    assert Settings.load().neighbours == ()


@pytest.mark.parametrize(
    ("client", "refused"),
    [
        ("172.31.250.3", False), ("172.31.250.77", True), ("172.31.250.0", True), ("172.30.0.5", False),
        ("::ffff:172.31.250.77", True), ("::ffff:172.31.250.3", False), ("fe80::1%eth1", True), ("::1", False),
    ],
)  # fmt: skip
def test_unknown_addresses_of_the_network_are_refused(client, refused):
    assert Neighbours.read("172.31.250.0/24=172.31.250.3").refuses(client) is refused
