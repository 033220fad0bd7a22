"""Indentation of JSON from traffic, for people. Deep nesting makes indented text a thousand times longer."""

from __future__ import annotations

import json

MOST_GROWTH = 4
"""Text whose indented form would be longer than this many times its length stays as it is."""
_ROOM = 1000
_ENCODER = json.JSONEncoder(ensure_ascii=False, indent=2)


def indented(text: str) -> str:
    """Return JSON indented; other text, and JSON that would grow too much, unchanged."""
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
