"""`make bench`: measure the cost of masking secrets in recorded bodies, compared to recording them without masking.

    python -m tests.benchmarks.masking

To record an exchange, the benchmark captures it, writes its request to the journal, and commits its record. The proxy
does the same for a request that it forwards only after the request is in the journal. Other work of the proxy, such
as TLS, is not measured. Compare only times of the same run.

Writes build/masking.json; exits with 1 if a goal is missed.
"""

from __future__ import annotations

import base64
import json
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from openclaw_egress.recording.capture import ExchangeCapture, Masks
from openclaw_egress.recording.masking import mask
from openclaw_egress.spool.writer import Spool
from tests.benchmarks import recording
from tests.support.results import Result, at_least, at_most, line, reported, write

ROUNDS = 40
HOSTILE = (b"/AKIA" * 1600 + b" ") * 125


def record(spool: Spool, body: bytes, masks: Masks) -> None:
    """Record an exchange whose request has this body."""
    exchange = ExchangeCapture(
        id=str(uuid.uuid4()), class_name="gateway", rule="default", reason="", method="POST",
        url="https://api.anthropic.com/v1/messages", host="api.anthropic.com", port=443, http_version="1.1",
        request_headers=[("content-type", "application/json")], begin_ns=1, body_limit=1 << 20, path="/v1/messages",
        masks=masks,
    )  # fmt: skip
    for _ in exchange.request_chunk(body):
        pass
    exchange.request_done()
    spool.open_exchange(exchange.id, "gateway", exchange.known(), exchange.request.beginning())
    exchange.response_began(200, [("content-type", "application/json")])
    for _ in exchange.response_chunk(json.dumps(recording.ANSWER).encode(), 2):
        pass
    spool.close_exchange(exchange.record("complete", 3))


def seconds(function: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the CPU time of a call in seconds: the minimum over several rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.thread_time()
        function()
        best = min(best, time.thread_time() - start)
    return best


def measure() -> list[Result]:
    """Measure a body without secrets, an image, source code and a hostile body. Return the results."""
    body = recording.body(100_000)
    image = b'{"data": "' + base64.b64encode(random.Random(1).randbytes(750_000)) + b'"}'
    code = json.dumps("".join(path.read_text() for path in sorted(Path("files/addon").rglob("*.py")))).encode()[
        :1_000_000
    ]
    with tempfile.TemporaryDirectory() as directory, Spool(Path(directory, "spool.db"), sync_seconds=None) as spool:
        turns = [[seconds(lambda masks=masks: record(spool, body, masks)) for masks in (None, ())] for _ in range(3)]
    off, on = (min(times) for times in zip(*turns, strict=True))
    found = [
        reported("100 KB: recording, masking off", off * 1e6, "us"),
        reported("100 KB: recording, masking on", on * 1e6, "us"),
        reported("100 KB: masking alone", seconds(lambda: mask(body)) * 1e6, "us"),
    ]
    for name, data in (("100 KB request", body), ("image in Base64", image), ("source code", code)):
        found.append(reported(f"{name}: speed", len(data) / seconds(lambda data=data: mask(data), 5) / 1e6, "MB/s"))
    found.append(at_least("hostile body: speed", len(HOSTILE) / seconds(lambda: mask(HOSTILE), 3) / 1e6, "MB/s", 0.5))
    found.append(at_most("100 KB: time that masking adds", (on / off - 1) * 100, "%", 15))
    return found


def main() -> int:
    """Run the benchmark. Print the results and write them to a file. Return the exit code."""
    measured = measure()
    for result in measured:
        print(line(result))
    return write(measured, Path("build/masking.json"))


if __name__ == "__main__":
    sys.exit(main())
