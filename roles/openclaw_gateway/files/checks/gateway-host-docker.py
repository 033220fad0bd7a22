"""Warn if the gateway can use the host's Docker daemon."""

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
mounts = output("docker", "inspect", "--format", os.environ["MOUNT_PAIRS"], gateway).splitlines()
try:
    variables = dict(
        one.partition("=")[::2]
        for one in json.loads(output("docker", "inspect", "--format", os.environ["CONFIG"], gateway))["Env"]
    )
except (ValueError, KeyError, TypeError, AttributeError) as error:
    sys.exit(f"could not be checked: docker inspect printed no environment ({type(error).__name__})")
pairs = [line.partition("|")[::2] for line in mounts if line]
# As in the plan: look at the target too, because the source of a socket can have any name.
found = [
    f"mounts {source}"
    for source, target in pairs
    if re.search(r"docker[.]sock$|^(?:/var)?/run/?$|^/$", source) or target.endswith("/docker.sock")
]
if re.match(r"(?:tcp|https?|ssh)://", variables.get("DOCKER_HOST", "")):
    found.append("has DOCKER_HOST " + re.sub(r"//[^/@]*@", "//…@", variables["DOCKER_HOST"]))
print(f"the gateway {' and '.join(found)}" if found else "neither the socket nor DOCKER_HOST")
sys.exit(3 if found else 0)
