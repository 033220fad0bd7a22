"""Readers of bodies: of a request, of a plain response, of a stream. Bounded, in any cut, and they never raise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclaw_egress.providers.facts import Dialect, RequestFacts, ResponseFacts, ResponseReader, text_of
from openclaw_egress.providers.members import TopLevelMembers
from openclaw_egress.sse import EventStream

MAX_PLAIN_BYTES = 8 * 1024 * 1024
MAX_EVENT_BYTES = 8 * 1024 * 1024
_REQUEST_MEMBERS = frozenset({"model", "stream"})


def _object_in(text: str | bytes | bytearray) -> Mapping[str, Any] | None:
    """The JSON object that the text is; None for all else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class NothingToRead:
    """For a path that is no API that we read."""

    def feed(self, data: bytes) -> None:
        """Passes over it."""

    def finish(self) -> ResponseFacts:
        """Nothing."""
        return ResponseFacts()


class RequestReader:
    """Reads `model` and `stream` out of a request's body as it passes, however long it is and wherever they stand."""

    def __init__(self, known: RequestFacts) -> None:
        self._known = known
        self._members = TopLevelMembers(_REQUEST_MEMBERS) if known.operation_name is not None else None
        self._any = False

    def feed(self, data: bytes) -> None:
        """The next decoded bytes of the body."""
        self._any = self._any or bool(data)
        if self._members is not None:
            self._members.feed(data)

    def finish(self) -> RequestFacts:
        """What was learnt. A request without a body (a list, a look-up) is no operation of a model."""
        if self._members is None:
            return self._known
        if not self._any:
            return replace(self._known, operation_name=None, model=None)
        found = self._members.found
        # Both APIs answer whole when nothing is said; a body that was cut off leaves it open.
        stream = found.get("stream", False if self._members.ended else None)
        return replace(
            self._known,
            model=text_of(found.get("model")) or self._known.model,
            stream=stream if isinstance(stream, bool) else None,
        )


class PlainReader:
    """One JSON object. Past `max_bytes` it is no longer kept: then the dialect's small members are all that is read."""

    def __init__(self, dialect: Dialect, max_bytes: int = MAX_PLAIN_BYTES) -> None:
        self._dialect = dialect
        self._max = max_bytes
        self._body: bytearray | None = bytearray()
        self._members: TopLevelMembers | None = None

    def feed(self, data: bytes) -> None:
        """The next bytes of the body."""
        if self._body is not None:
            self._body += data
            if len(self._body) <= self._max:
                return
            data, self._body = bytes(self._body), None
            self._members = TopLevelMembers(self._dialect.members)
        if self._members is not None:
            self._members.feed(data)

    def finish(self) -> ResponseFacts:
        """What was learnt; of a body that broke off, what stood in its complete members."""
        body, self._body = self._body, None
        if body is not None:
            if (value := _object_in(body)) is not None:
                return self._dialect.whole(value)
            self._members = TopLevelMembers(self._dialect.members)
            self._members.feed(bytes(body))
        return self._dialect.whole(self._members.found if self._members is not None else {})


class StreamReader:
    """An event stream: each event's data is a JSON object for the fold; what is not (`[DONE]`) is passed over."""

    def __init__(self, dialect: Dialect, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._events = EventStream(max_event_bytes)
        self._fold = dialect.fold()

    def feed(self, data: bytes) -> None:
        """The next bytes of the body."""
        for event in self._events.feed(data):
            value = _object_in(event.data)
            if value is not None:
                self._fold.take(value)

    def finish(self) -> ResponseFacts:
        """What the complete events say."""
        self._events.finish()
        facts = self._fold.facts()
        return replace(facts, messages_truncated=True) if self._events.dropped else facts


class GuessingReader:
    """For a response whose content type tells nothing: an object begins with a brace, a stream never does."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._reader: ResponseReader | None = None

    def feed(self, data: bytes) -> None:
        """The next bytes of the body."""
        if self._reader is None:
            begun = data.lstrip(b" \t\r\n")
            if not begun:
                return
            self._reader = PlainReader(self._dialect) if begun.startswith(b"{") else StreamReader(self._dialect)
        self._reader.feed(data)

    def finish(self) -> ResponseFacts:
        """What was learnt."""
        return self._reader.finish() if self._reader is not None else ResponseFacts()
