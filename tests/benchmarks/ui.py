"""Response times of `egress ui` over a spool of generated exchanges.

    python -m tests.benchmarks.ui [EXCHANGES]

Every 20th record is a denial. The records in the middle of the spool belong to agent runs; in each run, every request
repeats the conversation so far. For each view, prints the longest elapsed time and the longest CPU time of three
requests; the CPU time depends less on other programs. Also prints the peak memory of the process. Exits with 1 if a
view takes a second or longer.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from openclaw_egress.recording.records import Body, ExchangeRecord
from openclaw_egress.recording.semconv import EVENT_DENIED
from openclaw_egress.spool.schema import connect
from openclaw_egress.spool.writer import Spool
from tests.benchmarks.usage import fill, measured
from tests.support.hostile_records import hostile_exchange
from tests.support.ui_process import RunningUI

NEAR = 2000
"""Number of records on each side of the middle that belong to agent runs."""
RUNS, TURNS = 40, 50
"""Number of parallel agent runs, and number of requests in each run."""
SAID = "The tests of the parser fail on line breaks inside of quoted fields; I look at its states. " * 5


def paths(count: int) -> list[str]:
    """Return the paths to request: each view, with filters that match many, few and no records."""
    return [
        "/",
        "/?model=model-3",
        f"/?status=429&before={count // 2}",
        "/?host=no-such-host",
        "/?code=no_rule",
        "/?since=2h",
        "/?since=20d&until=15d",
        f"/records/{count // 2}",
        f"/records/{count // 2 + 1}/session",
        "/denials",
        "/denials?since=30d",
        "/policy",
        "/usage",
        "/usage?since=30d",
        "/health",
    ]


def add_denials(path: Path) -> None:
    """Change every 20th record into a denial. The denials have 300 destinations and two classes."""
    with closing(connect(path)) as db:
        db.execute(
            "UPDATE records SET event_name = ?, exchange_id = '', host = 'h' || (seq / 20 % 300) || '.example', "
            "port = 443, rule = 'default', code = 'no_rule', reason = 'no rule lets the class reach it', enforced = 1, "
            "client = '10.0.0.1', model = NULL WHERE seq % 20 = 0",
            (EVENT_DENIED,),
        )


def turn(number: int) -> ExchangeRecord:
    """Return the exchange with this number. Exchanges rotate between `RUNS` agent runs of `TURNS` requests."""
    run, turns = number % RUNS, number // RUNS % TURNS
    messages = [{"role": ("user", "assistant")[at % 2], "content": f"{run} {at} {SAID}"} for at in range(2 * turns + 1)]
    body = {"model": "model-1", "system": SAID * 10, "messages": messages}
    answer = {"id": f"msg_{number}", "role": "assistant", "content": [{"type": "text", "text": SAID}]}
    return hostile_exchange(
        f"{number:032x}",
        class_name="gateway",
        request_body=Body.of(json.dumps(body).encode()),
        response_body=Body.of(json.dumps(answer).encode()),
    )


def add_runs(path: Path, middle: int) -> None:
    """Replace the log lines of all exchanges within `NEAR` records of ``middle`` with log lines of agent runs."""
    with tempfile.TemporaryDirectory() as directory:
        lines = Path(directory) / "spool.db"
        with Spool(lines, 2**50, sync_seconds=None, local=True) as spool:
            for number in range(2 * NEAR):
                spool.close_exchange(turn(number))
        with closing(connect(path)) as db:
            db.execute("ATTACH ? AS made", (str(lines),))
            db.execute(
                "UPDATE records SET otlp = (SELECT otlp FROM made.records m WHERE m.seq = records.seq - ?), "
                "class = 'gateway', client = '10.0.0.1' WHERE seq > ? AND seq <= ? AND exchange_id <> ''",
                (middle - NEAR, middle - NEAR, middle + NEAR),
            )


def processor_seconds(pid: int) -> float:
    """Return the CPU time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(count: int) -> int:
    """Fill a spool, request each view and measure it. Return the exit code."""
    slowest = 0.0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "spool.db"
        fill(path, count)
        add_denials(path)
        add_runs(path, count // 2)
        measured(Path(directory), "--rebuild")
        with RunningUI(Path(directory)) as page:
            for view in paths(count):
                times, spent = [], []
                for _ in range(3):
                    began, before = time.monotonic(), processor_seconds(page.process.pid)
                    status = page.get(view).status
                    times.append(time.monotonic() - began)
                    spent.append(processor_seconds(page.process.pid) - before)
                print(
                    f"{count:,} exchanges: {view}: {max(times):.3f} s, {max(spent):.2f} s of processor time, {status}"
                )
                slowest = max(slowest, *times)
            memory = Path(f"/proc/{page.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
            print(f"{count:,} exchanges: {int(memory) / 1024:.0f} MiB of memory")
    return int(slowest >= 1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000))
