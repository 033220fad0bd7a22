"""Tests of rollback.yml on hosts with a complete or partial deployment, and after edits by operators.

Files and modules are real; `docker` and `ufw` are fakes. The scenario `rollback` in molecule/ uses real hosts.
"""

import getpass
import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.ansible.conftest import BIN, ROOT, Run
from tests.support.docker import Docker

# Set a long timeout, because each playbook run starts about twenty-five Python processes.
pytestmark = pytest.mark.timeout(1200)

# Make the collection importable, because its modules import their utilities from `ansible_collections.openclaw.egress`.
sys.path.insert(0, str(ROOT / "collections"))
Manifest = importlib.import_module("ansible_collections.openclaw.egress.plugins.module_utils.manifest").Manifest

SCRIPT = "#!/bin/bash\nset -euo pipefail\n# ours, with care\ndocker build -t openclaw:local .\n"
ENV = "# tokens\nOPENCLAW_TOKEN=hunter2"
LOKI = "limits_config:\n  retention_period: 720h\n"
RULE = "allow from 10.0.0.1 to 10.0.0.2 port 3100 proto tcp"
UFW = """#!/bin/sh
# Deletes a rule once, as ufw does.
echo "$@" >> "$0.log"
if [ "$(wc -l < "$0.log")" = 1 ]; then echo "Rule deleted"; else echo "Could not delete non-existent rule"; fi
"""
LEFT = "Report the items that were left, because they were edited or are in use"


def tree(*folders: Path) -> dict[str, tuple[int, str]]:
    """Return every path below the folders, mapped to its mode and content."""
    found = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        mode = path.lstat().st_mode
        what = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path)] = (mode, what)
    return found


def module(name: str, **arguments: object) -> None:
    """Run a module of the collection as a process, as Ansible does."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "plugins" / "modules" / f"{name}.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env=os.environ | {"PYTHONPATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout)["changed"], done.stdout


@dataclass
class Hosts:
    """VPS-1 and VPS-2, each a directory of the test machine."""

    run: Run
    at: Path
    docker: Docker

    @property
    def clone(self) -> Path:
        return self.at / "vps1" / "openclaw"

    @property
    def script(self) -> Path:
        return self.at / "vps1" / "build-openclaw.sh"

    @property
    def loki_file(self) -> Path:
        return self.at / "vps2" / "loki-config.yml"

    def files(self) -> dict[str, tuple[int, str]]:
        return tree(self.at / "vps1", self.at / "vps2")

    def play(self, playbook: str, *more: str) -> str:
        done = self.run(
            "ansible-playbook", "-i", str(self.at / "hosts.json"), playbook, *more,
            PATH=os.pathsep.join([str(self.at / "bin"), str(BIN), os.environ["PATH"]]),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deploy(self, steps: int = 9) -> None:
        """Apply the first ``steps`` changes that the roles make to VPS-1, in the order of the roles."""
        home, links = self.at / "vps1" / "openclaw-egress", ["proxy-config", "data/proxy-ca", "data/proxy-spool"]
        compose, env = self.clone / "docker-compose.egress.yml", self.clone / ".env"
        manifest = Manifest(str(self.at / "vps1" / "state" / "manifest.json"))
        touched = [
            str(path) for path in (home, self.clone / "data", *(self.clone / link for link in links), compose, env)
        ]

        def note(paths: list[str]) -> None:
            for path in paths:
                manifest.wrote(path)

        def directories() -> None:
            for name, content in {
                "proxy-config/addons/a.py": "a",
                "proxy-ca/ca.pem": "b",
                "proxy-spool/spool.db": "c",
            }.items():
                (home / name).parent.mkdir(parents=True)
                (home / name).write_text(content)

        def paths_of_the_operator() -> None:
            (self.clone / "data").mkdir()
            for link in links:
                (self.clone / link).symlink_to(home / Path(link).name)

        def service(name: str, marker: str) -> None:
            had = compose.read_text() if compose.exists() else ""
            compose.write_text(had + marker.format("BEGIN") + f"  {name}: {{}}\n" + marker.format("END"))

        def proxys_service() -> None:
            service("openclaw-proxy", "# {} openclaw.egress: openclaw-proxy\n")
            module("compose_env", path=str(env), compose_files_add=[str(compose)])
            self.docker.change(containers={"openclaw-proxy": "healthy", "openclaw-proxy-ui": "running"})

        def image() -> None:
            note([str(self.script)])
            manifest.record("image", "openclaw:local", {"id": "sha256:ours"})
            self.docker.change(images={"openclaw:local": "sha256:ours", "openclaw:before-egress": "sha256:theirs"})

        does = [
            lambda: [manifest.record("path", path) for path in touched],
            directories,
            paths_of_the_operator,
            proxys_service,
            lambda: note(touched),
            lambda: manifest.record("path", str(self.script)),
            lambda: module(
                "build_patch", path=str(self.script), bootstrap_src=str(home / "proxy-config/proxy-bootstrap.cjs")
            ),
            image,
            lambda: (
                service("openclaw-gateway", "  # {} openclaw.egress: openclaw-gateway\n"),
                note([str(compose), str(env)]),
                manifest.record("openclaw_config", "agents", {"before": {}, "wrote": {"a": 1}, "made": ["a"]}),
            ),
        ]
        for do in does[:steps]:
            do()
            manifest.save()

    def deploy_loki(self) -> None:
        """Apply the changes that the role loki_otlp makes to VPS-2 if it may edit Loki's configuration file."""
        manifest = Manifest(str(self.at / "vps2" / "state" / "manifest.json"))
        manifest.record("ufw_rule", "10.0.0.1", {"rule": RULE})
        manifest.record("path", str(self.loki_file))
        self.loki_file.write_text(LOKI + "  allow_structured_metadata: true\n")
        manifest.wrote(str(self.loki_file))
        manifest.save()

    def roll_back(self, *more: str) -> str:
        return self.play("playbooks/rollback.yml", *more)


@pytest.fixture
def hosts(run, tmp_path) -> Hosts:
    vps1, vps2, bin_ = tmp_path / "vps1", tmp_path / "vps2", tmp_path / "bin"
    for folder in (vps1 / "openclaw", vps2, bin_):
        folder.mkdir(parents=True)
    (vps1 / "openclaw" / ".env").write_text(ENV)
    (vps1 / "openclaw" / ".env").chmod(0o600)
    (vps1 / "openclaw" / "docker-compose.yml").write_text("services: {openclaw-gateway: {}}\n")
    (vps1 / "build-openclaw.sh").write_text(SCRIPT)
    (vps1 / "build-openclaw.sh").chmod(0o750)
    (vps2 / "loki-config.yml").write_text(LOKI)
    ufw = bin_ / "ufw"
    ufw.write_text(UFW)
    ufw.chmod(0o755)
    docker = Docker(bin_, images={"openclaw:local": "sha256:theirs"})
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "auto_silent"}
    one = {
        "openclaw_egress_home": f"{vps1}/openclaw-egress",
        "openclaw_egress_state_dir": f"{vps1}/state",
        "openclaw_egress_compose_dir": f"{vps1}/openclaw",
        "openclaw_egress_owner": getpass.getuser(),
        "openclaw_gateway_build_script": f"{vps1}/build-openclaw.sh",
    }
    two = {
        "loki_otlp_state_dir": f"{vps2}/state",
        "loki_otlp_config_file": f"{vps2}/loki-config.yml",
        "loki_otlp_restart_command": f"tee --append {tmp_path}/restarted",
    }
    groups = {"openclaw_gateways": {"hosts": {"one": one}}, "openclaw_loki": {"hosts": {"two": two}}}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": local, "children": groups}}))
    return Hosts(run, tmp_path, docker)


def left_of(said: str) -> str:
    """Return the part of the output that lists what the rollback left in place."""
    return said.partition(LEFT)[2].partition("TASK [")[0]


def test_rollback_restores_everything_and_a_second_run_changes_nothing(hosts):
    before = hosts.files()
    hosts.deploy()
    hosts.deploy_loki()
    deployed, docker = hosts.files(), hosts.docker.state
    assert len(deployed) > len(before)
    hosts.roll_back("--check")
    assert (hosts.files(), hosts.docker.state) == (deployed, docker), "--check changed the host"
    said = hosts.roll_back()
    assert left_of(said).count("OpenClaw") == 1 and str(hosts.at) not in left_of(said)
    assert hosts.files() == before
    assert hosts.docker.state["images"] == {"openclaw:local": "sha256:theirs"}
    assert hosts.docker.state["containers"] == {}
    assert (hosts.at / "bin" / "ufw.log").read_text() == f"delete {RULE}\n"
    assert (hosts.at / "restarted").exists()
    assert re.findall(r"changed=(\d+) ", hosts.roll_back()) == ["0", "0", "0"]


@pytest.mark.parametrize("steps", [4, 7])
def test_rollback_of_an_interrupted_deployment_restores_the_host(hosts, steps):
    before = hosts.files()
    hosts.deploy(steps)
    hosts.roll_back()
    assert hosts.files() == before
    assert hosts.docker.state == {
        "networks": {},
        "images": {"openclaw:local": "sha256:theirs"},
        "containers": {},
        "compose": {},
        "openclaw": {},
    }


def test_rollback_keeps_and_reports_later_edits(hosts):
    before = hosts.files()
    hosts.deploy()
    hosts.deploy_loki()
    env, compose = hosts.clone / ".env", hosts.clone / "docker-compose.egress.yml"
    env.write_text(env.read_text().rstrip("\n") + "\nNEW=1\n")
    compose.write_text(compose.read_text() + "# mine\n")
    hosts.script.write_text(hosts.script.read_text().replace("with care", "with more care"))
    hosts.loki_file.write_text(hosts.loki_file.read_text() + "# mine\n")
    hosts.docker.change(images=hosts.docker.state["images"] | {"openclaw:local": "sha256:newer"})
    # Keep the spool: rollback.yml has an option for this.
    said = hosts.roll_back("-e", "openclaw_egress_keep_spool=true")
    home = hosts.at / "vps1" / "openclaw-egress"
    kept = {home, home / "proxy-spool", home / "proxy-spool" / "spool.db", compose}
    assert {path for path in hosts.files() if path not in before} == {str(path) for path in kept}
    assert env.read_text() == ENV + "\nNEW=1\n"
    assert compose.read_text() == "# mine\n"
    assert hosts.script.read_text() == SCRIPT.replace("with care", "with more care")
    assert hosts.loki_file.read_text().endswith("allow_structured_metadata: true\n# mine\n")
    assert hosts.docker.state["images"] == {"openclaw:local": "sha256:newer"}
    # The rollback cannot restore OpenClaw's settings, because OpenClaw is not running.
    settings = "agents.defaults.sandbox.docker in OpenClaw still names the proxy: openclaw-gateway is not running"
    for left in (env, compose, hosts.script, "openclaw:local, which was rebuilt after the deployment", settings):
        assert str(left) in left_of(said)
    assert "was edited after the deployment, and was left unchanged" in said
    assert not (hosts.at / "restarted").exists()
