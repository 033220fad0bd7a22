"""Addon for a bare mitmdump that tests attack: it permits connections to loopback only.

mitmproxy calls it before it resolves a name, so no name is looked up either. The client receives 502 for a connection
that would have left the machine. The techniques count that as a bypass: network enforcement would have refused earlier.
"""

import ipaddress

from mitmproxy.proxy import server_hooks

REFUSED = "this test permits loopback addresses only"


def server_connect(data: server_hooks.ServerConnectionHookData) -> None:
    """Refuse every address except loopback, in any notation. Refuse unrecognised forms as well."""
    host = data.server.address[0] if data.server.address else ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        data.server.error = REFUSED
