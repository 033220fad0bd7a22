"""Faults that a test enables: failures of Loki, or of a reverse proxy in front of it.

Enable a fault with `loki.faults.set(status=503, count=2)`, or send the same values as JSON to `POST /standin/faults`.
Clear it with `DELETE /standin/faults`. A fault affects pushes unless `path` names another path prefix.
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
    # Number of requests that the fault affects. None means all requests until the fault is cleared.
    count: int | None = None
    # Seconds of delay before the response. A fault can be nothing but a delay.
    delay_s: float = 0.0
    # Send no response. Close the connection when the fault is cleared, the fake stops, or five minutes have passed.
    hang: bool = False
    # Respond with an HTML page, as a reverse proxy does. The default status is 200.
    html: bool = False
    # Abort the connection with a TCP reset.
    reset: bool = False
    # Store the push before the fault acts, so that only the acknowledgement is lost.
    after_storing: bool = False
    # Respond 200 with an OTLP partial success that rejects this number of records. Loki does not do so, but other
    # receivers can.
    partial_rejected: int = 0
    # Extra headers of the faulty response, such as Retry-After or Location.
    headers: dict[str, str] = field(default_factory=dict)
    # If a record's line matches this pattern, refuse that record with 400 and store the others, as Loki does.
    refuse_lines_matching: str | None = None
    # The fault affects requests whose path begins with this prefix.
    path: str = "/otlp/v1/logs"

    @property
    def answers(self) -> bool:
        """Return whether the fault replaces the response. Other faults only delay the response or refuse records."""
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
        """Replace the active fault, and release hanging requests. Raise ValueError for an unknown field name."""
        unknown = set(what) - {f.name for f in fields(Fault)}
        if unknown:
            raise ValueError(f"unknown fault: {', '.join(sorted(unknown))}")
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
        """Decrement the count of the fault that applies to this request. Return the fault, or None if none applies.

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
        """Return the fields of the active fault for a JSON response; {} if no fault is active."""
        with self._lock:
            return asdict(self._fault) if self._fault else {}
