"""``egress delete``: delete the records of a period or a session. A tombstone keeps the chain verifiable."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import batched
from typing import Annotated, NoReturn

import typer

from openclaw_egress.audit.stores import LOGS_PATH
from openclaw_egress.cli.dead_letters import By, give, signed_reason
from openclaw_egress.cli.formatting import BAD_INPUT, NEGATIVE, print_error, print_json
from openclaw_egress.cli.records import ClassName, moment
from openclaw_egress.recording.records import rfc3339
from openclaw_egress.reports.text import escape, local_time, size
from openclaw_egress.settings import Settings
from openclaw_egress.spool.commands import Action, Command
from openclaw_egress.spool.reader import Filters, Row, SpoolReader
from openclaw_egress.spool.rows import ranges
from openclaw_egress.spool.tombstones import DELETABLE
from openclaw_egress.ui.session import read_session

SECOND_NS, MILLISECOND_NS = 10**9, 10**6
_IDS = 50
"""Maximum number of exchange IDs in one delete request: Loki limits the length of a query."""


def register(app: typer.Typer) -> None:
    """Register the command `delete`."""
    app.command()(delete)


@dataclass(frozen=True, slots=True)
class LokiRequest:
    """A delete request to Loki's compactor: LogQL query, start and end of the period. The end is inclusive."""

    query: str
    start: str
    end: str

    def command(self, base: str) -> str:
        """Return a curl command that sends the request to a Loki server."""
        fields = " ".join(f"--data-urlencode {shlex.quote(f'{name}={value}')}" for name, value in asdict(self).items())
        return f"curl -G -X POST {shlex.quote(f'{base}/loki/api/v1/delete')} {fields}"


def delete(
    why: Annotated[str, typer.Option(metavar="TEXT", help="Record this as the reason for the deletion.")],
    since: Annotated[
        str | None, typer.Option(help="Delete records since a time: 3d (ago), or 2026-11-25T08:00 (local time).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Delete records before a time, in the format of --since.")] = None,
    class_name: ClassName = None,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Delete the session of this exchange, as the web page shows it. Do not combine with --since or "
            "--until.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it, only show what would be deleted.")] = False,
    by: By = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Delete the exchanges, tunnels and denials of a period or a session from the spool for good.

    The chain keeps their numbers and hashes, and a signed record names them, the user and the reason. Events of the
    proxy itself stay. The destination keeps its copies: the command prints the request that deletes them in Loki. Exit
    codes: 0 deleted, saved until the proxy starts, or shown; 1 no record matches; 2 invalid input, nothing changed.
    """
    if not why.strip():
        _bad("--why is empty: state the reason for the deletion")
    if session is not None and not session.strip():
        _bad("--session is empty: specify the ID of an exchange")
    settings = Settings.load()
    with SpoolReader(settings.spool_path) as reader:
        if session is not None:
            if since or until or class_name:
                _bad("--session excludes --since, --until and --class")
            rows = _session(reader, session)
            begin_ns = 0
        else:
            begin_ns, end_ns = _period(since, until)
            rows = _rows(reader, (begin_ns, end_ns), class_name)
        if not rows:
            print_error("no matching records")
            raise typer.Exit(NEGATIVE)
        seqs = [seq for row in rows for seq in range(row.seq, row.seq + row.parts + 1)]
        runs = list(ranges(seqs))
        states = reader.lines_by_state(runs)
        ids = [row.id for row in rows] if session is not None else []
        requests = list(_loki_requests(_instances(reader, runs), _span(rows, begin_ns), class_name, ids))
        outcome = give(reader, Command(Action.DELETE, tuple(runs), signed_reason(why, by))) if yes else None
    state = "shown" if outcome is None else "done" if outcome.progress.done else "kept"
    if as_json:
        counts = {name: lines for name, (lines, _) in states.items()}
        changed = 0 if outcome is None else outcome.progress.changed
        known = {"records": len(rows), "lines": sum(counts.values()), "states": counts}
        print_json({**known, "state": state, "changed": changed, "loki": [asdict(request) for request in requests]})
        return
    _print(rows, states)
    _print_requests(settings.logs_endpoint, requests)
    if outcome is None:
        typer.echo("nothing was deleted: add --yes to delete these records")
    elif outcome.progress.done:
        typer.echo(f"deleted lines: {outcome.progress.changed}; `egress records --event spool` shows the signed record")
    else:
        typer.echo(outcome.unfinished())


def _period(since: str | None, until: str | None) -> tuple[int, int]:
    """Return start and end of the period, rounded down to whole seconds."""
    if since is None or until is None:
        _bad("specify a period with --since and --until, or a session with --session")
    begin, end = (
        moment(name, text) // SECOND_NS * SECOND_NS for name, text in (("--since", since), ("--until", until))
    )
    if begin >= end:
        _bad("--since is not before --until")
    return begin, end


def _rows(reader: SpoolReader, period: tuple[int, int], class_name: str | None) -> list[Row]:
    filters = Filters(since_ns=period[0], until_ns=period[1], event_names=DELETABLE, class_name=class_name)
    return list(reader.query(filters))


def _session(reader: SpoolReader, record_id: str) -> list[Row]:
    found = list(reader.query(Filters(id=record_id)))
    if len(found) != 1:
        print_error(f"{len(found)} exchange IDs start with {escape(record_id)}; `egress records` lists IDs")
        raise typer.Exit(NEGATIVE)
    view = read_session(reader, found[0], lambda: 0.0)  # Pass a constant clock to disable the time limit.
    if not view.is_whole:
        print_error(f"lines {view.first} to {view.last} were searched for the session")
    return [member.row for member in view.members]


def _instances(reader: SpoolReader, runs: Sequence[tuple[int, int]]) -> list[str]:
    """Return the IDs of the instances that wrote the lines. A restored spool has lines of several instances."""
    ends = [(restore.seq, restore.instance_id) for restore in reader.restores()] + [(2**63, reader.instance_id)]
    found = []
    before = 0
    for end, instance in ends:
        if any(first <= end and last > before for first, last in runs):
            found.append(instance)
        before = end
    return found


def _span(rows: Sequence[Row], begin_ns: int) -> tuple[int, int]:
    """Return the period from the first to the last record, rounded outwards to Loki's precision, milliseconds.

    Do not use the operator's period: it may also contain records that are no longer in the spool and that the tombstone
    therefore does not name. Loki requires a period of at least one second, so extend a shorter one.
    """
    first = min(row.time_ns for row in rows) // MILLISECOND_NS * MILLISECOND_NS
    last = max(row.time_ns for row in rows) // MILLISECOND_NS * MILLISECOND_NS + MILLISECOND_NS
    start = min(first, max(begin_ns, last - SECOND_NS))
    return start, max(last, start + SECOND_NS)


def _loki_requests(
    instances: Sequence[str], period: tuple[int, int], class_name: str | None, ids: Sequence[str]
) -> Iterator[LokiRequest]:
    """Yield the requests that delete these records in Loki. They never match checkpoints or other proxy events."""
    start, end = map(rfc3339, period)
    names = "|".join(DELETABLE)
    selector = f'{{service_instance_id=~"{"|".join(instances)}"}} | event_name=~"{names}"'
    if class_name is not None:
        selector += f" | openclaw_egress_class={_quoted(class_name)}"
    for some in batched(ids, _IDS) if ids else [()]:
        query = f'{selector} | openclaw_egress_exchange_id=~"{"|".join(some)}"' if some else selector
        yield LokiRequest(query, start, end)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _print(rows: Sequence[Row], states: dict[str, tuple[int, int]]) -> None:
    lines, used = (sum(column) for column in zip(*states.values(), strict=True))
    events = Counter(row.event_name.rpartition(".")[2] for row in rows)
    classes = Counter(row.class_name for row in rows)
    typer.echo(f"{len(rows)} records, {lines} lines, {size(used)}")
    typer.echo(f"  from {local_time(rows[0].time_ns)} to {local_time(rows[-1].time_ns)}")
    for name, counts in (("events", events), ("classes", classes)):
        typer.echo(f"  {name}: {', '.join(f'{escape(key)} {count}' for key, count in counts.most_common())}")
    if waiting := states.get("pending", (0, 0))[0]:
        typer.echo(f"  {waiting} lines wait for the destination and will not be sent")
    typer.echo("  `egress usage` still counts these records, and existing backups still contain them")


def _print_requests(endpoint: str, requests: Sequence[LokiRequest]) -> None:
    base = endpoint.rstrip("/")
    if not base:
        return
    if not base.endswith(LOGS_PATH):
        typer.echo("  the destination is not Loki: delete its copies with its own tools, by instance and time")
        return
    typer.echo(
        "  the destination keeps its copies; if deletion is enabled in Loki's compactor, this request deletes them:"
    )
    for request in requests:
        typer.echo(f"  {escape(request.command(base.removesuffix(LOGS_PATH)))}")


def _bad(problem: str) -> NoReturn:
    print_error(f"nothing was changed: {problem}")
    raise typer.Exit(BAD_INPUT)
