"""Tests of the Ansible modules. Each runs as a process that reads JSON from standard input and edits real files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.docker import Docker

ROOT = Path(__file__).parents[3]
SCRIPT = "#!/bin/bash\nset -e\ndocker build .\n"


def call(module: str, *, check: bool = False, **arguments: object) -> dict:
    arguments.update(_ansible_check_mode=check, _ansible_diff=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / f"plugins/modules/{module}.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "build-openclaw.sh"
    path.write_text(SCRIPT)
    path.chmod(0o750)
    return path


def test_build_patch_keeps_the_mode_makes_a_backup_and_is_idempotent(script):
    first = call("build_patch", path=str(script), backup=True)
    assert first["changed"]
    assert first["found"] == "absent"
    assert first["anchors"]["docker_build"] == [{"line": 3, "kind": "direct", "text": "docker build ."}]
    assert Path(first["backup_file"]).read_text() == SCRIPT
    assert script.stat().st_mode & 0o777 == 0o750
    assert not call("build_patch", path=str(script))["changed"]
    assert call("build_patch", path=str(script), state="absent")["changed"]
    assert script.read_text() == SCRIPT
    assert not call("build_patch", path=str(script), state="absent")["changed"]


def test_build_patch_in_check_mode_shows_the_change_and_writes_nothing(script):
    result = call("build_patch", path=str(script), check=True)
    assert result["changed"]
    assert result["diff"]["before"] == SCRIPT
    assert "openclaw.egress: begin" in result["diff"]["after"]
    assert script.read_text() == SCRIPT
    assert os.listdir(script.parent) == [script.name]  # noqa: PTH208


def test_build_patch_follows_a_symlink_and_leaves_it(script, tmp_path):
    link = tmp_path / "link.sh"
    link.symlink_to(script)
    assert call("build_patch", path=str(link))["path"] == str(script)
    assert link.is_symlink()
    assert "openclaw.egress" in script.read_text()


def test_build_patch_warns_of_an_edited_section(script):
    call("build_patch", path=str(script))
    script.write_text(script.read_text().replace("chmod 0755", "chmod 0700"))
    result = call("build_patch", path=str(script))
    assert result["found"] == "edited"
    assert "edited by hand; it is replaced" in str(result["warnings"])
    script.write_text(script.read_text().replace("chmod 0755", "chmod 0700"))
    assert "it is removed" in str(call("build_patch", path=str(script), state="absent")["warnings"])
    assert script.read_text() == SCRIPT


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("npm run build\n", "anchor `docker build` not found: none of the script's 1 lines"),
        ("if true; then\ndocker build .\n", "the script is not valid shell even without the patch"),
        ("if true; then\r\ndocker build .\r\nfi\r\n", "Convert them to LF: sed -i 's/\\r$//' "),
    ],
)
def test_build_patch_refuses_and_leaves_the_file(script, content, message, check):
    script.write_bytes(content.encode())
    result = call("build_patch", path=str(script), check=check)
    assert result["failed"]
    assert message in result["msg"]
    assert script.read_bytes() == content.encode()


def test_build_patch_names_a_missing_script(tmp_path):
    assert "no such file" in call("build_patch", path=str(tmp_path / "x"))["msg"]
    assert call("build_patch", path=str(tmp_path / "x"), state="absent")["changed"] is False


@pytest.fixture
def env(tmp_path):
    (tmp_path / "docker-compose.yml").touch()
    path = tmp_path / ".env"
    path.write_text("TOKEN=hunter2\nA=1")
    path.chmod(0o640)
    return path


def test_compose_env_removes_all_that_it_added_and_shows_no_value(env, tmp_path):
    ours = str(tmp_path / "docker-compose.egress.yml")
    variables = {"TOKEN": "hunter3", "NEW": 8080, "FLAG": True, "A": None}
    result = call("compose_env", path=str(env), variables=variables, compose_files_add=[ours])
    values, _, notes = env.read_text().partition("# openclaw.egress keeps: ")
    assert values == "TOKEN=hunter3\nNEW=8080\nFLAG=true\n" and "COMPOSE_FILE was not set" in notes
    assert result["changed_variables"] == ["A", "COMPOSE_FILE", "FLAG", "NEW", "TOKEN"]
    assert result["compose_files"] == [str(tmp_path / "docker-compose.yml"), ours]
    assert result["diff"]["after"].splitlines()[0] == f"COMPOSE_FILE={tmp_path}/docker-compose.yml:{ours}"
    assert "hunter" not in json.dumps(result)
    assert env.stat().st_mode & 0o777 == 0o640
    assert not call("compose_env", path=str(env), variables=variables, compose_files_add=[ours])["changed"]
    call("compose_env", path=str(env), compose_files_remove=[ours], variables={"NEW": None, "FLAG": None})
    assert env.read_text() == "TOKEN=hunter3"


def test_compose_env_in_check_mode_writes_nothing(env):
    before = env.read_bytes()
    assert call("compose_env", path=str(env), variables={"A": "2"}, check=True)["changed"]
    assert env.read_bytes() == before


def test_compose_env_creates_a_file_that_only_its_owner_can_read(tmp_path):
    path = tmp_path / ".env"
    assert call("compose_env", path=str(path), variables={"A": "1"}, check=True)["changed"]
    assert not path.exists()
    assert call("compose_env", path=str(path), variables={"A": "1"})["changed"]
    assert path.read_text() == "A=1\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not call("compose_env", path=str(tmp_path / "none"), variables={"A": None})["changed"]
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of a file")
def test_compose_env_gives_a_new_file_to_the_owner_of_the_project(tmp_path):
    """Compose reads the file, so the project's owner could not run Compose if the file belonged to root."""
    os.chown(tmp_path, 64123, 64124)
    assert call("compose_env", path=str(tmp_path / ".env"), variables={"A": "1"})["changed"]
    found = (tmp_path / ".env").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (64123, 64124, 0o600)


def test_compose_env_refuses_a_directory_without_a_compose_file(tmp_path):
    result = call("compose_env", path=str(tmp_path / ".env"), compose_files_add=["x.yml"])
    assert result["failed"]
    assert re.search("check that this is the compose directory.*was not changed", result["msg"])


def test_rollback_manifest_records_and_restores_a_file(env, tmp_path):
    manifest = str(tmp_path / "lib/manifest.json")
    before = env.read_bytes()

    def item(state, **arguments):
        return call("rollback_manifest", state=state, path=str(env), manifest=manifest, **arguments)

    assert item("restored")["status"] == "unknown"
    assert item("recorded", check=True)["changed"]
    assert not (tmp_path / "lib").exists()
    assert item("written", check=True)["changed"]
    assert item("recorded")["changed"]
    env.write_text("TOKEN=hunter3")
    assert item("written")["changed"]
    assert not item("recorded")["changed"]
    assert not item("written")["changed"]
    result = item("restored", check=True)
    assert (result["status"], result["changed"]) == ("restored", True)
    assert env.read_text() == "TOKEN=hunter3"
    result = item("restored")
    assert (result["status"], result["changed"], env.read_bytes()) == ("restored", True, before)
    assert "hunter" not in json.dumps(result)
    assert item("restored")["status"] == "unknown"


def test_rollback_manifest_reports_drift_until_the_caller_reverted_its_changes(env, tmp_path):
    manifest = str(tmp_path / "lib/manifest.json")

    def item(state):
        return call("rollback_manifest", state=state, path=str(env), manifest=manifest)

    item("recorded")
    env.write_text("ours")
    item("written")
    env.write_text("ours and theirs")
    for _time in range(2):
        result = item("restored")
        assert (result["status"], result["changed"]) == ("drifted", False)
    assert item("forgotten")["changed"]
    assert not item("forgotten")["changed"]
    assert env.read_text() == "ours and theirs"


def test_rollback_manifest_records_entries_that_are_not_paths(tmp_path):
    arguments = {"manifest": str(tmp_path / "manifest.json"), "kind": "network", "name": "outer"}
    assert call("rollback_manifest", state="recorded", data={"created": True}, **arguments)["changed"]
    assert not call("rollback_manifest", state="recorded", data={"created": False}, **arguments)["changed"]
    result = call("rollback_manifest", state="read", manifest=arguments["manifest"])
    assert result["entries"] == [{"kind": "network", "name": "outer", "data": {"created": True}}]
    message = call("rollback_manifest", state="restored", **arguments)["msg"]
    assert "undo other kinds of items (here: network) in the role" in message
    for changed in (True, False):
        replaced = call("rollback_manifest", state="recorded", data={"created": False}, replace=True, **arguments)
        assert (replaced["changed"], replaced["item"]["data"]) == (changed, {"created": False})
    message = call("rollback_manifest", state="forgotten", replace=True, **arguments)["msg"]
    assert "replace needs state=recorded" in message
    assert call("rollback_manifest", state="forgotten", **arguments)["changed"]
    assert call("rollback_manifest", state="read", manifest=arguments["manifest"])["entries"] == []


def test_rollback_manifest_records_all_of_several_paths_or_none(env, tmp_path):
    manifest, new = str(tmp_path / "lib/manifest.json"), tmp_path / "new"

    def items(state, *paths, **arguments):
        return call(
            "rollback_manifest", state=state, paths=[str(path) for path in paths], manifest=manifest, **arguments
        )

    assert items("recorded", env, new, check=True)["changed"]
    assert not (tmp_path / "lib").exists()
    assert items("recorded", env, new)["changed"]
    assert not items("recorded", env, new)["changed"]
    new.write_text("ours")
    result = items("written", env, new)
    assert result["changed"] and "item" not in result
    assert not items("written", env, new)["changed"]
    names = [item["name"] for item in call("rollback_manifest", state="read", manifest=manifest)["entries"]]
    assert names == sorted([str(env), str(new)])
    assert items("forgotten", env, new)["changed"]
    assert call("rollback_manifest", state="read", manifest=manifest)["entries"] == []
    assert not items("recorded")["changed"]
    assert "does not accept paths" in items("restored", env)["msg"]
    assert "must be absolute" in items("recorded", env, "relative")["msg"]
    assert call("rollback_manifest", state="read", manifest=manifest)["entries"] == []


def test_rollback_manifest_refuses_a_damaged_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text('{"version": 1, "it')
    result = call("rollback_manifest", state="recorded", path="/etc/hostname", manifest=str(tmp_path / "manifest.json"))
    assert result["failed"]
    assert "is damaged" in result["msg"]
    assert "Restore it from a backup" in result["msg"]


SETTINGS = {"sandbox": {"docker": {"network": "none", "env": {"HTTP_PROXY": "http://proxy:8082", "TOKEN": "hunter2"}}}}
THEIRS = {"defaults": {"sandbox": {"docker": {"network": "bridge", "env": {"HTTP_PROXY": "http://u:hunter2@old:1"}}}}}


@pytest.fixture
def openclaw(tmp_path, monkeypatch):
    """Return a Docker fake with a running gateway container, and the module arguments that name this container."""
    docker = Docker(tmp_path / "bin", containers={"gw": "healthy"}, openclaw={"agents": THEIRS, "meta": {}})
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return docker, {"container": "gw", "manifest": str(tmp_path / "state" / "manifest.json")}


def test_openclaw_agents_changes_only_different_settings_and_restores_them(openclaw):
    docker, gateway = openclaw
    result = call("openclaw_agents", defaults=SETTINGS, check=True, **gateway)
    assert result["changed"]
    assert not Path(gateway["manifest"]).exists()
    assert docker.state["openclaw"]["agents"] == THEIRS
    assert call("openclaw_agents", defaults=SETTINGS, **gateway)["settings"] == result["settings"]
    assert docker.state["openclaw"] == {"agents": {"defaults": SETTINGS}, "meta": {}}
    assert not call("openclaw_agents", defaults=SETTINGS, **gateway)["changed"]
    assert "hunter2" not in str([result["diff"], result["settings"]])
    assert Path(gateway["manifest"]).stat().st_mode & 0o777 == 0o600
    result = call("openclaw_agents", state="absent", check=True, **gateway)
    assert result["changed"]
    assert "hunter2" not in str(result["diff"])
    assert call("openclaw_agents", state="absent", **gateway)["changed"]
    assert docker.state["openclaw"]["agents"] == THEIRS
    assert not call("openclaw_agents", state="absent", **gateway)["changed"]


def test_openclaw_agents_keeps_the_undo_data_if_openclaw_refuses(openclaw):
    docker, gateway = openclaw
    call("openclaw_agents", defaults=SETTINGS, **gateway)
    kept, had = Path(gateway["manifest"]).read_text(), docker.state["openclaw"]
    docker.change(openclaw={"message": "config is read-only here"})
    result = call("openclaw_agents", state="absent", **gateway)
    assert result["failed"]
    assert "config is read-only here. Correct it there" in result["msg"]
    assert Path(gateway["manifest"]).read_text() == kept
    docker.change(openclaw=had)
    call("openclaw_agents", state="absent", **gateway)
    assert docker.state["openclaw"]["agents"] == THEIRS


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ('OpenClaw does not know the command "config".', "update it, or set openclaw_gateway_sandboxes to false"),
        ("error: unknown command 'config'", "update it, or set openclaw_gateway_sandboxes to false"),
        ("unable to find user node: no matching entries in passwd file", "openclaw_gateway_user"),
    ],
)
def test_each_error_of_openclaw_agents_names_a_remedy(openclaw, message, remedy):
    docker, gateway = openclaw
    docker.change(openclaw={"message": message})
    result = call("openclaw_agents", defaults=SETTINGS, **gateway)
    assert message.rstrip(".") in result["msg"]
    assert remedy in result["msg"]
    assert "Traceback" not in str(result)


def test_openclaw_agents_reports_a_missing_gateway(openclaw):
    docker, gateway = openclaw
    docker.change(containers={})
    assert "Start the container gw" in call("openclaw_agents", defaults=SETTINGS, **gateway)["msg"]


def test_gateway_plan_returns_the_plan_and_problems_without_failing(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    labels = {"com.docker.compose.project.working_dir": f"{tmp_path}/real", "com.docker.compose.project": "other"}
    options = {
        "interpolated": {"name": "one", "services": {"openclaw-gateway": {"command": ["sh", "-c", "node $$X"]}}},
        "container": {"Config": {"Labels": labels}},
        "compose_dir": f"{tmp_path}/link",
        "compose_file": f"{tmp_path}/link/docker-compose.egress.yml",
        "env_file": f"{tmp_path}/link/.env",
        "no_proxy": "10.0.0.0/8,localhost",  # `ansible-playbook -e` passes a list as a string
    }
    found = call("openclaw_gateway_plan", **options)
    assert not found["changed"]
    assert found["environment"]["NO_PROXY"] == "10.0.0.0/8,localhost"
    assert found["environment"]["NODE_OPTIONS"] == "--require /app/proxy-bootstrap.cjs"
    (problem,) = found["problems"]
    assert problem["code"] == "other-project"
    assert f"Set COMPOSE_PROJECT_NAME=other in {tmp_path}/link/.env." in problem["message"]
    assert "docker compose config" in call("openclaw_gateway_plan", **options | {"interpolated": {}})["msg"]
