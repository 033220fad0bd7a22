"""Check that the issuing CA is valid for at least ten days."""

import datetime
import json
import subprocess
import sys


def proxy_status():
    """Return the output of `egress status`. Exit with an error if no proxy is running.

    Ignore the command's exit status: it is 1 for any problem, such as a push that is being retried.
    """
    words = ["docker", "exec", "openclaw-proxy", "egress", "status", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no usable output'}")
    if not found.get("running"):
        sys.exit("could not be checked: the proxy is not running")
    return found


ca = proxy_status()["ca"]
until = datetime.datetime.fromisoformat(ca["issuing_expires"])
left = (until - datetime.datetime.now(datetime.timezone.utc)).days
print(f"issuing CA valid for {left} days, root {ca['root_sha256'][:12]}")
sys.exit(left < 10)
