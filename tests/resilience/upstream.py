"""Theme upstream: the provider is faulty. Clients must see failures, and records must name the faults."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2 as httpx

from openclaw_egress.proxy.resolver import LOOKUP_SECONDS
from openclaw_egress.spool.reader import Row
from tests.integration.proxy.raw import connect, connected, status_of
from tests.resilience import fixtures, hostile
from tests.resilience.load import Load
from tests.support import llm_calls
from tests.support.proxy_process import RunningProxy
from tests.support.results import Result, at_most, exactly

IMPATIENT_SECONDS, PATIENT_SECONDS = 3.0, 60.0
"""Client timeouts: a short one for stalled responses, and a long one for responses that a slow machine decodes."""
GOAL_MEGABYTES = 150.0
"""Maximum growth of the proxy's memory in MB during `TOGETHER` parallel requests. One decoded body may have 64 MiB."""
TOGETHER = 4

BROKEN, GONE, WHOLE = "upstream_error", "client_aborted", "complete"
EXPECTED = {
    **dict.fromkeys(hostile.PARTS, BROKEN),
    "stall-before-the-answer": GONE,
    "stall-in-a-stream": GONE,
    "endless-line": WHOLE,
    "hints-before-the-answer": WHOLE,
    "bomb": WHOLE,
}
TRUNCATED = {"endless-line", "bomb"}


@dataclass
class Seen:
    """Result of a client's request: whether the response was complete, and its status code."""

    whole: bool
    status: int


def run(made: fixtures.Fixtures) -> Iterator[Result]:
    """Test each fault in turn, with several requests in parallel. Then request a name whose lookup is too slow."""
    with hostile.listening(*made.certificate) as port:
        proxy = made.proxy("upstream", [port], CHAOS_LOOKUP_SECONDS=str(LOOKUP_SECONDS + 2))
        with proxy:
            yield from _parts(proxy, port)
            with connected(proxy.ports["browser"]) as sock:
                yield exactly("upstream, slow DNS: status", status_of(connect(sock, "x.slow.example:443")), "", 502)
            after = Load(proxy)
            with proxy.client(headers={"x-api-key": "k"}) as http:
                after.call(http)
            yield exactly("upstream: calls that fail afterwards", len(after.failed), "calls", 0)
    yield exactly("upstream: tracebacks in the log", proxy.log.count("Traceback"), "", 0)


def _parts(proxy: RunningProxy, port: int) -> Iterator[Result]:
    for part, expected in EXPECTED.items():
        memory = fixtures.megabytes(proxy)
        fixtures.forget_peak(proxy)
        known = len(proxy.exchanges())
        timeout = IMPATIENT_SECONDS if expected == GONE else PATIENT_SECONDS
        with ThreadPoolExecutor(TOGETHER) as pool:
            requested = [pool.submit(ask, proxy, port, part, timeout) for _ in range(TOGETHER)]
        seen = [one.result() for one in requested]
        fixtures.wait_until(lambda known=known: len(proxy.exchanges()) >= known + TOGETHER, 10)
        rows = proxy.exchanges()[known:]
        right = [row for row in rows if row.outcome == expected and _truncated(proxy, row) == (part in TRUNCATED)]
        taken_for_whole = sum(one.whole and one.status == 200 for one in seen) if expected != WHOLE else 0
        yield exactly(
            f"upstream, {part}: truncated responses that a client accepts as complete", taken_for_whole, "", 0
        )
        yield exactly(f"upstream, {part}: records with the outcome {expected}", len(right), "", TOGETHER)
        added = fixtures.megabytes(proxy, peak=True) - memory
        yield at_most(f"upstream, {part}: memory added by {TOGETHER} at once", added, "MB", GOAL_MEGABYTES)


def ask(proxy: RunningProxy, port: int, part: str, timeout: float) -> Seen:
    """Request the fault ``part``, and read the response without decoding it. Each read may take ``timeout`` seconds."""
    status = 0
    try:
        with (
            proxy.client(headers={"x-api-key": "k"}) as http,
            http.stream(
                "POST",
                f"https://api.anthropic.com:{port}/v1/messages/{part}",
                json=llm_calls.message(0, stream=True),
                timeout=timeout,
            ) as answer,
        ):
            status = answer.status_code
            for _ in answer.iter_raw():
                pass
    except httpx.HTTPError:
        return Seen(False, status)
    return Seen(True, status)


def _truncated(proxy: RunningProxy, row: Row) -> bool:
    return bool(proxy.line(row.id)["response"].get("body_truncated"))
