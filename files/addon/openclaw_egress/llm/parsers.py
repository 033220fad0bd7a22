"""Readers of request bodies, plain responses and streams. Chunks may have any size; memory is bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from openclaw_egress.llm.model import (
    EXCEPTION,
    Api,
    Completion,
    RequestFacts,
    ResponseFacts,
    ResponseReader,
    object_in,
    text_of,
)
from openclaw_egress.wire.aws_event_stream import AwsEventStream
from openclaw_egress.wire.json_members import TopLevelMembers
from openclaw_egress.wire.json_objects import JsonObjects
from openclaw_egress.wire.sse import EventStream

MAX_PLAIN_BYTES = 8 * 1024 * 1024
MAX_EVENT_BYTES = 8 * 1024 * 1024
_SLICE_BYTES = 64 * 1024
_REQUEST_MEMBERS = frozenset({"stream", "service_tier", "serviceTier", "speed", "inference_geo"})


class NothingToRead:
    """Reader for a path whose API this package does not read."""

    def feed(self, data: bytes) -> None:
        """Ignore the bytes of the body."""

    def finish(self) -> ResponseFacts:
        """Return empty `ResponseFacts`."""
        return ResponseFacts()


class RequestReader:
    """Reader of a request's body. It reads the members that name the model, or that affect streaming or the price.

    The body can have any length, and the members can be at any position. `known` contains the information from the host
    and the path. `stream_default` is the value of `stream` if a complete body does not contain it. If `needs_model` is
    set, a request without a model belongs to another API. `model_member` is the name of the member with the model.
    """

    def __init__(
        self,
        known: RequestFacts,
        stream_default: bool | None = None,
        *,
        needs_model: bool = False,
        model_member: str = "model",
    ) -> None:
        self._known = known
        self._model_member = model_member
        self._stream_default = stream_default
        self._needs_model = needs_model
        self._members = TopLevelMembers(_REQUEST_MEMBERS | {model_member}) if known.operation_name is not None else None
        self._any = False

    def feed(self, data: bytes) -> None:
        """Process the next decoded bytes of the body."""
        self._any = self._any or bool(data)
        if self._members is not None:
            self._members.feed(data)

    def whole(self, body: memoryview) -> None:
        """Process the complete body in one call. This is about twenty times faster than :meth:`feed`."""
        self._any = bool(body)
        if self._members is not None and not self._members.take(body):
            self._members.feed(bytes(body))

    def finish(self) -> RequestFacts:
        """Return the information about the request; only the provider for a request without a body."""
        if self._members is None:
            return self._known
        found = self._members.found
        model = self._known.model or text_of(found.get(self._model_member))
        if not self._any or (self._needs_model and model is None):
            return replace(self._known, operation_name=None, model=None, stream=None)
        stream = self._known.stream
        if stream is None:
            # Use the default only for a complete body: the missing part of a truncated body may contain `stream`.
            stream = found.get("stream", self._stream_default if self._members.ended else None)
        return replace(
            self._known,
            model=model,
            stream=stream if isinstance(stream, bool) else None,
            service_tier=text_of(found.get("service_tier") or found.get("serviceTier"), 64),
            speed=text_of(found.get("speed"), 64),
            region=text_of(found.get("inference_geo"), 64),
        )


class PlainReader:
    """Reader of one JSON object. If the body exceeds `max_bytes`, it reads only the members in `api.members`."""

    def __init__(self, api: Api, max_bytes: int = MAX_PLAIN_BYTES) -> None:
        self._api = api
        self._max = max_bytes
        self._body: bytearray | None = bytearray()
        self._members: TopLevelMembers | None = None

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the body."""
        if self._body is not None:
            self._body += data
            if len(self._body) <= self._max:
                return
            data, self._body = bytes(self._body), None
            self._members = TopLevelMembers(self._api.members)
        if self._members is not None:
            self._members.feed(data)

    def finish(self) -> ResponseFacts:
        """Return the information. Ignore incomplete members of a truncated body."""
        body, self._body = self._body, None
        if body is not None:
            if self._api.only_members and (members := TopLevelMembers(self._api.members)).take(body):
                return self._api.whole(members.found)
            if (value := object_in(body)) is not None:
                return self._api.whole(value)
            if (facts := self._lines_in(body)) is not None:
                return facts
            self._members = TopLevelMembers(self._api.members)
            self._members.feed(bytes(body))
        return self._api.whole(self._members.found if self._members is not None else {})

    def _lines_in(self, body: bytearray) -> ResponseFacts | None:
        """Read the body as JSON lines, whose content type may be missing. Return None if it has fewer than two."""
        stream = JsonStreamReader(self._api, lines=True)
        for at in range(0, len(body), _SLICE_BYTES):
            stream.feed(bytes(body[at : at + _SLICE_BYTES]))
        return stream.finish() if stream.taken > 1 else None


class StreamReader:
    """Reader of an event stream. The data of each event is a JSON object; other data, such as `[DONE]`, is ignored.

    Like `google-genai`, it also reads JSON objects outside events, because Gemini can end a stream with an error in
    this form.
    """

    def __init__(self, api: Api, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._events = EventStream(max_event_bytes)
        self._assembler = api.assembler()

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the body."""
        for event in self._events.feed(data):
            self._take(event.data)

    def _take(self, text: str | bytes) -> None:
        value = object_in(text)
        if value is not None:
            self._assembler.take(value)

    def finish(self) -> ResponseFacts:
        """Return the information that the complete events contain."""
        self._events.finish()
        for text in JsonObjects().feed(bytes(self._events.other)):
            self._take(text)
        facts = self._assembler.facts()
        return replace(facts, messages_truncated=True) if self._events.dropped else facts


class JsonStreamReader:
    """Reader of a stream of JSON objects: one in each line, or the elements of one array.

    `taken` is the number of objects so far.
    """

    def __init__(self, api: Api, max_object_bytes: int = MAX_EVENT_BYTES, *, lines: bool) -> None:
        self.taken = 0
        self._objects = JsonObjects(max_object_bytes, lines=lines)
        self._assembler = api.assembler()

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the body."""
        for text in self._objects.feed(data):
            value = object_in(text)
            if value is not None:
                self.taken += 1
                self._assembler.take(value)

    def finish(self) -> ResponseFacts:
        """Return the information that the complete objects contain."""
        if not self.taken:
            return ResponseFacts()
        facts = self._assembler.facts()
        return replace(facts, messages_truncated=True) if self._objects.dropped else facts


class AwsStreamReader:
    """Reader of an AWS event stream. The payload of each event is a JSON object."""

    def __init__(self, api: Api, max_message_bytes: int = MAX_EVENT_BYTES) -> None:
        self._events = AwsEventStream(max_message_bytes)
        self._assembler = api.assembler()

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the body."""
        for message in self._events.feed(data):
            headers = message.headers
            if headers.get(":message-type") == "event":
                if (value := object_in(message.payload)) is not None:
                    self._assembler.take({headers.get(":event-type", ""): value})
            else:
                self._assembler.take({EXCEPTION: headers.get(":exception-type") or headers.get(":error-code", "")})

    def finish(self) -> ResponseFacts:
        """Return the information in the complete events."""
        facts = self._assembler.facts()
        return replace(facts, messages_truncated=True) if self._events.dropped or self._events.damaged else facts


class ReaderWithHeaders:
    """Reader of a body that also reads the response's headers."""

    def __init__(self, complete: Completion, headers: Mapping[str, str], body: ResponseReader) -> None:
        self._complete = complete
        self._headers = headers
        self._body = body

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the body."""
        self._body.feed(data)

    def finish(self) -> ResponseFacts:
        """Return the information in the body, completed from the headers."""
        return self._complete(self._headers, self._body.finish())


class GuessingReader:
    """Reader that selects the format by the first byte of the body.

    `[` means an array, `{` an object, a zero byte an AWS event stream, and any other byte an event stream.

    If `plain` is set, the content type excludes an event stream, so any other byte means an object.
    """

    def __init__(self, api: Api, *, plain: bool = False) -> None:
        self._api = api
        self._plain = plain
        self._reader: ResponseReader | None = None

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the body."""
        if self._reader is None:
            begun = data.lstrip(b" \t\r\n")
            if not begun:
                return
            if begun.startswith(b"["):
                self._reader = JsonStreamReader(self._api, lines=False)
            elif begun.startswith(b"\0"):
                self._reader = AwsStreamReader(self._api)
            elif self._plain or begun.startswith(b"{"):
                self._reader = PlainReader(self._api)
            else:
                self._reader = StreamReader(self._api)
        self._reader.feed(data)

    def finish(self) -> ResponseFacts:
        """Return the information in the body; empty `ResponseFacts` for an empty body."""
        return self._reader.finish() if self._reader is not None else ResponseFacts()
