#!/usr/bin/python
# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: openclaw_agents
short_description: Set defaults of OpenClaw's agents with OpenClaw's own command
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Sets values below C(agents.defaults) in OpenClaw's configuration, in a running container, with C(openclaw config
    get) and C(openclaw config patch). OpenClaw validates the values, writes its file, and applies them without a
    restart.
  - Writes only keys that differ, and changes no other key.
  - Stores the previous value of each key in the rollback manifest. Restores a key that is no longer in the options, or
    removes it if it did not exist before. Does not change a key that was edited after the module set it, and
    reports this key.
attributes:
  check_mode:
    support: full
    description: Reads the configuration and reports the changes.
  diff_mode:
    support: full
    description: Shows the changed keys. Hides values of environment variables, except proxy addresses.
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
options:
  state:
    description:
      - V(present) sets the values of O(defaults) and O(fallbacks).
      - V(absent) restores the previous values of all keys that this module set.
    type: str
    choices: [present, absent]
    default: present
  container:
    description: OpenClaw's container, which must be running.
    type: str
    required: true
  user:
    description: User in the container that owns OpenClaw's configuration.
    type: str
    default: node
  command:
    description: OpenClaw's command in the container.
    type: list
    elements: str
    default: [node, dist/index.js]
  defaults:
    description: Values below C(agents.defaults), nested as in OpenClaw's configuration.
    type: dict
    default: {}
  fallbacks:
    description: Values like O(defaults), for keys without a configured value or with the value V(none).
    type: dict
    default: {}
  manifest:
    description: File of the rollback manifest.
    type: path
    default: /var/lib/openclaw-egress/manifest.json
"""

EXAMPLES = r"""
- name: Send sandboxes through their listener
  openclaw.egress.openclaw_agents:
    container: openclaw-gateway
    defaults:
      sandbox:
        docker:
          env:
            HTTPS_PROXY: http://172.30.0.250:8082
    fallbacks:
      sandbox:
        docker:
          network: bridge

- name: Restore the previous settings
  openclaw.egress.openclaw_agents:
    container: openclaw-gateway
    state: absent
"""

RETURN = r"""
settings:
  description: Keys that were set, changed or removed.
  returned: success
  type: list
  elements: str
  sample: [agents.defaults.sandbox.docker.env.HTTPS_PROXY]
left:
  description: Keys that this module set and that were edited later. The module did not change them.
  returned: success
  type: list
  elements: str
  sample: [agents.defaults.sandbox.docker.network]
overridden:
  description: Settings of individual agents that override keys that the module sets.
  returned: success
  type: list
  elements: str
  sample: [agents.entries.work.sandbox.docker.network]
"""

import json

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openclaw.egress.plugins.module_utils.manifest import Manifest, ManifestError, key_of
from ansible_collections.openclaw.egress.plugins.module_utils.openclaw_agents import (
    SettingsError,
    either,
    flat,
    in_steps,
    nested,
    overridden,
    plan,
    shown,
)

KIND = "openclaw_config"


def openclaw(module: AnsibleModule, *words: str, given: str = "") -> tuple[Any, ...]:
    """Run the `openclaw` command in its container with ``given`` as input. Return exit code, stdout and stderr."""
    params = module.params
    argv = ["docker", "exec", "--interactive", "--user", params["user"], params["container"]]
    argv += [*params["command"], *words]
    code, out, error = module.run_command(argv, data=given, binary_data=True)
    return code, out.strip(), error.strip()


def refusal(module: AnsibleModule, what: str, complaint: str) -> SettingsError:
    """Return the error for a failed command, with OpenClaw's message and a remedy."""
    params = module.params
    said = complaint[-800:] or "no reason was given"
    if "unknown command" in complaint or "does not know the command" in complaint:
        remedy = "This OpenClaw version lacks the command: update it, or set openclaw_gateway_sandboxes to false"
    elif "unable to find user" in complaint:
        remedy = "Set openclaw_gateway_user to the user in the container that owns OpenClaw's configuration"
    elif "Error response from daemon" in complaint or "No such container" in complaint:
        remedy = "Start the container %s, and run site.yml again" % params["container"]
    else:
        remedy = (
            "Correct it there (`openclaw config validate` shows details), or set openclaw_gateway_sandboxes to false if"
            " another tool manages that configuration"
        )
    said = said.rstrip(".")
    return SettingsError("%s in the container %s failed: %s. %s." % (what, params["container"], said, remedy))


def read(module: AnsibleModule) -> dict[str, Any]:
    """Return OpenClaw's settings under `agents`."""
    code, out, error = openclaw(module, "config", "get", "agents", "--json")
    start = out.find("{")
    try:
        found = json.loads(out[start:]) if start >= 0 else None
    except ValueError:
        found = None
    if code == 0 and isinstance(found, dict):
        return found
    message = ((found or {}).get("error") or {}).get("message", "") if isinstance(found, dict) else ""
    if "unset" in message:
        return {}
    raise refusal(module, "`openclaw config get agents`", message or error or out)


def remembered(manifest: Manifest) -> dict[str, Any]:
    """Return the undo data from the manifest."""
    return (manifest.items.get(key_of(KIND, "agents")) or {}).get("data") or {}


def remember(manifest: Manifest, data: dict[str, Any]) -> None:
    """Write the undo data to the manifest, or remove its item if ``data`` is empty."""
    if remembered(manifest) == data:
        return
    manifest.forget(KIND, "agents")
    if data:
        manifest.record(KIND, "agents", data)
    manifest.save()


def run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    manifest = Manifest(params["manifest"])
    data = remembered(manifest)
    absent = params["state"] == "absent"
    if absent and not data:
        return {"changed": False, "settings": [], "left": [], "overridden": []}
    current = read(module)
    wanted = {} if absent else flat({"defaults": params["defaults"]})
    fallbacks = {} if absent else flat({"defaults": params["fallbacks"]})
    found = plan(current, data, wanted, fallbacks)
    if not module.check_mode:
        # Write the undo data before OpenClaw changes anything, so that an interrupted run can be undone.
        remember(manifest, either(data, found.data))
        for step in in_steps(current, found.changes):
            code, out, error = openclaw(
                module, "config", "patch", "--stdin", given=json.dumps({"agents": nested(step)})
            )
            if code != 0:
                remember(manifest, data)
                raise refusal(module, "`openclaw config patch`", error or out)
        remember(manifest, found.data)
    before = flat(current)
    return {
        "changed": bool(found.changes),
        "settings": ["agents.%s" % path for path in found.changes],
        "left": ["agents.%s" % path for path in found.left],
        "overridden": overridden(current, sorted(set(wanted) | set(fallbacks))),
        "diff": {
            "before": {path: shown(path, before.get(path)) for path in found.changes},
            "after": {path: shown(path, value) for path, value in found.changes.items()},
        },
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "container": {"type": "str", "required": True},
            "user": {"type": "str", "default": "node"},
            "command": {"type": "list", "elements": "str", "default": ["node", "dist/index.js"]},
            "defaults": {"type": "dict", "default": {}},
            "fallbacks": {"type": "dict", "default": {}},
            "manifest": {"type": "path", "default": "/var/lib/openclaw-egress/manifest.json"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except (SettingsError, ManifestError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or module.params["manifest"], error.strerror))


if __name__ == "__main__":
    main()
