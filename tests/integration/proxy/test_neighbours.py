"""The socket filter: from one network, only known addresses reach the listeners, as real connections show."""

import contextlib
import socket

import pytest

from openclaw_egress.settings import Neighbours, Settings, SettingsError
from tests.integration.proxy.conftest import make_proxy

NETWORK = "127.66.0.0/16"


def connects(port, source, target="127.0.0.1"):
    with contextlib.suppress(OSError), socket.socket() as sock:
        sock.settimeout(3)
        sock.bind((source, 0))
        sock.connect((target, port))
        return True
    return False


def test_an_unknown_address_of_the_network_cannot_connect(tmp_path, providers):
    with make_proxy(tmp_path, providers, EGRESS_NEIGHBOURS=f"{NETWORK}=127.66.0.3,127.66.0.5") as proxy:
        for port in proxy.ports.values():
            reached = {
                source
                for source in ("127.0.0.1", "127.65.255.255", "127.66.0.2", "127.66.0.3", "127.66.0.4", "127.66.0.5")
                if connects(port, source)
            }
            assert reached == {"127.0.0.1", "127.65.255.255", "127.66.0.3", "127.66.0.5"}
        with proxy.client("gateway") as http:
            assert http.get(proxy.url("api.anthropic.com", "/v1/models")).status_code < 500


def test_without_the_setting_every_address_connects(lean):
    with lean:
        assert connects(lean.ports["gateway"], "127.66.0.4")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("172.31.250.0/24", "write NETWORK=ADDRESS"),
        ("172.31.250.0/24=", "write NETWORK=ADDRESS"),
        ("172.31.250.1/24=172.31.250.3", "has host bits set"),
        ("172.31.250.0/24=172.31.251.3", "172.31.251.3 is outside of 172.31.250.0/24"),
        ("fd00::/64=fd00::1", "write NETWORK=ADDRESS"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_message(text, why, monkeypatch):
    monkeypatch.setenv("EGRESS_NEIGHBOURS", text)
    with pytest.raises(SettingsError, match="EGRESS_NEIGHBOURS") as caught:
        Settings.load()
    assert why in str(caught.value)


def test_the_setting_as_the_role_writes_it(monkeypatch):
    monkeypatch.setenv("EGRESS_NEIGHBOURS", "172.31.250.0/24=172.31.250.3")
    assert Settings.load().neighbours == Neighbours.read("172.31.250.0/24=172.31.250.3")
    monkeypatch.setenv("EGRESS_NEIGHBOURS", "")
    assert Settings.load().neighbours is None


def test_stock_mitmdump_refuses_the_setting(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers, "stock", EGRESS_NEIGHBOURS=f"{NETWORK}=127.66.0.3")
    with pytest.raises(RuntimeError, match="use `egress run`"):
        proxy.start()
