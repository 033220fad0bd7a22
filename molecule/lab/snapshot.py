"""Prints what a host holds: every file (type, mode, owner, digest or target), Docker's images, networks, containers.

Left out is what changes by itself: the kernel's file systems, logs, caches, Docker's own store, the gateway's data,
git's cache of file times, Ansible's own directories.
"""

import hashlib
import json
import os
import stat
import subprocess

LEFT_OUT = {
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/log", "/var/cache", "/var/lib/docker", "/var/lib/containerd"),
    *("/root/.ansible", "/root/.ansible_async", "/root/.docker", "/root/.cache", "/home/openclaw/.docker"),
    *("/home/openclaw/openclaw/data/openclaw", "/home/openclaw/openclaw/.git/index", "/etc/docker/key.json"),
    *("/opt/lab", "/var/lib/victoria-logs", "/var/lib/loki-stand-in.jsonl"),
}


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


def docker(*words: str) -> list[str]:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    return sorted(done.stdout.splitlines())


walk("/")
if os.path.exists("/var/run/docker.sock"):
    for line in docker("image", "ls", "--format", "image {{.Repository}}:{{.Tag}} {{.ID}}"):
        print(line)
    for line in docker("network", "ls", "--format", "network {{.Name}} {{.ID}}"):
        print(line)
    for name in docker("ps", "--all", "--format", "{{.Names}}"):
        found = json.loads(subprocess.check_output(["docker", "inspect", name], text=True))[0]
        config = found["Config"]
        mounts = sorted(f"{mount['Source']}>{mount['Destination']}" for mount in found["Mounts"])
        print("container", name, found["Image"], config["Cmd"], sorted(config["Env"]), mounts)
