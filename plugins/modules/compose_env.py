#!/usr/bin/python
# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_env
short_description: Edit the .env file of a compose project without showing its secrets
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Sets and removes variables in the C(.env) file of a compose project. Adds compose files to C(COMPOSE_FILE) and
    removes them.
  - All other lines stay unchanged, including comments, quotes, line ends and a missing final newline. If a variable is
    added and then removed, the file is the original one again. A C(COMPOSE_FILE) at the end of the file gets a line
    break, also if the file had none, so that a line that is appended by hand does not change it.
  - If C(COMPOSE_FILE) is set, compose does not search for its default files. So the module writes the absolute paths of
    all files in effect (the base file and the override that compose finds, or the files in C(COMPOSE_FILE)), followed
    by the added files. A comment above the entry contains the previous entry, which O(compose_files_remove) restores.
attributes:
  check_mode:
    support: full
    description: Reports the change without writing the file.
  diff_mode:
    support: full
    description:
      - Shows the names of the changed variables and hides their values, except the value of C(COMPOSE_FILE).
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
options:
  path:
    description:
      - The file. If it does not exist, the module creates it with mode 0600 and, if it runs as root, with the owner of
        its directory. It follows a symbolic link, and does not replace the link.
    type: path
    required: true
  variables:
    description:
      - Names and values. V(null) removes the variable. The module quotes values for compose, so that they are literal,
        including C($).
      - An entry that already has the value is not rewritten.
    type: dict
    default: {}
  compose_files_add:
    description: Files to add to C(COMPOSE_FILE), in this order, after the files in effect. They need not exist yet.
    type: list
    elements: path
    default: []
  compose_files_remove:
    description:
      - Files to remove from C(COMPOSE_FILE). If the variable was not edited since the files were added, the module
        restores the previous entry, or removes the variable if there was none.
    type: list
    elements: path
    default: []
  project_dir:
    description:
      - The base directory of relative paths, in which compose searches for its default files. By default the
        directory of O(path).
    type: path
notes:
  - The file keeps its owner and mode.
  - C(-f), and a C(COMPOSE_FILE) in the environment of the shell that runs compose, override the entry in the file.
"""

EXAMPLES = r"""
- name: Add our file to the operator's compose files
  openclaw.egress.compose_env:
    path: /home/openclaw/openclaw/.env
    compose_files_add:
      - /home/openclaw/openclaw/docker-compose.egress.yml

- name: Set one variable and remove another
  openclaw.egress.compose_env:
    path: /home/openclaw/openclaw/.env
    variables:
      OPENCLAW_EGRESS_CLASS: gateway
      OPENCLAW_EGRESS_OLD: null

- name: Restore the previous COMPOSE_FILE
  openclaw.egress.compose_env:
    path: /home/openclaw/openclaw/.env
    compose_files_remove:
      - /home/openclaw/openclaw/docker-compose.egress.yml
"""

RETURN = r"""
path:
  description: The file, with symbolic links resolved.
  returned: success
  type: str
  sample: /home/openclaw/openclaw/.env
changed_variables:
  description: Names of the variables that were added, changed or removed.
  returned: success
  type: list
  elements: str
  sample: [COMPOSE_FILE]
compose_files:
  description: The files in C(COMPOSE_FILE) after the run; empty if it is not set.
  returned: success
  type: list
  elements: str
  sample: [/home/openclaw/openclaw/docker-compose.yml, /home/openclaw/openclaw/docker-compose.egress.yml]
drifted:
  description:
    - Whether C(COMPOSE_FILE) was edited after the files were added, so that only these files were removed from it.
  returned: success
  type: bool
  sample: false
"""

import os
import tempfile

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openclaw.egress.plugins.module_utils.dotenv import Dotenv, DotenvError


def as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def shown(name: str, value: str | None) -> str:
    return "" if value is None else "%s=%s\n" % (name, value if name == "COMPOSE_FILE" else "********")


def diff_of(path: str, before: Dotenv, after: Dotenv, names: list[str]) -> dict[str, Any]:
    """Return the diff of the changed variables ``names``.

    Replace all values except that of COMPOSE_FILE with asterisks. Mark a changed value, because both sides would
    otherwise look the same.
    """
    sides = {"before": "", "after": "", "before_header": path, "after_header": path}
    for name in names:
        old, new = before.get(name), after.get(name)
        sides["before"] += shown(name, old)
        sides["after"] += shown(name, new)
        if name != "COMPOSE_FILE" and old is not None and new is not None:
            sides["after"] = sides["after"][:-1] + " (changed)\n"
    return sides


def write(module: AnsibleModule, path: str, text: str, is_new: bool) -> None:
    handle, name = tempfile.mkstemp(dir=module.tmpdir)
    module.add_cleanup_file(name)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as env:
        env.write(text)
    module.atomic_move(name, path)
    if is_new:
        os.chmod(path, 0o600)
        if os.geteuid() == 0:
            # Give the file the owner of the project: Compose reads the file when this user runs it.
            directory = os.stat(os.path.dirname(path))
            os.chown(path, directory.st_uid, directory.st_gid)


def run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    path = os.path.realpath(params["path"])
    project_dir = params["project_dir"] or os.path.dirname(os.path.abspath(params["path"]))
    is_new = not os.path.lexists(path)
    text = ""
    if not is_new:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as env:
                text = env.read()
        except OSError as error:
            raise DotenvError("cannot be read: %s" % error.strerror)
    before, after, drifted = Dotenv(text), Dotenv(text), False
    for name, value in params["variables"].items():
        if value is None:
            after.remove(name)
        else:
            after.set(name, as_text(value))
    if params["compose_files_remove"]:
        drifted = after.remove_compose_files(params["compose_files_remove"], project_dir)
    if params["compose_files_add"]:
        after.add_compose_files(params["compose_files_add"], project_dir)
    changed = after.text != text
    names = sorted(set(params["variables"]) | {"COMPOSE_FILE"})
    names = [name for name in names if before.get(name) != after.get(name)]
    separator = after.get("COMPOSE_PATH_SEPARATOR") or ":"
    result = {
        "changed": changed,
        "path": path,
        "changed_variables": names,
        "compose_files": [name for name in (after.get("COMPOSE_FILE") or "").split(separator) if name],
        "drifted": drifted,
    }
    if drifted:
        module.warn(
            "%s: COMPOSE_FILE was edited since the files were added; only these files were removed from it" % path
        )
    if module._diff:
        result["diff"] = diff_of(path, before, after, names)
    if changed and not module.check_mode:
        if not os.path.isdir(os.path.dirname(path)):
            raise DotenvError("the directory of the file does not exist")
        write(module, path, after.text, is_new)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "variables": {"type": "dict", "default": {}, "no_log": True},
            "compose_files_add": {"type": "list", "elements": "path", "default": []},
            "compose_files_remove": {"type": "list", "elements": "path", "default": []},
            "project_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except DotenvError as error:
        module.fail_json(msg="%s: %s. The file was not changed" % (module.params["path"], error))


if __name__ == "__main__":
    main()
