"""Check that OpenClaw's settings give its sandboxes the listeners of their classes."""

import json
import os
import subprocess
import sys


def unlike(want, have, path):
    """Return the paths of settings that differ from the wanted settings."""
    if isinstance(want, dict):
        return [found for name in want for found in unlike(want[name], (have or {}).get(name), f"{path}.{name}")]
    return [] if want == have else [path]


words = [
    "docker",
    "exec",
    "--user",
    os.environ["OPENCLAW_USER"],
    os.environ["GATEWAY"],
    *os.environ["OPENCLAW"].split(),
]
words += ["config", "get", "agents.defaults", "--json"]
said = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
if "{" not in said:
    sys.exit("OpenClaw does not respond: " + said.strip()[-200:])
wanted = json.loads(os.environ["WANTED"])
settings = json.JSONDecoder().raw_decode(said[said.index("{") :])[0]
bad = unlike(wanted, settings, "agents.defaults")
network = wanted["sandbox"]["docker"].get("network", "as configured in OpenClaw")
print(", ".join(bad) + ": changed since the deployment" if bad else f"network {network}")
if not bad and os.environ.get("SIBLINGS") and ((settings.get("sandbox") or {}).get("browser") or {}).get("enabled"):
    print(f"network {network}; browser.enabled is true, but OpenClaw cannot reach a browser in the host's daemon")
    sys.exit(3)
sys.exit(bool(bad))
