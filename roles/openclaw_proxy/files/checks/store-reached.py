"""Request a URL without a proxy, and expect 200. Runs in the proxy's container."""

import sys
import urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
status = opener.open(sys.argv[1], timeout=10).status
print(sys.argv[1], "responds with", status)
sys.exit(status != 200)
