"""The hash chain: every log line begins with its sequence number and the hash of the line before it. Pure functions."""

from __future__ import annotations

import hashlib

from openclaw_egress.recording.log_lines import Line

GENESIS = "0" * 64
"""``prev`` of the first line in a chain."""


def chained(line: Line, seq: int, prev: str) -> str:
    """Return the text of a line in the hash chain: compact JSON that starts with ``seq`` and ``prev``."""
    rest = line.json[1:]
    return f'{{"seq":{seq},"prev":"{prev}"' + ("," if rest != "}" else "") + rest


def line_hash(text: str) -> str:
    """Return the SHA-256 of a line's text. The next line states it as ``prev``."""
    return hashlib.sha256(text.encode()).hexdigest()
