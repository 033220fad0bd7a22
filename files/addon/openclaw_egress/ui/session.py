"""The session of an exchange: the other exchanges of the same agent run, and the turns that each of them added.

Requests contain no ID of their run. Instead, three signs connect exchanges of one class and client: the trace ID
in ``traceparent``, ``previous_response_id`` of the Responses API, and a conversation that continues another one. The
search reads the nearest records first and stops at a time limit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

from openclaw_egress.llm.conversation import Turn, each_request_turn
from openclaw_egress.llm.model import object_of
from openclaw_egress.reports.stored_record import headers_of, lines_of, whole_of
from openclaw_egress.spool.reader import Brief, Filters, Row, SpoolReader
from openclaw_egress.ui import exchange, listing, ranges

NEAR = 2_000
"""Number of lines that the search reads on each side of the exchange."""
SHOWN = 20_000
"""Maximum number of characters of an exchange's turns on the page. The page of the record shows more."""
_PREVIOUS = re.compile(r'"previous_response_id" ?: ?"([A-Za-z0-9_-]{1,128})"')
_RESPONSE = re.compile(r'"id" ?: ?"(resp_[A-Za-z0-9_-]{1,128})"')
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Links:
    """The identifiers that connect an exchange to others."""

    seq: int
    trace: str = ""
    previous: str = ""
    """ID of the response that the request continues (``previous_response_id``)."""
    response_ids: frozenset[str] = frozenset()
    digests: Sequence[str] = ()
    """Hashes of the request's turns, except those of the role ``system``; only the first hash if ``turns`` is None."""
    turns: tuple[Sequence[Turn], Sequence[Turn]] | None = None
    """The turns of request and response; None if trace ID and first turn both differ from the chosen exchange."""
    cuts: Sequence[str] = ()
    """Reasons why ``turns`` may be incomplete; see `exchange.cuts_of`."""


@dataclass(frozen=True, slots=True)
class Member:
    """An exchange of a session.

    ``added`` contains the turns of its request that were not in the request of the previous exchange.
    """

    row: Row
    line: listing.Line
    signs: Sequence[str]
    """The names of the signs that connect this exchange to the chosen one."""
    added: Sequence[Turn]
    received: Sequence[Turn]
    hidden: exchange.Hidden
    """The omitted part of ``added`` and ``received``."""
    cuts: Sequence[str]
    """Reasons why the record itself may lack turns."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """The contents of a session's page."""

    row: Row
    members: Sequence[Member]
    first: int
    """Number of the first line that the search read. ``last`` is that of the last line."""
    last: int
    is_whole: bool
    """Whether all lines of the spool were searched."""


def links_of(seq: int, lines: Sequence[str], chosen: Links | None = None) -> Links:
    """Return the identifiers that connect an exchange to others, from its log lines.

    Read all turns only if ``chosen`` is None, or has the same trace ID or the same first turn. Conversations with
    different first turns cannot continue each other.
    """
    whole = whole_of(lines)[0]
    sent, said = (exchange.text_of_body(whole.get(side)) for side in exchange.SIDES)
    previous = _PREVIOUS.search(sent)
    headers = {name.lower(): value for name, value in headers_of(object_of(whole.get("request")))}
    found = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    sent_turns: Iterable[Turn] = exchange.turns_of(whole)[0] if "websocket" in whole else each_request_turn(sent)
    digests = _digests(islice((turn for turn in sent_turns if turn.role != "system"), 1))
    trace, turns = found[1] if found else "", None
    if chosen is None or (trace and trace == chosen.trace) or (digests and digests == chosen.digests[:1]):
        turns = exchange.turns_of(whole)
        digests = _digests(turns[0])
    return Links(
        seq=seq,
        trace=trace,
        previous=previous[1] if previous else "",
        response_ids=frozenset(_RESPONSE.findall(said)),
        digests=digests,
        turns=turns,
        cuts=exchange.cuts_of(whole),
    )


def _digests(turns: Iterable[Turn]) -> list[str]:
    texts = (repr(turn).encode(errors="surrogatepass") for turn in turns if turn.role != "system")
    return [hashlib.sha256(text).hexdigest() for text in texts]


def signs_of(chosen: Links, pool: Sequence[Links]) -> dict[int, Sequence[str]]:
    """Return the exchanges in the session of ``chosen`` by line number, each with the signs that connect it."""
    signs: dict[int, Sequence[str]] = {one.seq: found for one in pool if (found := _signs(chosen, one))}
    signs[chosen.seq] = ()
    by_response = {name: one for one in pool for name in one.response_ids}
    following: dict[str, list[Links]] = {}
    for one in pool:
        following.setdefault(one.previous, []).append(one)
    # Requests with `previous_response_id` form chains. Follow each chain in both directions to its end.
    todo = [one for one in pool if one.seq in signs]
    while todo:
        one = todo.pop()
        linked = [other for name in one.response_ids for other in following.get(name, ())]
        if one.previous in by_response:
            linked.append(by_response[one.previous])
        for other in linked:
            if other.seq not in signs:
                signs[other.seq] = ["previous_response_id"]
                todo.append(other)
    return signs


def _members(reader: SpoolReader, pool: Sequence[Links], signs: Mapping[int, Sequence[str]]) -> Iterator[Member]:
    """Yield the exchanges of ``pool`` that belong to the session, in the order of the pool."""
    before: Sequence[str] = ()
    for one in pool:
        for row in reader.query(Filters().within(one.seq, one.seq + 1)) if one.seq in signs else ():
            sent_turns, received = one.turns or exchange.turns_of(whole_of(_lines(reader, row))[0])
            digests = one.digests if one.turns else _digests(sent_turns)
            known = len(before) if _begins(digests, before) else 0
            systems = len(sent_turns) - len(digests)
            added = sent_turns[systems + known :] if known else sent_turns
            added, of_added = exchange.bounded(added, SHOWN)
            received, of_received = exchange.bounded(received, SHOWN)
            hidden = exchange.Hidden(of_added.parts + of_received.parts, of_added.characters + of_received.characters)
            yield Member(row, listing.line_of(row), signs[one.seq], added, received, hidden, one.cuts)
            before = digests


def _signs(chosen: Links, one: Links) -> list[str]:
    found = []
    if chosen.trace and chosen.trace == one.trace:
        found.append("trace")
    if _follows(chosen, one) or _follows(one, chosen):
        found.append("previous_response_id")
    if _begins(chosen.digests, one.digests) or _begins(one.digests, chosen.digests):
        found.append("conversation")
    return found


def _follows(one: Links, other: Links) -> bool:
    return bool(one.previous) and one.previous in other.response_ids


def _begins(whole: Sequence[str], beginning: Sequence[str]) -> bool:
    """Return whether the conversation ``whole`` begins with all turns of ``beginning``."""
    return bool(beginning) and whole[: len(beginning)] == beginning


def read_session(reader: SpoolReader, row: Row, clock: Callable[[], float]) -> SessionView:
    """Search the nearest records of the same class and client for the session of an exchange. Return the session."""
    end = clock() + ranges.READ_SECONDS
    filters = Filters(class_name=row.class_name)
    newest = reader.head()[0]
    lowest, highest = max(1, row.seq - NEAR), min(newest, row.seq + NEAR)
    before = list(reader.briefs(filters.within(lowest, row.seq)))[::-1]
    after = list(reader.briefs(filters.within(row.seq + 1, highest + 1)))
    chosen = links_of(row.seq, _lines(reader, row))
    pool = [chosen]
    first = last = row.seq
    for one in _nearest_first(before, after):
        first, last = min(first, one.seq), max(last, one.seq)
        if one.client == row.client:
            pool.append(links_of(one.seq, _lines(reader, one), chosen))
            if clock() >= end:
                break
    else:
        first, last = lowest, highest
    pool.sort(key=lambda one: one.seq)
    members = list(_members(reader, pool, signs_of(chosen, pool)))
    return SessionView(row, members, first, last, is_whole=(first, last) == (1, newest))


def _nearest_first(before: Sequence[Brief], after: Sequence[Brief]) -> Iterator[Brief]:
    """Yield the exchanges before and after the chosen one, the nearest first."""
    return (one for pair in zip_longest(before, after) for one in pair if one is not None)


def _lines(reader: SpoolReader, one: Row | Brief) -> list[str]:
    return lines_of(one.id, [text for _, _, text in reader.stored_between(one.seq, one.seq + one.parts)])
