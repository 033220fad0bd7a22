"""The housekeeping loop: CA renewal, reloads, summaries of denials, deletion of old lines, and checkpoints."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from openclaw_egress.app.ca_reloader import CAReloader
from openclaw_egress.app.decision_log import DecisionLog
from openclaw_egress.app.policy_reloader import PolicyReloader
from openclaw_egress.spool.writer import Spool, SpoolError

log = logging.getLogger("openclaw_egress")

CHECKPOINT_SECONDS = 300.0
"""Interval between checkpoints, in seconds.

A checkpoint writes the number and the hash of the newest line to the records, the log and the metrics.
"""


class Housekeeping:
    """The housekeeping thread. It runs its tasks each second, and immediately after :meth:`wake`."""

    def __init__(
        self,
        policies: PolicyReloader,
        ca: CAReloader,
        decisions: DecisionLog,
        spool: Spool,
        stopping: threading.Event,
    ) -> None:
        self._policies = policies
        self._ca = ca
        self._decisions = decisions
        self._spool = spool
        self._stopping = stopping
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._checkpoint = spool.head()
        self._was_full = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the thread run its tasks now. Safe in a signal handler."""
        self._wake.set()

    def stop(self) -> None:
        """Stop the thread, and wait at most 5 s for it. If it was running, summarise the remaining denials."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
            self._decisions.summarise_denials(everything=True)

    def _run(self) -> None:
        next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS
        while True:
            self._wake.wait(1.0)
            if self._stopping.is_set():
                return
            self._wake.clear()
            for task in (
                self._renew_ca,
                self._policies.reload_ca,
                self._policies.reload_policy,
                self._decisions.summarise_denials,
                self._expire,
            ):
                self._do(task)
            if time.monotonic() >= next_checkpoint:
                next_checkpoint += CHECKPOINT_SECONDS
                self._do(self._write_checkpoint)
            self._do(self._log_full)

    def _do(self, task: Callable[[], None]) -> None:
        """Run one housekeeping task. A failing task does not stop the others."""
        try:
            task()
        except SpoolError as error:
            log.debug("%s", error)  # log this only at debug level, because the spool itself logs the cause
        except Exception as error:
            log.error("housekeeping: %s failed", task.__name__.strip("_"), exc_info=error)

    def _renew_ca(self) -> None:
        self._ca.renew(self._policies.current.inspect)

    def _expire(self) -> None:
        """Delete one batch of expired lines. One small batch per second hardly delays traffic."""
        self._spool.expire()

    def _write_checkpoint(self) -> None:
        if self._spool.head() == self._checkpoint:
            return
        seq, digest = self._spool.checkpoint()
        self._checkpoint = self._spool.head()
        log.info("checkpoint: %d lines, the last one sha256:%s", seq, digest)

    def _log_full(self) -> None:
        """Log once when the spool is full and the proxy starts to refuse exchanges, and once when there is space again.

        With EGRESS_SPOOL_FULL=drop_oldest, this never happens.
        """
        full = self._spool.full
        if full != self._was_full:
            self._was_full = full
            if full:
                log.error(
                    "exchanges are refused until they can be recorded again: the spool is full "
                    "(EGRESS_SPOOL_FULL=block); `egress status` shows the backlog; to enlarge the spool, "
                    "raise EGRESS_SPOOL_MAX_BYTES"
                )
            else:
                log.info("the spool has space again: exchanges are accepted")
