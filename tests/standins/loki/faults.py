"""Faults that a test switches on: what a Loki, or what stands in front of it, does on a bad day.

In process `loki.faults.set(status=503, count=2)`, over HTTP `POST /standin/faults` with the same as JSON,
`DELETE /standin/faults` to end them all. A fault acts on pushes unless `path` names another beginning of a path.
"""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Fault:
    """What goes wrong. `count` requests, or all until it is cleared."""

    status: int | None = None
    # How many requests; None = until cleared.
    count: int | None = None
    # Seconds before the answer, right or wrong.
    delay_s: float = 0.0
    # Say nothing until faults are cleared, the stand-in stops, or five minutes pass.
    hang: bool = False
    # An HTML page, as a reverse proxy answers; with status 200 if none is given.
    html: bool = False
    # Cut the connection with a TCP reset.
    reset: bool = False
    # Store the push first, then go wrong: the acknowledgement is lost, not the data.
    after_storing: bool = False
    # 200 with an OTLP partial success that names so many rejected records. (Loki does not; other receivers do.)
    partial_rejected: int = 0
    # More headers of the faulty answer, such as Retry-After or Location.
    headers: dict[str, str] = field(default_factory=dict)
    # Records whose line matches are refused with 400 as poison; the others are kept, as Loki does.
    refuse_lines_matching: str | None = None
    # Which paths it acts on.
    path: str = "/otlp/v1/logs"

    @property
    def answers(self) -> bool:
        """It answers instead of Loki, rather than delaying or refusing single records."""
        return bool(self.status or self.html or self.reset or self.hang or self.partial_rejected)


class Faults:
    """The one fault that is on, or none. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._poison: re.Pattern[bytes] | None = None
        # Set whenever what hangs shall go on.
        self.released = threading.Event()

    def set(self, **what: Any) -> Fault:
        """Switch a fault on, in the place of what was on. ValueError on a name that is none."""
        unknown = set(what) - {f.name for f in fields(Fault)}
        if unknown:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        fault = Fault(**what)
        poison = re.compile(fault.refuse_lines_matching.encode()) if fault.refuse_lines_matching else None
        with self._lock:
            self.released.set()
            self.released = threading.Event()
            self._fault, self._poison = fault, poison
        return fault

    def clear(self) -> None:
        """Back to what Loki does; what hangs is let go."""
        with self._lock:
            self._fault = self._poison = None
            self.released.set()

    def take(self, path: str) -> Fault | None:
        """The fault for this request; counts it. The lines to refuse are not counted, they stay until cleared."""
        with self._lock:
            fault = self._fault
            if fault is None or not path.startswith(fault.path):
                return None
            if fault.count is None:
                return fault
            if fault.count <= 0:
                return None
            fault.count -= 1
            return fault

    @property
    def poison(self) -> re.Pattern[bytes] | None:
        """What a refused line looks like, if any."""
        with self._lock:
            return self._poison

    def state(self) -> dict[str, Any]:
        """What is on, as JSON would say it; {} = nothing."""
        with self._lock:
            return asdict(self._fault) if self._fault else {}
