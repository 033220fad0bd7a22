"""Tests of behaviour that is specific to enforcement level `application`."""

import json

import pytest

from molecule.classes.test_classes import CURL
from molecule.lab.hosts import connecting, in_gateway, in_sandbox, openclaw, sandbox, sandbox_settings


def test_operators_network_is_restored_if_the_class_may_reach_a_destination():
    assert sandbox_settings()["docker"]["network"] == "bridge"
    form = "{{.HostConfig.NetworkMode}}"
    assert in_gateway("docker", "inspect", "--format", form, sandbox()).strip() == "bridge"


def test_level_application_does_not_stop_a_sandbox_that_ignores_its_variables():
    """Send requests from a sandbox that has a network, and ignore the proxy variables.

    They succeed: this is a documented limit of enforcement level `application`.
    """
    other = in_sandbox(
        *CURL, "--output", "/dev/null", "--proxy", "http://172.30.0.250:8081", "https://www.example.com/"
    )
    assert other.strip() == "200"
    assert connecting(in_sandbox, "198.51.100.10", 443) == "connected"


@pytest.mark.parametrize(
    ("port", "host"),
    [(8081, "www.example.com"), (8082, "packages.example.com"), (8083, "registry.example.com")],
)
def test_openclaws_proxy_validate_accepts_each_listener(port, host):
    answer = openclaw(
        *("proxy", "validate", "--proxy-url", f"http://172.30.0.250:{port}"),
        *("--allowed-url", f"http://{host}/", "--json"),
    )
    assert json.loads(answer[answer.index("{") :])["ok"] is True
