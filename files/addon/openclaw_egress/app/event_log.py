"""Records of the proxy's own events, such as a policy or a CA that it loaded or refused."""

from __future__ import annotations

import logging
from typing import Literal

from openclaw_egress.recording import semconv
from openclaw_egress.recording.records import EventRecord
from openclaw_egress.spool.writer import Spool, SpoolError

log = logging.getLogger("openclaw_egress")


def record_event(
    spool: Spool,
    message: str,
    event_name: str = semconv.EVENT_POLICY,
    *,
    policy_digest: str | None = None,
    severity: Literal["INFO", "ERROR"] = "INFO",
    reason: str = "",
) -> None:
    """Add the record of an event to the spool. Ignore a spool error, because the event has already happened."""
    try:
        spool.add(
            EventRecord(
                event_name=event_name,
                attributes=({semconv.POLICY_DIGEST: policy_digest} if policy_digest else {})
                | ({semconv.REASON: reason} if reason else {}),
                message=message,
                severity=severity,
            )
        )
    except SpoolError as error:
        log.debug("%s", error)  # debug level is enough: the spool itself logs the cause
