"""Duration of `egress delete`, and the longest time that a writer waits during it.

    python -m tests.benchmarks.deleting [LINES]

Deletes all exchanges and denials of a spool (see `auditing`) in the flush thread, while another thread adds a record
every 5 ms. Prints the duration of the deletion, and the longest and the 99th-percentile duration of adding a record.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from openclaw_egress.recording.records import EventRecord
from openclaw_egress.signatures import Signer
from openclaw_egress.spool.commands import Action, Command, submit
from openclaw_egress.spool.writer import Spool
from tests.benchmarks.auditing import fill


def main() -> None:
    count = int(sys.argv[1]) if sys.argv[1:] else 50_000
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "spool.db")
        fill(path, count)
        waits = []
        with Spool(path, 2**50, local=True, sync_seconds=0.05, signer=Signer.in_directory(path.parent)) as spool:
            spool.fold_usage()
            command = Command(Action.DELETE, ((1, count),), "benchmark")
            submit(path, command)
            begin = time.perf_counter()
            while not spool.reader.command_progress(command.id).done:
                time.sleep(0.005)
                before = time.perf_counter()
                spool.add(EventRecord(event_name="openclaw.egress.policy", message="x"))
                waits.append(time.perf_counter() - before)
            seconds = time.perf_counter() - begin
            stones = spool.reader.tombstones()
        waits.sort()
        print(f"{sum(stone.count for stone in stones)} lines in {seconds:.1f} s, {len(stones)} tombstones")
        print(
            f"{len(waits)} writes: longest {waits[-1] * 1e3:.0f} ms, 99 % {waits[len(waits) * 99 // 100] * 1e3:.0f} ms"
        )


if __name__ == "__main__":
    main()
