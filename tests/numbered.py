"""LLM calls that carry a number in their text, by which each is found again in the spool: once, or not."""

from __future__ import annotations

import json
from typing import Any

from openclaw_egress.spool_reader import Row, SpoolReader
from tests.running import RunningProxy

EXCHANGE = "openclaw.egress.exchange"


def message(number: int, *, stream: bool = False, more: str = "") -> dict[str, Any]:
    """A request's body."""
    return {
        "model": "claude-opus-5",
        "max_tokens": 9,
        "stream": stream,
        "messages": [{"role": "user", "content": f"number {number}.{more}"}],
    }


def number_in(line: str) -> int:
    """Which call a line of the spool tells of; -1 where the request's body is not in it."""
    body = json.loads(line)["request"].get("body") or ""
    return int(body.partition("number ")[2].partition(".")[0] or -1)


def kept(proxy: RunningProxy) -> list[tuple[int, Row]]:
    """Number and first row of every exchange in the spool, the oldest first."""
    rows = proxy.exchanges()
    with SpoolReader(proxy.directory / "state" / "spool.db") as reader:
        return [(number_in(reader.lines_for(row.id)[0]), row) for row in rows]


def is_exchange(labels: dict[str, str]) -> bool:
    """Whether a store's record is an exchange, and not a part of one that came before."""
    return labels.get("event_name") == EXCHANGE and "openclaw_egress_part_index" not in labels
