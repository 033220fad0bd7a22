"""Tests of the role's sandbox settings for OpenClaw, derived from policies; `docker` and OpenClaw are fakes.

The scenario `classes` in molecule/ uses the real Docker and OpenClaw.
"""

import json
import os
import re
from pathlib import Path

import pytest

from tests.integration.ansible.conftest import BIN, Run
from tests.support.docker import Docker

PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "environment": {"PATH": "{{ bin }}:{{ lookup('env', 'PATH') }}"},
        "tasks": [
            {
                "name": "Sandboxes",
                "ansible.builtin.include_role": {
                    "name": "openclaw.egress.openclaw_gateway",
                    "tasks_from": "sandboxes",
                },
                "vars": {"__openclaw_gateway_ready": True},
            }
        ],
    }
]
BROWSER = {"listen": 8081, "action": "enforce", "allow": ["*"]}
SOME = [{"host": "packages.example.com"}]
# For each host: the classes of its policy, OpenClaw's own sandbox settings, and more inventory variables.
HOSTS = {
    "closed": ({"sandbox": {"listen": 8082, "action": "enforce", "allow": []}, "browser": BROWSER}, {}, {}),
    "opened": ({"sandbox": {"listen": 9082, "action": "enforce", "allow": SOME}, "browser": BROWSER}, {}, {}),
    "report": ({"sandbox": {"listen": 8082, "action": "report"}, "browser": BROWSER}, {"network": "mine"}, {}),
    "browserless": ({"sandbox": {"listen": 8082, "action": "open"}}, {"env": {"TOKEN": "hunter2"}}, {}),
    "classless": ({"gateway": {"listen": 8080, "action": "open"}}, {}, {}),
    "siblings": (
        {"sandbox": {"listen": 8082, "action": "enforce", "allow": SOME}, "browser": BROWSER},
        {"network": "bridge", "dns": ["192.0.2.1"]},
        {"__openclaw_gateway_plan": {"siblings": "services.openclaw-gateway.volumes"}},
    ),
    "off": ({"sandbox": {"listen": 8082, "action": "open"}}, {}, {"openclaw_gateway_sandboxes": False}),
}


@pytest.fixture(scope="module")
def result(run: Run, tmp_path_factory: pytest.TempPathFactory):
    """Run the role twice. Return each host's sandbox settings, and the messages of the second run."""
    at: Path = tmp_path_factory.mktemp("sandboxes")
    hosts, dockers = {}, {}
    for name, (classes, own, more) in HOSTS.items():
        agents = {"defaults": {"sandbox": {"docker": own}}}
        if name == "opened":
            agents["entries"] = {"work": {"sandbox": {"docker": {"network": "none"}}}}
        dockers[name] = Docker(
            at / name, containers={"openclaw-gateway": "healthy"}, openclaw={"agents": agents, "theirs": 1}
        )
        hosts[name] = more | {
            "ansible_connection": "local",
            "ansible_python_interpreter": "auto_silent",
            "bin": str(at / name),
            "openclaw_egress_state_dir": str(at / name / "state"),
            "openclaw_proxy_policy": {"version": 1, "classes": classes},
        }
    (at / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (at / "play.yml").write_text(json.dumps(PLAY))
    runs = [
        run("ansible-playbook", "-i", f"{at}/hosts.json", f"{at}/play.yml", PATH=f"{BIN}:{os.environ['PATH']}")
        for _ in range(2)
    ]
    for done in runs:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "hunter2" not in done.stdout
    assert all(docker.state["openclaw"]["theirs"] == 1 for docker in dockers.values())
    found = {
        name: docker.state["openclaw"]["agents"]["defaults"]["sandbox"]["docker"] for name, docker in dockers.items()
    }
    found["siblings"] = dockers["siblings"].state["openclaw"]["agents"]["defaults"]["sandbox"]
    return found, runs[0].stdout, runs[1].stdout


def test_sandbox_of_a_class_without_destinations_has_no_network(result):
    docker = result[0]["closed"]
    assert docker["network"] == "none"
    assert docker["env"]["HTTPS_PROXY"] == docker["env"]["http_proxy"] == "http://172.30.0.250:8082"
    assert docker["env"]["ALL_PROXY"] == docker["env"]["all_proxy"] == "http://172.30.0.250:8081"


def test_sandbox_of_a_class_with_destinations_has_a_network_and_its_listener(result):
    assert result[0]["opened"]["network"] == "bridge"
    assert result[0]["opened"]["env"]["HTTP_PROXY"] == "http://172.30.0.250:9082"


def test_the_operators_network_and_variables_are_kept(result):
    assert result[0]["report"]["network"] == "mine"
    assert result[0]["browserless"]["env"]["TOKEN"] == "hunter2"


def test_class_missing_from_the_policy_has_no_listener(result):
    assert "ALL_PROXY" not in result[0]["browserless"]["env"]
    assert result[0]["classless"]["network"] == "none"
    assert "HTTP_PROXY" not in result[0]["classless"]["env"]


def test_siblings_are_on_the_network_of_their_class_and_use_the_proxys_address_there(result):
    docker, browser = result[0]["siblings"]["docker"], result[0]["siblings"]["browser"]
    assert docker["network"] == "openclaw-egress-sandbox"
    assert docker["dns"] == ["172.31.251.2"]
    assert docker["env"]["HTTPS_PROXY"] == docker["env"]["http_proxy"] == "http://172.31.251.2:8082"
    assert docker["env"]["ALL_PROXY"] == docker["env"]["all_proxy"] == "http://172.31.252.2:8081"
    assert browser == {"network": "openclaw-egress-browser"}


def test_disabled_option_changes_nothing(result):
    assert result[0]["off"] == {}


def test_remaining_steps_are_reported_once(result):
    _, first, second = result
    assert "sandbox recreate --all" in first
    assert "agents.entries.work.sandbox.docker.network overrides the defaults" in first
    assert "sandbox recreate" not in second
    assert set(re.findall(r"changed=(\d+)", second)) == {"0"}
