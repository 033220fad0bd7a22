"""Theme crash: `kill -9` at random moments under load.

Each call with a complete response must be recorded exactly once. Other exchanges must be marked as interrupted.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from openclaw_egress.spool.reader import Row, SpoolReader
from tests.resilience import fixtures
from tests.resilience.load import Load
from tests.support import llm_calls
from tests.support.loki.fake import FakeLoki
from tests.support.results import Result, at_least, exactly, reported

ROUNDS = 15
SEED = 20_261
EVENT_MS = 30
"""Milliseconds between two events of a stream, so that some calls are in progress at every kill."""


def run(made: fixtures.Fixtures) -> Iterator[Result]:
    """Repeatedly start the proxy on the same spool and kill it under load. Then check the records."""
    chance = random.Random(SEED)
    began = time.time()
    with FakeLoki() as loki:
        proxy = made.proxy("crash", OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{loki.url}/otlp/v1/logs")
        load = Load(proxy)
        for _ in range(ROUNDS):
            proxy.start()
            with load.running(delay_ms=EVENT_MS, pause=0.01):
                time.sleep(chance.uniform(0.1, 1.2))
                proxy.kill()
        with proxy:
            delivered = fixtures.drained(proxy)
        rows = llm_calls.kept(proxy)
        outcomes = Counter(row.outcome for _, row in rows)
        yield at_least("crash: calls with a complete response", len(load.responded), "calls", 100)
        yield at_least("crash: calls aborted by a kill", len(load.failed), "calls", ROUNDS)
        yield exactly("crash: complete calls not recorded exactly once", len(load.not_kept_once()), "calls", 0)
        yield exactly(
            "crash: exchanges neither complete nor marked as interrupted",
            outcomes.total() - outcomes["complete"] - outcomes["interrupted"],
            "",
            0,
        )
        yield reported("crash: exchanges marked as interrupted", outcomes["interrupted"], "")
        arrived = made.providers.asked_since(began)
        missing = _unrecorded(load, arrived, rows)
        for entry in missing:
            print(f"a complete request has no record: {entry}", file=sys.stderr)
        yield at_least("crash: requests at the provider", len(arrived), "", len(load.responded))
        yield exactly("crash: requests sent to the provider without a record", len(missing), "", 0)
        with SpoolReader(proxy.directory / "state" / "spool.db") as reader:
            yield exactly("crash: errors in the hash chain", len(reader.audit().problems), "", 0)
        stored = Counter(
            labels["openclaw_egress_exchange_id"] for _, _, labels in loki.records() if llm_calls.is_exchange(labels)
        )
        yield exactly("crash: all delivered afterwards", int(delivered), "", 1)
        yield exactly(
            "crash: exchanges not exactly once at the destination",
            len(_not_once(stored, (row.id for _, row in rows))),
            "",
            0,
        )
    yield exactly("crash: tracebacks in the log", proxy.log.count("Traceback"), "", 0)


def _not_once(stored: Counter[str], wanted: Iterable[str]) -> set[str]:
    ids = set(wanted)
    return {one for one in ids | set(stored) if one not in ids or stored[one] != 1}


def _unrecorded(load: Load, arrived: Sequence[Mapping[str, Any]], rows: Sequence[tuple[int, Row]]) -> list[Any]:
    """Return the provider's log entries of complete requests that have no exchange in the spool.

    Count only the calls of this load: the provider is shared, so ``arrived`` can contain late requests of other themes.
    """
    left = Counter(number for number, _ in rows)
    missing = []
    for entry in arrived:
        number = load.started.get(entry["request_body_sha256"])
        if number is None or entry["outcome"] == "request_cut":
            continue
        if not left[number]:
            missing.append({"call": number, **entry})
        left[number] -= 1
    return missing
