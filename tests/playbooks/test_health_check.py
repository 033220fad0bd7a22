"""Tests of the health check's interval while the proxy starts, which only newer versions of Docker support."""

import json
import os

import pytest

from tests.integration.ansible.conftest import BIN, ROOT
from tests.support.docker import Docker

SERVICE = ROOT / "roles/openclaw_proxy/templates/compose-proxy.yml.j2"
HASHES = {"__openclaw_proxy_addon_hash": "0", "__openclaw_proxy_context_hash": "0"}
VERSIONS = {"new": {}, "engine24": {"api": "1.43"}, "compose220": {"compose_version": "2.20.3"}, "none": None}
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "environment": {"PATH": "{{ path }}"},
        "tasks": [
            {"ansible.builtin.include_role": {"name": "openclaw.egress.openclaw_proxy", "tasks_from": "preflight"}},
            {
                "ansible.builtin.include_role": {
                    "name": "openclaw.egress.openclaw_proxy", "tasks_from": "variables", "public": True,
                },
            },
            {
                "ansible.builtin.debug": {
                    "msg": "{{ inventory_hostname }}="
                    "{{ lookup('ansible.builtin.template', service) is search('start_interval: 2s') }}."
                }
            },
        ],
    }
]  # fmt: skip


@pytest.mark.timeout(1200)
def test_start_interval_is_set_only_where_docker_accepts_it(run, tmp_path):
    hosts = {}
    for name, state in VERSIONS.items():
        fake = tmp_path / name
        fake.mkdir()
        if state is not None:
            Docker(fake, **state)
        hosts[name] = {"path": os.pathsep.join([str(fake), str(BIN), "/usr/bin", "/bin"])}
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "auto_silent"}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": local, "hosts": hosts}}))
    (tmp_path / "play.yml").write_text(json.dumps(PLAY))
    variables = json.dumps({"service": str(SERVICE), **HASHES})
    done = run("ansible-playbook", "-i", f"{tmp_path}/hosts.json", "-e", variables, "--check", f"{tmp_path}/play.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: f"{name}=True." in done.stdout for name in VERSIONS}
    assert found == {"new": True, "engine24": False, "compose220": False, "none": False}, done.stdout
