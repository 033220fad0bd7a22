"""Tests of the role's compose file: by default no web page and no published metrics; the page has few privileges."""

import json
import os

import pytest

from tests.integration.ansible.conftest import BIN, ROOT
from tests.support.docker import Docker

SERVICE = ROOT / "roles/openclaw_proxy/templates/compose-proxy.yml.j2"
HASHES = {"__openclaw_proxy_addon_hash": "0", "__openclaw_proxy_context_hash": "0"}
ROLE = "openclaw.egress.openclaw_proxy"
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "environment": {"PATH": "{{ path }}"},
        "tasks": [
            {"ansible.builtin.include_role": {"name": ROLE, "tasks_from": "preflight"}},
            {"ansible.builtin.include_role": {"name": ROLE, "tasks_from": "variables", "public": True}},
            {
                "ansible.builtin.copy": {
                    "content": "{{ lookup('ansible.builtin.template', service) | from_yaml | to_json }}",
                    "dest": "{{ rendered }}",
                    "mode": "0644",
                },
                "check_mode": False,
            },
        ],
    }
]


@pytest.mark.timeout(1200)
def test_page_and_metrics_are_off_by_default_and_the_page_can_only_read_the_spool(run, tmp_path):
    Docker(tmp_path / "bin")
    path = os.pathsep.join([str(tmp_path / "bin"), str(BIN), "/usr/bin", "/bin"])
    hosts = {
        name: {"path": path, "rendered": str(tmp_path / f"{name}.json"), **variables}
        for name, variables in {
            "plain": {},
            "page": {"openclaw_proxy_ui": True, "openclaw_proxy_ui_port": 9999},
            "metrics": {"openclaw_proxy_metrics_address": "10.0.0.1", "openclaw_proxy_metrics_port": 9998},
        }.items()
    }
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "auto_silent"}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": local, "hosts": hosts}}))
    (tmp_path / "play.yml").write_text(json.dumps(PLAY))
    variables = json.dumps({"service": str(SERVICE), "openclaw_proxy_host_name": "vps1", **HASHES})
    done = run("ansible-playbook", "-i", f"{tmp_path}/hosts.json", "-e", variables, "--check", f"{tmp_path}/play.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    plain, page, metrics = (json.loads((tmp_path / f"{name}.json").read_text())["services"] for name in hosts)
    assert plain == {"openclaw-proxy": page["openclaw-proxy"]}
    assert "ports" not in plain["openclaw-proxy"]
    assert plain["openclaw-proxy"]["environment"]["EGRESS_METRICS_LISTEN"] == ""
    assert metrics["openclaw-proxy"]["ports"] == ["10.0.0.1:9998:9464"]
    assert metrics["openclaw-proxy"]["environment"]["EGRESS_METRICS_LISTEN"] == "172.30.0.250:9464"
    service = page["openclaw-proxy-ui"]
    assert service["command"] == ["egress", "ui"] and service["environment"]["EGRESS_UI_PORT"] == "9999"
    assert all(volume["read_only"] for volume in service["volumes"])
    targets = [volume["target"] for volume in service["volumes"]]
    assert targets == ["/addons", "/config", "/spool", "/spool/signing-key.pem"]
    assert service["network_mode"] == "host" and "ports" not in service
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["user"] == "64081:64081"
