#!/usr/bin/python
# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: build_patch
short_description: Patch OpenClaw's build script to copy the proxy bootstrap into the image
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Adds one section near the top of the shell script that builds the gateway's image. The section wraps C(docker). For
    builds of the gateway's image it creates C(proxy-bootstrap.cjs) and a copy of the Dockerfile in a temporary
    directory, adds a C(COPY) line to that copy, and runs the same command with C(--file) and C(--build-context). In the
    image, the file is in the working directory of the stage, root owns it, and every user can read it.
  - After the build, successful or not, the section deletes the temporary directory, before the script's own restore
    step (C(git checkout), C(git restore), C(git stash), a C(trap), a change of branch). It never writes to the clone,
    so a killed build changes nothing there. It sets no trap. The script's exit status does not change.
  - Handles C(docker build), C(docker buildx build), C(docker image build), C(docker buildx bake), C(docker compose
    build), C(docker compose up --build) and C(docker-compose), also behind C(sudo), C(exec) or C(timeout), in a
    variable, and in programs that the script runs, such as C(make). All other commands run unmodified. If no command
    can build the gateway's image with the bootstrap, the module fails with the line and the remedy, and does not change
    the script.
  - All other lines of the script stay unchanged, byte for byte. O(state=absent) restores the script exactly. The module
    replaces or removes the section of an earlier release.
attributes:
  check_mode:
    support: full
    description: Reports the change and checks the result with C(bash -n), without writing the script.
  diff_mode:
    support: full
    description: Shows the script before and after.
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
options:
  path:
    description: The build script. The module follows a symbolic link, and does not replace the link.
    type: path
    required: true
  state:
    description: Whether the script must contain the section.
    type: str
    choices: [present, absent]
    default: present
  bootstrap_src:
    description:
      - The file on the same host that is copied as C(proxy-bootstrap.cjs). The script reads it at each run. It fails
        with a message if the file does not exist or if the user that runs the script cannot read it.
    type: path
    default: /home/openclaw/openclaw-egress/proxy-config/proxy-bootstrap.cjs
  image:
    description:
      - Name of the gateway's image. Builds with this tag get the bootstrap. Other builds get it
        only if C(openclaw) is in a tag, in the Dockerfile, or is the package name in the context's C(package.json).
      - By default all builds get the bootstrap, except builds that O(skip_dockerfiles) names and builds
        from standard input.
    type: str
    default: ""
  skip_dockerfiles:
    description:
      - Shell patterns for images that the patch skips, for scripts that also build other images. A pattern is compared
        with the Dockerfile's name, its path in the context, a relative context, and the tags.
    type: list
    elements: str
    default: ["*sandbox*"]
  backup:
    description: Whether to keep a backup of the script, with the time in its name, if the module changes it.
    type: bool
    default: false
notes:
  - The host needs Python 3.8 or later as C(python3) when the script runs.
  - Builds from standard input (C(-), C(-f -)) and from URLs run without the bootstrap.
  - C(--build-context) needs BuildKit of Docker 23 or later. For older versions and C(DOCKER_BUILDKIT=0) the section
    builds a temporary image that contains only the bootstrap, and C(COPY) copies the file from this image.
  - The module replaces or removes an edited section, with a warning. Keep your own changes outside of the two marks.
  - The module replaces the file atomically and keeps its owner and mode.
seealso:
  - module: openclaw.egress.rollback_manifest
"""

EXAMPLES = r"""
- name: Patch the build script to copy the bootstrap into the image
  openclaw.egress.build_patch:
    path: /home/openclaw/scripts/build-openclaw.sh
    bootstrap_src: /home/openclaw/openclaw-egress/proxy-config/proxy-bootstrap.cjs
    backup: true

- name: Show the change without writing it
  openclaw.egress.build_patch:
    path: /home/openclaw/scripts/build-openclaw.sh
  check_mode: true
  diff: true

- name: Remove the section
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
    - State of the section before the run. V(absent), V(patched) (a section as a release wrote it) or V(edited) (a
      section that was edited later).
  returned: success
  type: str
  sample: absent
anchors:
  description: Positions in the script without the section. Line numbers start at 1.
  returned: when O(state=present)
  type: dict
  contains:
    docker_build:
      description: The build commands, each with C(line), C(kind) and C(text).
      type: list
      elements: dict
      sample: [{line: 41, kind: direct, text: "docker build -t openclaw:local ."}]
    restore:
      description: The script's own restore steps, for information, each with C(line), C(kind) and C(text).
      type: list
      elements: dict
      sample: [{line: 44, kind: git checkout, text: "git checkout -- Dockerfile 2>/dev/null || true"}]
    inserted_at:
      description: The line before which the section is inserted.
      type: int
      sample: 39
backup_file:
  description: The backup.
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
        raise  # This line is never reached, because fail_json exits.


def write_beside(module: AnsibleModule, text: str) -> str:
    """Write the text to a temporary file that Ansible deletes after the module. Return its name."""
    handle, name = tempfile.mkstemp(dir=module.tmpdir, suffix=".sh")
    module.add_cleanup_file(name)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as script:
        script.write(text)
    return name


def validate(module: AnsibleModule, path: str, before: str, candidate: str) -> None:
    """Check the syntax of the patched script with `bash -n`. If it fails, report whether the original also fails."""
    bash = module.get_bin_path("bash")
    if bash is None:
        module.fail_json(
            msg="bash is not installed, so the patched script cannot be checked; nothing was changed. Install bash"
        )
    code, _out, err = module.run_command([bash, "-n", candidate])
    if code == 0:
        return
    original = write_beside(module, before)
    original_code, _out, original_err = module.run_command([bash, "-n", original])
    if original_code != 0:
        problem = original_err.strip().replace(original, path)
        hint = " Its lines end in CRLF: convert them to LF." if "\r\n" in before else ""
        module.fail_json(
            msg="%s: the script is not valid shell even without the patch, so nothing was changed: %s. Correct it.%s"
            % (path, problem, hint)
        )
    module.fail_json(
        msg="%s: the patch would make the script invalid, so nothing was changed: %s. Report this with the script"
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
        before, params["bootstrap_src"], tuple(params["skip_dockerfiles"] or ()), params["image"] or ""
    )
    if params["state"] == "present":
        after, anchors = patch.present()
        result["anchors"] = anchors.as_dict()
        if "\r\n" in before:
            module.warn("%s: has lines that end in CRLF, which bash cannot run; the section is written with LF" % path)
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
            "image": {"type": "str", "default": ""},
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
