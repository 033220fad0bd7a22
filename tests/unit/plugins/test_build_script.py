"""Tests of `BuildScriptPatch`: insert the block, remove it, and explain why a script cannot be patched."""

import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.openclaw.egress.plugins.module_utils.build_script import BuildScriptError, BuildScriptPatch
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).parent
BOOTSTRAP = "/home/openclaw/openclaw-egress/proxy-config/proxy-bootstrap.cjs"
SIMPLE = "#!/bin/bash\nset -e\n\n# ── 3. Build ────\ndocker build .\n"
MOUNT = r".*openclaw_gateway_bootstrap: mount"


def present(text: str, **options: object) -> str:
    return BuildScriptPatch(text, BOOTSTRAP, **options).present()[0]


def anchors(text: str) -> dict:
    return BuildScriptPatch(text, BOOTSTRAP).present()[1].as_dict()


@pytest.mark.parametrize("path", sorted((HERE / "build_scripts").glob("generation_*.sh")), ids=lambda path: path.stem)
def test_removal_restores_the_same_bytes(path):
    script = path.read_bytes().decode()
    assert BuildScriptPatch(present(script)).absent() == script
    assert present(present(script)) == present(script)


@pytest.mark.parametrize(
    "script",
    [
        SIMPLE.replace("set -e\n", "set -e\r\n"),
        SIMPLE.rstrip("\n"),
        "docker build .",
        "\n\n\ndocker build .\n\n\n",
        "#!/bin/bash\n# head\ndocker build .",
        "set -e\r\n\tdocker build .   \n\f\n",
        "echo '\udcff'\ndocker build .\n",
    ],
)
def test_line_ends_tabs_and_odd_bytes_are_kept(script):
    assert BuildScriptPatch(present(script)).absent() == script


@given(
    st.lists(
        st.sampled_from(["", "# c", "\techo a", "x=1 ", "# ── 2. b ───", "if a; then", "fi", "{", "}", "é", "set -e"])
    )
)
def test_removal_restores_the_text_around_the_build(lines):
    script = "\n".join([*lines, "docker build .", *reversed(lines)])
    assert BuildScriptPatch(present(script)).absent() == script


def test_section_is_removed_from_a_script_converted_to_crlf():
    assert BuildScriptPatch(present(SIMPLE).replace("\n", "\r\n")).absent() == SIMPLE.replace("\n", "\r\n")


def test_section_of_an_earlier_release_is_replaced_and_removed():
    earlier = (HERE / "earlier_release.sh").read_text()
    plain = (HERE / "build_scripts/generation_plain.sh").read_text()
    patch = BuildScriptPatch(earlier, BOOTSTRAP)
    assert patch.found == "patched"
    assert patch.absent() == plain
    assert patch.present()[0] == present(plain)
    edited = BuildScriptPatch(earlier.replace("chmod 0644", "chmod 0600"), BOOTSTRAP)
    assert edited.found == "edited"
    assert edited.present()[0] == present(plain)


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        ("#!/bin/bash\n", "docker build .\n"),
        (
            "#!/bin/bash\n# what it does\n#\nset -euo pipefail # strict\nshopt -s nullglob\n\n",
            "# build\ndocker build .\n",
        ),
        ("#!/bin/bash\nset -e\n", "# === 1. Build ===\ndocker build .\n"),
        ("", "cd x; set -e\ndocker build .\n"),
        ("#!/bin/sh\nset -e\n", "set -- $(ls); docker build .\n"),
    ],
)
def test_section_follows_the_head_of_the_script(head, rest):
    patched = present(head + rest)
    assert patched.startswith(head + "# ")
    assert patched.endswith(rest)
    assert "openclaw.egress: begin" in patched[len(head) :].partition("\n")[0]
    assert anchors(head + rest)["inserted_at"] == head.count("\n") + 1


def test_section_has_the_scripts_own_style_of_headings():
    lines = present(SIMPLE.replace("─", "=")).splitlines()
    assert re.match(r"# == openclaw\.egress: begin [0-9a-f]{12} =+$", lines[3])
    assert re.match(r"# == openclaw\.egress: end =*$", lines[lines.index("# == 3. Build ====") - 2])


def test_changed_options_replace_only_the_section():
    one, two = present(SIMPLE), present(SIMPLE, image="it's:1")
    assert one != two
    assert present(one, image="it's:1") == two
    assert BuildScriptPatch(one).found == "patched"


def test_edited_section_is_detected_and_replaced():
    edited = present(SIMPLE).replace("chmod 0755", "chmod 0700")
    assert BuildScriptPatch(edited).found == "edited"
    assert present(edited) == present(SIMPLE)
    assert BuildScriptPatch(edited).absent() == SIMPLE


def test_operators_changes_outside_the_section_stay():
    patched = present(SIMPLE).replace("docker build .\n", "docker build --pull .\necho new\n")
    assert BuildScriptPatch(patched).absent() == SIMPLE.replace("docker build .", "docker build --pull .\necho new")


@pytest.mark.parametrize("keep", ["begin", "end"])
def test_section_without_begin_or_end_is_refused_with_its_line(keep):
    other = "end" if keep == "begin" else "begin"
    broken = re.sub(rf"^# ── openclaw\.egress: {other} .*\n", "", present(SIMPLE), flags=re.MULTILINE)
    with pytest.raises(BuildScriptError, match=r"do not form one pair \(line \d+\)"):
        BuildScriptPatch(broken)


@pytest.mark.parametrize("shell", ["bash", "dash", "bash --posix"])
def test_section_is_valid_in_each_shell(shell):
    patched = present("sudo docker build .\n/usr/bin/docker build .\n")
    done = subprocess.run([*shell.split(), "-n"], input=patched, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("script", "kind", "line"),
    [
        ("docker build .\n", "direct", 1),
        ("docker --context remote buildx build .\n", "direct", 1),
        ("docker image build .\n", "direct", 1),
        ("A=1 B=2 docker build .\n", "direct", 1),
        ("if true; then\n  for i in 1 2; do\n    docker build . || exit 1\n  done\nfi\n", "direct", 3),
        ("id=$(docker build -q .)\n", "direct", 1),
        ("docker \\\n  build \\\n  .\n", "direct", 1),
        ("time docker build . | tee log\n", "direct", 1),
        ("(cd x && docker build .) &\nwait\n", "direct", 1),
        ("case $1 in\n  a) docker build . ;;\n  *) ;;\nesac\n", "direct", 2),
        ("docker build $ARGUMENTS\n", "direct", 1),
        ("sudo -E docker build .\n", "runner", 1),
        ("exec docker build .\n", "runner", 1),
        ("timeout 1h docker build .\n", "runner", 1),
        ('run() { echo "+ $*"; "$@"; }\nrun docker build .\n', "runner", 2),
        ('bash -c "docker build ."\n', "variable", 1),
        ('D=docker\n"$D" build .\n', "variable", 2),
        ("D=$(command -v docker)\n$D build .\n", "variable", 2),
        ("${DOCKER:-docker} build .\n", "variable", 1),
        ('C="docker build ."\n$C\n', "variable", 1),
        ('C=(docker build)\nC+=(.)\n"${C[@]}"\n', "direct", 1),
        ('D=(sudo docker)\n"${D[@]}" build .\n', "variable", 2),
        ("/usr/bin/docker build .\n", "direct", 1),
        ("docker compose build gateway\n", "compose", 1),
        ("docker-compose up -d --build\n", "compose", 1),
        ('DC="docker compose -f x.yml"\n$DC build\n', "compose", 2),
        ("docker buildx bake\n", "bake", 1),
        ("make docker-build\n", "program", 1),
        ("cd /srv && ./scripts/build-image.sh\n", "program", 1),
        ("podman build .\ndocker build .\n", "direct", 2),
        ("ssh host docker build .\ndocker build .\n", "direct", 2),
        ("cat <<'E'\ndocker build no\nE\ndocker build .\n", "direct", 4),
        ("docker() { sudo /usr/bin/docker \"$@\"; }\ndocker build .\n", "direct", 2),
    ],
)  # fmt: skip
def test_docker_build_command_is_found_in_the_script(script, kind, line):
    found = anchors(script)["docker_build"]
    assert (found[0]["kind"], found[0]["line"]) == (kind, line)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("git checkout -- Dockerfile extensions/ 2>/dev/null || true", "git checkout"),
        ("git -C /srv restore .", "git restore"),
        ("git stash", "git stash"),
        ("trap 'git checkout -- Dockerfile' EXIT", "trap"),
        ("restore() { git checkout main || true; }", "git checkout"),
    ],
)
def test_the_restore_step_is_named(step, kind):
    assert [found["kind"] for found in anchors(f"docker build .\n{step}\n")["restore"]] == [kind]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", "anchor `docker build` not found.*no line"),
        ("# docker build\necho docker build .\n", "anchor `docker build` not found.*lines 1, 2"),
        ("npm run build\ndocker run x build\n", "anchor `docker build` not found.*line 2"),
        ("cat <<E\ndocker build .\nE\n", "anchor `docker build` not found"),
        ("git commit -m 'docker build .'\n", "anchor `docker build` not found"),
        ("apt-get install docker build-essential\n", "anchor `docker build` not found"),
        ("docker compose up -d --no-build\n", "anchor `docker build` not found"),
        ("docker build --help\n", "anchor `docker build` not found"),
        ("#!/bin/sh\n/usr/bin/docker build .\n", "line 2: /usr/bin/docker is called by its path; write `docker`"),
        ("exec /usr/bin/docker build .\n", "line 1: /usr/bin/docker is called by its path"),
        ('"$HOME/d/docker" build .\n', r"line 1: \$HOME/d/docker is called by its path"),
        ("ssh host docker build .\n", "line 1: `ssh` runs docker build"),
        ("su - op -c 'docker build .'\n", "anchor `docker build` not found|`su` runs docker build"),
        ('sudo bash -c "docker build ."\n', "line 1: `sudo` runs docker build"),
        ("env -i docker build .\n", "line 1: `env` runs docker build"),
        ("podman build .\n", "line 1: podman builds the image"),
        ("D=podman\n$D build .\n", "line 2: podman builds the image"),
        ("docker build - <<E\nFROM a\nE\n", "line 1: the patch does not support a docker build from standard input"),
        ("docker build https://github.com/a/b\n", "line 1: the patch does not support a URL as build context"),
        ("docker build -f Dockerfile.sandbox .\n", "line 1: the patch skips Dockerfile.sandbox"),
        ("#!/usr/bin/env python3\nprint('docker build')\n", "line 1: python3 is not a shell that the patch supports"),
        ("PATH=/bin\n[ -x \"$(command -v docker)\" ]\ndocker build .\n", "line 2: this line needs docker's path"),
    ],
)  # fmt: skip
def test_unpatchable_script_is_refused_with_line_and_remedy(script, message):
    with pytest.raises(BuildScriptError, match=message + ("" if "not found|" in message else MOUNT)):
        present(script)


def test_gateway_build_from_standard_input_is_refused_if_there_are_other_builds():
    script = "docker build -t base .\ndocker build -t openclaw - <<E\nFROM base\nE\n"
    assert anchors(script)["docker_build"][0]["line"] == 1
    with pytest.raises(BuildScriptError, match="line 2: the patch does not support a docker build from standard input"):
        present(script, image="docker.io/library/openclaw:latest")
