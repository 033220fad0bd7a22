"""The recorder: the mitmproxy add-on that commits every inspected exchange before its last byte passes.

A request is in the spool before its last byte goes upstream. A response is in the spool before its end goes to the
client. A body of known length up to `BUFFER_LIMIT` is held until it is committed, unless it is an event stream. All
other bodies stream, and a tap (a stream callable of mitmproxy) captures them:

* For a body that is chunked or ends with the connection, mitmproxy calls the tap once more at the end, without bytes.
* For a body of known length, the client sees the end at the last byte, so the tap commits before it passes that byte.

`websocket_recording` records the messages of a WebSocket. It uses this module through `_MessageJournal`.

If the spool cannot store a record, or any code here raises an exception, the request is refused with 503. A response in
progress is aborted, so that it never ends normally without a record.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from mitmproxy import connection, http
from mitmproxy.connection import ConnectionState

from openclaw_egress.llm import message_reader, provider_of
from openclaw_egress.llm.model import Billing, RequestFacts, Usage, text_of
from openclaw_egress.llm.pricing import PriceTable
from openclaw_egress.llm.registry import api_of
from openclaw_egress.observability.metrics import Call, Metrics
from openclaw_egress.policy.model import Decision
from openclaw_egress.proxy import memory
from openclaw_egress.proxy.access_control import (
    FURTHER,
    INSPECT,
    REFUSED,
    UPSTREAM_FAILURE,
    Allowed,
)
from openclaw_egress.proxy.budgets import Budgets
from openclaw_egress.proxy.counted_responses import CountedResponses, Retrieved
from openclaw_egress.proxy.error_responses import refusal
from openclaw_egress.proxy.fail_closed import fails_closed, respond_failed
from openclaw_egress.proxy.http1_limits import RESPONSE_PROBLEM
from openclaw_egress.proxy.layers import abort
from openclaw_egress.proxy.request_checks import sent_method
from openclaw_egress.proxy.websocket_layer import RELAY, WebSocketRelay
from openclaw_egress.proxy.websocket_recording import REALTIME, RESPONSES, WebSocketRecording
from openclaw_egress.recording.capture import ExchangeCapture, Masks
from openclaw_egress.recording.records import ExchangeRecord, error_type_of
from openclaw_egress.recording.websocket_messages import WebSocket
from openclaw_egress.spool.writer import Spool, SpoolError
from openclaw_egress.wire.http1_syntax import content_length

log = logging.getLogger("openclaw_egress.recorder")

EXCHANGE = "openclaw_egress.exchange"
"""Key in ``flow.metadata``. The value is the :class:`Exchange` that is being recorded."""

BUFFER_LIMIT = 1024 * 1024
"""Bodies of known length up to this limit, in bytes, are held until they are committed. Longer ones stream."""

JOURNAL_SECONDS = 0.05
"""Maximum delay before streamed bytes are written to the spool, unless the body is scanned for credentials."""

JOURNAL_BYTES = 64 * 1024
"""When this many streamed bytes wait, they are written to the spool immediately, not after `JOURNAL_SECONDS`."""


class OutOfMemory(Exception):
    """The memory budget refused an exchange while its body was decoded. The refusal is already recorded."""


@dataclass(slots=True)
class Exchange:
    """An exchange in progress: its capture, the bytes that wait for the journal, and whether it is committed."""

    capture: ExchangeCapture
    client: connection.Client
    request_held: bool
    """Whether the request is held: none of it goes upstream until it is committed."""
    request_committed: bool = False
    closed: bool = False
    opened: bool = False
    """Whether the exchange is in the journal."""
    failed: bool = False
    """Whether a stream callable raised an exception. If so, no further byte may pass."""
    withheld: bool = False
    """Whether the bodies were deleted from the journal, because one of them contains credentials."""
    journalled: int = 0
    waiting: dict[str, bytearray] = field(default_factory=lambda: {"request": bytearray(), "response": bytearray()})
    timer: asyncio.TimerHandle | None = None

    @property
    def held(self) -> int:
        """Return how many bytes of the exchange are in memory, for the memory budget."""
        return self.capture.held + sum(map(len, self.waiting.values()))

    def expected(self, length: int, *, response: bool = False) -> int:
        """Return how many bytes of memory a body of this length will take at most, for the memory budget."""
        return self.capture.expected(length, response=response)


class Recorder:
    """The add-on that records the exchanges marked by access control; see the module's docstring."""

    def __init__(
        self,
        spool: Spool,
        metrics: Metrics,
        body_limit: int,
        clock_ns: Callable[[], int] = time.time_ns,
        prices: PriceTable | None = None,
        budgets: Budgets | None = None,
        counted: CountedResponses | None = None,
        masks: Callable[[], Masks] = tuple,
        instance_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._instance_of = instance_of
        self._counted = counted or CountedResponses()
        self._spool = spool
        self._prices = prices
        self._budgets = budgets
        self._metrics = metrics
        self._body_limit = body_limit
        self._masks = masks
        self._now = clock_ns

    # ── exceptions in hooks ──────────────────────────────────────────────────────────────────────────────────

    def _message_failed(self, flow: http.HTTPFlow, error: Exception) -> None:
        """Send 503 if no part of the message was sent yet; otherwise abort the connection mid-message."""
        under_way = flow.request.stream if flow.response is None else flow.response.stream
        if under_way:
            flow.kill()  # type: ignore[no-untyped-call]
            _log_failure("cannot record a streaming exchange; aborting its connection", error)
            return
        respond_failed(flow)
        # End the exchange here, because the client gets the proxy's 503 instead of the server's response.
        exchange = flow.metadata.pop(EXCHANGE, None)
        if isinstance(exchange, Exchange):
            self._leave(exchange)
        self._refuse(flow, error)

    def _headers_failed(self, flow: http.HTTPFlow, error: Exception) -> None:
        flow.request.stream = False  # no part of the request was sent yet, so respond with 503
        self._message_failed(flow, error)

    def _response_failed(self, flow: http.HTTPFlow, error: Exception) -> None:
        flow.kill()  # type: ignore[no-untyped-call]
        _log_failure("cannot record a response; aborting its connection", error)

    def _error_failed(self, flow: http.HTTPFlow, error: Exception) -> None:
        exchange = self._exchange(flow)
        if exchange is not None:
            self._leave(exchange)
        _log_failure("cannot record a failed exchange now; it will be recorded as interrupted", error)

    # ── request ──────────────────────────────────────────────────────────────────────────────────────────────

    @fails_closed(_headers_failed)
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Begin an exchange, and decide whether its request is held or streamed."""
        if flow.response is not None or flow.error is not None:
            return
        allowed = flow.metadata.get(INSPECT)
        if not isinstance(allowed, Allowed):
            # Stream the request without a record: it is plain HTTP to a host that is not inspected.
            flow.request.stream = True
            return
        self._begin(flow, allowed)

    def _begin(self, flow: http.HTTPFlow, allowed: Allowed) -> None:
        request = flow.request
        self._check_spool()
        capture = self._capture(flow, allowed)
        length = content_length(request.headers.fields)
        chunked = length is None and "transfer-encoding" in request.headers
        exchange = Exchange(capture, flow.client_conn, request_held=not chunked and (length or 0) <= BUFFER_LIMIT)
        if not exchange.request_held:
            # Add the exchange to the journal now only if its request streams. A held request is added once it is
            # complete, because no part of it is sent upstream earlier.
            self._open(exchange)
        flow.metadata[EXCHANGE] = flow.metadata[memory.HELD] = exchange
        if not exchange.request_held:
            flow.request.stream = self._request_tap(exchange, length)

    def _check_spool(self) -> None:
        """Raise SpoolError if no further exchange can be recorded."""
        if self._spool.full:
            raise SpoolError("the spool is full and EGRESS_SPOOL_FULL=block")
        if not self._spool.works():
            raise SpoolError(self._spool.problem or "the spool cannot be written")

    def _capture(self, flow: http.HTTPFlow, allowed: Allowed) -> ExchangeCapture:
        request = flow.request
        return ExchangeCapture(
            id=str(uuid.uuid4()),
            class_name=allowed.class_name,
            instance=self._instance_of(allowed.class_name),
            rule=allowed.decision.rule,
            reason=allowed.decision.reason,
            method=sent_method(request),
            url=f"{request.scheme}://{request.host}{_port_text(request)}{request.path}",
            host=allowed.destination.host,
            port=allowed.destination.port,
            http_version=request.http_version.removeprefix("HTTP/"),
            request_headers=_headers(request.headers),
            begin_ns=self._now(),
            body_limit=self._body_limit,
            path=request.path.split("?", 1)[0],
            client=str(flow.client_conn.peername[0]),
            code=allowed.decision.code,
            masks=self._masks(),
        )

    def _open(self, exchange: Exchange, request: Iterable[bytes] = ()) -> None:
        """Add an exchange to the journal. ``request`` is the body of its request, if it is already complete."""
        capture = exchange.capture
        self._spool.open_exchange(capture.id, capture.class_name, self._head(exchange), request)
        exchange.opened = True
        if exchange.request_committed:
            exchange.journalled = min(capture.request.size, capture.limit)

    def _request_tap(self, exchange: Exchange, length: int | None) -> Callable[[bytes], bytes]:
        def tap(data: bytes) -> None:
            for piece in _charged(exchange, exchange.capture.request_chunk(data), request=True):
                if not exchange.capture.scanned:
                    self._keep(exchange, "request", piece)
            if not data or (length is not None and exchange.capture.request.wire_size >= length):
                self._commit_request(exchange)

        return _cutting(exchange, tap)

    @fails_closed(_message_failed)
    def request(self, flow: http.HTTPFlow) -> None:
        """Commit the complete request. mitmproxy then sends a held request, or the end of a streamed request."""
        exchange = self._exchange(flow)
        if exchange is None or flow.response is not None:
            return
        if not flow.request.stream and flow.request.raw_content:
            pieces = exchange.capture.request_chunk(flow.request.raw_content)
            try:
                _consume(_charged(exchange, pieces, request=True, answerable=True))
            except OutOfMemory:
                memory.refuse_held(flow.client_conn, flow)
                return
        self._commit_request(exchange)

    def _commit_request(self, exchange: Exchange) -> None:
        if exchange.request_committed:
            return
        capture = exchange.capture
        rest = capture.request_done()
        if exchange.opened:
            if not capture.scanned:
                self._keep(exchange, "request", rest)
            self._flush(exchange)
            self._journal_request(exchange)
        exchange.request_committed = True
        try:
            if exchange.opened:
                self._spool.update(capture.id, self._head(exchange))
            else:
                self._open(exchange, () if capture.secret else capture.request.beginning())
        except BaseException:
            exchange.request_committed = False
            raise
        capture.request.drop_spare()

    # ── response ─────────────────────────────────────────────────────────────────────────────────────────────

    @fails_closed(_response_failed)
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Decide whether the response is held or streamed."""
        exchange = self._exchange(flow)
        response = flow.response
        if response is None:
            return
        if exchange is None:
            if INSPECT not in flow.metadata and flow.request.stream:
                response.stream = True
            return
        exchange.capture.response_began(response.status_code, _headers(response.headers))
        length = content_length(response.headers.fields)
        is_events = "text/event-stream" in response.headers.get("content-type", "")
        held = length is not None and length <= BUFFER_LIMIT and not is_events
        if held and response.status_code != 101:
            return
        # A streamed response reaches the client before the exchange is committed, so journal the known fields now.
        self._spool.update(exchange.capture.id, self._head(exchange))
        if response.status_code != 101:
            response.stream = self._response_tap(exchange, length)

    def _response_tap(self, exchange: Exchange, length: int | None) -> Callable[[bytes], bytes]:
        def tap(data: bytes) -> None:
            for piece in _charged(exchange, exchange.capture.response_chunk(data, self._now()), request=False):
                if not exchange.capture.scanned:
                    self._keep(exchange, "response", piece)
            self._withhold_secrets(exchange)
            if not data or (length is not None and exchange.capture.response.wire_size >= length):
                self._close(exchange, "complete")

        return _cutting(exchange, tap)

    @fails_closed(_message_failed)
    def response(self, flow: http.HTTPFlow) -> None:
        """Commit the exchange. mitmproxy then sends a held response, or the end of a streamed response."""
        exchange = self._exchange(flow)
        if exchange is None or flow.response is None:
            return
        if flow.websocket is not None:
            self._begin_messages(flow, exchange)
            return
        if not flow.response.stream and flow.response.raw_content:
            pieces = exchange.capture.response_chunk(flow.response.raw_content, self._now())
            try:
                # Do not write the body to the journal, because the whole exchange is committed next.
                _consume(_charged(exchange, pieces, request=False))
            except OutOfMemory:
                flow.kill()  # type: ignore[no-untyped-call]
                return
        self._close(exchange, "complete")

    @fails_closed(_error_failed)
    def error(self, flow: http.HTTPFlow) -> None:
        """Record an incomplete exchange after the client has disconnected or the provider has failed."""
        exchange = self._exchange(flow)
        if exchange is None:
            return
        message = flow.error.msg if flow.error else ""
        # mitmproxy's error message is the same whether the client or the server failed, so check the client's state.
        gone = not flow.client_conn.state & ConnectionState.CAN_READ
        malformed = RESPONSE_PROBLEM in flow.metadata
        if gone:
            self._close(exchange, "client_aborted", "client_aborted")
        elif UPSTREAM_FAILURE in flow.metadata:
            self._close(exchange, "upstream_error", flow.metadata[UPSTREAM_FAILURE])
        else:
            self._close(exchange, "upstream_error", "protocol_error" if malformed else _error_type(message))

    # ── WebSocket ────────────────────────────────────────────────────────────────────────────────────────────

    def _begin_messages(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Start to record messages before the client receives the handshake response, so that no message is missed."""
        capture, api = exchange.capture, api_of(flow.request.path)
        name = api.name if api is not None else None
        capture.upgraded(WebSocket(capture.id), None if name == RESPONSES else message_reader(capture.path))
        if api is not None and name == REALTIME:
            model = text_of(flow.request.query.get("model"))
            capture.request_facts = RequestFacts(api.operation, provider_of(capture.host), model, True)
        exchange.request_held = exchange.request_committed = False
        self._spool.update(capture.id, self._head(exchange))
        recording = WebSocketRecording(_MessageJournal(self, flow), exchange, api=name, decide=flow.metadata[FURTHER])
        flow.metadata[memory.HELD] = recording
        flow.metadata[RELAY] = partial(WebSocketRelay, messages=recording, failed=self._messages_failed)

    def _messages_failed(self, error: Exception) -> None:
        _log_failure("cannot record the messages of a WebSocket; closing it", error)

    # ── journal ──────────────────────────────────────────────────────────────────────────────────────────────

    def _keep(self, exchange: Exchange, direction: str, decoded: bytes) -> None:
        """Buffer streamed bytes. Write them to the journal after JOURNAL_SECONDS, or once they reach JOURNAL_BYTES."""
        room = exchange.capture.limit - exchange.journalled
        if not decoded or room <= 0 or exchange.closed:
            return
        exchange.journalled += len(decoded[:room])
        exchange.waiting[direction] += decoded[:room]
        if sum(map(len, exchange.waiting.values())) >= JOURNAL_BYTES:
            self._flush(exchange)
        elif exchange.timer is None:
            exchange.timer = asyncio.get_running_loop().call_later(JOURNAL_SECONDS, self._flush_later, exchange)

    def _flush_later(self, exchange: Exchange) -> None:
        exchange.timer = None
        try:
            self._flush(exchange)
        except SpoolError as error:
            _log_failure(
                "cannot store streamed bytes yet; the exchange will be aborted if its final commit fails too", error
            )

    def _flush(self, exchange: Exchange) -> None:
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None
        if exchange.closed:
            return
        if exchange.capture.masked and any(exchange.waiting.values()):
            # Also update the exchange's metadata. The journal contains only masked bytes, so the recovery after a crash
            # reads the original size of the body and the number of secrets from the metadata.
            self._spool.update(exchange.capture.id, self._head(exchange))
        for direction, waiting in exchange.waiting.items():
            if waiting:
                self._spool.append(exchange.capture.id, direction, bytes(waiting))
                waiting.clear()

    def _journal_request(self, exchange: Exchange) -> None:
        """Write a complete request to the journal, unless it was written while it streamed or must be withheld.

        Do not write a request while it is still scanned for credentials. The capture already holds its bytes, so they
        need no second buffer.
        """
        capture = exchange.capture
        if capture.secret or not capture.scanned or exchange.journalled:
            return
        self._spool.append_pieces(capture.id, "request", capture.request.beginning())
        exchange.journalled = min(capture.request.size, capture.limit)

    def _withhold_secrets(self, exchange: Exchange) -> None:
        """If the bodies are credentials, delete them from the journal; a recovery after a crash would record them."""
        if exchange.capture.secret and exchange.opened and not exchange.withheld:
            self._spool.withhold(exchange.capture.id)
            exchange.withheld = True

    def _close(self, exchange: Exchange, outcome: str, error_type: str | None = None) -> None:
        if exchange.closed:
            return
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None
        end = self._now()
        record = exchange.capture.record(outcome, end, error_type)
        retrieved = _retrieved(record)
        if retrieved is not None and retrieved in self._counted:
            record = _without_usage(record)
        record = self._priced(record)
        self._withhold_secrets(exchange)
        self._spool.close_exchange(record)
        exchange.closed = True
        if retrieved is not None:
            # Mark the response as counted only after the record is stored. If the spool refuses the record, the next
            # record must count the usage.
            self._counted.add(retrieved)
        exchange.capture.forget_bodies()
        for waiting in exchange.waiting.values():
            waiting.clear()
        self._metrics.exchanges.labels(exchange.capture.class_name, outcome).inc()
        self._metrics.duration.labels(exchange.capture.class_name).observe((end - exchange.capture.begin_ns) / 1e9)
        self._count(record)

    def _priced(self, record: ExchangeRecord) -> ExchangeRecord:
        """Return the record with the cost of the call, if it is known."""
        if self._prices is None:
            return record
        request, answered = record.request_facts, record.response_facts
        return replace(record, cost_usd=self._prices.cost_of(record.host, request, answered, record.begin_ns))

    def _count(self, record: ExchangeRecord) -> None:
        request, usage = record.request_facts, record.response_facts.usage
        if self._budgets is not None:
            tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
            self._budgets.add(record.class_name, tokens, record.cost_usd)
        self._metrics.count_call(
            Call(
                class_name=record.class_name,
                operation=request.operation_name,
                provider=request.provider_name,
                requested_model=request.model,
                response_model=record.response_facts.model,
                status=record.status,
                error_type=error_type_of(record),
                tokens={
                    "input": usage.input_tokens,
                    "output": usage.output_tokens,
                    "cache_read": usage.cache_read_input_tokens,
                    "cache_write": usage.cache_write_input_tokens,
                    "reasoning": usage.reasoning_output_tokens,
                },
                cost_usd=record.cost_usd,
                duration=max(0, record.end_ns - record.begin_ns) / 1e9,
                first_chunk=record.time_to_first_chunk if request.stream else None,
            )
        )

    def _leave(self, exchange: Exchange) -> None:
        """End an exchange that cannot be recorded now.

        If a part of it went upstream, the spool records it once the disk is writable. Otherwise, the spool deletes it.
        """
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None
        exchange.closed = True
        recorded = exchange.request_committed or not exchange.request_held
        self._spool.leave(exchange.capture.id, recorded=recorded, secret=exchange.capture.secret)

    def abandon(self, flow: http.HTTPFlow, decision: Decision, status: int | None) -> None:
        """Record an exchange that was refused for lack of memory.

        ``status`` is the status of the proxy's response; None if the proxy sends no response.
        """
        if (exchange := self._exchange(flow)) is None:
            return
        capture = exchange.capture
        capture.rule, capture.code, capture.reason = decision.rule, decision.code, decision.reason
        if status is not None:
            capture.status = status
        exchange.failed = True
        recording = flow.metadata[memory.HELD]
        try:
            if isinstance(recording, WebSocketRecording):
                recording.end("interrupted", "denied")
            else:
                self._close(exchange, "interrupted", "denied")
        except SpoolError as error:
            self._error_failed(flow, error)

    def _head(self, exchange: Exchange) -> dict[str, object]:
        """Return the record so far, without bodies. The journal stores it for the recovery after a crash."""
        websocket = exchange.capture.websocket
        return exchange.capture.known() | {
            "websocket": websocket.origin() if websocket is not None else None,
            "request_complete": exchange.request_committed,
            "request_held": exchange.request_held,
            "secret": exchange.capture.secret,
            "bodies": exchange.capture.bodies(),
        }

    def _exchange(self, flow: http.HTTPFlow) -> Exchange | None:
        found = flow.metadata.get(EXCHANGE)
        return found if isinstance(found, Exchange) and not found.closed else None

    def _refuse(self, flow: http.HTTPFlow, error: Exception) -> None:
        """Respond with 503 and the reason, because an exchange that cannot be recorded must not pass."""
        why = str(error) if isinstance(error, SpoolError) else "the exchange could not be recorded"
        if not isinstance(error, SpoolError):
            _log_failure("refused a request that cannot be recorded", error)
            self._metrics.hook_failures.inc()
        allowed = flow.metadata.get(INSPECT)
        if isinstance(allowed, Allowed):
            self._metrics.unrecorded.labels(allowed.class_name).inc()
            flow.response = refusal(
                503,
                class_name=allowed.class_name,
                destination=allowed.destination.host,
                rule="recording",
                reason=why,
                accept=flow.request.headers.get("accept", ""),
                remedy="Ask the operator to run `egress status` on the proxy: it shows the spool's problem.",
            )


class _MessageJournal:
    """The implementation of `websocket_recording.Journal`, which lets `WebSocketRecording` write to the spool."""

    def __init__(self, recorder: Recorder, flow: http.HTTPFlow) -> None:
        self._flow = flow
        self._recorder = recorder

    def now(self) -> int:
        return self._recorder._now()

    def open(self) -> Exchange:
        allowed, response = self._flow.metadata[INSPECT], self._flow.response
        if not isinstance(allowed, Allowed) or response is None:
            raise LookupError("the handshake of the WebSocket is unknown")
        exchange = Exchange(self._recorder._capture(self._flow, allowed), self._flow.client_conn, request_held=False)
        exchange.capture.response_began(response.status_code, _headers(response.headers))
        return exchange

    def begin(self, exchange: Exchange) -> None:
        self._recorder._check_spool()
        self._recorder._open(exchange)

    def commit(self, exchange: Exchange) -> None:
        self.flush(exchange)
        exchange.request_committed = True
        self._recorder._spool.update(exchange.capture.id, self._recorder._head(exchange))

    def keep(self, exchange: Exchange, direction: str, data: bytes) -> None:
        self._recorder._keep(exchange, direction, data)

    def flush(self, exchange: Exchange) -> None:
        self._recorder._flush(exchange)

    def withhold(self, exchange: Exchange) -> None:
        self._recorder._withhold_secrets(exchange)

    def close(self, exchange: Exchange, outcome: str, error_type: str | None) -> None:
        try:
            self._recorder._close(exchange, outcome, error_type)
        except BaseException:
            self._recorder._leave(exchange)
            raise

    def forget(self, exchange: Exchange) -> None:
        exchange.closed = True
        # If the proxy crashes before the spool drops the exchange, the recovery must drop it. It drops exchanges whose
        # request was held and is incomplete, so mark this exchange that way.
        exchange.request_held, exchange.request_committed = True, False
        try:
            self._recorder._spool.update(exchange.capture.id, self._recorder._head(exchange))
        finally:
            self._recorder._spool.leave(exchange.capture.id, recorded=False)


def _retrieved(record: ExchangeRecord) -> Retrieved | None:
    """Return the background response whose usage the record contains, or None."""
    facts = record.response_facts
    if not facts.background or facts.id is None or facts.usage == Usage():
        return None
    return Retrieved(record.class_name, record.host.lower(), facts.id)


def _without_usage(record: ExchangeRecord) -> ExchangeRecord:
    return replace(record, response_facts=replace(record.response_facts, usage=Usage(), billing=Billing()))


def _log_failure(what: str, error: Exception) -> None:
    """Log an internal error. Log a spool error only at debug level, because the spool logs its cause and remedy."""
    if isinstance(error, SpoolError):
        log.debug("%s: %s", what, error)
    else:
        log.error("%s", what, exc_info=error)


def _cutting(exchange: Exchange, tap: Callable[[bytes], None]) -> Callable[[bytes], bytes]:
    """Return a stream callable that aborts the connection if ``tap`` fails, so that no byte passes unrecorded.

    The callable then raises an exception, now and on every later call. Otherwise mitmproxy could still send a valid end
    of the message.
    """

    def cutting(data: bytes) -> bytes:
        try:
            if exchange.failed:
                raise SpoolError("recording of this exchange failed before, so its connection is aborted; see the log")
            tap(data)
            return data
        except Exception:
            exchange.failed = True
            abort(exchange.client)
            raise

    return cutting


def _consume(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass


def _charged(
    exchange: Exchange, pieces: Iterator[bytes], *, request: bool, answerable: bool = False
) -> Iterator[bytes]:
    """Yield the decoded pieces of one read, and charge their memory as it grows.

    Raises:
        OutOfMemory: the budget refused the exchange.
    """
    grown = 0
    for piece in pieces:
        yield piece
        grown += len(piece)
        if grown >= memory.CLAIM_BYTES:
            grown = 0
            if not memory.claim(exchange.client, request=request, answerable=answerable):
                raise OutOfMemory("the memory budget refused this exchange")


def _headers(headers: http.Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("utf-8", "backslashreplace")) for name, value in headers.fields]


def _port_text(request: http.Request) -> str:
    return "" if request.port == (443 if request.scheme == "https" else 80) else f":{request.port}"


_ERRORS = (
    ("certificate", "tls_error"),
    ("tls", "tls_error"),
    ("ssl", "tls_error"),
    ("timed out", "timeout"),
    ("timeout", "timeout"),
    (REFUSED, "denied"),
    ("connection reset", "connection_reset"),
    ("connect call failed", "connect_error"),
    ("no route", "connect_error"),
    ("connection refused", "connect_error"),
    ("unreachable", "connect_error"),
    ("server disconnected", "upstream_closed"),
    ("peer closed", "upstream_closed"),
    ("closed connection", "upstream_closed"),
    ("protocol error", "protocol_error"),
    ("content-length", "protocol_error"),
    ("invalid", "protocol_error"),
)


def _error_type(message: str) -> str:
    """Return the ``error.type`` (of `records.ERROR_TYPES`) for a failed exchange.

    Parse the error message, because mitmproxy provides no other information about a failed connection. The message can
    come from mitmproxy, OpenSSL or the kernel, and may contain traffic. Parse such messages only here. Never parse the
    texts in `codes`.
    """
    lowered = message.lower()
    return next((error_type for needle, error_type in _ERRORS if needle in lowered), "_OTHER")
