"""Test of the file with the operator's and the proxy's CA certificates: it follows changes of both."""

import getpass
import json
import os
from pathlib import Path

import pytest

from tests.integration.ansible.conftest import BIN
from tests.support.docker import Docker
from tests.unit.plugins.test_checks import CHECKS

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="the role gives the file to root, which only root can do"),
]

ROLE = "openclaw.egress.openclaw_gateway"
PROXY_CA = "-----BEGIN CERTIFICATE-----\nproxy\n-----END CERTIFICATE-----\n"
# In the fake, the container sees the file that was in place when the configuration was last applied.
WRAPPER = """\
#!/bin/sh
case "$1 $3" in
"exec sha256sum") cat "$0-inside"; exit 0 ;;
esac
exec "$0-fake" "$@"
"""


def certificate(name: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n"


def role(tasks: str) -> dict:
    return {"ansible.builtin.include_role": {"name": ROLE, "tasks_from": tasks, "public": True}}


def verify(result: Path) -> dict:
    """Return a task that runs the check, and writes its result to the file ``result``."""
    write = {"content": "{{ __openclaw_gateway_verify_results | to_json }}", "dest": str(result)}
    ignore = {"ansible.builtin.meta": "noop"}
    return {"block": [role("verify")], "rescue": [ignore], "always": [{"ansible.builtin.copy": write}]}


def test_a_changed_certificate_is_reported_and_the_next_deployment_uses_it(run, tmp_path):
    clone, home, own = tmp_path / "clone", tmp_path / "home", tmp_path / "corp.pem"
    clone.mkdir()
    (clone / "docker-compose.yml").write_text("services: {}\n")
    (home / "proxy-ca").mkdir(parents=True)
    (home / "proxy-ca" / "mitmproxy-ca-cert.pem").write_text(PROXY_CA)
    own.write_text(certificate("corp, 2025"))
    volume = {"type": "bind", "source": str(own), "target": "/certs/corp.pem"}
    service = {
        "image": "openclaw:local", "command": ["node", "dist/index.js"],
        "environment": {"NODE_EXTRA_CA_CERTS": "/certs/corp.pem"}, "volumes": [volume],
    }  # fmt: skip
    bin_ = tmp_path / "bin"
    Docker(
        bin_,
        networks={"openclaw-gateway-net": "172.30.0.0/24"},
        images={"openclaw:local": "sha256:1"},
        containers={"openclaw-gateway": "healthy"},
        compose={"name": "clone", "services": {"openclaw-gateway": service}},
    )
    (bin_ / "docker").rename(bin_ / "docker-fake")
    (bin_ / "docker").write_text(WRAPPER)
    (bin_ / "docker").chmod(0o755)
    bundle = home / "gateway-ca.pem"
    # Compose recreates the container because its label changes. Then the container sees the new file.
    up = f"sha256sum {bundle} >{bin_}/docker-inside && grep egress.ca: {clone}/*.egress.yml >>{tmp_path}/labels"
    deploy = [role("configure"), {"ansible.builtin.shell": up}]
    # The proxy's role defines variables for the checks, and records these files before it changes them.
    proxy = {"name": "openclaw.egress.openclaw_proxy", "tasks_from": "variables", "public": True}
    paths = [f"{clone}/docker-compose.egress.yml", f"{clone}/.env"]
    manifest = {"manifest": f"{tmp_path}/state/manifest.json", "paths": paths, "state": "recorded"}
    tasks = [
        {"ansible.builtin.include_role": proxy},
        {"openclaw.egress.rollback_manifest": manifest},
        role("compose"),
        *deploy,
        {"ansible.builtin.copy": {"content": certificate("corp, 2026"), "dest": str(own)}},
        verify(tmp_path / "drifted"),
        *deploy,
        verify(tmp_path / "deployed"),
    ]
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    variables = {
        "openclaw_egress_compose_dir": str(clone),
        "openclaw_egress_home": str(home),
        "openclaw_egress_state_dir": f"{tmp_path}/state",
        "openclaw_egress_owner": getpass.getuser(),
        "openclaw_gateway_bootstrap": "mount",
        "openclaw_gateway_build_script": f"{tmp_path}/none.sh",
        # The tests of the preflight are in test_mistakes.py.
        "__openclaw_gateway_ready": True,
        "__openclaw_gateway_verify_checks": [CHECKS["gateway-ca"]],
    }
    path = os.pathsep.join([str(bin_), str(BIN), os.environ["PATH"]])
    done = run(
        "ansible-playbook", "-i", "localhost,", "-c", "local", "-e", json.dumps(variables), f"{tmp_path}/play.yml",
        PATH=path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (drifted,), (deployed,) = (json.loads((tmp_path / name).read_text()) for name in ("drifted", "deployed"))
    assert not drifted["passed"] and "/certs/corp.pem or the proxy's certificate was changed" in drifted["found"]
    assert deployed["passed"], deployed
    assert bundle.read_text() == certificate("corp, 2026") + PROXY_CA
    before, after = (tmp_path / "labels").read_text().splitlines()
    assert before != after, "Compose would not recreate the container"
