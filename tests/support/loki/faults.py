"""Faults that a test enables: failures of Loki, or of a reverse proxy in front of it.

Enable a fault with `loki.faults.set(status=503, count=2)` or with `POST /standin/faults` and the same as JSON;
clear all with `DELETE /standin/faults`. A fault acts on pushes unless `path` names another path prefix.
"""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Fault:
    """One fault for `count` requests, or until it is cleared."""

    status: int | None = None
    # Number of requests; None = until cleared.
    count: int | None = None
    # Seconds of delay before the response, even if the response is not faulty.
    delay_s: float = 0.0
    # Send no response until faults are cleared, the fake stops, or five minutes pass.
    hang: bool = False
    # Respond with an HTML page, as a reverse proxy does; status 200 by default.
    html: bool = False
    # Abort the connection with a TCP reset.
    reset: bool = False
    # Store the push, then fail: the acknowledgement is lost, not the data.
    after_storing: bool = False
    # Respond 200 with an OTLP partial success that rejects N records, as receivers other than Loki can do.
    partial_rejected: int = 0
    # Extra headers of the faulty response, such as Retry-After or Location.
    headers: dict[str, str] = field(default_factory=dict)
    # If a record's line matches this pattern, refuse that record with 400 and store the others, as Loki does.
    refuse_lines_matching: str | None = None
    # Path prefix on which the fault acts.
    path: str = "/otlp/v1/logs"

    @property
    def answers(self) -> bool:
        """Return whether the fault replaces the response. Other faults only delay it, or refuse single records."""
        return bool(self.status or self.html or self.reset or self.hang or self.partial_rejected)


class Faults:
    """The active fault, or none. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._poison: re.Pattern[bytes] | None = None
        # Setting this event releases the requests that hang.
        self.released = threading.Event()

    def set(self, **what: Any) -> Fault:
        """Replace the active fault. Raise ValueError for an unknown name."""
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
        """Clear the fault and release hanging requests."""
        with self._lock:
            self._fault = self._poison = None
            self.released.set()

    def take(self, path: str) -> Fault | None:
        """Return the fault that applies to this request, or None, and decrement its remaining count.

        The pattern `refuse_lines_matching` ignores the count: it applies until the fault is cleared.
        """
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
        """Return the pattern of the lines to refuse, or None."""
        with self._lock:
            return self._poison

    def state(self) -> dict[str, Any]:
        """Return the active fault as JSON values; {} if there is none."""
        with self._lock:
            return asdict(self._fault) if self._fault else {}
