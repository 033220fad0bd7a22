"""Check that the gateway was started with our compose file."""

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


labels = json.loads(output("docker", "inspect", "--format", os.environ["LABELS"], os.environ["GATEWAY"]))
files = labels.get("com.docker.compose.project.config_files", "")
print(files or "the gateway was not started by compose")
sys.exit("/" + os.environ.get("COMPOSE_FILE", "docker-compose.egress.yml") not in files)
