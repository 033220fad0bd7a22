"""Print the state of a host: every file (type, mode, owner, digest or target), and Docker's objects.

It omits everything that changes independently of the collection: the kernel's file systems, logs, caches, Docker's data
directory, the gateway's data, git's index (which contains file times), and Ansible's own directories.
"""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
from pathlib import Path

ROOTS_HOME = Path("~root").expanduser()
LEFT_OUT = {
    "/dev", "/proc", "/run", "/sys", "/tmp", "/var/cache", "/var/log",
    "/etc/docker/key.json", "/var/lib/containerd", "/var/lib/docker",
    *(str(ROOTS_HOME / name) for name in (".ansible", ".ansible_async", ".cache", ".docker")), "/home/openclaw/.docker",
    "/home/openclaw/openclaw/.git/index", "/home/openclaw/openclaw/data/openclaw",
    "/srv/openclaw-docker",
    "/opt/lab", "/var/lib/loki-stand-in.jsonl", "/var/lib/victoria-logs",
}  # fmt: skip


def line_of(path: Path) -> str:
    """Return one line for a file, a directory, a link or a special file."""
    found = path.lstat()
    owner = f"{found.st_uid}:{found.st_gid}"
    what = f"{stat.S_IMODE(found.st_mode):04o} {owner}"
    if stat.S_ISLNK(found.st_mode):
        return f"{path} link {owner} {path.readlink()}"
    if stat.S_ISDIR(found.st_mode):
        return f"{path} dir {what}"
    if stat.S_ISREG(found.st_mode):
        return f"{path} file {what} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    return f"{path} other {what}"


def walk(top: Path) -> None:
    """Print the contents of a directory and its subdirectories, ordered by name."""
    for path in sorted(top.iterdir(), key=lambda path: path.name):
        if str(path) in LEFT_OUT:
            continue
        print(line_of(path))
        if path.is_dir() and not path.is_symlink():
            walk(path)


def docker(*words: str) -> list[str]:
    """Return the output lines of a docker command."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


walk(Path("/"))
if Path("/var/run/docker.sock").exists():
    for kind, columns in (
        ("image", "{{.Repository}}:{{.Tag}} {{.ID}}"),
        ("network", "{{.Name}} {{.ID}}"),
        ("volume", "{{.Name}}"),
    ):
        for line in sorted(docker(kind, "ls", "--format", columns)):
            print(f"docker {kind} {line}")
    for line in sorted(docker("ps", "--all", "--format", "{{.Names}} {{.Image}}")):
        print(f"docker ps {line}")
    # Sort environment and mounts of containers, because Docker prints them in a different order each time.
    containers = docker("ps", "--all", "--quiet")
    for found in json.loads("".join(docker("inspect", *containers))) if containers else []:
        config, mounts = found["Config"], [f"{mount['Source']}>{mount['Destination']}" for mount in found["Mounts"]]
        print("docker inspect", found["Name"], config["User"], config["Entrypoint"], config["Cmd"])
        for kind, values in (
            ("env", config["Env"]),
            ("mount", mounts),
            ("network", found["NetworkSettings"]["Networks"]),
            ("port", [f"{port} {bound}" for port, bound in (found["HostConfig"]["PortBindings"] or {}).items()]),
        ):
            for value in sorted(values):
                print("docker inspect", found["Name"], kind, value)
