"""Check that the issuing CA is valid for at least ten days."""

import datetime
import json
import subprocess
import sys


def output(*words):
    """Return the output of a command. End the check if the command fails or prints nothing."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


ca = json.loads(output("docker", "exec", "openclaw-proxy", "egress", "status", "--json"))["ca"]
until = datetime.datetime.fromisoformat(ca["issuing_expires"])
left = (until - datetime.datetime.now(datetime.timezone.utc)).days
print(f"issuing CA valid for {left} days, root {ca['root_sha256'][:12]}")
sys.exit(left < 10)
