"""`make bench`: measure how much the proxy delays an event stream of 20 events at intervals of 100 ms.

Prints a table and writes build/bench.json; exits with 1 if a goal is missed. The times depend on the machine and its
load.
"""

from __future__ import annotations

import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx2 as httpx

from tests.support.llm_providers import LLMProviders
from tests.support.proxy_process import RunningProxy
from tests.support.results import at_most, line, reported, write

EVENTS, PAUSE_MS, ROUNDS = 20, 100, 5
GOAL_ADDED_MS = 50.0
"""Maximum delay that the proxy adds, in ms. Holding all events until the stream's end would add 2,000 ms."""


def first_and_last(http: httpx.Client, url: str) -> tuple[float, float]:
    """Send a request. Return the milliseconds until the first event, and until the last one."""
    began = time.perf_counter()
    times = []
    with http.stream(
        "POST",
        url,
        headers={"x-api-key": "k", "x-standin-events": str(EVENTS), "x-standin-delay-ms": str(PAUSE_MS)},
        json={"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hello"}]},
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith("event:"):
                times.append((time.perf_counter() - began) * 1000)
    return times[0], times[-1]


def main() -> int:
    """Run the benchmark. Print the results and write them to a file. Return the exit code."""
    with LLMProviders(http_port=0) as providers, tempfile.TemporaryDirectory() as directory:
        assert providers.ca_file is not None and providers.http_port is not None
        ports = [providers.port, providers.http_port]
        with RunningProxy(Path(directory), ports, providers.ca_file) as proxy:
            own = ssl.create_default_context(cafile=str(providers.ca_file))
            with httpx.Client(verify=own, trust_env=False) as direct, proxy.client() as through:
                measured = {
                    name: [first_and_last(http, url) for _ in range(ROUNDS)]
                    for name, http, url in (
                        ("direct", direct, f"https://127.0.0.1:{providers.port}/v1/messages"),
                        ("proxy", through, proxy.url("api.anthropic.com", "/v1/messages")),
                    )
                }
    first = {name: statistics.median(one for one, _ in times) for name, times in measured.items()}
    last = {name: statistics.median(one for _, one in times) for name, times in measured.items()}
    results = [
        reported("first event, direct", first["direct"], "ms"),
        reported("first event, proxy", first["proxy"], "ms"),
        at_most("delay added to the first event", first["proxy"] - first["direct"], "ms", GOAL_ADDED_MS),
        reported("last event, direct", last["direct"], "ms"),
        reported("last event, proxy", last["proxy"], "ms"),
    ]
    for result in results:
        print(line(result))
    return write(results, Path("build/bench.json"))


if __name__ == "__main__":
    sys.exit(main())
