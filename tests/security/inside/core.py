"""Attack techniques, the knowledge that they use, and the function that runs them inside a container.

A technique is a generator function. Each :class:`Try` that it yields describes one attempt. The `Try` contains evidence
if the client received a response that network enforcement should have stopped. A client does not see whether packets
without a response or DNS queries arrived. The harness finds these in logs outside the proxy, by the technique's token.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

SECONDS = 120.0
"""Timeout of a technique in seconds.

After this time the technique counts as broken, because some attempts were not made.
"""

AT_ONCE = 6
"""Number of techniques that run in parallel. They use little CPU, because they mostly wait for timeouts."""

THREADS = 12

Address = tuple[str, int]

ENFORCED = ("sandbox", "browser", "build", "neighbour")
"""Test locations in containers of the gateway's Docker engine. Firewall rules restrict their traffic.

The location `gateway` is the gateway's own network namespace.
"""

PLACES = (*ENFORCED, "gateway")

PEER = "macvlan"
"""A test location: an unknown host on the internal network, on a macvlan network that the gateway's daemon creates."""


@dataclass(frozen=True)
class Knowledge:
    """The addresses and names that an attacker in one test location knows or can find out.

    Attributes:
        place: one of :data:`PLACES`, or :data:`PEER`.
        proxy: the listener for the class of this location.
        listeners: the listeners for other classes.
        health: the addresses of /healthz, /readyz and /metrics.
        allowed: a name that this class may reach; empty if there is none.
        denied: suffix of denied names: ``TOKEN.denied``.
        inspected: an inspected host that this class may reach; empty if there is none.
        tls_port, http_port: ports of the sites behind these names.
        canary: an internet address that no policy allows.
        resolver: a name server on the internet.
        hosts: addresses of VPS-1, VPS-2, the gateway and every bridge; all must be unreachable.
        neighbours: open ports of containers of other classes.
        inward: names that resolve to internal addresses.
        spellings: internal addresses in unusual notations, with ports.
        lawful: addresses that this class may request through the proxy; a response from them is not a bypass.
        loki: the address of Loki.
    """

    place: str
    proxy: Address
    listeners: tuple[Address, ...] = ()
    health: tuple[Address, ...] = ()
    allowed: str = ""
    denied: str = "denied.example.com"
    inspected: str = ""
    tls_port: int = 443
    http_port: int = 80
    canary: str = ""
    canary6: str = ""
    resolver: str = ""
    hosts: tuple[str, ...] = ()
    neighbours: tuple[Address, ...] = ()
    inward: tuple[str, ...] = ()
    spellings: tuple[Address, ...] = ()
    lawful: tuple[Address, ...] = ()
    loki: Address = ("10.0.0.2", 3100)

    @classmethod
    def read(cls, data: dict[str, Any]) -> Knowledge:
        """Create the object from JSON values. Lists become tuples."""

        def frozen(value: Any) -> Any:
            return tuple(frozen(one) for one in value) if isinstance(value, list) else value

        return cls(**{name: frozen(value) for name, value in data.items()})


@dataclass(frozen=True)
class Try:
    """One attempt. ``reached`` is evidence that it reached a forbidden destination; empty without such evidence."""

    what: str
    reached: str = ""
    why_not: str = ""


@dataclass(frozen=True)
class Attack:
    """The input of one technique: the knowledge, and a token that identifies its traffic in logs outside the proxy."""

    knowledge: Knowledge
    token: str

    @property
    def denied(self) -> str:
        """Return a denied name that is unique to this technique."""
        return f"{self.token}.{self.knowledge.denied}"

    def tries(self, what: str, ask: Callable[[], str]) -> Try:
        """Run one attempt. Return its result. An OSError means that the attempt was stopped."""
        try:
            return Try(what, ask())
        except OSError as error:
            return Try(what, why_not=str(error) or type(error).__name__)

    def side_by_side(self, asks: Iterable[tuple[str, Callable[[], str]]]) -> Iterator[Try]:
        """Run many attempts of one kind in parallel, because each may wait until its timeout."""
        with ThreadPoolExecutor(THREADS) as pool:
            yield from pool.map(lambda one: self.tries(*one), asks)


Steps = Callable[[Attack], Iterator[Try]]


@dataclass(frozen=True)
class Technique:
    """A named attack technique.

    Attributes:
        places: the test locations in which to run it.
        lawful: locations whose class may request the technique's names, so DNS queries for them are not a bypass.
        alone: true if the technique must run alone, because it puts load on the proxy.
        description: one sentence that describes the technique.
    """

    name: str
    steps: Steps
    places: tuple[str, ...]
    lawful: tuple[str, ...]
    alone: bool
    description: str


@dataclass
class Registry:
    """All techniques by name, in the order of their registration."""

    techniques: dict[str, Technique] = field(default_factory=dict)

    def add(
        self, places: tuple[str, ...] = ENFORCED, *, lawful: tuple[str, ...] = (), alone: bool = False
    ) -> Callable[[Steps], Steps]:
        """Register a generator function as a technique. The first line of its docstring becomes the description."""

        def register(steps: Steps) -> Steps:
            name = steps.__name__
            assert name not in self.techniques, name
            assert steps.__doc__, name
            self.techniques[name] = Technique(name, steps, places, lawful, alone, steps.__doc__.split("\n")[0])
            return steps

        return register


REGISTRY = Registry()
technique = REGISTRY.add


# ── run the techniques ───────────────────────────────────────────────────────────────────────────────────────────


def outcome(found: Technique, attack: Attack) -> dict[str, Any]:
    """Run one technique. Return its outcome; ``broken`` is True if it raised an exception or made no attempt."""
    tries: list[Try] = []
    broken = False
    try:
        for one in found.steps(attack):
            tries.append(one)
    except Exception as error:  # noqa: BLE001  (a defect must not count as a stopped attempt)
        broken = True
        tries.append(Try("the technique itself", why_not=f"{type(error).__name__}: {error}"))
    reached = [f"{one.what}: {one.reached}" for one in tries if one.reached]
    stopped = sorted({one.why_not for one in tries if one.why_not})
    return {
        "name": found.name,
        "out": bool(reached),
        "broken": broken or not tries,
        "tries": len(tries),
        "reached": len(reached),
        "detail": ("; ".join(reached) or "; ".join(stopped))[:600],
    }


def in_a_child(found: Technique, attack: Attack) -> tuple[int, int]:
    """Start one technique in a child process. Return the process id, and the pipe from which to read the outcome."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setpgid(0, 0)
        with os.fdopen(writing, "w") as pipe:
            pipe.write(json.dumps(outcome(found, attack)))
        os._exit(0)
    os.close(writing)
    return child, reading


def run(techniques: list[Technique], knowledge: Knowledge, tokens: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Run techniques, at most ``AT_ONCE`` in parallel. Yield each outcome when its technique ends."""
    waiting = list(techniques)
    running: dict[int, tuple[int, Technique, float, list[bytes]]] = {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            found = waiting.pop(0)
            child, pipe = in_a_child(found, Attack(knowledge, tokens[found.name]))
            running[pipe] = (child, found, time.monotonic() + SECONDS, [])
        readable, _, _ = select.select(list(running), [], [], 0.2)
        for pipe in list(running):
            child, found, end, pieces = running[pipe]
            late = time.monotonic() > end
            if pipe in readable and (piece := os.read(pipe, 65536)):
                pieces.append(piece)
            elif pipe in readable or late:
                os.close(pipe)
                if late:
                    os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                del running[pipe]
                yield json.loads(b"".join(pieces) or b"null") or {
                    "name": found.name, "out": False, "broken": True, "tries": 0, "reached": 0,
                    "detail": f"ended after {SECONDS:.0f} s" if late else "ended without an outcome",
                }  # fmt: skip


def main(parcel: dict[str, Any]) -> None:
    """Run the techniques named in the input. Print one outcome per line."""
    knowledge = Knowledge.read(parcel["knowledge"])
    chosen = [found for found in REGISTRY.techniques.values() if found.name in parcel["tokens"]]
    for found in run(chosen, knowledge, parcel["tokens"]):
        print(json.dumps(found), flush=True)
