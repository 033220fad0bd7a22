"""The spool's journal: exchanges in progress, and the records of exchanges that a crash interrupted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any
from urllib.parse import urlsplit

from openclaw_egress.llm.model import RequestFacts
from openclaw_egress.recording.credentials import are_credentials
from openclaw_egress.recording.records import Body, ExchangeRecord
from openclaw_egress.recording.redaction import REDACTED

_KNOWN = {field.name for field in fields(ExchangeRecord)}
_FACTS = {field.name for field in fields(RequestFacts)}
_MADE_HERE = {"id", "class_name", "request_body", "response_body", "response_facts", "outcome", "end_ns"}


class Journal:
    """The rows of the tables ``exchanges`` and ``chunks``. The caller begins and ends the transactions."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def begin(self, exchange_id: str, class_name: str, begin_ns: int, head: dict[str, Any]) -> None:
        """Insert a new exchange with the fields that are known so far (``head``)."""
        self._db.execute("INSERT INTO exchanges VALUES (?, ?, ?, ?)", (exchange_id, class_name, begin_ns, _json(head)))

    def update(self, exchange_id: str, head: dict[str, Any]) -> None:
        """Replace the stored fields (``head``) of an exchange when more of them are known."""
        self._db.execute("UPDATE exchanges SET head = ? WHERE id = ?", (_json(head), exchange_id))

    def append(self, exchange_id: str, direction: str, time_ns: int, data: bytes) -> None:
        """Append decoded bytes to a body of an exchange."""
        self._db.execute(
            "INSERT INTO chunks (id, direction, time_ns, data) VALUES (?, ?, ?, ?)",
            (exchange_id, direction, time_ns, data),
        )

    def withhold(self, exchange_id: str) -> None:
        """Delete the journalled bodies of an exchange, and mark the bodies as credentials."""
        self._db.execute("DELETE FROM chunks WHERE id = ?", (exchange_id,))
        self._db.execute(
            "UPDATE exchanges SET head = json_set(head, '$.secret', json('true')) WHERE id = ?", (exchange_id,)
        )

    def forget(self, exchange_id: str) -> None:
        """Delete an exchange that has ended or that must not be recorded."""
        self._db.execute("DELETE FROM chunks WHERE id = ?", (exchange_id,))
        self._db.execute("DELETE FROM exchanges WHERE id = ?", (exchange_id,))

    def sizes(self) -> dict[str, int]:
        """Return the number of journalled bytes of each exchange in progress."""
        return dict(
            self._db.execute(
                "SELECT e.id, coalesce(sum(length(c.data)), 0) "
                "FROM exchanges e LEFT JOIN chunks c USING (id) GROUP BY e.id"
            ).fetchall()
        )

    def interrupted(self, only: str | None = None) -> Iterator[ExchangeRecord]:
        """Yield a record with the outcome ``interrupted`` for each exchange in progress, or for only one ID."""
        for exchange_id, class_name, begin_ns, head in self._db.execute(
            "SELECT id, class, begin_ns, head FROM exchanges WHERE ?1 IS NULL OR id = ?1 ORDER BY begin_ns", (only,)
        ).fetchall():
            yield self._interrupted(exchange_id, class_name, begin_ns, json.loads(head))

    def _interrupted(self, exchange_id: str, class_name: str, begin_ns: int, head: dict[str, Any]) -> ExchangeRecord:
        bodies: dict[str, list[bytes]] = {"request": [], "response": []}
        end_ns = begin_ns
        for direction, time_ns, data in self._db.execute(
            "SELECT direction, time_ns, data FROM chunks WHERE id = ? ORDER BY n", (exchange_id,)
        ):
            bodies[direction].append(data)
            end_ns = max(end_ns, time_ns)
        known = {name: value for name, value in head.items() if name in _KNOWN - _MADE_HERE}
        for name in ("request_headers", "response_headers"):
            known[name] = [(str(key), str(value)) for key, value in known.get(name) or ()]
        facts = known.get("request_facts") or {}
        known["request_facts"] = RequestFacts(**{name: value for name, value in facts.items() if name in _FACTS})
        request, response = b"".join(bodies["request"]), b"".join(bodies["response"])
        stated = head.get("bodies") or {}
        for name, data in (("request", request), ("response", response)):
            size = stated[name]["size"] if _is_masked(stated, name) else len(data)
            known[f"{name}_size"] = max(known.get(f"{name}_size") or 0, size)
        secret = bool(head.get("secret")) or _are_credentials(known, request, response)
        request_body = _body(request, known["request_size"], secret, whole=bool(head.get("request_complete")))
        response_body = _body(response, known["response_size"], secret, whole=False)
        if not secret:
            request_body = _masked(request_body, stated, "request")
            response_body = _masked(response_body, stated, "response")
        needed = {"method": "", "url": "", "host": "", "port": 0, "begin_ns": begin_ns, "body_truncated": False}
        return ExchangeRecord(
            **{
                **needed,
                **known,
                "id": exchange_id,
                "class_name": class_name,
                "outcome": "interrupted",
                "end_ns": max(end_ns, known.get("begin_ns", begin_ns)),
                "body_truncated": bool(known.get("body_truncated")) or secret,
                "request_body": request_body,
                "response_body": response_body,
                "masked": sum(body.masked for body in (request_body, response_body) if body is not None),
            }
        )


def _are_credentials(known: dict[str, Any], request: bytes, response: bytes) -> bool:
    """Return whether the bodies are credentials. Older versions of the proxy may have journalled such bodies."""
    types = (_content_type(known["request_headers"]), _content_type(known["response_headers"]))
    try:
        path = urlsplit(known.get("url") or "").path
    except ValueError:
        path = known.get("url") or ""
    return are_credentials(known.get("host") or "", path, zip(types, (request, response), strict=True))


def _content_type(headers: list[tuple[str, str]]) -> str | None:
    return next((value for name, value in headers if name.lower() == "content-type"), None)


def _body(data: bytes, size: int, secret: bool, *, whole: bool) -> Body | None:
    if secret:
        return Body(text=REDACTED, encoding="utf-8", size=size, sha256=None, truncated=True) if size else None
    if not data:
        return None
    return Body.of(data, whole=whole)


def _is_masked(stated: dict[str, Any], name: str) -> bool:
    return bool(stated.get(name, {}).get("masked"))


def _masked(body: Body | None, stated: dict[str, Any], name: str) -> Body | None:
    """If the journalled body is masked, take the size and hash of the original and the mask count from ``stated``."""
    if body is None or not _is_masked(stated, name):
        return body
    known = stated[name]
    digest = None if body.sha256 is None else known["sha256"]
    return replace(body, size=known["size"], sha256=digest, masked=known["masked"])


def _json(head: dict[str, Any]) -> str:
    # Write only ASCII, with JSON's escapes, because SQLite refuses surrogates.
    return json.dumps(head, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """Convert a value for JSON: a dataclass (metadata) becomes an object, anything else becomes text."""
    names = getattr(type(value), "__dataclass_fields__", None)
    return {name: getattr(value, name) for name in names} if names else str(value)
