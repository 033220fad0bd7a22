#!/usr/bin/python
# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: build_patch
short_description: Have OpenClaw's build script put the proxy bootstrap into the image
version_added: 0.1.0
author:
  - openclaw.egress maintainers
description:
  - Adds one section to the shell script that builds the gateway's image. With it, each C(docker build) of that script
    finds C(proxy-bootstrap.cjs) in its build context, and in its Dockerfile a line that copies the file, owned by root,
    into the working directory of the stage that becomes the image.
  - The section takes both back when the build has ended, whether it succeeded or not, before the script's next line
    runs. So the clone looks to the script's own restore step (C(git checkout), C(git restore), C(git stash), a C(trap),
    a change of branch) as it would without the patch. The script's exit status is what it would have been.
  - The build may stand in a loop, in a function, behind C(sudo) or C(timeout), over several lines, or come out of a
    variable. A script in which the module cannot find it, or cannot stand in front of it, is refused with the line and
    the remedy, and stays untouched.
  - The script's other lines keep their bytes. O(state=absent) gives back exactly what was there.
attributes:
  check_mode:
    support: full
    description: Says what would change, and tests the result with C(bash -n), without writing the script.
  diff_mode:
    support: full
    description: Shows the script before and after.
  idempotent:
    support: full
    description: The second run with the same options changes nothing.
options:
  path:
    description: The build script. A symbolic link is followed, and stays.
    type: path
    required: true
  state:
    description: Whether the section is to be there.
    type: str
    choices: [present, absent]
    default: present
  bootstrap_src:
    description:
      - The file that becomes C(proxy-bootstrap.cjs), on the same host. The script reads it each time it runs, and fails
        with a clear message if it is not there or not readable for the user who runs the script.
    type: path
    default: /home/openclaw/openclaw-egress/proxy-config/proxy-bootstrap.cjs
  context_dir:
    description:
      - The directory that C(docker build) gets as its context. Only needed where it cannot be read from the command
        itself, as with C(docker build -) or an URL. By default it is the directory that the script names in that
        command.
    type: path
  skip_dockerfiles:
    description:
      - Shell patterns for the file names of Dockerfiles whose builds stay as they are, for scripts that build other
        images too.
    type: list
    elements: str
    default: ["*sandbox*"]
  backup:
    description: Keep a copy of the script as it was, with the time in its name, when it changes.
    type: bool
    default: false
notes:
  - An edited section is replaced (or removed), with a warning. Keep your own changes outside of the two marks.
  - The file is written in one step and keeps its owner and mode.
seealso:
  - module: openclaw.egress.rollback_manifest
"""

EXAMPLES = r"""
- name: Have each build put the bootstrap into the image
  openclaw.egress.build_patch:
    path: /home/openclaw/scripts/build-openclaw.sh
    bootstrap_src: /home/openclaw/openclaw-egress/proxy-config/proxy-bootstrap.cjs
    backup: true

- name: See what that would change
  openclaw.egress.build_patch:
    path: /home/openclaw/scripts/build-openclaw.sh
  check_mode: true
  diff: true

- name: Take the section out again
  openclaw.egress.build_patch:
    path: /home/openclaw/scripts/build-openclaw.sh
    state: absent
"""

RETURN = r"""
path:
  description: The script, with symbolic links resolved.
  returned: success
  type: str
  sample: /home/openclaw/scripts/build-openclaw.sh
found:
  description:
    - What the script held before the run. V(absent), V(patched) (a section as some release wrote it) or V(edited)
      (somebody changed it since).
  returned: success
  type: str
  sample: absent
anchors:
  description: Where in the script, without the section, the module found what it looked for. Lines count from 1.
  returned: when O(state=present)
  type: dict
  contains:
    docker_build:
      description: The commands that build; each with C(line), C(kind) and C(text).
      type: list
      elements: dict
      sample: [{line: 41, kind: direct, text: "docker build -t openclaw:local ."}]
    restore:
      description: The script's own restore steps, for information; each with C(line), C(kind) and C(text).
      type: list
      elements: dict
      sample: [{line: 44, kind: git checkout, text: "git checkout -- Dockerfile 2>/dev/null || true"}]
    inserted_at:
      description: The line before which the section stands.
      type: int
      sample: 39
backup_file:
  description: The copy.
  returned: changed and O(backup=true)
  type: str
  sample: /home/openclaw/scripts/build-openclaw.sh.2026-11-24@16:20:01~
"""

import os
import shutil
import tempfile

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openclaw.egress.plugins.module_utils.build_script import BuildScriptError, BuildScriptPatch


def read(module: AnsibleModule, path: str) -> str:
    if not os.path.exists(path):
        module.fail_json(msg="%s: no such file. Set path to the script that builds the gateway's image" % path)
    if not os.path.isfile(path):
        module.fail_json(msg="%s: not a regular file" % path)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as script:
            return script.read()
    except OSError as error:
        module.fail_json(msg="%s: cannot be read: %s" % (path, error.strerror))
        raise  # never reached: fail_json ends the module


def write_beside(module: AnsibleModule, text: str) -> str:
    """The text in a temporary file of the module's, which goes with it."""
    handle, name = tempfile.mkstemp(dir=module.tmpdir, suffix=".sh")
    module.add_cleanup_file(name)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as script:
        script.write(text)
    return name


def validate(module: AnsibleModule, path: str, before: str, candidate: str) -> None:
    """`bash -n` on what is to be written; the script's own faults are told apart from ours."""
    bash = module.get_bin_path("bash")
    if bash is None:
        module.fail_json(msg="bash is not installed, so that the patched script cannot be checked; nothing was changed")
    code, _out, err = module.run_command([bash, "-n", candidate])
    if code == 0:
        return
    original = write_beside(module, before)
    original_code, _out, original_err = module.run_command([bash, "-n", original])
    if original_code != 0:
        problem = original_err.strip().replace(original, path)
        hint = " Its lines end in CRLF: convert it to LF." if "\r\n" in before else ""
        module.fail_json(
            msg="%s: is no valid shell script as it is, nothing was changed: %s.%s" % (path, problem, hint)
        )
    module.fail_json(
        msg="%s: would be no valid script with the section, nothing was changed: %s. Please report it with the script"
        % (path, err.strip().replace(candidate, path))
    )


def run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    path = os.path.realpath(params["path"])
    if params["state"] == "absent" and not os.path.lexists(path):
        return {"changed": False, "path": path, "found": "absent"}
    before = read(module, path)
    result = {"path": path}
    patch = BuildScriptPatch(
        before, params["bootstrap_src"], params["context_dir"] or "", tuple(params["skip_dockerfiles"] or ())
    )
    if params["state"] == "present":
        after, anchors = patch.present()
        result["anchors"] = anchors.as_dict()
        if "\r\n" in before:
            module.warn(
                "%s: has lines that end in CRLF, which bash does not run; the section is written with LF" % path
            )
    else:
        after = patch.absent()
    result["found"] = patch.found
    if result["found"] == "edited":
        module.warn(
            "%s: the section of openclaw.egress was edited by hand; it is %s"
            % (path, "replaced" if after != patch.absent() else "removed")
        )
    result["changed"] = after != before
    if module._diff:
        result["diff"] = {"before": before, "after": after, "before_header": path, "after_header": path}
    if not result["changed"]:
        return result
    candidate = write_beside(module, after)
    validate(module, path, before, candidate)
    if not module.check_mode:
        if params["backup"]:
            result["backup_file"] = module.backup_local(path)
        shutil.copymode(path, candidate)
        module.atomic_move(candidate, path)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "bootstrap_src": {
                "type": "path",
                "default": "/home/openclaw/openclaw-egress/proxy-config/proxy-bootstrap.cjs",
            },
            "context_dir": {"type": "path"},
            "skip_dockerfiles": {"type": "list", "elements": "str", "default": ["*sandbox*"]},
            "backup": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except BuildScriptError as error:
        module.fail_json(msg="%s: %s. The script was not changed" % (module.params["path"], error))


if __name__ == "__main__":
    main()
