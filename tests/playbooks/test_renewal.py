"""The daily renewal job of VPS-1: its files, its script in a real shell, and its removal by rollback.yml."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from openclaw_egress.policy.host_addresses import with_host_addresses
from openclaw_egress.policy.model import builtin_policy
from tests.integration.ansible.conftest import BIN, Run
from tests.standins.docker import Docker

pytestmark = pytest.mark.timeout(1200)

PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: openclaw.egress.openclaw_proxy, tasks_from: variables, public: true}
    - ansible.builtin.set_fact: {__openclaw_proxy_ready: true}
    - ansible.builtin.file: {path: "{{ item }}", state: directory, mode: "0755"}
      loop:
        - "{{ openclaw_egress_state_dir }}"
        - "{{ __openclaw_proxy_config_dir }}"
        - "{{ openclaw_egress_compose_dir }}"
    - ansible.builtin.include_role: {name: openclaw.egress.openclaw_proxy, tasks_from: renewal}
"""
# Prints its arguments, because the Docker fake does not support `docker run` of the image.
RUN = '#!/bin/sh\nprintf "%s\\n" "$@" > "$0.log"\n'


@dataclass
class Host:
    run: Run
    at: Path
    by: str

    @property
    def etc(self) -> Path:
        return self.at / "etc"

    @property
    def script(self) -> Path:
        return self.at / "state" / "renew"

    @property
    def list(self) -> Path:
        return self.at / "home" / "proxy-config" / "host-addresses"

    def play(self, playbook: str, *more: str) -> str:
        (self.at / "play.yml").write_text(PLAYBOOK)
        files = [
            {"by": "systemd", "src": "renew.service.j2", "path": f"{self.etc}/openclaw-egress-renew.service"},
            {"by": "systemd", "src": "renew.timer.j2", "path": f"{self.etc}/openclaw-egress-renew.timer"},
            {"by": "cron", "src": "renew.cron.j2", "path": f"{self.etc}/openclaw-egress-renew"},
        ]
        variables = {
            "__openclaw_proxy_renewal_files": files,
            "__openclaw_proxy_timer_file": f"{self.etc}/openclaw-egress-renew.timer",
            "openclaw_egress_home": f"{self.at}/home",
            "openclaw_egress_state_dir": f"{self.at}/state",
            "openclaw_egress_compose_dir": f"{self.at}/clone",
            "openclaw_gateway_build_script": f"{self.at}/build.sh",
            "openclaw_proxy_ca_renewal": self.by,
            "openclaw_proxy_host_addresses": ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": "auto_silent",
        }
        (self.at / "hosts.json").write_text(
            json.dumps({"all": {"children": {"openclaw_gateways": {"hosts": {"one": None}}}}})
        )
        done = self.run(
            "ansible-playbook", "-i", str(self.at / "hosts.json"), "-e", json.dumps(variables), playbook, *more,
            PATH=os.pathsep.join([str(self.at / "bin"), str(BIN), os.environ["PATH"]]),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def host(run, tmp_path, request) -> Host:
    (tmp_path / "etc").mkdir()
    Docker(tmp_path / "bin")
    return Host(run, tmp_path, request.param)


@pytest.mark.skipif(os.getuid() != 0, reason="files of the role belong to root")
@pytest.mark.parametrize("host", ["cron", "none"], indirect=True)
def test_job_lists_addresses_renews_the_ca_and_is_removed_by_rollback(host):
    said = host.play(str(host.at / "play.yml"))
    found = sorted(path.name for path in host.etc.iterdir())
    assert found == (["openclaw-egress-renew"] if host.by == "cron" else [])
    assert ("WARNING: no daily job" in said) is (host.by == "none")
    if found:
        assert f"root /bin/sh {host.script}" in (host.etc / found[0]).read_text()
    assert "changed=0 " in host.play(str(host.at / "play.yml")), "the second run changed something"
    listed = with_host_addresses(builtin_policy(["api.example.com"]), host.list).host_addresses
    assert {"127.0.0.1", "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"} <= {str(ip) for ip in listed}
    # The job itself, in this machine's shell; without `ip` the test reads the kernel's own tables.
    tools = host.at / "tools"
    tools.mkdir()
    for name in ("sh", "awk", "sed", "grep", "sort", "mktemp", "cmp", "chmod", "mv", "rm", "test"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "docker").write_text(RUN)
    (tools / "docker").chmod(0o755)
    text = host.script.read_text()
    (by_hand := host.at / "by-hand").write_text(
        "".join(f"PATH={tools}\n" if line.startswith("PATH=") else line for line in text.splitlines(keepends=True))
    )
    host.list.write_text("# old\n")
    done = subprocess.run(["/bin/sh", str(by_hand)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "changed" in done.stdout
    assert with_host_addresses(builtin_policy(["api.example.com"]), host.list).host_addresses >= {
        ip for ip in listed if ip.version == 4
    }
    words = (tools / "docker.log").read_text().splitlines()
    assert words[:3] == ["run", "--rm", "--network=none"] and words[-7:-4] == ["egress", "ca", "create"]
    assert f"--volume={host.at}/state/ca:/root-key" in words
    if host.by == "cron":
        host.play("playbooks/rollback.yml")
    assert list(host.etc.iterdir()) == []


@pytest.mark.parametrize("name", ["renew.service.j2", "renew.timer.j2"])
def test_systemd_accepts_the_units(name, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    templates = Path(__file__).resolve().parents[2] / "roles" / "openclaw_proxy" / "templates"
    for each in ("renew.service.j2", "renew.timer.j2"):
        text = (templates / each).read_text().replace("{{ __openclaw_proxy_renew_script }}", "/etc/hostname")
        (tmp_path / each.replace("renew", "openclaw-egress-renew").removesuffix(".j2")).write_text(text)
    file = tmp_path / name.replace("renew", "openclaw-egress-renew").removesuffix(".j2")
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert "openclaw-egress-renew" not in done.stderr, done.stderr
