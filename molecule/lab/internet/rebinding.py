"""DNS server for one zone. Its names change their address or resolve to internal ones, as in DNS rebinding attacks.

| name in rebind.example.com | answers                                                                        |
|----------------------------|--------------------------------------------------------------------------------|
| flip-TOKEN                 | A 198.51.100.10 the first time, A 10.0.0.2 from then on                        |
| inward, loopback, metadata | A 10.0.0.2, 127.0.0.1, 169.254.169.254                                         |
| mixed                      | A 198.51.100.10 and A 10.0.0.2                                                 |
| proxy, inner               | A 172.30.0.250 and 172.31.250.2: the proxy's own addresses                     |
| v6                         | AAAA ::1 and ::ffff:10.0.0.2                                                   |
| A-B-C-D.ip                 | A A.B.C.D                                                                      |

Labels before these names are ignored: `x7.inward` resolves like `inward`. The TTL is 0, so that resolvers do not cache
responses. The server supports UDP and TCP.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import socketserver
import struct
import threading

ZONE = "rebind.example.com"
OUTSIDE, INSIDE = "198.51.100.10", "10.0.0.2"
FIXED = {
    "inward": (INSIDE,),
    "mixed": (OUTSIDE, INSIDE),
    "loopback": ("127.0.0.1",),
    "metadata": ("169.254.169.254",),
    "proxy": ("172.30.0.250",),
    "inner": ("172.31.250.2",),
    "v6": ("::1", "::ffff:10.0.0.2"),
}
A, AAAA, NAME_ERROR = 1, 28, 3


class Zone:
    """The DNS records of the zone. It stores which `flip-` names were queried before."""

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._lock = threading.Lock()

    def addresses(self, name: str, kind: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address] | None:
        """Return the addresses of a name for a query type; None for an unknown name."""
        labels = name.lower().removesuffix(f".{ZONE}").split(".")
        given: tuple[str, ...] | None = FIXED.get(labels[-1])
        if labels[-1].startswith("flip-"):
            with self._lock:
                given = (INSIDE if name.lower() in self._asked else OUTSIDE,)
                if kind == A:
                    self._asked.add(name.lower())
        elif labels[-1] == "ip" and len(labels) > 1:
            given = (labels[-2].replace("-", "."),)
        if given is None:
            return None
        version = {A: 4, AAAA: 6}.get(kind)
        try:
            found = [ipaddress.ip_address(text) for text in given]
        except ValueError:
            return None
        return [address for address in found if address.version == version]

    def answer(self, query: bytes) -> bytes:
        """Return the response to a query with one question. Both are without the length prefix of DNS over TCP.

        Raises:
            ValueError, IndexError, struct.error: the bytes are not such a query.
        """
        identity, flags, questions = struct.unpack("!HHH", query[:6])
        if questions != 1 or flags & 0x8000:
            raise ValueError("the message is not a query with one question")
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
            at += 1 + length
        kind, _ = struct.unpack("!HH", query[at + 1 : at + 5])
        found = self.addresses(".".join(labels), kind)
        # Flags: an authoritative response, with the query's bit "recursion desired".
        code = 0x8400 | flags & 0x0100 | (NAME_ERROR if found is None else 0)
        head = struct.pack("!HHHHHH", identity, code, 1, len(found or ()), 0, 0)
        records = [
            # A pointer to the name in the question (RFC 1035, section 4.1.4).
            struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(address.packed)) + address.packed
            for address in found or ()
        ]
        return head + query[12 : at + 5] + b"".join(records)


# Exceptions for bytes that are not a query. The server sends no response to such bytes.
NO_QUERY = (ValueError, IndexError, struct.error)


def serve(zone: Zone, listen: str, port: int) -> None:
    """Respond to queries over UDP and TCP. This function never returns."""

    class Datagram(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query, sock = self.request
            with contextlib.suppress(*NO_QUERY):
                sock.sendto(zone.answer(query), self.client_address)

    class Stream(socketserver.StreamRequestHandler):
        timeout = 10

        def handle(self) -> None:
            with contextlib.suppress(OSError, *NO_QUERY):
                while head := self.rfile.read(2):
                    response = zone.answer(self.rfile.read(*struct.unpack("!H", head)))
                    self.wfile.write(struct.pack("!H", len(response)) + response)

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with (
        socketserver.ThreadingUDPServer((listen, port), Datagram) as datagrams,
        socketserver.ThreadingTCPServer((listen, port), Stream) as streams,
    ):
        threading.Thread(target=datagrams.serve_forever, daemon=True).start()
        streams.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=f"Run the DNS server of {ZONE}, whose names change their address.")
    parser.add_argument("--listen", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="UDP and TCP port to listen on")
    arguments = parser.parse_args()
    serve(Zone(), arguments.listen, arguments.port)


if __name__ == "__main__":
    main()
