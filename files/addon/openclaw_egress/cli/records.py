"""``egress records``, ``show`` and ``tail``, which read the spool, whether or not the proxy runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from openclaw_egress.cli.formatting import (
    BAD_INPUT,
    NEGATIVE,
    is_narrow,
    print_error,
    print_json,
    print_table,
    quoted,
)
from openclaw_egress.recording.log_lines import reassemble
from openclaw_egress.recording.records import rfc3339
from openclaw_egress.recording.semconv import USAGE_DETAILS
from openclaw_egress.reports import search
from openclaw_egress.reports.text import escape, local_time, seconds
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import Filters, Row, SpoolReader
from openclaw_egress.wire.json_indent import indented

COLUMNS = [
    ("time", "left"),
    ("class", "left"),
    ("client", "left"),
    ("method", "left"),
    ("host", "left"),
    ("model", "left"),
    ("status", "right"),
    ("tokens in", "right"),
    ("out", "right"),
    ("duration", "right"),
    ("outcome", "left"),
    ("id or reason", "left"),
]
NARROW_COLUMNS = [
    ("time", "left"),
    ("class", "left"),
    ("client", "left"),
    ("host", "left"),
    ("model", "left"),
    ("status", "right"),
    ("outcome", "left"),
    ("id or reason", "left"),
]
POLL_SECONDS = 0.3

Since = Annotated[
    str | None, typer.Option(help="Show records since a time: 15m, 2h, 3d (ago), or 2026-11-25T08:00 (local time).")
]
Until = Annotated[str | None, typer.Option(help="Show records before a time, in the format of --since.")]
Model = Annotated[str | None, typer.Option(help="Show records of this model; * matches any text, ? one character.")]
ClassName = Annotated[
    str | None, typer.Option("--class", help="Show records of this class: gateway, browser, sandbox, build, …")
]
Instance = Annotated[
    str | None,
    typer.Option(
        help="Show records of this gateway, where several gateways share the proxy (`instance` in the policy)."
    ),
]
Status = Annotated[str | None, typer.Option(help="Show records with this HTTP status: 429, 4xx, 500-529.")]
Host = Annotated[str | None, typer.Option(help="Show records of this host; * matches any text, ? one character.")]
Event = Annotated[
    str | None,
    typer.Option(help=f"Show records of this event: {', '.join(search.EVENTS)}. Default: exchange and denied."),
]
CodeName = Annotated[
    str | None, typer.Option("--code", help="Show records whose decision has this code: no_rule, address_guarded, …")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def register(app: typer.Typer) -> None:
    """Register the commands `records`, `show` and `tail`."""
    app.command()(records)
    app.command()(show)
    app.command()(tail)


def records(
    since: Since = None,
    until: Until = None,
    model: Model = None,
    class_name: ClassName = None,
    instance: Instance = None,
    status: Status = None,
    host: Host = None,
    code: CodeName = None,
    event: Event = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most the N newest records.", metavar="N")] = 50,
    as_json: AsJson = False,
) -> None:
    """List records, the newest last."""
    filters = _filters(
        since, until, model, class_name, instance, status, host, code, event, limit=min(limit, sys.maxsize)
    )
    with SpoolReader(Settings.load().spool_path) as reader:
        rows = list(reader.query(filters))
    if as_json:
        for row in rows:
            print_json(fields_of(row))
    elif rows:
        columns = NARROW_COLUMNS if is_narrow() else COLUMNS
        taken = [COLUMNS.index(column) for column in columns]
        cells = [[_cells(row)[at] for at in taken] for row in rows]
        if columns is NARROW_COLUMNS:
            # If the terminal is narrow, omit the year of each time, but keep the fraction of the second.
            cells = [[str(line[0])[5:], *line[1:]] for line in cells]
        print_table(columns, cells, [_colour(row) for row in rows])
    else:
        print_error("no matching records")


def tail(
    model: Model = None,
    class_name: ClassName = None,
    instance: Instance = None,
    status: Status = None,
    host: Host = None,
    code: CodeName = None,
    event: Event = None,
    last: Annotated[
        int, typer.Option("--last", "-n", min=0, help="Show the N newest stored records first.", metavar="N")
    ] = 10,
    as_json: AsJson = False,
) -> None:
    """Follow new records until Ctrl-C."""
    with SpoolReader(Settings.load().spool_path) as reader:
        seq = reader.head()[0]
        more: dict[str, int] = {"limit": min(last, sys.maxsize)}
        while True:
            for row in reader.query(
                _filters(None, None, model, class_name, instance, status, host, code, event, **more)
            ):
                _print_line(row, as_json)
                seq = max(seq, row.seq)
            more = {"after_seq": seq}
            # Flush, so that a program that reads the output through a pipe does not wait for a full buffer.
            sys.stdout.flush()
            time.sleep(POLL_SECONDS)


def show(
    record_id: Annotated[str, typer.Argument(metavar="ID", help="ID of an exchange, or its first characters.")],
    as_json: AsJson = False,
) -> None:
    """Show one exchange: headers, reassembled bodies, and the assembled message of a stream.

    Body lines start with `│ ` and control characters are escaped; `--json` prints them unmodified.
    """
    with SpoolReader(Settings.load().spool_path) as reader:
        found = list(reader.query(Filters(id=record_id)))
        if len(found) > 1:
            print_error(f"{len(found)} exchange IDs start with {escape(record_id)}: write more characters")
            raise typer.Exit(NEGATIVE)
        try:
            lines = reader.lines_for(found[0].id) if found else []
            whole = reassemble(lines) if lines else {}
            details = reader.usage_details(found[0].seq) if found else {}
        except ValueError as error:
            print_error(f"exchange {found[0].id} is damaged in the spool: {error}; others are not affected")
            raise typer.Exit(BAD_INPUT) from None
        if not lines:  # No exchange matches, or the exchange was deleted after the query.
            print_error(f"no exchange ID starts with {escape(record_id)}; `egress records` lists IDs")
            for text in deletions_of(reader)[-3:]:
                print_error(text)
            raise typer.Exit(NEGATIVE)
    row = found[0]
    if as_json:
        print_json({"record": fields_of(row), "usage_details": details, "exchange": whole})
        return
    _print_exchange(row, details, whole)


def deletions_of(reader: SpoolReader) -> list[str]:
    """Return a text for each deletion of records: its time, the deleted lines, and the reason."""
    return [
        f"{stone.count} lines ({stone.lines[:60]}) were deleted on {local_time(stone.time_ns)} because of: "
        f"{escape(stone.why)}"
        for stone in reader.tombstones()
    ]


def _print_exchange(row: Row, details: dict[str, int], whole: dict[str, Any]) -> None:
    facts = {
        "id": row.id,
        "time": local_time(row.time_ns),
        "class": row.class_name,
        "instance": row.instance,
        "client": row.client,
        "rule": f"{row.rule}: {row.reason}",
        "code": row.code,
        "outcome": row.outcome,
        "status": row.status,
        "model": row.model,
        "tokens": _tokens(row),
        "of these": ", ".join(f"{count:,} {USAGE_DETAILS[name]}" for name, count in details.items() if count),
        "cost": None if row.cost_usd is None else f"{row.cost_usd:.6f} USD",
        "duration": seconds(row.duration),
        "first chunk": seconds(row.first_chunk),
        "error": row.error_type,
        "websocket": _messages(whole.get("websocket")),
        "line": f"{whole['seq']}, after sha256 {whole['prev'][:16]}…",
    }
    for name, value in facts.items():
        if value not in (None, ""):
            typer.echo(f"{name:<12} {escape(value)}")
    if missing := whole.get("missing_parts"):
        typer.echo(f"{'missing':<12} parts {', '.join(map(str, missing))} are not stored")
    for side, first in (
        ("request", f"{whole.get('method')} {whole.get('url')}"),
        ("response", f"{whole.get('status')}"),
    ):
        typer.echo(f"\n── {side} ──\n{escape(first)}")
        message = whole.get(side) or {}
        for name, values in (message.get("headers") or {}).items():
            for value in values if isinstance(values, list) else [values]:
                typer.echo(f"{escape(name)}: {escape(value)}")
        if message.get("body") is not None:
            typer.echo("")
            if message.get("body_encoding") == "base64":
                typer.echo(f"(base64 of {message.get('body_size')} bytes)")
            typer.echo(quoted(_pretty(message)))
        if message.get("body_masked"):
            typer.echo(f"(masked: {message['body_masked']} secrets; size and SHA-256 are those of the unmasked bytes)")
        if message.get("body_truncated"):
            typer.echo(f"(truncated: the body had at least {message.get('body_size')} bytes)")
    if whole.get("messages"):
        typer.echo("\n── assembled message ──")
        typer.echo(quoted(indented(json.dumps(whole["messages"], ensure_ascii=False))))


def _messages(websocket: dict[str, Any] | None) -> str:
    """Return the message counts of a WebSocket as text; empty for any other exchange."""
    if not websocket:
        return ""
    counts = [
        f"{counted['messages']} {side}" for side in ("sent", "received") if (counted := websocket.get(side)) is not None
    ]
    stream = websocket.get("stream_id")
    named = [*counts, *([f"stream {stream}"] if stream else []), f"connection {websocket.get('connection')}"]
    return "messages: " * bool(counts) + ", ".join(named)


def _pretty(message: dict[str, Any]) -> str:
    body = str(message["body"])
    if message.get("body_encoding") == "base64":
        return body
    return indented(body)


def _tokens(row: Row) -> str:
    parts = (
        ("in", row.input_tokens),
        ("out", row.output_tokens),
        ("read from cache", row.cache_read_tokens),
        ("written to cache", row.cache_write_tokens),
        ("reasoning", row.reasoning_tokens),
    )
    return ", ".join(f"{value} {name}" for name, value in parts if value is not None)


def _cells(row: Row) -> list[object]:
    return [
        local_time(row.time_ns),
        row.class_name,
        row.client or "",
        row.method or "",
        f"{row.host}:{row.port}" if row.host and row.port not in (None, 443) else row.host or "",
        row.model or "",
        row.status if row.status is not None else "",
        row.input_tokens if row.input_tokens is not None else "",
        row.output_tokens if row.output_tokens is not None else "",
        seconds(row.duration),
        row.outcome or row.event_name.rpartition(".")[2],
        row.id[:8] or row.reason or "",
    ]


def _colour(row: Row) -> str:
    """Return the colour of a row: red for failures, yellow for denials and aborted exchanges."""
    if row.outcome in ("upstream_error", "interrupted") or (row.status or 0) >= 500:
        return "red"
    return "yellow" if row.outcome in ("denied", "reported", "client_aborted") or (row.status or 0) >= 400 else ""


def _print_line(row: Row, as_json: bool) -> None:
    if as_json:
        print_json(fields_of(row))
    else:
        typer.echo("  ".join(escape(cell) for cell in _cells(row) if cell != ""))


def fields_of(row: Row) -> dict[str, Any]:
    """Return the fields of a record for JSON and CSV, without those that are None."""
    fields = asdict(row) | {"time": rfc3339(row.time_ns), "class": row.class_name}
    for name in ("class_name", "time_ns"):
        fields.pop(name)
    return {name: value for name, value in fields.items() if value is not None}


def _filters(
    since: str | None,
    until: str | None,
    model: str | None,
    class_name: str | None,
    instance: str | None,
    status: str | None,
    host: str | None,
    code: str | None,
    event: str | None,
    **more: Any,
) -> Filters:
    low, high = (None, None) if status is None else _read("--status", status, search.status_range)
    return Filters(
        since_ns=None if since is None else moment("--since", since),
        until_ns=None if until is None else moment("--until", until),
        model=model,
        class_name=class_name,
        instance=instance,
        status_min=low,
        status_max=high,
        host=host,
        code=known_code(code),
        event_names=search.event_names(None) if event is None else _read("--event", event, search.event_names),
        **more,
    )


def known_code(code: str | None) -> str | None:
    """Return the value of ``--code``. Exit if no decision has such a code."""
    return None if code is None else _read("--code", code, search.known_code)


def moment(option: str, text: str) -> int:
    """Return the value of a time option, such as ``--since``, in Unix nanoseconds. Exit if it is invalid."""
    return _read(option, text, search.moment)


def _read[Value](option: str, text: str, read: Callable[[str], Value]) -> Value:
    try:
        return read(text)
    except search.InvalidCondition as error:
        print_error(f"{option}: {escape(text)!r} is not valid; {error}")
        raise typer.Exit(BAD_INPUT) from None
