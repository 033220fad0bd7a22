"""The open listeners of the running proxy. A new policy can add and remove listeners."""

from __future__ import annotations

import concurrent.futures
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from openclaw_egress.app.listeners import ListenError, check_listeners, check_ports
from openclaw_egress.policy.model import Policy, PolicyError
from openclaw_egress.settings import Settings

log = logging.getLogger("openclaw_egress")

LISTEN_SECONDS = 10.0
"""Timeout for a change of listeners, and the delay between a failed change and the next attempt, in seconds."""

type ApplyListeners = Callable[[Mapping[int, str]], Future[None]]
"""A function that opens and closes listeners until exactly those in its argument (class names by port) are open.

If a listener cannot open, the open listeners stay unchanged, and the future raises ListenError.
"""


class OpenListeners:
    """The listeners of the policy in force, and those of earlier policies that may still be open."""

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        self.apply: ApplyListeners | None = None
        """Function of the launcher that changes listeners at run time, or None. The housekeeping thread calls it."""
        self.problem: str | None = None
        """The reason why a dropped listener may still be open, or None."""
        self._settings = settings
        self._stopping = stopping
        self._dropped: Mapping[int, str] = {}
        """The dropped listeners: those that the policy in force no longer has, but that may still be open.

        The mapping contains class names by port.
        """
        self._next_close = math.inf
        """Time of the next attempt to close the dropped listeners."""

    def check(self, current: Policy, new: Policy) -> None:
        """Check that the listeners of a new policy can open.

        Raises:
            PolicyError: the new policy has other listeners, and this proxy cannot change listeners at run time.
            SettingsError: a class uses the health port or the metrics port.
            ListenError: a listener cannot open.
        """
        if self.apply is None and _ports(new).keys() != _ports(current).keys():
            file = str(self._settings.policy_file)
            raise PolicyError(
                file,
                None,
                "the new policy has different listeners, and this proxy cannot change them at run time",
                "restart it",
            )
        check_ports(self._settings, new)
        if self.apply is not None:
            open_now = self._dropped.keys() | _ports(current).keys()
            added = [(found.name, found.listen) for found in new.classes.values() if found.listen not in open_now]
            check_listeners(self._settings, added)

    def open(self, current: Policy, new: Policy) -> None:
        """Open the listeners that a new policy adds. Call this before the policy is in force.

        Raises:
            ListenError: a listener cannot open.
        """
        if _ports(new).keys() - _ports(current).keys():
            self._listen(_ports(current) | _ports(new))

    def close(self, previous: Policy, current: Policy) -> None:
        """Close the listeners that the policy in force no longer has."""
        dropped = {**self._dropped, **_ports(previous)}
        self._dropped = {port: name for port, name in dropped.items() if port not in _ports(current)}
        if self.apply is not None and _ports(current).keys() != _ports(previous).keys():
            self._close_dropped(current)

    def retry_close(self, current: Policy) -> None:
        """Try again to close dropped listeners that are still open, once `_next_close` is reached."""
        if self.problem is not None and time.monotonic() >= self._next_close:
            self._close_dropped(current)

    def _close_dropped(self, current: Policy) -> None:
        """Close the dropped listeners. If this fails, set `problem`, which `Readiness.ready` reports."""
        self._next_close = time.monotonic() + LISTEN_SECONDS
        try:
            self._listen(_ports(current))
        except ListenError as error:
            ports = ", ".join(f"{port} (class {name})" for port, name in sorted(self._dropped.items()))
            problem = (
                f"the policy in force no longer has the listeners {ports}, but they may still be open: {error}. "
                f"The proxy tries to close them every {LISTEN_SECONDS:g} s; a restart closes them too."
            )
            if problem != self.problem:
                log.error("%s", problem)
            self.problem = problem
            return
        self._dropped, self.problem = {}, None

    def _listen(self, ports: Mapping[int, str]) -> None:
        """Open and close listeners until exactly those in ``ports`` are open. If this fails, change no listener.

        Raises:
            ListenError: a listener cannot open.
        """
        if self.apply is None:
            return
        try:
            applied = self.apply(ports)
            end = time.monotonic() + LISTEN_SECONDS
            # Check `_stopping` while waiting: during `Service.stop`, the event loop waits for this thread, so the
            # change would never finish.
            while not applied.done() and time.monotonic() < end and not self._stopping.is_set():
                concurrent.futures.wait([applied], timeout=0.2)
            if not applied.done():
                applied.cancel()
            applied.result(timeout=0)
        except ListenError:
            raise
        except (Exception, concurrent.futures.CancelledError) as error:
            raise ListenError(f"the listeners cannot be changed: {type(error).__name__}: {error}") from error


def _ports(policy: Policy) -> dict[int, str]:
    return {item.listen: item.name for item in policy.classes.values()}
