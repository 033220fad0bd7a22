"""Arguments of a tool call that Vertex AI streams as single values with JSON paths (`partialArgs`).

Source: `PartialArg` in `google/cloud/aiplatform/v1/tool.proto` of googleapis, and in the types of `google-genai` 2.8.
Example of a value: ``{"jsonPath": "$.city", "stringValue": "Os", "willContinue": true}``. A string can arrive in
several values with the same path.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from openclaw_egress.llm.model import list_of, object_of

MAX_DEPTH = 32
_STEP_COST = 64
_STEP = re.compile(r"""\.([^.*\[\]'"]+)|\[([0-9]{1,6})\]|\['([^'\\]*)'\]|\["([^"\\]*)"\]""")
"""A step of a path: a member in one of three notations, or an index."""
_SIMPLE = ("numberValue", "boolValue")


@dataclass(slots=True)
class Room:
    """Number of characters that remain for the arguments of all tool calls in a response."""

    left: int


class PartialArguments:
    """The arguments of one tool call. They share the limit ``room`` with the other calls of the response.

    `complete` becomes False if a value has no valid path or no known type, or exceeds the limit.
    """

    def __init__(self, room: Room) -> None:
        self.complete = True
        self._room = room
        self._root: dict[str, Any] = {}
        self._open: str | None = None
        """Path of the string that the next value may continue."""

    def add(self, values: object) -> None:
        """Add the values of one event, in order."""
        for item in list_of(values):
            value = object_of(item)
            path = value.get("jsonPath")
            steps = _steps_of(path) if isinstance(path, str) else []
            if not steps or not self._charge(steps, value) or not self._put(steps, value, joins=self._open == path):
                self.complete = False
            self._open = path if isinstance(path, str) and value.get("willContinue") is True else None

    def result(self) -> dict[str, Any]:
        """Return the arguments so far."""
        found: dict[str, Any] = _plain(self._root)
        return found

    def _charge(self, steps: Sequence[str | int], value: Mapping[str, Any]) -> bool:
        """Subtract the size of a value from the limit, and return whether it fits.

        If it does not fit, use up the limit, so that no later value is stored after a missing one.
        """
        text = value.get("stringValue")
        cost = _STEP_COST * len(steps) + (len(text) if isinstance(text, str) else 0)
        fits = cost <= self._room.left
        self._room.left = self._room.left - cost if fits else 0
        return fits

    def _put(self, steps: Sequence[str | int], value: Mapping[str, Any], *, joins: bool) -> bool:
        """Set the value at its path. With ``joins``, append it to the string there. Return whether this succeeded."""
        holder: Any = self._root
        for step, following in pairwise(steps):
            created: Any = {} if isinstance(following, str) else []
            if not _has_room(holder, step):
                return False
            holder = _at(holder, step, created)
        last = steps[-1]
        if not _has_room(holder, last):
            return False
        if isinstance(text := value.get("stringValue"), str):
            leaf = _at(holder, last, None)
            if not (joins and isinstance(leaf, io.StringIO)):
                leaf = holder[last] = io.StringIO()
            leaf.write(text)
            return True
        known = [name for name in _SIMPLE if isinstance(value.get(name), int | float)]
        if not known and "nullValue" not in value:
            return False
        _at(holder, last, None)
        holder[last] = value[known[0]] if known else None
        return True


def _steps_of(path: str) -> list[str | int]:
    """Return the steps of a path; an empty list if the path is invalid or has more than `MAX_DEPTH` steps."""
    steps: list[str | int] = []
    at = 1
    while at < len(path) and len(steps) < MAX_DEPTH and (found := _STEP.match(path, at)):
        name, index, *quoted = found.groups()
        steps.append(int(index) if index else next((text for text in (name, *quoted) if text is not None), ""))
        at = found.end()
    return steps if path[:1] == "$" and at == len(path) else []


def _has_room(holder: Any, step: str | int) -> bool:
    """Return whether a value can be set at the step: any member of an object, or an index up to an array's length."""
    if isinstance(step, str):
        return isinstance(holder, dict)
    return isinstance(holder, list) and step <= len(holder)


def _at(holder: Any, step: str | int, created: Any) -> Any:
    """Return ``holder[step]``. If it is absent, set it to ``created`` first."""
    if isinstance(step, str):
        return holder.setdefault(step, created)
    if step == len(holder):
        holder.append(created)
    return holder[step]


def _plain(value: Any) -> Any:
    if isinstance(value, io.StringIO):
        return value.getvalue()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
