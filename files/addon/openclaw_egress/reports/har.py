"""Exchanges as an HTTP Archive 1.2 (http://www.softwareishard.com/blog/har-12-spec/). Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openclaw_egress import __version__
from openclaw_egress.llm.model import object_of
from openclaw_egress.recording.records import rfc3339
from openclaw_egress.reports.stored_record import body_size, headers_of, whole_of
from openclaw_egress.spool.rows import Row


def archive(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an HTTP Archive with these entries."""
    creator = {"name": "openclaw.egress", "version": __version__}
    return {"log": {"version": "1.2", "creator": creator, "entries": list(entries)}}


def entry_of(row: Row, lines: Sequence[str], *, bodies: bool = True) -> dict[str, Any]:
    """Return the entry of an exchange, from its row and its log lines. Without ``bodies``, include only body sizes."""
    whole = whole_of(lines)[0]
    request, response = object_of(whole.get("request")), object_of(whole.get("response"))
    total = 1000 * (row.duration or 0)
    wait = min(total, 1000 * (row.first_chunk if row.first_chunk is not None else row.duration or 0))
    common = {"cookies": list[Any](), "httpVersion": "HTTP/1.1", "headersSize": -1}
    sent = {"postData": {"mimeType": _media_type(request), **_text(request)}} if bodies and _text(request) else {}
    content = {"size": body_size(response), "mimeType": _media_type(response)}
    return {
        "startedDateTime": row.begin or rfc3339(row.time_ns),
        "time": total,
        "cache": {},
        "timings": {"send": 0, "wait": wait, "receive": total - wait},
        "request": {
            **common,
            "method": str(whole.get("method") or ""),
            "url": str(whole.get("url") or ""),
            "queryString": [],
            "headers": _headers(request),
            "bodySize": body_size(request),
        }
        | sent,
        "response": {
            **common,
            "status": row.status or 0,
            "statusText": "",
            "redirectURL": "",
            "headers": _headers(response),
            "bodySize": body_size(response),
            "content": content | (_text(response) if bodies else {}),
        },
    }


def _text(message: Mapping[str, Any]) -> dict[str, str]:
    if not isinstance(message.get("body"), str):
        return {}
    text = {"text": message["body"]} | ({"encoding": "base64"} if message.get("body_encoding") == "base64" else {})
    reasons = {"body_truncated": "only a part of the body was recorded", "body_masked": "secrets are masked"}
    comment = "; ".join(text for name, text in reasons.items() if message.get(name))
    return text | ({"comment": comment} if comment else {})


def _headers(message: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in headers_of(message)]


def _media_type(message: Mapping[str, Any]) -> str:
    return next((value for name, value in headers_of(message) if name.lower() == "content-type"), "")
