"""Addon for the mitmdump without access control that the tests attack. It permits connections to loopback only.

mitmproxy calls the addon before it resolves a name, so refused names are never resolved. A client receives 502 instead
of a connection that would leave the machine. The attack techniques count this 502 as a bypass: it shows that the proxy
tried to connect, while this project's proxy would have denied the request before that.
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
