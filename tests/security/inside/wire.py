"""Techniques that send packets of every kind without the proxy, to destinations that no policy allows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.security.inside.core import ENFORCED, PEER, PLACES, Address, Attack, Try, technique
from tests.security.inside.sockets import PATIENCE, ask, tcp, udp

QUIC_INITIAL = b"\xc0\x00\x00\x00\x01\x08" + b"\x11" * 8 + b"\x00\x00\x44\x9e"
"""A long header of QUIC version 1 (RFC 9000, section 17.2.2); the bytes after it may be arbitrary."""

IP_PROTOCOLS = {"IP in IP": 4, "GRE": 47, "ESP": 50, "AH": 51, "OSPF": 89, "SCTP": 132, "reserved": 255}


def payload(attack: Attack) -> bytes:
    """Return the bytes that the canary logs if they arrive."""
    return f"attack {attack.token} \r\n\r\n".encode()


@technique((*PLACES, PEER))
def direct_tcp(attack: Attack) -> Iterator[Try]:
    """Open TCP connections to the internet without the proxy, on common and uncommon ports."""
    for port in (80, 443, 53, 123, 853, 1080, 3128, 5228, 8080, 8443, 65535):
        yield attack.tries(f"port {port}", lambda port=port: tcp(attack.knowledge.canary, port, payload(attack)))
    yield attack.tries("by an IPv6 socket", lambda: tcp(f"::ffff:{attack.knowledge.canary}", 443, payload(attack)))


@technique(PLACES)
def ports_of_mail_and_shells(attack: Attack) -> Iterator[Try]:
    """Open TCP connections to the SSH and mail ports (22, 25, 465, 587), which firewalls often treat separately."""
    for port in (22, 25, 465, 587):
        yield attack.tries(f"port {port}", lambda port=port: tcp(attack.knowledge.canary, port, payload(attack)))


@technique((*PLACES, PEER))
def direct_udp(attack: Attack) -> Iterator[Try]:
    """Send UDP to the internet: DNS, NTP, IKE, WireGuard, STUN, and a high port."""
    for port in (53, 123, 500, 1194, 3478, 4500, 51820, 60000):
        yield attack.tries(f"port {port}", lambda port=port: udp(attack.knowledge.canary, port, payload(attack)))


@technique((*PLACES, PEER))
def quic(attack: Attack) -> Iterator[Try]:
    """Send a QUIC Initial packet of 1,200 bytes to UDP port 443."""
    datagram = (QUIC_INITIAL + payload(attack)).ljust(1200, b"\0")
    yield attack.tries("UDP 443", lambda: udp(attack.knowledge.canary, 443, datagram))


@technique(PLACES)
def ping(attack: Attack) -> Iterator[Try]:
    """Send ICMP echo requests with data, through ping sockets and raw sockets, also with a low TTL."""
    for kind, name in ((socket.SOCK_DGRAM, "ping socket"), (socket.SOCK_RAW, "raw socket")):
        for ttl in (64, 2, 1):
            yield attack.tries(f"{name}, TTL {ttl}", lambda kind=kind, ttl=ttl: _echo(attack, kind, ttl))


def _echo(attack: Attack, kind: int, ttl: int) -> str:
    with socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sock.connect((attack.knowledge.canary, 0))
        sock.send(_icmp_echo(payload(attack)))
        end = time.monotonic() + PATIENCE / 2
        with contextlib.suppress(TimeoutError):
            while (left := end - time.monotonic()) > 0:
                sock.settimeout(left)
                packet, (source, _) = sock.recvfrom(1500)
                # Ignore other sources: until connect(), the socket also gets ICMP errors for other techniques.
                if source == attack.knowledge.canary:
                    return f"answered {packet[-60:]!r}"
        return ""


def _icmp_echo(data: bytes) -> bytes:
    head = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    return struct.pack("!BBHHH", 8, 0, _checksum(head + data), 7, 1) + data


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + b"\0" * (len(data) % 2)))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


@technique(PLACES)
def few_hops(attack: Attack) -> Iterator[Try]:
    """Send UDP packets with a low TTL to the ports that traceroute uses."""
    for ttl in (1, 2, 3, 4):
        yield attack.tries(
            f"TTL {ttl}", lambda ttl=ttl: udp(attack.knowledge.canary, 33434 + ttl, payload(attack), ttl=ttl)
        )


@technique(PLACES)
def source_ports(attack: Attack) -> Iterator[Try]:
    """Send TCP and UDP from source ports that weak firewall rules accept: 20, 53, 67, 80, 443 and the proxy's port."""
    for port in (20, 53, 67, 80, 443, 8080, 8082):
        yield attack.tries(
            f"TCP from {port}",
            lambda port=port: tcp(attack.knowledge.canary, 443, payload(attack), source_port=port),
        )
    for port in (53, 67, 123):
        yield attack.tries(
            f"UDP from {port}",
            lambda port=port: udp(attack.knowledge.canary, 53, payload(attack), source_port=port),
        )


@technique(PLACES)
def raw_ip(attack: Attack) -> Iterator[Try]:
    """Send raw packets: tunnelling protocols, SCTP, and an unassigned protocol number."""
    for name, number in IP_PROTOCOLS.items():
        yield attack.tries(name, lambda number=number: _raw(attack, number, payload(attack)))


def _raw(attack: Attack, protocol: int, data: bytes, options: bytes = b"") -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as sock:
        if options:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
        sock.sendto(data, (attack.knowledge.canary, 0))
    return ""  # No response is expected; the canary's log shows which packets arrived.


@technique(PLACES)
def ip_options_and_fragments(attack: Attack) -> Iterator[Try]:
    """Send datagrams with route options. Send a datagram in two fragments, the fragment with the UDP header last."""
    udp_datagram = struct.pack("!HHHH", 40000, 53, 8 + len(payload(attack)), 0) + payload(attack)
    record_route = b"\x07\x0b\x04" + bytes(8) + b"\x01"
    loose_route = b"\x83\x07\x04" + socket.inet_aton(attack.knowledge.canary) + b"\x01"
    for name, options in (("record route", record_route), ("loose source route", loose_route)):
        yield attack.tries(name, lambda options=options: _raw(attack, socket.IPPROTO_UDP, udp_datagram, options))
    yield attack.tries("fragments", lambda: _fragments(attack, udp_datagram))


def _fragments(attack: Attack, datagram: bytes) -> str:
    first, rest = datagram[:8], datagram[8:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        # Flag 0x2000 means that more fragments follow. The offset is in units of eight bytes.
        for piece, flags in ((rest, 0x0001), (first, 0x2000)):
            sock.sendto(_ip_head(attack, len(piece), flags) + piece, (attack.knowledge.canary, 0))
    return ""


def _ip_head(attack: Attack, length: int, flags: int, source: str = "0.0.0.0") -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton(attack.knowledge.canary)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 4711, flags, 64, socket.IPPROTO_UDP, 0) + addresses


@technique(PLACES)
def borrowed_source_addresses(attack: Attack) -> Iterator[Try]:
    """Send packets with a spoofed source address: that of the proxy, the gateway, another class or the host."""
    datagram = struct.pack("!HHHH", 40000, 53, 8 + len(payload(attack)), 0) + payload(attack)
    for source in (attack.knowledge.proxy[0], *attack.knowledge.hosts[:6]):
        if ":" not in source:
            yield attack.tries(source, lambda source=source: _borrowed(attack, datagram, source))


def _borrowed(attack: Attack, datagram: bytes, source: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(_ip_head(attack, len(datagram), 0, source) + datagram, (attack.knowledge.canary, 0))
    return ""


@technique(PLACES)
def frames(attack: Attack) -> Iterator[Try]:
    """Send raw Ethernet frames to broadcast and to each neighbour. They bypass routes and the local firewall rules."""
    datagram = struct.pack("!HHHH", 40000, 53, 8 + len(payload(attack)), 0) + payload(attack)
    packet = _ip_head(attack, len(datagram), 0, attack.knowledge.proxy[0]) + datagram
    # Columns: address, type, flags, hardware address, mask, device (proc_net(5)).
    known = [line.split() for line in Path("/proc/net/arp").read_text().splitlines()[1:]]
    targets = {(name, "ff:ff:ff:ff:ff:ff") for _, name in socket.if_nameindex() if name != "lo"}
    for name, hardware in sorted(targets | {(entry[5], entry[3]) for entry in known}):
        yield attack.tries(f"{hardware} on {name}", lambda name=name, to=hardware: _frame(name, to, packet))
    yield Try("every one of them")


def _frame(interface: str, to: str, packet: bytes) -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0x0800))
        own = sock.getsockname()[4]
        sock.send(bytes.fromhex(to.replace(":", "")) + own + b"\x08\x00" + packet)
    return ""


@technique(PLACES)
def other_transports(attack: Attack) -> Iterator[Try]:
    """Send data with SCTP, DCCP, UDP-Lite, Multipath TCP, and TCP Fast Open, which sends data in the first packet."""
    kinds = {
        "SCTP": (socket.SOCK_STREAM, 132), "DCCP": (6, 33), "UDP-Lite": (socket.SOCK_DGRAM, 136),
        "Multipath TCP": (socket.SOCK_STREAM, 262),
    }  # fmt: skip
    for name, (kind, protocol) in kinds.items():
        yield attack.tries(name, lambda kind=kind, protocol=protocol: _transport(attack, kind, protocol))
    yield attack.tries("TCP Fast Open", lambda: _fast_open(attack))


def _transport(attack: Attack, kind: int, protocol: int) -> str:
    with socket.socket(socket.AF_INET, kind, protocol) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((attack.knowledge.canary, 443))
        sock.send(payload(attack))
        return f"answered {sock.recv(80)!r}"


def _fast_open(attack: Attack) -> str:
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(payload(attack), socket.MSG_FASTOPEN, (attack.knowledge.canary, 443))
        return f"connected, {sock.recv(80)!r}"


@technique(PLACES)
def ipv6(attack: Attack) -> Iterator[Try]:
    """Send TCP and UDP to the internet over IPv6."""
    target = attack.knowledge.canary6 or "2606:4700:4700::1111"
    yield attack.tries("TCP 443", lambda: tcp(target, 443, payload(attack)))
    yield attack.tries("UDP 53", lambda: udp(target, 53, payload(attack)))


@technique()
def ipv6_neighbours(attack: Attack) -> Iterator[Try]:
    """Use link-local IPv6: ping all nodes and connect to open ports of those that respond."""
    for index, name in socket.if_nameindex():
        if name == "lo":
            continue
        found: list[str] = []
        yield attack.tries(f"ff02::1 on {name}", lambda index=index, found=found: _all_nodes(index, found))
        for address in found[:4]:
            for port in (22, 2375, 8080, 9464, 18789):
                yield attack.tries(
                    f"[{address}%{name}]:{port}",
                    lambda address=address, port=port, index=index: _scoped(address, port, index),
                )
    yield Try("every interface")


def _all_nodes(index: int, found: list[str]) -> str:
    own = {line.split()[0] for line in Path("/proc/net/if_inet6").read_text().splitlines()}
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6) as sock:
        sock.settimeout(PATIENCE / 2)
        sock.sendto(struct.pack("!BBHHH", 128, 0, 0, 7, 1), ("ff02::1", 0, 0, index))
        with contextlib.suppress(TimeoutError):
            for _ in range(8):
                address = sock.recvfrom(1500)[1][0].split("%")[0]
                if socket.inet_pton(socket.AF_INET6, address).hex() not in own:
                    found.append(address)
    return f"answered by {found}" if found else ""


def _scoped(address: str, port: int, index: int) -> str:
    with socket.socket(socket.AF_INET6) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((address, port, 0, index))
    return "connected"


@technique()
def shouting(attack: Attack) -> Iterator[Try]:
    """Send broadcast and multicast (DHCP, mDNS, LLMNR, SSDP).

    Any response is evidence: it comes from a neighbour that must not be reachable.
    """
    for name, host, port in (
        ("broadcast", "255.255.255.255", 67), ("mDNS", "224.0.0.251", 5353), ("LLMNR", "224.0.0.252", 5355),
        ("SSDP", "239.255.255.250", 1900),
    ):  # fmt: skip
        yield attack.tries(name, lambda host=host, port=port: _shout(attack, host, port))


def _shout(attack: Attack, host: str, port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE / 2)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(payload(attack), (host, port))
        with contextlib.suppress(TimeoutError):
            return f"answered {sock.recv(200)!r}"
        return ""


# ── internal destinations ────────────────────────────────────────────────────────────────────────────────────────


def _in_http(address: Address, path: str = "/") -> tuple[str, Callable[[], str]]:
    """Return the name and function of an attempt that sends HTTP directly to an address."""
    host, port = address
    return f"{host}:{port}", lambda: tcp(host, port, f"GET {path} HTTP/1.0\r\n\r\n".encode())


@technique()
def other_classes_listeners(attack: Attack) -> Iterator[Try]:
    """Connect directly to the proxy's listeners for other classes."""
    for address in attack.knowledge.listeners:
        yield attack.tries(*_in_http(address))


@technique((PEER,))
def listeners_from_a_network_of_our_own(attack: Attack) -> Iterator[Try]:
    """Connect to every listener of the proxy from an unknown address, and expect no response at all."""
    get = f"GET http://{attack.token}.example.com/ HTTP/1.1\r\nHost: {attack.token}.example.com\r\n\r\n"
    for address in attack.knowledge.listeners:
        yield attack.tries(f"{address}", lambda address=address: _answered(address, get.encode()))


def _answered(address: Address, data: bytes) -> str:
    answer = ask(address, data)
    return f"answered {answer[:80]!r}" if answer else ""


@technique((*PLACES, PEER))
def health_and_metrics(attack: Attack) -> Iterator[Try]:
    """Request /metrics at each address of the proxy's health port."""
    for address in attack.knowledge.health:
        yield attack.tries(*_in_http(address, "/metrics"))


@technique((*ENFORCED, PEER))
def addresses_of_hosts(attack: Attack) -> Iterator[Try]:
    """Connect to ports of the gateway, VPS-1 and VPS-2 at each of their addresses, including bridge addresses."""
    yield from _ports(attack, (22, 53, 80, 3100, 4318, 5355, 9090, 9428, 18789, 18790, 9222))


def _ports(attack: Attack, ports: tuple[int, ...]) -> Iterator[Try]:
    """Send an HTTP request to each port of every host. Yield the attempts."""
    yield from attack.side_by_side(_in_http((host, port)) for host in attack.knowledge.hosts for port in ports)


@technique((*ENFORCED, PEER))
def docker_over_tcp(attack: Attack) -> Iterator[Try]:
    """Connect to the ports of the Docker Engine API (2375, 2376, 2377, 4243) on every host."""
    yield from _ports(attack, (2375, 2376, 2377, 4243))


@technique(PLACES)
def hosts_answer_pings(attack: Attack) -> Iterator[Try]:
    """Ping the gateway, VPS-1, VPS-2 and the proxy. An echo response could carry data, so it counts as a bypass."""
    if attack.knowledge.place == "gateway":
        hosts = tuple(host for host in attack.knowledge.hosts if host.startswith("10."))
    else:
        hosts = (attack.knowledge.proxy[0], *attack.knowledge.hosts)
    for host in hosts:
        yield attack.tries(host, lambda host=host: _ping(attack, host))


def _ping(attack: Attack, host: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(PATIENCE / 2)
        sock.connect((host, 0))
        sock.send(_icmp_echo(payload(attack)))
        with contextlib.suppress(TimeoutError):
            return f"answered {sock.recv(1500)[-40:]!r}"
        return ""


@technique((*ENFORCED, PEER))
def containers_of_other_classes(attack: Attack) -> Iterator[Try]:
    """Connect to services in containers of other classes, such as a browser's CDP port."""
    for address in attack.knowledge.neighbours:
        yield attack.tries(*_in_http(address))
    yield Try("every one of them")


@technique(("gateway",))
def other_hosts(attack: Attack) -> Iterator[Try]:
    """Connect from the gateway to VPS-1, VPS-2 and other containers, without the proxy."""
    yield from _ports(attack, (22, 80, 2375, 3100, 4318, 9090, 9428))


@technique((*PLACES, PEER))
def metadata_services(attack: Attack) -> Iterator[Try]:
    """Request cloud metadata services at their addresses, without the proxy."""
    for host in ("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "fd00:ec2::254"):
        yield attack.tries(*_in_http((host, 80), "/latest/meta-data/"))


# ── escape from the network namespace ────────────────────────────────────────────────────────────────────────────


@technique(ENFORCED)
def new_namespaces(attack: Attack) -> Iterator[Try]:
    """Create new user and network namespaces, because an ordinary user has all capabilities in a new user namespace."""
    user, network = os.CLONE_NEWUSER, os.CLONE_NEWNET
    yield attack.tries(
        "network", lambda: _unshared(network, lambda: tcp(attack.knowledge.canary, 443, payload(attack)))
    )
    yield attack.tries("user", lambda: _unshared(user, lambda: _raw(attack, 47, payload(attack))))
    yield attack.tries(
        "user and network",
        lambda: _unshared(user | network, lambda: tcp(attack.knowledge.canary, 443, payload(attack))),
    )


def _unshared(flags: int, then: Callable[[], str]) -> str:
    os.unshare(flags)
    return then()


@technique(ENFORCED)
def others_namespaces(attack: Attack) -> Iterator[Try]:
    """Enter the network namespaces of other processes that are visible in /proc."""
    own = Path("/proc/self/ns/net").readlink()
    for process in [path for path in Path("/proc").iterdir() if path.name.isdigit()]:
        yield attack.tries(str(process), lambda process=process: _enter(attack, process / "ns/net", own))


def _enter(attack: Attack, path: Path, own: Path) -> str:
    if path.readlink() == own:
        return ""
    with path.open() as namespace:
        os.setns(namespace.fileno(), os.CLONE_NEWNET)
    return "entered: " + tcp(attack.knowledge.canary, 443, payload(attack))


@technique(ENFORCED)
def rerouting(attack: Attack) -> Iterator[Try]:
    """Set another default route, which requires CAP_NET_ADMIN."""
    for gateway in (attack.knowledge.proxy[0], *attack.knowledge.hosts[:4]):
        if ":" not in gateway:
            yield attack.tries(f"via {gateway}", lambda gateway=gateway: _route(attack, gateway))


def _route(attack: Attack, gateway: str) -> str:
    def address(text: str) -> bytes:
        return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))

    # The struct rtentry of <net/route.h> (64 bits) with the flags "up" and "gateway", for SIOCADDRT and SIOCDELRT.
    entry = struct.pack("L", 0) + address("0.0.0.0") + address(gateway) + address("0.0.0.0") + struct.pack("H", 3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x890B, entry.ljust(120, b"\0"))
        try:
            return "the route was set: " + tcp(attack.knowledge.canary, 443, payload(attack))
        finally:
            fcntl.ioctl(sock, 0x890C, entry.ljust(120, b"\0"))
