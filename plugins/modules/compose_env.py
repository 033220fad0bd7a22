#!/usr/bin/python
# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_env
short_description: Edit the .env file of a compose project without showing its secrets
version_added: 0.1.0
author:
  - openclaw.egress maintainers
description:
  - Sets and removes variables in the C(.env) file of a compose project, and adds compose files to C(COMPOSE_FILE) or
    takes them out again.
  - All other lines keep their bytes, comments, quotes, line ends and a missing final newline included. A variable that
    was added and is removed again leaves the file as it was.
  - As soon as C(COMPOSE_FILE) is set, compose no longer looks for files by itself. So the module writes down every file
    that was in effect before (the base file and the override that compose finds, or what C(COMPOSE_FILE) named), with
    absolute paths, and then the added ones. A comment above keeps what stood there, for O(compose_files_remove).
attributes:
  check_mode:
    support: full
    description: Says what would change without writing.
  diff_mode:
    support: full
    description:
      - Shows the names of the variables that change, with their values hidden; C(COMPOSE_FILE) is shown as it is.
  idempotent:
    support: full
    description: The second run with the same options changes nothing.
options:
  path:
    description: The file. If it is not there it is made, with mode 0600. A symbolic link is followed, and stays.
    type: path
    required: true
  variables:
    description:
      - Names and values. A value of V(null) removes the variable. Values are quoted as compose needs it, and mean what
        they say, a C($) included.
      - An entry that has this value already stays as it is written.
    type: dict
    default: {}
  compose_files_add:
    description: Files to add to C(COMPOSE_FILE), in this order, behind those in effect. They need not exist yet.
    type: list
    elements: path
    default: []
  compose_files_remove:
    description:
      - Files to take out of C(COMPOSE_FILE). If nobody changed it since they were added, the former entry comes back,
        or the variable goes if there was none.
    type: list
    elements: path
    default: []
  project_dir:
    description:
      - The directory that relative paths are relative to, and in which compose looks for its files. By default that of
        O(path).
    type: path
notes:
  - The file keeps its owner and mode.
  - A C(COMPOSE_FILE) in the environment of the shell that runs compose, or C(-f), goes before the one in the file.
"""

EXAMPLES = r"""
- name: Have compose load our file beside the operator's own
  openclaw.egress.compose_env:
    path: /home/openclaw/openclaw/.env
    compose_files_add:
      - /home/openclaw/openclaw/docker-compose.egress.yml

- name: Set one variable, remove another
  openclaw.egress.compose_env:
    path: /home/openclaw/openclaw/.env
    variables:
      OPENCLAW_EGRESS_CLASS: gateway
      OPENCLAW_EGRESS_OLD: null

- name: Put COMPOSE_FILE back to what it was
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
  description: The names that were added, changed or removed.
  returned: success
  type: list
  elements: str
  sample: [COMPOSE_FILE]
compose_files:
  description: The files that C(COMPOSE_FILE) names after the run; empty when it is not set.
  returned: success
  type: list
  elements: str
  sample: [/home/openclaw/openclaw/docker-compose.yml, /home/openclaw/openclaw/docker-compose.egress.yml]
drifted:
  description: Somebody changed C(COMPOSE_FILE) after the files were added, so that only these were taken out of it.
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
    """Only the names that change. A hidden value that changes is marked, or else both sides would look alike."""
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
        module.warn("%s: COMPOSE_FILE was changed since the files were added; only these were taken out of it" % path)
    if module._diff:
        result["diff"] = diff_of(path, before, after, names)
    if changed and not module.check_mode:
        if not os.path.isdir(os.path.dirname(path)):
            raise DotenvError("its directory does not exist")
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
