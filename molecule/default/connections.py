"""Program that lists the remote addresses of all TCP connections in a network namespace, until a file is removed.

Its argument is the file. It prints a JSON list of `ADDRESS PORT` and needs only the standard library. The kernel lists
a connection for another minute after its end (TIME_WAIT), so no short connection is missed.
"""

import ipaddress
import json
import sys
import time
from pathlib import Path

LISTENING = "0A"
GATEWAY_PORT = 18789


def connections():
    """Yield the local and remote address of each connection in the kernel's form, except to the gateway's port."""
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(file).read_text().splitlines()[1:]:
            local, remote, state = line.split()[1:4]
            if state != LISTENING and int(local.rpartition(":")[2], 16) != GATEWAY_PORT:
                yield local, remote


def readable(remote):
    """Return an address of the kernel as `ADDRESS PORT`.

    The kernel writes 32-bit hexadecimal words in reverse byte order.
    """
    address, port = remote.split(":")
    words = bytes.fromhex(address)
    found = ipaddress.ip_address(b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4)))
    return f"{getattr(found, 'ipv4_mapped', None) or found} {int(port, 16)}"


def main():
    before, seen = set(connections()), set()
    running = Path(sys.argv[1])
    running.touch()
    while running.exists():
        seen.update(connections())
        time.sleep(0.02)
    print(json.dumps(sorted({readable(remote) for _, remote in seen - before})))


main()
