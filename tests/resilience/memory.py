"""Theme memory: clients of one class send large bodies and do not read the responses.

In a cgroup with the container's memory limit, the kernel must not kill the proxy. Calls of class gateway must succeed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.resilience import fixtures
from tests.resilience.load import Load
from tests.support.proxy_process import RunningProxy
from tests.support.results import Result, at_least, at_most, exactly, reported

LIMIT = 512 * 1024 * 1024
"""The default memory limit of the proxy's container, in bytes."""

MIB = 1024 * 1024
HOST = "api.anthropic.com"
CALLS_AT_LEAST = 5
WAIT_SECONDS = "8"
SETTLE_SECONDS = 30.0


class NoCgroup(Exception):
    """Error if no memory cgroup can be created here. Its text gives the reason."""


class MemoryCgroup:
    """A memory cgroup (v1 or v2) with a limit."""

    def __init__(self, limit: int) -> None:
        root = Path("/sys/fs/cgroup")
        self.v1 = (root / "memory" / "memory.limit_in_bytes").exists()
        self.path = (root / "memory" if self.v1 else root) / f"openclaw-egress-chaos-{os.getpid()}"
        try:
            self.path.mkdir()
            self._file("memory.limit_in_bytes", "memory.max").write_text(str(limit))
            swap = self._file("memory.memsw.limit_in_bytes", "memory.swap.max")
            if swap.exists():
                swap.write_text(str(limit) if self.v1 else "0")
        except OSError as error:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            raise NoCgroup(f"{self.path}: {error.strerror}") from None

    def _file(self, v1: str, v2: str) -> Path:
        return self.path / (v1 if self.v1 else v2)

    @property
    def prefix(self) -> list[str]:
        """Return the prefix with which a command line runs in the cgroup."""
        return ["sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh"]

    @property
    def peak(self) -> float:
        """Return the peak memory that the kernel charged to the cgroup, page cache included, in MB."""
        file = self._file("memory.max_usage_in_bytes", "memory.peak")
        return int(file.read_text()) / 1e6 if file.exists() else float("nan")

    @property
    def kills(self) -> int:
        """Return how many processes in the cgroup the kernel has killed because memory ran out."""
        words = self._file("memory.oom_control", "memory.events").read_text().split()
        return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0

    def remove(self) -> None:
        """Remove the cgroup after its processes have ended."""
        with contextlib.suppress(OSError):
            self.path.rmdir()


# ── clients ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Client:
    """A client that connects to the provider through a class's listener. The proxy decrypts its TLS connection."""

    proxy: RunningProxy

    @contextlib.asynccontextmanager
    async def connected(self, class_name: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect to the provider through a tunnel, with a read buffer of 64 KB."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.ports[class_name], limit=65536)
        try:
            target = f"{HOST}:{self.proxy.provider_port}"
            writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(ssl.create_default_context(cafile=str(self.proxy.root)), server_hostname=HOST)
            yield reader, writer
        finally:
            writer.transport.abort()

    def head(self, *fields: str) -> bytes:
        """Return the head of a request with these additional header fields."""
        lines = ["POST /v1/messages HTTP/1.1", f"Host: {HOST}:{self.proxy.provider_port}", "x-api-key: k", *fields]
        return "\r\n".join([*lines, "", ""]).encode()

    async def post(self, class_name: str, size: int, *fields: str, hold: float = 0) -> int:
        """Send a body of ``size`` bytes and read the response. Return its status, or 0 if the connection failed.

        If ``hold`` is not 0, wait that many seconds between the status line and the rest of the response.
        """
        start = b'{"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "'
        end = b'"}]}'
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            async with self.connected(class_name) as (reader, writer):
                writer.write(self.head(f"Content-Length: {size}", *fields) + start)
                answer = asyncio.create_task(reader.readline())
                answer.add_done_callback(lambda done: done.cancelled() or done.exception())
                left = size - len(start) - len(end)
                while left and not answer.done():
                    writer.write(b"x" * min(left, 65536))
                    left -= min(left, 65536)
                    await writer.drain()
                if not answer.done():
                    writer.write(end)
                if hold:
                    await answer
                    await asyncio.sleep(hold)
                status = await answer
                rest = 0
                while piece := await asyncio.wait_for(reader.read(1 << 20), 30):
                    rest += len(piece)
                    if b"message_stop" in piece or b'"stop_reason"' in piece or b"openclaw.egress" in piece:
                        break
                return int(status.split()[1]) if status else 0
        return 0

    async def unended(self, class_name: str, size: int, hold: float) -> int:
        """Send chunks of a body without its end, then wait. Return 1 if the proxy kept the connection open."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError, TimeoutError):
            async with self.connected(class_name) as (reader, writer):
                writer.write(self.head("Transfer-Encoding: chunked"))
                async with asyncio.timeout(hold):
                    for _ in range(size // 65536):
                        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                        await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), hold)
                    return 0
                return 1
        return 0


type Case = Callable[[Client], Coroutine[None, None, list[int]]]


async def _waiting_posts(client: Client) -> list[int]:
    sent = (client.post("sandbox", MIB, "x-standin-first-byte-ms: 6000") for _ in range(240))
    return await asyncio.gather(*sent)


async def _unended(client: Client) -> list[int]:
    return await asyncio.gather(*(client.unended("sandbox", 9 * MIB // 4, 6) for _ in range(176)))


async def _large_posts(client: Client) -> list[int]:
    return await asyncio.gather(*(client.post("sandbox", 5_000_000) for _ in range(100)))


async def _huge_posts(client: Client) -> list[int]:
    size = int(os.environ.get("CHAOS_HUGE_BYTES", "20000000"))
    return await asyncio.gather(*(client.post("sandbox", size) for _ in range(20)))


async def _unread_responses(client: Client) -> list[int]:
    fields = ("x-standin-body-bytes: 10000000",)
    return await asyncio.gather(*(client.post("sandbox", 1000, *fields, hold=5) for _ in range(100)))


async def _mixed(client: Client) -> list[int]:
    return await asyncio.gather(
        *(client.post(name, MIB, "x-standin-first-byte-ms: 4000") for name in fixtures.NOISY for _ in range(60)),
        *(client.unended(name, 9 * MIB // 4, 5) for name in fixtures.NOISY for _ in range(40)),
        *(
            client.post(name, 1000, "x-standin-body-bytes: 5000000", hold=4)
            for name in fixtures.NOISY
            for _ in range(30)
        ),
    )


CASES: dict[str, Case] = {
    "240 x 1 MiB waiting": _waiting_posts,
    "176 x 2.25 MiB unended": _unended,
    "100 x 5 MB": _large_posts,
    "20 x 20 MB": _huge_posts,
    "100 x 10 MB unread responses": _unread_responses,
    "two classes, bodies of each kind above": _mixed,
}


# ── the theme ────────────────────────────────────────────────────────────────────────────────────────────────────


def run(made: fixtures.Fixtures) -> Iterator[Result]:
    """Run each case against one proxy in a cgroup of 512 MB, while the class gateway makes calls."""
    try:
        cgroup = MemoryCgroup(LIMIT)
    except NoCgroup as error:
        print(f"memory: skipped: cannot create a memory cgroup: {error}", flush=True)
        return
    proxy = made.proxy("memory", EGRESS_MEMORY_WAIT_SECONDS=WAIT_SECONDS)
    proxy.prefix = cgroup.prefix
    _open_to_noisy(proxy)
    try:
        with proxy:
            yield reported("memory: the proxy without load", fixtures.megabytes(proxy), "MB")
            for name, case in CASES.items():
                yield from _under(name, case, proxy, cgroup)
                if proxy.process is not None and proxy.process.poll() is not None:
                    return
        yield exactly("memory: tracebacks in the log", proxy.log.count("Traceback"), "", 0)
    finally:
        cgroup.remove()


def _under(name: str, case: Case, proxy: RunningProxy, cgroup: MemoryCgroup) -> Iterator[Result]:
    fixtures.forget_peak(proxy)
    load, ended = Load(proxy), []
    thread = threading.Thread(target=lambda: ended.extend(asyncio.run(case(Client(proxy)))))
    with load.running():
        thread.start()
        thread.join()
    killed = cgroup.kills
    yield exactly(f"memory, {name}: OOM kills", killed, "", 0)
    if killed:
        return
    yield at_most(f"memory, {name}: peak", fixtures.megabytes(proxy, peak=True), "MB", LIMIT / 1e6)
    yield reported(f"memory, {name}: peak of the cgroup, with page cache", cgroup.peak, "MB")
    outcomes = Counter(ended)
    for outcome in (200, 503):
        yield reported(f"memory, {name}: ended with {outcome}", outcomes[outcome], "")
    yield at_least(
        f"memory, {name}: complete calls of class gateway during the load", len(load.responded), "calls", CALLS_AT_LEAST
    )
    yield exactly(f"memory, {name}: failed calls of class gateway", len(load.failed), "calls", 0)
    idle = fixtures.wait_until(lambda: _held(proxy) == 0, SETTLE_SECONDS)
    yield exactly(f"memory, {name}: budget is released", int(idle), "", 1)
    time.sleep(1.5)
    yield reported(f"memory, {name}: memory afterwards", fixtures.megabytes(proxy), "MB")


def _held(proxy: RunningProxy) -> int:
    report = proxy.ask("/readyz") or {"memory": {"used_bytes": -1}}
    return int(report["memory"]["used_bytes"])


def _open_to_noisy(proxy: RunningProxy) -> None:
    """Change the policy so that the noisy classes may reach the provider."""
    rule = json.dumps({"host": HOST, "ports": [proxy.provider_port]})
    text = proxy.policy_file.read_text()
    proxy.policy_file.write_text(text.replace('[{host: "*.example.com"', f'[{rule}, {{host: "*.example.com"'))
