"""``egress usage``: requests, tokens, cost and times of the recorded exchanges, from hourly totals."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from openclaw_egress.cli.formatting import (
    BAD_INPUT,
    is_narrow,
    print_error,
    print_json,
    print_table,
)
from openclaw_egress.cli.records import ClassName, moment
from openclaw_egress.reports.text import csv_cell, escape
from openclaw_egress.reports.usage import COLUMNS, NONE, By, Group, grouped, total_of
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.usage_totals import COUNTS, Usage
from openclaw_egress.spool.writer import Spool

SINCE = "30d"
_NARROW = ("requests", "errors", "tokens in", "out", "cost USD", "p50", "p95")


def register(app: typer.Typer) -> None:
    """Register the command `usage`."""
    app.command()(usage)


def usage(
    by: Annotated[
        list[By] | None, typer.Option("--by", help="Group by this field; repeat the option for further fields.")
    ] = None,
    since: Annotated[
        str, typer.Option(help="Begin with the hour of a time: 15m, 24h, 30d (ago), or 2026-11-25T08:00 (local time).")
    ] = SINCE,
    until: Annotated[
        str | None, typer.Option(help="End with the hour before a time, in the format of --since.")
    ] = None,
    class_name: ClassName = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="First rebuild the totals from the stored records. The proxy must be stopped."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per group.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values with a header.")] = False,
) -> None:
    """Show requests, errors, tokens, cost and times of the recorded exchanges.

    The cost is what the provider stated, else the tokens at the list prices of the package genai-prices. `unpriced`
    counts the requests with tokens whose cost is unknown; the cost does not include them. The error of percentiles is
    at most 3 %. Totals are kept for at least 400 days, longer than the records.
    """
    if as_json and as_csv:
        print_error("--json and --csv exclude each other: use only one of them")
        raise typer.Exit(BAD_INPUT)
    chosen = list(dict.fromkeys(by or [By.MODEL]))
    since_ns, until_ns = moment("--since", since), None if until is None else moment("--until", until)
    path = Settings.load().spool_path
    if rebuild:
        _rebuild(path)
    with SpoolReader(path) as reader:
        found = grouped(reader, chosen, since_ns, until_ns, class_name)
    if as_json:
        for values, totals in found:
            print_json(_as_json(chosen, values, totals))
    elif as_csv:
        _print_csv(chosen, found)
    elif found:
        _print(chosen, found)
    else:
        print_error(f"no exchanges since {escape(since)}")


def _rebuild(path: Path) -> None:
    with SpoolReader(path):  # Refuse a path without a spool, because `Spool` would create one.
        pass
    settings = Settings.load()
    with Spool(path, settings.spool_max_bytes, "block", local=not settings.logs_endpoint, sync_seconds=None) as spool:
        kept = spool.rebuild_usage()
    if kept:
        print_error(f"the totals of {kept} hours were not rebuilt, because some of their records are no longer stored")


def _print(chosen: list[By], found: list[Group]) -> None:
    columns = [column for column in COLUMNS if not is_narrow() or column[0] in _NARROW]
    cells = [[*_names(values), *(shown(totals) for _, shown in columns)] for values, totals in found]
    if len(found) > 1:
        everything = total_of(found)
        cells.append(["total", *[""] * (len(chosen) - 1), *(shown(everything) for _, shown in columns)])
    heads = [(str(name), "left") for name in chosen] + [(name, "right") for name, _ in columns]
    print_table(heads, cells, [""] * (len(cells) - 1) + ["bold" if len(found) > 1 else ""])


def _names(values: tuple[object, ...]) -> list[object]:
    return [NONE if value is None else value for value in values]


def _as_json(chosen: list[By], values: tuple[object, ...], totals: Usage) -> dict[str, Any]:
    counts = {name: totals.counts[name] for name in COUNTS if name != "cost_nano_usd"}
    times = {
        f"{name}_p{share:.0f}": measured.percentile(share / 100)
        for name, measured in (("duration", totals.duration), ("first_chunk", totals.first_chunk))
        for share in (50, 95)
    }
    return {**dict(zip(map(str, chosen), values, strict=True)), **counts, "cost_usd": totals.cost_usd, **times}


def _print_csv(chosen: list[By], found: list[Group]) -> None:
    rows = [_as_json(chosen, values, totals) for values, totals in found]
    names = list(_as_json(chosen, (None,) * len(chosen), Usage()))
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: csv_cell(value) for name, value in row.items()})
