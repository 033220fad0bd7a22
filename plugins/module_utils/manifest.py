# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Record of a host's state before this collection changed it, and functions that restore this state.

It is a JSON file: ``{"version": 1, "items": {"path:/etc/x": {"kind", "name", "before", "wrote", "edited", "data"},
…}}``. ``before`` and ``wrote`` are states of a path: ``type`` (absent, file, directory, symlink), ``mode``, ``uid``,
``gid``, ``sha256`` or ``target``. For a file, ``before`` also contains its bytes (``content``: gzip, base64).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import stat
import tempfile
from typing import Any

MAX_FILE = 16 * 1024 * 1024
VERSION = 1


class ManifestError(ValueError):
    """Error that explains to the operator why nothing was changed. The text contains no content of a file."""


class Manifest:
    """Items of one manifest file. Changes stay in memory until :meth:`save`, which replaces the file atomically."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.items: dict[str, Any] = {}
        self.exists = os.path.lexists(path)
        if self.exists:
            self.items = _load(path)

    def save(self) -> None:
        directory = os.path.dirname(self.path)
        if not os.path.isdir(directory):
            os.makedirs(directory, 0o700)
            os.chmod(directory, 0o700)
            _sync_directory(os.path.dirname(directory))
        text = json.dumps({"version": VERSION, "items": self.items}, indent=1, sort_keys=True) + "\n"
        _replace(self.path, text.encode(), 0o600)
        self.exists = True

    def record(self, kind: str, name: str, data: dict[str, Any] | None = None, replace: bool = False) -> bool:
        """Record the current state as the original state. Later calls only note whether somebody edited our version.

        With `replace`, they replace the data of an item that is not a path. Return True if this changed an item.
        """
        key = key_of(kind, name)
        item = self.items.get(key)
        if item is None:
            self.items[key] = {"kind": kind, "name": name, "data": data or {}}
            if kind == "path":
                self.items[key]["before"] = state_of(name, with_content=True)
            return True
        if replace and item.get("data") != (data or {}):
            item["data"] = data or {}
            return True
        if kind == "path" and item.get("wrote") and not item.get("edited") and state_of(name) != item["wrote"]:
            item["edited"] = True
            return True
        return False

    def wrote(self, name: str) -> bool:
        """Record the current state of the path as our version. Return True if the record changed."""
        item = self.items.get(key_of("path", name))
        if item is None:
            raise ManifestError(
                "%s was not recorded before it was written; call state=recorded before the change" % name
            )
        now = state_of(name)
        if item.get("wrote") == now:
            return False
        item["wrote"] = now
        return True

    def status(self, name: str) -> str:
        """Return the expected result of a restore of this path: unknown, unchanged, restored or drifted."""
        item = self.items.get(key_of("path", name))
        if item is None:
            return "unknown"
        now = state_of(name)
        if now == _without_content(item["before"]):
            return "unchanged"
        new_directory = item["before"]["type"] == "absent" and now["type"] == "directory"
        if new_directory and not item.get("wrote") and not os.listdir(name):
            # A restore may remove this empty directory: an interrupted run created it, but did not record that.
            return "restored"
        if item.get("edited") or now != item.get("wrote"):
            return "drifted"
        if new_directory and os.listdir(name):
            return "drifted"
        return "restored"

    def forget(self, kind: str, name: str) -> bool:
        return self.items.pop(key_of(kind, name), None) is not None


def key_of(kind: str, name: str) -> str:
    return "%s:%s" % (kind, name)


def state_of(path: str, with_content: bool = False) -> dict[str, Any]:
    """Return the state of a path. Do not follow links. Raise an error for a file above 16 MB and for a device."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {"type": "absent"}
    state = {"mode": "%04o" % stat.S_IMODE(found.st_mode), "uid": found.st_uid, "gid": found.st_gid}
    if stat.S_ISLNK(found.st_mode):
        return {"type": "symlink", "target": os.readlink(path), "uid": found.st_uid, "gid": found.st_gid}
    if stat.S_ISDIR(found.st_mode):
        return dict(state, type="directory")
    if not stat.S_ISREG(found.st_mode):
        raise ManifestError("%s is neither a file nor a directory nor a symbolic link" % path)
    if found.st_size > MAX_FILE:
        raise ManifestError(
            "%s has %d bytes, but the manifest stores only files up to %d bytes" % (path, found.st_size, MAX_FILE)
        )
    try:
        with open(path, "rb") as source:
            content = source.read()
    except OSError as error:
        raise ManifestError("%s cannot be read: %s" % (path, error.strerror)) from error
    state.update(type="file", sha256=hashlib.sha256(content).hexdigest())
    if with_content:
        state["content"] = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return state


def put_back(path: str, state: dict[str, Any]) -> None:
    """Restore a recorded state of the path. Replace the file, the link or the empty directory at this path, if any."""
    kind = state["type"]
    if kind == "file":
        content = gzip.decompress(base64.b64decode(state["content"]))
        if hashlib.sha256(content).hexdigest() != state["sha256"]:
            raise ManifestError("the manifest's copy of %s does not have the digest that was recorded with it" % path)
        _replace(path, content, int(state["mode"], 8), (state["uid"], state["gid"]))
        return
    if kind == "directory" and os.path.isdir(path) and not os.path.islink(path):
        pass
    elif os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)
    if kind == "symlink":
        os.symlink(state["target"], path)
        _chown(path, state["uid"], state["gid"])
    elif kind == "directory":
        os.makedirs(path, exist_ok=True)
        _chown(path, state["uid"], state["gid"])
        os.chmod(path, int(state["mode"], 8))
    _sync_directory(os.path.dirname(path))


def _without_content(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != "content"}


def _load(path: str) -> dict[str, Any]:
    remedy = "Nothing was changed. Restore it from a backup. Without it, this host cannot be rolled back automatically"
    try:
        with open(path, encoding="utf-8") as source:
            content = json.load(source)
    except OSError as error:
        raise ManifestError("%s cannot be read: %s" % (path, error.strerror)) from error
    except ValueError as error:
        raise ManifestError("%s is damaged (%s). %s" % (path, error, remedy)) from error
    if not isinstance(content, dict) or not isinstance(content.get("items"), dict):
        raise ManifestError("%s is damaged (it has no items). %s" % (path, remedy))
    if content.get("version") != VERSION:
        raise ManifestError(
            "%s has version %r, but this release supports %d. Use the release that wrote it"
            % (path, content.get("version"), VERSION)
        )
    for key, item in content["items"].items():
        well_formed = isinstance(item, dict) and key == key_of(str(item.get("kind")), str(item.get("name")))
        if not well_formed or (item["kind"] == "path" and "type" not in (item.get("before") or {})):
            raise ManifestError("%s is damaged (item %r). %s" % (path, key, remedy))
    items: dict[str, Any] = content["items"]
    return items


def _replace(path: str, content: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Replace a file atomically, so that a power failure leaves either the old or the new file.

    Write a temporary file, call fsync, rename the file, and call fsync on the directory.
    """
    directory = os.path.dirname(path)
    handle, name = tempfile.mkstemp(dir=directory, prefix=".openclaw-egress-")
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(content)
            target.flush()
            if owner is not None:
                _chown(name, *owner)
            os.chmod(name, mode)
            os.fsync(target.fileno())
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        os.replace(name, path)
    except BaseException:
        if os.path.lexists(name):
            os.unlink(name)
        raise
    _sync_directory(directory)


def _chown(path: str, uid: int, gid: int) -> None:
    found = os.lstat(path)
    if (found.st_uid, found.st_gid) != (uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)


def _sync_directory(path: str) -> None:
    handle = os.open(path or "/", os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
