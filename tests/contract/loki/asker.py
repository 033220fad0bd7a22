"""Client for Loki's HTTP API. It pushes OTLP, sends queries, and returns responses as JSON values."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

SECOND = 10**9
HOUR = 3600 * SECOND
DAY = 24 * HOUR
RATE, BURST = 4 * 1024 * 1024, 6 * 1024 * 1024

type Answer = dict[str, Any]


def value(plain: Any) -> AnyValue:
    match plain:
        case bool():
            return AnyValue(bool_value=plain)
        case str():
            return AnyValue(string_value=plain)
        case int():
            return AnyValue(int_value=plain)
        case float():
            return AnyValue(double_value=plain)
        case bytes():
            return AnyValue(bytes_value=plain)
        case list():
            return AnyValue(array_value=ArrayValue(values=[value(item) for item in plain]))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=pairs(plain)))
    return AnyValue()


def pairs(plain: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=value(item)) for key, item in plain.items()]


class Allowance:
    """Client-side model of Loki's rate limit. It delays pushes, so that only the tests of the rate limit exceed it."""

    def __init__(self, limited: bool = True) -> None:
        self._limited = limited
        self._tokens, self._at = 0.0, time.monotonic()

    def _refill(self) -> None:
        now = time.monotonic()
        self._tokens, self._at = min(BURST, self._tokens + (now - self._at) * RATE), now

    def wait_for(self, size: int) -> None:
        """Wait until the rate limit permits a push of this size.

        Do not wait if the size exceeds the burst, because Loki never permits such a push.
        """
        if size > BURST or not self._limited:
            return
        self._refill()
        if self._tokens < size:
            time.sleep((size - self._tokens) / RATE)
            self._refill()
        self._tokens -= size

    def wait_until_full(self) -> None:
        """Wait until Loki's token bucket is full.

        Then set the model to empty, because the test case will use the whole bucket.
        """
        time.sleep(BURST / RATE + 0.1)
        self._tokens, self._at = 0.0, time.monotonic()


def decode_status(body: bytes) -> str:
    """Return the message of a google.rpc.Status. Raise AssertionError if ``body`` contains anything else."""
    assert body[:1] == b"\x12", f"the body is not a google.rpc.Status with only a message: {body[:40]!r}"
    size, shift, at = 0, 0, 1
    while True:
        size |= (body[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if body[at - 1] < 0x80:
            break
    assert len(body) - at == size, f"the message has {len(body) - at} bytes, but its length field says {size}"
    return body[at:].decode()


class Asker:
    """The Loki client of one test case, with its own service name and its own "now" (an odd number of nanoseconds)."""

    def __init__(self, url: str, service: str, allowance: Allowance, settle_s: float) -> None:
        parts = urlsplit(url)
        self._host, self._base = parts.netloc, parts.path.rstrip("/")
        self._allowance, self._settle_s = allowance, settle_s
        self.service = service
        self.now = time.time_ns() | 1

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────
    def exchange(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        try:
            connection.request(method, self._base + path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def answer(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request. Return the parts of the response that the recording also contains.

        They are status, content type, Retry-After, and the body as text or as the message of a google.rpc.Status.
        """
        status, got, raw = self.exchange(method, path, body, headers)
        kind = got.get("content-type")
        said: Answer = {"status": status, "content_type": kind, "retry_after": got.get("retry-after")}
        if kind == "application/octet-stream":
            return said | {"message": decode_status(raw)}
        return said | {"body": raw.decode("utf-8", "backslashreplace")}

    def get(self, path: str, **parameters: Any) -> Answer:
        return self.answer("GET", path + ("?" + urlencode(parameters) if parameters else ""))

    def get_json(self, path: str, **parameters: Any) -> Any:
        answer = self.get(path, **parameters)
        assert answer["status"] == 200, answer
        return json.loads(answer["body"])

    # ── pushing ──────────────────────────────────────────────────────────────────────────────────────────────────
    def record(
        self, body: Any = "line", at: int | None = None, attributes: Mapping[str, Any] | None = None, **more: Any
    ) -> LogRecord:
        return LogRecord(
            time_unix_nano=self.now if at is None else at,
            body=value(body),
            attributes=pairs(attributes or {}),
            **more,
        )

    def request(
        self, records: Sequence[LogRecord], resource: Mapping[str, Any] | None = None, named: bool = True
    ) -> ExportLogsServiceRequest:
        attributes = dict(resource or {}) | ({"service.name": self.service} if named else {})
        return ExportLogsServiceRequest(
            resource_logs=[
                ResourceLogs(
                    resource=Resource(attributes=pairs(attributes)), scope_logs=[ScopeLogs(log_records=records)]
                )
            ]
        )

    def encoded(self, records: Sequence[LogRecord], resource: Mapping[str, Any] | None = None) -> bytes:
        return bytes(self.request(records, resource).SerializeToString())

    def post(self, data: bytes, content_type: str = "application/x-protobuf", **headers: str) -> Answer:
        self._allowance.wait_for(len(data))
        return self.post_at_once(data, content_type, **headers)

    def post_at_once(self, data: bytes, content_type: str = "application/x-protobuf", **headers: str) -> Answer:
        more = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.answer("POST", "/otlp/v1/logs", data, {"Content-Type": content_type, **more})

    def push(self, *records: LogRecord, resource: Mapping[str, Any] | None = None) -> Answer:
        return self.post(self.encoded(records, resource))

    def full_allowance(self) -> None:
        self._allowance.wait_until_full()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────
    def query(self, query: str, path: str = "query_range", **parameters: Any) -> Answer:
        if path == "query_range":
            window = {"start": self.now - 29 * DAY, "end": time.time_ns() + 2 * HOUR, "direction": "forward"}
        else:
            window = {"time": time.time_ns()}
        return self.get(f"/loki/api/v1/{path}", **({"query": query, "limit": 1000} | window | parameters))

    def rows(self, service: str | None = None) -> list[Answer]:
        """Query the lines of a service.

        For each line, return its labels and metadata, its time in seconds relative to "now", its length, and its first
        60 characters.
        """
        found = self.query(f'{{service_name="{service or self.service}"}}')
        assert found["status"] == 200, found
        return [
            {
                "labels": stream["stream"],
                "dt_s": round((int(at) - self.now) / SECOND, 3),
                "length": len(line),
                "text": line[:60],
            }
            for stream in json.loads(found["body"])["data"]["result"]
            for at, line in stream["values"]
        ]

    def stored(self, expected: int, service: str | None = None, within_s: float = 10.0) -> list[Answer]:
        """Query until the result has at least the expected number of lines, or until the timeout. Return the lines.

        If no line is expected, query until a fixed time has passed, because a line could still arrive.
        """
        deadline = time.monotonic() + (within_s if expected else self._settle_s)
        while True:
            rows = self.rows(service)
            if (expected and len(rows) >= expected) or time.monotonic() >= deadline:
                return rows
            time.sleep(0.1)
