"""The command's parts, put together."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from openclaw_egress import __version__
from openclaw_egress.ca import CAError
from openclaw_egress.cli import authority, denying, policies, reading, serving
from openclaw_egress.cli.output import BAD_INPUT, complain
from openclaw_egress.health import HealthError
from openclaw_egress.settings import SettingsError
from openclaw_egress.spool_schema import SpoolError
from openclaw_egress.yaml_nodes import FileError

USER_ERRORS = (SettingsError, FileError, CAError, SpoolError, HealthError)
"""What an operator's mistake raises: each is one message that says what, where and what to do."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Egress policy by container type, and an exact record of what agents exchange with LLM providers.",
    epilog="Exit codes: 0 done or yes; 1 no, not found, unhealthy; 2 bad input or settings. "
    "Settings come from the environment (EGRESS_*, PROXY_*, OTEL_*); NO_COLOR is respected.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"egress {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


serving.register(app)
reading.register(app)
denying.register(app)
app.add_typer(policies.app, name="policy")
app.add_typer(authority.app, name="ca")


def run_app() -> None:
    """Run the command; operators' mistakes end with one message and exit code 2, never with a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that knows no UTF-8 gets escapes, not the end of the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except USER_ERRORS as error:
        complain(str(error))
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(130)
