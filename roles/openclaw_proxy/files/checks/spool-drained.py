"""Wait until the destination has acknowledged the records that were pending at the beginning of the check."""

import json
import subprocess
import sys
import time


def proxy_status():
    """Return the output of `egress status`. Exit with an error if no proxy is running.

    Ignore the command's exit status: it is 1 while a push is being retried, and this check waits for that push.
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


first = pending = None
problems = []
for _ in range(10):
    status = proxy_status()
    spool, problems = status["spool"], status["problems"]
    pending = spool["pending_records"]
    # Records that are written during the check do not count: under constant traffic, some are always pending.
    first = spool["last_seq"] if first is None else first
    waiting = max(0, pending - (spool["last_seq"] - first))
    if waiting == 0:
        break
    time.sleep(2)
print(f"{pending} record(s) pending" + "".join(f"; {problem}" for problem in problems if waiting))
sys.exit(waiting != 0)
