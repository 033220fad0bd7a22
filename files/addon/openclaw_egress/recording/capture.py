"""Capture of one exchange: builds the record from the passing bytes. It does no I/O.

Capturing never delays a chunk, and no content of the traffic makes it raise. The memory of each exchange is bounded:
the capture keeps only the head and the tail of a body, a hash of the whole body, and the sizes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from openclaw_egress.llm import RequestReader, ResponseReader, read_request, request_reader, response_reader
from openclaw_egress.llm.model import RequestFacts, ResponseFacts
from openclaw_egress.policy.mask_patterns import MaskPattern
from openclaw_egress.recording.credentials import CredentialScan, scan_for
from openclaw_egress.recording.masking import Masker, mask_json, mask_text
from openclaw_egress.recording.records import Body, ExchangeRecord
from openclaw_egress.recording.redaction import REDACTED, is_token_endpoint, key_fingerprint, redact_headers, redact_url
from openclaw_egress.recording.websocket_messages import WebSocket
from openclaw_egress.wire.content_encoding import BodyDecoder

READ_AHEAD = 2 * 1024 * 1024
"""Maximum number of bytes of a request's body that are searched for the model's name. The search keeps no copy."""

READER_BYTES = 8 * 1024 * 1024
"""Maximum number of bytes that the response reader (`llm.parsers`) keeps in memory."""

MAX_DECODED = 64 * 1024 * 1024
"""Maximum number of decoded bytes of an encoded body. Decoding stops there, because of decompression bombs."""

JOURNAL_PIECE = 256 * 1024
"""Size of the pieces in which the recorded beginning of a body is written to the journal."""

WEBSOCKET_VERSION = "13"
"""The only version of the WebSocket protocol (RFC 6455, section 4.1)."""

TAIL_SHARE = 4
"""In the record of a truncated body, 1/TAIL_SHARE of the limit is for the end, and the rest for the beginning."""


type Masks = Sequence[MaskPattern] | None
"""The operator's patterns to mask in addition to the known formats; None if bodies are not masked."""


class BodyCapture:
    """The capture of one body: decodes, hashes and masks the passing bytes, and keeps the masked head and tail.

    Size and hash are those of the decoded bytes before masking.

    Args:
        limit: maximum number of bytes of the body, decoded and masked, in the record.
        content_encoding: the Content-Encoding header's value, or None.
        masks: the operator's patterns to mask, or None to mask nothing.
        read_at_end: whether the caller needs :meth:`kept`. This takes more memory if a secret is masked.
    """

    def __init__(
        self, limit: int, content_encoding: str | None, masks: Masks = None, *, read_at_end: bool = False
    ) -> None:
        self._limit = limit
        self._read_at_end = read_at_end
        self._masks = masks
        self._masker = None if masks is None or not limit else Masker(masks)
        self._unmasked: bytearray | None = None
        """The beginning of the decoded body, for the request's reader; None until a secret is masked in `_head`."""
        self._raw_masked = 0
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
        self._recorded = 0
        """Number of bytes of the decoded and masked body so far, without those that the masker holds back."""

    def feed(self, wire: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Consume a chunk as received, and yield its decoded bytes in pieces of bounded size.

        Each item is a pair: the decoded bytes, and the masked bytes that may be written to the disk. The masker can
        hold back bytes of a piece and return them with a later one. The chunk is consumed only when the iterator is
        exhausted.
        """
        self.wire_size += len(wire)
        if self._encoded:
            self._raw_hash.update(wire)
            if len(self._raw) < self._limit:
                self._raw += wire[: self._limit - len(self._raw)]
        for piece in self._decoder.pieces(wire):
            yield piece, self._take(piece)

    def finish(self, *, whole: bool = True) -> bytes:
        """End the body. ``whole`` says whether its end was received. Return the bytes that the masker held back.

        If an encoded body ends too early, the capture keeps the part that can be decoded.
        """
        self._damaged = self._decoder.error is not None
        self._whole = whole
        self._decoder.finish()
        if whole:
            self._damaged = self._decoder.error is not None
        return self.end_message()

    def end_message(self) -> bytes:
        """Record and return the bytes that the masker holds back: no secret continues in the next message."""
        return b"" if self._masker is None else self._mask(self._masker, b"", final=True)

    def _take(self, data: bytes) -> bytes:
        """Count, hash and mask decoded bytes, and keep the result. Return the bytes that may be written to the disk."""
        if not data:
            return data
        self.size += len(data)
        self._hash.update(data)
        if self._masker is not None:
            return self._mask(self._masker, data)
        self._keep(data)
        return data

    def _mask(self, masker: Masker, data: bytes, *, final: bool = False) -> bytes:
        held, count = masker.held, masker.count
        masked = masker.finish() if final else masker.feed(data)
        if self._unmasked is not None:
            self._unmasked += data[: self._limit - len(self._unmasked)]
        elif self._read_at_end and masker.count > count:
            # Create `_unmasked` at the first masked secret, because until then `_head` equals the decoded bytes.
            self._unmasked = (self._head + held + data)[: self._limit]
        self._keep(masked)
        return masked

    def _keep(self, data: bytes) -> None:
        if data:
            self._recorded += len(data)
            room = self._limit - len(self._head)
            if room > 0:
                self._head += data[:room]
            # Leave the tail empty while the head has room, because the head then contains the end of the body.
            tail = self._limit // TAIL_SHARE
            if tail and len(data) > room:
                self._tail += data[max(room, len(data) - tail) :]
                del self._tail[:-tail]

    @property
    def held(self) -> int:
        """Return how many bytes of memory the body takes, including its decoders."""
        # Count the allocated bytes: a growing bytearray allocates an eighth more than its length.
        buffers = self._head.__alloc__() + self._tail.__alloc__() + self._raw.__alloc__()
        buffers += self._unmasked.__alloc__() if self._unmasked is not None else 0
        return buffers + self._decoder.held + (len(self._masker.held) if self._masker is not None else 0)

    def expected(self, length: int) -> int:
        """Estimate the memory in bytes for a body of this length on the wire. A compressed body can take more."""
        kept = min(length, self._limit + self._limit // TAIL_SHARE)
        kept += kept // 8
        return kept + (min(length, self._limit) if self._encoded else 0)

    @property
    def all_kept(self) -> bool:
        """Return whether all of the decoded body so far is in memory."""
        return self.size <= self._limit

    def kept(self) -> memoryview:
        """Return the beginning of the finished body, decoded but not masked.

        Release the view before the capture changes: a bytearray with a view cannot be resized.
        """
        return memoryview(self._head if self._unmasked is None else self._unmasked)

    def decoded(self, length: int) -> bytes:
        """Return the first ``length`` bytes of the decoded body before masking, but at most ``limit`` bytes."""
        if self._unmasked is not None:
            return bytes(self._unmasked[:length])
        return (
            bytes(self._head[:length])
            + (self._masker.held if self._masker is not None else b"")[: max(length - len(self._head), 0)]
        )

    def beginning(self) -> Iterator[bytes]:
        """Yield the recorded beginning of the body, at most ``limit`` bytes, decoded and masked, in pieces.

        Call this before :meth:`drop_spare`.
        """
        for start in range(0, len(self._head), JOURNAL_PIECE):
            yield bytes(self._head[start : start + JOURNAL_PIECE])

    def forget(self) -> None:
        """Free the bytes of the body. Call this after the record has copied them."""
        self._head, self._tail, self._raw, self._unmasked = bytearray(), bytearray(), bytearray(), None

    def drop_spare(self) -> None:
        """Free the memory that :meth:`body` does not need. Call this after the body is finished."""
        self._unmasked = None
        if self.undecodable:
            self._head, self._tail = bytearray(), bytearray()
            return
        self._raw = bytearray()
        if self._recorded <= self._limit:
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
        return self._recorded > self._limit or self._decoder.exhausted

    @property
    def undecodable(self) -> bool:
        """Return whether the finished body is stored undecoded, because it could not be decoded."""
        return self._encoded and self._damaged and not self._decoder.exhausted

    @property
    def masked(self) -> int:
        """Return the number of masked secrets so far."""
        return self._raw_masked or (self._masker.count if self._masker is not None else 0)

    @property
    def sha256(self) -> str | None:
        """Return the hash of the finished body before masking; None if its end did not arrive."""
        return self._hash.hexdigest() if self._whole else None

    def body(self) -> Body | None:
        """Return the body to record; None if there was no body.

        A body that could not be decoded is recorded as received, but masked and in base64.
        """
        if not self.wire_size:
            return None
        if self.undecodable:
            return Body(
                text=base64.b64encode(self._masked_raw()).decode(),
                encoding="base64",
                size=self.wire_size,
                sha256=self._raw_hash.hexdigest() if self._whole else None,
                truncated=self.truncated,
                masked=self._raw_masked,
            )
        text, encoding = _text_of(self._kept(), cut=self.truncated or not self._whole)
        return Body(
            text=text,
            encoding=encoding,
            size=self.size,
            sha256=self.sha256,
            truncated=self.truncated,
            masked=self.masked,
        )

    def _masked_raw(self) -> bytes:
        """Return the received bytes of a body that could not be decoded, with secrets masked."""
        if self._masks is None:
            return bytes(self._raw)
        masker = Masker(self._masks)
        masked = masker.feed(bytes(self._raw))
        # Leave out the end of a truncated body, because it may be part of a secret.
        masked += b"" if self.truncated else masker.finish()
        self._raw_masked = masker.count
        return masked

    def _kept(self) -> tuple[bytes, bytes, int]:
        """Return the head, the tail, and the number of bytes between them that are left out."""
        if self._recorded <= self._limit:
            return bytes(self._head[: self._limit]), b"", 0
        tail = self._end()
        head = bytes(self._head[: self._limit - len(tail)])
        return head, tail, self._recorded - len(head) - len(tail)

    def _end(self) -> bytes:
        """Return the recorded end of a body that is longer than the limit."""
        missing = self._limit // TAIL_SHARE - len(self._tail)
        return bytes(self._head[-missing:] + self._tail) if missing > 0 else bytes(self._tail)


def _text_of(kept: tuple[bytes, bytes, int], *, cut: bool) -> tuple[str, str]:
    head, tail, missing = kept
    if cut:  # Drop a character that was cut in two, because the rest may be valid text.
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
    instance: str = ""
    code: str = ""
    masks: Masks = ()
    status: int | None = None
    response_headers: Headers = field(default_factory=list)
    first_chunk_ns: int | None = None
    request: BodyCapture = field(init=False)
    response: BodyCapture = field(init=False)
    request_facts: RequestFacts = field(init=False)
    secret: bool = field(init=False)
    """Whether the bodies are credentials. If so, neither record nor journal contains a byte or a hash of them."""
    websocket: WebSocket | None = field(init=False, default=None)
    """The messages of a WebSocket so far; None for an exchange with bodies."""
    _request_scan: CredentialScan | None = field(init=False, default=None)
    _response_scan: CredentialScan | None = field(init=False, default=None)
    _reader: ResponseReader | None = field(init=False, default=None)
    _request_reader: RequestReader | None = field(init=False, default=None)
    _request_over: bool = field(init=False, default=False)
    _request_fed: bool = field(init=False, default=False)
    """Whether the request's reader reads the body piece by piece."""
    _response_headers_known: Headers | None = field(init=False, default=None)
    _request_known: dict[str, Any] | None = field(init=False, default=None)
    """Cached redacted fields of the request's head, which never changes; None before the first use."""

    def __post_init__(self) -> None:
        self.secret = is_token_endpoint(self.host, self.path)
        encoding = _header(self.request_headers, "content-encoding")
        self.request = BodyCapture(self.limit, encoding, self.masks, read_at_end=True)
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
        """Return whether the bodies are scanned for credentials. If so, journal no byte of a body before its end."""
        return self._request_scan is not None

    def request_chunk(self, wire: bytes) -> Iterator[bytes]:
        """Consume a chunk of the request's body, and yield its decoded and masked bytes (see `BodyCapture.feed`)."""
        for piece, masked in self.request.feed(wire):
            self._look(self._request_scan, piece)
            self._read_request(piece)
            yield masked

    def _read_request(self, piece: bytes) -> None:
        """Pass a piece to the request's reader, unless the whole body is in memory: `request_done` reads it then."""
        if self._request_reader is None or self.request.all_kept:
            return
        before = self.request.size - len(piece)
        if not self._request_fed:
            self._request_fed = True
            self._request_reader.feed(self.request.decoded(min(before, READ_AHEAD)))
        if before < READ_AHEAD:
            self._request_reader.feed(piece[: READ_AHEAD - before])

    def _scan(self, headers: Headers) -> CredentialScan | None:
        return None if self.secret else scan_for(self.host, self.path, _header(headers, "content-type"))

    def _look(self, scan: CredentialScan | None, piece: bytes) -> None:
        if scan is not None:
            scan.feed(piece)
            self.secret = self.secret or scan.found

    def _look_at_raw(self, scan: CredentialScan | None, body: BodyCapture) -> None:
        """End the scan of a body. Treat an undecodable body as a credential, because it could not be scanned."""
        if scan is not None:
            if body.wire_size and body.undecodable:
                scan.unreadable()
            scan.finish()
            self.secret = self.secret or scan.found

    def request_done(self, *, whole: bool = True) -> bytes:
        """End the request: it is complete, or no more of it will be received.

        Return the masked bytes that :meth:`request_chunk` has not yielded yet.
        """
        if self._request_over:
            return b""
        self._request_over = True
        rest = self.request.finish(whole=whole)
        self._look_at_raw(self._request_scan, self.request)
        if self.secret:
            self.request_facts = read_request(self.host, self.path, None)
        elif self._request_reader is not None:
            if not self._request_fed:
                # Also read an incomplete body, because the reader can find the model's name in it.
                with self.request.kept() as body:
                    self._request_reader.whole(body)
            self.request_facts = self._request_reader.finish()
        self._request_reader = None
        return rest

    def response_began(self, status: int, headers: Headers) -> None:
        """Store the status and the headers of the response, and begin to capture its body."""
        self.status = status
        self.response_headers = headers
        self._response_headers_known = None
        self.response = BodyCapture(self.limit, _header(headers, "content-encoding"), self.masks)
        self._response_scan = self._scan(headers)
        if not self.secret:
            known = {name.lower(): value for name, value in headers}
            self._reader = response_reader(self.host, self.path, _header(headers, "content-type"), known)

    def response_chunk(self, wire: bytes, now_ns: int) -> Iterator[bytes]:
        """Consume a chunk of the response's body, and yield its decoded and masked bytes (see `BodyCapture.feed`)."""
        if self.first_chunk_ns is None and wire:
            self.first_chunk_ns = now_ns
        for piece, masked in self.response.feed(wire):
            self._look(self._response_scan, piece)
            if self._reader is not None:
                self._reader.feed(piece)
            yield masked

    def upgraded(self, websocket: WebSocket, reader: ResponseReader | None) -> None:
        """Capture the messages of a WebSocket instead of bodies. ``reader`` receives the server's messages as lines."""
        self.websocket = websocket
        self.http_version = WEBSOCKET_VERSION
        self.request = BodyCapture(self.limit, None, self.masks, read_at_end=True)
        self.response = BodyCapture(self.limit, None, self.masks)
        self._request_scan, self._response_scan = self._scan([]), self._scan([])
        self._request_over = False
        self._reader = None if self.secret else reader

    def messages(self, added: bytes, lines: bytes, now_ns: int, *, sent: bool, ended: bool) -> bytes:
        """Consume messages of one direction, and return their masked bytes.

        After the end of a message, `secret` shows whether the messages so far contain a credential.

        Args:
            added: the bytes that the messages add to the body (`websocket_messages.Messages.add`).
            lines: the same bytes for the reader, with each message on one line.
            now_ns: the current time in Unix nanoseconds.
            sent: whether the client sent the messages.
            ended: whether the last message is complete.
        """
        scan = self._request_scan if sent else self._response_scan
        if not sent and self.first_chunk_ns is None:
            self.first_chunk_ns = now_ns
        reader = self._request_reader if sent else self._reader
        body, recorded = self.request if sent else self.response, []
        for piece, masked in body.feed(added):
            self._look(scan, piece)
            recorded.append(masked)
        if reader is not None:
            reader.feed(lines)
        if ended:
            recorded.append(body.end_message())
        if ended and scan is not None:
            scan.end_message()
            self.secret = self.secret or scan.found
        return b"".join(recorded)

    @property
    def held(self) -> int:
        """Return how many bytes of memory the bodies of the exchange take."""
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
        # Do not record the hash either, because a short secret can be guessed from its hash.
        return Body(text=REDACTED, encoding="utf-8", size=body.size or body.wire_size, sha256=None, truncated=True)

    def known(self) -> dict[str, Any]:
        """Return the redacted fields of an `ExchangeRecord` known so far, without the bodies, outcome and end time."""
        if self._response_headers_known is None:
            self._response_headers_known = self._redacted(self.response_headers)
        if self._request_known is None:
            trace_id, span_id = _trace(_header(self.request_headers, "traceparent"))
            self._request_known = {
                "url": redact_url(self._own_masked(self.url)),
                "method": self.masked_text(self.method),
                "request_headers": self._redacted(self.request_headers),
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
            "host": self.host,
            "port": self.port,
            "client": self.client,
            "instance": self.instance,
            "http_version": self.http_version,
            "status": self.status,
            "response_headers": self._response_headers_known,
            "request_size": self.websocket.sent.size if self.websocket else self.request.wire_size,
            "response_size": self.websocket.received.size if self.websocket else self.response.wire_size,
            "request_facts": self._masked_texts(self.request_facts),
            "websocket": self.websocket.facts() if self.websocket else None,
        }

    def bodies(self) -> dict[str, dict[str, Any]]:
        """Return the fields of the bodies that cannot be computed from the masked bytes in the journal."""
        return {
            name: {"masked": body.masked, "size": body.size, "sha256": body.sha256}
            for name, body in (("request", self.request), ("response", self.response))
        }

    @property
    def masked(self) -> int:
        """Return the number of secrets that are masked in the bodies so far."""
        return self.request.masked + self.response.masked

    def masked_text(self, text: str) -> str:
        """Return a text from the traffic with its secrets masked."""
        return text if self.masks is None else mask_text(text, self.masks)

    def _own_masked(self, text: str) -> str:
        """Return a text with the operator's patterns masked. Redaction masks the known key formats later."""
        return mask_text(text, self.masks) if self.masks else text

    def _redacted(self, headers: Headers) -> Headers:
        return redact_headers((self.masked_text(name), self._own_masked(value)) for name, value in headers)

    def _masked_texts[Facts: RequestFacts | ResponseFacts](self, facts: Facts) -> Facts:
        """Return the metadata with its texts masked, because texts such as the model's name come from the traffic."""
        found: dict[str, Any] = {}
        for name in type(facts).__dataclass_fields__:
            value = getattr(facts, name)
            if isinstance(value, str) and (masked := self.masked_text(value)) != value:
                found[name] = masked
            elif isinstance(value, tuple):
                found[name] = tuple(self.masked_text(item) if isinstance(item, str) else item for item in value)
        return replace(facts, **found) if found else facts

    def _masked_messages(self, facts: ResponseFacts) -> tuple[ResponseFacts, int]:
        """Return the metadata with masked texts and messages, and the number of masked secrets in the messages."""
        facts = self._masked_texts(facts)
        if self.masks is None or not facts.messages:
            return facts, 0
        found = [mask_json(message, self.masks) for message in facts.messages]
        return replace(facts, messages=[message for message, _ in found]), sum(count for _, count in found)

    def record(self, outcome: str, end_ns: int, error_type: str | None = None) -> ExchangeRecord:
        """Return the exchange as a redacted record; call this once. ``outcome`` is one of `records.OUTCOMES`."""
        self.request_done(whole=False)
        facts, masked = self._masked_messages(self._response_done(whole=outcome == "complete"))
        request_body, response_body = self._body(self.request), self._body(self.response)
        return ExchangeRecord(
            **self.known(),
            outcome=outcome,
            end_ns=end_ns,
            request_body=request_body,
            response_body=response_body,
            masked=masked + sum(body.masked for body in (request_body, response_body) if body is not None),
            body_truncated=self.request.truncated or self.response.truncated or self._withheld,
            response_facts=facts,
            error_type=error_type or facts.error_type,
        )


def _header(headers: Headers, name: str) -> str | None:
    """Return the values of a header, joined with commas (RFC 9110, section 5.3), or None."""
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
