"""Test records whose texts try to run a script in the web page, or to forge content of the page."""

from __future__ import annotations

import json
from pathlib import Path

from openclaw_egress.llm.model import RequestFacts, ResponseFacts, Usage
from openclaw_egress.recording.records import Body, DeniedRecord, ExchangeRecord
from openclaw_egress.spool.writer import Spool

TEMPLATE = "{{7919*7907}}"
"""A template expression. If a page contains its result, 62615533, a template engine has evaluated a record's text."""
ATTACK = (
    "\"'><script>window.hacked=1</script><img src=x onerror=window.hacked=1><svg/onload=window.hacked=1>" + TEMPLATE
)
HIDDEN = "\x1b[31m\u202eevil\u2066\x00\u200b"
TEXT = f'{ATTACK}{HIDDEN}</pre></template></textarea><a href="javascript:window.hacked=1">x</a>'


def hostile_exchange(name: str = "0bad", **changes: object) -> ExchangeRecord:
    """Return an exchange with an attack in each field that a client or a provider controls."""
    request = {
        "model": TEXT,
        "system": TEXT,
        "messages": [
            {"role": TEXT, "content": TEXT},
            {"role": "user", "content": [{"type": TEXT, "x": TEXT}, {"type": "image", "source": {"url": TEXT}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": TEXT, "name": TEXT, "input": {TEXT: TEXT}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": TEXT, "content": TEXT}]},
        ],
    }
    answer = {"role": TEXT, "content": [{"type": "thinking", "thinking": TEXT}, {"type": "text", "text": TEXT}]}
    values: dict[str, object] = {
        "id": name,
        "class_name": TEXT,
        "method": "POST",
        "url": f"https://api.anthropic.com/v1/messages?{TEXT}",
        "host": f"api.anthropic.com{TEXT}",
        "port": 443,
        "begin_ns": 0,
        "end_ns": 2_000_000_000,
        "first_chunk_ns": 1_000_000_000,
        "client": TEXT,
        "rule": TEXT,
        "reason": TEXT,
        "status": 200,
        "request_headers": [(f"x-{TEXT}", TEXT)],
        "response_headers": [("content-type", TEXT)],
        "request_body": Body.of(json.dumps(request).encode()),
        "response_body": Body.of(json.dumps(answer, ensure_ascii=False).encode()),
        "request_facts": RequestFacts("chat", TEXT, TEXT, False),
        "response_facts": ResponseFacts(usage=Usage(1000, 20)),
        "error_type": "_OTHER",
    }
    return ExchangeRecord(**values | changes)  # type: ignore[arg-type]


def hostile_denial() -> DeniedRecord:
    """Return a denial with an attack in each field that a client controls."""
    return DeniedRecord(
        class_name=TEXT,
        host=f"x{TEXT}",
        port=443,
        rule=TEXT,
        code="no_rule",
        reason=TEXT,
        client=TEXT,
        method=TEXT,
        url=TEXT,
    )


def write_hostile_spool(state: Path) -> None:
    """Write a spool with two lines: the hostile exchange, and the hostile denial."""
    with Spool(state / "spool.db", sync_seconds=None, local=True) as spool:
        spool.close_exchange(hostile_exchange())
        spool.add(hostile_denial())
