"""Tests of several gateways on one host: deployment, a second run, a failure, removal, verification and rollback.

Roles, playbooks and files are real; `docker` is a fake that reads the compose files.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.integration.ansible.conftest import BIN, ROOT, Run
from tests.playbooks.test_rollback import tree
from tests.support.docker_host import DockerHost

# Set a long timeout, because each run of site.yml starts hundreds of processes.
pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="the roles give files to root and to the proxy's user"),
]

SERVICE = {"image": "openclaw:local", "command": ["node", "dist/index.js", "gateway"], "networks": ["tools"]}
# The example inventory, with directories of the test machine.
EXAMPLE = yaml.safe_load((ROOT / "inventories/several-gateways/group_vars/openclaw_gateways.yml").read_text())
POLICY = EXAMPLE["openclaw_proxy_policy"]


@dataclass
class Host:
    """VPS-1 as a directory of the test machine, with two compose projects that each have a gateway."""

    run: Run
    at: Path
    docker: DockerHost
    instances: list[dict[str, Any]] = field(default_factory=list)
    policy: dict[str, Any] = field(default_factory=lambda: POLICY)

    def play(self, playbook: str, *more: str, fails: bool = False) -> str:
        variables = {
            "ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "auto_silent",
            "openclaw_egress_home": f"{self.at}/vps1/openclaw-egress",
            "openclaw_egress_state_dir": f"{self.at}/vps1/state",
            "openclaw_egress_compose_dir": f"{self.at}/vps1/one",
            "openclaw_egress_owner": "root",
            "openclaw_proxy_ca_renewal": "none",
            "openclaw_proxy_otlp_logs_endpoint": "",
            "openclaw_gateway_build_script": f"{self.at}/none.sh",
            "openclaw_gateway_start_timeout": 2,
            "openclaw_gateway_instances": self.instances,
            "openclaw_proxy_policy": self.policy,
            "openclaw_egress_rollout_verify": False,
            "openclaw_egress_rollout_file": f"{self.at}/report.json",
        }  # fmt: skip
        hosts = {"openclaw_gateways": {"hosts": {"one": {}}}}
        (self.at / "hosts.json").write_text(json.dumps({"all": {"vars": variables, "children": hosts}}))
        done = self.run(
            "ansible-playbook", "-i", str(self.at / "hosts.json"), playbook, *more,
            PATH=os.pathsep.join([str(self.docker.command.parent), str(BIN), os.environ["PATH"]]),
        )  # fmt: skip
        assert (done.returncode != 0) is fails, done.stdout[-8000:] + done.stderr[-4000:]
        return done.stdout

    def files(self) -> dict[str, tuple[int, str]]:
        # The addresses of the test machine can change during the test.
        return {path: found for path, found in tree(self.at / "vps1").items() if not path.endswith("host-addresses")}

    def container(self, name: str) -> dict[str, Any]:
        return self.docker.state["containers"][name]["definition"]

    def gateways(self) -> dict[str, Any]:
        """Return the containers and OpenClaw's settings, without the proxy."""
        state = self.docker.state
        containers = {name: found for name, found in state["containers"].items() if name != "openclaw-proxy"}
        return {"containers": containers, "openclaw": filled(state["openclaw"]), "images": state["images"]}


def filled(tree: Any) -> Any:
    """Return settings without empty objects, which OpenClaw keeps when their last key is removed."""
    if not isinstance(tree, dict):
        return tree
    return {name: item for name, item in ((name, filled(item)) for name, item in tree.items()) if item != {}}


def prepare(run: Run, at: Path) -> Host:
    """Create and start two projects as an operator does. Both services have the same name."""
    networks = {"openclaw-gateway-net": {"subnet": "172.30.0.0/24", "driver": "bridge", "label": ""}}
    docker = DockerHost(at / "bin", networks=networks, images={"openclaw:local": "sha256:1"})
    for name in ("one", "two"):
        directory = at / "vps1" / name
        directory.mkdir(parents=True)
        project = {"services": {"openclaw-gateway": dict(SERVICE)}, "networks": {"tools": {}}}
        (directory / "docker-compose.yml").write_text(yaml.safe_dump(project))
        docker.up(directory)
    (at / "vps1" / "two" / ".env").write_text("TOKEN=hunter2")
    host = Host(run, at, docker)
    directories = {None: f"{at}/vps1/one", "/home/openclaw/openclaw-b": f"{at}/vps1/two"}
    host.instances = [
        one | {"compose_dir": directories[one.get("compose_dir")], "build_script": f"{at}/none.sh"}
        for one in EXAMPLE["openclaw_gateway_instances"]
    ]
    return host


@pytest.fixture
def host(run: Run, tmp_path: Path) -> Host:
    return prepare(run, tmp_path)


def test_two_gateways_are_deployed_again_without_a_change_and_rolled_back(host):
    before = host.files(), host.gateways(), host.docker.state["networks"]
    host.play("site.yml")
    for name, address, port in (("one", "172.31.240.2", 8080), ("two", "172.31.241.2", 8180)):
        found = host.container(f"{name}-openclaw-gateway-1")
        assert found["environment"]["HTTPS_PROXY"] == f"http://{address}:{port}"
        letter = "ab"[name == "two"]
        assert set(found["networks"]) == {"tools", f"openclaw-egress-{letter}"}
    proxy = host.container("openclaw-proxy")
    assert proxy["environment"]["EGRESS_CLASS_NETWORKS"] == (
        "gateway-a=172.31.240.2/26,browser-a=172.31.240.2/26,sandbox-a=172.31.240.2/26,"
        "gateway-b=172.31.241.2/26,browser-b=172.31.241.2/26,sandbox-b=172.31.241.2/26"
    )
    settings = host.docker.state["openclaw"]
    sandbox = {
        name: found["agents"]["defaults"]["sandbox"]["docker"]["env"]["HTTPS_PROXY"] for name, found in settings.items()
    }
    assert sandbox == {
        "one-openclaw-gateway-1": "http://172.31.240.2:8082", "two-openclaw-gateway-1": "http://172.31.241.2:8182"
    }  # fmt: skip
    deployed = host.files()
    again = host.play("site.yml")
    assert "changed=0" in again.split("PLAY RECAP")[1], again
    assert host.files() == deployed
    said = host.play("rollback.yml")
    assert "were edited or are in use" in said and "after the deployment" not in said
    assert "docker-compose.egress" not in said.split("were edited or are in use")[1]
    assert host.files() == before[0]
    assert host.gateways() == before[1]
    assert host.docker.state["networks"] == before[2]


def test_failure_of_the_second_gateway_leaves_the_first_as_it_is_and_removal_puts_it_back(host):
    """Add a gateway that fails, add it again without the failure, and remove it. Verify both gateways between."""
    before = host.gateways()["containers"]["two-openclaw-gateway-1"], host.files()
    first, second = host.instances
    host.instances = [first]
    host.play("site.yml")
    deployed = host.gateways()["containers"]["one-openclaw-gateway-1"]
    host.instances = [first, second]
    host.docker.change(broken=["two-openclaw-gateway-1"])
    said = host.play("site.yml", fails=True)
    (report,) = json.loads((host.at / "report.json").read_text())["hosts"]
    assert report["state"] == "failed", said
    assert "two-openclaw-gateway-1 did not become healthy" in report["error"]
    assert "Put back: b. The other gateways were not changed." in report["error"]
    found = host.gateways()["containers"]
    assert found["one-openclaw-gateway-1"] == deployed
    assert found["two-openclaw-gateway-1"] == before[0]
    assert {path: one for path, one in host.files().items() if "/two" in path} == {
        path: one for path, one in before[1].items() if "/two" in path
    }
    host.docker.change(broken=[])
    host.play("site.yml")
    assert "HTTP_PROXY" in host.container("two-openclaw-gateway-1")["environment"]
    host.instances, host.policy = [first], {**POLICY, "classes": {
        name: one for name, one in POLICY["classes"].items() if one["instance"] == "a"
    }}  # fmt: skip
    host.play("site.yml")
    found = host.gateways()["containers"]
    assert found["one-openclaw-gateway-1"] == deployed
    assert found["two-openclaw-gateway-1"] == before[0]
    assert not host.gateways()["openclaw"].get("two-openclaw-gateway-1")
    assert {path: one for path, one in host.files().items() if "/two" in path} == {
        path: one for path, one in before[1].items() if "/two" in path
    }
    assert host.docker.state["networks"].keys() == {"openclaw-gateway-net", "openclaw-egress-a"}


def test_each_result_of_the_checks_names_its_gateway(host):
    """Run the checks without a deployment: most of them fail, but each names its gateway."""
    host.play(
        "verify.yml", "-e", f"openclaw_egress_verify_file={host.at}/verify.json",
        "-e", f"openclaw_egress_verify_junit={host.at}/verify.xml", fails=True,
    )  # fmt: skip
    (report,) = json.loads((host.at / "verify.json").read_text())
    results = [(check.get("instance"), check["id"]) for check in report["checks"]]
    assert len(results) == len(set(results))
    of_proxy = {check for name, check in results if name is None}
    of_a, of_b = ({check for name, check in results if name == letter} for letter in "ab")
    assert {"proxy-healthy", "policy-valid", "records-audited"} <= of_proxy
    assert {"gateway-healthy", "gateway-environment", "gateway-command", "sandbox-settings"} <= of_a & of_b
    assert not of_proxy & (of_a | of_b)
    passed = {(check.get("instance"), check["id"]) for check in report["checks"] if check["passed"]}
    assert {("a", "gateway-healthy"), ("b", "gateway-healthy")} <= passed
    found = {check["id"]: check["found"] for check in report["checks"] if check.get("instance") == "b"}
    assert "two-openclaw-gateway-1" in found["gateway-healthy"]
    cases = ElementTree.parse(host.at / "verify.xml").getroot().iter("testcase")
    assert {("one.a", "gateway-healthy"), ("one.b", "gateway-healthy"), ("one", "proxy-healthy")} <= {
        (case.get("classname"), case.get("name")) for case in cases
    }


PROXY_TAGS = "openclaw_proxy_install,openclaw_proxy_configure,openclaw_proxy_run"


def test_proxy_deployed_by_its_tags_opens_each_listener_in_the_network_of_its_class(host):
    """Use the proxy's tags only. The checks of the gateways must run too, because they find the networks."""
    host.instances[1]["enforcement"] = "network"
    host.play("site.yml", "--tags", PROXY_TAGS)
    environment = host.container("openclaw-proxy")["environment"]
    assert "gateway-a=172.31.240.2/26" in environment["EGRESS_CLASS_NETWORKS"]
    assert environment["EGRESS_LISTEN_HOST"].startswith("127.0.0.1,")
    assert environment["EGRESS_NEIGHBOURS"].startswith("172.31.241.")
    assert "openclaw-egress-a" in host.container("openclaw-proxy")["networks"]
    assert "HTTPS_PROXY" not in host.container("one-openclaw-gateway-1").get("environment", {})


def test_proxys_role_is_refused_without_the_preflight_of_the_gateways(host):
    """Without the networks of the gateways, all listeners would open on all addresses."""
    play = host.at / "proxy.yml"
    role = {"hosts": "openclaw_gateways", "gather_facts": False, "roles": ["openclaw.egress.openclaw_proxy"]}
    play.write_text(json.dumps([role]))
    before = host.files()
    for more in ((), ("--tags", "openclaw_proxy_run")):
        said = " ".join(host.play(str(play), *more, fails=True).split())
        assert "Nothing was changed. openclaw_proxy needs the networks of openclaw_gateway_instances" in said
        assert "tasks_from: instances_preflight" in said
    single = "-e", json.dumps({"openclaw_gateway_instances": [], "openclaw_gateway_sandbox_daemon": "host"})
    said = " ".join(host.play(str(play), *single, fails=True).split())
    assert "Nothing was changed. openclaw_proxy needs the networks of openclaw_gateway_sandbox_daemon" in said
    assert "tasks_from: preflight" in said
    assert host.files() == before
    # Follow the remedy.
    gateways = {"name": "openclaw.egress.openclaw_gateway", "tasks_from": "instances_preflight", "public": True}
    remedy = {"ansible.builtin.include_role": gateways | {"apply": {"tags": ["always"]}}, "tags": ["always"]}
    play.write_text(json.dumps([role | {"pre_tasks": [remedy]}]))
    host.play(str(play), "--tags", PROXY_TAGS)
    assert "gateway-a=" in host.container("openclaw-proxy")["environment"]["EGRESS_CLASS_NETWORKS"]


def test_tags_select_the_steps_of_each_gateway(host):
    before = host.gateways()["containers"]
    host.play("site.yml", "--tags", f"{PROXY_TAGS},openclaw_gateway_install,openclaw_gateway_configure")
    for letter, name in (("a", "one"), ("b", "two")):
        assert "HTTPS_PROXY" in (host.at / "vps1" / name / f"docker-compose.egress.{letter}.yml").read_text()
    assert (host.at / "vps1/openclaw-egress/proxy-config/proxy-bootstrap.cjs").exists()
    assert host.gateways()["containers"] == before
    assert not host.gateways()["openclaw"]
    host.play("site.yml", "--tags", "openclaw_gateway_run")
    for name in ("one", "two"):
        assert "HTTPS_PROXY" in host.container(f"{name}-openclaw-gateway-1")["environment"]
    assert not host.gateways()["openclaw"]
    host.play("site.yml", "--tags", "openclaw_gateway_sandboxes")
    assert host.gateways()["openclaw"].keys() == {"one-openclaw-gateway-1", "two-openclaw-gateway-1"}


def test_gateway_that_was_never_started_is_not_taken_for_another(host):
    """Both services have the same name and no container_name, and only the first gateway has a container."""
    containers = host.docker.state["containers"]
    host.docker.change(containers={name: found for name, found in containers.items() if name.startswith("one-")})
    role = {"name": "openclaw.egress.openclaw_gateway", "tasks_from": "instances_preflight", "public": True}
    tasks = [
        {"ansible.builtin.include_role": role},
        {"ansible.builtin.debug": {"msg": "container of b: {{ __openclaw_gateway_found_container }}"}},
    ]
    play = {"hosts": "openclaw_gateways", "gather_facts": False, "tasks": tasks}
    (host.at / "preflight.yml").write_text(json.dumps([play]))
    assert "container of b: two-openclaw-gateway-1" in host.play(str(host.at / "preflight.yml"))


NO_STEP = ("--tags", "no_step")


def test_one_build_script_for_two_images_is_refused(host):
    """The patch of the script names one image. Follow each remedy: another script, or the bootstrap as a mount."""
    scripts = [host.at / "vps1" / name for name in ("build.sh", "build-b.sh")]
    for script in scripts:
        script.write_text("#!/bin/bash\ndocker build --tag openclaw:local .\n")
    host.docker.change(images={"openclaw:a": "sha256:a", "openclaw:b": "sha256:b"})
    for gateway, letter in zip(host.instances, "ab", strict=True):
        gateway.update(bootstrap="image", build_script=str(scripts[0]))
        compose = Path(gateway["compose_dir"], "docker-compose.yml")
        compose.write_text(compose.read_text().replace("openclaw:local", f"openclaw:{letter}"))
        host.docker.up(compose.parent)
    before = host.files()
    said = " ".join(host.play("site.yml", fails=True).split())
    assert "Nothing was changed. openclaw_gateway_instances: a and b have the same build_script" in said
    assert "different images (openclaw:a, openclaw:b)" in said
    assert host.files() == before
    host.instances[1]["build_script"] = str(scripts[1])
    host.play("site.yml", *NO_STEP)
    host.instances[1].update(build_script=str(scripts[0]), bootstrap="mount")
    host.play("site.yml", *NO_STEP)


def test_previous_images_of_two_gateways_have_tags_of_their_own(host):
    """Tag the images as the build does. The tag of a single gateway stays as in existing deployments."""
    images = {"openclaw:a": "sha256:a", "openclaw:b": "sha256:b", "openclaw": "sha256:c", "localhost:1/o": "sha256:d"}
    host.docker.change(images=images)
    role = {"name": "openclaw.egress.openclaw_gateway", "tasks_from": "tag_image"}
    include = {"ansible.builtin.include_role": role}
    play = {
        "hosts": "openclaw_gateways",
        "gather_facts": False,
        "tasks": [
            include | {"vars": {"openclaw_gateway_image": image, "__openclaw_gateway_instance": {"name": image}}}
            for image in images
        ]
        + [include | {"vars": {"openclaw_gateway_image": "openclaw:a", "__openclaw_gateway_instance": {}}}],
    }
    (host.at / "tag.yml").write_text(json.dumps([play]))
    host.play(str(host.at / "tag.yml"))
    assert host.docker.state["images"] == images | {
        "openclaw:before-egress-a": "sha256:a", "openclaw:before-egress-b": "sha256:b",
        "openclaw:before-egress-latest": "sha256:c", "localhost:1/o:before-egress-latest": "sha256:d",
        "openclaw:before-egress": "sha256:a",
    }  # fmt: skip
