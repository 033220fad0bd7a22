"""Builder of the assembled message of a stream: bounded parts in the format of `gen_ai.output.messages`.

Format: https://github.com/open-telemetry/semantic-conventions-genai, gen-ai-output-messages.json.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from typing import Any

from openclaw_egress.llm.model import ResponseFacts, text_of, well_formed

MAX_CHARACTERS = 1024 * 1024
_PART_COST = 64
_MAX_DEPTH = 64
Key = tuple[int | str, ...]


class _Part:
    def __init__(self, kind: str, call_id: str | None, name: str | None) -> None:
        self.kind = kind
        self.call_id = call_id
        self.name = name
        self.text = io.StringIO()
        self.length = 0


class Parts:
    """Parts by key, in order of arrival. `limit` is the maximum number of characters of all parts together.

    Beyond the limit, new text is dropped and `truncated` is set.
    """

    def __init__(self, limit: int = MAX_CHARACTERS) -> None:
        self.truncated = False
        self._left = limit
        self._parts: dict[Key, _Part] = {}

    def open(self, key: Key, kind: str, call_id: object = None, name: object = None) -> None:
        """Open the part `key` if it does not exist.

        Store the id and the name of a tool call, because they can arrive before its arguments.
        """
        part = self._parts.get(key)
        if part is None:
            if self._left < _PART_COST:
                self.truncated = True
                return
            self._left -= _PART_COST
            part = self._parts[key] = _Part(kind, None, None)
        part.call_id = part.call_id or text_of(call_id)
        part.name = part.name or text_of(name)

    def append(self, key: Key, kind: str, text: object) -> None:
        """Append text to the part `key`, and open the part if needed. Ignore a value that is not a string."""
        if not isinstance(text, str) or not text:
            return
        self.open(key, kind)
        part = self._parts.get(key)
        if part is None:
            return
        if len(text) > self._left:
            self.truncated = True
            text = text[: self._left]
        self._left -= len(text)
        part.length += len(text)
        part.text.write(text)

    def is_another_call(self, key: Key, call_id: object) -> bool:
        """Return whether the part `key` is a tool call whose id differs from `call_id`."""
        part, identity = self._parts.get(key), text_of(call_id)
        return part is not None and None not in (part.call_id, identity) and part.call_id != identity

    def call(self, key: Key, call_id: object, name: object, arguments: object) -> None:
        """Add a tool call whose arguments arrive as one object, not as pieces of JSON text."""
        self.open(key, "tool_call", call_id, name)
        if isinstance(arguments, dict) and arguments:
            try:
                self.append(key, "tool_call", json.dumps(arguments, ensure_ascii=False))
            except RecursionError:
                self.truncated = True

    def drop(self, head: Key) -> None:
        """Drop the parts whose key begins with `head`, so that the caller can add their final version."""
        for key in [key for key in self._parts if key[: len(head)] == head]:
            self._left += _PART_COST + self._parts.pop(key).length

    def heads(self) -> list[int | str]:
        """Return the first elements of the keys, in order, without duplicates."""
        return list(dict.fromkeys(key[0] for key in self._parts))

    def under(self, head: Key = ()) -> list[dict[str, Any]]:
        """Return the parts whose key begins with `head`, as JSON-serialisable objects. Omit parts with empty texts."""
        chosen = [part for key, part in self._parts.items() if key[: len(head)] == head]
        return [_as_object(part) for part in chosen if part.length or part.kind not in ("text", "reasoning", "refusal")]

    def completed(
        self,
        facts: ResponseFacts,
        error: str | None,
        *,
        role: str = "assistant",
        parts: list[dict[str, Any]] | None = None,
    ) -> ResponseFacts:
        """Return ``facts`` with the assembled message of the stream.

        Args:
            facts: information about the stream. Its first finish reason becomes that of the message.
            error: the type of an error in the stream; None to keep the error type of ``facts``.
            role: the message's role.
            parts: the parts of the message; by default all parts, in the order in which they began.
        """
        chosen, reasons = self.under() if parts is None else parts, facts.finish_reasons
        message = {"role": role, "parts": chosen} | ({"finish_reason": reasons[0]} if reasons else {})
        return replace(
            facts,
            messages=[message] if chosen or reasons else [],
            messages_truncated=self.truncated,
            error_type=error or facts.error_type,
        )


def _as_object(part: _Part) -> dict[str, Any]:
    text = well_formed(part.text.getvalue())
    if part.kind == "tool_call":
        return {"type": "tool_call", "id": part.call_id, "name": part.name, "arguments": _arguments(text)}
    return {"type": part.kind} | ({"content": text} if text else {})


def _arguments(text: str) -> Any:
    """Return the arguments of a tool call as a JSON object or, if the JSON is invalid, as text."""
    if not text:
        return {}
    try:
        value = json.loads(text)
        return _clean(value, 0) if isinstance(value, dict) else text
    except (ValueError, RecursionError):
        return text


def _clean(value: Any, depth: int) -> Any:
    """Return a JSON value with valid Unicode and finite numbers. Raise ValueError if it is nested too deeply."""
    if depth > _MAX_DEPTH:
        raise ValueError("the value is nested too deeply")
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {well_formed(name): _clean(item, depth + 1) for name, item in value.items()}
    return value
