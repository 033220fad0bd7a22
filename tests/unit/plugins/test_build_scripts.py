"""Tests that run each script in `build_scripts` unpatched and patched, and compare the two runs.

Both runs must have the same exit status, output, commands, standard input and clone, byte for byte. The only difference
is the bootstrap in the gateway's images. If the patch refuses a script, the test applies the remedy from the message
and repeats the comparison with the changed script.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.openclaw.egress.plugins.module_utils.build_script import BuildScriptError, BuildScriptPatch

ROOT = Path(__file__).parents[3]
CORPUS = Path(__file__).parent / "build_scripts"
NAMES = sorted(path.stem for path in CORPUS.iterdir())
# For each refused script: a pattern of the message, and the edit that the message advises as (old text, new text).
REFUSED = {
    "absolute_path": ("bin/docker is called by its path; write `docker`", ('"$HOME/bin/docker" build', "docker build")),
    "crlf": ("lines end in CRLF.*Convert them to LF", ("\r\n", "\n")),
    "git_url": (
        "a URL as build context.*clone the repository and build the directory",
        ("https://github.com/openclaw/openclaw.git#main", '"$CLONE"'),
    ),
    "remote_ssh": ("`ssh` runs docker build.*call `docker build` directly", ("ssh builder docker", "docker")),
    "stdin_file_read": ("build from standard input.*use a Dockerfile and a directory", ("-f - ", "")),
}  # fmt: skip
ANSWERS = "yes\nfirst\nmore of standard input\n"
DOCKERFILE = "FROM node:24 AS build\nWORKDIR /src\nCOPY . .\nFROM node:24 AS runtime\nWORKDIR /app\nUSER node\n"
# Prefer the system's Python: another user may have no permission to run the Python of the virtual environment.
PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
FAKE = f"#!{PYTHON} -IS\n" + (ROOT / "tests/support/build_docker.py").read_text()
SUDO = """#!/bin/sh
while :; do case $1 in -u) shift 2 ;; -*) shift ;; *) break ;; esac; done
exec env PATH="$FAKE_BIN:/usr/bin:/bin" "$@"
"""


@dataclass
class Outcome:
    status: int
    stdout: str
    stderr: str
    images: list[dict]
    calls: list[dict]
    clone: list[str]
    home: list[str]


class Host:
    """A home directory with a clone of OpenClaw and a Docker fake. It has the same path in both runs of a script."""

    def __init__(self, root: Path, template: Path | None = None) -> None:
        self.root = root
        self.clone, self.bin = root / "openclaw", root / "fake"
        for name, text in {
            "openclaw/Dockerfile": DOCKERFILE,
            "openclaw/Dockerfile.dockerignore": ".git\n",
            "openclaw/.dockerignore": "*\n!extensions\n",
            "openclaw/Dockerfile.sandbox": "FROM debian:trixie\n",
            "openclaw/scripts/docker/sandbox/Dockerfile": "FROM debian:trixie\n",
            "openclaw/docker/Dockerfile.gateway": DOCKERFILE.replace("24", "26"),
            "openclaw/extras/squid/Dockerfile": "FROM debian:trixie\nRUN install squid\n",
            "openclaw/package.json": '{"name": "openclaw"}\n',
            "openclaw/extensions/a.ts": "plain\n",
            "openclaw/docker-compose.yml": "services: {}\n",
            "fake/docker": FAKE,
            "fake/sudo": SUDO,
            "bin/.keep": "",
            "tmp/.keep": "",
            "bootstrap/proxy-bootstrap.cjs": "// the bootstrap\n",
            "gitconfig": "[user]\nname = op\nemail = op@example.com\n[init]\ndefaultBranch = main\n",
        }.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        shutil.copy(self.bin / "docker", self.bin / "docker-compose")
        build = {"context": str(self.clone), "args": {"A": "$$B"}}
        gateway = {"build": build, "image": "openclaw:local", "depends_on": {"db": {"condition": "service_started"}}}
        sandbox = {"build": {"context": str(self.clone), "dockerfile": "Dockerfile.sandbox"}}
        db = {"image": "postgres", "environment": {"PASSWORD": "hunter2"}}
        project = {"name": "demo", "services": {"openclaw-gateway": gateway, "sandbox": sandbox, "db": db}}
        (self.bin / ".compose.json").write_text(json.dumps(project))
        target = {"context": str(self.clone), "dockerfile": "Dockerfile", "tags": ["openclaw:local"]}
        (self.bin / ".bake.json").write_text(json.dumps({"target": {"gateway": target}}))
        for name in ("docker", "docker-compose", "sudo"):
            (self.bin / name).chmod(0o755)
        self.environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(root),
            "CLONE": str(self.clone),
            "FAKE_BIN": str(self.bin),
            "RECORD": str(self.bin / ".record"),
            "TMPDIR": str(root / "tmp"),
            "GIT_CONFIG_GLOBAL": str(root / "gitconfig"),
        }
        if template is None:
            for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "1"], ["tag", "v1"], ["tag", "v2"]):
                self.git(*command)
        else:
            shutil.copytree(template, self.clone / ".git")
            self.git("status")  # refreshes Git's index

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.clone), *arguments]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def run(self, script: str, name: str = "bash", **environment: str) -> Outcome:
        path = self.root / "build-openclaw.sh"
        path.write_text(script, newline="")
        record = Path(self.environment["RECORD"])
        record.write_text("")
        first = script.partition("\n")[0]
        shell = "dash" if first.endswith(("/sh", "/dash")) else "bash"
        done = subprocess.run(
            [shell, str(path)],
            env={**self.environment, **environment},
            input=ANSWERS,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        text = re.sub(r"/tmp\.\w{10}\b", "/tmp.RANDOM", record.read_text())
        events = [json.loads(line) for line in text.splitlines()]
        return Outcome(
            done.returncode,
            done.stdout,
            "".join(line for line in done.stderr.splitlines(True) if not line.startswith(("real", "user", "sys"))),
            [event for event in events if event["kind"] == "image"],
            [event for event in events if event["kind"] == "call"],
            [self.git("status", "--porcelain"), self.git("branch"), self.git("stash", "list"), self._files()],
            sorted(
                str(file.relative_to(self.root)) for file in self.root.rglob("*")
                if file.is_file() and not {"openclaw", "fake", "tmp"} & set(file.relative_to(self.root).parts[:1])
            ),
        )  # fmt: skip

    def _files(self) -> str:
        files = sorted(file for file in self.clone.rglob("*") if file.is_file() and ".git" not in file.parts)
        return "".join(f"{file} {file.stat().st_mode} {file.read_text()}\n" for file in files)


def is_gateway(image: dict) -> bool:
    """Return whether this is an image of the gateway. The patch must add the bootstrap to these images only."""
    names = f"{image['tags']} {image['dockerfile']}"
    return image["dockerfile"] is not None and not any(
        part in names for part in ("'base'", "sandbox", "squid", "debian")
    )


def temporary(host: Host) -> list[str]:
    return [str(path) for path in host.root.glob("tmp/openclaw-egress-*/build.*")]


def judge(base: Path, script: str, **environment: str) -> list[str]:
    """Run the script unpatched and patched. Return the differences between the runs that the patch must not cause."""
    runs = []
    patched = BuildScriptPatch(script, str(base / "host/bootstrap/proxy-bootstrap.cjs"), image="openclaw:local")
    for text in (script, patched.present()[0]):
        host = Host(base / "host", base.parent / "template")
        runs.append(host.run(text, **environment))
        left = temporary(host)
        shutil.rmtree(base / "host")
    before, after = runs
    wrong = [f"left over: {left}"] if left else []
    if not before.images:
        wrong.append(f"nothing was built: {before}")
    for part in ("status", "stdout", "stderr", "calls", "clone", "home"):
        one, two = getattr(before, part), getattr(after, part)
        if one != two:
            wrong.append(f"{part}: {one!r} became {two!r}")
    bootstraps = [image.pop("bootstrap") for image in after.images]
    for image in before.images:
        image.pop("bootstrap")
    order = json.dumps
    if sorted(map(order, before.images)) != sorted(map(order, after.images)):
        wrong.append(f"images: {before.images} became {after.images}")
    expected = ["// the bootstrap\n" if is_gateway(image) else None for image in after.images]
    if bootstraps != expected:
        wrong.append(f"bootstraps: {bootstraps} instead of {expected}")
    return wrong


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("scripts")
    shutil.copytree(Host(directory / "made").clone / ".git", directory / "template")
    return directory


@pytest.fixture
def base(directory: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    tmp_path = directory / str(abs(hash(request.node.name)))
    yield tmp_path
    subprocess.run(["chmod", "-R", "u+w", str(tmp_path)], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_patched_script_differs_only_by_the_bootstrap_in_the_gateways_image(base, name):
    script = (CORPUS / f"{name}.sh").read_bytes().decode()
    environment = {"old_daemon": {"DOCKER_VERSION": "20.10.24"}}.get(name, {})
    if name in REFUSED:
        message, (old, new) = REFUSED[name]
        with pytest.raises(BuildScriptError, match=message):
            BuildScriptPatch(script, "/x", image="openclaw:local").present()
        assert old in script
        script = script.replace(old, new)
    assert judge(base, script, **environment) == []


FAILING = ["strict", "trap_restore", "if_not", "and_or", "pipe_tee", "exec_build", "sudo_build", "compose_up_build"]


@pytest.mark.parametrize("name", FAILING)
def test_failed_build_ends_the_script_as_without_the_patch(base, name):
    script = (CORPUS / f"{name}.sh").read_bytes().decode()
    assert judge(base, script, DOCKER_STATUS="3") == []


def test_at_most_five_percent_of_the_scripts_are_refused():
    print(f"build scripts: {len(NAMES)}, refused with a remedy: {len(REFUSED)} ({len(REFUSED) / len(NAMES):.1%})")
    assert len(NAMES) >= 60
    assert len(REFUSED) <= 0.05 * len(NAMES)
