"""`make chaos`: expose the real proxy on loopback to floods and faults.

Each theme is a module of this folder; THEMES="crash store" runs only these two. The program prints one line per result,
writes build/chaos.json, and exits with 1 if a goal is missed. The duration of each theme is limited.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.resilience import clock, crash, disk, fixtures, memory, reloads, starvation, store, upstream
from tests.support.results import Result, line, reported, unmet, write

THEMES: dict[str, Callable[[fixtures.Fixtures], Iterator[Result]]] = {
    "starvation": starvation.run,
    "memory": memory.run,
    "crash": crash.run,
    "store": store.run,
    "disk": disk.run,
    "upstream": upstream.run,
    "reloads": reloads.run,
    "clock": clock.run,
}


def main() -> int:
    """Run the selected themes. Return the exit code."""
    chosen = os.environ.get("THEMES", "").split() or list(THEMES)
    if unknown := set(chosen) - set(THEMES):
        print(f"unknown theme: {', '.join(sorted(unknown))}; use one of {', '.join(THEMES)}", file=sys.stderr)
        return 2
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory, fixtures.made(Path(directory)) as made:
        for theme in chosen:
            began = time.monotonic()
            for result in THEMES[theme](made):
                print(line(result), flush=True)
                results.append(result)
            results.append(reported(f"{theme}: the whole theme", time.monotonic() - began, "s"))
            print(line(results[-1]), flush=True)
    for result in unmet(results):
        print(f"NOT MET: {line(result)}", file=sys.stderr)
    return write(results, Path("build/chaos.json"))


if __name__ == "__main__":
    sys.exit(main())
