"""Tests of the lab's servers: the DNS server with changing addresses, the canary, and the telemetry sink."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.proxy_process import free_ports

from .internet.canary import described
from .internet.rebinding import Zone

LAB = Path(__file__).resolve().parent
A, AAAA = 1, 28


@contextlib.contextmanager
def running(script: str, port: int, *words: str):
    """Run one of the lab's servers within the context. `port` is its TCP port on loopback."""
    with subprocess.Popen([sys.executable, str(LAB / script), *words]) as process:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        try:
            yield
        finally:
            process.kill()


def question(name: str, kind: int) -> bytes:
    """Return a DNS query for a name, as resolvers send it."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def addresses(query: bytes, response: bytes) -> list[str]:
    """Return the addresses in the response to a query. Check that each has TTL 0."""
    identity, flags, _, answers, _, _ = struct.unpack("!HHHHHH", response[:12])
    assert (identity, flags & 0x8000) == (0x1234, 0x8000)
    found, at = [], len(query)
    for _ in range(answers):
        kind, _, ttl, length = struct.unpack("!HHIH", response[at + 2 : at + 12])
        assert ttl == 0
        family = socket.AF_INET if kind == A else socket.AF_INET6
        found.append(socket.inet_ntop(family, response[at + 12 : at + 12 + length]))
        at += 12 + length
    assert at == len(response)
    return found


@pytest.mark.parametrize(
    ("label", "kind", "expected"),
    [
        ("inward", A, ["10.0.0.2"]),
        ("x7.inward", A, ["10.0.0.2"]),
        ("mixed", A, ["198.51.100.10", "10.0.0.2"]),
        ("loopback", A, ["127.0.0.1"]),
        ("metadata", A, ["169.254.169.254"]),
        ("proxy", A, ["172.30.0.250"]),
        ("inner", A, ["172.31.250.2"]),
        ("v6", AAAA, ["::1", "::ffff:10.0.0.2"]),
        ("v6", A, []),
        ("inward", AAAA, []),
        ("192-0-2-7.ip", A, ["192.0.2.7"]),
        ("INWARD", A, ["10.0.0.2"]),
    ],
)
def test_names_of_the_rebinding_zone_resolve_as_documented(label, kind, expected):
    query = question(f"{label}.rebind.example.com", kind)
    assert addresses(query, Zone().answer(query)) == expected


@pytest.mark.parametrize("label", ["nothing", "300-0-2-7.ip", "ip"])
def test_unknown_name_does_not_exist(label):
    response = Zone().answer(question(f"{label}.rebind.example.com", A))
    assert struct.unpack("!H", response[2:4])[0] & 15 == 3


def test_flip_name_changes_its_address_after_the_first_query():
    (port,) = free_ports(1)
    query = question("flip-1.rebind.example.com", A)
    with running("internet/rebinding.py", port, "--port", str(port)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(10)
            datagrams.sendto(b"no query", ("127.0.0.1", port))
            # Also query for IPv6, as resolvers do: this must not change the address.
            for kind, expected in ((AAAA, []), (A, ["198.51.100.10"])):
                datagrams.sendto(question("flip-1.rebind.example.com", kind), ("127.0.0.1", port))
                assert addresses(query, datagrams.recv(512)) == expected
        with socket.create_connection(("127.0.0.1", port), 10) as stream, stream.makefile("rb") as answers:
            stream.sendall(struct.pack("!H", len(query)) + query)
            (length,) = struct.unpack("!H", answers.read(2))
            assert addresses(query, answers.read(length)) == ["10.0.0.2"]


CANARY = "198.51.100.66"


def ipv4(protocol: int, payload: bytes, destination: str = CANARY, fragment: int = 0) -> bytes:
    """Return a packet from 198.51.100.1."""
    ends = socket.inet_aton("198.51.100.1") + socket.inet_aton(destination)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0) + ends + payload


def ipv6(protocol: int, payload: bytes) -> bytes:
    """Return a packet from 2001:db8::1 to all nodes."""
    ends = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "ff02::1")
    return struct.pack("!IHBB", 0x60000000, len(payload), protocol, 255) + ends + payload


@pytest.mark.parametrize(
    ("packet", "protocol", "port"),
    [
        (ipv4(6, struct.pack("!HH", 40000, 25) + bytes(16)), "tcp", 25),
        (ipv4(17, struct.pack("!HHHH", 40000, 53, 8, 0)), "udp", 53),
        (ipv4(132, struct.pack("!HHII", 1, 3868, 0, 0)), "sctp", 3868),
        (ipv4(1, b"\x08\0\0\0\0\x01\0\x01"), "icmp", None),
        (ipv4(17, b"the rest of it", fragment=185), "udp", None),
        (ipv4(250, b"whatever"), "250", None),
        (ipv6(17, struct.pack("!HHHH", 40000, 443, 8, 0)), "udp", 443),
        (ipv6(58, b"\x80\0\0\0"), "icmpv6", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_packet_to_the_canary_is_logged_with_protocol_and_port(packet, protocol, port):
    entry = described(packet, CANARY)
    assert entry is not None
    assert (entry["protocol"], entry["port"]) == (protocol, port)
    assert entry["source"] in ("198.51.100.1", "2001:db8::1")


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(6, struct.pack("!HH", 40000, 443) + bytes(16), destination="198.51.100.10"),
        ipv6(58, b"\x87\0\0\0"),
        ipv6(0, b"\x3a\0\x05\x02\0\0\x01\0" + b"\x8f\0\0\0"),
    ],
    ids=["another address", "neighbour solicitation", "listener report behind hop-by-hop options"],
)
def test_packets_of_ordinary_kernels_are_not_logged(packet):
    assert described(packet, CANARY) is None


@pytest.mark.parametrize("body", [b"abcdef", [b"abc", b"def"]], ids=["of known length", "chunked"])
def test_telemetry_request_is_logged(tmp_path, body):
    (port,) = free_ports(1)
    log = tmp_path / "telemetry.jsonl"
    with running("vps2/telemetry.py", port, "--listen", "127.0.0.1", "--log", str(log), str(port)):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/traces", data=body)
        assert urllib.request.urlopen(request, timeout=10).status == 200
    (line,) = log.read_text().splitlines()
    noted = json.loads(line)
    assert {key: noted[key] for key in ("port", "path", "size")} == {"port": port, "path": "/v1/traces", "size": 6}
