"""Tests that the usage of a background response counts only once, even if clients retrieve it several times."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from mitmproxy import http
from mitmproxy.test import tflow

from openclaw_egress.llm.pricing import PriceTable
from openclaw_egress.observability.metrics import Metrics
from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.destination import parse_destination
from openclaw_egress.policy.model import ClassPolicy, Decision, Limits, Policy
from openclaw_egress.proxy import counted_responses
from openclaw_egress.proxy.access_control import INSPECT, Allowed
from openclaw_egress.proxy.budgets import Budgets
from openclaw_egress.proxy.counted_responses import CountedResponses, Retrieved
from openclaw_egress.proxy.recorder import Recorder
from openclaw_egress.spool.writer import Spool, SpoolError


def test_response_is_recognised_by_its_host_and_class() -> None:
    known = Retrieved("gateway", "api.openai.com", "resp_0")
    counted = CountedResponses([known])
    assert known in counted
    for other in (known._replace(class_name="sandbox"), known._replace(host="h"), known._replace(response_id="resp_1")):
        assert other not in counted
        counted.add(other)
        assert other in counted


def test_memory_of_each_class_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted_responses, "MAX_RESPONSES", 2)
    gateway = Retrieved("gateway", "h", "a")
    counted = CountedResponses([gateway])
    own = [Retrieved("sandbox", "h", name) for name in "abc"]
    for response in (own[0], own[1], own[1], own[2]):
        counted.add(response)
    assert [response in counted for response in (gateway, *own)] == [True, False, True, True]


DONE = {
    "object": "response",
    "id": "resp_1",
    "model": "gpt-4o",
    "status": "completed",
    "background": True,
    "output": [],
    "usage": {"input_tokens": 1000, "output_tokens": 100},
}


def exchange(
    recorder: Recorder, method: str, path: str, body: dict[str, object], class_name: str = "gateway"
) -> http.HTTPFlow:
    """Record an exchange with OpenAI's API. Its client belongs to the class ``class_name``."""
    flow = tflow.tflow(req=http.Request.make(method, f"https://api.openai.com{path}"))
    flow.client_conn.peername = ("127.0.0.1", 1)
    decision = Decision(True, "default", Code.ALLOWED_BY_ACTION, inspect=True)
    flow.metadata[INSPECT] = Allowed(class_name, parse_destination("api.openai.com", 443), decision)
    recorder.requestheaders(flow)
    recorder.request(flow)
    flow.response = http.Response.make(200, json.dumps(body), {"content-type": "application/json"})
    content = flow.response.data.content
    recorder.responseheaders(flow)
    if flow.response.stream:
        flow.response.stream(content)
        flow.response.stream(b"")
    recorder.response(flow)
    return flow


def totals(spool: Spool) -> tuple[int, int, int]:
    """Return the number of exchanges, the number of tokens, and the cost in billionths of a dollar."""
    ((_, usage),) = spool.reader.usage(())
    counts = usage.counts
    return counts["requests"], counts["input_tokens"] + counts["output_tokens"], counts["cost_nano_usd"]


def test_response_in_the_background_counts_once_in_totals_and_budgets(tmp_path: Path) -> None:
    async def body() -> None:
        with Spool(tmp_path / "spool.db", sync_seconds=None) as spool:
            limits = Limits(tokens_per_day=2000)
            classes = {"gateway": ClassPolicy(name="gateway", listen=8080, action="open", limits=limits)}
            budgets = Budgets(lambda: Policy(classes, (), {}, "0"), lambda hour: ())
            recorder = Recorder(spool, Metrics(), 1024 * 1024, prices=PriceTable(), budgets=budgets)
            queued = DONE | {"status": "queued", "usage": None}
            exchange(recorder, "POST", "/v1/responses", queued)
            exchange(recorder, "GET", "/v1/responses/resp_1", queued)
            assert totals(spool) == (2, 0, 0)
            for _ in range(2):
                exchange(recorder, "GET", "/v1/responses/resp_1", DONE)
                exchange(recorder, "POST", "/v1/responses/resp_1/cancel", DONE)
            # If the POST already returned the complete response, a later GET of it does not count again.
            exchange(recorder, "POST", "/v1/responses", DONE | {"id": "resp_2", "background": False})
            exchange(recorder, "GET", "/v1/responses/resp_2", DONE | {"id": "resp_2", "background": False})
            assert totals(spool) == (8, 2200, 2 * 3_500_000)
            assert budgets.exceeded(classes["gateway"]) is not None
            shares = {limit: share for (_, limit), share in budgets.shares().items()}
            assert shares["tokens_per_day"] == pytest.approx(1.1)
            # The proxy reads these URLs after a restart, so that it does not count the responses again.
            urls = list(spool.reader.counted_urls("/responses/"))
            assert urls == [("gateway", "api.openai.com", "https://api.openai.com/v1/responses/resp_1")]

    asyncio.run(body())


def test_class_that_retrieves_the_response_of_another_does_not_hide_its_usage(tmp_path: Path) -> None:
    async def body() -> None:
        with Spool(tmp_path / "spool.db", sync_seconds=None) as spool:
            recorder = Recorder(spool, Metrics(), 1024 * 1024)
            for class_name in ("sandbox", "gateway", "gateway"):
                exchange(recorder, "GET", "/v1/responses/resp_1", DONE, class_name)
            found = {values: usage.counts["input_tokens"] for values, usage in spool.reader.usage(("class",))}
            assert found == {("gateway",): 1000, ("sandbox",): 1000}

    asyncio.run(body())


def test_response_whose_record_the_spool_refused_counts_in_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        with Spool(tmp_path / "spool.db", sync_seconds=None) as spool:
            recorder = Recorder(spool, Metrics(), 1024 * 1024)

            def refuse(record: object) -> None:
                raise SpoolError("the disk is full")

            with monkeypatch.context() as full:
                full.setattr(spool, "close_exchange", refuse)
                flow = exchange(recorder, "GET", "/v1/responses/resp_1", DONE)
            assert flow.response is not None and flow.response.status_code == 503
            exchange(recorder, "GET", "/v1/responses/resp_1", DONE)
            assert totals(spool)[1] == 1100

    asyncio.run(body())
