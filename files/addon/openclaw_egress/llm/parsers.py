"""Readers of request bodies, plain responses and streams. Chunks may have any size; memory is bounded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclaw_egress.llm.model import Api, RequestFacts, ResponseFacts, ResponseReader, text_of
from openclaw_egress.wire.json_members import TopLevelMembers
from openclaw_egress.wire.sse import EventStream

MAX_PLAIN_BYTES = 8 * 1024 * 1024
MAX_EVENT_BYTES = 8 * 1024 * 1024
_REQUEST_MEMBERS = frozenset({"model", "stream"})


def _object_in(text: str | bytes | bytearray) -> Mapping[str, Any] | None:
    """Return the JSON object in the text; None for any other text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class NothingToRead:
    """Reader for a path whose API this package does not read."""

    def feed(self, data: bytes) -> None:
        """Ignore the bytes."""

    def finish(self) -> ResponseFacts:
        """Return empty information."""
        return ResponseFacts()


class RequestReader:
    """Reader of `model` and `stream` in a request's body of any length, at any position.

    `known` has the information of the host and the path. `stream_default` is the meaning of a complete body without
    `stream`.
    """

    def __init__(self, known: RequestFacts, stream_default: bool | None = None) -> None:
        self._known = known
        self._stream_default = stream_default
        self._members = TopLevelMembers(_REQUEST_MEMBERS) if known.operation_name is not None else None
        self._any = False

    def feed(self, data: bytes) -> None:
        """Take the next decoded bytes of the body."""
        self._any = self._any or bool(data)
        if self._members is not None:
            self._members.feed(data)

    def finish(self) -> RequestFacts:
        """Return the information read; none for a request without a body, such as a list of models."""
        if self._members is None:
            return self._known
        if not self._any:
            return replace(self._known, operation_name=None, model=None, stream=None)
        found = self._members.found
        stream = self._known.stream
        if stream is None:
            # In a truncated body, the missing part may have contained `stream`.
            stream = found.get("stream", self._stream_default if self._members.ended else None)
        return replace(
            self._known,
            model=text_of(found.get("model")) or self._known.model,
            stream=stream if isinstance(stream, bool) else None,
        )


class PlainReader:
    """Reader of one JSON object. Beyond `max_bytes` it keeps only the format's small members."""

    def __init__(self, api: Api, max_bytes: int = MAX_PLAIN_BYTES) -> None:
        self._api = api
        self._max = max_bytes
        self._body: bytearray | None = bytearray()
        self._members: TopLevelMembers | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        if self._body is not None:
            self._body += data
            if len(self._body) <= self._max:
                return
            data, self._body = bytes(self._body), None
            self._members = TopLevelMembers(self._api.members)
        if self._members is not None:
            self._members.feed(data)

    def finish(self) -> ResponseFacts:
        """Return the information read. In a truncated body, only complete members count."""
        body, self._body = self._body, None
        if body is not None:
            if (value := _object_in(body)) is not None:
                return self._api.whole(value)
            self._members = TopLevelMembers(self._api.members)
            self._members.feed(bytes(body))
        return self._api.whole(self._members.found if self._members is not None else {})


class StreamReader:
    """Reader of an event stream. The data of each event is a JSON object; it ignores other data, such as `[DONE]`."""

    def __init__(self, api: Api, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._events = EventStream(max_event_bytes)
        self._assembler = api.assembler()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        for event in self._events.feed(data):
            value = _object_in(event.data)
            if value is not None:
                self._assembler.take(value)

    def finish(self) -> ResponseFacts:
        """Return the information in the complete events."""
        self._events.finish()
        facts = self._assembler.facts()
        return replace(facts, messages_truncated=True) if self._events.dropped else facts


class GuessingReader:
    """Reader for a response without a useful content type: an object begins with a brace, a stream never does."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._reader: ResponseReader | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        if self._reader is None:
            begun = data.lstrip(b" \t\r\n")
            if not begun:
                return
            self._reader = PlainReader(self._api) if begun.startswith(b"{") else StreamReader(self._api)
        self._reader.feed(data)

    def finish(self) -> ResponseFacts:
        """Return the information read."""
        return self._reader.finish() if self._reader is not None else ResponseFacts()
