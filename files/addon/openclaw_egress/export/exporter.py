"""The exporter: a thread that sends the spool's lines to the destination, at least once, in order.

The exporter never delays traffic. After a failure it retries forever, with growing pauses.

A record that the destination will never accept becomes a dead letter. The response to a refused push does not reliably
identify that record, so the exporter halves the push until the record is alone. Halving is safe: the destination stores
the valid records of a refused push and ignores them when they are sent again. If a setting causes the refusal, the
records wait in the spool, and `Exporter.state` says what to fix.

Five rules follow from Loki's behaviour:

1. The records of a push span at most 30 minutes. Loki stores the valid records of a refused push, and it refuses
   records that are one hour older than the newest record of their stream. With a longer span, the stored records could
   make the older ones too old for the retry.
2. After repeated failures with any status the exporter halves the push. A push that is too large can fail every time,
   with 413, 429, 500, 503, a timeout or a reset. The next push starts at the size that was accepted.
3. A line that fails when sent alone is dead-lettered only if the destination accepts a small probe after each failure.
   While the destination accepts nothing, every line waits.
4. A line whose time is too far ahead of the destination's clock waits until the destination accepts that time. Lines
   with earlier times are sent first, even if they are committed later.
5. The exporter keeps a pace below Loki's rate limits (see `pace`). It sends lines in the order of their timestamps, so
   a new line waits until the backlog is sent: Loki refuses lines that are one hour older than the newest line of their
   stream.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from openclaw_egress.export.drain import DrainLog
from openclaw_egress.export.otlp_client import Cause, PushResult, Sender, Verdict
from openclaw_egress.export.pace import Pace
from openclaw_egress.recording.otlp import assemble, make_probe
from openclaw_egress.recording.redaction import redact_url
from openclaw_egress.spool.writer import Spool, SpoolError, StoredRecord

log = logging.getLogger("openclaw_egress.export")

MAX_PUSH_BYTES = 2_000_000
"""Maximum size of a push in bytes (sum of `StoredRecord.size`). Loki's defaults: 4 MiB per message, 4 MB/s."""
MAX_PUSH_SPAN_NS = 30 * 60 * 10**9
MIN_PUSH_BYTES = 1
"""Lowest push limit. A push always contains at least one line, so with this limit lines are sent one at a time."""
GROWTH = 8
"""After each accepted push of at least half the push limit, the limit grows by 1/GROWTH."""
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
IDLE_SECONDS = 1.0
THROTTLED_IN_A_ROW = 4
"""Number of successive responses with status 429 that count as a problem. Fewer only slow the export.

One is a problem if its ``Retry-After`` is longer than `MAX_PAUSE_SECONDS`, or if another failure is already reported.
"""
FAILURES_ALONE = 3
"""After this many failures of a line that is sent alone, the exporter probes the destination."""
STRIKES = 5
"""A line that is sent alone becomes a dead letter after this many failures, each followed by an accepted probe."""
STRIKES_AT_RATE_LIMIT = 10
"""Replaces `STRIKES` for status 429, because other clients may have used up the destination's rate limit."""
MAX_BURIED_IN_A_ROW = 10
"""After this many dead letters without an accepted record between them, the exporter pauses."""

_NOT_STORED = re.compile(r"received message larger than max")
"""Matches the message of a 5xx response if the destination stored no record of the push."""
_OLDEST = re.compile(r"oldest acceptable timestamp is: (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")


class ExportSettings(Protocol):
    """The only setting that the caller passes; the exporter reads the others from ``OTEL_EXPORTER_OTLP_*``."""

    @property
    def logs_endpoint(self) -> str:
        """Return the destination's URL, or an empty string if there is none."""


@dataclass(frozen=True, slots=True)
class _Oldest:
    """The oldest pending line, its age when the exporter first saw it, and the monotonic time at that moment."""

    seq: int
    seconds_then: float
    seen: float

    def seconds(self) -> float:
        """Return the line's age in seconds, unaffected by later changes of the wall clock."""
        return self.seconds_then + time.monotonic() - self.seen


@dataclass(slots=True)
class _Alone:
    """A record that fails even when sent alone.

    ``strikes`` counts its consecutive failures that were each followed by an accepted probe.
    """

    seq: int = 0
    failures: int = 0
    strikes: int = 0


class Exporter:
    """The thread that sends the spool's pending lines.

    Args:
        spool: the spool to read from.
        settings: contains the endpoint; if that is empty, nothing is sent.
        environ: the variables ``OTEL_EXPORTER_OTLP_*``, by default those of the process.
        max_push_bytes: largest push, before compression.
        max_pause: longest pause between attempts, in seconds; a longer ``Retry-After`` of the destination overrides it.
        max_bytes_per_second: pace of the pushes, counted as the sum of `StoredRecord.size`. 0 means no limit.
        jitter: returns the factor for each pause, a number in [0, 1).
        clock: returns monotonic seconds, for pace and log.
        wait: waits for an event, at most the given number of seconds; used to keep the pace.
    """

    def __init__(
        self,
        spool: Spool,
        settings: ExportSettings,
        *,
        environ: Mapping[str, str] | None = None,
        max_push_bytes: int = MAX_PUSH_BYTES,
        max_pause: float = MAX_PAUSE_SECONDS,
        max_bytes_per_second: int = 0,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self._spool = spool
        self._endpoint = settings.logs_endpoint
        self._environ = os.environ if environ is None else environ
        self._max_push = self._push_limit = max_push_bytes
        self._accepted_push = 0
        """Size of the largest push that was accepted in this round."""
        self._pace = Pace(max_bytes_per_second, clock)
        self._drain = DrainLog(max_push_bytes, clock)
        self._max_pause = max_pause
        self._jitter = jitter
        self._wait = wait
        self._stopping = threading.Event()
        self._deadline = 0.0
        self._thread: threading.Thread | None = None
        self._status = "idle" if self._endpoint else "local"
        self._problem = PushResult(Verdict.ACCEPTED)
        self._failures = self._buried_in_a_row = self._pushed_records = self._pushed_bytes = self._dead_letters = 0
        self._throttled = 0
        """Number of successive responses with status 429 that do not count as a problem."""
        self._retry_after: float | None = None
        self._last_success: float | None = None
        self._oldest: _Oldest | None = None
        self._sent: dict[int, str] = {}
        """For each line that a failed push may have delivered: its sequence number, and the message of the response."""
        self._alone = _Alone()
        self._horizon_ns: int | None = None
        self._horizon_until = 0.0
        self._held = 0

    def start(self) -> None:
        """Start the thread, if there is a destination."""
        if self._endpoint and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="exporter", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Send pending lines for up to ``timeout`` seconds, then stop the thread. Unsent lines stay in the spool."""
        self._deadline = time.monotonic() + timeout
        self._stopping.set()
        self._spool.committed.set()
        if self._thread is not None:
            self._thread.join(timeout)

    @property
    def state(self) -> dict[str, Any]:
        """Return the exporter's state for ``/readyz``, ``status`` and the metrics.

        ``status`` is ``local`` (no destination), ``idle``, ``ok``, ``retrying`` or ``misconfigured``; ``last_error`` is
        ``None`` unless the last attempt failed; times are Unix seconds.
        """
        stats = self._spool.stats()
        # Read `_oldest` only once, because the exporter's thread may change it at any time.
        oldest = self._oldest
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
            "backlog_seconds": 0.0 if oldest is None else oldest.seconds(),
            "records_ahead_of_clock": self._held,
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
                self._spool.committed.wait(self._idle())
        sender.close()

    def _make_sender(self) -> Sender | None:
        try:
            return Sender(self._endpoint, self._environ)
        except (ValueError, OSError) as error:
            problem = f"the exporter cannot start: {error}; check OTEL_EXPORTER_OTLP_LOGS_*"
            self._failed("misconfigured", PushResult(Verdict.MISCONFIGURED, problem))
            return None

    def _round(self, sender: Sender) -> bool | None:
        """Send the next push and return whether it succeeded; return ``None`` if no line is pending."""
        try:
            self._note_oldest()
            if self._horizon_ns is not None and time.monotonic() >= self._horizon_until:
                self._horizon_ns, self._held = None, 0
            waiting = self._spool.pending(self._push_limit, before_ns=self._horizon_ns, span_ns=MAX_PUSH_SPAN_NS)
            if not waiting:
                if self._horizon_ns is None:
                    self._drain.end()
                return None
            self._accepted_push = 0
            delivered = self._deliver(sender, waiting)
            self._grow()
            return delivered
        except SpoolError as error:
            self._failed("retrying", PushResult(Verdict.RETRY, str(error)))
        except Exception as error:
            log.exception("unexpected error in the exporter; it retries after a pause")
            self._failed("retrying", PushResult(Verdict.RETRY, f"{type(error).__name__}: {error}"))
        return False

    def _note_oldest(self) -> None:
        found = self._spool.oldest_pending()
        if found is None:
            self._oldest = None
            self._sent.clear()
        elif self._oldest is None or self._oldest.seq != found[0]:
            self._oldest = _Oldest(found[0], max(0.0, time.time() - found[1] / 1e9), time.monotonic())

    def _idle(self) -> float:
        if self._horizon_ns is None:
            return IDLE_SECONDS
        return max(0.01, min(IDLE_SECONDS, self._horizon_until - time.monotonic()))

    def _deliver(self, sender: Sender, records: Sequence[StoredRecord]) -> bool:
        """Deliver or dead-letter these records. Return ``False`` if some are left and the exporter must pause."""
        if not self._keep_pace():
            return False
        if self._horizon_ns is not None:
            records = [record for record in records if record.time_ns < self._horizon_ns]
        # An operator may have deleted some of these records since the previous request for this batch.
        records = self._spool.still_pending(records)
        if not records:
            return True
        self._pace.spend(_size(records))  # Call this before the request, whose duration is part of the wait.
        result = sender.send(assemble((record.resource, record.otlp) for record in records))
        if result.verdict is Verdict.ACCEPTED:
            self._succeeded(records)
            return True
        if result.verdict is Verdict.RETRY:
            return self._not_now(sender, records, result)
        if result.verdict is Verdict.MISCONFIGURED:
            self._failed("misconfigured", result)
            return False
        if result.verdict is Verdict.REFUSED and (old := _too_old(result.message, records)):
            self._late(old, result)
            return self._deliver(sender, records[len(old) :])
        self._halve(records)
        if len(records) == 1:
            return self._refused(records, result)
        if result.verdict is Verdict.REFUSED and _reason(result.message) != "too_far_behind":
            self._remember_sent(records, result)
        half = len(records) // 2
        return self._deliver(sender, records[:half]) and self._deliver(sender, records[half:])

    def _keep_pace(self) -> bool:
        """Wait until the pace permits a push. Return False if the exporter must stop before that."""
        while not self._stopping.is_set() and (delay := self._pace.delay()) > 0:
            self._wait(self._stopping, delay)
        if not self._stopping.is_set():
            return True
        delay = self._pace.delay()
        if time.monotonic() + delay >= self._deadline:
            return False
        time.sleep(delay)
        return True

    def _not_now(self, sender: Sender, records: Sequence[StoredRecord], result: PushResult) -> bool:
        """Keep the records for a later push. Return whether to continue without a pause.

        Dead-letter a record that keeps failing when sent alone although the destination accepts probes.
        """
        if result.delivered:
            if result.status != 429 and not _NOT_STORED.search(result.message):
                self._remember_sent(records, result)
            # Do not halve the push after the first failure, which may have a temporary cause.
            if self._failures:
                self._halve(records)
            if len(records) == 1 and self._never_fits(sender, records[0], result):
                self._dead_letter(
                    records,
                    "never_fits: refused although it was sent alone and a small test record was accepted: "
                    f"{result.message}",
                )
                self._failures = 0
                return True
        self._failed("retrying", result)
        return False

    def _never_fits(self, sender: Sender, record: StoredRecord, result: PushResult) -> bool:
        """Count a failure of a record that was sent alone. Return whether the destination will never accept it.

        A failure counts only if the destination accepts a probe directly after it.
        """
        if self._alone.seq != record.seq:
            self._alone = _Alone(record.seq)
        self._alone.failures += 1
        if self._alone.failures < FAILURES_ALONE:
            return False
        if sender.send(make_probe()).verdict is not Verdict.ACCEPTED:
            self._alone.strikes = 0
            return False
        self._alone.strikes += 1
        return self._alone.strikes >= (STRIKES_AT_RATE_LIMIT if result.status == 429 else STRIKES)

    def _halve(self, records: Sequence[StoredRecord]) -> None:
        self._push_limit = max(MIN_PUSH_BYTES, _size(records) // 2)

    def _grow(self) -> None:
        """Raise the size limit of pushes a little, if an accepted push of this round had at least half of that size.

        Grow slowly, because each push that is too large costs a pause. An accepted push of less than half the limit
        does not show that larger ones would be accepted.
        """
        if 2 * self._accepted_push >= self._push_limit:
            accepted = max(self._push_limit, self._accepted_push)
            self._push_limit = min(self._max_push, accepted + accepted // GROWTH + 1)

    def _remember_sent(self, records: Sequence[StoredRecord], result: PushResult) -> None:
        for record in records:
            self._sent[record.seq] = result.message

    def _refused(self, records: Sequence[StoredRecord], result: PushResult) -> bool:
        """Handle the refusal of a record that was sent alone.

        Hold it back if it is too new. If it is too old, see `_late`. Otherwise dead-letter it. Return whether to
        continue without a pause.
        """
        reason = "too_large" if result.verdict is Verdict.TOO_LARGE else _reason(result.message)
        if reason == "too_new":
            return self._wait_for_its_time(records[0], result)
        if reason in ("too_old", "too_far_behind"):
            self._late(records, result)
            return True
        self._dead_letter(records, f"{reason}: {result.message}")
        self._buried_in_a_row += 1
        if self._buried_in_a_row < MAX_BURIED_IN_A_ROW:
            return True
        self._failed("misconfigured", PushResult(Verdict.MISCONFIGURED, result.message, Cause.EVERY_RECORD_REFUSED))
        return False

    def _wait_for_its_time(self, record: StoredRecord, result: PushResult) -> bool:
        """Hold back this record and all with later timestamps, because the destination refused it as too new.

        Keep sending records with earlier timestamps, even if they are committed later.
        """
        self._horizon_ns = record.time_ns
        self._held = self._spool.pending_since(record.time_ns)
        self._failed("retrying", PushResult(Verdict.RETRY, result.message, Cause.CLOCK))
        self._horizon_until = time.monotonic() + self._pause()
        return True

    def _late(self, records: Sequence[StoredRecord], result: PushResult) -> None:
        """Dead-letter records that the destination refused as too old, or as too far behind the newest of their stream.

        If an earlier failed push may have delivered a record that is too far behind, acknowledge the record instead.
        """
        reason = _reason(result.message)
        before = [record for record in records if reason == "too_far_behind" and record.seq in self._sent]
        for said in dict.fromkeys(self._sent[record.seq] for record in before):
            seqs = [record.seq for record in before if self._sent[record.seq] == said]
            why = f"an earlier push sent them and got the response: {said}; refused as too_far_behind when sent again"
            self._spool.acknowledge(seqs, why)
            log.warning("%d lines, from seq %d on, count as acknowledged: %s", len(seqs), seqs[0], why)
        late = [record for record in records if reason != "too_far_behind" or record.seq not in self._sent]
        for record in before:
            del self._sent[record.seq]
        if len(late) == 1 or (late and len(records) == 1):
            self._dead_letter(late, f"{reason}: {result.message}")
        elif late:
            # Loki's message names only one line, but its oldest acceptable timestamp applies to all lines in `late`.
            oldest = _OLDEST.search(result.message)
            limit = f"{oldest.group(1)}Z" if oldest else "?"
            self._dead_letter(late, f"{reason}: older than {limit}, the oldest time that the destination accepts")

    def _dead_letter(self, records: Sequence[StoredRecord], why: str) -> None:
        self._spool.dead_letter([record.seq for record in records], why)
        self._dead_letters += len(records)
        for record in records:
            self._sent.pop(record.seq, None)
        log.error("%d lines, from seq %d on, are now dead letters: %s", len(records), records[0].seq, why)

    def _succeeded(self, records: Sequence[StoredRecord]) -> None:
        if self._horizon_ns is None:  # Do not log lines that are held back as a backlog.
            self._drain.begin(self._spool.stats(), records[0].time_ns)
        seqs = [record.seq for record in records]
        self._spool.acknowledge(seqs)
        if self._status in ("retrying", "misconfigured"):
            log.warning("the destination accepts records again, after %d failures", self._failures)
        self._status = "ok"
        self._failures = self._throttled = self._buried_in_a_row = 0
        self._retry_after = None
        self._alone = _Alone()
        size = _size(records)
        self._accepted_push = max(self._accepted_push, size)
        self._drain.sent(seqs, size, self._spool.stats())
        for record in records:
            self._sent.pop(record.seq, None)
        self._pushed_records += len(records)
        self._pushed_bytes += size
        self._last_success = time.time()

    def _failed(self, status: str, problem: PushResult) -> None:
        self._retry_after = problem.retry_after
        short = (problem.retry_after or 0.0) <= MAX_PAUSE_SECONDS
        # After another failure, report status 429 at once: the message of that failure is out of date.
        working = self._status not in ("retrying", "misconfigured")
        if problem.status == 429 and short and working and self._throttled < THROTTLED_IN_A_ROW - 1:
            self._throttled += 1
            self._failures += 1
            return
        self._throttled = 0
        # Log each kind of problem once, so that an outage of a whole night does not fill the log.
        if (status, problem.cause) != (self._status, self._problem.cause) or self._failures == 0:
            log.warning(
                "records wait in the spool: %s%s", problem.message, f" ({problem.remedy})" * bool(problem.remedy)
            )
        self._status, self._problem = status, problem
        self._failures += 1

    def _pause(self) -> float:
        """Return the next pause in seconds: exponential backoff with full jitter, but not less than ``Retry-After``."""
        longest = min(self._max_pause, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 16))
        return max(longest * self._jitter(), self._retry_after or 0.0)


def _size(records: Sequence[StoredRecord]) -> int:
    return sum(record.size for record in records)


def _reason(message: str) -> str:
    """Return a code for the reason of a refusal, derived from Loki's message."""
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
    """Return the records of a push that are older than the oldest timestamp that the destination accepts.

    An outage of days leaves thousands of such records, so find them all with one response. If the push contains several
    streams, return none, because Loki computes that timestamp separately for each stream.
    """
    found = _OLDEST.search(message)
    if not found or len({record.resource for record in records}) != 1:
        return ()
    oldest = int(datetime.fromisoformat(found.group(1)).replace(tzinfo=UTC).timestamp()) * 1_000_000_000
    return [record for record in records if record.time_ns < oldest]
