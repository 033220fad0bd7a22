#!/usr/bin/python
# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_manifest
short_description: Record the state of a host before a change, and restore it
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Keeps a manifest with the previous state of every item that the collection changes. Only the first record of an item
    counts, so that later runs preserve the original state. The module writes and fsyncs the manifest before the change.
  - Record a path before a change, and mark it as written after the change. To restore an unedited path, the module
    writes its previous bytes, owner and mode, or deletes the path if it did not exist. An edited path is left unchanged
    and reported as V(drifted), so that the caller can remove its own part.
  - Items that are not paths (images, networks, firewall rules) contain the data that the caller needs to undo them.
attributes:
  check_mode:
    support: full
    description:
      - Reports the change without writing. In check mode a path may be marked as written without a record.
  diff_mode:
    support: full
    description: Shows types, modes, owners and digests, but never the content of a file.
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
options:
  state:
    description:
      - V(recorded) records the current state of the item, unless it is already recorded. Use it before each change.
        For a path that is marked as written, it also records whether the path was edited later.
      - V(written) marks the path as written by the caller. Use it after each change.
      - V(restored) restores the path if possible (see RV(status)), and removes the item from the manifest unless it
        drifted.
      - V(read) returns the items.
      - V(forgotten) removes the item from the manifest. Use it after the caller has undone the item.
    type: str
    choices: [recorded, written, restored, read, forgotten]
    required: true
  path:
    description:
      - Absolute path of a file, directory or symbolic link. The content of a directory is not recorded.
    type: path
  paths:
    description:
      - Several paths, with V(recorded), V(written) or V(forgotten). The manifest is written once for all of them.
    type: list
    elements: path
    version_added: 0.1.0
  kind:
    description: Kind of an item that is not a path.
    type: str
    choices: [image, network, ufw_rule, openclaw_config, other]
  name:
    description: Name of an item that is not a path; requires O(kind).
    type: str
  data:
    description: Data that the caller needs to undo an item that is not a path.
    type: dict
    default: {}
  replace:
    description:
      - With V(recorded) and O(kind), replaces O(data) of an item that is already recorded. The manifest is written
        once, so that an interrupted run leaves the earlier data or the new data.
    type: bool
    default: false
    version_added: 0.1.0
  manifest:
    description: File of the manifest. The module creates its directory with mode 0700 and the file with mode 0600.
    type: path
    default: /var/lib/openclaw-egress/manifest.json
"""

EXAMPLES = r"""
- name: Record the file before changing it
  openclaw.egress.rollback_manifest:
    state: recorded
    path: /home/openclaw/openclaw/.env

- name: Mark the file as written
  openclaw.egress.rollback_manifest:
    state: written
    path: /home/openclaw/openclaw/.env

- name: Record several files in one run of the module
  openclaw.egress.rollback_manifest:
    state: recorded
    paths: [/home/openclaw/openclaw/.env, /home/openclaw/openclaw/compose.yml]

- name: Restore the file
  openclaw.egress.rollback_manifest:
    state: restored
    path: /home/openclaw/openclaw/.env
  register: __env_restored

- name: Record a firewall rule before adding it
  openclaw.egress.rollback_manifest:
    state: recorded
    kind: ufw_rule
    name: loki from 10.0.0.1
    data: {rule: allow, from_ip: 10.0.0.1, to_port: "3100", proto: tcp}

- name: List the items to undo
  openclaw.egress.rollback_manifest:
    state: read
  register: __manifest
"""

RETURN = r"""
status:
  description:
    - For O(state=restored), V(restored) (the previous state is restored), V(unchanged) (the path still has its
      previous state), V(drifted) (the path was edited since; it is left unchanged and stays in the manifest) or
      V(unknown) (the path is not in the manifest).
  returned: O(state=restored)
  type: str
  sample: restored
item:
  description: The item in the manifest, without the content of a file; empty if the manifest does not have it.
  returned: when O(path) or O(name) is given
  type: dict
  sample: {kind: path, name: /etc/example, before: {type: absent}}
entries:
  description: All items, without the content of files, sorted by name.
  returned: O(state=read)
  type: list
  elements: dict
  sample: [{kind: network, name: openclaw-egress-outer, data: {created: true}}]
exists:
  description: Whether the host has a manifest.
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
    """Return the item without the content of the recorded file."""
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


def absolute(path: str) -> str:
    """Normalize a path. Raise an error if it is relative."""
    if not os.path.isabs(path):
        raise ManifestError("path must be absolute, and %s is not" % path)
    return os.path.normpath(path)


def change(module: AnsibleModule, manifest: Manifest, items: list[tuple[str, str]], result: dict[str, Any]) -> None:
    """Record, mark as written or forget the items, depending on `state`. Save the manifest if an item changed."""
    state = module.params["state"]
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for kind, name in items:
        key = key_of(kind, name)
        item = dict(manifest.items.get(key, {}))
        if state == "written" and module.check_mode and not item:
            result["changed"] = True
            continue
        if state == "recorded":
            changed = manifest.record(kind, name, module.params["data"], replace=module.params["replace"])
        elif state == "written":
            changed = manifest.wrote(name)
        else:
            changed = manifest.forget(kind, name)
        if changed:
            result["changed"] = True
            before[name], after[name] = public(item), public(manifest.items.get(key, {}))
    if before and not module.check_mode:
        manifest.save()
    if before and module._diff:
        if module.params["paths"] is None:
            before, after = before[items[0][1]], after[items[0][1]]
        result["diff"] = {"before": before, "after": after}


def run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    state = params["state"]
    kind, several = params["kind"], params["paths"] is not None
    paths = params["paths"] if several else [params["path"]] if params["path"] else []
    items = [(kind, params["name"])] if kind else [("path", absolute(path)) for path in paths]
    given = items or several
    if state in ("written", "restored") and (kind or not given):
        raise ManifestError(
            "state=%s needs path; undo other kinds of items (here: %s) in the role, then call state=forgotten"
            % (state, kind or "none")
        )
    if state in ("recorded", "forgotten") and not given:
        raise ManifestError("state=%s needs path, paths, or kind and name" % state)
    if params["replace"] and (state != "recorded" or not kind):
        raise ManifestError("replace needs state=recorded, kind and name; the first record of a path always stays")
    if state in ("restored", "read") and several:
        raise ManifestError("state=%s does not accept paths; use path" % state)
    manifest = Manifest(params["manifest"])
    result: dict[str, Any] = {"changed": False}
    if state == "restored":
        restore(module, manifest, items[0][1], result)
    elif state == "read":
        result["entries"] = [public(item) for _key, item in sorted(manifest.items.items())]
    else:
        change(module, manifest, items, result)
    if items and not several:
        result["item"] = public(manifest.items.get(key_of(*items[0]), {}))
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
            "paths": {"type": "list", "elements": "path"},
            "kind": {"type": "str", "choices": ["image", "network", "ufw_rule", "openclaw_config", "other"]},
            "name": {"type": "str"},
            "data": {"type": "dict", "default": {}},
            "replace": {"type": "bool", "default": False},
            "manifest": {"type": "path", "default": "/var/lib/openclaw-egress/manifest.json"},
        },
        mutually_exclusive=[("path", "paths", "kind"), ("path", "paths", "name")],
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
