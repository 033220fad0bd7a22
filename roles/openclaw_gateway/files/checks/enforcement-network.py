"""Check that the gateway is on the internal network only."""

import json
import os
import subprocess
import sys


def output(*words):
    """Return the output of a command. Exit with an error if the command fails or prints nothing."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


inner = os.environ["INNER"]
networks = json.loads(output("docker", "inspect", "--format", os.environ["NETWORKS"], os.environ["GATEWAY"]))
internal = json.loads(output("docker", "network", "inspect", "--format", os.environ["INTERNAL"], inner))
print("on " + ", ".join(networks) + ("" if internal else ", which is not internal"))
sys.exit(list(networks) != [inner] or not internal)
