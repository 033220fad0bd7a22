"""Check that the gateway's open TCP connections lead to the proxy or to a destination in NO_PROXY."""

import ipaddress
import json
import os
import re
import struct
import subprocess
import sys
from collections import Counter

ESTABLISHED, SYN_SENT, LISTEN = "01", "02", "0A"
# Ignore missing files: there is no tcp6 without IPv6, and no bridge without a nested Docker daemon.
READ = "cat /proc/net/tcp; cat /proc/net/tcp6 /proc/net/route 2>&1; ls -d /sys/class/net/*/bridge 2>&1; true"


def output(*words):
    """Return the output of a command. Exit with an error if the command fails or prints nothing."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


def endpoint(text):
    """Parse an address field of /proc/net/tcp or tcp6: 32-bit words in host byte order, then the port."""
    words, port = text.split(":")
    packed = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    address = ipaddress.ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address, int(port, 16)


def sockets(listing):
    """Yield state, local and remote endpoint of each socket in the content of /proc/net/tcp and tcp6."""
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[0].rstrip(":").isdigit():
            yield fields[3], endpoint(fields[1]), endpoint(fields[2])


def nested(listing):
    """Yield the IPv4 networks of the gateway's bridges, where its nested Docker daemon connects to containers."""
    paths = [line.split("/") for line in listing.splitlines()]
    bridges = {path[4] for path in paths if path[1:4] == ["sys", "class", "net"] and path[5:] == ["bridge"]}
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) > 7 and fields[0] in bridges and fields[2] == "00000000":
            network, mask = (ipaddress.ip_address(struct.pack("=I", int(fields[at], 16))) for at in (1, 7))
            yield ipaddress.ip_network(f"{network}/{mask}")


def networks(entry):
    """Return the networks of a NO_PROXY entry. Resolve a hostname in the gateway's container.

    An address or name can have a port, as in `[2001:db8::1]:443`. The port is ignored.
    """
    bracketed = re.fullmatch(r"\[(.+)\](?::[0-9]+)?", entry)
    name = bracketed[1] if bracketed else entry.removeprefix("*").removeprefix(".")
    try:
        return [ipaddress.ip_network(name, strict=False)]
    except ValueError:
        words = ["docker", "exec", gateway, "getent", "ahosts", name.partition(":")[0]]
        found = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
        return [ipaddress.ip_network(line.split()[0].partition("%")[0]) for line in found.splitlines() if line.strip()]


def text(address, port):
    """Return `address:port`, with an IPv6 address in brackets."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


gateway = os.environ["GATEWAY"]
listing = output("docker", "exec", gateway, "sh", "-c", READ)
if "rem_address" not in listing:
    sys.exit("could not be checked: the gateway's /proc/net/tcp was not printed")
variables = output("docker", "exec", gateway, "sh", "-c", 'echo "NO_PROXY=${NO_PROXY:-}"').strip().partition("=")[2]
try:
    attached = json.loads(output("docker", "inspect", "--format", os.environ["NETWORKS"], "openclaw-proxy")).values()
except (ValueError, AttributeError):
    sys.exit("could not be checked: docker inspect printed no networks of openclaw-proxy")
proxy = {one[key] for one in attached for key in ("IPAddress", "GlobalIPv6Address") if one.get(key)}

found = list(sockets(listing))
listening = {port for state, (_, port), _ in found if state == LISTEN}
outgoing = [
    remote
    for state, (_, port), remote in found
    if state in (ESTABLISHED, SYN_SENT) and port not in listening and not remote[0].is_loopback
]
direct = [
    *nested(listing),
    # Node and curl also accept spaces between the entries.
    *(network for entry in variables.replace(",", " ").split() for network in networks(entry)),
]
to_proxy = [address for address, _ in outgoing if str(address) in proxy]
past = Counter(
    text(address, port)
    for address, port in outgoing
    if str(address) not in proxy and not any(address in network for network in direct)
)
if past:
    print("past the proxy: " + ", ".join(f"{name} ({count})" for name, count in sorted(past.items())))
else:
    others = len(outgoing) - len(to_proxy)
    print(f"{len(outgoing)} open connections: {len(to_proxy)} to the proxy, {others} in NO_PROXY or nested networks")
# At enforcement level `application`, processes can connect directly: report a warning (3) instead of a failure.
sys.exit((1 if os.environ["LEVEL"] == "network" else 3) if past else 0)
