"""LLM calls with a number in the prompt. The number identifies each call in the spool."""

from __future__ import annotations

import json
from typing import Any

from openclaw_egress.spool.reader import Row, SpoolReader
from tests.support.proxy_process import RunningProxy

EXCHANGE = "openclaw.egress.exchange"


def message(number: int, *, stream: bool = False, more: str = "") -> dict[str, Any]:
    """Return a request body whose prompt contains the call number ``number`` and the text ``more``."""
    return {
        "model": "claude-opus-5",
        "max_tokens": 9,
        "stream": stream,
        "messages": [{"role": "user", "content": f"number {number}.{more}"}],
    }


def number_in(line: str) -> int:
    """Return the call number in the request body of a spool line; -1 if it has none."""
    body = json.loads(line)["request"].get("body") or ""
    return int(body.partition("number ")[2].partition(".")[0] or -1)


def kept(proxy: RunningProxy) -> list[tuple[int, Row]]:
    """Return the call number and the first row of every exchange in the spool, oldest first."""
    rows = proxy.exchanges()
    with SpoolReader(proxy.directory / "state" / "spool.db") as reader:
        return [(number_in(reader.lines_for(row.id)[0]), row) for row in rows]


def is_exchange(labels: dict[str, str]) -> bool:
    """Return whether a record at the destination is the first log line of an exchange."""
    return labels.get("event_name") == EXCHANGE and "openclaw_egress_part_index" not in labels
