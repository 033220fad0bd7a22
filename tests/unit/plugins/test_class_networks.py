"""Tests of the addresses in the networks of sibling containers."""

import ipaddress

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.openclaw.egress.plugins.filter.class_networks import FilterModule

class_networks = FilterModule().filters()["class_networks"]
SANDBOX = {"name": "openclaw-egress-sandbox", "subnet": "172.31.251.0/24"}


def test_proxy_has_an_address_that_docker_never_assigns():
    for prefix in (16, 24, 28):
        subnet = ipaddress.IPv4Network(f"10.9.0.0/{prefix}")
        (found,) = class_networks({"sandbox": SANDBOX | {"subnet": str(subnet)}})
        reserved = {ipaddress.IPv4Address(found[name]) for name in ("gateway", "address")}
        assert reserved < set(subnet.hosts())
        assert not any(one in ipaddress.IPv4Network(found["range"]) for one in reserved)
        assert ipaddress.IPv4Network(found["range"]).subnet_of(subnet)
        assert found["interface"] == f"10.9.0.2/{prefix}"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"sandbox": "openclaw-egress-sandbox"}, "sandbox: write {name: NAME, subnet: SUBNET}"),
        ({"sandbox": {"name": "a"}}, "sandbox: write"),
        ({"sandbox": SANDBOX | {"subnet": "172.31.251.1/24"}}, "has host bits set"),
        ({"sandbox": SANDBOX | {"subnet": "172.31.251.0/30"}}, "is not a subnet from /16 to /28"),
        ({"sandbox": SANDBOX, "browser": {"name": "b", "subnet": "172.31.0.0/16"}}, "sandbox and browser overlap"),
        ({"sandbox": SANDBOX, "browser": SANDBOX | {"subnet": "172.31.252.0/24"}}, "two classes have the network"),
        (["sandbox"], "openclaw_egress_class_networks"),
    ],
)
def test_invalid_networks_are_reported(given, why):
    with pytest.raises(AnsibleFilterError, match="openclaw_egress_class_networks") as caught:
        class_networks(given)
    assert why in str(caught.value)


def test_parents_differ_because_docker_accepts_a_parent_for_one_network_only():
    given = {name: {"name": name, "subnet": f"10.9.{number}.0/24"} for number, name in enumerate(("a", "b"))}
    assert [network["parent"] for network in class_networks(given)] == ["", ""]
    given = {name: network | {"parent": "lab"} for name, network in given.items()}
    with pytest.raises(AnsibleFilterError, match="two classes have the parent interface lab"):
        class_networks(given)
