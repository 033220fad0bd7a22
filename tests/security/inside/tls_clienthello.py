"""Builders of raw TLS ClientHellos, with content that no TLS library sends."""

from __future__ import annotations

import ssl
import struct


def _vector(data: bytes, size: int = 2) -> bytes:
    return len(data).to_bytes(size, "big") + data


def server_name(*names: str) -> bytes:
    """Return the server_name extension (RFC 6066, section 3) with any number of names."""
    entries = b"".join(b"\0" + _vector(name.encode()) for name in names)
    return struct.pack("!H", 0) + _vector(_vector(entries))


def client_hello(*extensions: bytes) -> bytes:
    """Return the ClientHello message of a TLS 1.2 handshake, without the TLS record around it."""
    suites = bytes.fromhex("c02bc02fc02cc030009c009d002f0035")
    groups = struct.pack("!H", 10) + _vector(_vector(bytes.fromhex("0017001d")))
    formats = struct.pack("!H", 11) + _vector(_vector(b"\0", 1))
    signatures = struct.pack("!H", 13) + _vector(_vector(bytes.fromhex("0403080404010503")))
    body = (
        b"\x03\x03" + b"\x42" * 32 + b"\0" + _vector(suites) + b"\x01\0"
        + _vector(b"".join((*extensions, groups, formats, signatures)))
    )  # fmt: skip
    return b"\x01" + _vector(body, 3)


def records(message: bytes, size: int = 16384) -> bytes:
    """Split a handshake message into TLS records of the given size."""
    pieces = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(b"\x16\x03\x01" + _vector(piece) for piece in pieces)


def responded(data: bytes) -> str:
    """Return evidence if the response is a ServerHello, or an empty text if it is not."""
    return "a ServerHello" if data[:1] == b"\x16" and data[5:6] == b"\x02" else ""


def certificate_names(sock: ssl.SSLSocket) -> set[str]:
    """Return every host name in the peer's certificate. Search its bytes: the standard library has no X.509 parser."""
    der = sock.getpeercert(binary_form=True) or b""
    found, at = set(), 0
    # Search for the tag 0x82, which marks a dNSName in SubjectAltName (RFC 5280, section 4.2.1.6).
    while (at := der.find(b"\x82", at) + 1) > 0:
        length = der[at] if at < len(der) else 0
        text = der[at + 1 : at + 1 + length]
        if len(text) == length > 3 and b"." in text and all(32 < byte < 127 for byte in text):
            found.add(text.decode())
    return found
