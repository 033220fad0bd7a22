"""Test locations in sibling containers: sandboxes that a gateway with the host's Docker socket starts next to itself.

The tests start one container of each class on VPS-1, with the labels and the network of OpenClaw's sandboxes. An
attacker there has more rights than in OpenClaw's sandboxes: root, raw sockets, and the right to configure the network.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator

from lab.hosts import NAME, on, soon

from tests.security.inside import frames
from tests.security.inside.core import Knowledge
from tests.security.remote_exec import run_inside
from tests.security.vantage_points import (
    CANARY,
    CANARY6,
    INTERNET,
    INWARD,
    LISTENING,
    OURS,
    PORTS,
    PROXY,
    Level,
    Place,
    no_way_out_of_the_lab,
    spellings,
)

IMAGE = "openclaw-egress-lab-proxy-base"
"""An image in the lab's VPS-1 that has Python."""

ALLOWED = {"sandbox": "packages.example.com", "browser": "www.example.com"}
RIGHTS = ("--user", "0:0", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW")


def _docker(*words: str) -> str:
    return on("vps1", "docker", *words).strip()


def class_networks() -> dict[str, tuple[str, str]]:
    """Return the network of each class, and the proxy's address in it."""
    form = '{{.Name}} {{.Label "openclaw.egress.class"}}'
    listed = _docker("network", "ls", "--filter", "label=openclaw.egress.class", "--format", form).splitlines()
    found = {}
    for network, class_name in (line.split() for line in listed):
        (settings,) = json.loads(_docker("network", "inspect", network))
        addresses = {one["Name"]: one["IPv4Address"].partition("/")[0] for one in settings["Containers"].values()}
        found[class_name] = (network, addresses["openclaw-proxy"])
    return found


def host_addresses() -> tuple[list[str], list[str]]:
    """Return the MAC addresses and the IP addresses of VPS-1, including link-local ones."""
    interfaces = json.loads(on("vps1", "ip", "-json", "address"))
    macs = {one["address"] for one in interfaces if one["link_type"] == "ether"}
    return sorted(macs), sorted(
        {info["local"] for one in interfaces for info in one["addr_info"]} - {"127.0.0.1", "::1"}
    )


def _other_addresses() -> list[str]:
    """Return the addresses of the containers on VPS-1, such as the gateway, and of its bridges."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    containers = _docker("inspect", "--format", form, *_docker("ps", "--quiet").split()).split()
    networks = _docker("network", "ls", "--quiet", "--filter", "driver=bridge").split()
    return (
        containers
        + _docker("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Gateway}} {{end}}", *networks).split()
    )


def _world(class_name: str, proxies: dict[str, str], level: Level, at: dict[str, str]) -> Knowledge:
    own = proxies[class_name]
    everywhere = [(address, port) for address in {*proxies.values(), *PROXY.values()} for port in PORTS.values()]
    link_local = [f"{address}%eth0" for address in host_addresses()[1] if address.startswith("fe80:")]
    hosts = dict.fromkeys((*host_addresses()[1], *link_local, *_other_addresses(), "10.0.0.2"))
    return Knowledge(
        place=class_name,
        proxy=(own, PORTS[class_name]),
        listeners=tuple(one for one in everywhere if one != (own, PORTS[class_name])),
        health=tuple((host, 9464) for host in {*proxies.values(), *PROXY.values()}),
        allowed=ALLOWED[class_name],
        denied="internal.example.com" if class_name == "browser" else "denied.example.com",
        inspected="api.anthropic.com" if class_name == "browser" else "",
        canary=CANARY,
        canary6=CANARY6,
        resolver=INTERNET,
        hosts=tuple(host for host in hosts if host not in (own, at[class_name])),
        neighbours=tuple((address, LISTENING) for other, address in at.items() if other != class_name),
        inward=tuple(f"{name}.rebind.example.com" for name in INWARD),
        spellings=spellings(level),
    )


@contextlib.contextmanager
def places(level: Level) -> Iterator[list[Place]]:
    """Yield one test location in a sibling container of each class. Remove the containers at the end."""
    no_way_out_of_the_lab()
    networks = class_networks()
    proxies = {class_name: address for class_name, (_, address) in networks.items()}
    with contextlib.ExitStack() as stack:
        for class_name, (network, address) in networks.items():
            container = f"{OURS}-{class_name}"
            stack.callback(_docker, "rm", "--force", container)
            proxy = f"http://{address}:{PORTS[class_name]}"
            variables = [word for name in ("HTTP_PROXY", "HTTPS_PROXY") for word in ("--env", f"{name}={proxy}")]
            labels = ["--label", "openclaw.sandbox=1"]
            labels += ["--label", "openclaw.sandboxBrowser=1"] if class_name == "browser" else []
            _docker(
                *("run", "--detach", "--init", "--name", container, "--network", network, "--dns", proxies["sandbox"]),
                *(*RIGHTS, *variables, *labels, IMAGE, "python3", "-m", "http.server", str(LISTENING)),
            )
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        at = {name: _docker("inspect", "--format", form, f"{OURS}-{name}") for name in networks}
        found = []
        for class_name in networks:
            python = ("docker", "exec", "-i", f"{NAME}-vps1", "docker", "exec", "-i", f"{OURS}-{class_name}", "python3")
            knowledge = _world(class_name, proxies, level, at)
            found.append(Place(class_name, class_name, python, knowledge, (ALLOWED[class_name], "/")))
        yield found


_HEAR = f"""
import select, socket, sys
v4, v6 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
v4.bind(("", {frames.PORT})); v6.bind(("::", {frames.PORT}))
with open(sys.argv[1], "w", buffering=1) as log:
    print("listening", file=log)
    while ready := select.select([v4, v6], [], [], 15)[0]:
        for sock in ready:
            data, source = sock.recvfrom(2048)
            print(data.decode(errors="replace"), source[0], file=log)
            if data == b"end":
                sys.exit()
"""


def heard_by_the_host(pythons: dict[str, tuple[str, ...]], knowledge: Knowledge) -> dict[str, int]:
    """Send raw frames from each of the containers to VPS-1. Return how many datagrams it received from each."""
    tokens = {name: f"frame-{secrets.token_hex(4)}-{name}" for name in pythons}
    log = f"/tmp/heard-{secrets.token_hex(4)}"
    on("vps1", "sh", "-c", 'python3 -c "$0" "$1" >/dev/null 2>&1 </dev/null &', _HEAR, log)
    assert soon(lambda: on("vps1", "sh", "-c", 'cat "$0" 2>/dev/null || true', log), 10), "VPS-1 does not listen"
    macs, addresses = host_addresses()
    for name, python in pythons.items():
        run_inside(python, frames, knowledge, macs=macs, addresses=addresses, token=tokens[name])
    end = f"import socket; socket.socket(2, 2).sendto(b'end', ('127.0.0.1', {frames.PORT}))"
    on("vps1", "python3", "-c", end)
    assert soon(lambda: "\nend " in on("vps1", "cat", log), 10), "VPS-1 did not receive its own datagram"
    lines = on("vps1", "cat", log).splitlines()
    on("vps1", "rm", log)
    return {name: sum(line.startswith(token) for line in lines) for name, token in tokens.items()}


def on_the_bridge() -> tuple[str, ...]:
    """Return the command that starts Python in a new container on Docker's own bridge. The host receives its frames."""
    container = ("docker", "run", "--rm", "-i", "--network", "bridge", *RIGHTS, IMAGE, "python3")
    return ("docker", "exec", "-i", f"{NAME}-vps1", *container)
