"""Tests of WebSocket recording: the proxy records each message before it forwards it, for every split of the bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from openclaw_egress.llm import message_reader
from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.model import Decision
from openclaw_egress.proxy import websocket_recording
from openclaw_egress.proxy.websocket_recording import RESPONSES, WebSocketRecording
from openclaw_egress.recording.capture import ExchangeCapture
from openclaw_egress.recording.key_formats import KEY_FORMATS
from openclaw_egress.recording.websocket_messages import MAX_SIZES, Messages, WebSocket
from openclaw_egress.spool.writer import SpoolError
from tests.support.websocket_provider import response_events


class Exchange:
    def __init__(self, number, path):
        headers = [("host", "api.openai.com")]
        self.capture = ExchangeCapture(
            id=f"e{number}", class_name="gateway", rule="", reason="", method="GET", url="", host="api.openai.com",
            port=443, http_version="1.1", request_headers=headers, begin_ns=0, body_limit=1024 * 1024, path=path,
        )  # fmt: skip
        self.capture.response_began(101, [])
        self.waiting = b""
        self.written = b""
        self.record = None

    @property
    def held(self):
        return self.capture.held + len(self.waiting)


class Journal:
    """A fake of the spool's journal, in memory. It raises SpoolError while `fails` is true."""

    def __init__(self, path):
        self.path = path
        self.exchanges = []
        self.fails = False

    def now(self):
        return 1

    def open(self):
        self.exchanges.append(Exchange(len(self.exchanges), self.path))
        return self.exchanges[-1]

    def _may_fail(self):
        if self.fails:
            raise SpoolError("the disk is full")

    def begin(self, exchange):
        self._may_fail()

    def commit(self, exchange):
        self.flush(exchange)

    def keep(self, exchange, direction, data):
        if direction == "request":
            exchange.waiting += data

    def flush(self, exchange):
        self._may_fail()
        exchange.written += exchange.waiting
        exchange.waiting = b""

    def withhold(self, exchange):
        exchange.written = exchange.waiting = b""

    def close(self, exchange, outcome, error_type):
        self._may_fail()
        exchange.record = exchange.capture.record(outcome, 2, error_type)

    def forget(self, exchange):
        exchange.record = "forgotten"


def begun(path="/v1/things", api=None, decide=lambda: None):
    journal = Journal(path)
    connection = journal.open()
    connection.capture.upgraded(WebSocket("e0"), None if api == RESPONSES else message_reader(path))
    return journal, WebSocketRecording(journal, connection, api=api, decide=decide)


def client(*payloads, opcode=Opcode.TEXT):
    return b"".join(Frame(opcode, payload).serialize(mask=True) for payload in payloads)


def server(*payloads):
    return b"".join(Frame(Opcode.TEXT, payload).serialize(mask=False) for payload in payloads)


def create(**more):
    return json.dumps({"type": "response.create", "model": "gpt-6", **more}).encode()


PAYLOADS = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


@given(PAYLOADS, st.integers(1, 30))
def test_bytes_pass_unmodified_and_each_message_is_written_first(payloads, step):
    journal, recording = begun()
    data, passed = client(*payloads, opcode=Opcode.BINARY), b""
    for at in range(0, len(data), step):
        passing = recording.take(data[at : at + step], sent=True)
        passed += passing.to_server
        assert data.startswith(passed)
        assert (passing.to_client, passing.problem) == (b"", None)
        complete = [index for index in range(len(payloads)) if passed == client_of(data, payloads, index + 1)]
        for index in complete:
            assert journal.exchanges[0].written == b"\n".join(payloads[: index + 1])
    assert passed == data


def client_of(data, payloads, number):
    """Return the first ``number`` frames of ``data``. Do not encode them again: each frame has a random mask."""
    return data[: sum(len(payload) + 6 for payload in payloads[:number])]


@given(st.integers(1, 60), st.booleans())
def test_responses_are_recorded_at_every_split(step, together):
    journal, recording = begun("/v1/responses", RESPONSES)
    sent = client(*(create(stream_id=name, input=name) for name in "ab"))
    streams = [response_events(f"r_{name}", f"text {name}", {"output_tokens": 1}, stream_id=name) for name in "ab"]
    pairs = zip(*streams, strict=True) if together else streams
    received = server(*(event.encode() for pair in pairs for event in pair))
    for data, by_client in ((sent, True), (received, False)):
        passed = b""
        for at in range(0, len(data), step):
            passing = recording.take(data[at : at + step], sent=by_client)
            passed += passing.to_server + passing.to_client
        assert passed == data
    recording.disconnected(client=True)
    connection, *responses = journal.exchanges
    assert connection.record == "forgotten"
    assert [found.record.response_body.text for found in responses] == ["\n".join(events) for events in streams]
    assert [found.record.request_body.text.encode() for found in responses] == [
        create(stream_id=name, input=name) for name in "ab"
    ]
    assert {found.record.outcome for found in responses} == {"complete"}


def test_nothing_of_a_read_passes_if_it_cannot_be_recorded():
    journal, recording = begun()
    assert recording.take(client(b"one"), sent=True).to_server
    journal.fails = True
    with pytest.raises(SpoolError):
        recording.take(client(b"two"), sent=True)


def test_unfinished_message_does_not_pass():
    _, recording = begun()
    data = client(b"x" * 1000)
    assert recording.take(data[:900], sent=True).to_server == b""
    assert recording.take(data[900:], sent=True).to_server == data


@pytest.mark.parametrize("api", [None, RESPONSES])
@pytest.mark.parametrize("sent", [True, False])
def test_long_message_passes_in_parts_within_bounded_memory(monkeypatch, api, sent):
    monkeypatch.setattr(websocket_recording, "HOLD_BYTES", 100_000)
    journal, recording = begun("/v1/responses" if api else "/v1/things", api)
    payload = create(input="x" * 5_000_000) if sent else b'{"type":"response.x","delta":"' + b"y" * 5_000_000 + b'"}'
    data = client(payload) if sent else server(payload)
    passed = b""
    for at in range(0, len(data), 65536):
        passing = recording.take(data[at : at + 65536], sent=sent)
        passed += passing.to_server + passing.to_client
        assert len(passed) >= at - 200_000
        assert recording.held <= 4 * 1024 * 1024
    assert passed == data
    recording.end("client_aborted", "client_aborted")
    found = journal.exchanges[-1].record
    body = found.request_body if sent else found.response_body
    assert body.size == len(payload)
    if sent and api:
        assert (found.request_facts.model, found.request_facts.stream) == ("gpt-6", True)


def test_stream_id_after_the_first_part_of_a_request_is_used_at_its_end(monkeypatch):
    monkeypatch.setattr(websocket_recording, "HOLD_BYTES", 1000)
    journal, recording = begun("/v1/responses", RESPONSES)
    for name in "ab":
        recording.take(client(create(input="x" * 5000, stream_id=name)), sent=True)
    for event in response_events("r1", "text", {"output_tokens": 7}, stream_id="b"):
        recording.take(server(event.encode()), sent=False)
    assert journal.exchanges[1].record is None
    assert journal.exchanges[2].record.response_facts.usage.output_tokens == 7
    assert journal.exchanges[2].record.websocket["stream_id"] == "b"


def test_response_that_ends_before_its_request_is_complete_is_recorded_with_all_of_it(monkeypatch):
    monkeypatch.setattr(websocket_recording, "HOLD_BYTES", 1000)
    journal, recording = begun("/v1/responses", RESPONSES)
    message = create(input="x" * 5000)
    data, passed = client(message), b""
    for at in range(0, len(data), 500):
        passed += recording.take(data[at : at + 500], sent=True).to_server
        if at == 2000:
            error = {"type": "error", "status": 413, "error": {"code": "request_too_large"}}
            assert recording.take(server(json.dumps(error).encode()), sent=False).to_client
            assert journal.exchanges[1].record is None
    assert passed == data
    found = journal.exchanges[1].record
    assert found.request_body.text.encode() == message
    assert (found.outcome, found.response_facts.error_type) == ("complete", "request_too_large")


DENIED = Decision.denial(Code.RATE_LIMIT)


@pytest.mark.parametrize("step", [1, 50, 100_000])
@pytest.mark.parametrize("hold", [1000, 4_000_000])
def test_denied_request_does_not_pass_and_the_connection_continues(monkeypatch, step, hold):
    monkeypatch.setattr(websocket_recording, "HOLD_BYTES", hold)
    verdicts = [DENIED, None]
    journal, recording = begun("/v1/responses", RESPONSES, lambda: verdicts.pop(0))
    denied, cancel, allowed = client(create(input="x" * 3000)), client(b'{"type":"response.cancel"}'), client(create())
    data = denied + cancel + allowed
    to_server = to_client = b""
    for at in range(0, len(data), step):
        passing = recording.take(data[at : at + step], sent=True)
        to_server += passing.to_server
        to_client += passing.to_client
    assert to_server == cancel + allowed
    assert json.loads(to_client[4:])["error"]["code"] == "rate_limit"
    assert len(journal.exchanges) == 2


def test_proxys_own_frame_waits_for_the_end_of_a_long_message(monkeypatch):
    monkeypatch.setattr(websocket_recording, "HOLD_BYTES", 1000)
    _, recording = begun("/v1/responses", RESPONSES, lambda: DENIED)
    data = server(b"x" * 5000)
    begin = recording.take(data[:4000], sent=False).to_client
    assert begin and not recording.may_send
    held = recording.held
    assert recording.take(client(create()), sent=True).to_client == b""
    assert recording.held > held
    rest = recording.take(data[4000:], sent=False).to_client
    assert (begin + rest).startswith(data)
    assert b"rate_limit" in (begin + rest)[len(data) :]


def test_type_that_changes_in_a_long_message_is_still_a_request(monkeypatch):
    monkeypatch.setattr(websocket_recording, "HOLD_BYTES", 1000)
    _, recording = begun("/v1/responses", RESPONSES, lambda: DENIED)
    message = b'{"type":"x","input":"' + b"x" * 5000 + b'","type":"response.create"}'
    data = client(message)
    assert all(recording.take(data[at : at + 500], sent=True).to_server == b"" for at in range(0, len(data), 500))


def test_repeated_type_counts_as_json_reads_it():
    _, recording = begun("/v1/responses", RESPONSES, lambda: DENIED)
    assert recording.take(client(b'{"type":"x","type":"response.create"}'), sent=True).to_server == b""


def test_line_feeds_inside_a_message_do_not_hide_it():
    journal, recording = begun("/v1/responses", RESPONSES)
    recording.take(client(create()), sent=True)
    for event in response_events("r1", "text", {"output_tokens": 7}):
        recording.take(server(json.dumps(json.loads(event), indent=1).encode()), sent=False)
    assert journal.exchanges[1].record.response_facts.usage.output_tokens == 7


def test_number_of_responses_in_progress_is_limited():
    journal, recording = begun("/v1/responses", RESPONSES)
    passing = recording.take(client(*[create()] * (websocket_recording.MAX_TURNS + 1)), sent=True)
    assert passing.problem is not None and "256 responses" in passing.problem
    recording.end("client_aborted", "protocol_error")
    assert len(journal.exchanges) == websocket_recording.MAX_TURNS + 1
    assert all(found.record.outcome == "client_aborted" for found in journal.exchanges[1:])


def test_secret_message_is_not_written():
    journal, recording = begun()
    recording.take(client(b"harmless"), sent=True)
    recording.take(client(b'{"access_token": "x"}'), sent=True)
    recording.take(client(b"after"), sent=True)
    recording.end("complete", None)
    (connection,) = journal.exchanges
    assert connection.written == b""
    assert connection.record.request_body.text == "[redacted]"


def test_key_at_the_end_of_a_message_is_found_before_the_message_passes():
    journal, recording = begun()
    shortest = next(found.in_body for found in KEY_FORMATS if found.prefix == "ghp_")
    recording.take(client(b"ghp_" + b"a" * (shortest - 1) + b"%61"), sent=True)
    assert journal.exchanges[0].written == b""


def test_pings_pass_and_are_counted():
    journal, recording = begun()
    ping = Frame(Opcode.PING, b"abc").serialize(mask=True)
    assert recording.take(ping, sent=True).to_server == ping
    recording.end("complete", None)
    facts = journal.exchanges[0].record.websocket
    assert (facts["control_frames"], facts["sent"]["messages"]) == (1, 0)


def test_valid_messages_before_an_invalid_frame_pass():
    _, recording = begun()
    good = client(b"good")
    passing = recording.take(good + b"\x83\x80", sent=True)
    assert passing.to_server == good
    assert passing.problem is not None and "0x3" in passing.problem


def test_number_of_sizes_is_limited():
    messages = Messages()
    for _ in range(MAX_SIZES + 5):
        messages.add(b"ab", begins=True)
    assert (messages.count, messages.size, len(messages.sizes)) == (MAX_SIZES + 5, 2 * MAX_SIZES + 10, MAX_SIZES)


@given(st.lists(st.lists(st.binary(max_size=9), min_size=1, max_size=3), max_size=5))
def test_sizes_cut_the_body_into_messages(messages):
    found, body = Messages(), b""
    for parts in messages:
        for index, part in enumerate(parts):
            body += found.add(part, begins=index == 0)
    cut = []
    for size in found.sizes:
        cut.append(body[:size])
        body = body[size + 1 :]
    assert cut == [b"".join(parts) for parts in messages]
