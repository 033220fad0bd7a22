"""Callback plugin that makes the playbook runs of tests cheaper. It changes no result.

Ansible forks a process for each task. Each process loads all filters and the documentation of its connection plugin
again, and each playbook run packs every module again. This plugin loads these parts once, before the first fork. It
also shares packed modules between playbook runs of the same sources.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import (
    action_loader,
    connection_loader,
    filter_loader,
    lookup_loader,
    shell_loader,
    test_loader,
)

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT / "build" / "packed-modules"
PLUGINS = (
    (connection_loader, ("ansible.builtin.local", "community.docker.docker")),
    (action_loader, ("normal", "command", "copy", "template", "set_fact", "assert", "debug", "fail", "uri")),
    (lookup_loader, ("file", "template", "varnames")),
    (shell_loader, ("sh",)),
)


def load_plugins() -> None:
    """Load the plugins that most tasks use, with their documentation."""
    for loader in (filter_loader, test_loader):
        list(loader.all())
    for loader, names in PLUGINS:
        for name in names:
            loader.get(name, class_only=True)


def digest(collections: Path) -> str:
    """Return a digest of the sources of packed modules: the collection's plugins, and the versions of all others."""
    found = hashlib.sha256(sys.version.encode() + (ROOT / "requirements" / "dev.txt").read_bytes())
    plugins = collections / "ansible_collections" / "openclaw" / "egress" / "plugins"
    for source in sorted(plugins.rglob("*.py")):
        found.update(f"{source.relative_to(plugins)}\0".encode() + source.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def share_packed_modules() -> None:
    """Replace Ansible's directory of packed modules, which is new for each run, with one for the current sources."""
    collections = os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(ROOT / "collections")).partition(os.pathsep)[0]
    shared = SHARED / digest(Path(collections))
    shared.mkdir(parents=True, exist_ok=True)
    own = Path(constants.DEFAULT_LOCAL_TMP) / "ansiballz_cache"
    if not own.exists():
        own.symlink_to(shared)


class CallbackModule(CallbackBase):
    """The plugin. Ansible calls it before the first play."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: object) -> None:
        """Prepare the main process before its first fork."""
        del playbook
        load_plugins()
        share_packed_modules()
