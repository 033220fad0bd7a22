"""Wait until the destination has acknowledged all records."""

import json
import subprocess
import sys
import time


def output(*words):
    """Return the output of a command. End the check if the command fails or prints nothing."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


pending = None
for _ in range(10):
    status = json.loads(output("docker", "exec", "openclaw-proxy", "egress", "status", "--json"))
    pending = status["spool"]["pending_records"]
    if pending == 0:
        break
    time.sleep(2)
print(f"{pending} record(s) pending")
sys.exit(pending != 0)
