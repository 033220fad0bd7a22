"""Tests of VPS-1's daily renewal job: its files, its script in a real shell, and its removal by rollback.yml."""

import importlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from openclaw_egress.policy.host_addresses import with_host_addresses
from openclaw_egress.policy.loader import builtin_policy
from tests.integration.ansible.conftest import BIN, ROOT, Run
from tests.support.docker import Docker
from tests.support.systemctl import fake_systemctl

pytestmark = pytest.mark.timeout(1200)

# Make the collection importable, because its modules import their utilities from `ansible_collections.openclaw.egress`.
sys.path.insert(0, str(ROOT / "collections"))
Manifest = importlib.import_module("ansible_collections.openclaw.egress.plugins.module_utils.manifest").Manifest
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
# Fake `docker` that logs its arguments. `tests.support.docker` is not enough, because it does not support `docker run`.
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
            "__openclaw_proxy_systemd": f"{self.at}/systemd",
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
    assert "changed=0 " in host.play(str(host.at / "play.yml")), "the second run changed the host"
    listed = with_host_addresses(builtin_policy(["api.example.com"]), host.list).host_addresses.addresses
    assert {"127.0.0.1", "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"} <= {str(ip) for ip in listed}
    # Run the job's script in this machine's shell, without `ip`, so that it reads the kernel's address tables.
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
    assert with_host_addresses(builtin_policy(["api.example.com"]), host.list).host_addresses.addresses >= {
        ip for ip in listed if ip.version == 4
    }
    words = (tools / "docker.log").read_text().splitlines()
    assert words[:3] == ["run", "--rm", "--network=none"] and words[-7:-4] == ["egress", "ca", "create"]
    assert f"--volume={host.at}/state/ca:/root-key" in words
    if host.by == "cron":
        host.play("playbooks/rollback.yml")
    assert list(host.etc.iterdir()) == []


# Interfaces with permanent and temporary addresses, in the formats of the kernel and of `ip -o address show`.
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
260628000220cb07{p} 02 40 00 00     eth0
260628000220cb07{t} 02 40 00 01     eth0
fd00000000000001{t} 03 40 00 21     eth1
fe80000000000000{p} 02 40 20 80     eth0
"""
IP = """\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
2: eth0    inet 93.184.215.15/24 brd 93.184.215.255 scope global dynamic eth0\\       valid_lft 8s preferred_lft 8s
2: eth0    inet6 2606:2800:220:cb07:{t}/64 scope global temporary dynamic \\       valid_lft 8s preferred_lft 8s
2: eth0    inet6 2606:2800:220:cb07:{p}/64 scope global dynamic mngtmpaddr \\       valid_lft 8s preferred_lft 8s
3: eth1    inet6 fd00:0:0:1:{t}/64 scope global temporary deprecated dynamic \\       valid_lft 8s preferred_lft 0s
2: eth0    inet6 fe80::{p}/64 scope link \\       valid_lft forever preferred_lft forever
"""


@pytest.mark.skipif(os.getuid() != 0, reason="files of the role belong to root")
@pytest.mark.parametrize("host", ["none"], indirect=True)
@pytest.mark.parametrize("with_ip", [True, False])
def test_new_temporary_address_is_guarded_without_a_change_of_the_file(host, with_ip):
    host.play(str(host.at / "play.yml"))
    tools = host.at / "tools"
    tools.mkdir()
    for name in ("sh", "awk", "sed", "grep", "sort", "mktemp", "cmp", "chmod", "mv", "rm", "test", "cat"):
        (tools / name).symlink_to(str(shutil.which(name)))
    if with_ip:
        (tools / "ip").write_text(f"#!/bin/sh\ncat {host.at}/ip\n")
        (tools / "ip").chmod(0o755)
    text = re.sub("(?m)^PATH=.*$", f"PATH={tools}", host.script.read_text())
    (host.at / "by-hand").write_text(text.replace("/proc/net/if_inet6", f"{host.at}/if_inet6"))

    def refresh(temporary: str) -> str:
        forms = {"p": "6820:80da:af6b:8b2c", "t": temporary}
        (host.at / "ip").write_text(IP.format(**forms))
        (host.at / "if_inet6").write_text(IF_INET6.format(**{n: form.replace(":", "") for n, form in forms.items()}))
        words = ["/bin/sh", str(host.at / "by-hand"), "addresses"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert "changed" in refresh("1111:2222:3333:4444")
    listed = with_host_addresses(builtin_policy(["api.example.com"]), host.list).host_addresses
    text = host.list.read_text()
    assert {str(prefix) for prefix in listed.prefixes} == {"2606:2800:220:cb07::/64", "fd00:0:0:1::/64"}
    assert "4444" not in text and "fe80" not in text
    assert ipaddress.ip_address("2606:2800:220:cb07:6820:80da:af6b:8b2c") in listed.addresses
    for suffix in ("5555:6666:7777:8888", "1111:2222:3333:4444"):
        assert ipaddress.ip_address(f"2606:2800:220:cb07:{suffix}") in listed
    assert refresh("5555:6666:7777:8888") == "" and host.list.read_text() == text


UNITS = {"openclaw-egress-renew.service", "openclaw-egress-renew.timer"}


def systemctl(host: Host) -> Path:
    """Add a fake systemctl to the host. Return the file in which it logs its arguments."""
    (host.at / "systemd").mkdir(exist_ok=True)
    return fake_systemctl(host.at / "bin")


@pytest.mark.skipif(os.getuid() != 0, reason="files of the role belong to root")
@pytest.mark.parametrize("host", ["systemd"], indirect=True)
def test_removed_units_are_forgotten_by_systemd(host):
    log = systemctl(host)
    host.play(str(host.at / "play.yml"))
    assert {path.name for path in host.etc.iterdir()} == UNITS
    log.write_text("")
    host.by = "cron"
    host.play(str(host.at / "play.yml"))
    assert [path.name for path in host.etc.iterdir()] == ["openclaw-egress-renew"]
    said = log.read_text().splitlines()
    assert said[0].startswith("disable --now openclaw-egress-renew.timer") and said[-1] == "daemon-reload"
    log.write_text("")
    assert "changed=0 " in host.play(str(host.at / "play.yml")) and log.read_text() == ""
    host.by = "systemd"
    host.play(str(host.at / "play.yml"))
    # Delete only the timer, because an interrupted deployment can leave the systemd service without it.
    (host.etc / "openclaw-egress-renew.timer").unlink()
    log.write_text("")
    host.play("playbooks/rollback.yml")
    assert list(host.etc.iterdir()) == [] and log.read_text().splitlines()[-1] == "daemon-reload"


@pytest.mark.skipif(os.getuid() != 0, reason="files of the role belong to root")
@pytest.mark.parametrize("host", ["none"], indirect=True)
def test_operators_files_with_the_names_of_ours_are_kept(host):
    """Expect the operator's files to survive, even if the role replaced them or the operator wrote them later."""
    log = systemctl(host)
    theirs = {name: f"# mine: {name}\n" for name in (*UNITS, "openclaw-egress-renew")}
    for name, text in theirs.items():
        (host.etc / name).write_text(text)
    host.play(str(host.at / "play.yml"))
    assert {path.name: path.read_text() for path in host.etc.iterdir()} == theirs
    assert not log.exists()
    host.by = "cron"
    host.play(str(host.at / "play.yml"))
    assert "openclaw_proxy" in (host.etc / "openclaw-egress-renew").read_text()
    # Simulate a run that was interrupted after it recorded the timer in the manifest and before it wrote the timer.
    (host.etc / "openclaw-egress-renew.timer").unlink()
    manifest = Manifest(str(host.at / "state" / "manifest.json"))
    manifest.record("path", str(host.etc / "openclaw-egress-renew.timer"))
    manifest.save()
    (host.etc / "openclaw-egress-renew.timer").write_text(theirs["openclaw-egress-renew.timer"])
    said = host.play("playbooks/rollback.yml")
    assert {path.name: path.read_text() for path in host.etc.iterdir()} == theirs
    assert str(host.etc / "openclaw-egress-renew.timer") in said.partition("Report the items that were left")[2]


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
