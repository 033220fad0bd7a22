"""Prints what a host holds: every file (type, mode, owner, digest or target), and Docker's images, networks, containers.

Left out is what changes by itself: the kernel's file systems, logs, caches, Docker's own store, the gateway's data, and
git's cache of file times, Ansible's own directories.
"""

import hashlib
import os
import stat
import subprocess
import sys

LEFT_OUT = (
    "/proc", "/sys", "/root/.ansible_async", "/dev", "/run", "/tmp", "/var/log", "/var/lib/docker", "/var/lib/containerd", "/root/.ansible",
    "/var/cache", "/opt/lab", "/var/lib/victoria-logs", "/var/lib/loki-stand-in.jsonl", "/root/.docker", "/root/.cache",
    "/home/openclaw/openclaw/data/openclaw", "/home/openclaw/openclaw/.git/index", "/home/openclaw/.docker", "/etc/docker/key.json",
)  # fmt: skip


def line_of(path: str) -> str:
    found = os.lstat(path)
    what = f"{stat.S_IMODE(found.st_mode):04o} {found.st_uid}:{found.st_gid}"
    if stat.S_ISLNK(found.st_mode):
        return f"{path} link {found.st_uid}:{found.st_gid} {os.readlink(path)}"
    if stat.S_ISDIR(found.st_mode):
        return f"{path} dir {what}"
    if stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            return f"{path} file {what} {hashlib.sha256(file.read()).hexdigest()[:16]}"
    return f"{path} other {what}"


def walk(top: str) -> None:
    for name in sorted(os.listdir(top)):
        path = os.path.join(top, name)
        if path in LEFT_OUT:
            continue
        print(line_of(path))
        if os.path.isdir(path) and not os.path.islink(path):
            walk(path)


def docker(*words: str) -> None:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    for line in sorted(done.stdout.splitlines()):
        print(f"docker {words[0]} {line}")


walk("/")
if os.path.exists("/var/run/docker.sock"):
    sys.stdout.flush()
    docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    docker("network", "ls", "--format", "{{.Name}} {{.ID}}")
    docker("ps", "--all", "--format", "{{.Names}} {{.Image}}")
    sys.stdout.flush()
    subprocess.run(
        "docker ps --all --quiet | xargs -r docker inspect --format "
        "'docker inspect {{.Name}} {{.Config.Cmd}} {{.Config.Env}} {{range .Mounts}}{{.Source}}>{{.Destination}} {{end}}'",
        shell=True, check=False,
    )  # fmt: skip
