"""``egress denials``: denied destinations, their counts, and rules that would allow them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from openclaw_egress.advice.remediation import remedy_for
from openclaw_egress.cli.formatting import is_narrow, print_error, print_json, print_table
from openclaw_egress.cli.records import AsJson, ClassName, CodeName, Instance, known_code, moment
from openclaw_egress.proxy.resolver import is_own_address
from openclaw_egress.recording.denials import DenialGroup, group_denials
from openclaw_egress.recording.records import rfc3339
from openclaw_egress.reports.denials import effect, short_clients
from openclaw_egress.reports.text import escape, local_time
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import Filters, SpoolReader

COLUMNS = [
    ("count", "right"),
    ("last", "left"),
    ("class", "left"),
    ("client", "left"),
    ("destination", "left"),
    ("rule", "left"),
    ("effect", "left"),
    ("what would allow it", "left"),
]
SINCE = "24h"

Since = Annotated[
    str, typer.Option(help="Count denials since a time: 15m, 24h, 3d (ago), or 2026-11-25T08:00 (local time).")
]


def register(app: typer.Typer) -> None:
    """Register the command `denials`."""
    app.command()(denials)


def denials(
    since: Since = SINCE,
    class_name: ClassName = None,
    instance: Instance = None,
    code: CodeName = None,
    as_json: AsJson = False,
) -> None:
    """List denied destinations, the most frequent first, with the rule that would allow each.

    The list includes requests that `report` allowed and `enforce` would deny. Counts are exact; repeated denials are
    added at the end of each minute. In a row with the destination `*`, the count is for the whole class. Exit codes: 0
    success, even without denials; 2 invalid input.
    """
    groups = denied_since(since, class_name, code, instance)
    if as_json:
        for group in groups:
            print_json(_as_json(group))
    elif groups:
        # On a narrow terminal, omit the columns `last` and `rule` to leave space for the remedy.
        left_out = ("last", "rule") if is_narrow() else ()
        taken = [at for at, (name, _) in enumerate(COLUMNS) if name not in left_out]
        print_table(
            [COLUMNS[at] for at in taken],
            [[_cells(group)[at] for at in taken] for group in groups],
            ["yellow" if group.enforced else "" for group in groups],
        )
    else:
        what = "nothing" if class_name is None else f"nothing of class {escape(class_name)}"
        print_error(f"{what} was denied since {escape(since)}")


def denied_since(
    since: str, class_name: str | None, code: str | None = None, instance: str | None = None
) -> list[DenialGroup]:
    """Return the denials in the configured spool from ``since`` on, grouped by class, destination and rule."""
    filters = Filters(
        since_ns=moment("--since", since), class_name=class_name, instance=instance, code=known_code(code)
    )
    with SpoolReader(Settings.load().spool_path) as reader:
        return group_denials(reader.denials(filters))


def _cells(group: DenialGroup) -> list[object]:
    return [
        group.count,
        local_time(group.last_ns),
        group.class_name,
        short_clients(group.clients),
        group.destination,
        group.rule,
        effect(group),
        remedy_for(group, is_own_address),
    ]


def _as_json(group: DenialGroup) -> dict[str, Any]:
    remedy = remedy_for(group, is_own_address)
    return {
        "class": group.class_name,
        "clients": group.clients,
        "destination": group.destination,
        "host": group.host,
        "port": group.port,
        "rule": group.rule,
        "code": group.code,
        "reason": group.reason,
        "count": group.count,
        "enforced": group.enforced,
        "reported": group.reported,
        "last": rfc3339(group.last_ns),
        "allow": [{"under": under, "rule": rule.as_json(), "text": str(rule)} for under, rule in remedy.rules],
        "advice": remedy.advice,
    }
