"""Tests of the readers of all registered APIs with hostile bytes, in every split into chunks.

The tests randomly change bodies of the fake provider. Whatever the change, a reader must not raise an exception, and
its memory must stay bounded. Its result must not depend on the division of the bytes into chunks. If a reader hangs,
pytest's timeout ends the test.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from openclaw_egress.llm import message_reader, request_reader, response_reader, token_counting
from openclaw_egress.llm.model import Api, RequestFacts, ResponseFacts, ResponseReader, object_in, text_of
from openclaw_egress.llm.parsers import MAX_EVENT_BYTES
from openclaw_egress.llm.registry import APIS
from openclaw_egress.llm.responses_websocket import CREATE, ENDS, Lanes, Turn
from openclaw_egress.wire.json_members import TopLevelMembers
from tests.support.llm_providers import Request, answer, aws_event
from tests.support.websocket_provider import response_events
from tests.unit.llm_samples import samples_of

EXCHANGES = 10_000
TYPES = (
    None,
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
    "text/plain; charset=utf-8",
)
EACH = pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
USAGE = {
    "prompt_tokens": 5, "completion_tokens": 7, "input_tokens": 5, "output_tokens": 7, "inputTokens": 5,
    "promptTokenCount": 5, "total_tokens": 12, "tokens": {"input_tokens": 5},
}  # fmt: skip
# Matches the model names in the example paths of the API registrations.
MODEL = re.compile(r"gemini-2.5-flash|claude-sonnet-4-5-20250929-v1:0|claude-[^/]+(?=:\w+Predict)|mistral-medium-3")
# Bytes that a random change inserts into a body or writes in place of a JSON value.
JUNK = [
    b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 30, b"9" * 5000, b'""', b'"\\ud800"', b'"\\udc00\\ud800"',
    b"[]", b"{}", b"[" * 2000, b'{"a":' * 500, b'"', b"\\", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n\r\n",
    b"data: ", b"data:\n\n", b": x\n", b"event: error\n", b"[DONE]", b'{"type":"error","error":{}}', b"\xc3", b"}",
    b"]", bytes(12), bytes(200),
]  # fmt: skip


def seeds(api: Api) -> list[tuple[str | None, bytes, bytes]]:
    return seeds_of(APIS.index(api))


@cache
def seeds_of(number: int) -> list[tuple[str | None, bytes, bytes]]:
    """Return (content type, request, response) for each kind of exchange that an API has."""
    api, found = APIS[number], list[tuple[str | None, bytes, bytes]]()
    for path, model, stream in itertools.product(api.examples, ("any-model", "tools", "thinks"), (True, False)):
        url = MODEL.sub(model, path)
        sent = {"model": model, "stream": stream, "messages": [], "input": "x", "prompt": "x", "contents": []}
        sent |= {"standin": {"events": 1}, "thinking": {"type": "enabled"}, "think": True}
        body = json.dumps(sent).encode()
        headers = {"authorization": "x"}
        reply = answer(Request("POST", "localhost", url.partition("?")[0], {"alt": "sse"}, headers, body, sent))
        if reply.status == 200:
            found.append((reply.content_type, body, b"".join(reply.pieces)))
    if values := samples_of(api):
        lines = [json.dumps(value, ensure_ascii=False).encode() for value in values]
        found.append(("application/x-ndjson", b"{}", b"\n".join(lines) + b"\n"))
        found.append(("application/json", b"{}", lines[-1]))
        found.append(("text/event-stream", b"{}", b"".join(b"data: " + line + b"\n\n" for line in lines)))
    return list(dict.fromkeys(found))


def response_of(api: Api, content_type: str | None, chunks: list[bytes]) -> ResponseFacts:
    reader = response_reader("host.example", api.examples[0], content_type, {"x-amzn-errortype": "\udc80"})
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def messages_of(api: Api, chunks: list[bytes]) -> ResponseFacts:
    reader = message_reader(api.examples[0])
    assert reader is not None
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def request_of(api: Api, chunks: list[bytes]) -> RequestFacts:
    reader = request_reader("host.example", api.examples[0])
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


@EACH
def test_every_split_of_each_body_gives_the_same(api: Api) -> None:
    # Use only the shortest body of each content type, to limit the number of splits.
    shortest = {seed[0]: seed for seed in sorted(seeds(api), key=lambda seed: -len(seed[2]))}
    read = 0
    for content_type, request, response in shortest.values():
        facts = response_of(api, content_type, [response])
        read += facts != ResponseFacts()
        posted = request_of(api, [request])
        for at in range(len(response) + 1):
            assert response_of(api, content_type, [response[:at], response[at:]]) == facts
        for at in range(len(request) + 1):
            assert request_of(api, [request[:at], request[at:]]) == posted
        assert response_of(api, content_type, [bytes([byte]) for byte in response]) == facts
    assert read or api.operation == token_counting.OPERATION


def hostile(body: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return the body with one to four random changes."""
    for _ in range(chance.randint(1, 4)):
        at, end = sorted((chance.randint(0, len(body)), chance.randint(0, len(body))))
        match chance.randint(0, 5):
            case 0:
                body = body[:at] + bytes([chance.randint(0, 255)]) + body[at + 1 :]
            case 1:
                body = body[:at] + chance.choice(JUNK) + body[at:]
            case 2:
                body = body[:at] + body[end:]
            case 3:
                body = body[:end] + body[at:end] * chance.randint(1, 3) + body[end:]
            case 4:
                other = chance.choice(others)
                body = body[:at] + other[chance.randint(0, len(other)) :]
            case 5:
                # Replace the JSON value after a random colon.
                colon = body.find(b":", at)
                comma = body.find(b",", colon)
                body = body[: colon + 1] + chance.choice(JUNK) + body[comma:] if 0 <= colon < comma else body
    return body


def cuts(body: bytes, chance: random.Random) -> list[bytes]:
    bounds = sorted(chance.randint(0, len(body)) for _ in range(chance.randint(0, 6)))
    return [body[a:b] for a, b in itertools.pairwise([0, *bounds, len(body)])]


@EACH
def test_hostile_exchanges_never_raise_and_never_depend_on_chunks(api: Api) -> None:
    chance = random.Random(f"{api.name}")
    everything = [response for other in APIS for _, _, response in seeds(other)]
    for _ in range(-(-EXCHANGES // len(APIS))):
        content_type, request, response = chance.choice(seeds(api))
        body, posted = hostile(response, everything, chance), hostile(request, everything, chance)
        content_type = chance.choice((content_type, *TYPES))
        facts = response_of(api, content_type, [body])
        assert response_of(api, content_type, cuts(body, chance)) == facts
        assert messages_of(api, cuts(body, chance)) == messages_of(api, [body])
        assert request_of(api, cuts(posted, chance)) == request_of(api, [posted])
        # Check that the result has valid Unicode and finite numbers, as the record and the web page require.
        json.dumps([vars(facts.usage), facts.messages, facts.model, facts.id], allow_nan=False).encode()


def requests_of(chance: random.Random) -> list[bytes]:
    """Return three `response.create` requests, each with its own `stream_id`. Damage some of them at random."""
    posted = [json.dumps({"type": CREATE, "model": "m", "input": "x", "stream_id": f"s{n}"}).encode() for n in range(3)]
    return [hostile(message, posted, chance) if chance.random() < 0.3 else message for message in posted]


def events_of(chance: random.Random) -> list[bytes]:
    """Return the interleaved events of three responses. Damage, repeat or omit some of them at random."""
    streams = [
        [event.encode() for event in response_events(f"r{n}", "Grüße ✓", USAGE, stream_id=f"s{n}")] for n in range(3)
    ]
    everything = [event for stream in streams for event in stream]
    mixed = [streams[n].pop(0) for n in chance.sample(sorted([0, 1, 2] * len(streams[0])), len(everything))]
    found: list[bytes] = []
    for event in mixed:
        changed = hostile(event, everything, chance) if chance.random() < 0.3 else event
        found += [changed] * chance.choice((0, 1, 1, 1, 1, 1, 1, 2))
    return found


def responses_on_websocket(
    posted: list[bytes], events: list[bytes], chance: random.Random | None
) -> list[ResponseFacts]:
    """Read responses as the recorder does. Return their `ResponseFacts` in the order in which the responses end.

    If ``chance`` is not None, split each message into random chunks.
    """
    lanes, readers, found = Lanes(), dict[Turn, ResponseReader](), list[ResponseFacts]()
    for message in posted:
        members = TopLevelMembers(frozenset({"type", "stream_id"}))
        for chunk in cuts(message, chance) if chance else [message]:
            members.feed(chunk)
        lanes.requested(members.found)
    for event in events:
        value = object_in(event) or {}
        turn = lanes.received(value)
        if turn is None:
            continue
        assert turn in lanes.turns
        reader = readers.get(turn) or message_reader("/v1/responses")
        assert reader is not None
        readers[turn] = reader
        line = event.replace(b"\n", b" ") + b"\n"
        for chunk in cuts(line, chance) if chance else [line]:
            reader.feed(chunk)
        if text_of(value.get("type")) in ENDS:
            lanes.ended(turn)
            found.append(readers.pop(turn).finish())
    return found + [reader.finish() for reader in readers.values()]


def test_hostile_messages_of_responses_on_a_websocket() -> None:
    chance, complete = random.Random("responses on a WebSocket"), 0
    for _ in range(1000):
        posted, events = requests_of(chance), events_of(chance)
        found = responses_on_websocket(posted, events, None)
        assert responses_on_websocket(posted, events, chance) == found
        complete += sum(facts.usage.input_tokens == 5 and facts.finish_reasons == ("completed",) for facts in found)
        json.dumps([[vars(facts.usage), facts.messages, facts.model, facts.id] for facts in found], allow_nan=False)
    # Require that most responses stay readable. Without this check, readers that refuse every message would pass.
    assert complete > 2000


ENDLESS = (
    ("one line", "text/event-stream"),
    ("one line", "application/x-ndjson"),
    ("one event", "text/event-stream"),
    ("one string", "application/json"),
    ("long message", "application/vnd.amazon.eventstream"),
)


def endless(kind: str) -> Iterator[bytes]:
    """Yield chunks of about 64 KiB without end, for a body of this kind."""
    number = itertools.count()
    while True:
        match kind:
            case "one line":
                yield b"x" * 65536
            case "one event":
                yield b"data: " + b"x" * 65529 + b"\n"
            case "one string":
                yield b'{"a": "' + b"x" * 65529
            case "long message":
                # Yield one complete message, and after it only messages whose last bytes are missing.
                yield aws_event("chunk", {"bytes": "x" * 65536})[: 65536 if next(number) else None]


@EACH
def test_memory_of_an_endless_body_is_bounded(api: Api) -> None:
    peaks: dict[tuple[str, str], int] = {}
    for kind, content_type in ENDLESS:
        reader = response_reader("host.example", api.examples[0], content_type)
        chunks = list(itertools.islice(endless(kind), 8))
        tracemalloc.start()
        try:
            # Feed about 12 MB, more than a reader may keep. tracemalloc does not count the chunks, because they
            # were created before it started.
            for chunk in itertools.islice(itertools.cycle(chunks), 180):
                reader.feed(chunk)
            reader.finish()
            peaks[kind, content_type] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    worst = max(peaks, key=lambda key: peaks[key])
    # A reader may hold a body or an event, a second copy of it during parsing, and the assembled message.
    assert peaks[worst] < 4 * MAX_EVENT_BYTES, (worst, peaks[worst])


def new_usage(number: int) -> dict[str, object]:
    return {"type": "message_delta", "usage": {f"member-{number}": "x" * 200}}


def new_reason(number: int) -> dict[str, object]:
    return {"type": "response.done", "response": {"status": f"{'x' * 200}-{number}"}}


@pytest.mark.parametrize(("path", "event"), [("/v1/messages", new_usage), ("/v1/realtime", new_reason)])
def test_memory_of_events_with_new_names_is_bounded(path: str, event: Callable[[int], dict[str, object]]) -> None:
    reader = message_reader(path)
    assert reader is not None
    tracemalloc.start()
    try:
        for number in range(5000):
            reader.feed(json.dumps(event(number)).encode() + b"\n")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 100_000
