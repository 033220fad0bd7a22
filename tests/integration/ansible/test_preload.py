"""Tests of the callback plugin that makes the playbook runs of tests cheaper."""

import shutil

from tests.integration.ansible.conftest import ROOT
from tests.support.callback_plugins.preload import SHARED, digest

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - openclaw.egress.compose_env: {path: "{{ playbook_dir }}/.env", variables: {A: b}}
"""


def test_runs_share_packed_modules_only_if_they_have_the_same_sources(run, tmp_path):
    egress = tmp_path / "collections/ansible_collections/openclaw/egress"
    for part in ("plugins", "meta"):
        shutil.copytree(ROOT / part, egress / part)
    shutil.copy(ROOT / "galaxy.yml", egress)
    first = digest(tmp_path / "collections")
    assert first == digest(ROOT / "collections")
    # Change a source, so that no other run has packed it.
    changed = egress / "plugins/module_utils/dotenv.py"
    changed.write_text(f"{changed.read_text()}# {tmp_path}\n")
    shared = SHARED / digest(tmp_path / "collections")
    assert shared.name != first and not shared.exists()
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    for changes in (1, 0):
        done = run("ansible-playbook", str(tmp_path / "play.yml"), collections=tmp_path / "collections")
        assert f"changed={changes} " in done.stdout, done.stdout + done.stderr
    assert [path for path in shared.iterdir() if "compose_env" in path.name]
    shutil.rmtree(shared)
