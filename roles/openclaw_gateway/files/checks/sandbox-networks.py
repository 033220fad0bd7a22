"""Check that the networks of the classes lead only to the proxy, and that each sandbox is on that of its class only."""

import json
import os
import subprocess
import sys
from pathlib import Path

SANDBOXES = '{{.Names}}|{{.Networks}}|{{.Label "openclaw.sandbox"}}|{{.Label "openclaw.sandboxBrowser"}}'


def output(*words):
    """Return the output of a command. Exit with an error if the command fails or prints nothing."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


def has_members(parent):
    """Return whether the parent interface connects to more than the network's own containers."""
    try:
        return any(Path(f"/sys/class/net/{parent}/brif").iterdir())
    except FileNotFoundError:
        # Docker creates a dummy interface with this prefix.
        return not parent.startswith("dm-")


wanted = json.loads(os.environ["CLASS_NETWORKS"])
wrong, elsewhere, sandboxes = [], [], 0
try:
    for network in wanted:
        (found,) = json.loads(output("docker", "network", "inspect", network["name"]))
        addresses = {one["Name"]: one["IPv4Address"].partition("/")[0] for one in found["Containers"].values()}
        if (found["Driver"], found["Internal"]) != ("macvlan", True):
            wrong.append(f"{network['name']} is not an internal macvlan network")
        parent = found["Options"].get("parent", "dm-")
        if has_members(parent):
            wrong.append(f"{network['name']} has the parent {parent}, which is not a bridge without members")
        if addresses.get("openclaw-proxy") != network["address"]:
            wrong.append(f"the proxy is not at {network['address']} on {network['name']}")
    names = {network["class"]: network["name"] for network in wanted}
    # Ignore the sandboxes of other gateways: the check of each gateway examines its own networks.
    ignored = set(os.environ.get("OTHER_NETWORKS", "").split()) - set(names.values())
    for line in output("docker", "ps", "--format", SANDBOXES).splitlines():
        name, networks, label, browser = line.split("|")
        if label != "1":
            continue
        sandboxes += 1
        kind = "browser" if browser == "1" else "sandbox"
        others = set(networks.split(",")) - {names.get(kind), "none"} - ignored
        if others:
            shown = ", ".join(sorted(others)).strip() or "the network of another container"
            elsewhere.append(f"{name} (class {kind}) is on {shown}")
except (ValueError, KeyError, TypeError, AttributeError) as error:
    sys.exit(f"could not be checked: Docker's output cannot be read ({type(error).__name__})")
shown = ", ".join(network["name"] for network in wanted)
print("; ".join(wrong + elsewhere) or f"{shown}; {sandboxes} running sandboxes on them or without a network")
# After site.yml, sandboxes on other networks are only a warning: running sandboxes keep their networks until recreated.
sys.exit(1 if wrong or (elsewhere and not os.environ.get("DEPLOYING")) else 3 if elsewhere else 0)
