#!/usr/bin/python
# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_manifest
short_description: Remember what a host was like before a change, and put it back
version_added: 0.1.0
author:
  - openclaw.egress maintainers
description:
  - Keeps a manifest of every item that the collection touches, as it was before. The first touch wins, so that later
    runs keep the true original. The manifest is on disk, fsynced, before the change that it is for.
  - A path is recorded before a change and noted as written after it. Rolled back, a path that is still what was written
    gets its bytes, owner and mode back, or goes if it was not there before. A path that somebody edited since is left
    as it is and reported as V(drifted), so that the caller takes out its own part alone.
  - Items that are no paths (images, networks, firewall rules) carry data for the caller, who undoes them.
attributes:
  check_mode:
    support: full
    description:
      - Says what would be done without writing. In check mode a path may be noted as written without having been
        recorded.
  diff_mode:
    support: full
    description: Shows types, modes, owners and digests, never the content of a file.
  idempotent:
    support: full
    description: The second run with the same options changes nothing.
options:
  state:
    description:
      - V(recorded) keeps the item as it is now, unless it was recorded before; call it before each change. For a path
        that was recorded and written, it notes whether somebody edited it since.
      - V(written) notes that the path is now as the caller wants it; call it after each change.
      - V(restored) puts the path back, if it can be (see RV(status)), and forgets it, unless it drifted.
      - V(read) returns the items.
      - V(forgotten) removes the item from the manifest, after the caller has undone it.
    type: str
    choices: [recorded, written, restored, read, forgotten]
    required: true
  path:
    description:
      - The path of a file, directory or symbolic link, absolute. Directories are recorded without what is in them.
    type: path
  kind:
    description: What an item is that is no path.
    type: str
    choices: [image, network, ufw_rule, openclaw_config, other]
  name:
    description: The name of an item that is no path; with O(kind).
    type: str
  data:
    description: What the caller needs to undo such an item.
    type: dict
    default: {}
  manifest:
    description: The manifest's file. Its directory is made with mode 0700, the file with 0600.
    type: path
    default: /var/lib/openclaw-egress/manifest.json
"""

EXAMPLES = r"""
- name: Remember the file before it is changed
  openclaw.egress.rollback_manifest:
    state: recorded
    path: /home/openclaw/openclaw/.env

- name: Note what was written
  openclaw.egress.rollback_manifest:
    state: written
    path: /home/openclaw/openclaw/.env

- name: Put the file back
  openclaw.egress.rollback_manifest:
    state: restored
    path: /home/openclaw/openclaw/.env
  register: __env_restored

- name: Remember a firewall rule that the role adds
  openclaw.egress.rollback_manifest:
    state: recorded
    kind: ufw_rule
    name: loki from 10.0.0.1
    data: {rule: allow, from_ip: 10.0.0.1, to_port: "3100", proto: tcp}

- name: List what there is to undo
  openclaw.egress.rollback_manifest:
    state: read
  register: __manifest
"""

RETURN = r"""
status:
  description:
    - For O(state=restored), V(restored) (put back), V(unchanged) (it is as it was before), V(drifted) (somebody edited
      it since, nothing was done; the item stays in the manifest) or V(unknown) (nothing was recorded).
  returned: O(state=restored)
  type: str
  sample: restored
item:
  description: The item as the manifest has it, without the content of a file; empty if it has none.
  returned: when O(path) or O(name) is given
  type: dict
  sample: {kind: path, name: /etc/example, before: {type: absent}}
items:
  description: All items, without the content of files, in the order of their names.
  returned: O(state=read)
  type: list
  elements: dict
  sample: [{kind: network, name: openclaw-egress-outer, data: {created: true}}]
exists:
  description: Whether there is a manifest on the host.
  returned: success
  type: bool
  sample: true
"""

import os

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openclaw.egress.plugins.module_utils.manifest import (
    Manifest,
    ManifestError,
    key_of,
    put_back,
    state_of,
)


def public(item: dict[str, Any]) -> dict[str, Any]:
    """The item without the bytes that it keeps."""
    shown = dict(item)
    if "before" in shown:
        shown["before"] = {key: value for key, value in shown["before"].items() if key != "content"}
    return shown


def restore(module: AnsibleModule, manifest: Manifest, path: str, result: dict[str, Any]) -> None:
    status = manifest.status(path)
    result["status"] = status
    result["changed"] = status in ("restored", "unchanged")
    if status == "restored" and module._diff:
        item = manifest.items[key_of("path", path)]
        result["diff"] = {"before": state_of(path), "after": public(item)["before"]}
    if not result["changed"] or module.check_mode:
        return
    if status == "restored":
        put_back(path, manifest.items[key_of("path", path)]["before"])
    manifest.forget("path", path)
    manifest.save()


def run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    state, path = params["state"], params["path"]
    if path and not os.path.isabs(path):
        raise ManifestError("path must be absolute, and %s is not" % path)
    kind, name = ("path", os.path.normpath(path)) if path else (params["kind"], params["name"])
    if state in ("written", "restored") and kind != "path":
        raise ManifestError(
            "state=%s is for paths; undo a %s in the role, then call state=forgotten" % (state, kind or "item")
        )
    if state in ("recorded", "forgotten") and not kind:
        raise ManifestError("state=%s needs path, or kind and name" % state)
    manifest = Manifest(params["manifest"])
    before = dict(manifest.items[key_of(kind, name)]) if kind and key_of(kind, name) in manifest.items else {}
    result: dict[str, Any] = {"changed": False}
    if state == "restored":
        restore(module, manifest, name, result)
    elif state == "written" and module.check_mode and not before:
        result["changed"] = True
    elif state in ("recorded", "written", "forgotten"):
        if state == "recorded":
            result["changed"] = manifest.record(kind, name, params["data"])
        elif state == "written":
            result["changed"] = manifest.wrote(name)
        else:
            result["changed"] = manifest.forget(kind, name)
        if module._diff and result["changed"]:
            after = manifest.items.get(key_of(kind, name), {})
            result["diff"] = {"before": public(before), "after": public(after)}
        if result["changed"] and not module.check_mode:
            manifest.save()
    else:
        result["items"] = [public(item) for _key, item in sorted(manifest.items.items())]
    if kind:
        result["item"] = public(manifest.items.get(key_of(kind, name), {}))
    result["exists"] = manifest.exists
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["recorded", "written", "restored", "read", "forgotten"],
                "required": True,
            },
            "path": {"type": "path"},
            "kind": {"type": "str", "choices": ["image", "network", "ufw_rule", "openclaw_config", "other"]},
            "name": {"type": "str"},
            "data": {"type": "dict", "default": {}},
            "manifest": {"type": "path", "default": "/var/lib/openclaw-egress/manifest.json"},
        },
        mutually_exclusive=[("path", "kind"), ("path", "name")],
        required_together=[("kind", "name")],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except ManifestError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or module.params["manifest"], error.strerror))


if __name__ == "__main__":
    main()
