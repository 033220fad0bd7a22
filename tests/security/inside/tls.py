"""TLS techniques: a ClientHello whose name differs from the CONNECT target, and HTTP/2 connection coalescing."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from tests.security.inside.core import ENFORCED, Attack, Try, technique
from tests.security.inside.http import ALLOWED, INSPECTED
from tests.security.inside.sockets import connect, connected, read_some, tls
from tests.security.inside.tls_clienthello import certificate_names, client_hello, records, responded, server_name


def _target(attack: Attack) -> str:
    return f"{attack.knowledge.allowed}:{attack.knowledge.tls_port}"


def _handshake(attack: Attack, target: str, name: str | None) -> str:
    with connected(attack.knowledge.proxy) as sock:
        if connect(sock, target) != 200:
            return ""
        with tls(sock, name) as inside:
            inside.sendall(f"GET /{attack.token} HTTP/1.1\r\nHost: {attack.denied}\r\n\r\n".encode())
            return f"TLS was spoken with {name}"


@technique(ALLOWED)
def another_name_in_tls(attack: Attack) -> Iterator[Try]:
    """Send CONNECT for the allowed name, then a ClientHello with the denied name, no name, or a similar name."""
    good, bad = attack.knowledge.allowed, attack.denied
    for name in (bad, None, f"x.{good}", f"{good}.{bad}", attack.knowledge.inspected or "api.anthropic.com"):
        if name != good:
            yield attack.tries(str(name), lambda name=name: _handshake(attack, _target(attack), name))


def _hello(attack: Attack, data: bytes, target: str = "") -> str:
    with connected(attack.knowledge.proxy, 4) as sock:
        if connect(sock, target or _target(attack)) != 200:
            return ""
        sock.sendall(data)
        return responded(read_some(sock, 6))


@technique(ALLOWED)
def hellos_of_two_minds(attack: Attack) -> Iterator[Try]:
    """Send ClientHellos that parsers read differently: two or no names, tiny records, an alert between the records."""
    good, bad = attack.knowledge.allowed, attack.denied
    for what, message in (
        ("two names", client_hello(server_name(good, bad))),
        ("two names, the denied one first", client_hello(server_name(bad, good))),
        ("two extensions", client_hello(server_name(good), server_name(bad))),
        ("two extensions, the denied one first", client_hello(server_name(bad), server_name(good))),
        ("no name", client_hello()),
        ("an empty name", client_hello(server_name(""))),
        ("NUL in the name", client_hello(server_name(f"{bad}\0.{good}"))),
        ("NUL behind the name", client_hello(server_name(f"{good}\0.{bad}"))),
        ("a space in the name", client_hello(server_name(f"{good} {bad}"))),
        ("an address as a name", client_hello(server_name("198.51.100.66"))),
    ):
        yield attack.tries(what, lambda message=message: _hello(attack, records(message)))
    for size in (1, 5, 64):
        message = client_hello(server_name(bad))
        yield attack.tries(f"records of {size}", lambda m=message, size=size: _hello(attack, records(m, size)))
    first, second = client_hello(server_name(good)), client_hello(server_name(bad))
    half = len(first) // 2
    yield attack.tries(
        "half of an allowed hello, then a denied hello", lambda: _hello(attack, records(first[:half]) + records(second))
    )
    yield attack.tries(
        "an alert between the halves",
        lambda: _hello(attack, records(second[:half]) + b"\x15\x03\x01\0\x02\x01\0" + records(second[half:])),
    )


@technique(ENFORCED)
def tls_to_the_listener(attack: Attack) -> Iterator[Try]:
    """Start TLS directly with the listener, with the denied name, the allowed name and no name."""
    for name in (attack.denied, attack.knowledge.allowed or "www.example.org", None):
        yield attack.tries(str(name), lambda name=name: _straight(attack, name))


def _straight(attack: Attack, name: str | None) -> str:
    with connected(attack.knowledge.proxy) as sock, tls(sock, name):
        return "TLS was spoken"


@technique(INSPECTED)
def http2_and_coalescing(attack: Attack) -> Iterator[Try]:
    """Try to negotiate HTTP/2 on a decrypted connection, and look for other hosts in the certificate."""
    yield attack.tries("ALPN", lambda: _negotiated(attack))
    yield attack.tries("names in the certificate", lambda: _other_names(attack))


def _decrypted(attack: Attack, alpn: tuple[str, ...]) -> ssl.SSLSocket:
    sock_context = connected(attack.knowledge.proxy)
    sock = sock_context.__enter__()
    if connect(sock, f"{attack.knowledge.inspected}:{attack.knowledge.tls_port}") != 200:
        raise OSError("the proxy opened no tunnel to the inspected host")
    return tls(sock, attack.knowledge.inspected, alpn)


def _negotiated(attack: Attack) -> str:
    with _decrypted(attack, ("h2", "http/1.1")) as inside:
        return "h2 was chosen" if inside.selected_alpn_protocol() == "h2" else ""


def _other_names(attack: Attack) -> str:
    with _decrypted(attack, ()) as inside:
        names = certificate_names(inside)
    if attack.knowledge.inspected not in names:
        raise RuntimeError(f"the certificate's names could not be read: {names}")
    return ", ".join(sorted(names - {attack.knowledge.inspected}))


@technique(INSPECTED)
def another_name_when_decrypted(attack: Attack) -> Iterator[Try]:
    """Send CONNECT for a provider, then TLS with another name.

    Then send CONNECT for another name and TLS for the provider.
    """
    good = attack.knowledge.inspected
    port = attack.knowledge.tls_port
    for target, name in ((good, attack.denied), (good, None), (attack.knowledge.allowed or "www.example.org", good)):
        yield attack.tries(
            f"CONNECT {target}, {name} in TLS",
            lambda target=target, name=name: _handshake(attack, f"{target}:{port}", name),
        )
