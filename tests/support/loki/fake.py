"""The Loki fake that tests start. It combines the store, the injected faults and the HTTP server."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Self

from .entries import Entry, shown, streams
from .faults import Faults
from .limits import Limits, summary
from .server import Server
from .store import Store, as_labels
from .wire import Resource


@dataclass(frozen=True)
class Push:
    """A request to /otlp/v1/logs with its response, for assertions. `status` is 0 if the connection was aborted."""

    status: int
    message: str
    records: int
    bytes: int
    headers: dict[str, str]


class FakeLoki:
    """A fake of Loki's HTTP API, on loopback by default; not the real Loki.

    with FakeLoki() as loki: … loki.url, loki.faults, loki.pushes, loki.lines(service="openclaw-proxy")
    """

    def __init__(
        self,
        port: int = 0,
        listen: str = "127.0.0.1",
        data: Path | None = None,
        limits: Limits | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
        config: str | None = None,
        copy_to: str | None = None,
    ) -> None:
        self.store = Store(limits, now_ns, clock, data)
        self.faults = Faults()
        self.pushes: list[Push] = []
        self._listen = listen
        # URL of another OTLP destination, to which the fake forwards accepted pushes unmodified.
        self._copy_to = copy_to
        self._server = Server((listen, port), self)
        self.port: int = self._server.server_address[1]
        self.url = f"http://{listen}:{self.port}"
        # Response of GET /config; a test may replace it.
        self.config = self._default_config(listen)
        if config:
            self.configure(config)
        self._thread: threading.Thread | None = None

    def configure(self, config: str) -> None:
        """Apply the text of a configuration file, as if the fake were started with it. `GET /config` then returns it.

        Like Loki, omit `allow_structured_metadata` from the response if it is false.
        """
        allowed = bool(re.search(r"(?m)^\s+allow_structured_metadata:\s*true\b", config))
        if not allowed:
            config = re.sub(r"(?m)^\s+allow_structured_metadata:.*\n?", "\n", config)
        # Loki returns the effective configuration, which contains `limits_config` even if the file does not.
        shown = "" if re.search(r"(?m)^limits_config:", config) else "limits_config:\n  retention_period: 0s\n"
        self.config = config + shown
        tenants = bool(re.search(r"(?m)^auth_enabled:\s*true\b", config))
        self.store.limits = replace(self.store.limits, structured_metadata=allowed, auth_enabled=tenants)

    def _default_config(self, listen: str) -> str:
        text = Path(__file__).with_name("config.yaml").read_text()
        text = re.sub(r"(http_listen_address:).*", rf"\1 {listen}", text)
        if not self.store.limits.structured_metadata:
            text = re.sub(r"(?m)^ +allow_structured_metadata:.*\n", "", text)
        if self.store.limits.auth_enabled:
            text += "auth_enabled: true\n"
        return re.sub(r"(http_listen_port:).*", rf"\1 {self.port}", text)

    def push(self, resources: list[Resource]) -> tuple[int, str]:
        """Store the records of a push, except those that a fault or Loki's limits refuse.

        Return (204, "") if all records are stored, otherwise the status and message of the error.
        """
        poison = self.faults.poison
        found = streams(resources, self.store.now_ns())
        refused: list[str] = []
        if poison is not None:
            kept: list[tuple[dict[str, str], list[Entry]]] = []
            for labels, entries in found:
                good = [entry for entry in entries if not poison.search(entry.line)]
                refused += ["refused by a fault: the line matches"] * (len(entries) - len(good))
                if good:
                    kept.append((labels, good))
            if refused and not kept:
                return 400, summary(refused)
            found = kept
        status, message = self.store.push(found)
        return (
            (400, summary([*refused, *([message] if message else [])]))
            if refused and status < 429
            else (status, message)
        )

    def copied(self, body: bytes, kind: str, encoding: str) -> bool:
        """Forward a push to the URL `copy_to`, if it is set. Return False if that destination did not accept it."""
        if self._copy_to is None:
            return True
        headers = {"Content-Type": kind} | ({"Content-Encoding": encoding} if encoding else {})
        try:
            urllib.request.urlopen(urllib.request.Request(self._copy_to, body, headers), timeout=10).close()
        except OSError:
            return False
        return True

    def note(self, status: int, message: str, records: int, body: bytes, headers: Message) -> None:
        """Add a push and its response to `pushes`, which holds at most the last 10,000 pushes."""
        self.pushes.append(Push(status, message, records, len(body), dict(headers.items())))
        del self.pushes[:-10_000]

    def records(self, service: str | None = None) -> list[tuple[int, str, dict[str, str]]]:
        """Return (time in ns, line, labels and metadata) of all accepted records, in order of arrival per stream."""
        return [
            (entry.time_ns, shown(entry.line), as_labels(labels, entry))
            for labels, entry in self.store.everything()
            if service in (None, labels.get("service_name"))
        ]

    def lines(self, service: str | None = None) -> list[str]:
        """Return the lines of all accepted records, including lines that queries do not find yet."""
        return [line for _, line, _ in self.records(service)]

    def start(self) -> Self:
        """Start the HTTP server in a thread."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving: close the port, abort connections, release hanging requests."""
        self.faults.clear()
        self._server.shutdown()
        self._server.server_close()
        if self._thread is not None:
            self._thread.join()

    def restart(self) -> Self:
        """Start again after stop(), on the same port and with the same records."""
        self._server = Server((self._listen, self.port), self)
        return self.start()

    def serve_forever(self) -> None:
        """Serve until interrupted."""
        self._server.serve_forever()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
