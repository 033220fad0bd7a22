"""Two clients on VPS-1 that send requests while a scenario changes the hosts.

They run until the scenario deletes a file, or for at most an hour. One calls OpenClaw at the port that the gateway
publishes. The other calls a site through the proxy's listener for class gateway. Each sends five requests per second.
For each request they print a JSON line with time, client, and error or null.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
import urllib.request
from pathlib import Path

PROXY = "http://172.30.0.250:8080"
ASKED = {
    "published": (urllib.request.build_opener(urllib.request.ProxyHandler({})), "http://127.0.0.1:18789/"),
    "proxied": (urllib.request.build_opener(urllib.request.ProxyHandler({"http": PROXY})), "http://www.example.com/"),
}


def ask(name: str, opener: urllib.request.OpenerDirector, url: str, while_there: Path) -> None:
    """Send requests to ``url`` until the file ``while_there`` is deleted. Print a line for each request."""
    end = time.monotonic() + 3600
    while while_there.exists() and time.monotonic() < end:
        time.sleep(0.2)
        began, error = time.time(), None
        try:
            opener.open(url, timeout=10).read()
        except (OSError, http.client.HTTPException) as problem:
            error = repr(problem)
        # Write the line with a single call, because the other client writes to the same stream in parallel.
        sys.stdout.write(json.dumps({"time": began, "client": name, "error": error}) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Create the file that the first argument names. Run both clients until it is deleted."""
    file = Path(sys.argv[1])
    file.touch()
    for name, requested in ASKED.items():
        threading.Thread(target=ask, args=(name, *requested, file)).start()


main()
