"""The page of a record: its fields, conversation and messages, and the request as a curl command. Pure functions."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from openclaw_egress.llm.conversation import (
    Turn,
    assembled_turns,
    realtime_turns,
    request_turns,
    response_turns,
)
from openclaw_egress.llm.model import count_of, list_of, object_of
from openclaw_egress.recording.semconv import USAGE_DETAILS
from openclaw_egress.reports.stored_record import body_size, headers_of, whole_of
from openclaw_egress.reports.text import escape, local_time, seconds, size
from openclaw_egress.spool.reader import Row
from openclaw_egress.wire.json_indent import indented

SHOWN_BODY = 100_000
"""Maximum number of characters of a body on the page. The whole body is available as a download."""
SHOWN_CONVERSATION = 400_000
"""Maximum number of characters of a conversation on the page. The oldest turns are omitted first."""
PART_ROOM = 200
"""The limit counts at least this many characters for each part, because the frame of a part takes space on the page."""
OPEN_BODY = 4_000
"""Maximum length of a body that the page shows expanded. A longer one is collapsed at first."""
CURL_BODY = 20_000
"""Maximum length of a body inside a curl command. For a longer one, the command reads the downloaded file."""
SIDES = ("request", "response")


@dataclass(frozen=True, slots=True)
class Message:
    """A request or a response, as the page shows it."""

    side: str
    first_line: str
    headers: Sequence[tuple[str, str]]
    body: str
    notes: Sequence[str]
    """Remarks about the body, for example that it is truncated, binary or not shown completely."""

    @property
    def is_short(self) -> bool:
        """Return whether the body is short enough for the page to show it expanded."""
        return len(self.body) <= OPEN_BODY


class Hidden(NamedTuple):
    """The amount of a conversation that the page does not show: omitted or shortened parts, and omitted characters."""

    parts: int = 0
    characters: int = 0


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One log line of the record, with its number and hash in the hash chain."""

    seq: int
    sha256: str
    matches: bool
    """Whether the ledger has the same hash for the line."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The duration of an exchange and the time until the first chunk of its response, in seconds."""

    first_chunk: float | None
    duration: float
    waiting: int
    """The share of the duration before the first chunk, in thousandths."""


@dataclass(frozen=True, slots=True)
class ExchangeView:
    """The contents of a record's page."""

    row: Row
    facts: Sequence[tuple[str, str]]
    turns: Sequence[Turn]
    hidden: Hidden
    cuts: Sequence[str]
    """Reasons why the conversation may lack turns of the exchange."""
    messages: Sequence[Message]
    timing: Timing | None
    chain: Sequence[ChainLink]
    curl: str
    curl_is_whole: bool
    """Whether the record contains the whole request body, unmasked."""
    problem: str
    """Reason why the page cannot show the whole record; empty if it can."""


def view_of(
    row: Row, lines: Sequence[str], digest: Callable[[int], bytes | None], details: Mapping[str, int] | None = None
) -> ExchangeView:
    """Return the contents of a record's page.

    Args:
        row: the fields of the record.
        lines: its log lines.
        digest: returns the ledger's hash of a line.
        details: additional token counts of the record, by their names in `semconv.USAGE_DETAILS`.
    """
    whole, problem = whole_of(lines)
    if missing := whole.get("missing_parts"):
        problem = f"parts {', '.join(map(str, missing))} of the record are no longer stored"
    sent, received = turns_of(whole)
    turns, hidden = bounded([*sent, *received], SHOWN_CONVERSATION)
    duration = row.duration
    first = row.first_chunk
    return ExchangeView(
        row=row,
        facts=[(name, value) for name, value in _facts(row, details or {}) if value],
        turns=turns,
        hidden=hidden,
        cuts=cuts_of(whole) if turns else (),
        messages=[_message(side, whole) for side in SIDES if object_of(whole.get(side))] or _event(lines),
        timing=Timing(first, duration, round(1000 * min(1.0, (first or duration) / duration))) if duration else None,
        chain=list(_chain(lines, digest)),
        # Omit the command for a WebSocket, because curl cannot send its messages.
        curl=as_curl(whole) if object_of(whole.get("request")) and "websocket" not in whole else "",
        curl_is_whole=not {"body_truncated", "body_masked"} & object_of(whole.get("request")).keys(),
        problem=problem,
    )


def _facts(row: Row, details: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    tokens = (
        ("in", row.input_tokens),
        ("out", row.output_tokens),
        ("read from cache", row.cache_read_tokens),
        ("written to cache", row.cache_write_tokens),
        ("reasoning", row.reasoning_tokens),
    )
    yield "time", local_time(row.time_ns)
    yield "event", row.event_name.rpartition(".")[2]
    yield "ID", row.id
    yield "class", row.class_name
    yield "instance", row.instance or ""
    yield "client", row.client or ""
    yield "destination", f"{row.host}:{row.port}" if row.host else ""
    yield "outcome", row.outcome or ""
    yield "status", "" if row.status is None else str(row.status)
    yield "error", row.error_type or ""
    yield "decision", ": ".join(filter(None, (row.rule, row.reason)))
    yield "code", row.code or ""
    yield "count", "" if row.count is None else str(row.count)
    yield "provider", row.provider or ""
    yield "model", row.model or ""
    yield "tokens", ", ".join(f"{value:,} {name}" for name, value in tokens if value is not None)
    further = ((USAGE_DETAILS[name], value) for name, value in details.items())
    yield "of these", ", ".join(f"{value:,} {name}" for name, value in further if value)
    yield "cost", "" if row.cost_usd is None else f"{row.cost_usd:.6f} USD"
    yield "first chunk", seconds(row.first_chunk)
    yield "duration", seconds(row.duration)
    yield "key", row.key or ""
    yield "export", row.state.replace("_", " ") + (f": {row.why}" if row.why else "")


def turns_of(whole: Mapping[str, Any]) -> tuple[list[Turn], list[Turn]]:
    """Return the conversation turns of the request and those of the response."""
    if socket := object_of(whole.get("websocket")):
        sides = (("sent", "request"), ("received", "response"))
        session = realtime_turns(*(_messages(whole.get(side), object_of(socket.get(of))) for of, side in sides))
        if session:
            return [], session
    received = assembled_turns(whole.get("messages")) or response_turns(text_of_body(whole.get("response")))
    return request_turns(text_of_body(whole.get("request"))), received


def _messages(message: object, sizes: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text messages of one direction of a WebSocket. Split the stored body at the recorded byte sizes."""
    if object_of(message).get("body_masked"):
        # Masking changes message sizes, so split at line feeds instead: the recorded APIs send each event as one line
        # of JSON.
        yield from text_of_body(message).split("\n")
        return
    body, begin = text_of_body(message).encode(errors="replace"), 0
    for count in filter(None, map(count_of, list_of(sizes.get("sizes")))):
        if begin + count > len(body):
            return
        yield body[begin : begin + count].decode(errors="replace")
        begin += count + 1  # Skip the line feed that separates two messages.


def text_of_body(message: object) -> str:
    """Return the body of a request or a response as text; empty if it is not text."""
    found = object_of(message)
    body = found.get("body")
    return body if isinstance(body, str) and found.get("body_encoding") != "base64" else ""


def cuts_of(whole: Mapping[str, Any]) -> list[str]:
    """Return the reasons why turns may be missing: the bodies or messages that the record contains only in part."""
    cuts = []
    if object_of(whole.get("request")).get("body_truncated"):
        cuts.append("the record has only a part of the request body")
    if whole.get("messages_truncated"):
        cuts.append("the record has only a part of the streamed message")
    elif "messages" not in whole and object_of(whole.get("response")).get("body_truncated"):
        cuts.append("the record has only a part of the response body")
    return cuts


def bounded(turns: Sequence[Turn], room: int) -> tuple[list[Turn], Hidden]:
    """Return the newest turns, limited to ``room`` characters, and the amount of omitted text.

    Count at least `PART_ROOM` characters for each part, so that many short parts also reach the limit.
    """
    left_out: list[int] = []
    kept: list[Turn] = []
    for turn in reversed(turns):
        parts = []
        for part in turn.parts:
            if room <= 0:
                left_out.append(len(part.text))
                continue
            text = part.text[:room]
            if text != part.text:
                left_out.append(len(part.text) - len(text))
            room -= max(len(text), PART_ROOM)
            parts.append(part if text == part.text else replace(part, text=text + " …"))
        if parts or (not turn.parts and room > 0):
            kept.append(Turn(turn.role, tuple(parts)))
        elif not turn.parts:
            left_out.append(0)
    return kept[::-1], Hidden(len(left_out), sum(left_out))


def _message(side: str, whole: Mapping[str, Any]) -> Message:
    message = object_of(whole.get(side))
    first = f"{whole.get('method')} {whole.get('url')}" if side == "request" else f"{whole.get('status')}"
    body, notes = str(message.get("body") or ""), []
    if message.get("body_encoding") == "base64":
        notes.append(f"not text, so shown as Base64: {size(body_size(message))}")
    else:
        body = indented(body)
    if masked := count_of(message.get("body_masked")):
        notes.append(f"masked: {masked} secrets; size and SHA-256 are those of the unmasked bytes")
    if message.get("body_truncated"):
        notes.append(f"truncated: the body had at least {size(body_size(message))}")
    if len(body) > SHOWN_BODY:
        notes.append(f"the first {SHOWN_BODY:,} of {len(body):,} characters; download the body to see all")
    return Message(side, first, list(headers_of(message)), body[:SHOWN_BODY], notes)


def _event(lines: Sequence[str]) -> list[Message]:
    """Return the log lines of a record that is not an exchange, as indented JSON."""
    shown = ((indented(line)[:SHOWN_BODY], len(indented(line))) for line in lines if line)
    rest = "the first {:,} of {:,} characters; `egress export` writes the whole line"
    return [
        Message("line", "", (), text, [rest.format(SHOWN_BODY, length)] if length > SHOWN_BODY else ())
        for text, length in shown
    ]


def _chain(lines: Iterable[str], digest: Callable[[int], bytes | None]) -> Iterator[ChainLink]:
    for text in lines:
        found = hashlib.sha256(text.encode(errors="surrogatepass"))
        try:
            seq = int(object_of(json.loads(text)).get("seq") or 0)
        except (ValueError, TypeError, RecursionError):
            seq = 0
        yield ChainLink(seq, found.hexdigest(), digest(seq) == found.digest())


def body_bytes(lines: Sequence[str], side: str) -> bytes | None:
    """Return the stored body of a request or a response, after content decoding; None if there is no body."""
    message = object_of(whole_of(lines)[0].get(side))
    body = message.get("body")
    if not isinstance(body, str):
        return None
    return base64.b64decode(body) if message.get("body_encoding") == "base64" else body.encode(errors="replace")


def as_curl(whole: Mapping[str, Any]) -> str:
    """Return the request as a curl command. Redacted headers keep the recorded placeholder as their value."""
    request = object_of(whole.get("request"))
    # Quote method and URL, which an agent chose: both can contain special characters of the shell. `--globoff`
    # disables curl's special characters in the URL.
    words = ["curl", "--globoff", "--request", shell_word(str(whole.get("method"))), shell_word(str(whole.get("url")))]
    skipped = ("content-length", "host", "connection", "accept-encoding")
    for name, value in headers_of(request):
        if name.lower() not in skipped:
            words += ["--header", shell_word(f"{name}: {value}")]
    body = text_of_body(request)
    if len(body) > CURL_BODY or request.get("body_encoding") == "base64":
        words += ["--data-binary", "@request-body"]
    elif body:
        words += ["--data-raw", shell_word(body)]
    pairs = [" ".join(words[:5]), *(" ".join(words[at : at + 2]) for at in range(5, len(words), 2))]
    return " \\\n  ".join(pairs)


def shell_word(text: str) -> str:
    """Quote a text for bash. Write invisible characters as escapes, so that the page can show them."""
    if escape(text) == text:
        return shlex.quote(text)
    quoted = escape(text.replace("\\", "\\\\").replace("'", "\\'"))
    return f"$'{quoted}'"
