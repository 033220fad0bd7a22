"""Techniques that request forbidden addresses through the proxy: unusual notations, names, DNS rebinding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from tests.security.inside.core import PLACES, Address, Attack, Try, technique
from tests.security.inside.http import requested, tunnelled
from tests.security.inside.sockets import ask, came, connected, reached, read_answer


def _all(attack: Attack, targets: Iterable[Address]) -> Iterator[Try]:
    """Try CONNECT and an absolute-form GET for each target."""

    def both() -> Iterator[tuple[str, Callable[[], str]]]:
        for host, port in targets:
            request = f"GET http://{host}:{port}/{attack.token} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
            yield f"CONNECT {host}:{port}", lambda host=host, port=port: tunnelled(attack, f"{host}:{port}")
            yield f"GET {host}:{port}", lambda request=request: requested(attack, request)

    yield from attack.side_by_side(both())


@technique(PLACES)
def spellings_of_addresses(attack: Attack) -> Iterator[Try]:
    """Request internal addresses in other notations: octal, hexadecimal, one number, full-width, IPv4-mapped, NAT64."""
    yield from _all(attack, attack.knowledge.spellings)


@technique(PLACES)
def services_of_the_inside(attack: Attack) -> Iterator[Try]:
    """Request Loki, Docker, SSH, the gateway and the proxy's health port at their addresses, through the proxy."""
    hosts = dict.fromkeys((*attack.knowledge.hosts, attack.knowledge.proxy[0], "127.0.0.1", "localhost"))
    yield from _all(
        attack,
        (
            (f"[{host}]" if ":" in host else host, port)
            for host in hosts
            for port in (22, 80, 443, 2375, 3100, 9464, 18789)
            if (host, port) not in attack.knowledge.lawful
        ),
    )


@technique(PLACES)
def metadata_through_the_proxy(attack: Attack) -> Iterator[Try]:
    """Request cloud metadata services by address and by name."""
    hosts = (
        "169.254.169.254", "[fd00:ec2::254]", "168.63.129.16", "100.100.100.200", "metadata.google.internal",
        "metadata", "instance-data", "0251.0376.0251.0376", "2852039166", "[::ffff:169.254.169.254]",
    )  # fmt: skip
    yield from _all(attack, ((host, 80) for host in hosts))


@technique(PLACES)
def literals_of_the_internet(attack: Attack) -> Iterator[Try]:
    """Request internet addresses that no rule allows, with and without TLS."""
    hosts = (attack.knowledge.canary, attack.knowledge.resolver)
    targets = ((host, port) for host in hosts for port in (80, 443, 53))
    yield from _all(attack, (one for one in targets if one not in attack.knowledge.lawful))


@technique(PLACES)
def names_that_lead_inwards(attack: Attack) -> Iterator[Try]:
    """Request names that resolve to internal addresses only, or to internal and public addresses."""
    yield from _all(attack, ((name, port) for name in attack.knowledge.inward for port in (80, 443)))
    yield Try("every one of them")


@technique(("browser", "gateway"), lawful=("browser", "gateway"))
def rebinding(attack: Attack) -> Iterator[Try]:
    """Request a name that resolves to a public address first and to an internal one later (DNS rebinding)."""
    names = [name for name in attack.knowledge.inward if name.startswith("inward.")]
    for name in (one.replace("inward.", f"flip-{attack.token}.", 1) for one in names):
        request = f"GET http://{name}/{attack.token} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
        came(ask(attack.knowledge.proxy, request))
        for number in range(3):
            yield attack.tries(f"anew, {number}", lambda request=request: reached(ask(attack.knowledge.proxy, request)))
        staying = name.replace("flip-", "flip-stays-")
        yield from _stays(attack, f"GET http://{staying}/ HTTP/1.1\r\nHost: {staying}\r\n\r\n".encode())
    yield Try("every name")


def _stays(attack: Attack, request: bytes) -> Iterator[Try]:
    with connected(attack.knowledge.proxy) as sock:
        sock.sendall(request)
        came(read_answer(sock))
        # For 30 s, the proxy reuses addresses that it has checked. Wait longer, so that it resolves the name again.
        time.sleep(32)

        def again() -> str:
            sock.sendall(request)
            return reached(read_answer(sock))

        yield attack.tries("after 32 s on one connection", again)
