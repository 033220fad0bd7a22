"""The exporter: a thread that brings the spool's lines to the store, at least once, in order.

It never waits for anything that traffic waits for, and never gives up: what the store does not take now is tried again
with growing pauses, for ever. What it will never take (poison) is found by halving the push, since an answer does not
say which record it means, and set aside as a dead letter; halving is safe, as the store keeps the good records of a
push that it refused and recognises them when they come again. A store that refuses because of a setting says nothing
about the records: they wait, and `Exporter.state` says what to mend.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from openclaw_egress.otlp import assemble
from openclaw_egress.push import Answer, Sender, Verdict
from openclaw_egress.redaction import redact_url
from openclaw_egress.spool import Spool, SpoolError, StoredRecord

log = logging.getLogger("openclaw_egress.export")

MAX_PUSH_BYTES = 2_000_000
"""A stock Loki takes a burst of 6 MB and 4 MB/s; what is larger than its burst it refuses for ever, as 429."""
MIN_PUSH_BYTES = 16_000
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
IDLE_SECONDS = 1.0
MAX_BURIED_IN_A_ROW = 10
"""After so many dead letters with nothing accepted in between, it may be the store that is wrong: go slowly."""

_OLDEST = re.compile(r"oldest acceptable timestamp is: (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")


class ExportSettings(Protocol):
    """What of the settings the exporter needs; the rest it reads from ``OTEL_EXPORTER_OTLP_*``."""

    @property
    def logs_endpoint(self) -> str:
        """The store's URL; empty: there is none."""


class Exporter:
    """Sends what waits in the spool.

    Args:
        spool: where the lines are.
        settings: names the endpoint; where it is empty nothing is sent.
        environ: where ``OTEL_EXPORTER_OTLP_*`` are, by default the process's environment.
        max_push_bytes: largest push, before compression.
        max_pause: longest pause between attempts, in seconds (a store's ``Retry-After`` may say more).
        jitter: a number in [0, 1), by which each pause is multiplied.
    """

    def __init__(
        self,
        spool: Spool,
        settings: ExportSettings,
        *,
        environ: Mapping[str, str] | None = None,
        max_push_bytes: int = MAX_PUSH_BYTES,
        max_pause: float = MAX_PAUSE_SECONDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._spool = spool
        self._endpoint = settings.logs_endpoint
        self._environ = os.environ if environ is None else environ
        self._max_push = self._push_limit = max_push_bytes
        self._max_pause = max_pause
        self._jitter = jitter
        self._stopping = threading.Event()
        self._deadline = 0.0
        self._thread: threading.Thread | None = None
        self._status = "idle" if self._endpoint else "local"
        self._problem = Answer(Verdict.ACCEPTED)
        self._failures = self._buried_in_a_row = self._pushed_records = self._pushed_bytes = self._dead_letters = 0
        self._retry_after: float | None = None
        self._last_success: float | None = None
        self._oldest_ns: int | None = None

    def start(self) -> None:
        """Begin to send, if there is a store."""
        if self._endpoint and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="exporter", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Send what can be sent within ``timeout`` seconds, and end; what remains waits in the spool."""
        self._deadline = time.monotonic() + timeout
        self._stopping.set()
        self._spool.committed.set()
        if self._thread is not None:
            self._thread.join(timeout)

    @property
    def state(self) -> dict[str, Any]:
        """For ``/readyz``, ``status`` and metrics.

        ``status`` is ``local`` (no store), ``idle``, ``ok``, ``retrying`` or ``misconfigured``; ``last_error`` is
        ``None`` unless the last attempt failed; times are Unix seconds.
        """
        stats = self._spool.stats()
        # Read once: the exporter's thread goes on meanwhile.
        oldest_ns = self._oldest_ns
        failed = self._status in ("retrying", "misconfigured")
        return {
            "status": self._status,
            "endpoint": redact_url(self._endpoint) if self._endpoint else None,
            "last_success": self._last_success,
            "last_error": self._problem.message if failed else None,
            "remedy": self._problem.remedy if failed else None,
            "failures_in_a_row": self._failures,
            "pushed_records": self._pushed_records,
            "pushed_bytes": self._pushed_bytes,
            "dead_letters": self._dead_letters,
            "push_limit_bytes": self._push_limit,
            "backlog_records": stats["pending_records"],
            "backlog_bytes": stats["pending_bytes"],
            "backlog_seconds": 0.0 if oldest_ns is None else max(0.0, time.time() - oldest_ns / 1e9),
        }

    def _run(self) -> None:
        sender = self._make_sender()
        if sender is None:
            return
        while True:
            self._spool.committed.clear()
            going_on = self._round(sender)
            if self._stopping.is_set():
                if not going_on or time.monotonic() >= self._deadline:
                    break
            elif going_on is False:
                self._stopping.wait(self._pause())
            elif going_on is None:
                self._spool.committed.wait(IDLE_SECONDS)
        sender.close()

    def _make_sender(self) -> Sender | None:
        try:
            return Sender(self._endpoint, self._environ)
        except (ValueError, OSError) as error:
            self._failed("misconfigured", Answer(Verdict.MISCONFIGURED, f"the exporter cannot start: {error}"))
            return None

    def _round(self, sender: Sender) -> bool | None:
        """Send the next push: whether it went through, ``None`` where nothing waits."""
        try:
            waiting = self._spool.pending(self._push_limit)
            self._oldest_ns = waiting[0].time_ns if waiting else None
            return self._deliver(sender, waiting) if waiting else None
        except SpoolError as error:
            self._failed("retrying", Answer(Verdict.RETRY, str(error)))
        except Exception as error:
            log.exception("the exporter stumbled; it goes on")
            self._failed("retrying", Answer(Verdict.RETRY, f"{type(error).__name__}: {error}"))
        return False

    def _deliver(self, sender: Sender, records: Sequence[StoredRecord]) -> bool:
        """Bring these records to the store, or to the dead letters; ``False``: pause, some still wait."""
        if self._stopping.is_set() and time.monotonic() >= self._deadline:
            return False
        push = assemble((record.resource, record.otlp) for record in records)
        answer = sender.send(push)
        if answer.verdict is Verdict.ACCEPTED:
            self._succeeded(records, len(push))
            return True
        if answer.verdict in (Verdict.RETRY, Verdict.MISCONFIGURED):
            if answer.status == 429:
                self._push_limit = max(MIN_PUSH_BYTES, len(push) // 2)  # what is above the burst is 429 for ever
            self._failed("retrying" if answer.verdict is Verdict.RETRY else "misconfigured", answer)
            return False
        self._push_limit = max(MIN_PUSH_BYTES, len(push) // 2)
        if answer.verdict is Verdict.REFUSED and (old := _too_old(answer.message, records)):
            self._bury(old, f"{_reason(answer.message)}: {answer.message}")
            rest = records[len(old) :]
            return self._deliver(sender, rest) if rest else True
        if len(records) > 1:
            half = len(records) // 2
            return self._deliver(sender, records[:half]) and self._deliver(sender, records[half:])
        return self._refused(records, answer)

    def _refused(self, records: Sequence[StoredRecord], answer: Answer) -> bool:
        """One record alone was refused."""
        reason = "too_large" if answer.verdict is Verdict.TOO_LARGE else _reason(answer.message)
        if reason == "too_new":
            self._failed("retrying", Answer(Verdict.RETRY, answer.message, "do the clocks here and there agree?"))
            return False
        self._bury(records, f"{reason}: {answer.message}")
        if reason in ("too_old", "too_far_behind"):
            return True
        self._buried_in_a_row += 1
        if self._buried_in_a_row < MAX_BURIED_IN_A_ROW:
            return True
        remedy = "the store refuses one record after the other: is it the right one? See `egress status`"
        self._failed("misconfigured", Answer(Verdict.MISCONFIGURED, answer.message, remedy))
        return False

    def _bury(self, records: Sequence[StoredRecord], why: str) -> None:
        self._spool.dead_letter([record.seq for record in records], why)
        self._dead_letters += len(records)
        log.error("%d lines from %d on are dead letters: %s", len(records), records[0].seq, why)

    def _succeeded(self, records: Sequence[StoredRecord], size: int) -> None:
        self._spool.acknowledge([record.seq for record in records])
        if self._status in ("retrying", "misconfigured"):
            log.warning("the store takes records again, after %d failures", self._failures)
        self._status = "ok"
        self._failures = self._buried_in_a_row = 0
        self._retry_after = None
        self._push_limit = min(self._max_push, self._push_limit * 2)
        self._pushed_records += len(records)
        self._pushed_bytes += size
        self._last_success = time.time()

    def _failed(self, status: str, problem: Answer) -> None:
        # Once for each kind of trouble: a store that is down for a night must not fill the log.
        if (status, problem.remedy) != (self._status, self._problem.remedy) or self._failures == 0:
            log.warning(
                "records wait in the spool: %s%s", problem.message, f" ({problem.remedy})" * bool(problem.remedy)
            )
        self._status, self._problem = status, problem
        self._failures += 1
        self._retry_after = problem.retry_after

    def _pause(self) -> float:
        """Exponential, with full jitter; at least what the store asked for."""
        longest = min(self._max_pause, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 16))
        return max(longest * self._jitter(), self._retry_after or 0.0)


def _reason(message: str) -> str:
    """Why a store refuses, as a word: by Loki's messages."""
    for words, reason in (
        ("timestamp too new", "too_new"),
        ("timestamp too old", "too_old"),
        ("too far behind", "too_far_behind"),
        ("max entry size", "line_too_long"),
        ("structured metadata", "too_much_metadata"),
    ):
        if words in message:
            return reason
    return "refused"


def _too_old(message: str, records: Sequence[StoredRecord]) -> Sequence[StoredRecord]:
    """The records at the beginning of a push that are older than the oldest time that the store said it takes.

    An outage of days leaves thousands of them; one answer tells of all. Only where they are of one stream: how far
    behind a record may be is a matter of its stream.
    """
    found = _OLDEST.search(message)
    if not found or len({record.resource for record in records}) != 1:
        return ()
    oldest = int(datetime.fromisoformat(found.group(1)).replace(tzinfo=UTC).timestamp()) * 1_000_000_000
    return [record for record in records if record.time_ns < oldest]
