"""Tests of WebSockets to inspected hosts: the proxy records each message, and then forwards it immediately."""

import asyncio
import json
import re
import sqlite3
import ssl
import time
from pathlib import Path

import openai
import pytest
from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from openclaw_egress.cli.app import app
from tests.integration.proxy.conftest import wait_until
from tests.support import websocket_provider
from tests.support.proxy_process import RunningProxy
from tests.support.websocket_provider import WebSocketProvider, echo, response_events

KEY = "sk-proj-a-key-that-must-not-be-kept-anywhere"


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    with WebSocketProvider(tmp_path_factory.mktemp("provider")) as running:
        yield running
        assert running.errors == []


@pytest.fixture(autouse=True)
def fresh(request):
    if "provider" in request.fixturenames:
        provider = request.getfixturevalue("provider")
        provider.talk = echo
        provider.received.clear()


@pytest.fixture(scope="module", params=["lean", "stock"])
def proxy(request, tmp_path_factory, provider):
    running = RunningProxy(
        tmp_path_factory.mktemp(request.param), [provider.port, provider.port], provider.ca_file, request.param
    )
    with running:
        yield running
    assert "Traceback" not in running.log, running.log


def dial(proxy, path="/v1/things", host="api.openai.com", class_name="gateway", **options):
    """Open a WebSocket through the proxy."""
    context = ssl.create_default_context(cafile=str(proxy.root))
    url = proxy.url(host, path).replace("https", "wss")
    headers = options.pop("headers", {"authorization": f"Bearer {KEY}"})
    return websocket_provider.dial(
        url, ssl=context, proxy=proxy.proxy_url(class_name), additional_headers=headers, **options
    )


@pytest.fixture
def recorded(proxy):
    """Return a function that waits for N exchanges recorded since the test began, and returns them."""
    before = {row.id for row in proxy.exchanges()}

    def found(number=1):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            new = [row for row in proxy.exchanges() if row.id not in before]
            if len(new) >= number:
                time.sleep(0.3)
                new = [row for row in proxy.exchanges() if row.id not in before]
                assert len(new) == number, [row.url for row in new]
                return new
            time.sleep(0.02)
        raise AssertionError(f"{number} records were expected, {len(new)} found")

    return found


def test_messages_of_a_connection_are_one_record(proxy, provider, recorded):
    with dial(proxy, subprotocols=["v1.chat"]) as socket:
        for message in ("one", "zwei €", ""):
            socket.send(message)
            assert socket.recv() == message
    (row,) = recorded()
    assert (row.method, row.status, row.outcome, row.class_name) == ("GET", 101, "complete", "gateway")
    line = proxy.line(row.id)
    assert line["request"]["body"] == line["response"]["body"] == "one\nzwei €\n"
    sizes = {"messages": 3, "bytes": 11, "sizes": [3, 8, 0]}
    assert line["websocket"]["sent"] == line["websocket"]["received"] == sizes
    assert (line["websocket"]["closed_by"], line["websocket"]["close_code"]) == ("client", 1000)
    assert line["websocket"]["connection"] == row.id
    assert (row.first_chunk or 0) <= row.duration


def test_each_message_passes_before_the_next_is_sent(proxy, provider, recorded):
    with dial(proxy) as socket:
        for number in range(20):
            socket.send(f"message {number}")
            assert socket.recv() == f"message {number}"
            socket.send([f"part {number}".encode(), b" and ", b"rest"])
            assert socket.recv() == f"part {number} and rest".encode()
    recorded()


def test_handshake_that_the_provider_refuses_is_an_ordinary_exchange(proxy, provider, recorded):
    with pytest.raises(InvalidStatus) as caught:
        dial(proxy, "/refuse")
    assert caught.value.response.status_code == 401
    (row,) = recorded()
    assert (row.status, row.outcome) == (401, "complete")
    assert "websocket" not in proxy.line(row.id)


def test_credentials_of_the_handshake_are_not_kept(proxy, provider, recorded):
    protocols = ["realtime", f"openai-insecure-api-key.{KEY}"]
    with dial(proxy, f"/v1/things?token={KEY}&x=1", subprotocols=protocols) as socket:
        socket.send("hello")
        socket.recv()
    (row,) = recorded()
    assert "x=1" in row.url
    assert KEY not in json.dumps(proxy.line(row.id)) + row.url
    assert all(KEY.encode() not in file.read_bytes() for file in (proxy.directory / "state").glob("spool.db*"))


def test_credential_in_a_message_is_not_kept(proxy, provider, recorded):
    secret = "ghp_" + "a1B2" * 9
    with dial(proxy, "/v1/unknown") as socket:
        socket.send("harmless")
        socket.recv()
        socket.send(json.dumps({"access_token": secret}))
        socket.recv()
    (row,) = recorded()
    assert "[redacted]" in proxy.line(row.id)["request"]["body"]
    assert all(secret.encode() not in file.read_bytes() for file in (proxy.directory / "state").glob("spool.db*"))


def test_compression_is_not_offered_to_the_provider(proxy, provider, recorded):
    offers = []

    def talk(connection):
        offers.append(connection.connection.request.headers.get("sec-websocket-extensions"))
        echo(connection)

    provider.talk = talk
    with dial(proxy, compression="deflate") as socket:
        socket.send("hello")
        socket.recv()
    recorded()
    assert offers == [None]


def test_message_longer_than_the_limits_passes_and_is_truncated_in_the_record(proxy, provider, recorded):
    message = "abc" * 4_000_000
    with dial(proxy) as socket:
        socket.send(message)
        assert socket.recv() == message
    (row,) = recorded()
    line = proxy.line(row.id)
    assert line["websocket"]["sent"]["sizes"] == [len(message)]
    assert line["request"]["body_truncated"]


def test_disconnect_of_the_client_is_recorded(proxy, provider, recorded):
    socket = dial(proxy)
    socket.send("hello")
    socket.recv()
    socket.abort()
    (row,) = recorded()
    assert (row.outcome, row.error_type) == ("client_aborted", "client_aborted")


def test_disconnect_of_the_server_is_recorded(proxy, provider, recorded):
    def talk(connection):
        connection.recv()
        connection.abort()

    provider.talk = talk
    with dial(proxy) as socket:
        socket.send("hello")
        with pytest.raises(ConnectionClosed):
            socket.recv()
    (row,) = recorded()
    assert (row.outcome, row.error_type) == ("upstream_error", "upstream_closed")


# ── OpenAI's Responses API ───────────────────────────────────────────────────────────────────────────────────────

USAGE = {
    "one": {
        "input_tokens": 11,
        "output_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 2},
    },
    "two": {"input_tokens": 22, "output_tokens": 6},
    "three": {"input_tokens": 33, "output_tokens": 7},
}


def interleaved(provider, *, lanes=True):
    """Return a `talk` function that waits for all requests, then interleaves the events of their responses.

    Without ``lanes``, the events have no `stream_id`.
    """

    def talk(connection):
        requested = []
        while len(requested) < len(USAGE):
            message = connection.recv()
            provider.note(message)
            requested.append(json.loads(message))
        streams = [
            response_events(
                f"resp_{create['input']}",
                f"text of {create['input']}",
                USAGE[create["input"]],
                **({"stream_id": create["stream_id"]} if lanes else {}),
            )
            for create in requested
        ]
        for events in zip(*streams, strict=True):
            for event in events:
                connection.send(event)
        for _ in connection:
            pass

    return talk


def create(name, **more):
    return json.dumps({"type": "response.create", "model": "gpt-6", "input": name, **more})


def test_interleaved_responses_are_one_record_each(proxy, provider, recorded):
    provider.talk = interleaved(provider)
    with dial(proxy, "/v1/responses") as socket:
        for number, name in enumerate(USAGE, 1):
            socket.send(create(name, stream_id=f"lane-{name}"))
            # Wait until the provider has the message before sending the next one.
            provider.wait_for(number)
        ends = 0
        while ends < len(USAGE):
            ends += json.loads(socket.recv())["type"] == "response.completed"
        rows = recorded(3)
    for row, (name, usage) in zip(sorted(rows, key=lambda row: row.input_tokens), USAGE.items(), strict=True):
        line = proxy.line(row.id)
        assert json.loads(line["request"]["body"])["input"] == name
        assert (row.input_tokens, row.output_tokens) == (usage["input_tokens"], usage["output_tokens"])
        assert (row.model, row.stream, row.outcome, row.status) == ("gpt-6-2026-05-01", True, "complete", 101)
        assert row.first_chunk is not None
        assert line["websocket"]["stream_id"] == f"lane-{name}"
        events = [json.loads(event) for event in line["response"]["body"].split("\n")]
        assert {event["stream_id"] for event in events} == {f"lane-{name}"}
        assert [part["content"] for part in line["messages"][0]["parts"]] == [f"text of {name}"]
    first = min(rows, key=lambda row: row.input_tokens)
    assert (first.cache_read_tokens, first.reasoning_tokens) == (3, 2)
    assert len({proxy.line(row.id)["websocket"]["connection"] for row in rows}) == 1


def test_connection_whose_messages_all_belong_to_responses_has_no_further_record(proxy, provider, recorded):
    provider.talk = interleaved(provider)
    with dial(proxy, "/v1/responses") as socket:
        for name in USAGE:
            socket.send(create(name, stream_id=name))
        ends = 0
        while ends < len(USAGE):
            ends += json.loads(socket.recv())["type"] == "response.completed"
    recorded(3)


def test_responses_in_turn_are_one_record_each_as_the_sdk_reads_them(proxy, provider, recorded):
    def talk(connection):
        for number, message in enumerate(connection):
            requested = json.loads(message)
            for event in response_events(f"resp_{number}", f"text of {requested['input']}", USAGE[requested["input"]]):
                connection.send(event)

    provider.talk = talk
    client = openai.AsyncOpenAI(api_key=KEY, base_url=proxy.url("api.openai.com", "/v1"), max_retries=0)
    options = {"ssl": ssl.create_default_context(cafile=str(proxy.root)), "proxy": proxy.proxy_url()}

    async def ask():
        answers = []
        async with client.responses.connect(websocket_connection_options=options) as connection:
            for name in USAGE:
                await connection.send({"type": "response.create", "model": "gpt-6", "input": name})
                async for event in connection:
                    if event.type == "response.completed":
                        answers.append(event.response)
                        break
        return answers

    answers = asyncio.run(ask())
    rows = recorded(3)
    assert [(row.input_tokens, row.output_tokens) for row in rows] == [
        (answer.usage.input_tokens, answer.usage.output_tokens) for answer in answers
    ]
    assert [proxy.line(row.id)["messages"][0]["parts"][0]["content"] for row in rows] == [
        answer.output[0].content[0].text for answer in answers
    ]


def test_messages_of_no_response_are_in_the_record_of_the_connection(proxy, provider, recorded):
    def talk(connection):
        connection.recv()
        for event in response_events("resp_1", "text", USAGE["two"]):
            connection.send(event)
        connection.send(json.dumps({"type": "error", "status": 400, "error": {"code": "limit_reached"}}))
        for _ in connection:
            pass

    provider.talk = talk
    with dial(proxy, "/v1/responses") as socket:
        socket.send(create("two"))
        while json.loads(socket.recv())["type"] != "error":
            pass
    response, connection = recorded(2)
    assert (response.output_tokens, connection.output_tokens) == (6, None)
    assert "limit_reached" in proxy.line(connection.id)["response"]["body"]
    assert connection.model is None


def test_failed_response_is_recorded_with_its_error(proxy, provider, recorded):
    def talk(connection):
        connection.recv()
        error = {"type": "invalid_request_error", "code": "rate_limit_exceeded", "message": "no"}
        connection.send(json.dumps({"type": "error", "status": 429, "error": error}))
        for _ in connection:
            pass

    provider.talk = talk
    with dial(proxy, "/v1/responses") as socket:
        socket.send(create("one"))
        socket.recv()
    (row,) = recorded()
    assert (row.error_type, row.model, row.outcome) == ("rate_limit_exceeded", "gpt-6", "complete")


@pytest.mark.parametrize("closing", ["client", "server"])
def test_connection_that_ends_inside_responses_marks_each(proxy, provider, recorded, closing):
    def talk(connection):
        for name in ("one", "two"):
            connection.recv()
            connection.send(response_events(f"resp_{name}", "text", {}, stream_id=name)[0])
        if closing == "server":
            connection.recv()
            connection.abort()
        else:
            for _ in connection:
                pass

    provider.talk = talk
    with dial(proxy, "/v1/responses") as socket:
        for name in ("one", "two"):
            socket.send(create(name, stream_id=name))
            socket.recv()
        if closing == "server":
            socket.send("{}")
            with pytest.raises(ConnectionClosed):
                socket.recv()
        else:
            socket.abort()
        rows = [row for row in recorded(3 if closing == "server" else 2) if row.model]
    outcome = {"client": ("client_aborted", "client_aborted"), "server": ("upstream_error", "upstream_closed")}
    assert [(row.outcome, row.error_type) for row in rows] == [outcome[closing]] * 2
    assert all("response.created" in proxy.line(row.id)["response"]["body"] for row in rows)


def test_realtime_session_is_one_record_with_the_sum_of_its_usage(proxy, provider, recorded):
    def talk(connection):
        session = {"type": "realtime", "id": "sess_1", "model": "gpt-realtime-2026"}
        connection.send(json.dumps({"type": "session.created", "session": session}))
        for number, message in enumerate(connection, 1):
            provider.note(message)
            if json.loads(message)["type"] != "response.create":
                continue
            usage = {
                "input_tokens": 100 * number,
                "output_tokens": 10 * number,
                "input_token_details": {"cached_tokens": number, "audio_tokens": 2},
            }
            output = [{"type": "message", "content": [{"type": "output_audio", "transcript": f"answer {number}"}]}]
            response = {"id": f"resp_{number}", "status": "completed", "usage": usage, "output": output}
            connection.send(json.dumps({"type": "response.done", "response": response}))

    provider.talk = talk
    with dial(proxy, "/v1/realtime?model=gpt-realtime") as socket:
        assert json.loads(socket.recv())["type"] == "session.created"
        socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"}))
        provider.wait_for(1)
        for _ in range(2):
            socket.send(json.dumps({"type": "response.create"}))
            socket.recv()
    (row,) = recorded()
    assert (row.input_tokens, row.output_tokens, row.cache_read_tokens) == (500, 50, 5)
    assert (row.model, row.outcome, row.provider) == ("gpt-realtime-2026", "complete", "openai")
    line = proxy.line(row.id)
    assert [part["content"] for part in line["messages"][0]["parts"]] == ["answer 2", "answer 3"]
    assert line["websocket"]["sent"]["messages"] == 3


# ── hostile frames ───────────────────────────────────────────────────────────────────────────────────────────────

HOSTILE = {
    "a reserved opcode": b"\x83\x80\0\0\0\0",
    "a reserved bit": b"\xc1\x80\0\0\0\0",
    "no mask": b"\x81\x01x",
    "an impossible length": b"\x82\xff" + b"\xff" * 8 + b"\0\0\0\0",
    "a continuation of nothing": b"\x80\x80\0\0\0\0",
    "a message inside another": b"\x01\x80\0\0\0\0\x81\x80\0\0\0\0",
    "a long ping": b"\x89\xfe\x01\0\0\0\0\0",
    "a ping in fragments": b"\x09\x80\0\0\0\0",
    "no WebSocket": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_invalid_frame_of_a_client_ends_the_connection(proxy, provider, recorded, data):
    with dial(proxy) as socket:
        socket.send("hello")
        socket.recv()
        socket.raw(data)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv()
        assert caught.value.rcvd.code == 1002
        assert "openclaw.egress" in caught.value.rcvd.reason
    (row,) = recorded()
    assert (row.outcome, row.error_type) == ("client_aborted", "protocol_error")
    assert proxy.line(row.id)["request"]["body"] == "hello"


def test_invalid_frame_of_a_server_ends_the_connection(proxy, provider, recorded):
    def talk(connection):
        connection.send("before")
        connection.raw(b"\x81\x81\0\0\0\0x")  # a masked frame, which only clients may send
        for _ in connection:
            pass

    provider.talk = talk
    with dial(proxy) as socket:
        assert socket.recv() == "before"
        with pytest.raises(ConnectionClosed):
            socket.recv()
    (row,) = recorded()
    assert (row.outcome, row.error_type) == ("upstream_error", "protocol_error")


def test_extension_that_was_not_offered_is_refused(proxy, provider, recorded):
    def talk(connection):
        for _ in connection:
            pass

    provider.talk = talk

    def forge(connection, request, response):
        response.headers["Sec-WebSocket-Extensions"] = "permessage-deflate"

    provider.forge = forge
    with pytest.raises(InvalidStatus) as caught:
        dial(proxy, "/v1/things", compression="deflate")
    provider.forge = None
    assert caught.value.response.status_code == 502
    (row,) = recorded()
    assert (row.outcome, row.error_type) == ("upstream_error", "protocol_error")


def test_bytes_that_are_not_text_are_recorded_as_base64(proxy, provider, recorded):
    provider.talk = list
    with dial(proxy) as socket:
        socket.raw(Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True))
        with pytest.raises(ConnectionClosed):
            socket.recv()
    (row,) = recorded()
    assert proxy.line(row.id)["request"]["body_encoding"] == "base64"


def test_thousands_of_tiny_messages_are_counted(proxy, provider, recorded):
    number = 3000

    def talk(connection):
        for index, message in enumerate(connection, 1):
            if index == number:
                connection.send(message)

    provider.talk = talk
    with dial(proxy) as socket:
        socket.raw(b"".join(Frame(Opcode.TEXT, b"x").serialize(mask=True) for _ in range(number)))
        socket.recv()
    (row,) = recorded()
    sent = proxy.line(row.id)["websocket"]["sent"]
    assert (sent["messages"], sent["bytes"], len(sent["sizes"])) == (number, number, 1000)


def test_fragments_without_end_pass_and_are_bounded(proxy, provider, recorded):
    size, number = 64 * 1024, 256
    arrived = []

    def talk(connection):
        for fragment in connection.fragments():
            arrived.append(len(fragment))

    provider.talk = talk
    with dial(proxy) as socket:
        for index in range(number):
            opcode = Opcode.CONT if index else Opcode.BINARY
            socket.raw(Frame(opcode, b"x" * size, fin=False).serialize(mask=True))
        end = time.monotonic() + 30
        while sum(arrived) < size * number and time.monotonic() < end:
            time.sleep(0.05)
        socket.abort()
    assert sum(arrived) == size * number
    (row,) = recorded()
    line = proxy.line(row.id)
    assert line["websocket"]["sent"] == {"messages": 1, "bytes": size * number, "sizes": [size * number]}
    assert line["request"]["body_truncated"]


def test_invalid_handshake_is_refused(proxy, provider):
    before = len(proxy.denials())
    with proxy.client() as http:
        answer = http.get(
            proxy.url("api.openai.com", "/v1/responses"),
            headers={"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "8"},
        )
    assert answer.status_code == 403
    assert [row.code for row in proxy.denials()[before:]] == ["websocket_not_recorded"]


# ── limits, crashes, a full disk ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def alone(tmp_path, provider):
    """Yield a proxy for a single test. The test must start it."""
    running = RunningProxy(tmp_path, [provider.port, provider.port], provider.ca_file)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.kill()


def answering(provider):
    def talk(connection):
        for number, message in enumerate(connection):
            provider.note(message)
            requested = json.loads(message)
            more = {"stream_id": requested["stream_id"]} if "stream_id" in requested else {}
            for event in response_events(f"resp_{number}", "text", USAGE["two"], **more):
                connection.send(event)

    return talk


def until_end(socket):
    """Read events until one ends a response. Return that event."""
    while (event := json.loads(socket.recv()))["type"] not in ("response.completed", "error"):
        pass
    return event


def test_budget_refuses_a_further_response(alone, provider):
    policy = alone.policy_file.read_text()
    alone.policy_file.write_text(policy.replace("action: open,", "action: open, limits: {tokens_per_hour: 50},", 1))
    provider.talk = answering(provider)
    with alone as proxy, dial(proxy, "/v1/responses") as socket:
        for _ in range(2):
            socket.send(create("two"))
            assert until_end(socket)["type"] == "response.completed"
        socket.send(create("two", stream_id="lane"))
        event = until_end(socket)
        assert (event["type"], event["stream_id"], event["error"]["code"]) == ("error", "lane", "budget_exceeded")
        assert len(provider.received) == 2
        assert [row.code for row in proxy.denials()] == ["budget_exceeded"]
        socket.send(json.dumps({"type": "response.cancel"}))
        provider.wait_for(3)


def test_class_that_may_no_longer_reach_the_host_gets_no_further_response(alone, provider):
    provider.talk = answering(provider)
    with alone as proxy, dial(proxy, "/v1/responses") as socket:
        socket.send(create("two"))
        until_end(socket)
        text = proxy.policy_file.read_text().replace("action: open,", "action: open, deny: [api.openai.com],", 1)
        proxy.policy_file.write_text(text)
        end, code = time.monotonic() + 20, None
        while code is None and time.monotonic() < end:
            socket.send(create("two"))
            code = until_end(socket).get("error", {}).get("code")
        assert code == "denied_by_rule"


def test_crash_leaves_each_response_interrupted(alone, provider):
    def talk(connection):
        for name in ("one", "two"):
            provider.note(connection.recv())
            connection.send(response_events(f"resp_{name}", "text", {}, stream_id=name)[0])
        for message in connection:
            provider.note(message)

    provider.talk = talk
    with alone.start() and dial(alone, "/v1/responses") as socket:
        for name in ("one", "two"):
            socket.send(create(name, stream_id=name))
            socket.recv()
        end = time.monotonic() + 20
        while time.monotonic() < end and journalled(alone, "response") < 2:
            time.sleep(0.02)
        alone.kill()
        with pytest.raises(ConnectionClosed):
            socket.recv()
    with alone as proxy:
        rows = [row for row in proxy.exchanges() if row.model]
        rows.sort(key=lambda row: proxy.line(row.id)["request"]["body"])
        assert [(row.outcome, row.model) for row in rows] == [("interrupted", "gpt-6")] * 2
        for row, name in zip(rows, ("one", "two"), strict=True):
            line = proxy.line(row.id)
            assert line["request"]["body"] == create(name, stream_id=name)
            assert json.loads(line["response"]["body"])["response"]["id"] == f"resp_{name}"
            assert line["websocket"]["stream_id"] == name


def journalled(proxy, direction):
    with sqlite3.connect(proxy.directory / "state" / "spool.db", timeout=10) as db:
        return db.execute("SELECT count(*) FROM chunks WHERE direction = ?", (direction,)).fetchone()[0]


def test_message_is_in_the_spool_before_it_passes(alone, provider):
    found = []

    def talk(connection):
        for message in connection:
            with sqlite3.connect(alone.directory / "state" / "spool.db", timeout=10) as db:
                chunks = db.execute("SELECT data FROM chunks WHERE direction = 'request' ORDER BY n").fetchall()
            found.append(message.encode() in b"".join(row[0] for row in chunks))
            connection.send("seen")

    provider.talk = talk
    with alone as proxy:
        for path in ("/v1/responses", "/v1/things", "/v1/realtime"):
            with dial(proxy, path) as socket:
                for number in range(5):
                    socket.send(create(f"{path} {number}"))
                    socket.recv()
    assert found == [True] * 15


def test_connection_closes_when_it_cannot_be_recorded(alone, provider):
    provider.talk = answering(provider)
    with alone as proxy:
        with dial(proxy, "/v1/responses") as socket:
            socket.send(create("two"))
            until_end(socket)
            with proxy.no_room():
                with pytest.raises(ConnectionClosed) as caught:
                    for number in range(500):
                        socket.send(create("x" * 1000, stream_id=f"lane-{number}"))
                        while json.loads(socket.recv())["type"] != "response.completed":
                            pass
                assert caught.value.rcvd is None or caught.value.rcvd.code == 1011
        assert proxy.exchanges()[0].outcome == "complete"


def test_connection_beyond_its_total_time_is_recorded(alone, provider):
    policy = alone.policy_file.read_text()
    alone.policy_file.write_text(policy.replace("action: open,", "action: open, limits: {total_seconds: 1},", 1))
    with alone as proxy, dial(proxy) as socket:
        socket.send("hello")
        socket.recv()
        with pytest.raises(ConnectionClosed):
            socket.recv()
        wait_until(proxy.exchanges, proxy)
        (row,) = proxy.exchanges()
        assert (row.outcome, row.status) == ("client_aborted", 101)
        assert [(denial.code, denial.status) for denial in proxy.denials()] == [("connection_timeout", None)]


def test_held_messages_stay_within_the_memory_budget(tmp_path, provider):
    budget = 32 * 1024 * 1024
    running = RunningProxy(
        tmp_path,
        [provider.port] * 2,
        provider.ca_file,
        EGRESS_MEMORY_BUDGET=str(budget),
        EGRESS_MEMORY_WAIT_SECONDS="1",
    )
    part = Frame(Opcode.BINARY, b"x" * 3_500_000, fin=False).serialize(mask=True)
    with running as proxy:
        sockets = [dial(proxy, f"/v1/things/{number}") for number in range(12)]
        for socket in sockets:
            socket.raw(part)
        wait_until(lambda: [row for row in proxy.denials() if row.code == "memory_limit"], proxy)
        wait_until(lambda: [row for row in proxy.exchanges() if row.code == "memory_limit"], proxy)
        row = next(row for row in proxy.exchanges() if row.code == "memory_limit")
        assert (row.outcome, row.error_type) == ("interrupted", "denied")
        for socket in sockets:
            socket.abort()
        wait_until(lambda: len(proxy.exchanges()) == len(sockets), proxy)


def test_close_with_an_error_by_the_server_is_recorded_as_an_error(proxy, provider, recorded):
    def talk(connection):
        connection.recv()
        connection.close(1011)

    provider.talk = talk
    with dial(proxy) as socket:
        socket.send("hello")
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv()
        assert caught.value.rcvd.code == 1011
    (row,) = recorded()
    assert (row.outcome, row.error_type) == ("upstream_error", "upstream_closed")
    assert proxy.line(row.id)["websocket"]["close_code"] == 1011


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_commands_show_and_check_the_records(alone, provider, monkeypatch, tmp_path):
    provider.talk = answering(provider)
    with alone as proxy, dial(proxy, "/v1/responses") as socket:
        socket.send(create("two", stream_id="main"))
        until_end(socket)
        wait_until(proxy.exchanges, proxy)
    (row,) = [row for row in proxy.exchanges() if row.model]
    monkeypatch.setenv("EGRESS_STATE_DIR", str(proxy.directory / "state"))

    def egress(*words):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    (listed,) = [json.loads(line) for line in egress("records", "--json", "--model", row.model).splitlines()]
    assert (listed["id"], listed["output_tokens"], listed["status"]) == (row.id, 6, 101)
    shown = json.loads(egress("show", row.id[:8], "--json"))["exchange"]
    assert shown["websocket"]["stream_id"] == "main"
    assert "messages: 1 sent, 5 received, stream main, connection " in egress("show", row.id)
    egress("export", "-o", str(tmp_path / "lines"))
    exported = [json.loads(json.loads(line)["line"]) for line in (tmp_path / "lines").read_text().splitlines()]
    assert [line["websocket"]["stream_id"] for line in exported if "websocket" in line] == ["main"]
    egress("audit")
    assert json.loads(egress("usage", "--json", "--by", "model").splitlines()[0])["output_tokens"] == 6


# ── hosts that are not inspected ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Yield a proxy, and a WebSocket server without TLS. The proxy forwards its frames without recording them."""
    directory = tmp_path_factory.mktemp("plain")
    with WebSocketProvider(directory / "provider", tls=False) as server:
        running = RunningProxy(directory, [server.port, server.port], server.ca_file)
        with running:
            yield running, server
    assert "Traceback" not in running.log, running.log


def dial_plain(plain, **options):
    proxy, server = plain
    return websocket_provider.dial(f"ws://www.example.com:{server.port}/", proxy=proxy.proxy_url(), **options)


def test_websocket_to_another_host_passes_unmodified_and_unrecorded(plain):
    with dial_plain(plain, compression="deflate") as socket:
        for message in ("one", "", b"\0" * 3_000_000):
            socket.send(message)
            assert socket.recv() == message
        assert socket.connection.protocol.extensions
    assert plain[0].exchanges() == []


def test_invalid_frames_do_not_reach_another_host(plain):
    with dial_plain(plain, compression=None) as socket:
        socket.raw(b"GET /hidden HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv()
        assert caught.value.rcvd.code == 1002
    assert plain[1].errors == []


def test_endless_message_to_another_host_uses_no_memory(plain):
    proxy, server = plain
    size, number, arrived = 1024 * 1024, 96, []

    def talk(connection):
        for fragment in connection.fragments():
            arrived.append(len(fragment))

    def resident():
        status = Path(f"/proc/{proxy.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    server.talk = talk
    with dial_plain(plain, compression=None) as socket:
        before = resident()
        for index in range(number):
            opcode = Opcode.CONT if index else Opcode.BINARY
            socket.raw(Frame(opcode, b"x" * size, fin=False).serialize(mask=True))
        wait_until(lambda: sum(arrived) == size * number, proxy)
        assert resident() - before < size * number // 3
        socket.abort()
