"""Tests, with real connections, that a class with a network of its own serves this network on its address only."""

import socket

import pytest

from openclaw_egress.settings import ClassNetworks, Settings, SettingsError
from tests.integration.proxy.conftest import make_proxy

OWN = "sandbox=127.81.0.2/16,browser=127.82.0.2/16"


def answer(address, port, source):
    """Return `refused` if nothing listens at the address, else whether this client gets a response."""
    with socket.socket() as sock:
        sock.settimeout(10)
        sock.bind((source, 0))
        try:
            sock.connect((address, port))
        except ConnectionRefusedError:
            return "refused"
        try:
            sock.sendall(b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
            return bool(sock.recv(1))
        except OSError:
            return False


def test_listener_of_a_class_with_a_network_opens_on_its_address_only(tmp_path, providers):
    settings = {"EGRESS_CLASS_NETWORKS": OWN, "EGRESS_LISTEN_HOST": "127.0.0.1, 127.83.0.1"}
    with make_proxy(tmp_path, providers, **settings) as proxy:
        for name, port in proxy.ports.items():
            expected = {"sandbox": ["127.81.0.2"], "browser": ["127.82.0.2"]}.get(name, ["127.0.0.1", "127.83.0.1"])
            addresses = ("127.0.0.1", "127.81.0.2", "127.82.0.2", "127.83.0.1", "127.84.0.1")
            source = expected[0]
            assert [one for one in addresses if answer(one, port, source) != "refused"] == expected


def test_network_decides_the_class_even_of_a_client_that_reaches_another_address(tmp_path, providers):
    with make_proxy(tmp_path, providers, EGRESS_CLASS_NETWORKS=OWN) as proxy:
        listening = {"gateway": "127.0.0.1", "sandbox": "127.81.0.2", "browser": "127.82.0.2"}
        for source, own in (("127.0.0.9", "gateway"), ("127.81.0.9", "sandbox"), ("127.82.0.9", "browser")):
            served = [name for name, at in listening.items() if answer(at, proxy.ports[name], source)]
            assert served == [own]
        # The proxy also refuses 127.0.0.1, from which the test waits for the listeners.
        refused = [row for row in proxy.denials() if row.rule == "class-networks" and row.address != "127.0.0.1"]
        assert len(refused) == 6
        assert {row.class_name for row in refused} == set(listening)


def test_classes_of_a_gateway_share_a_network_that_no_other_gateway_reaches(tmp_path, providers):
    networks = "gateway=127.81.0.2/16,build=127.81.0.2/16,sandbox=127.82.0.2/16,browser=127.82.0.2/16"
    with make_proxy(tmp_path, providers, EGRESS_CLASS_NETWORKS=networks) as proxy:
        first, second = {"gateway", "build"} & set(proxy.ports), {"sandbox", "browser"} & set(proxy.ports)
        at = dict.fromkeys(first, "127.81.0.2") | dict.fromkeys(second, "127.82.0.2")
        for source, own in (("127.81.0.9", first), ("127.82.0.9", second)):
            served = {name for name, address in at.items() if answer(address, proxy.ports[name], source) is True}
            assert served == own


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sandbox", "write CLASS=ADDRESS/PREFIX"),
        ("sandbox=172.31.251.2", "write the prefix length"),
        ("sandbox=172.31.251.2/33", "write CLASS=ADDRESS/PREFIX"),
        ("=172.31.251.2/24", "write one class"),
        ("sandbox=172.31.251.2/24,sandbox=172.31.252.2/24", "each class once"),
        ("sandbox=172.31.251.2/24,browser=172.31.251.129/25", "the networks of sandbox and browser overlap"),
        ("sandbox=172.31.251.2/24,browser=172.31.251.3/24", "the networks of sandbox and browser overlap"),
        ("sandbox=fd00::2/64", "write CLASS=ADDRESS/PREFIX"),
    ],
)
def test_invalid_class_networks_are_reported(text, why, monkeypatch):
    monkeypatch.setenv("EGRESS_CLASS_NETWORKS", text)
    with pytest.raises(SettingsError, match="EGRESS_CLASS_NETWORKS") as caught:
        Settings.load()
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("class_name", "client", "may"),
    [
        ("sandbox", "172.31.251.77", True), ("sandbox", "::ffff:172.31.251.77", True),
        ("sandbox", "172.31.252.77", False), ("sandbox", "172.30.0.5", False), ("sandbox", "fe80::1%eth1", False),
        ("gateway", "172.31.251.77", False), ("gateway", "::ffff:172.31.252.77", False),
        ("gateway", "172.30.0.5", True),
    ],
)  # fmt: skip
def test_network_of_a_client_decides_which_listeners_it_may_use(class_name, client, may):
    networks = ClassNetworks.read("sandbox=172.31.251.2/24, browser=172.31.252.2/24")
    assert (networks.foreign(class_name, client) is None) is may
