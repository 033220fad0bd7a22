"""Loki's default limits, and the error messages for requests that exceed them.

The numbers come from `GET /config` of a real Loki (tests/contract/loki/README.md names the version). The messages come
from recorded responses (tests/contract/loki/answers.json).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

SECOND = 10**9
HOUR = 3600 * SECOND
DAY = 24 * HOUR


@dataclass(frozen=True)
class Limits:
    """Loki's default limits. Sizes are in bytes, durations in nanoseconds."""

    line_bytes: int = 256 * 1024
    metadata_bytes: int = 64 * 1024
    metadata_entries: int = 128
    rate_bytes_per_s: int = 4 * 1024 * 1024
    burst_bytes: int = 6 * 1024 * 1024
    # Limits of a single stream (settings per_stream_rate_limit and _burst). Loki splits a stream into shards of at most
    # shard_streams.desired_rate and applies the limits to each shard, so a limit above that rate is never reached.
    stream_rate_bytes_per_s: int = 3 * 1024 * 1024
    stream_burst_bytes: int = 15 * 1024 * 1024
    shard_bytes_per_s: int = 1536 * 1024
    # Maximum size of one push and of one query result (settings grpc_server_max_recv_msg_size and _send_msg_size).
    receive_bytes: int = 4 * 1024 * 1024
    send_bytes: int = 4 * 1024 * 1024
    structured_metadata: bool = True
    auth_enabled: bool = False
    oldest_ns: int = 7 * DAY
    newest_ns: int = 10 * 60 * SECOND
    # Maximum age of an entry relative to the newest entry of its stream: half of the setting max_chunk_age.
    behind_ns: int = HOUR
    # Queries find lines older than this only after they are flushed to the store (setting query_ingesters_within).
    ingesters_within_ns: int = 3 * HOUR
    # Idle time and age at which Loki flushes a chunk automatically (settings chunk_idle_period and max_chunk_age).
    chunk_idle_ns: int = HOUR // 2
    chunk_age_ns: int = 2 * HOUR
    query_entries: int = 5000
    query_ns: int = 30 * DAY + HOUR
    # Maximum size of all stored records, because the fake holds them in memory. Loki has no such limit.
    memory_bytes: int = 512 * 1024 * 1024
    # Maximum size of a request body, also a limit of the fake only: it responds 413 and closes the connection.
    request_bytes: int = 128 * 1024 * 1024


# With auth_enabled: false, Loki uses this name for its only tenant.
TENANT = "fake"


def rfc3339(time_ns: int) -> str:
    """Format a time as Loki prints it in whole seconds: 2026-11-24T11:43:07Z."""
    return datetime.fromtimestamp(time_ns // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def go_time(time_ns: int) -> str:
    """Format a time as Go prints it, without trailing zeros: 2026-11-24 11:43:07.856487169 +0000 UTC."""
    fraction = f".{time_ns % SECOND:09d}".rstrip("0").rstrip(".")
    return datetime.fromtimestamp(time_ns // SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S") + fraction + " +0000 UTC"


def go_duration(duration_ns: int) -> str:
    """Format a duration of an hour or more as Go prints it, truncated to milliseconds: 746h1m38.303s."""
    ms = duration_ns // 10**6
    seconds = f"{ms // 1000 % 60}" + f".{ms % 1000:03d}".rstrip("0").rstrip(".")
    return f"{ms // 3_600_000}h{ms // 60_000 % 60}m{seconds}s"


def line_too_long(stream: str, limit: int, size: int) -> str:
    """Return Loki's message for a line that is too long, as recorded for a line of 262,145 bytes."""
    return (
        f"max entry size '{limit}' bytes exceeded for stream '{stream}' "
        f"while adding an entry with length '{size}' bytes"
    )


def too_old(stream: str, time_ns: int, oldest_ns: int) -> str:
    """Return Loki's message for a log line that is too old, as recorded for a line from eight days before."""
    return (
        f"entry for stream '{stream}' has timestamp too old: {rfc3339(time_ns)}, "
        f"oldest acceptable timestamp is: {rfc3339(oldest_ns)}"
    )


def too_new(stream: str, time_ns: int) -> str:
    """Return Loki's message for a log line that is too new, as recorded for a line 11 minutes in the future."""
    return f"entry for stream '{stream}' has timestamp too new: {rfc3339(time_ns)}"


def metadata_too_large(stream: str, size: int, limit: int) -> str:
    """Return Loki's message for metadata that is too large, as recorded for an attribute of 65,536 bytes."""
    return (
        f"stream '{stream}' has structured metadata too large: '{size}' bytes, limit: '{limit}' bytes. "
        "Please see `limits_config.max_structured_metadata_size` or contact your Loki administrator to increase it"
    )


def metadata_too_many(stream: str, count: int, limit: int) -> str:
    """Return Loki's message for too many metadata entries, as recorded for 129 attributes."""
    return (
        f"stream '{stream}' has too many structured metadata labels: '{count}', limit: '{limit}'. "
        "Please see `limits_config.max_structured_metadata_entries_count` or contact your Loki administrator "
        "to increase it"
    )


def too_far_behind(stream: str, refused: list[tuple[int, int]], total: int) -> str:
    """Return Loki's message for entries that are too far behind the newest entry of their stream.

    The message lists at most ten entries.

    `refused` holds (time of the entry, oldest accepted time), both in nanoseconds.
    """
    named = "".join(
        f"entry with timestamp {go_time(time_ns)} ignored, reason: 'entry too far behind, entry timestamp is: "
        f"{rfc3339(time_ns)}, oldest acceptable timestamp is: {rfc3339(oldest_ns)}',\n"
        for time_ns, oldest_ns in refused[:10]
    )
    return f"{named}user '{TENANT}', total ignored: {len(refused)} out of {total} for stream: {stream}"


def rate_limited(limit: int, lines: int, size: int) -> str:
    """Return Loki's message for an exceeded rate limit, as recorded for pushes of 2, 7 and 20 MB."""
    return (
        f"ingestion rate limit exceeded for user {TENANT} (limit: {limit} bytes/sec) while attempting to ingest "
        f"'{lines}' lines totaling '{size}' bytes, reduce log volume or contact your Loki administrator to see if "
        "the limit can be increased"
    )


def metadata_disallowed(stream: str) -> str:
    """Return Loki's message for forbidden structured metadata. The source is Loki's code, not a recording."""
    return (
        f"stream '{stream}' includes structured metadata, but this feature is disallowed. "
        "Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it."
    )


def message_too_large(size: int, limit: int) -> str:
    """Return Loki's message for a push that is too large, as recorded for 21 lines of 200 KB (status 503)."""
    return (
        "rpc error: code = ResourceExhausted desc = rpc error: code = ResourceExhausted desc = grpc: received message "
        f"larger than max ({size} vs. {limit})"
    )


def result_too_large(size: int, limit: int) -> str:
    """Return Loki's message for a result that is too large, as recorded for 30 lines of 150 KB (status 500)."""
    return f"rpc error: code = ResourceExhausted desc = trying to send message larger than max ({size} vs. {limit})"


NO_ORG_ID = "no org id"
NO_STREAM = "error at least one valid stream is required for ingestion"


def summary(errors: list[str]) -> str:
    """Return Loki's message for these errors: a single error unmodified, several errors grouped with their counts.

    Loki orders the groups at random.
    """
    counts: dict[str, int] = {}
    for error in errors:
        counts[error] = counts.get(error, 0) + 1
    if len(errors) == 1:
        return errors[0]
    return "; ".join(f"{count} errors like: {error}" for error, count in counts.items())
