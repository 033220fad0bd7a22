"""Sender of raw Ethernet frames to the addresses of a host. They ignore the container's routes and addresses."""

from __future__ import annotations

import fcntl
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

PORT = 47474
"""UDP port at which the host listens."""

INTERFACE = "eth0"
_SIOCGIFADDR = 0x8915
_EVERYBODY = "ff:ff:ff:ff:ff:ff"


def main(parcel: dict[str, Any]) -> None:
    """Send a UDP datagram with the token to each address, in frames to each MAC address and to the broadcast address.

    Print the number of frames.
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((INTERFACE, 0))
        own = sock.getsockname()[4]
        sent = 0
        for mac in (*parcel["macs"], _EVERYBODY):
            for kind, packet in _packets(parcel["addresses"], parcel["token"].encode()):
                sock.send(bytes.fromhex(mac.replace(":", "")) + own + kind + packet)
                sent += 1
    print(json.dumps(sent))


def _packets(addresses: list[str], data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the Ethernet type and the packet for each address, with several source addresses."""
    for address in (*addresses, "224.0.0.1", "ff02::1"):
        if ":" in address:
            for source in ("fe80::77", "2001:db8:5::7"):
                yield b"\x86\xdd", _ipv6(source, address, data)
        else:
            for source in (_own_address(), "10.0.0.77", "203.0.113.9"):
                yield b"\x08\x00", _ipv4(source, address, data)


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("256s", INTERFACE.encode()))
    return socket.inet_ntoa(answer[20:24])


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def _udp(pseudo: bytes, data: bytes) -> bytes:
    length = 8 + len(data)
    head = struct.pack("!HHHH", 40000, PORT, length, 0)
    checksum = _checksum(pseudo + head + data) or 0xFFFF
    return struct.pack("!HHHH", 40000, PORT, length, checksum) + data


def _ipv4(source: str, address: str, data: bytes) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(address)
    udp = _udp(ends + struct.pack("!BBH", 0, 17, 8 + len(data)), data)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + ends
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + udp


def _ipv6(source: str, address: str, data: bytes) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, address)
    udp = _udp(ends + struct.pack("!II", 8 + len(data), 17), data)
    return struct.pack("!IHBB", 0x60000000, len(udp), 17, 64) + ends + udp
