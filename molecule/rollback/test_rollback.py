"""After the rollback both hosts hold what they held before, byte for byte, and the gateway works without the proxy."""

import json
import os
import subprocess

from molecule.lab.hosts import ROOT, changes_since, on


def test_every_file_image_network_and_container_is_as_before():
    assert changes_since("rollback", "vps1", "vps2") == ""


def test_the_gateway_is_healthy_on_its_own_way_out():
    state = on("vps1", "docker", "inspect", "openclaw-gateway", "--format", "{{.State.Health.Status}} {{.Config.Env}}")
    assert state.startswith(("healthy", "starting"))
    assert "PROXY" not in state


def test_openclaws_own_settings_are_as_before():
    """But for what OpenClaw itself adds to a file that it writes."""
    clone = "openclaw/data/openclaw/openclaw.json"
    now = json.loads(on("vps1", "cat", f"/home/openclaw/{clone}"))
    assert now.pop("meta")["lastTouchedVersion"], "OpenClaw was never told anything"
    assert now == json.loads((ROOT / "molecule/lab/vps1/clone/data/openclaw/openclaw.json").read_text())


def test_a_second_rollback_has_nothing_to_do():
    done = subprocess.run(
        ["ansible-playbook", "-i", "molecule/lab/inventory", "openclaw.egress.rollback"],
        cwd=ROOT, env=os.environ | {"ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0 ") == 3, done.stdout
    assert "nothing of openclaw.egress is deployed here" in done.stdout
