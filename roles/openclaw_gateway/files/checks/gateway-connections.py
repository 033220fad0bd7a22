"""Check that the gateway's open TCP connections lead to the proxy or to a destination in NO_PROXY."""

import contextlib
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
READ = (
    "cat /proc/net/tcp; cd /proc/net && cat tcp6 route ipv6_route fib_trie if_inet6 2>&1; "
    "ls -d /sys/class/net/*/bridge 2>&1; true"
)
# As in the bootstrap, the lower-case name has priority.
NO_PROXY = 'echo "NO_PROXY=${no_proxy-${NO_PROXY-}}"'


def run(*words):
    """Run a command. Return the completed process with its output as text."""
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )


def output(*words):
    """Return the output of a command. Exit with an error if the command fails or prints nothing."""
    done = run(*words)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"could not be checked: {' '.join(words[:3])}: {done.stderr.strip() or 'no output'}")
    return done.stdout


def unmapped(address):
    """Return the IPv4 address of an IPv4-mapped IPv6 address, and any other address unmodified."""
    return getattr(address, "ipv4_mapped", None) or address


def number(address):
    """Return an address as a number, an IPv4 address as its IPv4-mapped IPv6 address (as Node compares networks)."""
    return int(address) + (0xFFFF << 32 if address.version == 4 else 0)


def endpoint(text):
    """Parse an address field of /proc/net/tcp or tcp6: 32-bit words in host byte order, then the port."""
    words, port = text.split(":")
    packed = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    return unmapped(ipaddress.ip_address(packed)), int(port, 16)


def sockets(listing):
    """Yield state, local and remote endpoint of each socket in the content of /proc/net/tcp and tcp6."""
    for line in listing.splitlines():
        if re.match(r"\s*[0-9]+: [0-9A-F]+:[0-9A-F]{4} [0-9A-F]+:[0-9A-F]{4} ", line):
            fields = line.split()
            yield fields[3], endpoint(fields[1]), endpoint(fields[2])


def bridge_networks(listing):
    """Yield the networks of the gateway's bridges, where its nested Docker daemon connects to containers."""
    bridges = set(re.findall(r"(?m)^/sys/class/net/([^/\n]+)/bridge$", listing))
    for line in listing.splitlines():
        fields = line.split()
        if not fields or bridges.isdisjoint((fields[0], fields[-1])):
            continue
        if len(fields) > 7 and fields[2] == "00000000":  # /proc/net/route: a network without a router
            network, mask = (ipaddress.ip_address(struct.pack("=I", int(fields[at], 16))) for at in (1, 7))
            yield ipaddress.ip_network(f"{network}/{mask}")
        elif len(fields) == 10 and fields[4] == "0" * 32:  # /proc/net/ipv6_route: in network byte order
            network = ipaddress.ip_network((int(fields[0], 16).to_bytes(16, "big"), int(fields[1], 16)))
            # All interfaces have these networks, so they do not identify a bridge.
            if not network.is_link_local and not network.is_multicast:
                yield network


def own_addresses(listing):
    """Return the gateway's own addresses from the content of /proc/net/fib_trie and /proc/net/if_inet6."""
    found = re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", listing)
    found += [
        int(text, 16).to_bytes(16, "big") for text in re.findall(r"(?m)^([0-9a-f]{32})(?: [0-9a-f]{2}){4} ", listing)
    ]
    return {ipaddress.ip_address(address) for address in found}


def parse_entry(entry):
    """Split a NO_PROXY entry into its host and its port, or None, by the rules of proxy-bootstrap.cjs."""
    found = re.fullmatch(r"\[(.+)\](?::([0-9]+))?", entry) or re.fullmatch(r"([^:]+)(?::([0-9]+))?", entry)
    host, port = found.groups() if found else (entry, None)  # without a match: an IPv6 address without brackets
    return re.sub(r"^\*?\.", "", host).removesuffix("."), None if port is None else int(port)


def addresses(host):
    """Return the first and the last :func:`number` of an address, a network `A/BITS` or a range `A-B`; None for a name.

    Raises:
        ValueError: The bootstrap ignores such an entry.
    """
    parts = re.fullmatch(r"([0-9a-f.:]+)([-/])([0-9a-f.:]+)", host)
    first, separator, last = parts.groups() if parts else (host, "", "")
    try:
        begin = ipaddress.ip_address(first)
    except ValueError:
        if re.search(r"[/\[\]]", host) or not host:
            raise
        return None
    if separator == "/":
        network = ipaddress.ip_network((begin, int(last)), strict=False)
        return number(network[0]), number(network[-1])
    end = ipaddress.ip_address(last) if separator else begin
    if end.version != begin.version or end < begin:
        raise ValueError(f"not a range: {host}")
    return number(begin), number(end)


def resolve(host):
    """Return the addresses of a hostname in the gateway's container. Return None if it cannot be resolved there."""
    done = run("docker", "exec", gateway, "getent", "ahosts", host)
    found = set()
    for line in done.stdout.splitlines():
        # Skip other lines: Docker prints an error on standard output if the image has no getent.
        with contextlib.suppress(ValueError):
            found.add(unmapped(ipaddress.ip_address(line.partition(" ")[0].partition("%")[0])))
    return found or None


def text(address, port):
    """Return `address:port`, with an IPv6 address in brackets."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


gateway = os.environ["GATEWAY"]
listing = output("docker", "exec", gateway, "sh", "-c", READ)
if "rem_address" not in listing:
    sys.exit("could not be checked: the gateway's /proc/net/tcp was not printed")
variable = output("docker", "exec", gateway, "sh", "-c", NO_PROXY).strip().partition("=")[2]
try:
    attached = json.loads(output("docker", "inspect", "--format", os.environ["NETWORKS"], "openclaw-proxy")).values()
except (ValueError, AttributeError):
    sys.exit("could not be checked: docker inspect printed no networks of openclaw-proxy")
proxy = {one[key] for one in attached for key in ("IPAddress", "GlobalIPv6Address") if one.get(key)}

found = list(sockets(listing))
listening = {port for state, (_, port), _ in found if state == LISTEN}
own = own_addresses(listing)
outgoing = [
    remote
    for state, (_, port), remote in found
    if state in (ESTABLISHED, SYN_SENT) and port not in listening
    if not remote[0].is_loopback and remote[0] not in own
]
nested = list(bridge_networks(listing))
ranges, names = [], []
# Ignore `*`: with it, nothing uses the proxy.
for entry in {word for word in re.split(r"[\s,]+", variable.lower()) if word not in ("", "*")}:
    host, port = parse_entry(entry)
    try:
        limits = addresses(host)
    except ValueError:
        continue
    if limits:
        ranges.append((*limits, port))
    else:
        names.append((host, port))


def is_direct(address, port):
    """Return whether the address is in a network of the bridges, or NO_PROXY has it and its port."""
    return any(address in network for network in nested) or any(
        begin <= number(address) <= end and only in (None, port) for begin, end, only in ranges
    )


to_proxy = [remote for remote in outgoing if str(remote[0]) in proxy]
past = [remote for remote in outgoing if str(remote[0]) not in proxy and not is_direct(*remote)]
unresolved = []
# Resolve names only if that can make a difference.
for host, port in sorted(names, key=str) if past else ():
    resolved = resolve(host)
    if resolved is None:
        unresolved.append(host)
    else:
        past = [remote for remote in past if remote[0] not in resolved or port not in (None, remote[1])]
if past:
    counted = ", ".join(
        f"{name} ({count})" for name, count in sorted(Counter(text(*remote) for remote in past).items())
    )
    # Without getent, or without an answer from DNS, a connection to such a name cannot be recognised.
    ignored = f"; getent in the gateway does not resolve these names in NO_PROXY: {', '.join(unresolved)}"
    print(f"past the proxy: {counted}{ignored if unresolved else ''}")
else:
    others = len(outgoing) - len(to_proxy)
    print(f"{len(outgoing)} open connections: {len(to_proxy)} to the proxy, {others} in NO_PROXY or nested networks")
# At enforcement level `application`, processes can connect directly: report a warning (3) instead of a failure.
sys.exit((1 if os.environ["LEVEL"] == "network" else 3) if past else 0)
