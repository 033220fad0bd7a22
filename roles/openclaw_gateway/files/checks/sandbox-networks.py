"""Check that the networks of the classes lead only to the proxy, and that the running sandboxes are on them."""

import json
import os
import subprocess
import sys

SANDBOXES = '{{.Names}}|{{.Networks}}|{{.Label "openclaw.sandbox"}}'


def output(*words):
    """Return the output of a command. Exit with an error if the command fails or prints nothing."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


wanted = json.loads(os.environ["CLASS_NETWORKS"])
wrong, elsewhere, sandboxes = [], [], 0
try:
    for network in wanted:
        (found,) = json.loads(output("docker", "network", "inspect", network["name"]))
        addresses = {one["Name"]: one["IPv4Address"].partition("/")[0] for one in found["Containers"].values()}
        if found["Internal"] is not True:
            wrong.append(f"{network['name']} is not internal")
        if found["Options"].get("com.docker.network.bridge.inhibit_ipv4") != "true":
            wrong.append(f"the host has an address on {network['name']}")
        if addresses.get("openclaw-proxy") != network["address"]:
            wrong.append(f"the proxy is not at {network['address']} on {network['name']}")
    for line in output("docker", "ps", "--format", SANDBOXES).splitlines():
        name, networks, label = line.split("|")
        others = set(networks.split(",")) - {network["name"] for network in wanted} - {"none"}
        sandboxes += label == "1"
        elsewhere += [f"{name} is on {', '.join(sorted(others))}"] if label == "1" and others else []
except (ValueError, KeyError, TypeError, AttributeError) as error:
    sys.exit(f"could not be checked: Docker's output cannot be read ({type(error).__name__})")
names = ", ".join(network["name"] for network in wanted)
print("; ".join(wrong + elsewhere) or f"{names}; {sandboxes} running sandboxes on them or without a network")
sys.exit(1 if wrong else 3 if elsewhere else 0)
