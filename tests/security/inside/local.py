"""Techniques that use local resources of the container: sockets, devices, files and client settings."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.security.inside.core import ENFORCED, PLACES, Attack, Try, technique
from tests.security.inside.sockets import PATIENCE, read_some, tcp

SOCKETS = (
    "/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock",
    "/run/docker/containerd/containerd.sock",
    "/run/podman/podman.sock", "/run/crio/crio.sock", "/run/user/0/docker.sock", "/run/user/1000/docker.sock",
    "/run/buildkit/buildkitd.sock", "/run/systemd/private", "/run/dbus/system_bus_socket", "/run/snapd.socket",
)  # fmt: skip
SECRETS = ("mitmproxy-ca.pem", "root-key.pem", "root.key", "spool.db", "policy.yml")
UNINTERESTING = {"proc", "sys", "node_modules", "site-packages", "locale", "doc", ".git"}


def _files(limit: int = 400_000) -> Iterator[tuple[str, str]]:
    """Yield the files in the container as (folder, name). Skip folders in ``UNINTERESTING``, and stop at the limit."""
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if name not in UNINTERESTING]
        for name in names:
            limit -= 1
            if limit < 0:
                return
            yield folder, name


@technique(ENFORCED)
def docker_socket(attack: Attack) -> Iterator[Try]:
    """Search for a Docker socket: at usual paths, among all socket files, and among abstract sockets."""
    found = []
    for folder, name in _files():
        path = f"{folder}/{name}"
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                found.append(path)
    for path in dict.fromkeys((*SOCKETS, *found)):
        yield attack.tries(path, lambda path=path: _unix(path))
    with contextlib.suppress(OSError), Path("/proc/net/unix").open() as file:
        names = {line.split()[-1] for line in file if line.split()[-1].startswith("@")}
        for name in sorted(names)[:50]:
            yield attack.tries(name, lambda name=name: _unix("\0" + name[1:]))


def _unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        sock.sendall(b"GET /version HTTP/1.0\r\n\r\n")
        return f"connected, {read_some(sock, 80)[:80]!r}"


@technique(ENFORCED)
def devices_and_hypervisors(attack: Attack) -> Iterator[Try]:
    """Open a tunnel device, the machine's disks and memory, and vsock, which bypasses IP and therefore the firewall."""
    for path in ("/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/kmsg", "/dev/mem", "/dev/sda", "/dev/vda"):
        yield attack.tries(path, lambda path=path: _opened(path))
    for cid, port in ((1, 22), (2, 22), (2, 2375), (3, 22)):
        yield attack.tries(f"vsock {cid}:{port}", lambda cid=cid, port=port: _vsock(cid, port))
    for path in ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
        yield attack.tries(f"writing {path}", lambda path=path: _opened(path))


def _opened(path: str) -> str:
    os.close(os.open(path, os.O_RDWR))
    return "opened"


def _vsock(cid: int, port: int) -> str:
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((cid, port))
        return "connected"


@technique(PLACES)
def keys_and_records(attack: Attack) -> Iterator[Try]:
    """Search the container's files for the proxy's CA key, spool and policy."""
    for folder, name in _files():
        if name in SECRETS:
            path = f"{folder}/{name}"
            yield attack.tries(path, lambda path=path: _readable(path))
    yield Try("every file")


def _readable(path: str) -> str:
    with Path(path).open("rb") as file:
        return f"{len(file.read(64))} bytes"


@technique(PLACES)
def without_the_proxy_variables(attack: Attack) -> Iterator[Try]:
    """Run curl and git without proxy variables, with NO_PROXY=*, with a PAC file, and with another proxy."""
    canary, proxy = attack.knowledge.canary, "{}:{}".format(*attack.knowledge.proxy)
    bare = {name: value for name, value in os.environ.items() if not name.lower().endswith("proxy")}
    curl = ("curl", "-sS", "-k", "--max-time", "4", "-o", "/dev/null", "-w", "%{http_code}")
    variables: tuple[tuple[str, dict[str, str]], ...] = (
        ("without variables", {}),
        ("NO_PROXY=*", {**_named(f"http://{proxy}"), "NO_PROXY": "*", "no_proxy": "*"}),
        ("PAC", {"auto_proxy": f"http://{canary}/{attack.token}/proxy.pac"}),
        ("SOCKS", _named(f"socks5h://{proxy}")),
        ("another proxy", _named(f"http://{canary}:3128")),
    )
    for what, environment in variables:
        for command in (
            (*curl, f"http://{canary}/{attack.token}"),
            (*curl, f"http://direct.{attack.denied}/{attack.token}"),
            ("git", "ls-remote", f"http://{canary}/{attack.token}"),
        ):
            yield attack.tries(
                f"{what}, {command[0]} {command[-1]}", lambda c=command, e=environment: _command(c, bare | e)
            )


def _named(url: str) -> dict[str, str]:
    return dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"), url)


def _command(command: tuple[str, ...], environment: dict[str, str]) -> str:
    """Run a command that prints an HTTP status code.

    Return the code as evidence of a bypass, unless it is 403, which is the proxy's refusal, or there was no response.
    """
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=8, check=False)
    except subprocess.TimeoutExpired:
        return ""
    said = done.stdout.strip()
    return f"status {said}" if said.isdigit() and said not in ("000", "403") else ""


@technique(PLACES)
def automatic_configuration(attack: Attack) -> Iterator[Try]:
    """Search for a proxy that the network or DNS announces (WPAD)."""
    for name in ("wpad", "wpad.example.com", "wpad.localdomain"):
        yield attack.tries(
            name, lambda name=name: tcp(name, 80, f"GET /{attack.token}/wpad.dat HTTP/1.0\r\n\r\n".encode())
        )
