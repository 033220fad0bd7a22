"""A hash chain of log lines, and functions that tamper with it. An audit must detect each change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from openclaw_egress.audit.chain import GONE, ChainLine, Ledger, LedgerRow
from openclaw_egress.recording.hash_chain import line_hash
from openclaw_egress.recording.records import Body, ExchangeRecord
from openclaw_egress.signatures import Signer
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.writer import Spool

LINES = 18
"""Number of lines: 1-6 exchanges, 7-10 a split exchange, 11 a checkpoint, 12-17 exchanges, 18 a checkpoint."""

Lines = list[ChainLine]


def exchange(name: str, size: int = 0) -> ExchangeRecord:
    return ExchangeRecord(
        id=name,
        class_name="gateway",
        method="POST",
        url="https://api.anthropic.com/v1/messages",
        host="api.anthropic.com",
        port=443,
        begin_ns=1_000,
        end_ns=2_000,
        status=200,
        response_body=Body.of(b"x" * size or name.encode()),
    )


def write_chain(path: Path, *, signed: bool = False) -> None:
    """Write the chain to a new spool, and mark every line as acknowledged."""
    signer = Signer.in_directory(path.parent) if signed else None
    with Spool(path, sync_seconds=None, signer=signer) as spool:
        for number in range(6):
            spool.close_exchange(exchange(f"early-{number}"))
        spool.close_exchange(exchange("split", 500_000))
        spool.checkpoint()
        for number in range(6):
            spool.close_exchange(exchange(f"late-{number}"))
        spool.checkpoint()
        spool.acknowledge(range(1, LINES + 1))


def read_chain(path: Path) -> tuple[Ledger, Lines]:
    """Return the ledger and all lines of the chain."""
    with SpoolReader(path) as reader:
        rows = reader.ledger(*reader.range_of())
        ledger = Ledger.of(
            LedgerRow(seq, at, digest, GONE if state is None else state) for seq, at, digest, state in rows
        )
        return ledger, [ChainLine(*line) for line in reader.stored(0, 2**63 - 1)]


def compact(sealed: dict[str, object]) -> str:
    return json.dumps(sealed, ensure_ascii=False, separators=(",", ":"))


def at(lines: Lines, seq: int) -> int:
    return next(place for place, line in enumerate(lines) if json.loads(line.text)["seq"] == seq)


def edit(lines: Lines) -> Lines:
    place = at(lines, 4)
    lines[place] = lines[place]._replace(text=lines[place].text.replace('"status":200', '"status":201'))
    return lines


def edit_and_renumber(lines: Lines) -> Lines:
    """Edit line 4, and update `prev` of line 5. The chain then breaks at line 6, because the hash of line 5 changed."""
    lines = edit(lines)
    place = at(lines, 5)
    sealed = json.loads(lines[place].text) | {"prev": line_hash(lines[at(lines, 4)].text)}
    lines[place] = lines[place]._replace(text=compact(sealed))
    return lines


def delete(lines: Lines) -> Lines:
    del lines[at(lines, 3)]
    return lines


def delete_several(lines: Lines) -> Lines:
    return [line for line in lines if json.loads(line.text)["seq"] not in (2, 3, 14)]


def swap(lines: Lines) -> Lines:
    """Swap the contents of lines 2 and 13, but not their `seq` and `prev`."""
    one, other = at(lines, 2), at(lines, 13)
    contents = [json.loads(lines[place].text) for place in (one, other)]
    for place, mine, content in ((one, contents[0], contents[1]), (other, contents[1], contents[0])):
        sealed = content | {"seq": mine["seq"], "prev": mine["prev"]}
        lines[place] = lines[place]._replace(text=compact(sealed))
    return lines


def cut_tail(lines: Lines) -> Lines:
    return [line for line in lines if json.loads(line.text)["seq"] < LINES - 3]


def drop_part(lines: Lines) -> Lines:
    del lines[at(lines, 9)]
    return lines


def forge_checkpoint(lines: Lines) -> Lines:
    place = at(lines, 11)
    sealed = json.loads(lines[place].text)
    sealed["openclaw.egress.checkpoint.hash"] = "ab" * 32
    lines[place] = lines[place]._replace(text=compact(sealed))
    return lines


def forge_with_a_used_number(lines: Lines) -> Lines:
    place = at(lines, 6)
    sealed = json.loads(lines[place].text) | {"url": "https://api.anthropic.com/v1/forged"}
    return [
        *lines,
        lines[place]._replace(time_ns=lines[place].time_ns + 7, text=compact(sealed)),
    ]


def forge_without_a_number(lines: Lines) -> Lines:
    return [*lines, ChainLine(lines[-1].time_ns + 1, "I am a record of the proxy")]


def forge_after_the_end(lines: Lines) -> Lines:
    """Append a line that continues the chain correctly."""
    last = lines[at(lines, LINES)]
    text = json.dumps(
        {"seq": LINES + 1, "prev": line_hash(last.text), "url": "https://x.example/"}, separators=(",", ":")
    )
    return [*lines, ChainLine(last.time_ns + 1, text)]


def rewrite(lines: Lines) -> Lines:
    """Edit line 4, and recompute the hashes in all later lines. Only signatures or the ledger reveal this."""
    lines = edit(lines)
    for seq in range(5, LINES + 1):
        place = at(lines, seq)
        sealed = json.loads(lines[place].text) | {"prev": line_hash(lines[at(lines, seq - 1)].text)}
        if named := sealed.get("openclaw.egress.checkpoint.seq"):
            sealed["openclaw.egress.checkpoint.hash"] = line_hash(lines[at(lines, named)].text)
        lines[place] = lines[place]._replace(text=compact(sealed))
    return lines


TAMPERINGS: dict[str, tuple[Callable[[Lines], Lines], set[tuple[str, int]]]] = {
    "edit": (edit, {("changed", 4)}),
    "edit and renumber": (edit_and_renumber, {("changed", 4), ("changed", 5)}),
    "delete": (delete, {("missing", 3)}),
    "delete several": (delete_several, {("missing", 2), ("missing", 14)}),
    "swap": (swap, {("changed", 2), ("changed", 13)}),
    "cut tail": (cut_tail, {("cut_tail", 15)}),
    "drop a part": (drop_part, {("missing_part", 9)}),
    "forge a checkpoint": (forge_checkpoint, {("changed", 11)}),
    "forge with a used number": (forge_with_a_used_number, {("foreign", 6)}),
    "forge without a number": (forge_without_a_number, {("foreign", 0)}),
    "forge after the end": (forge_after_the_end, {("foreign", LINES + 1)}),
}
"""Functions that tamper with a chain, by name, each with the problems (code, first line) that the audit must find."""
