"""``egress records``, ``show`` and ``tail``: readers of the spool, with or without a running proxy."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn

import typer

from openclaw_egress.cli.formatting import (
    BAD_INPUT,
    NEGATIVE,
    escape,
    is_narrow,
    local_time,
    print_error,
    print_json,
    print_table,
    quoted,
    seconds,
)
from openclaw_egress.policy.codes import Code
from openclaw_egress.recording.log_lines import reassemble
from openclaw_egress.recording.records import rfc3339
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import Filters, Row, SpoolReader

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
EVENTS = ("exchange", "denied", "tunnel", "policy", "ca", "spool", "checkpoint")
POLL_SECONDS = 0.3
_AGO = re.compile(r"(\d+)\s*([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Since = Annotated[
    str | None, typer.Option(help="Show records since a time: 15m, 2h, 3d (ago), or 2026-11-25T08:00 (local time).")
]
Until = Annotated[str | None, typer.Option(help="Show records before a time, in the format of --since.")]
Model = Annotated[str | None, typer.Option(help="Show records of this model; * matches any text, ? one character.")]
ClassName = Annotated[
    str | None, typer.Option("--class", help="Show records of this class: gateway, browser, sandbox, build, …")
]
Status = Annotated[str | None, typer.Option(help="Show records with this HTTP status: 429, 4xx, 500-529.")]
Host = Annotated[str | None, typer.Option(help="Show records of this host; * matches any text, ? one character.")]
Event = Annotated[
    str | None, typer.Option(help=f"Show records of this event: {', '.join(EVENTS)}. Default: exchange and denied.")
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
    status: Status = None,
    host: Host = None,
    code: CodeName = None,
    event: Event = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most N records, the newest.", metavar="N")] = 50,
    as_json: AsJson = False,
) -> None:
    """List records, the newest last."""
    filters = _filters(since, until, model, class_name, status, host, code, event, limit=min(limit, sys.maxsize))
    with SpoolReader(Settings.load().spool_path) as reader:
        rows = list(reader.query(filters))
    if as_json:
        for row in rows:
            print_json(_as_json(row))
    elif rows:
        columns = NARROW_COLUMNS if is_narrow() else COLUMNS
        taken = [COLUMNS.index(column) for column in columns]
        cells = [[_cells(row)[at] for at in taken] for row in rows]
        if columns is NARROW_COLUMNS:
            # Drop the year rather than the fraction of the second.
            cells = [[str(line[0])[5:], *line[1:]] for line in cells]
        print_table(columns, cells, [_colour(row) for row in rows])
    else:
        print_error("no matching records")


def tail(
    model: Model = None,
    class_name: ClassName = None,
    status: Status = None,
    host: Host = None,
    code: CodeName = None,
    event: Event = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Show N existing records first.", metavar="N")] = 10,
    as_json: AsJson = False,
) -> None:
    """Follow new records until Ctrl-C."""
    with SpoolReader(Settings.load().spool_path) as reader:
        seq = reader.head()[0]
        more: dict[str, int] = {"limit": min(last, sys.maxsize)}
        while True:
            for row in reader.query(_filters(None, None, model, class_name, status, host, code, event, **more)):
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
        try:
            lines = reader.lines_for(found[0].id) if found else []
            whole = reassemble(lines) if lines else {}
        except ValueError as error:
            print_error(f"exchange {found[0].id} is damaged in the spool: {error}; others are not affected")
            raise typer.Exit(BAD_INPUT) from None
        if not lines:  # No exchange matches, or it was deleted after the query.
            print_error(f"no exchange ID starts with {escape(record_id)}; `egress records` lists IDs")
            raise typer.Exit(NEGATIVE)
        if len(found) > 1:
            print_error(f"{len(found)} exchange IDs start with {escape(record_id)}: write more characters")
            raise typer.Exit(NEGATIVE)
    row = found[0]
    if as_json:
        print_json({"record": _as_json(row), "exchange": whole})
        return
    _print_exchange(row, whole)


def _print_exchange(row: Row, whole: dict[str, Any]) -> None:
    facts = {
        "id": row.id,
        "time": local_time(row.time_ns),
        "class": row.class_name,
        "client": row.client,
        "rule": f"{row.rule}: {row.reason}",
        "code": row.code,
        "outcome": row.outcome,
        "status": row.status,
        "model": row.model,
        "tokens": _tokens(row),
        "duration": seconds(row.duration),
        "first chunk": seconds(row.first_chunk),
        "error": row.error_type,
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
        if message.get("body_truncated"):
            typer.echo(f"(truncated: the body had at least {message.get('body_size')} bytes)")
    if whole.get("messages"):
        typer.echo("\n── assembled message ──")
        typer.echo(quoted(json.dumps(whole["messages"], ensure_ascii=False, indent=2)))


def _pretty(message: dict[str, Any]) -> str:
    body = str(message["body"])
    if message.get("body_encoding") == "base64":
        return body
    try:
        return json.dumps(json.loads(body), ensure_ascii=False, indent=2)
    except ValueError:
        return body


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
        print_json(_as_json(row))
    else:
        typer.echo("  ".join(escape(cell) for cell in _cells(row) if cell != ""))


def _as_json(row: Row) -> dict[str, Any]:
    fields = asdict(row) | {"time": rfc3339(row.time_ns), "class": row.class_name}
    for name in ("class_name", "time_ns"):
        fields.pop(name)
    return {name: value for name, value in fields.items() if value is not None}


def _filters(
    since: str | None,
    until: str | None,
    model: str | None,
    class_name: str | None,
    status: str | None,
    host: str | None,
    code: str | None,
    event: str | None,
    **more: Any,
) -> Filters:
    if event is not None and event not in EVENTS:
        _bad("--event", event, f"one of {', '.join(EVENTS)}")
    low, high = _status_range(status)
    return Filters(
        since_ns=None if since is None else moment("--since", since),
        until_ns=None if until is None else moment("--until", until),
        model=model,
        class_name=class_name,
        status_min=low,
        status_max=high,
        host=host,
        code=known_code(code),
        event_names=[f"openclaw.egress.{name}" for name in ([event] if event else ["exchange", "denied"])],
        **more,
    )


def known_code(code: str | None) -> str | None:
    """Return the value of ``--code``; end the command if no decision has such a code."""
    if code is not None and code not in set(Code):
        _bad("--code", code, "a code such as no_rule or address_guarded (docs/codes.md lists all)")
    return code


def moment(option: str, text: str) -> int:
    """Return the time of an option such as ``--since`` in Unix nanoseconds; end the command on invalid text."""
    try:
        if ago := _AGO.fullmatch(text.strip()):
            then = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            then = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        then = datetime.min.replace(tzinfo=UTC)
    # The range of 64-bit nanoseconds, which records use.
    if not datetime(1970, 1, 1, tzinfo=UTC) <= then < datetime(2262, 1, 1, tzinfo=UTC):
        _bad(option, text, "15m, 2h, 3d, or a date and time such as 2026-11-25T08:00")
    return int(then.timestamp() * 1e9)


def _status_range(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    for pattern, read in _STATUS:
        if found := pattern.fullmatch(text.strip().lower()):
            return read(found)
    return _bad("--status", text, "429, 4xx or 500-529")


_STATUS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], tuple[int, int]]]] = [
    (re.compile(r"(\d{3})"), lambda found: (int(found[1]), int(found[1]))),
    (re.compile(r"(\d)xx"), lambda found: (int(found[1]) * 100, int(found[1]) * 100 + 99)),
    (re.compile(r"(\d{3})-(\d{3})"), lambda found: (int(found[1]), int(found[2]))),
]


def _bad(option: str, text: str, wanted: str) -> NoReturn:
    print_error(f"{option}: {escape(text)!r} is not valid; write {wanted}")
    raise typer.Exit(BAD_INPUT)
