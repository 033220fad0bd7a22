"""Tests of the edits of a build script's text: insertion, removal, refusals and their messages."""

import re
import subprocess

import pytest
from ansible_collections.openclaw.egress.plugins.module_utils.build_script import BuildScriptError, BuildScriptPatch
from hypothesis import given
from hypothesis import strategies as st

GENERATIONS = ["plain", "build_args", "variable", "branches", "command_string", "posix_no_final_newline"]
BOOTSTRAP = "/home/openclaw/openclaw-egress/proxy-config/proxy-bootstrap.cjs"
SIMPLE = "#!/bin/bash\nset -e\n\n# ── 3. Build ────\ndocker build .\n"


def present(text: str, **options: object) -> str:
    return BuildScriptPatch(text, BOOTSTRAP, **options).present()[0]


def anchors(text: str) -> dict:
    return BuildScriptPatch(text, BOOTSTRAP).present()[1].as_dict()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_each_generation_becomes_its_golden_text(golden, generation):
    """Compare with the golden text. After an intended change, run with UPDATE_GOLDEN=1 and review the difference."""
    import os

    expected = golden / f"{generation}.patched.sh"
    patched = present((golden / f"{generation}.sh").read_bytes().decode())
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_bytes(patched.encode())
    assert patched == expected.read_bytes().decode()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_removal_restores_the_same_bytes(golden, generation):
    script = (golden / f"{generation}.sh").read_bytes().decode()
    assert BuildScriptPatch(present(script)).absent() == script
    assert present(present(script)) == present(script)


@pytest.mark.parametrize(
    "script",
    [
        SIMPLE.replace("\n", "\r\n"),
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
    st.lists(st.sampled_from(["", "# c", "\techo a", "x=1 ", "# ── 2. b ───", "if a; then", "fi", "{", "}", "é", "\r"]))
)
def test_text_around_the_build_is_kept(lines):
    script = "\n".join([*lines, "docker build .", *reversed(lines)])
    assert BuildScriptPatch(present(script)).absent() == script


def test_section_is_removed_from_a_script_converted_to_crlf():
    assert BuildScriptPatch(present(SIMPLE).replace("\n", "\r\n")).absent() == SIMPLE.replace("\n", "\r\n")


def test_section_is_above_the_builds_heading_in_the_scripts_own_style():
    lines = present(SIMPLE.replace("─", "=")).splitlines()
    assert lines[:3] == ["#!/bin/bash", "set -e", ""]
    assert re.match(r"# == openclaw\.egress: begin [0-9a-f]{12} =+$", lines[3])
    end = lines.index("# == 3. Build ====") - 2
    assert re.match(r"# == openclaw\.egress: end =*$", lines[end])
    assert lines[end + 1] == ""


def test_other_options_replace_the_section_and_nothing_else():
    one, two = present(SIMPLE), present(SIMPLE, context_dir="/srv/it's here")
    assert one != two
    assert present(one, context_dir="/srv/it's here") == two
    assert BuildScriptPatch(one).found == "patched"


def test_edited_section_is_detected_and_replaced():
    edited = present(SIMPLE).replace("chmod 0644", "chmod 0600")
    assert BuildScriptPatch(edited).found == "edited"
    assert present(edited) == present(SIMPLE)
    assert BuildScriptPatch(edited).absent() == SIMPLE


def test_operators_other_changes_stay():
    patched = present(SIMPLE).replace("docker build .", "docker build --pull .\necho new")
    assert BuildScriptPatch(patched).absent() == SIMPLE.replace("docker build .", "docker build --pull .\necho new")


@pytest.mark.parametrize("keep", ["begin", "end"])
def test_half_a_section_is_refused_with_its_line(keep):
    other = "end" if keep == "begin" else "begin"
    broken = re.sub(rf"^# ── openclaw\.egress: {other} .*\n", "", present(SIMPLE), flags=re.MULTILINE)
    with pytest.raises(BuildScriptError, match=r"do not make one pair \(line \d+\)"):
        BuildScriptPatch(broken)


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
        ("sudo -E docker build .\n", "runner", 1),
        ("timeout 1h docker build .\n", "runner", 1),
        ('run() { echo "+ $*"; "$@"; }\nrun docker build .\n', "function", 2),
        ('D=docker\n"$D" build .\n', "variable", 2),
        ("${DOCKER:-docker} build .\n", "variable", 1),
        ('C="docker build ."\n$C\n', "variable", 1),
        ('C=(docker build)\nC+=(.)\n"${C[@]}"\n', "direct", 1),
        ("cat <<'E'\ndocker build no\nE\ndocker build .\n", "direct", 4),
    ],
)
def test_the_build_is_found(script, kind, line):
    found = anchors(script)["docker_build"]
    assert (found[0]["kind"], found[0]["line"]) == (kind, line)
    assert (
        subprocess.run(["bash", "-n"], input=present(script), text=True, capture_output=True, check=False).stderr == ""
    )


def test_section_is_before_the_complete_statement_with_the_build():
    script = "set -e\nmain() {\n  if x; then\n    docker build .\n  fi\n}\n\n# go\nmain\n"
    assert anchors(script)["inserted_at"] == 2
    assert anchors("true &&\n  docker build .\n")["inserted_at"] == 1


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
        ("true\n/usr/bin/docker build .\n", "line 2: /usr/bin/docker is called by its path"),
        ("command docker build .\n", "line 1: docker build is run by `command`"),
        ("exec docker build .\n", "line 1: docker build is run by `exec`"),
        ('bash -c "docker build ."\n', "line 1: docker build is run by `bash`"),
        ("ssh host docker build .\n", "line 1: docker build is run by `ssh`"),
        ("podman build .\n", "line 1: podman builds the image"),
        ("docker compose build gateway\n", "line 1: `docker compose build`"),
        ("D=$(command -v docker)\n$D build .\n", r"line 2: \$D gets docker's path \(line 1"),
        ("D=/opt/docker\n$D build .\n", "gets docker's path"),
        ("D=podman\n$D build .\n", r"\$D is podman"),
        ('docker() { sudo /usr/bin/docker "$@"; }\ndocker build .\n', "defines a function named docker"),
        ("alias docker=podman\ndocker build .\n", "line 1: the script makes an alias"),
        ('f() {\n  [ -x "$(command -v docker)" ] || exit 1\n  docker build .\n}\nf\n', "line 2: a test of `-x`"),
        ("echo 'a\ndocker build .\n", "line 1: a single quote does not end"),
        ("cat <<E\ndocker build .\n", "line 1: the here-document <<E does not end"),
    ],
)
def test_unpatchable_script_is_refused_with_line_and_remedy(script, message):
    with pytest.raises(BuildScriptError, match=message):
        present(script)
