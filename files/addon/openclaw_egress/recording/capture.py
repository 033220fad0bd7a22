"""Capture of one exchange: builds the record from the bytes that pass. Pure: bytes and times in, a record out.

Capturing never delays a chunk and never raises because of what traffic contains. The memory of each exchange is
bounded: of a body of any size, the capture keeps the head, the tail, a hash of the whole, and the sizes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from openclaw_egress.llm import RequestReader, ResponseReader, read_request, request_reader, response_reader
from openclaw_egress.llm.model import RequestFacts, ResponseFacts
from openclaw_egress.recording.credentials import CredentialScan, scan_for
from openclaw_egress.recording.records import Body, ExchangeRecord
from openclaw_egress.recording.redaction import REDACTED, is_token_endpoint, key_fingerprint, redact_headers, redact_url
from openclaw_egress.recording.websocket_messages import WebSocket
from openclaw_egress.wire.content_encoding import BodyDecoder

READ_AHEAD = 2 * 1024 * 1024
"""Maximum bytes of a request's body that are searched for the model's name. The search keeps no copy of them."""

READER_BYTES = 8 * 1024 * 1024
"""Maximum bytes that the response reader keeps (`llm.parsers`)."""

MAX_DECODED = 64 * 1024 * 1024
"""Limit of decoded bytes. Beyond it the body counts as a decompression bomb, and only its wire size is counted."""

JOURNAL_PIECE = 256 * 1024
"""Size of the pieces in which the kept beginning of a body goes to the journal."""

WEBSOCKET_VERSION = "13"
"""The only version of the WebSocket protocol (RFC 6455, section 4.1)."""

TAIL_SHARE = 4
"""A truncated body keeps 1/TAIL_SHARE of its limit for its end, and the rest for its beginning."""


class BodyCapture:
    """The capture of one body: decodes and hashes the passing bytes, and keeps the head and the tail.

    Args:
        limit: bytes (decoded) that the record may keep.
        content_encoding: the Content-Encoding header's value, or None.
    """

    def __init__(self, limit: int, content_encoding: str | None) -> None:
        self._limit = limit
        self._decoder = BodyDecoder(content_encoding, MAX_DECODED)
        self._encoded = (content_encoding or "identity").strip().lower() not in ("", "identity")
        self._head = bytearray()
        self._tail = bytearray()
        self._raw = bytearray()
        self._raw_hash = hashlib.sha256()
        self._hash = hashlib.sha256()
        self._damaged = False
        self._whole = True
        self.wire_size = 0
        self.size = 0

    def feed(self, wire: bytes) -> Iterator[bytes]:
        """Consume a chunk as received, and yield its decoded bytes in bounded pieces, possibly none.

        The chunk is consumed only when the iterator is exhausted.
        """
        self.wire_size += len(wire)
        if self._encoded:
            self._raw_hash.update(wire)
            if len(self._raw) < self._limit:
                self._raw += wire[: self._limit - len(self._raw)]
        for piece in self._decoder.pieces(wire):
            yield self._take(piece)

    def finish(self, *, whole: bool = True) -> None:
        """End the body; ``whole`` says whether its end was received.

        If an encoded body ends too early, the capture keeps the part that can be decoded.
        """
        self._damaged = self._decoder.error is not None
        self._whole = whole
        self._decoder.finish()
        if whole:
            self._damaged = self._decoder.error is not None

    def _take(self, data: bytes) -> bytes:
        if data:
            self.size += len(data)
            self._hash.update(data)
            room = self._limit - len(self._head)
            if room > 0:
                self._head += data[:room]
            # While the head still has room, it already holds the end of the body, so the tail stays empty.
            tail = self._limit // TAIL_SHARE
            if tail and len(data) > room:
                self._tail += data[max(room, len(data) - tail) :]
                del self._tail[:-tail]
        return data

    @property
    def held(self) -> int:
        """Return how many bytes of memory the body takes, including its decoders."""
        # Count the allocated bytes: a growing bytearray allocates an eighth more than its length.
        buffers = self._head.__alloc__() + self._tail.__alloc__() + self._raw.__alloc__()
        return buffers + self._decoder.held

    def expected(self, length: int) -> int:
        """Return how many bytes of memory a body of this length on the wire will take; a compressed body takes more."""
        kept = min(length, self._limit + self._limit // TAIL_SHARE)
        kept += kept // 8
        return kept + (min(length, self._limit) if self._encoded else 0)

    @property
    def all_kept(self) -> bool:
        """Return whether the decoded body so far is in memory."""
        return self.size <= self._limit

    def kept(self) -> memoryview:
        """Return the kept beginning of the decoded body. Release the view before the next chunk."""
        return memoryview(self._head)

    def beginning(self, length: int | None = None) -> Iterator[bytes]:
        """Yield the kept beginning of the decoded body in pieces, at most ``limit`` or ``length`` bytes together.

        Call it before :meth:`drop_spare`.
        """
        end = len(self._head) if length is None else min(length, len(self._head))
        for start in range(0, end, JOURNAL_PIECE):
            yield bytes(self._head[start : min(start + JOURNAL_PIECE, end)])

    def forget(self) -> None:
        """Free the bytes of the body. Call this after the record has copied them."""
        self._head, self._tail, self._raw = bytearray(), bytearray(), bytearray()

    def drop_spare(self) -> None:
        """Free the memory that :meth:`body` does not need. Call this after the body is finished."""
        if self.undecodable:
            self._head, self._tail = bytearray(), bytearray()
            return
        self._raw = bytearray()
        if self.size <= self._limit:
            self._tail = bytearray()
        else:
            if missing := self._limit // TAIL_SHARE - len(self._tail):
                self._tail[:0] = self._head[-missing:]
            del self._head[self._limit - len(self._tail) :]

    @property
    def truncated(self) -> bool:
        """Return whether the record lacks bytes of this body."""
        if self.undecodable:
            return self.wire_size > self._limit
        return self.size > self._limit or self._decoder.exhausted

    @property
    def undecodable(self) -> bool:
        """Return whether the finished body is stored undecoded, because it could not be decoded."""
        return self._encoded and self._damaged and not self._decoder.exhausted

    def body(self) -> Body | None:
        """Return the body to record; None if there was no body.

        A body that could not be decoded is kept unmodified, as base64.
        """
        if not self.wire_size:
            return None
        if self.undecodable:
            return Body(
                text=base64.b64encode(bytes(self._raw)).decode(),
                encoding="base64",
                size=self.wire_size,
                sha256=self._raw_hash.hexdigest() if self._whole else None,
                truncated=self.truncated,
            )
        text, encoding = _text_of(self._kept(), cut=self.truncated or not self._whole)
        return Body(
            text=text,
            encoding=encoding,
            size=self.size,
            sha256=self._hash.hexdigest() if self._whole else None,
            truncated=self.truncated,
        )

    def _kept(self) -> tuple[bytes, bytes, int]:
        """Return the head, the tail and the number of bytes left out between them."""
        if self.size <= self._limit:
            return bytes(self._head[: self._limit]), b"", 0
        tail = self._end()
        head = bytes(self._head[: self._limit - len(tail)])
        return head, tail, self.size - len(head) - len(tail)

    def _end(self) -> bytes:
        """Return the end of a body that is longer than the limit."""
        missing = self._limit // TAIL_SHARE - len(self._tail)
        return bytes(self._head[-missing:] + self._tail) if missing > 0 else bytes(self._tail)


def _text_of(kept: tuple[bytes, bytes, int], *, cut: bool) -> tuple[str, str]:
    head, tail, missing = kept
    if cut:  # Drop a character that was cut in two: the rest may be valid text, which needs no base64.
        head, tail = _whole_characters(head), _without_torn_start(tail)
    try:
        texts = head.decode(), tail.decode()
    except UnicodeDecodeError:
        return base64.b64encode(head + tail).decode(), "base64"
    return (f"{texts[0]}\n[… {missing} bytes left out …]\n{texts[1]}" if missing else texts[0]), "utf-8"


def _whole_characters(data: bytes) -> bytes:
    """Drop an incomplete UTF-8 character (at most three bytes) from the end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 1 if byte < 0x80 else 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4
        return data if needed <= back else data[:-back]
    return data


def _without_torn_start(data: bytes) -> bytes:
    """Drop an incomplete UTF-8 character (at most three bytes) from the beginning."""
    for index in range(min(3, len(data))):
        if data[index] & 0xC0 != 0x80:
            return data[index:]
    return data[min(3, len(data)) :]


type Headers = list[tuple[str, str]]


@dataclass(slots=True)
class ExchangeCapture:
    """The capture of one exchange in progress. Times are nanoseconds since the epoch."""

    id: str
    class_name: str
    rule: str
    reason: str
    method: str
    url: str
    host: str
    port: int
    http_version: str
    request_headers: Headers
    begin_ns: int
    body_limit: int
    path: str = "/"
    client: str = ""
    code: str = ""
    status: int | None = None
    response_headers: Headers = field(default_factory=list)
    first_chunk_ns: int | None = None
    request: BodyCapture = field(init=False)
    response: BodyCapture = field(init=False)
    request_facts: RequestFacts = field(init=False)
    secret: bool = field(init=False)
    """Whether the bodies are credentials: neither the record nor the journal keeps a byte or a hash of them."""
    websocket: WebSocket | None = field(init=False, default=None)
    """The messages of a WebSocket so far; None for an exchange with bodies."""
    _request_scan: CredentialScan | None = field(init=False, default=None)
    _response_scan: CredentialScan | None = field(init=False, default=None)
    _reader: ResponseReader | None = field(init=False, default=None)
    _request_reader: RequestReader | None = field(init=False, default=None)
    _request_over: bool = field(init=False, default=False)
    _request_fed: bool = field(init=False, default=False)
    """Whether the request's reader reads the body piece by piece."""
    _request_known: dict[str, Any] | None = field(init=False, default=None)
    """Redacted fields of the request's head, stored because the head does not change; None before the first use."""

    def __post_init__(self) -> None:
        self.secret = is_token_endpoint(self.host, self.path)
        self.request = BodyCapture(self.limit, _header(self.request_headers, "content-encoding"))
        self._request_reader = None if self.secret else request_reader(self.host, self.path)
        self.response = BodyCapture(self.limit, None)
        self.request_facts = RequestFacts()
        self._request_scan = self._scan(self.request_headers)

    @property
    def limit(self) -> int:
        """Return how many bytes of each body may be recorded: 0 once the bodies are known to be credentials."""
        return 0 if self.secret else self.body_limit

    @property
    def scanned(self) -> bool:
        """Return whether the bodies are scanned for credentials. If so, no byte may be written before a body ends."""
        return self._request_scan is not None

    def request_chunk(self, wire: bytes) -> Iterator[bytes]:
        """Consume a chunk of the request's body, and yield its decoded bytes (see `BodyCapture.feed`)."""
        for piece in self.request.feed(wire):
            self._look(self._request_scan, piece)
            self._read_request(piece)
            yield piece

    def _read_request(self, piece: bytes) -> None:
        """Pass a piece to the request's reader, unless the whole body can be read at its end."""
        if self._request_reader is None or self.request.all_kept:
            return
        before = self.request.size - len(piece)
        if not self._request_fed:
            self._request_fed = True
            for kept in self.request.beginning(min(before, READ_AHEAD)):
                self._request_reader.feed(kept)
        if before < READ_AHEAD:
            self._request_reader.feed(piece[: READ_AHEAD - before])

    def _scan(self, headers: Headers) -> CredentialScan | None:
        return None if self.secret else scan_for(self.host, self.path, _header(headers, "content-type"))

    def _look(self, scan: CredentialScan | None, piece: bytes) -> None:
        if scan is not None:
            scan.feed(piece)
            self.secret = self.secret or scan.found

    def _look_at_raw(self, scan: CredentialScan | None, body: BodyCapture) -> None:
        """End a body's scan. Withhold a body that could not be decoded, because it could not be scanned."""
        if scan is not None:
            if body.wire_size and body.undecodable:
                scan.unreadable()
            scan.finish()
            self.secret = self.secret or scan.found

    def request_done(self, *, whole: bool = True) -> None:
        """End the request: it is complete, or no more of it will be received."""
        if self._request_over:
            return
        self._request_over = True
        self.request.finish(whole=whole)
        self._look_at_raw(self._request_scan, self.request)
        if self.secret:
            self.request_facts = read_request(self.host, self.path, None)
        elif self._request_reader is not None:
            if not self._request_fed:
                # The reader also reads a body whose end is missing.
                with self.request.kept() as body:
                    self._request_reader.whole(body)
            self.request_facts = self._request_reader.finish()
        self._request_reader = None

    def response_began(self, status: int, headers: Headers) -> None:
        """Note the status and the headers of the response."""
        self.status = status
        self.response_headers = headers
        self.response = BodyCapture(self.limit, _header(headers, "content-encoding"))
        self._response_scan = self._scan(headers)
        if not self.secret:
            known = {name.lower(): value for name, value in headers}
            self._reader = response_reader(self.host, self.path, _header(headers, "content-type"), known)

    def response_chunk(self, wire: bytes, now_ns: int) -> Iterator[bytes]:
        """Consume a chunk of the response's body, and yield its decoded bytes (see `BodyCapture.feed`)."""
        if self.first_chunk_ns is None and wire:
            self.first_chunk_ns = now_ns
        for piece in self.response.feed(wire):
            self._look(self._response_scan, piece)
            if self._reader is not None:
                self._reader.feed(piece)
            yield piece

    def upgraded(self, websocket: WebSocket, reader: ResponseReader | None) -> None:
        """Capture the messages of a WebSocket instead of bodies. ``reader`` gets the server's messages as lines."""
        self.websocket = websocket
        self.http_version = WEBSOCKET_VERSION
        self.request, self.response = BodyCapture(self.limit, None), BodyCapture(self.limit, None)
        self._request_scan, self._response_scan = self._scan([]), self._scan([])
        self._request_over = False
        self._reader = None if self.secret else reader

    def messages(self, added: bytes, lines: bytes, now_ns: int, *, sent: bool, ended: bool) -> None:
        """Consume messages of one direction.

        After the end of a message, `secret` says whether the messages so far hold a credential.

        Args:
            added: the bytes that the messages add to the body (`websocket_messages.Messages.add`).
            lines: the same bytes for the reader, without line feeds inside of messages.
            now_ns: the current time in Unix nanoseconds.
            sent: whether the client sent the messages.
            ended: whether the last message is complete.
        """
        scan = self._request_scan if sent else self._response_scan
        if not sent and self.first_chunk_ns is None:
            self.first_chunk_ns = now_ns
        reader = self._request_reader if sent else self._reader
        for piece in (self.request if sent else self.response).feed(added):
            self._look(scan, piece)
        if reader is not None:
            reader.feed(lines)
        if ended and scan is not None:
            scan.end_message()
            self.secret = self.secret or scan.found

    @property
    def held(self) -> int:
        """Return how many bytes of memory the exchange's bodies take."""
        read = min(self.response.size, READER_BYTES) * 9 // 8 if self._reader is not None else 0
        return self.request.held + self.response.held + read

    def expected(self, length: int, *, response: bool = False) -> int:
        """Return how many bytes of memory the exchange will take with a body of this length on the wire."""
        if not response:
            return self.request.expected(length)
        read = min(length, READER_BYTES) * 9 // 8 if self._reader is not None else 0
        return self.request.held + self.response.expected(length) + read

    def forget_bodies(self) -> None:
        """Free the bodies once the exchange is recorded."""
        self.request.forget()
        self.response.forget()
        self._reader = None

    def _response_done(self, *, whole: bool) -> ResponseFacts:
        self.response.finish(whole=whole)
        self._look_at_raw(self._response_scan, self.response)
        return self._reader.finish() if self._reader is not None and not self.secret else ResponseFacts()

    @property
    def _withheld(self) -> bool:
        return self.secret and bool(self.request.wire_size or self.response.wire_size)

    def _body(self, body: BodyCapture) -> Body | None:
        if not self.secret or not body.wire_size:
            return body.body()
        # Keep no hash either: a short secret can be found by guessing.
        return Body(text=REDACTED, encoding="utf-8", size=body.size or body.wire_size, sha256=None, truncated=True)

    def known(self) -> dict[str, Any]:
        """Return the redacted fields of an `ExchangeRecord` that are known so far, without bodies, end and outcome."""
        if self._request_known is None:
            trace_id, span_id = _trace(_header(self.request_headers, "traceparent"))
            self._request_known = {
                "url": redact_url(self.url),
                "request_headers": redact_headers(self.request_headers),
                "key_fingerprint": key_fingerprint(self.request_headers),
                "trace_id": trace_id,
                "span_id": span_id,
            }
        return self._request_known | {
            "id": self.id,
            "class_name": self.class_name,
            "rule": self.rule,
            "reason": self.reason,
            "code": self.code,
            "begin_ns": self.begin_ns,
            "first_chunk_ns": self.first_chunk_ns,
            "method": self.method,
            "host": self.host,
            "port": self.port,
            "client": self.client,
            "http_version": self.http_version,
            "status": self.status,
            "response_headers": redact_headers(self.response_headers),
            "request_size": self.websocket.sent.size if self.websocket else self.request.wire_size,
            "response_size": self.websocket.received.size if self.websocket else self.response.wire_size,
            "request_facts": self.request_facts,
            "websocket": self.websocket.facts() if self.websocket else None,
        }

    def record(self, outcome: str, end_ns: int, error_type: str | None = None) -> ExchangeRecord:
        """Return the exchange as a redacted record; call this once. ``outcome`` is one of `records.OUTCOMES`."""
        self.request_done(whole=False)
        facts = self._response_done(whole=outcome == "complete")
        return ExchangeRecord(
            **self.known(),
            outcome=outcome,
            end_ns=end_ns,
            request_body=self._body(self.request),
            response_body=self._body(self.response),
            body_truncated=self.request.truncated or self.response.truncated or self._withheld,
            response_facts=facts,
            error_type=error_type or facts.error_type,
        )


def _header(headers: Headers, name: str) -> str | None:
    """Return all values of a header joined as one (RFC 9110, section 5.3), or None."""
    values = [value for key, value in headers if key.lower() == name]
    return ", ".join(values) if values else None


def _trace(traceparent: str | None) -> tuple[str | None, str | None]:
    """Return trace and span id of a W3C traceparent (https://www.w3.org/TR/trace-context/), as lower-case hex."""
    parts = (traceparent or "").strip().split("-")
    if len(parts) < 4 or len(parts[0]) != 2 or len(parts[1]) != 32 or len(parts[2]) != 16:
        return None, None
    try:
        if int(parts[1], 16) == 0 or int(parts[2], 16) == 0:
            return None, None
    except ValueError:
        return None, None
    return parts[1].lower(), parts[2].lower()
