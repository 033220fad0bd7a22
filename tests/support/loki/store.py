"""In-memory storage of pushed records by stream. It follows Loki's rules for accepting and for finding records.

The rules come from the recorded cases `line-*`, `metadata-*`, `t-*`, `behind-*`, `dup-*`, `batch-*`, `rate` and
`body-*`. Not implemented: the limits on labels (15 per stream) and on streams (5,000).

Above the rate limit of a single stream, the fake always drops lines and responds 204. A real Loki does so if the error
of one shard of the stream replaces that of another (`Push` in pkg/ingester/instance.go), otherwise it responds 429.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from . import limits as says
from .entries import Entry, shown, stream_name, utf8, with_level
from .limits import Limits

# Approximate memory in bytes that the fake needs for each entry, in addition to line and metadata.
_OVERHEAD = 200


@dataclass
class Stored:
    """An accepted entry. `flushed` is True if the entry has moved from Loki's ingester to its store."""

    entry: Entry
    arrived_ns: int
    flushed: bool = False


@dataclass
class Stream:
    """One set of labels and its entries. `newest_ns` is the newest timestamp, `pushed_ns` the time of the last push."""

    labels: dict[str, str]
    newest_ns: int = 0
    pushed_ns: int = 0
    entries: list[Stored] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    bucket: TokenBucket | None = None


class TokenBucket:
    """Token bucket that holds at most `burst` bytes, and refills at `rate` bytes per second."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens, self._at = burst, clock()

    def take(self, size: int) -> bool:
        """Take `size` bytes if the bucket holds that many, otherwise none. Return whether the bytes were taken."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if size > self._tokens:
            return False
        self._tokens -= size
        return True


class Store:
    """Thread-safe storage. `now_ns` returns Unix time in nanoseconds; `clock` returns seconds for the rate limit."""

    def __init__(
        self,
        limits: Limits | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
        path: Path | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.now_ns = now_ns
        self._clock = clock
        self._bucket = TokenBucket(self.limits.rate_bytes_per_s, self.limits.burst_bytes, clock)
        self._streams: dict[str, Stream] = {}
        self._lock = threading.RLock()
        self._bytes = 0
        self._path = path
        if path is not None and path.exists():
            self._load(path)

    def push(self, streams: list[tuple[dict[str, str], list[Entry]]]) -> tuple[int, str]:
        """Store the entries that Loki would accept. Return (204, ""), or Loki's error status and message."""
        if not streams:
            return 422, says.NO_STREAM
        with self._lock:
            errors: list[str] = []
            good: list[tuple[dict[str, str], list[Entry]]] = []
            for labels, entries in streams:
                name = stream_name(labels)
                taken = []
                for entry in entries:
                    error = self._refusal(name, entry)
                    if error is None:
                        taken.append(entry)
                    else:
                        errors.append(error)
                if taken:
                    good.append((labels, taken))
            lines, size = sum(len(e) for _, e in good), sum(e.size for _, es in good for e in es)
            if good and not self._bucket.take(size):
                return 429, says.rate_limited(self.limits.rate_bytes_per_s, lines, size)
            if self._bytes + size + lines * _OVERHEAD > self.limits.memory_bytes:
                return 500, f"Loki fake: its {self.limits.memory_bytes} bytes of memory are full; restart it"
            # Resource attributes that are not labels become metadata of each entry. Their size counts once per entry.
            message = sum(len(stream_name(labels)) + sum(e.size + 16 for e in entries) for labels, entries in good)
            if message > self.limits.receive_bytes:
                return 503, says.message_too_large(message, self.limits.receive_bytes)
            # If the validation refuses some entries and the ingester others, Loki reports only the ingester's error.
            behind = ""
            for labels, entries in good:
                behind = self._append(labels, entries) or behind
            if behind or errors:
                return 400, behind or says.summary(errors)
            return 204, ""

    def _refusal(self, stream: str, entry: Entry) -> str | None:
        now, limits = self.now_ns(), self.limits
        if entry.time_ns < now - limits.oldest_ns:
            return says.too_old(stream, entry.time_ns, now - limits.oldest_ns)
        if entry.time_ns > now + limits.newest_ns:
            return says.too_new(stream, entry.time_ns)
        if len(entry.line) > limits.line_bytes:
            return says.line_too_long(stream, limits.line_bytes, len(entry.line))
        if entry.metadata and not limits.structured_metadata:
            return says.metadata_disallowed(stream)
        if entry.metadata_bytes > limits.metadata_bytes:
            return says.metadata_too_large(stream, entry.metadata_bytes, limits.metadata_bytes)
        if len(entry.metadata) > limits.metadata_entries:
            return says.metadata_too_many(stream, len(entry.metadata), limits.metadata_entries)
        return None

    def _append(self, labels: dict[str, str], entries: list[Entry]) -> str:
        name = stream_name(labels)
        stream = self._streams.setdefault(name, Stream(dict(labels)))
        refused: list[tuple[int, int]] = []
        kept: list[Entry] = []
        for plain in entries:
            oldest = stream.newest_ns - self.limits.behind_ns
            if plain.time_ns < oldest:
                refused.append((plain.time_ns, oldest))
                continue
            if not self._within_stream_rate(stream, plain.size):
                continue
            stream.newest_ns = max(stream.newest_ns, plain.time_ns)
            entry = with_level(labels, plain)
            if self._remember(stream, entry):
                kept.append(entry)
        if kept and self._path is not None:
            with self._path.open("a") as file:
                file.writelines(_dump(labels, entry) for entry in kept)
        return says.too_far_behind(name, refused, len(entries)) if refused else ""

    def _within_stream_rate(self, stream: Stream, size: int) -> bool:
        limits = self.limits
        if limits.stream_rate_bytes_per_s >= limits.shard_bytes_per_s:
            return True
        if stream.bucket is None:
            stream.bucket = TokenBucket(limits.stream_rate_bytes_per_s, limits.stream_burst_bytes, self._clock)
        return stream.bucket.take(size)

    def _remember(self, stream: Stream, entry: Entry) -> bool:
        """Add an entry to the stream. Return False if the stream has an entry of equal time, line and metadata."""
        stream.pushed_ns = self.now_ns()
        mark = blake2b(
            repr((entry.time_ns, entry.line, sorted(entry.metadata))).encode("utf-8", "surrogateescape"),
            digest_size=16,
        ).digest()
        if mark in stream.seen:
            return False
        stream.seen.add(mark)
        stream.entries.append(Stored(entry, stream.pushed_ns))
        self._bytes += entry.size + _OVERHEAD
        return True

    def flush(self) -> None:
        """Flush all chunks to the store, as Loki does on `POST /flush`. Queries then also find old records."""
        with self._lock:
            for stream in self._streams.values():
                for stored in stream.entries:
                    stored.flushed = True

    def select(
        self, wanted: Callable[[dict[str, str]], bool], start_ns: int, end_ns: int
    ) -> Iterator[tuple[dict[str, str], list[Entry]]]:
        """Yield each matching stream's labels and the entries in [start, end) that a query can find, oldest first."""
        with self._lock:
            for _, stream in sorted(self._streams.items()):
                if not wanted(stream.labels):
                    continue
                visible = [
                    s.entry for s in stream.entries if start_ns <= s.entry.time_ns < end_ns and self._shows(stream, s)
                ]
                if visible:
                    yield dict(stream.labels), sorted(visible, key=lambda entry: entry.time_ns)

    def _shows(self, stream: Stream, stored: Stored) -> bool:
        now, limits = self.now_ns(), self.limits
        return (
            stored.flushed
            or stored.entry.time_ns >= now - limits.ingesters_within_ns
            or now - stream.pushed_ns >= limits.chunk_idle_ns
            or now - stored.arrived_ns >= limits.chunk_age_ns
        )

    def everything(self) -> list[tuple[dict[str, str], Entry]]:
        """Return all accepted records as (stream labels, entry), including those that queries do not find yet."""
        with self._lock:
            return [(dict(s.labels), stored.entry) for s in self._streams.values() for stored in s.entries]

    def _load(self, path: Path) -> None:
        with path.open() as file:
            for line in file:
                item = json.loads(line)
                entry = Entry(item["time_ns"], utf8(item["line"]), tuple((n, v) for n, v in item["metadata"]))
                stream = self._streams.setdefault(stream_name(item["labels"]), Stream(item["labels"]))
                stream.newest_ns = max(stream.newest_ns, entry.time_ns)
                self._remember(stream, entry)


def _dump(labels: dict[str, str], entry: Entry) -> str:
    # Keep invalid UTF-8 bytes: they become surrogates, which JSON can escape.
    line = entry.line.decode("utf-8", "surrogateescape")
    return json.dumps({"labels": labels, "time_ns": entry.time_ns, "line": line, "metadata": entry.metadata}) + "\n"


def as_labels(labels: dict[str, str], entry: Entry) -> dict[str, str]:
    """Return labels and metadata as query results show them, without empty values.

    If a metadata name is also the name of a label, append `_extracted` to it.
    """
    merged = dict(labels)
    for name, value in entry.metadata:
        if value:
            merged[f"{name}_extracted" if name in labels else name] = shown(utf8(value))
    return {name: value for name, value in sorted(merged.items()) if value}
