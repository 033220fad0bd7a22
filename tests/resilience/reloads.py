"""Theme reloads: the policy changes a hundred times under load, and some of the policies are invalid.

The proxy must drop no connection, and must apply the last valid policy.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from openclaw_egress.recording import semconv
from tests.integration.proxy.raw import connect, connected, exchange, read_head, status_of, tls
from tests.resilience import fixtures
from tests.resilience.load import compared, warm
from tests.support.proxy_process import RunningProxy, free_ports
from tests.support.results import Result, at_least, at_most, exactly

RELOADS = 100
PACE_SECONDS = 0.3
"""Seconds between writes. The proxy checks the file once per second, so it does not load every policy."""
SEEN_AT_LEAST = 20
GOAL_MEDIAN = 2.0
BREAKS = ("enforce|enfroce", "version: 1|version: 1\n  - what", "inspect|inspects", "*.example.com|*.*.com")
"""Edits that make the policy invalid, each in the form `TEXT|REPLACEMENT`."""


@dataclass
class Tunnel:
    """A client that sends requests continuously on one connection through a tunnel."""

    responded: int = 0
    dropped: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, proxy: RunningProxy, ca: Path) -> None:
        """Send requests until the theme or the connection ends."""
        host = f"www.example.com:{proxy.provider_port}"
        with connected(proxy.ports["browser"]) as sock:
            connect(sock, host)
            with tls(sock, "www.example.com", ca) as secured:
                while not self.stop.wait(0.1):
                    try:
                        secured.sendall(f"HEAD / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                        responded = status_of(read_head(secured)) == 200
                    except OSError:
                        responded = False
                    if not responded:
                        self.dropped += 1
                        return
                    self.responded += 1


def run(made: fixtures.Fixtures) -> Iterator[Result]:
    """Reload policies while tunnels and calls are in progress."""
    assert made.providers.ca_file is not None
    proxy = made.proxy("reloads")
    with proxy, made.proxy("no-reloads") as control:
        warm(proxy, control)
        tunnel = Tunnel()
        thread = threading.Thread(target=tunnel.run, args=(proxy, made.providers.ca_file), daemon=True)
        thread.start()
        with compared(proxy, control) as (load, quiet):
            good = storm(proxy)
        fixtures.wait_until(lambda: (proxy.ask("/readyz") or {}).get("problems"), 10)
        tunnel.stop.set()
        thread.join(30)
        yield at_least("reloads: calls during the reloads", len(load.started), "calls", 100)
        yield exactly("reloads: calls that failed", len(load.failed), "calls", 0)
        yield exactly("reloads: calls not recorded exactly once", len(load.not_kept_once()), "calls", 0)
        yield at_most("reloads: median latency", load.median / quiet.median, "times", GOAL_MEDIAN)
        yield at_least("reloads: requests on one tunnel", tunnel.responded, "requests", 50)
        yield exactly("reloads: tunnels dropped", tunnel.dropped, "", 0)
        events = [row for row in proxy.rows() if row.event_name == semconv.EVENT_POLICY]
        yield at_least(f"reloads: loaded or refused policies, of {RELOADS} written", len(events) - 1, "", SEEN_AT_LEAST)
        refused = sum(row.reason is not None for row in events)
        yield at_least("reloads: refused policies", refused, "", len(BREAKS))
        report = proxy.ask("/readyz") or {}
        yield exactly("reloads: the last valid policy is in force", int(report.get("policy") == good), "", 1)
        yield exactly("reloads: the invalid policy is reported", len(report.get("problems", [])), "", 1)
        answer = exchange(
            proxy.ports["sandbox"], b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"
        )
        yield exactly("reloads: status of a request that no policy allowed", status_of(answer), "", 403)
    yield exactly("reloads: tracebacks in the log", proxy.log.count("Traceback"), "", 0)


def storm(proxy: RunningProxy) -> str:
    """Write `RELOADS` policies. Every fourth one is invalid, including the last. Return the last valid one's digest.

    The sandbox's listener alternates between two ports. Writes with an odd number change the file in place, and those
    with an even number replace it.
    """
    text, digest = proxy.policy_file.read_text(), ""
    ports = [proxy.ports["sandbox"], *free_ports(1)]
    for number in range(1, RELOADS + 1):
        port = ports[number % 2]
        changed = text.replace(f"listen: {ports[0]}", f"listen: {port}") + f"# {number}\n"
        broken = number % 4 == 0
        if broken:
            wrong, by = BREAKS[number // 4 % len(BREAKS)].split("|")
            changed = changed.replace(wrong, by)
            assert by in changed
        else:
            digest = hashlib.sha256(changed.encode()).hexdigest()[:12]
            proxy.ports["sandbox"] = port
        if number % 2:
            proxy.policy_file.write_text(changed)
        else:
            new = proxy.policy_file.with_suffix(".new")
            new.write_text(changed)
            new.replace(proxy.policy_file)
        # Give the proxy enough time to load the last valid policy before the final, invalid policy replaces it.
        time.sleep(2.5 if number == RELOADS - 1 else PACE_SECONDS)
    return digest
