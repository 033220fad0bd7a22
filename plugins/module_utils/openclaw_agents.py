# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Functions that compute changes to OpenClaw's `agents` settings, and the data to undo the changes.

Values are plain JSON. A path with dots identifies a setting below `agents` (`defaults.sandbox.docker.network`). None
means that a setting is unset, as in OpenClaw's own patches, where null removes a key.
"""

from __future__ import annotations

import json
import re
from typing import Any

# OpenClaw accepts every change that removes at most this many characters: it refuses only a change that shortens a file
# of 512 bytes or more to less than half its length.
MAY_GO_AT_ONCE = 200


class SettingsError(ValueError):
    """Error that explains to the operator why nothing was changed."""


class Plan:
    """The ``changes`` by path, and the undo ``data`` for them.

    ``left`` lists the paths that are not restored, because somebody edited their values.
    """

    def __init__(self, changes: dict[str, Any], data: dict[str, Any], left: list[Any]) -> None:
        self.changes = changes
        self.data = data
        self.left = left


def plan(current: dict[str, Any], data: dict[str, Any], wanted: dict[str, Any], fallbacks: dict[str, Any]) -> Plan:
    """Compare the current settings with the wanted ones. Return the plan of changes.

    ``data`` is the undo data of a previous plan: ``before`` (previous values), ``wrote`` (our values) and ``made``
    (objects that did not exist). A setting in ``fallbacks`` is changed only if the operator's value is unset or "none".
    A setting in ``data`` that is no longer wanted gets its previous value, unless somebody edited our value.
    """
    before, wrote = dict(data.get("before") or {}), dict(data.get("wrote") or {})
    changes: dict[str, Any] = {}
    left: list[Any] = []
    for path in sorted(set(wanted) | set(fallbacks) | set(wrote)):
        now = value_at(current, path)
        ours = path in wrote and now == wrote[path]
        own = before.get(path) if ours else now
        if path in wanted:
            want = wanted[path]
        elif path in fallbacks:
            want = fallbacks[path] if own in (None, "none") else own
        else:
            want = own
            if not ours and now != before.get(path):
                left.append(path)
        if want != now:
            changes[path] = want
        before.pop(path, None)
        wrote.pop(path, None)
        if want != own:
            before[path], wrote[path] = own, want
    made = _made(current, set(data.get("made") or []), changes)
    changes, made = _without_empty(current, made, changes)
    remembered = {"before": before, "wrote": wrote, "made": sorted(made)} if wrote else {}
    return Plan(changes, remembered, left)


def either(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Merge the undo data from before and after a change. The result is valid before, during and after the change."""
    if not old:
        return new
    return {
        "before": dict(old["before"], **new.get("before", {})),
        "wrote": dict(old["wrote"], **new.get("wrote", {})),
        "made": sorted(set(old["made"]) | set(new.get("made", []))),
    }


def _made(current: dict[str, Any], made: set[str], changes: dict[str, Any]) -> set[str]:
    """Return ``made`` (the objects that we created) with the paths of the objects that the new changes will create."""
    made = set(made)
    for path, value in changes.items():
        if value is not None:
            made.update(parent for parent in _parents(path) if value_at(current, parent) is None)
    return made


def _without_empty(current: dict[str, Any], made: set[str], changes: dict[str, Any]) -> tuple[Any, ...]:
    """Extend the changes to remove each object in ``made`` that they would leave empty.

    Return the extended changes, and the paths in ``made`` that still exist after them.
    """
    after = applied(current, changes)
    changes = dict(changes)
    for parent in sorted(made, key=len, reverse=True):
        if value_at(after, parent) == {}:
            changes = {path: value for path, value in changes.items() if not path.startswith(parent + ".")}
            changes[parent] = None
            after = applied(current, changes)
    return changes, {parent for parent in made if value_at(after, parent) is not None}


def _parents(path: str) -> list[Any]:
    words = path.split(".")
    return [".".join(words[:count]) for count in range(1, len(words))]


def value_at(tree: dict[str, Any], path: str) -> Any:
    """Return the value at a path, or None if it is unset."""
    found: Any = tree
    for position, word in enumerate(path.split(".")):
        if not isinstance(found, dict):
            raise SettingsError("agents.%s is not an object" % ".".join(path.split(".")[:position]))
        found = found.get(word)
        if found is None:
            return None
    return found


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values in nested objects by their paths. Inverse of :func:`nested`."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        path = "%s.%s" % (prefix, name) if prefix else name
        if isinstance(value, dict):
            found.update(flat(value, path))
        else:
            found[path] = value
    return found


def nested(changes: dict[str, Any]) -> dict[str, Any]:
    """Convert the changes to a patch for OpenClaw: nested objects, with null for removed keys."""
    tree: dict[str, Any] = {}
    for path, value in changes.items():
        *parents, last = path.split(".")
        at = tree
        for word in parents:
            at = at.setdefault(word, {})
        at[last] = value
    return tree


def in_steps(current: dict[str, Any], changes: dict[str, Any]) -> list[Any]:
    """Split the changes into steps, none of which removes more than OpenClaw permits in a single change.

    A change may remove at most half of OpenClaw's file. Its length is unknown here, but it contains all the text that
    remains to be removed. So a step that removes half of this text is permitted.
    """
    going = []
    for path in sorted(path for path, value in changes.items() if value is None):
        found = value_at(current, path)
        for leaf, value in sorted(flat({path: found}).items()) if found is not None else ():
            going.append((leaf, len(json.dumps(value)) + len(leaf.rpartition(".")[2]) + 2 * leaf.count(".") + 9))
    steps = []
    while sum(size for _leaf, size in going) > MAY_GO_AT_ONCE:
        half = sum(size for _leaf, size in going) / 2
        step: dict[str, Any] = {}
        while going and (not step or going[0][1] <= half):
            leaf, size = going.pop(0)
            step[leaf] = None
            half -= size
        steps.append(step)
    return [*steps, changes] if changes else []


def applied(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Apply changes to settings. Return the new settings."""
    return _merged(tree, nested(changes))


def _merged(tree: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            below = merged.get(name)
            merged[name] = _merged(below if isinstance(below, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def overridden(current: dict[str, Any], paths: list[Any]) -> list[Any]:
    """Return the names of agent-specific settings that override the defaults at these paths."""
    found = []
    for agent, entry in sorted((current.get("entries") or {}).items()):
        for path in paths:
            start, _dot, below = path.partition(".")
            if start == "defaults" and isinstance(entry, dict) and value_at(entry, below) is not None:
                found.append("agents.entries.%s.%s" % (agent, below))
    return found


def shown(path: str, value: Any) -> Any:
    """Return the value for display. Hide values of a sandbox's environment, which may contain secrets."""
    if value is None or ".env." not in path:
        return value
    if re.search(r"_proxy$", path, re.IGNORECASE):
        return re.sub(r"//[^/@]*@", "//…@", str(value))
    return "(hidden)"
