#!/usr/bin/python
# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Manage several files, directories and links in one run
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Writes, creates and deletes files, directories and symbolic links on the host, in the order of O(files). One run for
    many files is faster than a task for each of them, above all if nothing changes.
  - Replaces a file atomically. A new file has its owner and mode from the start; without O(files[].mode) it has 0600, a
    new directory 0700.
  - Stops before the first change if an item has the wrong type, for example a directory or a FIFO in place of a file.
  - Deletes temporary files that an interrupted run left beside the items, except in check mode.
attributes:
  check_mode:
    support: full
    description: Reports the changes without making them. A missing O(files[].src) or target counts as a change.
  diff_mode:
    support: full
    description: Shows changed owners and modes, and the content of files unless O(files[].diff=false).
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
options:
  files:
    description: The files, directories and links.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path. Except for a directory, its parent directory must exist, or be an earlier item.
        type: path
        required: true
      state:
        description:
          - V(file) writes O(files[].content), or a copy of O(files[].src). It replaces a symbolic link with a file, and
            leaves the link's target. Without both options, the file or the link's target must exist.
          - V(directory) creates the directory, and missing parent directories with the mode 0755. If O(files[].path) is
            a symbolic link to a directory, owner and mode are set on the link's target.
          - V(link) creates a symbolic link to O(files[].target).
          - V(absent) deletes the file, the link, or the directory with everything in it.
        type: str
        choices: [file, directory, link, absent]
        default: file
      content:
        description: Text of the file.
        type: str
      src:
        description: File on the host to copy.
        type: path
      target:
        description: Target of the link.
        type: path
      validate:
        description:
          - Command that must succeed before the file is replaced. It runs only if the file is replaced. V(%s) stands
            for a temporary file with the new content.
        type: str
      contains:
        description:
          - Relative paths of all files in the directory, each with its SHA-256. The module deletes all other files and
            directories below O(files[].path), and whatever is in place of a file, such as a symbolic link, but writes
            none. It returns a directory with missing or different files in RV(incomplete).
          - Each file must have the owner and the mode of the directory, the mode without the bits for execution.
        type: dict
      keep:
        description: Whether to leave the owner and the mode of an existing directory unchanged.
        type: bool
        default: false
      owner:
        description: Name or number of the owner.
        type: str
      group:
        description: Name or number of the group.
        type: str
      mode:
        description: Mode in octal notation, such as V(0644).
        type: str
      diff:
        description: Whether a diff shows the content of the file.
        type: bool
        default: true
"""

EXAMPLES = r"""
- name: Create a directory with a policy
  openclaw.egress.host_files:
    files:
      - {path: /etc/example, state: directory, owner: root, group: root, mode: "0755"}
      - {path: /etc/example/policy.yml, content: "version: 1\n", owner: root, group: root, mode: "0644"}
      - {path: /etc/example/old.yml, state: absent}
"""

RETURN = r"""
changed_paths:
  description: Paths of the items that changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/example/policy.yml]
incomplete:
  description: Directories in which a file of O(files[].contains) is missing or differs.
  returned: success
  type: list
  elements: str
  sample: [/home/openclaw/openclaw-egress/proxy-config/addons]
"""

import errno
import hashlib
import os
import re
import shlex
import shutil
import stat
import tempfile

from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule


PREFIX = ".openclaw-egress-"
# Names that tempfile.mkstemp creates with this prefix.
TEMPORARY = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
SPECIAL = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class HostFileError(ValueError):
    """Error that explains why an item cannot be managed."""


def not_a_file(path: str) -> str:
    """Return the type of the path or of a link's target. Return an empty text for a regular or a missing file."""
    if not os.path.exists(path) or os.path.isfile(path):
        return ""
    if os.path.isdir(path):
        return "a directory"
    return SPECIAL.get(stat.S_IFMT(os.stat(path).st_mode), "a special file")


def wrong_type(item: dict[str, Any]) -> str:
    """Return why the item cannot get its state and what to do, or an empty text."""
    path, state, src = item["path"], item["state"], item["src"]
    if not os.path.isabs(path):
        return "%s is not an absolute path. Set an absolute path." % path
    problem = ""
    if state == "file" and not_a_file(path):
        problem = "%s is %s, not a file." % (path, not_a_file(path))
    elif state == "directory" and os.path.lexists(path) and not os.path.isdir(path):
        problem = "%s is not a directory." % path
    elif state == "link" and os.path.lexists(path) and not os.path.islink(path):
        problem = "%s exists, and is not a symbolic link." % path
    elif state != "absent":
        parent = os.path.dirname(path)
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        if not os.path.isdir(parent):
            problem = "%s cannot be created: %s is not a directory." % (path, parent)
    if problem:
        return problem + " Move it away, or set another path."
    if state == "file" and src and not_a_file(src):
        return "%s cannot be copied to %s: it is %s, not a file. Set the path of a file." % (src, path, not_a_file(src))
    return ""


def read(path: str) -> Optional[bytes]:
    """Return the content of a file, or None if it does not exist."""
    try:
        with open(path, "rb") as source:
            return source.read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def delete_leftovers(module: AnsibleModule, items: list[dict[str, Any]]) -> None:
    """Delete the temporary files that an interrupted run left beside the items. One can contain credentials."""
    for directory in sorted({os.path.dirname(item["path"]) for item in items}):
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
            path = os.path.join(directory, name)
            if TEMPORARY.fullmatch(name) and stat.S_ISREG(os.lstat(path).st_mode):
                os.unlink(path)
                module.warn("Deleted %s, a temporary file of an interrupted run." % path)


def validate(module: AnsibleModule, item: dict[str, Any], content: bytes) -> None:
    """Run the item's command `validate` on a temporary file with the new content. Raise an error if it fails."""
    handle, name = tempfile.mkstemp(dir=module.tmpdir)
    module.add_cleanup_file(name)
    with os.fdopen(handle, "wb") as candidate:
        candidate.write(content)
    argv = [word.replace("%s", name) for word in shlex.split(item["validate"])]
    code, out, error = module.run_command(argv)
    if code != 0:
        raise HostFileError("%s was not changed: its new content is not valid: %s" % (item["path"], error or out))


def attributes(module: AnsibleModule, item: dict[str, Any], path: str, changes: dict[str, Any]) -> bool:
    """Set owner, group and mode of the path. Add the differences to ``changes``. Return whether one differed."""
    changed = module.set_owner_if_different(path, item["owner"], False, changes, expand=False)
    changed = module.set_group_if_different(path, item["group"], changed, changes, expand=False)
    if item["state"] != "link":
        changed = module.set_mode_if_different(path, item["mode"], changed, changes, expand=False)
    return bool(changed)


def replace(module: AnsibleModule, item: dict[str, Any], content: bytes) -> None:
    """Replace the file or link atomically. Set owner and mode before the file has its name.

    Keep the owner and the mode of a file if they are not given.
    """
    handle, name = tempfile.mkstemp(dir=os.path.dirname(item["path"]), prefix=PREFIX)
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        if os.path.isfile(item["path"]) and not os.path.islink(item["path"]):
            shutil.copymode(item["path"], name)
            before = os.stat(item["path"])
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(name, before.st_uid, before.st_gid)
        attributes(module, item, name, {})
        os.replace(name, item["path"])
    finally:
        if os.path.lexists(name):
            os.unlink(name)


def shown(content: Optional[bytes]) -> str:
    return "" if content is None else content.decode("utf-8", "replace")


def manage_file(module: AnsibleModule, item: dict[str, Any], diffs: list[dict[str, Any]]) -> bool:
    path, before = item["path"], read(item["path"])
    if item["content"] is not None:
        after: Optional[bytes] = item["content"].encode()
    elif item["src"]:
        after = read(item["src"])
        if after is None and not module.check_mode:
            raise HostFileError("%s cannot be copied: %s does not exist" % (path, item["src"]))
    else:
        after = before
        if before is None and not module.check_mode:
            raise HostFileError("%s does not exist" % path)
    # Like ansible.builtin.copy, replace a link, even if the content of its target is the same.
    linked = os.path.islink(path) and (item["content"] is not None or bool(item["src"]))
    if after is not None and (after != before or linked):
        if item["diff"]:
            diffs.append({"before": shown(before), "after": shown(after), "before_header": path, "after_header": path})
        if not module.check_mode:
            if item["validate"]:
                validate(module, item, after)
            replace(module, item, after)
        return True
    return update_attributes(module, item, diffs)


def update_attributes(module: AnsibleModule, item: dict[str, Any], diffs: list[dict[str, Any]]) -> bool:
    """Set the attributes of an existing item or a link's target. In check mode, a missing item counts as changed."""
    changes: dict[str, Any] = {}
    path = item["path"] if item["state"] == "link" else os.path.realpath(item["path"])
    if not os.path.lexists(path):
        return True
    changed = attributes(module, item, path, changes)
    if changed:
        diffs.append(dict(changes, before_header=path, after_header=path))
    return changed


def create_parents(path: str) -> None:
    """Create the missing parent directories of the path with the mode 0755, independent of the umask."""
    parent = os.path.dirname(path.rstrip("/"))
    if not os.path.isdir(parent):
        create_parents(parent)
        os.mkdir(parent)
        os.chmod(parent, 0o755)


def manage_directory(module: AnsibleModule, item: dict[str, Any], diffs: list[dict[str, Any]]) -> bool:
    path = item["path"]
    if os.path.isdir(path):
        return False if item["keep"] else update_attributes(module, item, diffs)
    diffs.append({"before": "", "after": "directory\n", "before_header": path, "after_header": path})
    if not module.check_mode:
        create_parents(path)
        os.mkdir(path, 0o700)
        attributes(module, item, path, {})
    return True


def manage_link(module: AnsibleModule, item: dict[str, Any], diffs: list[dict[str, Any]]) -> bool:
    path, target = item["path"], item["target"]
    before = os.readlink(path) if os.path.islink(path) else ""
    if before == target:
        return update_attributes(module, item, diffs)
    diffs.append({"before": before + "\n", "after": target + "\n", "before_header": path, "after_header": path})
    if not module.check_mode:
        if before:
            os.unlink(path)
        os.symlink(target, path)
        attributes(module, item, path, {})
    return True


def delete(module: AnsibleModule, path: str, diffs: list[dict[str, Any]]) -> bool:
    if not os.path.lexists(path):
        return False
    diffs.append({"before": "exists\n", "after": "", "before_header": path, "after_header": path})
    if not module.check_mode:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    return True


def delete_others(module: AnsibleModule, item: dict[str, Any], diffs: list[dict[str, Any]]) -> bool:
    """Delete everything below the directory except the regular files that ``contains`` lists."""
    root, changed = item["path"], False
    files = {os.path.join(root, name) for name in item["contains"]}
    for directory, directories, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            # Delete a link too, because ansible.builtin.unarchive keeps it if its target has the time of the file.
            if path not in files or not stat.S_ISREG(os.lstat(path).st_mode):
                changed = delete(module, path, diffs) or changed
        for name in list(directories):
            path = os.path.join(directory, name)
            if os.path.islink(path) or not any(file.startswith(path + os.sep) for file in files):
                changed = delete(module, path, diffs) or changed
                directories.remove(name)
    return changed


def complete(item: dict[str, Any]) -> bool:
    """Return whether the directory has all files of ``contains``, with its own owner and mode (see the option)."""
    root = item["path"]
    if not os.path.isdir(root):
        return False
    model = os.stat(root)
    directory_mode = stat.S_IMODE(model.st_mode)
    for name, digest in item["contains"].items():
        path = os.path.join(root, name)
        # Do not read a FIFO: it would block.
        content = read(path) if os.path.isfile(path) and not os.path.islink(path) else None
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            return False
        mode = directory_mode & ~0o111
        while path != root:
            found = os.lstat(path)
            if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (model.st_uid, model.st_gid, mode):
                return False
            path, mode = os.path.dirname(path), directory_mode
    return True


def manage(module: AnsibleModule, item: dict[str, Any], diffs: list[dict[str, Any]]) -> bool:
    """Give the item its state. Return whether it changed."""
    if item["state"] == "absent":
        return delete(module, item["path"], diffs)
    if item["state"] == "link":
        return manage_link(module, item, diffs)
    if item["state"] == "file":
        return manage_file(module, item, diffs)
    changed = manage_directory(module, item, diffs)
    if item["contains"] is not None and os.path.isdir(item["path"]):
        changed = delete_others(module, item, diffs) or changed
    return changed


def run(module: AnsibleModule) -> dict[str, Any]:
    items: list[dict[str, Any]] = module.params["files"]
    wrong = [problem for problem in map(wrong_type, items) if problem]
    if wrong:
        raise HostFileError("This step changed nothing. %s" % " ".join(wrong))
    if not module.check_mode:
        delete_leftovers(module, items)
    diffs: list[dict[str, Any]] = []
    paths = [item["path"] for item in items if manage(module, item, diffs)]
    watched = [item for item in items if item["contains"] is not None]
    result = {
        "changed": bool(paths),
        "changed_paths": paths,
        "incomplete": [item["path"] for item in watched if not complete(item)],
    }
    if module._diff:
        result["diff"] = diffs
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "state": {"type": "str", "choices": ["file", "directory", "link", "absent"], "default": "file"},
                    "content": {"type": "str"},
                    "src": {"type": "path"},
                    "target": {"type": "path"},
                    "validate": {"type": "str"},
                    "contains": {"type": "dict"},
                    "keep": {"type": "bool", "default": False},
                    "owner": {"type": "str"},
                    "group": {"type": "str"},
                    "mode": {"type": "str"},
                    "diff": {"type": "bool", "default": True},
                },
                "mutually_exclusive": [("content", "src")],
                "required_if": [("state", "link", ["target"])],
            },
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except HostFileError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename, error.strerror))


if __name__ == "__main__":
    main()
