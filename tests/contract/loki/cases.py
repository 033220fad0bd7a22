"""The 60 test cases, with their names in answers.json. Each returns the values to compare with those recorded there."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable
from typing import Any

from .asker import DAY, HOUR, SECOND, Answer, Asker, pairs

MINUTE = 60 * SECOND
CASES: dict[str, Callable[[Asker], Any]] = {}


def case(name: str) -> Callable[[Callable[[Asker], Any]], Callable[[Asker], Any]]:
    def enter(function: Callable[[Asker], Any]) -> Callable[[Asker], Any]:
        CASES[name] = function
        return function

    return enter


def counted(name: str, records: Callable[[Asker], list[Any]], expected: int) -> None:
    """Register a test case that pushes ``records`` and waits until a query finds ``expected`` lines.

    It returns the response to the push, and the number of lines found.
    """

    def ask(loki: Asker) -> Answer:
        return {"push": loki.push(*records(loki)), "n": len(loki.stored(expected))}

    CASES[name] = ask


def texts(loki: Asker, expected: int) -> list[str]:
    return [row["text"] for row in loki.stored(expected)]


# ── the service ──────────────────────────────────────────────────────────────────────────────────────────────────
CASES["ready"] = lambda loki: loki.get("/ready")
CASES["buildinfo"] = lambda loki: loki.get("/loki/api/v1/status/buildinfo")
CASES["get-on-push"] = lambda loki: loki.get("/otlp/v1/logs")


# ── accepted records, and how queries return them ────────────────────────────────────────────────────────────────
@case("names")
def names(loki: Asker) -> Answer:
    attributes = {
        "http.request.method": "POST",
        "openclaw.egress.class": "sandbox",
        "n": 7,
        "f": 1.5,
        "b": True,
        "bytes": b"\x00\xff",
        "arr": ["a", 1],
        "map": {"x.y": {"z": 1}},
        "empty": "",
        "with-dash": "d",
        "ünï": "u",
        "1st": "x",
    }
    record = loki.record(
        "hello",
        attributes=attributes,
        severity_number=13,
        severity_text="WARN",
        event_name="openclaw.egress.exchange",
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
        flags=1,
        observed_time_unix_nano=loki.now + 5,
    )
    resource = {
        "service.version": "1",
        "service.instance.id": "i1",
        "service.namespace": "ns",
        "host.name": "vps1",
        "deployment.environment": "prod",
        "deployment.environment.name": "prod2",
        "container.name": "c",
        "k8s.pod.name": "pod",
        "custom.res": "r",
    }
    request = loki.request([record], resource)
    scope_logs = request.resource_logs[0].scope_logs[0]
    scope_logs.schema_url = "https://example.org/schema"
    scope_logs.scope.name, scope_logs.scope.version = "openclaw_egress", "0.1"
    scope_logs.scope.attributes.extend(pairs({"scope.attr": "sa"}))
    return {"push": loki.post(request.SerializeToString()), "stored": loki.stored(1)}


@case("bodies")
def bodies(loki: Asker) -> Answer:
    every = ["text", {"a": 1, "b": {"c": "d"}}, ["x", 2], 42, b"\x01\x02", None]
    pushes = [loki.push(loki.record(body, at=loki.now + i)) for i, body in enumerate(every)]
    return {"push": pushes, "stored": [[row["dt_s"], row["text"]] for row in loki.stored(6)]}


@case("no-service-name")
def no_service_name(loki: Asker) -> Answer:
    request = loki.request([loki.record(f"nameless {loki.service}")], {"host.name": loki.service}, named=False)
    push = loki.post(request.SerializeToString())
    found: list[Answer] = []
    for _ in range(100):
        found = [row for row in loki.stored(1, "unknown_service") if loki.service in row["text"]]
        if found:
            break
        time.sleep(0.1)
    return {"push": push, "stored": found}


@case("utf8-invalid-body")
def invalid_utf8(loki: Asker) -> Answer:
    raw = loki.request([loki.record("12345678")]).SerializeToString()
    return {"push": loki.post(raw.replace(b"12345678", b"ab\xff\xfecdef")), "stored": loki.stored(1)}


@case("nul-and-newlines")
def control_characters(loki: Asker) -> Answer:
    return {"push": loki.push(loki.record("a\x00b\nc\r\n\x1b[31md")), "stored": texts(loki, 1)}


# ── encodings ────────────────────────────────────────────────────────────────────────────────────────────────────
def small(loki: Asker) -> bytes:
    return loki.encoded([loki.record("enc")])


@case("gzip")
def gzipped(loki: Asker) -> Answer:
    return {"push": loki.post(gzip.compress(small(loki)), Content_Encoding="gzip"), "n": len(loki.stored(1))}


@case("deflate")
def deflated(loki: Asker) -> Answer:
    return {"push": loki.post(zlib.compress(small(loki)), Content_Encoding="deflate"), "n": len(loki.stored(0))}


@case("unknown-encoding")
def brotli(loki: Asker) -> Answer:
    return {"push": loki.post(small(loki), Content_Encoding="br"), "n": len(loki.stored(0))}


@case("json")
def in_json(loki: Asker) -> Answer:
    record = {"timeUnixNano": str(loki.now), "body": {"stringValue": "from json"}}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": loki.service}}]}
    request = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}
    return {"push": loki.post(json.dumps(request).encode(), "application/json"), "n": len(loki.stored(1))}


CASES["text-plain"] = lambda loki: {"push": loki.post(small(loki), "text/plain"), "n": len(loki.stored(0))}
CASES["no-content-type"] = lambda loki: {"push": loki.post(small(loki), ""), "n": len(loki.stored(0))}
CASES["garbage"] = lambda loki: loki.post(b"\xff\xff\xff not protobuf")
CASES["gzip-garbage"] = lambda loki: loki.post(b"not gzip", Content_Encoding="gzip")
CASES["empty"] = lambda loki: loki.post(b"")
CASES["no-records"] = lambda loki: loki.push()


@case("tenant-header")
def tenant_header(loki: Asker) -> Answer:
    return {"push": loki.post(small(loki), X_Scope_OrgID="other"), "n": len(loki.stored(1))}


@case("response-on-success")
def response_on_success(loki: Asker) -> Answer:
    status, headers, body = loki.exchange(
        "POST", "/otlp/v1/logs", small(loki), {"Content-Type": "application/x-protobuf"}
    )
    return {"status": status, "length": len(body), "headers": sorted(headers)}


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────
def line_of(size: int) -> Callable[[Asker], list[Any]]:
    return lambda loki: [loki.record("x" * size)]


for size, taken in ((200_000, 1), (262_143, 1), (262_144, 1), (262_145, 0), (300_000, 0)):
    counted(f"line-{size}", line_of(size), taken)
counted("line-utf8", lambda loki: [loki.record("é" * 131_073)], 0)
counted("line-and-metadata", lambda loki: [loki.record("x" * 262_000, attributes={"a": "y" * 10_000})], 1)


@case("batch-one-too-long")
def one_too_long(loki: Asker) -> Answer:
    records = [loki.record(body, at=loki.now + i) for i, body in enumerate(("first", "y" * 300_000, "third"))]
    return {"push": loki.push(*records), "stored": texts(loki, 2)}


@case("batch-two-bad")
def two_bad(loki: Asker) -> Answer:
    too_long, old = loki.record("y" * 300_000, at=loki.now + 1), loki.record("old", at=loki.now - 8 * DAY)
    return {"push": loki.push(loki.record("ok"), too_long, old), "stored": texts(loki, 1)}


counted("metadata-64k", lambda loki: [loki.record("m", attributes={"a": "y" * 65_536})], 0)
counted("metadata-60k", lambda loki: [loki.record("m", attributes={"a": "y" * 60_000})], 1)
counted("metadata-128", lambda loki: [loki.record("m", attributes={f"a{i}": "v" for i in range(128)})], 1)
counted("metadata-129", lambda loki: [loki.record("m", attributes={f"a{i}": "v" for i in range(129)})], 0)


@case("metadata-bad-in-batch")
def bad_metadata_in_batch(loki: Asker) -> Answer:
    bad = loki.record("bad", at=loki.now + 1, attributes={"a": "y" * 70_000})
    return {"push": loki.push(loki.record("one"), bad, loki.record("two", at=loki.now + 2)), "stored": texts(loki, 2)}


counted("batch-2MB", lambda loki: [loki.record("z" * 200_000, at=loki.now + i) for i in range(10)], 10)


# ── times ────────────────────────────────────────────────────────────────────────────────────────────────────────
@case("t-zero")
def no_time(loki: Asker) -> Answer:
    push = loki.push(loki.record("t0", at=0))
    return {"push": push, "stored": [[abs(row["dt_s"]) < 120, row["text"]] for row in loki.stored(1)]}


@case("t-zero-observed")
def observed_time_alone(loki: Asker) -> Answer:
    push = loki.push(loki.record("t0", at=0, observed_time_unix_nano=loki.now - HOUR))
    return {"push": push, "stored": [row["dt_s"] for row in loki.stored(1)]}


def record_at(away: int) -> Callable[[Asker], list[Any]]:
    return lambda loki: [loki.record("t", at=loki.now + away)]


for age, away, taken in (
    ("8d-old", -8 * DAY, 0),
    ("6d-old", -6 * DAY, 0),
    ("2h-old", -2 * HOUR, 1),
    ("4h-old", -4 * HOUR, 0),
    ("9m-ahead", 9 * MINUTE, 1),
    ("11m-ahead", 11 * MINUTE, 0),
):
    counted(f"t-{age}", record_at(away), taken)


def behind(minutes: int, expected: int) -> Callable[[Asker], Answer]:
    def ask(loki: Asker) -> Answer:
        first = loki.push(loki.record("new"))["status"]
        push = loki.push(loki.record("behind", at=loki.now - minutes * MINUTE))
        return {"first": first, "push": push, "stored": texts(loki, expected)}

    return ask


for minutes, lines in ((30, 2), (59, 2), (61, 1), (120, 1)):
    CASES[f"behind-{minutes}m"] = behind(minutes, lines)


@case("behind-in-one-batch")
def behind_in_one_batch(loki: Asker) -> Answer:
    push = loki.push(loki.record("new"), loki.record("behind", at=loki.now - 2 * HOUR))
    return {"push": push, "stored": texts(loki, 1)}


@case("behind-other-instance")
def behind_of_another_stream(loki: Asker) -> Answer:
    first = loki.push(loki.record("new"), resource={"service.instance.id": "a"})
    second = loki.push(loki.record("behind", at=loki.now - 2 * HOUR), resource={"service.instance.id": "b"})
    return {"a": first["status"], "b": second}


# ── repeated pushes ──────────────────────────────────────────────────────────────────────────────────────────────
def twice(name: str, one: Callable[[Asker], Any], other: Callable[[Asker], Any], expected: int) -> None:
    def ask(loki: Asker) -> Answer:
        return {"push": [loki.push(r(loki))["status"] for r in (one, other)], "n": len(loki.stored(expected))}

    CASES[name] = ask


def with_k(text: str) -> Callable[[Asker], Any]:
    return lambda loki: loki.record("d", attributes={"k": text})


def observed(after: int) -> Callable[[Asker], Any]:
    return lambda loki: loki.record("d", observed_time_unix_nano=loki.now + after)


twice("dup-identical", with_k("v"), with_k("v"), 1)
twice("dup-other-metadata", with_k("a"), with_k("b"), 2)
twice("dup-other-line", lambda loki: loki.record("da"), lambda loki: loki.record("db"), 2)
twice("dup-observed-differs", observed(1), observed(2), 2)


@case("dup-later")
def same_again_later(loki: Asker) -> Answer:
    records = [loki.record("first"), loki.record("mid", at=loki.now + SECOND), loki.record("first")]
    return {"push": [loki.push(record)["status"] for record in records], "stored": texts(loki, 2)}


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────
@case("query")
def query(loki: Asker) -> Answer:
    loki.push(
        *(
            loki.record(
                f'{{"seq":{i},"method":"POST"}}',
                at=loki.now + i,
                attributes={
                    "openclaw.egress.class": "sandbox" if i % 2 else "gateway",
                    "http.response.status_code": 200 + i,
                },
                event_name="openclaw.egress.exchange",
                severity_number=9,
                severity_text="INFO",
            )
            for i in range(6)
        )
    )
    loki.stored(6)
    selector = f'{{service_name="{loki.service}"}}'

    def ask(text: str, **parameters: Any) -> Answer:
        answer = loki.query(text, **parameters)
        if answer["status"] != 200:
            return answer
        data = json.loads(answer["body"])["data"]
        return {
            "type": data["resultType"],
            "streams": len(data["result"]),
            "lines": [line for one in data["result"] for _, line in one.get("values", [])],
            "value": [one.get("value", [None, None])[1] for one in data["result"]],
        }

    return {
        "all": ask(selector),
        "by attribute": ask(selector + ' | openclaw_egress_class="sandbox"'),
        "by dotted name": ask(selector + ' | openclaw.egress.class="sandbox"'),
        "number": ask(selector + " | http_response_status_code >= 203"),
        "event_name": ask(selector + ' | event_name="openclaw.egress.exchange"'),
        "json": ask(selector + " | json | seq = 3"),
        "line filter": ask(selector + ' |= "seq\\":2"'),
        "limit 2 backward": ask(selector, limit=2, direction="backward"),
        "limit 6000": ask(selector, limit=6000),
        "no selector": ask("{}"),
        "syntax": ask("{service_name="),
        "count": ask(f"sum(count_over_time({selector}[1h]))", path="query"),
        "31 days": ask(selector, start=loki.now - 31 * DAY),
        "raw": json.loads(loki.query(selector, limit=1)["body"])["data"]["result"],
    }


@case("labels")
def labels(loki: Asker) -> Answer:
    # In the recorded run, the case `names` created these labels. Push them here, so that this case is independent.
    some = ("container.name", "deployment.environment", "deployment.environment.name", "k8s.pod.name")
    loki.push(loki.record("l"), resource=dict.fromkeys((*some, "service.instance.id", "service.namespace"), "x"))
    loki.stored(1)
    values = loki.get_json("/loki/api/v1/label/service_name/values").get("data", [])
    return {"names": loki.get_json("/loki/api/v1/labels").get("data"), "has": loki.service in values}


@case("series")
def series(loki: Asker) -> Answer:
    loki.push(loki.record("l"), resource={"service.instance.id": "i", "host.name": "h"})
    loki.stored(1)
    found: Answer = loki.get_json("/loki/api/v1/series", **{"match[]": f'{{service_name="{loki.service}"}}'})
    return found


# ── rate: the last case, because it uses up the rate limit ────────────────────────────────────────────────────────────
counted("body-7MB", lambda loki: [loki.record("r" * 200_000, at=loki.now + i) for i in range(35)], 0)
counted("body-20MB", lambda loki: [loki.record("r" * 200_000, at=loki.now + i) for i in range(100)], 0)


@case("rate")
def rate(loki: Asker) -> Answer:
    # Build the pushes before sending the first one, because Loki's token bucket refills while they are built.
    pushes = [
        loki.request([loki.record("q" * 200_000, at=loki.now + 100 * i + j) for j in range(10)]).SerializeToString()
        for i in range(20)
    ]
    loki.full_allowance()
    statuses, last = [], {}
    for push in pushes:
        last = loki.post_at_once(push)
        statuses.append(last["status"])
        if last["status"] != 204:
            break
    time.sleep(5)
    return {"statuses": statuses, "refused": last, "after 5 s": loki.push(loki.record("again", at=loki.now + 10**6))}
