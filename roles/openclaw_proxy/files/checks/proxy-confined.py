"""Check the rights and limits of the proxy's container."""

import json
import subprocess
import sys

# openclaw_proxy_metrics_address publishes this port, on one address.
METRICS = "9464/tcp"


def output(*words):
    """Return the output of a command. Exit with an error if the command fails or prints nothing."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


c = json.loads(output("docker", "inspect", "openclaw-proxy"))[0]
h = c["HostConfig"]
problems = {
    "runs as root": c["Config"]["User"].split(":")[0] in ("", "0", "root"),
    "writable root": not h["ReadonlyRootfs"],
    "capabilities": "ALL" not in (h["CapDrop"] or []),
    "new privileges": not any("no-new-privileges" in option for option in h["SecurityOpt"] or []),
    "routes between its networks": (h.get("Sysctls") or {}).get("net.ipv4.ip_forward") != "0",
    "published ports": any(
        port != METRICS or bound["HostIp"] in ("", "0.0.0.0", "::")
        for port, bindings in (h["PortBindings"] or {}).items()
        for bound in bindings or []
    ),
    "named volumes": any(mount["Type"] == "volume" for mount in c["Mounts"]),
    "no memory limit": not h["Memory"],
    "no CPU limit": not h["NanoCpus"],
}
bad = [problem for problem, holds in problems.items() if holds]
print(", ".join(bad) or "non-root, read-only, no capabilities, limits set")
sys.exit(bool(bad))
