"""Tests of the settings that follow from `openclaw_gateway_instances`, and of the messages for contradictions."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.openclaw.egress.plugins.filter import gateway_instances as instances_filter
from ansible_collections.openclaw.egress.plugins.filter import proxy_networks as networks_filter

gateway_instances = instances_filter.FilterModule().filters()["gateway_instances"]
proxy_networks = networks_filter.FilterModule().filters()["proxy_networks"]
EXPECTED = Path(__file__).parent / "golden" / "instances.yml"
DEFAULTS = {
    "compose_dir": "/srv/openclaw", "service": "openclaw-gateway", "container": "", "image": "", "inner_parent": "",
    "build_script": "/srv/build.sh", "enforcement": "application", "user": "node",
}  # fmt: skip
CLASSES = {
    "gateway-a": {"listen": 8080, "action": "open", "instance": "a"},
    "sandbox-a": {"listen": 8082, "instance": "a"},
    "gateway-b": {"listen": 8180, "action": "open", "instance": "b"},
    "browser-b": {"listen": 8181, "instance": "b"},
    "sandbox-b": {"listen": 8182, "instance": "b"},
}
A = {"name": "a", "subnet": "172.31.240.0/24"}
B = {"name": "b", "subnet": "172.31.241.0/24", "compose_dir": "/srv/other/", "enforcement": "network", "user": None}


def problems(*given: dict[str, Any], classes: dict[str, Any] | None = None) -> list[str]:
    found = gateway_instances(list(given), DEFAULTS, CLASSES if classes is None else classes)
    assert not found["gateways"] or not found["problems"]
    return found["problems"]


def test_settings_equal_the_golden_file():
    found = gateway_instances([A, B], DEFAULTS, CLASSES)
    assert found["problems"] == []
    networks = proxy_networks(found["gateways"], ["a"])
    assert {"gateways": found["gateways"], "proxy": networks} == yaml.safe_load(EXPECTED.read_text())


def test_networks_of_gateways_never_overlap():
    found = gateway_instances([A, B, B | {"name": "c", "subnet": "10.9.0.0/26", "service": "c"}], DEFAULTS,
                              CLASSES | {"gateway-c": {"listen": 8280, "instance": "c"}})["gateways"]  # fmt: skip
    subnets = [ipaddress.ip_network(one["subnet"]) for one in proxy_networks(found, ["a", "b", "c"])["networks"]]
    assert len(subnets) == 9
    assert not any(one.overlaps(other) for one in subnets for other in subnets if one is not other)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([A, B | {"name": "a"}], "two gateways have the name a. Give each gateway another name."),
        ([A | {"name": "A_1"}], "openclaw_gateway_instances[0].name: 'A_1' is not a valid name. Use at most"),
        ([A, B | {"compose_dir": "/srv/openclaw"}],
         "a and b have the same service in the same compose_dir (openclaw-gateway in /srv/openclaw). Set `service` or"),
        ([A | {"container": "gw"}, B | {"container": "gw"}], "a and b have the same container (gw). Set `container`"),
        ([A, B | {"subnet": "172.31.240.128/25"}], "subnets of a and b overlap (172.31.240.0/24, 172.31.240.128/25)."),
        ([A | {"subnet": "172.31.240.0/28"}], "a: subnet: 172.31.240.0/28 is not a subnet from /16 to /26. Write"),
        ([A | {"subnet": "172.31.240.9/24"}], "a: subnet: 172.31.240.9/24 has host bits set. Write a subnet such as"),
        ([A, B | {"classes": {"sandbox": "sandbox-a"}}],
         "a and b have the same class (sandbox-a). Give each gateway its own classes: write `classes: {sandbox: "),
        ([A, B | {"name": "c"}], "c: classes.gateway: the policy has no class gateway-c. Write in openclaw_proxy"),
        ([A | {"classes": {"gateway": "gateway-b"}}], "the class gateway-b has `instance: b` in the policy"),
        ([A | {"classes": {"sandbox": "gateway-a"}}],
         "a: classes: gateway and sandbox have the same class (gateway-a). Give each kind its own class."),
        ([A | {"classes": "gateway-a"}], "[0].classes: write a mapping of kinds (gateway, browser, sandbox, build)"),
        ([A, B | {"compose_dir": "/srv/openclaw/."}], "a and b have the same service in the same compose_dir"),
        ([A | {"subnet": None}], "a: subnet: "),
        ([A | {"inner_parent": "br0"}, B | {"inner_parent": "br0"}],
         "a and b have the same inner_parent (br0). Set another `inner_parent` for each gateway."),
        ([A, B | {"name": "a-inner"}],
         "a and a-inner have the same network name (openclaw-egress-a-inner). Give one of them another `name`."),
        ([A, B | {"name": "a-browser"}], "have the same network name (openclaw-egress-a-browser)."),
        ([A, B | {"name": "a-probe"}], "have the same network name (openclaw-egress-a-probe)."),
    ],
)  # fmt: skip
def test_contradiction_is_reported_with_its_remedy(given, expected):
    assert any(expected in one for one in problems(*given)), problems(*given)


def test_two_classes_with_one_port_are_reported():
    classes = CLASSES | {"gateway-b": {"listen": 8080, "instance": "b"}}
    assert "a and b have the same listener port (8080). Set another `listen` in the class gateway-b" in " ".join(
        problems(A, B, classes=classes)
    )


@pytest.mark.parametrize("listen", [None, "x", ""])
def test_class_without_a_port_is_reported(listen):
    (said,) = problems(A, classes=CLASSES | {"gateway-a": {"listen": listen, "instance": "a"}})
    assert "the class gateway-a has no port as `listen`. Set `listen: 8183` in it." in said


def test_class_that_is_no_mapping_is_reported():
    assert "the class gateway-a of the policy is not a mapping." in problems(A, classes={"gateway-a": "open"})[0]


def test_class_that_the_message_names_is_accepted():
    """Follow the remedy of the message for a missing class."""
    (said,) = problems(A, B | {"name": "c"})
    written = yaml.safe_load("{" + said.split("`")[3] + "}")
    assert written["gateway-c"]["listen"] not in [one["listen"] for one in CLASSES.values()]
    assert problems(A, B | {"name": "c"}, classes=CLASSES | written) == []


def test_class_without_the_name_of_its_gateway_is_reported():
    (said,) = problems(A, classes={"gateway-a": {"listen": 8080}})
    assert "records would not name this gateway. Write `instance: a` in that class." in said
