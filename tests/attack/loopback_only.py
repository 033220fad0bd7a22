"""An add-on for a bare mitmdump that is attacked in tests: it dials nothing but this machine's loopback.

mitmproxy asks before it resolves a name, so nothing is looked up either. That something would have been dialled is an
error to the client (502), which the techniques take for what it is: a wall would have refused before.
"""

import ipaddress

from mitmproxy.proxy import server_hooks

REFUSED = "outside of the fence of this test"


def server_connect(data: server_hooks.ServerConnectionHookData) -> None:
    """Refuse all but loopback, in whatever it is written; what is not plainly that counts as outside."""
    host = data.server.address[0] if data.server.address else ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        data.server.error = REFUSED
