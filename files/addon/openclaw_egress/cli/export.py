"""``egress export``: write stored records to a file."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from openclaw_egress.cli.formatting import BAD_INPUT, new_file, print_error
from openclaw_egress.cli.records import Since, Until, fields_of, moment
from openclaw_egress.recording.semconv import EVENT_EXCHANGE
from openclaw_egress.reports import har
from openclaw_egress.reports.stored_record import lines_of
from openclaw_egress.reports.text import csv_cell
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.rows import COLUMNS

_NOT_IN_CSV = {"time_ns", "class_name"}
"""Fields of a row that `fields_of` replaces with `time` and `class`."""


class Format(StrEnum):
    """The file formats of `egress export`."""

    JSONL = "jsonl"
    HAR = "har"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Register the command `export`."""
    app.command()(export)


def export(
    since: Since = None,
    until: Until = None,
    file_format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="jsonl: all lines, unmodified, for an audit. har: the exchanges as an HTTP Archive. "
            "csv: one row for each record, without bodies.",
        ),
    ] = Format.JSONL,
    bodies: Annotated[bool, typer.Option("--bodies/--no-bodies", help="Include the bodies in a HAR.")] = True,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to this file; by default standard output."),
    ] = None,
) -> None:
    """Write the stored records as JSON lines for an audit elsewhere, as an HTTP Archive, or as CSV.

    A line of `jsonl` is `{"time_ns": …, "line": "…"}`. `egress audit --file FILE` checks such a file on any machine.
    Exports with bodies contain prompts and responses.
    """
    if not bodies and file_format is Format.JSONL:
        print_error("--no-bodies works only with --format har: an audit needs the lines with their bodies")
        raise typer.Exit(BAD_INPUT)
    since_ns = 0 if since is None else moment("--since", since)
    until_ns = 2**63 - 1 if until is None else moment("--until", until)
    with SpoolReader(Settings.load().spool_path) as reader:
        found = Filters(since_ns=since_ns, until_ns=until_ns)
        pieces = {
            Format.JSONL: lambda: _json_lines(reader, since_ns, until_ns),
            Format.HAR: lambda: _archive(reader, found, bodies=bodies),
            Format.CSV: lambda: _rows(reader, found),
        }[file_format]()
        if output is None:
            _write(pieces, sys.stdout.buffer)
            sys.stdout.flush()
            return
        with new_file(output) as target:
            _write(pieces, target)


def _write(pieces: Iterator[str], target: BinaryIO) -> None:
    for piece in pieces:
        target.write(piece.encode(errors="replace"))


def _json_lines(reader: SpoolReader, since_ns: int, until_ns: int) -> Iterator[str]:
    for time_ns, text in reader.stored(since_ns, until_ns):
        yield json.dumps({"time_ns": time_ns, "line": text}, ensure_ascii=True) + "\n"


def _archive(reader: SpoolReader, filters: Filters, *, bodies: bool) -> Iterator[str]:
    """Yield an HTTP Archive entry by entry, because the whole archive may not fit into memory."""
    before, after = json.dumps(har.archive([])).split("[]")
    yield before + "["
    between = "\n"
    for row in reader.query(replace(filters, event_names=[EVENT_EXCHANGE])):
        stored = (text for _, _, text in reader.stored_between(row.seq, row.seq + row.parts))
        yield between + json.dumps(har.entry_of(row, lines_of(row.id, stored), bodies=bodies))
        between = ",\n"
    yield f"\n]{after}\n"


def _rows(reader: SpoolReader, filters: Filters) -> Iterator[str]:
    names = ["time", "class", *(name for name in COLUMNS if name not in _NOT_IN_CSV)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in reader.query(filters):
        writer.writerow({name: csv_cell(value) for name, value in fields_of(row).items()})
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()
