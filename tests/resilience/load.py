"""Numbered LLM calls of the class `gateway`. Themes check that each succeeds, is fast, and is recorded."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx2 as httpx

from tests.support import llm_calls
from tests.support.proxy_process import RunningProxy

WORKERS = 3
PAUSE_SECONDS = 0.1
CALLS_PER_CONNECTION = 5
WARMING_SECONDS = 1.0
_numbers = itertools.count(1)


@dataclass
class Load:
    """LLM calls and their results.

    ``started`` maps the SHA-256 of a request's body to the call number. ``responded`` maps the number to the
    milliseconds until the response was complete, and ``failed`` to the error.
    """

    proxy: RunningProxy
    started: dict[str, int] = field(default_factory=dict)
    responded: dict[int, float] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def running(self, *, more: str = "", delay_ms: int = 0, pause: float = PAUSE_SECONDS) -> Iterator[None]:
        """Make calls from several threads within the context. At its end, wait for the calls in progress."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._work, args=(stop, more, delay_ms, pause), daemon=True) for _ in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)

    def _work(self, stop: threading.Event, more: str, delay_ms: int, pause: float) -> None:
        while not stop.is_set():
            with self.proxy.client(headers={"x-api-key": "k", "x-standin-delay-ms": str(delay_ms)}) as http:
                for _ in range(CALLS_PER_CONNECTION):
                    if stop.is_set():
                        return
                    if not self.call(http, more):
                        break
                    stop.wait(pause)
            stop.wait(pause / CALLS_PER_CONNECTION)

    def call(self, http: httpx.Client, more: str = "") -> bool:
        """Make one call, streamed or plain. Return whether the response was complete."""
        number = next(_numbers)
        body = llm_calls.message(number, stream=number % 2 > 0, more=more)
        request = http.build_request("POST", self.proxy.url("api.anthropic.com", "/v1/messages"), json=body)
        self.started[hashlib.sha256(request.read()).hexdigest()] = number
        began = time.perf_counter()
        try:
            answer = http.send(request)
        except httpx.HTTPError as error:
            self.failed[number] = type(error).__name__
            return False
        if answer.status_code != 200:
            self.failed[number] = f"status {answer.status_code}"
            return False
        if ("message_stop" if body["stream"] else '"stop_reason"') not in answer.text:
            self.failed[number] = "cut"
            return False
        self.responded[number] = (time.perf_counter() - began) * 1000
        return True

    @property
    def median(self) -> float:
        """Return the median time of the complete calls in milliseconds."""
        return statistics.median(self.responded.values()) if self.responded else float("inf")

    @property
    def worst(self) -> float:
        """Return the longest time of the complete calls in milliseconds."""
        return max(self.responded.values(), default=float("inf"))

    def not_kept_once(self) -> list[int]:
        """Return the numbers of the complete calls without exactly one record, or with an incomplete one."""
        found = Counter((number, row.outcome) for number, row in llm_calls.kept(self.proxy))
        times = Counter(number for number, _ in found.elements())
        return [number for number in self.responded if found[number, "complete"] != 1 or times[number] != 1]


@contextlib.contextmanager
def compared(proxy: RunningProxy, control: RunningProxy) -> Iterator[tuple[Load, Load]]:
    """Within the context, make calls through the proxy and, in parallel, through a control proxy without a flood.

    Other load on the machine slows down both proxies, so the ratio of their times shows the effect of the flood.
    """
    loads = Load(proxy), Load(control)
    with loads[0].running(), loads[1].running():
        yield loads


def compared_for(proxy: RunningProxy, control: RunningProxy, seconds: float) -> tuple[Load, Load]:
    """Make calls through both proxies for this number of seconds. Return the calls of each proxy."""
    with compared(proxy, control) as loads:
        time.sleep(seconds)
    return loads


def warm(proxy: RunningProxy, control: RunningProxy) -> None:
    """Make calls through both proxies before a measurement, so that they have loaded modules and certificates."""
    compared_for(proxy, control, WARMING_SECONDS)
