"""``egress support-bundle``: one JSON document for a bug report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from openclaw_egress.cli.formatting import new_file, print_error
from openclaw_egress.cli.health_check import ask, fetch
from openclaw_egress.reports.support_bundle import support_bundle
from openclaw_egress.reports.text import escape
from openclaw_egress.settings import Settings


def register(app: typer.Typer) -> None:
    """Register the command `support-bundle`."""
    app.command("support-bundle")(write_bundle)


def write_bundle(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to this file; by default standard output."),
    ] = None,
) -> None:
    """Write versions, settings, health, counters and the last events of the proxy as JSON, for a bug report.

    The document contains no body, header or secret. It contains names of hosts, classes, models and files, so read it
    before you publish it. The proxy does not have to run.
    """
    metrics = fetch("/metrics")
    bundle = support_bundle(Settings.load(), os.environ, ask("/readyz"), metrics)
    # Write only ASCII, so that no terminal interprets control characters in text from traffic.
    text = json.dumps(bundle, indent=2, default=str).replace("\x7f", "\\u007f") + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    with new_file(output) as target:
        target.write(text.encode())
    print_error(f"wrote {escape(output)}; read it before you send it")
