"""Check that the gateway's command is the operator's command with the bootstrap."""

import json
import os
import subprocess
import sys


def output(*words):
    """Return the output of a command. End the check where it fails or prints nothing."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


gateway = os.environ["GATEWAY"]
command = " ".join(json.loads(output("docker", "inspect", "--format", os.environ["COMMAND"], gateway)))
labels = json.loads(output("docker", "inspect", "--format", os.environ["LABELS"], gateway))
print(command)
sys.exit(
    "--require ./proxy-bootstrap.cjs" not in command
    or labels.get("openclaw.egress.command") != os.environ["COMMAND_HASH"]
)
