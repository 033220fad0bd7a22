"""`make bench`: measure the cost of recording under load, compared to a stock mitmdump that records nothing.

    python -m tests.benchmarks.recording [--profile NAME]

Clients on loopback send requests over TLS and receive responses of 2 KB. On a machine with several CPUs, the measured
proxy has a CPU of its own. Compare only times of the same run. The table also shows the proxy's CPU time per
request, which depends less on other load on the machine than the requests per second. Writes build/recording.json;
exits with 1 if a goal is missed. `--profile` writes py-spy samples to build/NAME-….txt; py-spy must be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.llm_providers import make_certificates
from tests.support.proxy_process import RunningProxy, free_ports
from tests.support.results import Result, at_least, at_most, line, reported, write

ROUNDS = 3
SECONDS = 4
CLIENTS = 16
LOAD = [sys.executable, "-m", "tests.benchmarks.load"]
SIZES = {"4 KB": 4_000, "100 KB": 100_000}
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "word " * 360}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 900, "output_tokens": 400},
}


@dataclass(frozen=True)
class Load:
    """Requests per second, and microseconds of the proxy's CPU time for each request."""

    per_second: float
    cpu_us: float


def body(size: int) -> bytes:
    """Return a request body for Anthropic's Messages API: a system prompt, and messages with Unicode and escapes."""
    turn = {"role": "user", "content": [{"type": "text", "text": 'Read "/tmp/a.py"\n\tdef größe() -> None: …\n' * 20}]}
    request = {"model": "claude-sonnet-4-5", "max_tokens": 1024, "system": "You are an agent.", "messages": [turn]}
    while len(json.dumps(request)) < size:
        request["messages"] += [turn]  # type: ignore[operator]
    return json.dumps(request).encode()


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> Iterator[subprocess.Popen[bytes]]:
    """Yield the process. When the context exits, send it the signal ``how`` and wait until it ends."""
    try:
        yield process
    finally:
        process.send_signal(how)
        process.wait(30)


@contextlib.contextmanager
def provider(directory: Path, chain: Path, key: Path) -> Iterator[int]:
    """Run the provider. Yield its port."""
    answer = directory / "answer.json"
    answer.write_text(json.dumps(ANSWER))
    command = [*LOAD, "--provider", str(chain), str(key), str(answer)]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        pin(process.pid, 1)
        yield int(process.stdout.readline())


@contextlib.contextmanager
def stock(directory: Path, upstream_ca: Path) -> Iterator[tuple[int, int]]:
    """Run a mitmdump that records nothing. Yield its process id and port."""
    (port,) = free_ports(1)
    options = (f"confdir={directory / 'stock'}", f"ssl_verify_upstream_trusted_ca={upstream_ca}", "flow_detail=0")
    command = [Path(sys.executable).with_name("mitmdump"), "-q", "--mode", f"regular@127.0.0.1:{port}"]
    command += [word for option in options for word in ("--set", option)]
    with ended(subprocess.Popen(command)) as process:
        time.sleep(4)
        yield process.pid, port


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its threads so far (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(pid: int, proxy: str, url: str, file: Path, ca: Path) -> Load:
    """Send requests to a proxy for `SECONDS`. Measure the CPU time of its process `pid`."""
    before = cpu_seconds(pid)
    said = subprocess.run([*LOAD, str(CLIENTS), str(SECONDS), proxy, url, file, ca], check=True, stdout=subprocess.PIPE)
    used = cpu_seconds(pid) - before
    returned = json.loads(said.stdout)
    return Load(returned["requests"] / returned["seconds"], used / returned["requests"] * 1e6)


def pin(pid: int, processor: int) -> None:
    """Pin all threads of a process to one CPU if the machine has several."""
    if (os.cpu_count() or 1) > 1:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {processor})


def measure(profile: str | None) -> list[Result]:
    """Measure the proxies one after the other, and repeat this `ROUNDS` times. Return the results."""
    found: dict[tuple[str, str], list[Load]] = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ca, chain, key = make_certificates(directory)
        port = stack.enter_context(provider(directory, chain, key))
        bodies = {name: directory / str(size) for name, size in SIZES.items()}
        for name, file in bodies.items():
            file.write_bytes(body(SIZES[name]))
        proxies = {}
        for kind, settings in (("recording", {}), ("bodies off", {"EGRESS_BODIES": "none"})):
            (directory / kind).mkdir()
            running = stack.enter_context(RunningProxy(directory / kind, [port], ca, **settings))
            assert running.process is not None
            url = running.url("api.anthropic.com", "/v1/messages")
            proxies[kind] = (running.process.pid, running.proxy_url(), url, running.root)
        pid, own = stack.enter_context(stock(directory, ca))
        proxies["stock mitmdump"] = (
            pid,
            f"http://127.0.0.1:{own}",
            f"https://localhost:{port}/v1/messages",
            directory / "stock" / "mitmproxy-ca-cert.pem",
        )
        for pid, *_ in proxies.values():
            pin(pid, 0)
        pin(os.getpid(), 1)
        for _ in range(ROUNDS):
            for size, file in bodies.items():
                for kind, (pid, proxy, url, root) in proxies.items():
                    with profiled(pid, f"{profile}-{kind}-{size}".replace(" ", "-") if profile else None):
                        found.setdefault((size, kind), []).append(load(pid, proxy, url, file, root))
    return list(results(found))


@contextlib.contextmanager
def profiled(pid: int, name: str | None) -> Iterator[None]:
    """Sample a process with py-spy within the context. If ``name`` is None, do nothing."""
    if name is None:
        yield
        return
    Path("build").mkdir(exist_ok=True)
    command = [
        "py-spy",
        "record",
        "--rate",
        "200",
        "--pid",
        str(pid),
        "--format",
        "raw",
        "--output",
        f"build/{name}.txt",
    ]
    with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL), signal.SIGINT):
        yield


def results(found: dict[tuple[str, str], list[Load]]) -> Iterator[Result]:
    """Yield the median speed and the minimum CPU time of each proxy, and the ratios that have goals."""
    for size in SIZES:
        loads = {kind: runs for (of, kind), runs in found.items() if of == size}
        speed = {kind: statistics.median(run.per_second for run in runs) for kind, runs in loads.items()}
        cpu = {kind: min(run.cpu_us for run in runs) for kind, runs in loads.items()}
        for kind, per_second in speed.items():
            yield reported(f"{size}, {CLIENTS} clients, {kind}", per_second, "req/s")
            yield reported(f"{size}, {CLIENTS} clients, {kind}: processor time", cpu[kind], "us/req")
        goal = {"4 KB": 1.2, "100 KB": 1.0}[size]
        yield at_least(f"{size}: recording against stock", speed["recording"] / speed["stock mitmdump"], "times", goal)
        extra = (cpu["recording"] / cpu["bodies off"] - 1) * 100
        yield at_most(f"{size}: processor time of bodies", extra, "%", 15)


def main() -> int:
    """Run the benchmark. Print the results and write them to a file. Return the exit code."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--profile", metavar="NAME", help="sample the proxies with py-spy, which must be installed separately"
    )
    arguments = parser.parse_args()
    measured = measure(arguments.profile)
    for result in measured:
        print(line(result))
    return write(measured, Path("build/recording.json"))


if __name__ == "__main__":
    sys.exit(main())
