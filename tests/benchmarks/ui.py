"""Response times of `egress ui` over a spool of generated exchanges.

    python -m tests.benchmarks.ui [EXCHANGES]

Prints the slowest of three requests of each view, and the largest memory of the process. Exits 1 if a view takes a
second or longer.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.usage import fill, measured
from tests.support.ui_process import RunningUI


def paths(count: int) -> list[str]:
    """Return the paths to request: each view, with conditions that match often, rarely and never."""
    return [
        "/",
        "/?model=model-3",
        f"/?status=429&before={count // 2}",
        "/?host=no-such-host",
        "/?code=no_rule",
        "/?since=2h",
        "/?since=20d&until=15d",
        f"/records/{count // 2}",
        f"/records/{count // 2}/session",
        "/denials?since=30d",
        "/policy",
        "/usage",
        "/usage?since=30d",
        "/health",
    ]


def main(count: int) -> int:
    """Fill, request and measure. Return the exit code."""
    slowest = 0.0
    with tempfile.TemporaryDirectory() as directory:
        fill(Path(directory) / "spool.db", count)
        measured(Path(directory), "--rebuild")
        with RunningUI(Path(directory)) as page:
            for path in paths(count):
                times = []
                for _ in range(3):
                    began = time.monotonic()
                    status = page.get(path).status
                    times.append(time.monotonic() - began)
                print(f"{count:,} exchanges: {path}: {max(times):.3f} s, status {status}")
                slowest = max(slowest, *times)
            memory = Path(f"/proc/{page.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
            print(f"{count:,} exchanges: {int(memory) / 1024:.0f} MiB of memory")
    return int(slowest >= 1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000))
