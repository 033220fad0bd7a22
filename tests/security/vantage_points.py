"""Test locations in the lab from which attacks run, and the knowledge that an attacker there could have.

OpenClaw itself starts the sandbox. The tests start three containers in the gateway's own Docker engine, and remove
them at the end: the browser as OpenClaw would start it, the build as `docker build` would, and the neighbour, on a new
network, as an agent with access to the engine's socket could. Nothing else in the lab changes.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from lab.hosts import NAME, agent_turn, in_gateway, on, run

from tests.security.inside.core import PEER, Address, Knowledge
from tests.support.policy_fuzz import ODD_HOSTS, spelled

type Level = Literal["application", "network"]

PORTS = {"gateway": 8080, "browser": 8081, "sandbox": 8082, "build": 8083}
PROXY: dict[Level, str] = {"application": "172.30.0.250", "network": "172.31.250.2"}
BROWSER_NETWORK: dict[Level, str] = {"application": "openclaw-sandbox-browser", "network": "openclaw-egress-browser"}
IMAGE = "openclaw-sandbox:bookworm-slim"
OURS = "openclaw-egress-attack"
LISTENING = 9222
"""A browser's CDP port. Each container listens on it, as a target for attacks from the others."""

INTERNET, CANARY, CANARY6 = "198.51.100.10", "198.51.100.66", "2001:db8::66"
LAWFUL = tuple((INTERNET, port) for port in (80, 443))
"""Exceptions to the address guard in the lab's policy: addresses that the gateway's class may request."""

INWARD = ("inward", "mixed", "loopback", "metadata", "v6", "proxy", "inner", "10-0-0-1.ip", "172-17-0-1.ip")


@dataclass(frozen=True)
class Place:
    """A test location from which attacks run.

    Attributes:
        name: one of :data:`tests.security.inside.core.PLACES`.
        class_name: the class of its listener; `-` if it has none.
        python: the command that starts Python there. To run a program, append ``-c`` and its text.
        control: host and path of a URL that must be reachable, or None.
    """

    name: str
    class_name: str
    python: tuple[str, ...]
    knowledge: Knowledge
    control: tuple[str, str] | None = None


def _engine(*words: str) -> str:
    """Run a `docker` command against the gateway's own Docker engine, and return its output."""
    return in_gateway("docker", *words).strip()


def _gone(*words: str) -> None:
    """Remove a container or network from the gateway's own Docker engine.

    Ignore failures, so that they do not hide the results of the attacks.
    """
    with contextlib.suppress(AssertionError):
        _engine(*words)


def _into(*words: str) -> tuple[str, ...]:
    """Return the command that runs ``words`` in the gateway's container, with standard input attached."""
    return (
        "docker",
        "exec",
        "-i",
        f"{NAME}-vps1",
        "docker",
        "exec",
        "-i",
        "--user",
        "node",
        "openclaw-gateway",
        *words,
    )


def _sandbox() -> str:
    """Return the code sandbox that OpenClaw started. If none runs, make OpenClaw start one."""
    find = ("ps", "--filter", "name=openclaw-sbx-", "--format", "{{.Names}}")
    if not _engine(*find):
        agent_turn("hello")
    return _engine(*find).split()[0]


def _address_of(container: str) -> str:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    return _engine("inspect", "--format", form, container).split()[0]


def _bridges() -> list[str]:
    """Return the gateway's address on each bridge of its own Docker engine, including IPv6 addresses."""
    networks = _engine("network", "ls", "--quiet", "--filter", "driver=bridge").split()
    return _engine("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Gateway}} {{end}}", *networks).split()


def _hosts() -> tuple[str, ...]:
    found = (*in_gateway("hostname", "-I").split(), *on("vps1", "hostname", "-I").split(), *_bridges(), "10.0.0.2")
    return tuple(dict.fromkeys(found))


def spellings(level: Level) -> tuple[Address, ...]:
    """Return the addresses of VPS-2, the health port, the metadata service and VPS-1, each in unusual notations."""
    chance = random.Random(1)  # Use a fixed seed, so that each run chooses the same notations.
    inner = ("10.0.0.2", 22), ("127.0.0.1", 9464), ("169.254.169.254", 80), (PROXY[level], 9464), ("10.0.0.1", 22)
    found = [(spelled(chance, host), port) for host, port in inner for _ in range(6)]
    found += [(f"[{form}{host}]", port) for host, port in inner for form in ("::ffff:", "::", "64:ff9b::")]
    found += [(host, 80) for host in ODD_HOSTS if host.isprintable()]
    return tuple(dict.fromkeys(found))


def _world(level: Level, place: str, class_name: str) -> Knowledge:
    proxy = PROXY[level]
    own = PORTS.get(class_name, PORTS["gateway"])
    allowed = {"sandbox": "packages.example.com", "browser": "www.example.com", "build": "registry.example.com"}
    return Knowledge(
        place=place,
        proxy=(proxy, own),
        listeners=tuple((proxy, port) for port in PORTS.values() if port != own or place in ("neighbour", PEER)),
        health=tuple((host, 9464) for host in (proxy, *PROXY.values())),
        allowed=allowed.get(place, ""),
        denied="internal.example.com" if place == "browser" else "denied.example.com",
        inspected="api.anthropic.com" if place in ("browser", "gateway") else "",
        canary=CANARY,
        canary6=CANARY6,
        resolver=INTERNET,
        hosts=_hosts(),
        inward=tuple(f"{name}.rebind.example.com" for name in INWARD),
        spellings=spellings(level),
        lawful=LAWFUL if place == "gateway" else (),
    )


def _container(stack: contextlib.ExitStack, place: str, *options: str) -> str:
    """Start a test container. It is removed when the stack closes."""
    name = f"{OURS}-{place}"
    stack.callback(_gone, "rm", "--force", "--volumes", name)
    _engine("run", "--detach", "--name", name, *options, IMAGE, "sleep", "3600")
    return name


def _network(stack: contextlib.ExitStack, name: str) -> None:
    """Create a network inside the gateway unless it exists. A new network is removed when the stack closes."""
    if name not in _engine("network", "ls", "--format", "{{.Name}}").split():
        _engine("network", "create", name)
        stack.callback(_gone, "network", "rm", name)


def _peer(stack: contextlib.ExitStack) -> str:
    """Start a container with its own address on the internal network, where the gateway's rules do not filter it."""
    inner = PROXY["network"].rpartition(".")[0]
    network = f"{OURS}-{PEER}"
    at = ("--subnet", f"{inner}.0/24", "--gateway", f"{inner}.4")
    _engine("network", "create", "--driver", "macvlan", "--opt", "parent=eth0", *at, network)
    stack.callback(_gone, "network", "rm", network)
    rights = ("--user", "0", "--cap-add", "NET_ADMIN")
    return _container(stack, PEER, "--network", network, "--ip", f"{inner}.77", *rights)


def no_way_out_of_the_lab() -> None:
    """Check that every network of the lab is internal, because some targets are real internet addresses.

    Raises:
        RuntimeError: a network is not internal; no packets were sent.
    """
    hosts = run("docker", "ps", "--quiet", "--filter", f"name=^{NAME}-").split()
    form = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    for network in sorted(set(run("docker", "inspect", "--format", form, *hosts).split()) - {"none"}):
        if run("docker", "network", "inspect", "--format", "{{.Internal}}", network).strip() != "true":
            raise RuntimeError(f"{network} is not an internal network: attacks could leave this machine")


@contextlib.contextmanager
def places(level: Level) -> Iterator[list[Place]]:
    """Yield all test locations in the lab. Remove the test containers at the end."""
    no_way_out_of_the_lab()
    with contextlib.ExitStack() as stack:
        _network(stack, BROWSER_NETWORK[level])
        _network(stack, f"{OURS}-unknown")
        harmless = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
        published = ("--publish", f"{LISTENING}:{LISTENING}")
        containers = {
            "sandbox": _sandbox(),
            "browser": _container(stack, "browser", "--network", BROWSER_NETWORK[level], *harmless, *published),
            # Run as a RUN step of `docker build` does: as root, on the engine's default bridge.
            "build": _container(stack, "build", "--network", "bridge", "--user", "0"),
            # Add capabilities, because a client with access to the engine's socket can also choose them for a
            # container.
            "neighbour": _container(
                stack, "neighbour", "--network", f"{OURS}-unknown", "--user", "0", "--cap-add", "NET_ADMIN"
            ),
        }
        if level == "network":
            containers[PEER] = _peer(stack)
        listening = {}
        for place, container in containers.items():
            _engine("exec", "--detach", container, "timeout", "3600", "python3", "-m", "http.server", str(LISTENING))
            listening[place] = (_address_of(container), LISTENING)
        controls = {
            "sandbox": ("packages.example.com", "/"),
            "browser": ("www.example.com", "/"),
            "build": ("registry.example.com", "/"),
        }
        found = []
        for place, container in containers.items():
            class_name = "-" if place in ("neighbour", PEER) else place
            knowledge = replace(
                _world(level, place, class_name),
                neighbours=tuple(address for other, address in listening.items() if other != place),
            )
            python = _into("docker", "exec", "-i", container, "python3")
            found.append(Place(place, class_name, python, knowledge, controls.get(place)))
        gateway = _world(level, "gateway", "gateway")
        own = {*in_gateway("hostname", "-I").split(), *_bridges()}
        gateway = replace(gateway, hosts=tuple(host for host in gateway.hosts if host not in own))
        found.append(
            Place("gateway", "gateway", _into("python3"), gateway, ("api.anthropic.com", "/v1/models?attack-control="))
        )
        yield found
