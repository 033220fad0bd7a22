"""Each generation of build script runs twice, patched by `build_patch`, beside the original script.

Real git, and a fake docker that inspects its build context. The clone ends on the same branch, as clean, with the
same exit status. The bootstrap and its COPY line exist only while docker runs.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.openclaw.egress.plugins.module_utils.build_script import BuildScriptPatch

GENERATIONS = ["plain", "build_args", "variable", "branches", "command_string", "posix_no_final_newline"]
DOCKERFILE = """\
FROM node:24 AS build
WORKDIR /src
COPY . .
USER node
RUN <<EOF
USER nobody
EOF
FROM node:24-slim AS runtime
WORKDIR /app
USER root
COPY --from=build /src/dist \\
  # a comment
  ./dist
USER node
CMD ["node", "dist/index.js"]
"""
COPY = "COPY --chown=0:0 proxy-bootstrap.cjs ./proxy-bootstrap.cjs"
# Logs its build context, and fails if the test requires it.
DOCKER = """#!/bin/sh
[ "$1" = build ] || exit 0
n=$(ls "$SEEN" | wc -l)
mkdir "$SEEN/$n"
printf '%s\\n' "$@" > "$SEEN/$n/arguments"
cp Dockerfile "$SEEN/$n/Dockerfile"
[ ! -e proxy-bootstrap.cjs ] || cp -p proxy-bootstrap.cjs "$SEEN/$n/"
echo "built"
exit "${DOCKER_STATUS:-0}"
"""


@dataclass
class Run:
    status: int
    branch: str
    changes: str
    dockerfile: str
    seen: list[Path]
    stderr: str


class Host:
    """A clone, a docker, a bootstrap file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clone = directory / "clone"
        self.bootstrap = directory / "proxy-bootstrap.cjs"
        self.bootstrap.write_text("// the bootstrap\n")
        (self.clone / "extensions").mkdir(parents=True)
        (self.clone / "Dockerfile").write_text(DOCKERFILE)
        (self.clone / "extensions/a.ts").write_text("plain\n")
        (directory / "bin").mkdir()
        docker = directory / "bin/docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)
        self.environment = {
            "PATH": f"{docker.parent}:/usr/bin:/bin",
            "HOME": str(directory),
            "CLONE": str(self.clone),
            "GIT_CONFIG_GLOBAL": str(directory / "gitconfig"),
        }
        (directory / "gitconfig").write_text(
            "[user]\nname = op\nemail = op@example.com\n[init]\ndefaultBranch = main\n"
        )
        self.git("init", "-q")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "upstream")

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.clone), *arguments]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def run(self, script: str, status: int = 0, shell: str | None = None) -> Run:
        path = self.directory / "build-openclaw.sh"
        path.write_text(script)
        seen = self.directory / "seen"
        shutil.rmtree(seen, ignore_errors=True)
        seen.mkdir()
        shell = shell or script.partition("\n")[0].rpartition("/")[2].removeprefix("env ")
        done = subprocess.run(
            [shell, str(path)],
            env={**self.environment, "SEEN": str(seen), "DOCKER_STATUS": str(status)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Run(
            done.returncode,
            self.git("rev-parse", "--abbrev-ref", "HEAD").strip(),
            self.git("status", "--porcelain"),
            (self.clone / "Dockerfile").read_text(),
            sorted(seen.iterdir()),
            done.stderr,
        )

    def patched(self, script: str, **options: str) -> str:
        return BuildScriptPatch(script, str(self.bootstrap), **options).present()[0]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "host").mkdir()
    return Host(tmp_path / "host")


def specimen(golden: Path, name: str) -> str:
    return (golden / f"{name}.sh").read_bytes().decode()


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_clone_ends_in_the_same_state_as_without_the_patch(golden, tmp_path, generation, status):
    script = specimen(golden, generation)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    plain, patched = Host(tmp_path / "a"), Host(tmp_path / "b")
    for _time in range(2):
        before = plain.run(script, status)
        after = patched.run(patched.patched(script), status)
        assert (after.status, after.branch, after.changes) == (before.status, before.branch, before.changes), (
            after.stderr
        )
        assert after.dockerfile == before.dockerfile
        assert (after.status == 0) == (status == 0)
        assert not (patched.clone / "proxy-bootstrap.cjs").exists()
        assert [(seen / "arguments").read_text() for seen in after.seen] == [
            (seen / "arguments").read_text().replace(str(plain.clone), str(patched.clone)) for seen in before.seen
        ]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_docker_finds_the_bootstrap_and_its_copy_line_once(golden, host, generation):
    script = host.patched(specimen(golden, generation))
    for _time in range(2):
        run = host.run(script)
        assert run.seen, run.stderr
        for seen in run.seen:
            lines = (seen / "Dockerfile").read_text().splitlines()
            assert lines.count(COPY) == 1
            # In the last stage, after its WORKDIR, before its last USER.
            assert lines.index("WORKDIR /app") < lines.index(COPY) < len(lines) - 1 - lines[::-1].index("USER node")
            assert (seen / "proxy-bootstrap.cjs").read_text() == "// the bootstrap\n"
            assert (seen / "proxy-bootstrap.cjs").stat().st_mode & 0o777 == 0o644


def test_missing_bootstrap_stops_the_build_with_a_message(golden, host):
    host.bootstrap.unlink()
    run = host.run(host.patched(specimen(golden, "plain")))
    assert run.status == 1
    assert not run.seen
    assert f"{host.bootstrap} is missing" in run.stderr


def test_next_build_removes_the_remains_of_a_killed_build(golden, host):
    (host.clone / "proxy-bootstrap.cjs").write_text("// left over, older\n")
    mark = "# openclaw.egress: proxy-bootstrap.cjs, here for the time of this build only"
    (host.clone / "Dockerfile").write_text(DOCKERFILE.replace("USER node\nCMD", f"{mark}\n{COPY}\nUSER node\nCMD"))
    script = 'set -eu\ncd "$CLONE"\ndocker build -t openclaw:local .\n'
    run = host.run(host.patched(script), shell="bash")
    assert (run.status, run.changes, run.dockerfile) == (0, "", DOCKERFILE)
    assert (run.seen[0] / "Dockerfile").read_text().count(COPY) == 1


def test_a_bootstrap_that_the_clone_tracks_keeps_its_bytes(host):
    (host.clone / "proxy-bootstrap.cjs").write_text("// the operator's own\n")
    host.git("add", "-A")
    host.git("commit", "-q", "-m", "own")
    run = host.run(host.patched('set -eu\ncd "$CLONE"\ndocker build .\n'), shell="bash")
    assert (run.seen[0] / "proxy-bootstrap.cjs").read_text() == "// the bootstrap\n"
    assert run.changes == ""


def test_the_scripts_own_traps_run_once_and_other_docker_commands_pass(host):
    script = """set -Eeuo pipefail
set -o noclobber
cd "$CLONE"
trap 'echo ERR >> "$HOME/traps"' ERR
trap 'echo EXIT >> "$HOME/traps"' EXIT
docker image ls
docker build -t x .
"""
    run = host.run(host.patched(script), status=5, shell="bash")
    assert run.status == 5
    assert (host.directory / "traps").read_text() == "ERR\nEXIT\n"


@pytest.mark.parametrize("signal", ["INT", "TERM", "HUP"])
def test_interrupted_build_leaves_the_clone_clean(host, signal):
    (host.directory / "bin/docker").write_text(f"#!/bin/sh\ncp Dockerfile $SEEN/\nkill -s {signal} 0\n")
    # A shell that was started with SIGINT ignored, like a background job of a script, could not trap it.
    (host.directory / "bin/setsid-build").write_text('#!/bin/sh\nexec env --default-signal setsid --wait bash "$1"\n')
    (host.directory / "bin/setsid-build").chmod(0o755)
    run = host.run(
        host.patched('set -eu\ncd "$CLONE"\ndocker build .\necho on\n'), shell=str(host.directory / "bin/setsid-build")
    )
    assert run.status != 0
    assert COPY in run.seen[0].read_text()
    assert run.changes == ""


def test_sandbox_dockerfile_is_left_alone(host):
    (host.clone / "Dockerfile.sandbox").write_text("FROM scratch\n")
    run = host.run(host.patched('set -eu\ncd "$CLONE"\ndocker build -f Dockerfile.sandbox -t sbx .\n'), shell="bash")
    assert run.status == 0
    assert not (run.seen[0] / "proxy-bootstrap.cjs").exists()


def test_context_that_is_not_a_directory_is_refused_unless_named(host):
    script = 'set -eu\ncd "$CLONE"\ntar -c . | docker build -\n'
    run = host.run(host.patched(script), shell="bash")
    assert run.status == 1
    assert "no directory" in run.stderr
    assert host.run(host.patched(script, context_dir=str(host.clone)), shell="bash").status == 0


@pytest.mark.parametrize(
    ("dockerfile", "before"),
    [
        ("FROM a\nWORKDIR /app\nCMD x", "CMD x"),
        ('FROM a\nWORKDIR /app\nUSER node\nWORKDIR /home/node/app\nENTRYPOINT ["x"]\nCMD y\n', 'ENTRYPOINT ["x"]'),
        ("from a\nworkdir /app\n\tuser node\n", "\tuser node"),
        ("FROM a\r\nUSER a\r\nUSER b\r\nCMD x\r\n", "USER b"),
        ("FROM a", None),
        ("FROM a\nRUN echo \\\n# comment\n\nUSER no\nUSER node\n", "USER node"),
        ("# escape=`\nFROM a\nRUN dir `\n  USER c:\\\nUSER node\nRUN x\n", "USER node"),
        ("FROM a\nRUN <<-'END' cat\n\tUSER no\n\tEND\nUSER yes\nRUN echo $((1<<N))\nCMD z\n", "USER yes"),
    ],
)
def test_copy_line_is_after_the_images_workdir(host, dockerfile, before):
    (host.clone / "Dockerfile").write_bytes(dockerfile.encode())
    host.git("commit", "-q", "-am", "this one")
    run = host.run(host.patched('set -eu\ncd "$CLONE"\ndocker build .\n'), shell="bash")
    lines = (run.seen[0] / "Dockerfile").read_bytes().decode().replace("\r\n", "\n").split("\n")
    at = lines.index(COPY)
    assert (lines[at + 1] or None) == before, run.stderr
    assert (host.clone / "Dockerfile").read_bytes() == dockerfile.encode()
    assert run.changes == ""


def test_the_stage_that_is_built_gets_the_line(host):
    (host.clone / "Dockerfile").write_text("FROM a AS one\nUSER u\nFROM b AS two\nUSER v\n")
    for target, before in (("one", "USER u"), ("0", "USER u"), ("two", "USER v")):
        run = host.run(host.patched(f'set -eu\ncd "$CLONE"\ndocker build --target {target} .\n'), shell="bash")
        lines = (run.seen[0] / "Dockerfile").read_text().splitlines()
        assert lines[lines.index(COPY) + 1] == before


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_it_runs_as_the_owner_of_the_clone(golden, request):
    directory = Path(tempfile.mkdtemp())  # Other users cannot enter pytest's own directories.
    request.addfinalizer(lambda: shutil.rmtree(directory))
    host = Host(directory)
    subprocess.run(["chown", "-R", "65534:65534", str(host.directory)], check=True)
    host.directory.chmod(0o700)
    script = host.directory / "build-openclaw.sh"
    script.write_text(host.patched(specimen(golden, "plain")))
    seen = host.directory / "seen"
    seen.mkdir(mode=0o777)
    seen.chmod(0o777)
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", str(script)]
    done = subprocess.run(
        command, env={**host.environment, "SEEN": str(seen)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (seen / "0/proxy-bootstrap.cjs").exists()
    assert (host.clone / "Dockerfile").stat().st_uid == 65534
