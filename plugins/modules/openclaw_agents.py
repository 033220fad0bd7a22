#!/usr/bin/python
# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: openclaw_agents
short_description: Set defaults of OpenClaw's agents by OpenClaw's own command
version_added: 0.1.0
author:
  - openclaw.egress maintainers
description:
  - Sets values below C(agents.defaults) of OpenClaw's configuration, in a running container, with
    C(openclaw config get) and C(openclaw config patch). OpenClaw validates them, writes its file, and takes them up
    without a restart.
  - Only keys that differ are written; no other key is touched.
  - What was there before is remembered in the rollback manifest, for each key. A key that is no longer asked for gets
    back what it was, or goes if it was not there; one that somebody changed since is left, and named.
attributes:
  check_mode:
    support: full
    description: Reads the configuration and says what would change.
  diff_mode:
    support: full
    description: Shows the keys that change. Values of an environment are hidden, except addresses of proxies.
  idempotent:
    support: full
    description: The second run with the same options changes nothing.
options:
  state:
    description:
      - V(present) sets what O(defaults) and O(fallbacks) say.
      - V(absent) puts back all that this module set.
    type: str
    choices: [present, absent]
    default: present
  container:
    description: OpenClaw's container. It must run.
    type: str
    required: true
  user:
    description: User in the container who owns OpenClaw's configuration.
    type: str
    default: node
  command:
    description: OpenClaw's command in the container.
    type: list
    elements: str
    default: [node, dist/index.js]
  defaults:
    description: Values below C(agents.defaults), as OpenClaw nests them.
    type: dict
    default: {}
  fallbacks:
    description: As O(defaults), for keys where what is configured already is kept, unless it is V(none).
    type: dict
    default: {}
  manifest:
    description: The rollback manifest's file.
    type: path
    default: /var/lib/openclaw-egress/manifest.json
"""

EXAMPLES = r"""
- name: Sandboxes go through their listener
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

- name: As before
  openclaw.egress.openclaw_agents:
    container: openclaw-gateway
    state: absent
"""

RETURN = r"""
settings:
  description: What was set, changed or taken away.
  returned: success
  type: list
  elements: str
  sample: [agents.defaults.sandbox.docker.env.HTTPS_PROXY]
left:
  description: What was ours and somebody changed since; it was not touched.
  returned: success
  type: list
  elements: str
  sample: [agents.defaults.sandbox.docker.network]
overridden:
  description: Settings of single agents that say otherwise for keys that are set here.
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
    """OpenClaw's command in its container: exit code, what it printed, what it complained of."""
    params = module.params
    argv = ["docker", "exec", "--interactive", "--user", params["user"], params["container"]]
    argv += [*params["command"], *words]
    code, out, error = module.run_command(argv, data=given, binary_data=True)
    return code, out.strip(), error.strip()


def refusal(module: AnsibleModule, what: str, complaint: str) -> SettingsError:
    """OpenClaw's answer in words, with what can be done."""
    params = module.params
    said = complaint[-800:] or "no reason was given"
    if "unknown command" in complaint or "does not know the command" in complaint:
        remedy = "This OpenClaw has no such command: update it, or set openclaw_gateway_sandboxes to false"
    elif "unable to find user" in complaint:
        remedy = "Name the user in the container who owns OpenClaw's configuration (openclaw_gateway_user)"
    elif "Error response from daemon" in complaint or "No such container" in complaint:
        remedy = "Start the container %s, and run again" % params["container"]
    else:
        remedy = (
            "Mend it there (`openclaw config validate` says more), or set openclaw_gateway_sandboxes to false where"
            " something else manages that configuration"
        )
    said = said.rstrip(".")
    return SettingsError("%s in the container %s did not work: %s. %s." % (what, params["container"], said, remedy))


def read(module: AnsibleModule) -> dict[str, Any]:
    """What OpenClaw has under `agents`."""
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
    """What the manifest has to undo."""
    return (manifest.items.get(key_of(KIND, "agents")) or {}).get("data") or {}


def remember(manifest: Manifest, data: dict[str, Any]) -> None:
    """Write to the manifest what is needed to undo; nothing needed is no item."""
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
        # On disk before OpenClaw is told, so that a run that is cut off can be undone; forgotten only when given back.
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
