"""Indentation of JSON from traffic, for display. Deep nesting can make the indented text a thousand times longer."""

from __future__ import annotations

import json

MOST_GROWTH = 4
"""Maximum length of indented text, as a multiple of the original length. `_ROOM` more characters are allowed."""
_ROOM = 1000
_ENCODER = json.JSONEncoder(ensure_ascii=False, indent=2)


def indented(text: str) -> str:
    """Return ``text`` as indented JSON. If it is not JSON, or would become too long, return it unchanged."""
    most = MOST_GROWTH * len(text) + _ROOM
    pieces: list[str] = []
    try:
        for piece in _ENCODER.iterencode(json.loads(text)):
            pieces.append(piece)
            most -= len(piece)
            if most < 0:
                return text
    except (ValueError, RecursionError):
        return text
    return "".join(pieces)
