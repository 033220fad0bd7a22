"""What a technique is, what it knows of where it runs, and how all of them are run in a container.

A technique is a generator function: each :class:`Try` that it yields says what was tried and, where something came
back that the wall should have kept, what that was. What a client cannot see (a packet that left without an answer, a
name that was looked up) is found on the other side by the technique's token.
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
"""What a technique may take; then it is ended, and is broken: what it did not try proves nothing."""

AT_ONCE = 6
"""Techniques that run side by side: most of their time is spent waiting for what does not come."""

THREADS = 12

Address = tuple[str, int]

WALLED = ("sandbox", "browser", "build", "neighbour")
"""Places with a wall of their own; the gateway's is the network that it stands on."""

PLACES = (*WALLED, "gateway")

PEER = "macvlan"
"""A host of its own on the internal network: a macvlan network that somebody made in the gateway's daemon."""


@dataclass(frozen=True)
class World:
    """What an attacker in one place knows, or could find out.

    Attributes:
        place: one of :data:`PLACES`, or :data:`PEER`.
        proxy: the listener of its class.
        listeners: those of other classes.
        health: where /healthz, /readyz and /metrics would be.
        allowed: a name that its class may reach; empty where there is none.
        denied: the end of names that it may not: ``TOKEN.denied``.
        inspected: a name that is decrypted and that the class may reach; empty where there is none.
        tls_port, http_port: of the sites behind these names.
        canary: an address on the internet that no policy allows.
        resolver: a name server out there.
        hosts: addresses of VPS-1, VPS-2, the gateway and every bridge, none of which is to be reached.
        neighbours: listeners in containers of other classes.
        inward: names that resolve to addresses of the inside.
        spellings: inner addresses in odd forms, with ports.
        lawful: of addresses, those that its class may ask the proxy for.
        loki: where the records are.
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
    def read(cls, data: dict[str, Any]) -> World:
        """From JSON, whose lists become tuples."""

        def frozen(value: Any) -> Any:
            return tuple(frozen(one) for one in value) if isinstance(value, list) else value

        return cls(**{name: frozen(value) for name, value in data.items()})


@dataclass(frozen=True)
class Try:
    """One thing that was tried. ``reached`` is the evidence that it got out, and empty where it did not."""

    what: str
    reached: str = ""
    why_not: str = ""


@dataclass(frozen=True)
class Attack:
    """A world, and the word by which one technique is recognised on the other side."""

    world: World
    token: str

    @property
    def denied(self) -> str:
        """A name of this technique's own that its class may not reach."""
        return f"{self.token}.{self.world.denied}"

    def tries(self, what: str, ask: Callable[[], str]) -> Try:
        """Do it; an error of the operating system is how a wall feels."""
        try:
            return Try(what, ask())
        except OSError as error:
            return Try(what, why_not=str(error) or type(error).__name__)

    def side_by_side(self, asks: Iterable[tuple[str, Callable[[], str]]]) -> Iterator[Try]:
        """Many of the same kind at once, where each may have to wait for nothing."""
        with ThreadPoolExecutor(THREADS) as pool:
            yield from pool.map(lambda one: self.tries(*one), asks)


Steps = Callable[[Attack], Iterator[Try]]


@dataclass(frozen=True)
class Technique:
    """A named way to try.

    Attributes:
        places: where it makes sense.
        lawful: of these, where its names may be asked of the proxy, so that seeing them outside proves nothing.
        alone: it loads the proxy, and runs by itself.
        description: a sentence.
    """

    name: str
    steps: Steps
    places: tuple[str, ...]
    lawful: tuple[str, ...]
    alone: bool
    description: str


@dataclass
class Registry:
    """Every technique, by name, in the order in which the modules were read."""

    techniques: dict[str, Technique] = field(default_factory=dict)

    def add(
        self, places: tuple[str, ...] = WALLED, *, lawful: tuple[str, ...] = (), alone: bool = False
    ) -> Callable[[Steps], Steps]:
        """Register a generator function; its name is the technique's, its docstring says what it does."""

        def register(steps: Steps) -> Steps:
            name = steps.__name__
            assert name not in self.techniques, name
            assert steps.__doc__, name
            self.techniques[name] = Technique(name, steps, places, lawful, alone, steps.__doc__.split("\n")[0])
            return steps

        return register


REGISTRY = Registry()
technique = REGISTRY.add


# ── running them ─────────────────────────────────────────────────────────────────────────────────────────────────


def outcome(found: Technique, attack: Attack) -> dict[str, Any]:
    """Run one technique to its end: ``{"name", "out", "tries", "detail"}``, with ``broken`` where it has a defect."""
    tries: list[Try] = []
    broken = False
    try:
        for one in found.steps(attack):
            tries.append(one)
    except Exception as error:  # noqa: BLE001  (a defect of the technique, which must not pass for a wall)
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
    """Run one technique in a process of its own; returns its id and where its outcome is read."""
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


def run(techniques: list[Technique], world: World, tokens: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Run them, some side by side, and give each outcome as it comes."""
    waiting = list(techniques)
    running: dict[int, tuple[int, Technique, float, list[bytes]]] = {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            found = waiting.pop(0)
            child, pipe = in_a_child(found, Attack(world, tokens[found.name]))
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
    """Run what the parcel names; an outcome a line."""
    world = World.read(parcel["world"])
    chosen = [found for found in REGISTRY.techniques.values() if found.name in parcel["tokens"]]
    for found in run(chosen, world, parcel["tokens"]):
        print(json.dumps(found), flush=True)
