"""Request a URL without a proxy, and expect a response. Runs in the proxy's container.

A response below 500 shows that the destination is reached: a reverse proxy in front of Loki can require credentials.
"""

import sys
import urllib.error
import urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    status = opener.open(sys.argv[1], timeout=10).status
except urllib.error.HTTPError as error:
    status = error.code
print(sys.argv[1], "responds with", status)
sys.exit(status >= 500)
