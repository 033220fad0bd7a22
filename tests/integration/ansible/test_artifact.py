"""Tests of the built collection artifact, which is installed into an empty directory and run from there."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.ansible.conftest import ROOT


@pytest.fixture(scope="module")
def installed(run, tmp_path_factory) -> Path:
    """Install the artifact into an empty directory. Return the collection's folder."""
    made, into = tmp_path_factory.mktemp("artifact"), tmp_path_factory.mktemp("elsewhere")
    built = run("ansible-galaxy", "collection", "build", "--output-path", str(made))
    assert built.returncode == 0, built.stderr
    (artifact,) = made.glob("openclaw-egress-*.tar.gz")
    done = run(
        "ansible-galaxy",
        "collection",
        "install",
        "--no-deps",
        "--offline",
        "-p",
        str(into),
        str(artifact),
        collections=into,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return into / "ansible_collections" / "openclaw" / "egress"


def test_artifact_contains_only_needed_files(installed):
    top = {path.name for path in installed.iterdir()}
    assert top >= {
        "roles",
        "playbooks",
        "plugins",
        "files",
        "inventories",
        "meta",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
    }
    assert top.isdisjoint({"tests", "molecule", "requirements", "collections", "build", "Makefile", ".venv", ".ci"})
    names = [path.relative_to(installed).as_posix() for path in installed.rglob("*")]
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".egg-info", ".db"))]


def test_the_addon_is_among_the_roles_files(installed):
    addon = installed / "roles" / "openclaw_proxy" / "files" / "addon"
    shipped = {path.relative_to(addon.resolve()).as_posix() for path in addon.resolve().rglob("*.py")}
    source = ROOT / "files" / "addon"
    assert shipped == {path.relative_to(source).as_posix() for path in source.rglob("*.py")}


def test_site_runs_from_the_installed_artifact(run, installed, tmp_path):
    listed = run(
        "ansible-playbook", "openclaw.egress.site", "-i", str(installed / "inventories" / "example"), "--list-tasks",
        cwd=tmp_path, collections=installed.parents[2],
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    assert "Deploy proxy and gateway on VPS-1" in listed.stdout and "Prepare Loki on VPS-2" in listed.stdout


@pytest.mark.parametrize("playbook", ["site", "verify", "rollback"])
def test_every_playbook_of_the_artifact_passes_the_syntax_check(run, installed, tmp_path, playbook):
    done = run(
        "ansible-playbook", f"openclaw.egress.{playbook}", "--syntax-check", "-i", str(installed / "inventories/fleet"),
        cwd=tmp_path, collections=installed.parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["build_patch", "compose_env", "host_files", "openclaw_agents", "rollback_manifest"])
def test_module_documentation_renders(run, installed, module):
    done = run("ansible-doc", "-t", "module", f"openclaw.egress.{module}", collections=installed.parents[2])
    assert done.returncode == 0, done.stderr
    assert "EXAMPLES:" in done.stdout and "RETURN VALUES:" in done.stdout
    assert "WARNING" not in done.stderr


def test_the_addon_is_a_package_with_a_command(tmp_path):
    done = subprocess.run(
        [*(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
         *("--wheel-dir", str(tmp_path), str(ROOT / "files" / "addon"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("openclaw_egress-*.whl")
    with zipfile.ZipFile(wheel) as opened:
        (name,) = [name for name in opened.namelist() if name.endswith("entry_points.txt")]
        assert "egress = openclaw_egress.cli:main" in opened.read(name).decode()
        assert any(name.endswith("app/launcher.py") for name in opened.namelist())
        for name in ("policy/policy.schema.json", "ui/templates/live.html", "ui/static/live.js", "ui/static/style.css"):
            assert f"openclaw_egress/{name}" in opened.namelist()
