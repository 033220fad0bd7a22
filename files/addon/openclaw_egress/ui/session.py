"""The session of an exchange: the other turns of the same agent run, and what each of them added.

Nothing names a run, so three signs connect exchanges of one class and client: the trace of ``traceparent``,
``previous_response_id`` of the Responses API, and a conversation that continues another one. The search reads the
nearest records first and stops when its time is over.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from openclaw_egress.llm.conversation import Turn
from openclaw_egress.llm.model import object_of
from openclaw_egress.recording.semconv import EVENT_EXCHANGE
from openclaw_egress.reports.stored_record import headers_of, lines_of, whole_of
from openclaw_egress.spool.reader import Filters, Row, SpoolReader
from openclaw_egress.ui import exchange, listing

NEAR = 2_000
"""Lines before and after the exchange that are searched."""
READ_SECONDS = 0.4
SHOWN = 20_000
"""Characters of a member's turns on the page; the page of the record has all."""
_PREVIOUS = re.compile(r'"previous_response_id" ?: ?"([A-Za-z0-9_-]{1,128})"')
_RESPONSE = re.compile(r'"id" ?: ?"(resp_[A-Za-z0-9_-]{1,128})"')
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Conversation:
    """An exchange with what connects it to others."""

    row: Row
    asked: Sequence[Turn]
    answered: Sequence[Turn]
    trace: str = ""
    previous: str = ""
    """The response that the request continues (``previous_response_id``)."""
    response_ids: frozenset[str] = frozenset()
    digests: Sequence[str] = field(default=())
    """A hash of each turn of the request, without the system's."""


@dataclass(frozen=True, slots=True)
class Member:
    """An exchange of a session. ``added`` are the turns that its request has after those of the exchange before."""

    row: Row
    line: listing.Line
    signs: Sequence[str]
    """What connects it to the chosen exchange."""
    added: Sequence[Turn]
    answered: Sequence[Turn]


@dataclass(frozen=True, slots=True)
class SessionView:
    """Everything that the page of a session shows."""

    row: Row
    members: Sequence[Member]
    first: int
    """First line that was searched; ``last``: the last one."""
    last: int


def conversation_of(row: Row, lines: Sequence[str]) -> Conversation:
    """Return what connects an exchange to others, from its log lines."""
    whole = whole_of(lines)[0]
    asked, answered = exchange.turns_of(whole)
    request = object_of(whole.get("request"))
    sent, said = (exchange.text_of_body(whole.get(side)) for side in exchange.SIDES)
    previous = _PREVIOUS.search(sent)
    headers = {name.lower(): value for name, value in headers_of(request)}
    found = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return Conversation(
        row=row,
        asked=asked,
        answered=answered,
        trace=found[1] if found else "",
        previous=previous[1] if previous else "",
        response_ids=frozenset(_RESPONSE.findall(said)),
        digests=tuple(_digest(turn) for turn in asked if turn.role != "system"),
    )


def _digest(turn: Turn) -> str:
    return hashlib.sha256(repr(turn).encode(errors="surrogatepass")).hexdigest()


def members_of(chosen: Conversation, others: Iterable[Conversation]) -> list[Member]:
    """Return the exchanges of the session of one exchange, oldest first."""
    pool = sorted([chosen, *others], key=lambda one: one.row.seq)
    signs: dict[int, list[str]] = {chosen.row.seq: []}
    for one in pool:
        if one.row.seq != chosen.row.seq and (found := _signs(chosen, one)):
            signs[one.row.seq] = found
    by_response = {name: one for one in pool for name in one.response_ids}
    following: dict[str, list[Conversation]] = {}
    for one in pool:
        following.setdefault(one.previous, []).append(one)
    # A response continues another one, which continues another one: follow the chain to both ends.
    todo = [one for one in pool if one.row.seq in signs]
    while todo:
        one = todo.pop()
        linked = [other for name in one.response_ids for other in following.get(name, ())]
        if one.previous in by_response:
            linked.append(by_response[one.previous])
        for other in linked:
            if other.row.seq not in signs:
                signs[other.row.seq] = ["previous_response_id"]
                todo.append(other)
    return list(_with_added_turns([one for one in pool if one.row.seq in signs], signs))


def _with_added_turns(members: Sequence[Conversation], signs: Mapping[int, Sequence[str]]) -> Iterator[Member]:
    before: Sequence[str] = ()
    for one in members:
        known = len(before) if _begins(one.digests, before) else 0
        systems = len(one.asked) - len(one.digests)
        added = one.asked[systems + known :] if known else one.asked
        shown = (exchange.bounded(turns, SHOWN)[0] for turns in (added, one.answered))
        yield Member(one.row, listing.line_of(one.row), signs[one.row.seq], *shown)
        before = one.digests


def _signs(chosen: Conversation, one: Conversation) -> list[str]:
    found = []
    if chosen.trace and chosen.trace == one.trace:
        found.append("trace")
    if _follows(chosen, one) or _follows(one, chosen):
        found.append("previous_response_id")
    if _begins(chosen.digests, one.digests) or _begins(one.digests, chosen.digests):
        found.append("conversation")
    return found


def _follows(one: Conversation, other: Conversation) -> bool:
    return bool(one.previous) and one.previous in other.response_ids


def _begins(whole: Sequence[str], beginning: Sequence[str]) -> bool:
    """Return whether a conversation begins with all turns of another one."""
    return bool(beginning) and whole[: len(beginning)] == beginning


def read_session(reader: SpoolReader, row: Row, clock: Callable[[], float]) -> SessionView:
    """Return the session of an exchange, from the nearest records of its class and client."""
    filters = Filters(class_name=row.class_name, event_names=[EVENT_EXCHANGE])
    before = list(reader.query(filters.within(max(1, row.seq - NEAR), row.seq)))[::-1]
    after = list(reader.query(filters.within(row.seq + 1, row.seq + NEAR + 1)))
    chosen = conversation_of(row, _lines(reader, row))
    others: list[Conversation] = []
    first = last = row.seq
    end = clock() + READ_SECONDS
    for one in chain.from_iterable(_nearest_first(before, after)):
        first, last = min(first, one.seq), max(last, one.seq)
        if one.client == row.client:
            others.append(conversation_of(one, _lines(reader, one)))
            if clock() >= end:
                break
    return SessionView(row, members_of(chosen, others), first, last)


def _nearest_first(before: Sequence[Row], after: Sequence[Row]) -> Iterable[list[Row]]:
    """Yield the rows before and after, the nearest first."""
    for at in range(max(len(before), len(after))):
        yield [*before[at : at + 1], *after[at : at + 1]]


def _lines(reader: SpoolReader, row: Row) -> list[str]:
    return lines_of(row, [text for _, _, text in reader.stored_between(row.seq, row.seq + row.parts)])
