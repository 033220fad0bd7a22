"""Request a destination that no policy allows from a listener, and expect 403. Runs in the proxy's container."""

import http.client
import sys

address, port = sys.argv[1], int(sys.argv[2])
connection = http.client.HTTPConnection(address, port, timeout=20)
connection.request("CONNECT", "egress-verify.invalid:443")
status = connection.getresponse().status
print(f"port {port} responds with {status} for egress-verify.invalid:443")
sys.exit(status != 403)
