"""Tests that the rollback restores both hosts byte for byte, and that the gateway then works without the proxy."""

import json
import os
import subprocess

import pytest

from molecule.lab.hosts import ROOT, changes_since, json_lines, on

# Use a long timeout, because one of the tests runs a playbook.
pytestmark = pytest.mark.timeout(400)


def test_every_file_image_network_and_container_is_restored():
    assert changes_since("rollback", "vps1", "vps2") == ""


def test_gateway_is_healthy_without_the_proxy():
    state = on("vps1", "docker", "inspect", "openclaw-gateway", "--format", "{{.State.Health.Status}} {{.Config.Env}}")
    assert state.startswith(("healthy", "starting"))
    assert "PROXY" not in state


def test_openclaws_settings_are_restored():
    """Compare openclaw.json with the original. Ignore `meta`, which OpenClaw adds when it writes the file."""
    clone = "openclaw/data/openclaw/openclaw.json"
    now = json.loads(on("vps1", "cat", f"/home/openclaw/{clone}"))
    assert now.pop("meta")["lastTouchedVersion"], "the deployment did not change OpenClaw's settings"
    assert now == json.loads((ROOT / "molecule/lab/vps1/clone/data/openclaw/openclaw.json").read_text())


def test_second_rollback_changes_nothing():
    done = subprocess.run(
        ["ansible-playbook", "-i", "molecule/lab/inventory", "openclaw.egress.rollback"],
        cwd=ROOT, env=os.environ | {"ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0 ") == 3, done.stdout
    assert "nothing of openclaw.egress is deployed here" in done.stdout


@pytest.fixture(scope="module")
def requested():
    """Return the log entries of each client, from before the change to level `network` until after the rollback."""
    lines = json_lines("vps1", "/var/log/clients.jsonl")
    return {name: [line for line in lines if line["client"] == name] for name in ("published", "proxied")}


def seconds(mark: str) -> float:
    """Return the time (Unix seconds) that the scenario stored under the name ``mark``."""
    return float((ROOT / "build/lab" / f"rollback.{mark}").read_text())


def test_no_client_failed_while_the_level_changed_in_both_directions(requested):
    taken_back = seconds("taken_back")
    meanwhile = [line for line in requested["proxied"] if line["time"] < taken_back]
    assert len(meanwhile) > 100
    assert [line for line in meanwhile if line["error"]] == []


def test_published_port_was_down_only_while_the_gateway_was_recreated(requested, capsys):
    """Expect three outages: the change to level `network`, the change to level `application`, and the rollback."""
    gaps: list[list[float]] = []
    responded = True
    for line in requested["published"]:
        if line["error"] and responded:
            gaps.append([])
        if line["error"]:
            gaps[-1].append(line["time"])
        responded = not line["error"]
    assert responded, "the published port still fails after the rollback"
    with capsys.disabled():
        for times in gaps:
            print(f"the published port was unavailable for {times[-1] - times[0]:.1f} s, {len(times)} requests failed")
    assert len(gaps) == 3, [line for line in requested["published"] if line["error"]]
