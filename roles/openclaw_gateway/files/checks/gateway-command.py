"""Check that the gateway's command is the operator's command with the bootstrap."""

import json
import os
import re
import subprocess
import sys


def output(*words):
    """Return the output of a command. Exit with an error if the command fails or prints nothing."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


gateway = os.environ["GATEWAY"]
config = json.loads(output("docker", "inspect", "--format", os.environ["CONFIG"], gateway))
command = " ".join([*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])])
options = next((entry for entry in config.get("Env") or [] if entry.startswith("NODE_OPTIONS=")), "")
loaded = options if os.environ["LOADED_BY"] == "NODE_OPTIONS" else command
print(f"{command} with {options}" if loaded is options else command)
sys.exit(
    not re.search(r"--require \S*proxy-bootstrap\.cjs", loaded)
    or (config.get("Labels") or {}).get("openclaw.egress.command") != os.environ["COMMAND_HASH"]
)
