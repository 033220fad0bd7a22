"""Tests of the tasks that install the addon on the host, with a directory of this machine as the host."""

import json
import os

import pytest

from tests.integration.ansible.conftest import ROOT

SOURCE = ROOT / "files/addon/openclaw_egress"
PLAY = [
    {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.include_role": {"name": "openclaw.egress.openclaw_proxy", "tasks_from": "files"}},
        ],
    }
]


def modes(root):
    return {str(path.relative_to(root)): (oct(path.lstat().st_mode), path.lstat().st_uid) for path in root.rglob("*")}


pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="the role gives the files to root and to the proxy's user"),
]


@pytest.fixture
def install(run, tmp_path):
    """Return a function that runs the tasks."""
    (tmp_path / "play.yml").write_text(json.dumps(PLAY))
    variables = {
        "openclaw_egress_home": f"{tmp_path}/home",
        "openclaw_egress_state_dir": f"{tmp_path}/state",
        "openclaw_egress_compose_dir": f"{tmp_path}/compose",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "ansible_become": False,
        "__openclaw_proxy_ready": True,
    }

    def call(**more):
        words = ["-i", "localhost,", "-e", json.dumps(variables | more), f"{tmp_path}/play.yml"]
        return run("ansible-playbook", *words)

    return call


def changed(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return "changed=0 " not in done.stdout


def test_link_and_wrong_modes_in_the_installed_addon_are_repaired(install, tmp_path):
    before = os.umask(0o077)
    try:
        assert changed(install())
        addons = tmp_path / "home/proxy-config/addons"
        installed = modes(addons)
        assert installed["openclaw_egress/ui/static"] == ("0o40755", 0)
        assert not changed(install())
        # unarchive keeps a link to a file with the same times and size.
        module = addons / "openclaw_egress/policy/__init__.py"
        module.rename(tmp_path / "elsewhere.py")
        module.symlink_to(tmp_path / "elsewhere.py")
        (addons / "openclaw_egress/ui/static").chmod(0o700)
        os.chown(addons / "openclaw_egress/ui/templates", 10001, 10001)
        assert changed(install())
        assert modes(addons) == installed
        assert module.read_bytes() == (SOURCE / "policy/__init__.py").read_bytes()
        assert not changed(install())
    finally:
        os.umask(before)


def test_run_stops_if_an_unpacked_file_differs(install, tmp_path):
    digests = {"openclaw_egress/__init__.py": "0"}
    done = install(__openclaw_proxy_addon_digests=digests)
    assert done.returncode == 2, done.stdout + done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert f"{tmp_path}/home/proxy-config/addons differs from the addon of this collection" in said
    (tmp_path / "home/proxy-config/addons").rename(tmp_path / "away")
    assert changed(install())
