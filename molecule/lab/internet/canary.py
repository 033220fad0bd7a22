"""Canary: server at an address that no policy allows. A packet that arrives here has bypassed the proxy.

Every TCP port sends a greeting, and every UDP port sends the packet back, so that the sender sees its success. For each
packet of any protocol to the address, the log contains a JSON line:

    {"time": 1790000000.1, "protocol": "udp", "source": "198.51.100.1", "port": 53, "bytes": "first 200 of them"}

`port` is null for protocols without ports. `protocol` is a number if `NAMES` has no name for it. For the data of a TCP
connection, the log contains another line with `"protocol": "tcp-stream"`. IPv6 packets are logged whatever their
destination, because the lab's internet does not use IPv6. Only neighbour discovery is not logged. The canary needs root
and iptables.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import socket
import socketserver
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

GREETING = b"canary: you are out\n"
KEPT = 200
PORT = 6666
IPV4, IPV6 = 0x0800, 0x86DD
NAMES = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 58: "icmpv6", 132: "sctp", 136: "udplite"}
WITH_PORTS = {"tcp", "udp", "dccp", "sctp", "udplite"}
# ICMPv6 types with which kernels find neighbours, routers and multicast listeners (RFC 2710, 3810, 4861).
NEIGHBOURS = {*range(130, 138), 143}


def described(packet: bytes, address: str) -> dict[str, Any] | None:
    """Return the log entry of an IP packet; None if it is not for the canary.

    Raises:
        IndexError, struct.error: the packet is truncated.
    """
    if packet[0] >> 4 == 4:
        if packet[16:20] != socket.inet_aton(address):
            return None
        number, source, start = packet[9], packet[12:16], (packet[0] & 15) * 4
        # Only the first fragment contains the protocol's header, which has the port.
        first = not struct.unpack("!H", packet[6:8])[0] & 0x1FFF
    else:
        number, source, start, first = packet[6], packet[8:24], 40, True
        # Skip the header with hop-by-hop options, which is present in the messages of multicast listeners.
        if number == 0:
            number, start = packet[40], 48 + packet[41] * 8
        if number == 58 and packet[start] in NEIGHBOURS:
            return None
    protocol = NAMES.get(number, str(number))
    port = struct.unpack("!H", packet[start + 2 : start + 4])[0] if first and protocol in WITH_PORTS else None
    return {
        "protocol": protocol,
        "source": str(ipaddress.ip_address(source)),
        "port": port,
        "bytes": packet[start : start + KEPT].decode("latin-1"),
    }


class Log:
    """Log file with JSON lines."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def note(self, entry: dict[str, Any]) -> None:
        """Write one line, and flush the file."""
        with self._lock:
            self._file.write(json.dumps({"time": time.time(), **entry}) + "\n")
            self._file.flush()


def sniff(sniffer: socket.socket, address: str, log: Log) -> None:
    """Log each packet that arrives. This function never returns."""
    while True:
        packet, (_, ether_type, kind, *_) = sniffer.recvfrom(65535)
        # Ignore packets that this host sends.
        if ether_type in (IPV4, IPV6) and kind != socket.PACKET_OUTGOING:
            with contextlib.suppress(IndexError, struct.error):
                if entry := described(packet, address):
                    log.note(entry)


def answer(address: str, log: Log) -> None:
    """Serve a greeting on TCP and an echo on UDP at `PORT`. iptables redirects all other ports to this one.

    This function never returns.
    """

    class Datagram(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            sock.sendto(data, self.client_address)

    class Stream(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(5)
            with contextlib.suppress(OSError):
                self.request.sendall(GREETING)
                data = self.request.recv(KEPT)
                source, _ = self.client_address
                _, port = original_destination(self.request)
                log.note(
                    {"protocol": "tcp-stream", "source": source, "port": port, "bytes": data.decode("latin-1")},
                )

    socketserver.ThreadingTCPServer.request_queue_size = 512
    for protocol in ("tcp", "udp"):
        rule = f"PREROUTING --destination {address} --protocol {protocol} --jump REDIRECT --to-ports {PORT}"
        subprocess.run(["iptables", "--table", "nat", "--append", *rule.split()], check=True)
    with (
        socketserver.ThreadingUDPServer(("", PORT), Datagram) as datagrams,
        socketserver.ThreadingTCPServer(("", PORT), Stream) as streams,
    ):
        threading.Thread(target=datagrams.serve_forever, daemon=True).start()
        streams.serve_forever()


def original_destination(connection: socket.socket) -> tuple[str, int]:
    """Return the original destination of a redirected connection (SO_ORIGINAL_DST of linux/netfilter_ipv4.h)."""
    _, port, packed = struct.unpack_from("!HH4s", connection.getsockopt(socket.SOL_IP, 80, 16))
    return socket.inet_ntoa(packed), port


def main() -> None:
    parser = argparse.ArgumentParser(description="Log every packet to an address that no policy allows.")
    parser.add_argument("--address", required=True, help="IPv4 address of the canary; this host must have it")
    parser.add_argument("--interface", required=True, help="network interface on which packets for the canary arrive")
    parser.add_argument("--log", type=Path, required=True, help="append a JSON line for each packet to this file")
    arguments = parser.parse_args()
    log = Log(arguments.log)
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL: all protocols
    sniffer.bind((arguments.interface, 3))
    threading.Thread(target=sniff, args=(sniffer, arguments.address, log), daemon=True).start()
    answer(arguments.address, log)


if __name__ == "__main__":
    main()
