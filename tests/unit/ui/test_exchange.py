"""Tests of the record page: conversation, messages, hash chain, curl command and HAR."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from openclaw_egress.llm.conversation import Part, Turn
from openclaw_egress.llm.model import Billing, ResponseFacts, Usage
from openclaw_egress.recording.records import Body
from openclaw_egress.recording.websocket_messages import WebSocket
from openclaw_egress.reports import har
from openclaw_egress.reports.stored_record import lines_of
from openclaw_egress.spool.reader import Row, SpoolReader
from openclaw_egress.spool.writer import Spool
from openclaw_egress.ui import exchange
from openclaw_egress.ui.pages import render
from tests.support.hostile_records import TEXT, hostile_denial, hostile_exchange

type Stored = tuple[Row, list[str], SpoolReader]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Callable[..., Stored]]:
    """Yield a function that stores an exchange and a denial, and returns the stored exchange."""
    with contextlib.ExitStack() as stack:
        yield lambda **changes: stored(tmp_path / "spool.db", stack, **changes)


def stored(path: Path, stack: contextlib.ExitStack, **changes: object) -> Stored:
    with Spool(path, sync_seconds=None, local=True) as spool:
        spool.close_exchange(hostile_exchange(**changes))
        spool.add(hostile_denial())
    reader = stack.enter_context(SpoolReader(path))
    row = list(reader.query())[-2]
    lines = lines_of(row.id, (text for _, _, text in reader.stored_between(row.seq, row.seq + row.parts)))
    return row, lines, reader


def test_conversation_has_the_turns_of_request_and_response(store):
    row, lines, reader = store()
    view = exchange.view_of(row, lines, reader.digest)
    assert [turn.role for turn in view.turns] == ["system", TEXT, "user", "assistant", "user", TEXT]
    assert view.turns[-1].parts[-1].text == TEXT and not view.problem
    assert [link.matches for link in view.chain] == [True]


def test_counts_that_only_the_attributes_have_are_shown(store):
    billing = Billing(input_audio_tokens=4000, cache_write_1h_tokens=9, web_searches=2, web_fetches=0)
    row, lines, reader = store(response_facts=ResponseFacts(usage=Usage(5000, 7), billing=billing))
    details = reader.usage_details(row.seq)
    assert list(details.values()) == [4000, 9, 2, 0]
    shown = dict(exchange.view_of(row, lines, reader.digest, details).facts)
    assert shown["tokens"] == "5,000 in, 7 out"
    assert shown["of these"] == "4,000 audio in, 9 written to cache for 1 hour, 2 web searches"
    assert reader.usage_details(row.seq + 1) == reader.usage_details(99) == {}
    assert "of these" not in dict(exchange.view_of(row, lines, reader.digest).facts)


REALTIME = [
    {"type": "session.created", "session": {"model": "gpt-realtime"}},
    {"type": "conversation.item.added", "item": {"id": "1", "type": "message", "role": "user",
     "content": [{"type": "input_text", "text": "Weather?"}]}},
    {"type": "conversation.item.done", "item": {"id": "1", "type": "message", "role": "user", "content": []}},
    {"type": "conversation.item.added", "item": {"id": "2", "type": "message", "role": "assistant", "content": []}},
    {"type": "response.done", "response": {"output": [
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"}]}},
    {"type": "conversation.item.created", "item": {"id": "3", "type": "function_call_output", "call_id": "c",
     "output": "rain"}},
    {"type": "conversation.item.input_audio_transcription.completed", "transcript": "And tomorrow?"},
    {"type": "response.done", "response": {"output": [{"type": "message", "role": "assistant", "content": [
        {"type": "output_audio", "transcript": "Sun."}]}]}},
]  # fmt: skip


def socket_of(sent: list[dict], received: list[dict], indent: int | None = None) -> dict:
    """Return `ExchangeRecord` arguments for a WebSocket with these messages, encoded with this JSON indentation."""
    socket = WebSocket("0bad")
    bodies = [
        b"".join(messages.add(json.dumps(value, indent=indent).encode(), begins=True) for value in values)
        for messages, values in ((socket.sent, sent), (socket.received, received))
    ]
    request, response = map(Body.of, bodies)
    return {"websocket": socket.facts(), "request_body": request, "response_body": response}


@pytest.mark.parametrize("indent", [None, 2])
def test_realtime_session_is_a_conversation_in_the_servers_order(store, indent):
    update = {"type": "session.update", "session": {"instructions": "Be brief."}}
    row, lines, reader = store(**socket_of([update], REALTIME, indent=indent))
    turns = exchange.view_of(row, lines, reader.digest).turns
    said = [(turn.role, part.kind, part.text or part.name) for turn in turns for part in turn.parts]
    assert said == [
        ("system", "text", "Be brief."),
        ("user", "text", "Weather?"),
        ("assistant", "tool_call", "{}"),
        ("tool", "tool_result", "rain"),
        ("user", "text", "And tomorrow?"),
        ("assistant", "media", "Sun."),
    ]


@pytest.mark.parametrize("nested", [False, True])
def test_response_over_a_websocket_is_a_conversation(store, nested):
    requested = {"model": "gpt", "input": "Weather?"}
    request = {"type": "response.create", **({"response": requested} if nested else requested)}
    answer = ResponseFacts(messages=[{"role": "assistant", "parts": [{"type": "text", "content": "Sun."}]}])
    changes = socket_of([request], [{"type": "response.created"}]) | {"response_facts": answer}
    row, lines, reader = store(**changes)
    turns = exchange.view_of(row, lines, reader.digest).turns
    assert [(turn.role, turn.parts[0].text) for turn in turns] == [("user", "Weather?"), ("assistant", "Sun.")]


@pytest.mark.parametrize("sent", [[], [{"type": 1}], [{"type": "session.update", "session": [1]}]])
def test_messages_of_another_api_have_no_conversation(store, sent):
    row, lines, reader = store(**socket_of(sent, [{"type": "response.done", "response": {"output": [1, {}]}}]))
    assert not exchange.view_of(row, lines, reader.digest).turns


def test_split_record_is_shown_as_a_whole(store):
    long = json.dumps({"messages": [{"role": "user", "content": "long " * 100_000}]})
    row, lines, reader = store(request_body=Body.of(long.encode()))
    view = exchange.view_of(row, lines, reader.digest)
    assert len(lines) > 2 and all(link.matches for link in view.chain)
    assert view.hidden == (1, 500_000 - exchange.SHOWN_CONVERSATION + 2 * max(len(TEXT), exchange.PART_ROOM))
    assert len(view.messages[0].body) == exchange.SHOWN_BODY and "download" in view.messages[0].notes[0]
    assert exchange.body_bytes(lines, "request") == long.encode()


def test_changed_line_differs_from_the_ledger(store):
    row, lines, reader = store()
    view = exchange.view_of(row, [lines[0].replace("POST", "GET", 1)], reader.digest)
    assert [link.matches for link in view.chain] == [False]


@pytest.mark.parametrize("lines", [[""], ["[]"], ["{}", "{}"], ["[" * 100_000], ['{"part":5}'], ['{"request":5}']])
def test_damaged_record_is_reported_not_raised(store, lines):
    row, _, reader = store()
    view = exchange.view_of(row, lines, reader.digest)
    assert not view.turns and (view.problem or lines in (["{}", "{}"], ['{"request":5}']))


def test_curl_command_sends_the_recorded_request():
    whole = {
        "method": "POST",
        "url": "https://api.example.com/v1?a='b",
        "request": {"headers": {"x-a": ["1", "2"], "Content-Length": "3"}, "body": TEXT},
    }
    command = exchange.as_curl(whole)
    assert command.isascii() and all(line.isprintable() for line in command.splitlines())
    done = subprocess.run(
        ["bash", "-c", f'curl() {{ printf "%s\\0" "$@"; }}; {command.replace("x00", "x01")}'],
        capture_output=True,
        check=True,
    )
    words = done.stdout.decode().split("\0")[:-1]
    # Expect \x01 in place of NUL: the test replaced it above, because a command-line argument cannot contain NUL.
    assert words == [
        *(
            "--globoff",
            "--request",
            "POST",
            "https://api.example.com/v1?a='b",
            "--header",
            "x-a: 1",
            "--header",
            "x-a: 2",
        ),
        *("--data-raw", TEXT.replace("\x00", "\x01")),
    ]


@pytest.mark.parametrize("method", ["x&id&", "|id|", "$(id)", "`id`", "x'y", "-o/tmp/x"])
def test_curl_command_quotes_the_method_that_an_agent_chose(method):
    command = exchange.as_curl({"method": method, "url": "https://a.example/{a,b}[1-9]", "request": {"headers": {}}})
    done = subprocess.run(
        ["bash", "-c", f'curl() {{ printf "%s\\0" "$@"; }}; {command}'], capture_output=True, check=True
    )
    assert done.stdout.decode().split("\0")[:-1] == ["--globoff", "--request", method, "https://a.example/{a,b}[1-9]"]


def test_conversation_of_many_short_turns_is_truncated():
    turns = [Turn("user", (Part(kind="text", text="b"),))] * 65_000
    kept, hidden = exchange.bounded(turns, exchange.SHOWN_CONVERSATION)
    assert len(kept) == exchange.SHOWN_CONVERSATION // exchange.PART_ROOM
    assert hidden == (65_000 - len(kept), 65_000 - len(kept))


def test_omitted_parts_and_turns_without_text_are_counted():
    image = Part(kind="media", name="image/png", size=10)
    turns = [Turn("user", ()), Turn("user", (image, image)), Turn("assistant", (Part(kind="text", text="x" * 300),))]
    assert exchange.bounded(turns, 1000)[1] == (0, 0)
    kept, hidden = exchange.bounded(turns, 300)
    assert kept == turns[2:] and hidden == (3, 0)


def test_page_reports_a_body_that_was_recorded_only_in_part(store):
    whole = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
    cut = Body(text=whole.decode(), size=10**6, truncated=True)
    row, lines, reader = store(request_body=cut, response_body=cut)
    view = exchange.view_of(row, lines, reader.digest)
    assert view.cuts == [
        "the record has only a part of the request body",
        "the record has only a part of the response body",
    ]
    assert "Turns can be missing: the record has only a part of the request body, and" in render(
        "record.html", view=view
    )
    assert "this command does not send what the client did" in render("record.html", view=view)
    entry = har.entry_of(row, lines)
    assert entry["request"]["postData"]["comment"] == "only a part of the body was recorded"
    assert entry["response"]["content"]["comment"] == "only a part of the body was recorded"
    answer = ResponseFacts(messages=[{"role": "assistant", "parts": []}], messages_truncated=True)
    row, lines, reader = store(request_body=Body.of(whole), response_body=cut, response_facts=answer)
    assert exchange.view_of(row, lines, reader.digest).cuts == ["the record has only a part of the streamed message"]


def test_page_shows_the_omitted_amount_of_a_conversation(store):
    row, lines, reader = store()
    text = render("record.html", view=exchange.view_of(row, lines, reader.digest))
    assert not any(mark in text for mark in ("Not shown", "Turns can be missing", "sends less"))
    assert "comment" not in json.dumps(har.entry_of(row, lines))
    long = json.dumps({"messages": [{"role": "user", "content": "b" * 900} for _ in range(700)]})
    row, lines, reader = store(request_body=Body.of(long.encode()))
    view = exchange.view_of(row, lines, reader.digest)
    shown = sum(len(part.text.removesuffix(" …")) for turn in view.turns for part in turn.parts if "bbb" in part.text)
    assert view.hidden.characters + shown == 700 * 900
    mark = f"Not shown: the oldest {view.hidden.parts:,} parts, {view.hidden.characters:,} characters."
    assert mark in render("record.html", view=view)


def test_long_line_of_another_record_is_cut_with_a_note(store):
    row, _, reader = store()
    row = replace(row, id="", event_name="event")
    view = exchange.view_of(row, [json.dumps({"message": "x" * 200_000})], reader.digest)
    (message,) = view.messages
    assert len(message.body) == exchange.SHOWN_BODY and "of 200,0" in message.notes[0]
    assert "egress export" in render("record.html", view=view)


def test_har_has_request_response_and_times(store):
    row, lines, _ = store()
    entry = har.entry_of(row, lines)
    assert entry["time"] == 2000 and entry["timings"] == {"send": 0, "wait": 1000, "receive": 1000}
    short = har.entry_of(row, lines, bodies=False)
    assert "postData" not in short["request"] and "text" not in short["response"]["content"]
    assert short["request"]["bodySize"] == entry["request"]["bodySize"] > 0
    assert entry["response"]["status"] == 200 and json.loads(entry["request"]["postData"]["text"])["model"] == TEXT


def test_denial_shows_its_line(store):
    _, _, reader = store()
    row = list(reader.query())[-1]
    view = exchange.view_of(row, [reader.line(row.seq)], reader.digest)
    assert [message.side for message in view.messages] == ["line"] and not view.curl
