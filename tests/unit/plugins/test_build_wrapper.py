"""Tests of the `docker` wrapper in patched build scripts: commands, Dockerfiles, and interrupted builds."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ansible_collections.openclaw.egress.plugins.module_utils import build_wrapper
from ansible_collections.openclaw.egress.plugins.module_utils.build_script import BuildScriptPatch
from ansible_collections.openclaw.egress.plugins.module_utils.build_wrapper import Build, NotPatched, Settings

sys.path.insert(0, str(Path(__file__).parent))
from test_build_scripts import Host, Outcome, temporary

COPY = "COPY --from=openclaw-egress --chown=0:0 proxy-bootstrap.cjs ./proxy-bootstrap.cjs"
SCRIPT = 'set -eu\ncd "$CLONE"\ndocker build -t openclaw:local .\n'


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def patched(host: Host, script: str = SCRIPT, **options: object) -> str:
    return BuildScriptPatch(script, str(host.root / "bootstrap/proxy-bootstrap.cjs"), **options).present()[0]


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("docker build .", "build"),
        ("/usr/bin/docker -H x --debug image build .", "build"),
        ("docker builder build .", "build"),
        ("docker buildx --builder x b .", "buildx"),
        ("docker --context=a buildx bake x", "bake"),
        ("sudo -u docker docker build .", "build"),
        ("docker-compose build", "compose"),
        ("docker compose -f x up", "compose"),
        ("docker run --rm docker build", None),
        ("docker run docker:cli docker build .", None),
        ("sudo systemctl restart docker", None),
        ("docker buildx ls", None),
        ("docker builder prune", None),
        ("docker", None),
        ("sudo make build", None),
    ],
)
def test_build_commands_are_recognised(command, kind):
    found = build_wrapper.find_build(command.split())
    assert (found and found[0]) == kind


@pytest.mark.parametrize(
    ("words", "build", "kept"),
    [
        ("-t a --tag=b c", Build("c", tags=["a", "b"]), "-t a --tag=b c"),
        ("-f x --pull .", Build(".", "x"), "--pull ."),
        ("--file=x --target y .", Build(".", "x", "y"), "--target y ."),
        ("-qfx -Dq . --no-cache", Build(".", "x"), "-q -Dq . --no-cache"),
        ("-f=x -m 1g .", Build(".", "x"), "-m 1g ."),
        ("--build-arg -f -f - -- -", Build("-", "-"), "--build-arg -f -- -"),
        ("--provenance false --unknown value .", Build("."), "--provenance false --unknown value ."),
    ],
)
def test_options_of_a_build_are_read(words, build, kept):
    assert build_wrapper.read_build(words.split(), 0) == (build, kept.split())


@pytest.mark.parametrize("words", ["--help", ". --check", "--call=outline ."])
def test_docker_command_that_builds_no_image_is_recognised(words):
    assert build_wrapper.read_build(words.split(), 0) is None


def test_ambiguous_build_context_is_reported():
    with pytest.raises(NotPatched, match="this release does not support the options"):
        build_wrapper.read_build(["--new-flag", "."], 0)


@pytest.mark.parametrize(
    ("dockerfile", "target", "before"),
    [
        ("FROM a\nUSER node\nCMD x", "", None),
        ("FROM a AS one\nUSER u\nFROM b AS two\nUSER v\n", "One", "FROM b AS two"),
        ("FROM a AS one\nUSER u\nFROM b AS two\nUSER v\n", "0", "FROM b AS two"),
        ("FROM a AS one\nUSER u\nFROM b AS two\nUSER v\n", "two", None),
        ("FROM a AS one\nUSER u\nFROM b AS two\nUSER v\n", "", None),
        ("from a as one\r\nfrom one\r\n", "one", "from one"),
        ("FROM a AS x\nRUN <<-'END' cat\n\tFROM no\n\tEND\nRUN echo $((1<<N))\nFROM b\n", "x", "FROM b"),
        ("FROM a AS x\nRUN echo \\\n# comment\n\nFROM no\nFROM b\n", "x", "FROM b"),
        ("# escape=`\nFROM a AS x\nRUN dir `\n  FROM c:\\\nFROM b\n", "x", "FROM b"),
        ("FROM a\nRUN x \\\n", "", "RUN x \\"),
    ],
)
def test_copy_line_is_the_last_of_the_built_stage(dockerfile, target, before):
    text = build_wrapper.with_copy(dockerfile, "openclaw-egress", target)
    lines = text.replace("\r\n", "\n").split("\n")
    at = lines.index(COPY)
    assert (lines[at + 1] or None) == before
    assert text.replace(COPY + "\n", "").rstrip("\n") == dockerfile.rstrip("\n")


def test_dockerfile_without_the_requested_stage_is_left_unchanged():
    assert build_wrapper.with_copy("FROM a", "x", "none") is None
    assert build_wrapper.with_copy("RUN a", "x") is None


def test_lines_that_an_earlier_release_left_in_the_clone_are_dropped():
    left = f"FROM a\n{build_wrapper.EARLIER_MARK}\nCOPY --chown=0:0 proxy-bootstrap.cjs ./proxy-bootstrap.cjs\nUSER b\n"
    assert build_wrapper.with_copy(left, "openclaw-egress") == f"FROM a\nUSER b\n{COPY}\n"


@pytest.mark.parametrize(
    ("build", "text", "image", "expected"),
    [
        (Build("/c", tags=["docker.io/library/openclaw:local"]), "", "openclaw:local", True),
        (Build("/c", tags=["reg:5000/a"]), "", "reg:5000/a:latest", True),
        (Build("/c", tags=["squid"]), "FROM a", "openclaw:local", False),
        (Build("/c", tags=["squid"]), "FROM a", "", True),
        (Build("/c", tags=["x"]), "FROM ghcr.io/openclaw/openclaw", "gw:1", True),
        (Build("/c", tags=["my-OpenClaw"]), "FROM a", "gw:1", True),
        (Build("/c", "/c/docker/sandbox/Dockerfile", tags=["openclaw-x"]), "", "gw:1", False),
        (Build("/c", "/c/Dockerfile.sandbox-browser"), "openclaw", "", False),
        (Build("/sandbox/c", "/sandbox/c/Dockerfile", tags=["openclaw"]), "", "gw:1", True),
        (Build("docker/sandbox", tags=["openclaw"]), "", "", False),
        (Build("/c", tags=["openclaw-sandbox:1"]), "", "", False),
        (Build("/c", "/c/Dockerfile.sandbox", tags=["gw:1"]), "", "gw:1", True),
    ],
)
def test_only_the_gateways_image_gets_the_bootstrap(build, text, image, expected):
    assert build_wrapper.is_gateway(build, text, Settings("", image, ["*sandbox*"])) is expected


def test_missing_bootstrap_stops_the_build_with_a_message(host):
    script = patched(host)
    (host.root / "bootstrap/proxy-bootstrap.cjs").unlink()
    run = host.run(script)
    assert (run.status, run.images) == (1, [])
    assert "proxy-bootstrap.cjs is missing or cannot be read (No such file or directory)" in run.stderr
    assert temporary(host) == []


def test_build_runs_without_the_bootstrap_if_compose_shows_no_services(host):
    (host.bin / ".compose.json").write_text("[]")
    docker = host.bin / "docker"
    docker.write_text(docker.read_text().replace("status = status or image(", "status = 0 and image("))
    script = patched(host, SCRIPT.replace("build -t openclaw:local .", "compose ps; docker compose build"))
    run = host.run(script.replace("docker compose ps; ", ""))
    lines = [line for line in run.stderr.splitlines() if line.startswith("openclaw.egress")]
    assert lines == [
        "openclaw.egress: `compose config` does not show the services of `compose build`, so the build runs "
        "without the "
        "bootstrap. Set openclaw_gateway_bootstrap to mount if it builds the gateway's image"
    ]


SPY = """def spy(words):
    import glob

    for path in glob.glob(os.environ["TMPDIR"] + "/*/build.*/**", recursive=True):
        record(kind="seen", text=read(path) if os.path.isfile(path) else "", words=words)


def main(words):
    spy(words)
"""


def test_values_of_the_project_appear_in_no_file_and_no_argument(host):
    docker = host.bin / "docker"
    docker.write_text(docker.read_text().replace("def main(words):\n", SPY))
    host.run(patched(host, 'cd "$CLONE"\ndocker compose build\n'))
    record = Path(host.environment["RECORD"]).read_text()
    assert '"kind": "seen"' in record
    assert "hunter2" not in record


def test_two_concurrent_builds_do_not_disturb_each_other(host):
    script = patched(host, SCRIPT + "docker build -t openclaw:two .\n")
    (host.root / "two.sh").write_text(script)
    other = subprocess.Popen(["bash", str(host.root / "two.sh")], env={**host.environment, "DOCKER_SLOW": "0.5"})
    run = host.run(script, DOCKER_SLOW="0.2")
    assert (run.status, other.wait()) == (0, 0)
    images = [json.loads(line) for line in Path(host.environment["RECORD"]).read_text().splitlines()]
    images = [image for image in images if image["kind"] == "image"]
    assert [image["bootstrap"] for image in images] == ["// the bootstrap\n"] * len(images)
    assert len(images) >= 3
    assert temporary(host) == []


def test_directory_of_another_user_is_not_used(host):
    script = patched(host)
    host.run(script)
    root = next((host.root / "tmp").glob("openclaw-egress-*"))
    shutil.rmtree(root)
    root.symlink_to(host.root / "bin")
    run = host.run(script, XDG_RUNTIME_DIR=str(host.root))
    assert run.images[0]["bootstrap"] == "// the bootstrap\n"
    assert os.listdir(host.root / "bin") == [".keep"]  # noqa: PTH208
    run = host.run(script, XDG_RUNTIME_DIR="/proc")
    assert run.status == 1
    assert "cannot write programs to" in run.stderr


def test_programs_of_the_script_have_its_original_path(host):
    run = host.run(patched(host, SCRIPT + "docker run x\n"))
    assert run.calls[0]["path"] == host.environment["PATH"]


def test_the_scripts_own_traps_run_once(host):
    script = "set -Eeuo pipefail\nset -o noclobber\ncd \"$CLONE\"\ntrap 'echo ERR' ERR\ntrap 'echo EXIT' EXIT\n"
    run = host.run(patched(host, script + "docker image ls\ndocker build -t x .\n"), DOCKER_STATUS="5")
    assert (run.status, run.stdout) == (5, "ERR\nEXIT\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the script as another user")
def test_owner_of_the_clone_runs_the_script(request):
    directory = Path(tempfile.mkdtemp())  # Other users may have no access to tmp_path.
    request.addfinalizer(lambda: shutil.rmtree(directory))
    directory.chmod(0o755)
    host = Host(directory / "host")
    subprocess.run(["chmod", "-R", "a+rX,g-w", str(host.root)], check=True)
    subprocess.run(["chown", "-R", "65534:65534", str(host.root)], check=True)
    path = host.root / "build.sh"
    path.write_text(patched(host))
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", str(path)]
    done = subprocess.run(command, env=host.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"bootstrap": "// the bootstrap' in Path(host.environment["RECORD"]).read_text()


# Interruptions

BRANCHES = """set -e
cd "$CLONE"
git checkout -q main
git checkout -q -B patched/1
sed -i 's/24/26/' Dockerfile
git commit -qam patched
touch "$HOME/building"
docker build -t openclaw:local .
git checkout -q main
"""
TRAP = BRANCHES.replace("git checkout -q main\ngit", "trap 'git checkout -q main' EXIT\ngit", 1)


def interrupt(host: Host, script: str, number: int, group: bool, delay: float) -> int:
    """Start the script, and send it a signal ``delay`` seconds after the build began. Wait until all processes end.

    If ``group`` is true, send the signal to the script and all its child processes, otherwise only to the script.
    Return the exit status of the script.
    """
    mark = host.root / "building"
    mark.unlink(missing_ok=True)
    path = host.root / "build-openclaw.sh"
    path.write_text(script)
    process = subprocess.Popen(
        # Restore the default signal handling: if `nohup` runs the tests, all their child processes ignore SIGHUP.
        ["env", "--default-signal", "bash", str(path)],
        env={**host.environment, "DOCKER_SLOW": "0.3"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not mark.exists():
        time.sleep(0.005)
    time.sleep(delay)
    (os.killpg if group else os.kill)(process.pid, number)
    status = process.wait()
    for _attempt in range(500):  # If only the script was killed, its child processes still run.
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    return status


def clone_after(run: Outcome) -> list[str]:
    return [run.clone[0], run.clone[1], run.clone[3]]


@pytest.mark.parametrize("moment", range(20))
def test_build_after_an_interrupted_build_succeeds_and_leaves_the_clone_unchanged(host, moment):
    rng = random.Random(moment)
    number = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP][moment % 3]
    # Do not combine the trap with SIGKILL. A killed script does not run its trap, so the clone would stay on the
    # temporary branch even without the patch.
    text = TRAP if moment % 2 and number != signal.SIGKILL else BRANCHES
    script = patched(host, text)
    interrupt(host, script, number, group=moment % 4 != 3, delay=rng.uniform(0, 0.5))
    after = host.run(script)
    expected = Host(host.root.parent / "other" / "host")
    reference = expected.run(text)
    assert (after.status, reference.status) == (0, 0), after.stderr
    assert after.images[0]["bootstrap"] == "// the bootstrap\n"
    assert clone_after(after) == [text.replace("/other/host", "/host") for text in clone_after(reference)]
    assert temporary(host) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_docker_and_the_script_and_leaves_no_file(host, number):
    script = patched(host, SCRIPT.replace("docker build", 'touch "$HOME/building"\ndocker build') + "echo on\n")
    status = interrupt(host, script, number, group=True, delay=0.15)
    assert status == -number
    assert temporary(host) == []
