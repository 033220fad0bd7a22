"""Speed of `egress usage` over a spool of generated exchanges, and comparison with sums that SQLite computes.

    python -m tests.benchmarks.usage [EXCHANGES]

The exchanges are spread over 30 days, two classes, two hosts, eight models, three keys and three statuses. They have no
log lines, because only columns are needed to compute the totals. Prints the elapsed time of each command, and compares
the totals with the sums that SQLite computes over the records. Writes build/usage.json.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from openclaw_egress.recording.semconv import EVENT_EXCHANGE
from openclaw_egress.spool.schema import connect
from openclaw_egress.spool.usage_totals import NANO
from openclaw_egress.spool.writer import Spool
from tests.support.results import at_most, exactly, line, reported, write

ADDON = Path(__file__).parents[2] / "files" / "addon"
DAYS = 30
GOAL_SECONDS = 2.0
COLUMNS = (
    "seq, time_ns, state, class, event_name, exchange_id, part, parts, provider, host, model, key, status, error_type, "
    "input_tokens, output_tokens, cache_read_tokens, cost_usd, duration, first_chunk, size, resource, otlp"
)


def fill(path: Path, count: int) -> None:
    """Insert rows for exchanges without log lines in one transaction. Do not update the totals."""
    with Spool(path, 2**50, sync_seconds=None, local=True):
        pass
    with closing(connect(path)) as db:
        db.execute("BEGIN")
        db.executemany(f"INSERT INTO records ({COLUMNS}) VALUES ({', '.join('?' * 23)})", _rows(count))
        db.execute("INSERT INTO ledger SELECT seq, zeroblob(32), time_ns FROM records ORDER BY seq")
        db.execute("COMMIT")


def _rows(count: int) -> Iterator[tuple[object, ...]]:
    draw = random.Random(16)
    step = DAYS * 24 * 3600 * 10**9 // count
    begin = time.time_ns() - count * step
    for seq in range(1, count + 1):
        status = draw.choice((200, 200, 200, 200, 429, 529))
        failed = status != 200
        tokens = (None, None, None) if failed else (draw.randrange(100_000), draw.randrange(4000), draw.randrange(100))
        cost = None if failed or draw.random() < 0.1 else draw.random() / 10
        yield (
            *(seq, begin + seq * step, 3, draw.choice(("gateway", "browser")), EVENT_EXCHANGE, f"{seq:032x}", 0, 1),
            *("anthropic", draw.choice(("api.anthropic.com", "api.openai.com")), f"model-{draw.randrange(8)}"),
            *(f"{draw.randrange(3):012x}", status, "overloaded_error" if failed else None, *tokens, cost),
            *(draw.lognormvariate(1, 1), draw.random(), 600, 1, b""),
        )


def measured(state: Path, *arguments: str) -> tuple[float, list[dict[str, object]]]:
    """Run `egress usage`. Return its elapsed time in seconds and its JSON output."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "openclaw_egress", "usage", "--since", "90d", "--json", *arguments],
        env={**os.environ, "PYTHONPATH": str(ADDON), "EGRESS_STATE_DIR": str(state)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return time.monotonic() - began, [json.loads(line) for line in done.stdout.splitlines()]


def plain_sum(path: Path) -> dict[str, int]:
    """Return the sums that SQLite computes over the records."""
    query = (
        f"SELECT count(*), count(error_type), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), "
        f"sum(CAST(round(cost_usd * {NANO}) AS INTEGER)) FROM records WHERE event_name = ?"
    )
    names = ("requests", "errors", "input_tokens", "output_tokens", "cache_read_tokens", "cost_nano_usd")
    with closing(connect(path)) as db:
        return dict(zip(names, db.execute(query, (EVENT_EXCHANGE,)).fetchone(), strict=True))


def main(count: int) -> int:
    """Fill a spool, rebuild the totals, measure the command, and compare its output. Return the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "spool.db"
        fill(path, count)
        what = f"{count:,} exchanges: egress usage"
        results = [reported(f"{what} --rebuild", measured(path.parent, "--rebuild")[0], "s")]
        for by in ("model", "day", "class", "status"):
            elapsed, rows = measured(path.parent, "--by", by)
            results.append(at_most(f"{what} --by {by}", elapsed, "s", GOAL_SECONDS))
        for name, expected in plain_sum(path).items():
            found = (
                sum(round(float(row["cost_usd"]) * NANO) for row in rows)  # type: ignore[arg-type]
                if name == "cost_nano_usd"
                else sum(int(row[name]) for row in rows)  # type: ignore[call-overload]
            )
            results.append(exactly(f"{name} of egress usage, compared with the sum in SQL", found, "", expected))
    for result in results:
        print(line(result))
    return write(results, Path("build/usage.json"))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000))
