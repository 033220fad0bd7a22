"""Speed of `egress audit` over a spool of generated lines.

    python -m tests.benchmarks.auditing [LINES]

Half of the lines are exchanges with a request of 4 KB and a response of 2 KB, and half are denials. Every 500th line
is a signed checkpoint. Prints the CPU time of the command, including its startup, for the whole spool and for the
newest tenth of it. CPU time depends less on other programs than elapsed time.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from openclaw_egress.recording import semconv
from openclaw_egress.recording.log_lines import Line
from openclaw_egress.recording.records import Body, DeniedRecord, EventRecord, ExchangeRecord, lines_of
from openclaw_egress.signatures import Signer, checkpoint_text, key_id
from openclaw_egress.spool.writer import Spool

ADDON = Path(__file__).parents[2] / "files" / "addon"
REQUEST, RESPONSE = (json.dumps({"content": "word " * (size // 5)}).encode() for size in (4000, 2000))


def fill(path: Path, count: int) -> None:
    """Write lines in one transaction. Their timestamps are 10 ms apart and end at the current time."""
    signer = Signer.in_directory(path.parent)
    clock = iter(range(time.time_ns() - count * 10**7, 2**63, 10**7))
    with (
        Spool(path, 2**50, sync_seconds=None, local=True, clock_ns=lambda: next(clock)) as spool,
        spool._storage.transaction() as (_, totals),
    ):
        while totals.seq < count:
            spool._ledger.append(next_lines(totals.seq, totals.hash, signer))


def next_lines(seq: int, digest: str, signer: Signer) -> Iterator[Line]:
    if seq % 500 == 499:
        attributes = {
            semconv.CHECKPOINT_SEQ: seq,
            semconv.CHECKPOINT_HASH: digest,
            semconv.CHECKPOINT_SIGNATURE: signer.sign(checkpoint_text(seq, digest)),
            semconv.CHECKPOINT_KEY: key_id(signer.key.public_key()),
        }
        yield from lines_of(EventRecord(event_name=semconv.EVENT_CHECKPOINT, attributes=attributes, message=""))
    elif seq % 2:
        yield from lines_of(
            DeniedRecord(
                class_name="sandbox", rule="default", code="no_rule", reason="no rule allows it", host="h", port=443
            )
        )
    else:
        yield from lines_of(
            ExchangeRecord(
                id=f"x{seq}", class_name="gateway", method="POST", url="https://api.anthropic.com/v1/messages",
                host="api.anthropic.com", port=443, begin_ns=1, end_ns=2, status=200, request_body=Body.of(REQUEST),
                response_body=Body.of(RESPONSE),
            )
        )  # fmt: skip


def audited(state: Path, *words: str) -> tuple[float, int]:
    """Run `egress audit` with these options. Return its CPU time in seconds, and the number of audited lines."""
    environ = {**os.environ, "EGRESS_STATE_DIR": str(state), "PYTHONPATH": str(ADDON)}
    command = [sys.executable, "-m", "openclaw_egress", "audit", "--json", "--store", "none", *words]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environ, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, json.loads(done.stdout)["reports"][0]["lines"]


def main() -> None:
    count = int(sys.argv[1]) if sys.argv[1:] else 100_000
    # Start of the newest tenth: count / 10 lines at intervals of 10 ms span count / 1000 seconds.
    since = datetime.fromtimestamp(time.time() - count / 1000, UTC).isoformat()
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory)
        fill(state / "spool.db", count)
        size = (state / "spool.db").stat().st_size
        print(f"{count} lines, {size / 1e6:.0f} MB")
        for words in ((), ("--since", since)):
            seconds, lines = min(audited(state, *words) for _ in range(3))
            text = " ".join(["egress audit", *words])
            print(f"{text}: {lines} lines in {seconds:.2f} s, {lines / seconds:.0f} lines/s")


if __name__ == "__main__":
    main()
