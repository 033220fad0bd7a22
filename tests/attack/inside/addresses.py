"""Through the proxy, to addresses: in every spelling, behind names, and behind names that change their mind."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.attack.inside.core import PLACES, Attack, Try, technique
from tests.attack.inside.http import asked, tunnelled
from tests.attack.inside.talking import ask, connected, reached, read_answer


def _both(attack: Attack, host: str, port: int) -> Iterator[Try]:
    """CONNECT to it, and GET in absolute form."""
    yield attack.tries(f"CONNECT {host}:{port}", lambda: tunnelled(attack, f"{host}:{port}"))
    request = f"GET http://{host}:{port}/{attack.token} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
    yield attack.tries(f"GET {host}:{port}", lambda: asked(attack, request))


@technique(PLACES)
def spellings_of_addresses(attack: Attack) -> Iterator[Try]:
    """Addresses of the inside in octal, hexadecimal, in one number, mapped into IPv6, translated, in full width."""
    for host, port in attack.world.spellings:
        yield from _both(attack, host, port)


@technique(PLACES)
def services_of_the_inside(attack: Attack) -> Iterator[Try]:
    """Loki, Docker, SSH, the gateway and the proxy's own health, asked of the proxy by address."""
    for host in (*attack.world.hosts, attack.world.proxy[0], "127.0.0.1", "localhost"):
        written = f"[{host}]" if ":" in host else host
        for port in (22, 80, 443, 2375, 3100, 9464, 18789):
            if (host, port) != ("10.0.0.2", 3100) or attack.world.place != "gateway":
                yield from _both(attack, written, port)


@technique(PLACES)
def metadata_through_the_proxy(attack: Attack) -> Iterator[Try]:
    """The metadata services of clouds, by address and by name."""
    for host in (
        "169.254.169.254", "[fd00:ec2::254]", "168.63.129.16", "100.100.100.200", "metadata.google.internal",
        "metadata", "instance-data", "0251.0376.0251.0376", "2852039166", "[::ffff:169.254.169.254]",
    ):  # fmt: skip
        yield from _both(attack, host, 80)


@technique(PLACES)
def literals_of_the_internet(attack: Attack) -> Iterator[Try]:
    """Addresses of the internet that no rule names, with and without TLS."""
    for host in (attack.world.canary, attack.world.resolver):
        for port in (80, 443, 53):
            yield from _both(attack, host, port)


@technique(PLACES)
def names_that_lead_inwards(attack: Attack) -> Iterator[Try]:
    """Names whose answers are addresses of the inside, alone and beside good ones."""
    for name in attack.world.inward:
        for port in (80, 443):
            yield from _both(attack, name, port)
    yield Try("every one of them")


@technique(("browser", "gateway"))
def rebinding(attack: Attack) -> Iterator[Try]:
    """A name that answers well once, and with an inner address from then on: anew, and on a connection that stays."""
    names = [name for name in attack.world.inward if name.startswith("inward.")]
    for name in (one.replace("inward.", f"flip-{attack.token}.", 1) for one in names):
        request = f"GET http://{name}/{attack.token} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
        ask(attack.world.proxy, request)
        for number in range(3):
            yield attack.tries(f"anew, {number}", lambda request=request: reached(ask(attack.world.proxy, request)))
        staying = name.replace("flip-", "flip-stays-")
        yield from _stays(attack, f"GET http://{staying}/ HTTP/1.1\r\nHost: {staying}\r\n\r\n".encode())
    yield Try("every name")


def _stays(attack: Attack, request: bytes) -> Iterator[Try]:
    with connected(attack.world.proxy) as sock:
        sock.sendall(request)
        read_answer(sock)
        # Longer than the checked addresses of a name are used.
        time.sleep(32)
        sock.sendall(request)
        yield attack.tries("after 32 s on one connection", lambda: reached(read_answer(sock)))
