"""The command line application: registers all commands and reports user errors."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from openclaw_egress import __version__
from openclaw_egress.cli import (
    audit,
    backup,
    ca,
    dead_letters,
    delete,
    denials,
    export,
    policy,
    records,
    run,
    support_bundle,
    ui,
    usage,
)
from openclaw_egress.cli.formatting import BAD_INPUT, print_error
from openclaw_egress.errors import EgressError
from openclaw_egress.reports.text import escape
from openclaw_egress.spool.schema import who_may

_ADVICE = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file where a directory is expected: check the path",
    errno.EISDIR: "the path is a directory: use the path of a file",
    errno.ENOSPC: "the disk is full: free space",
    errno.EDQUOT: "the disk quota is used up: free space",
    errno.EROFS: "the file system is read-only: use another path",
    errno.ENAMETOOLONG: "check the path",
    errno.ELOOP: "check the path: its symbolic links form a loop",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Enforce egress policy by container type, and record exactly what agents exchange with LLM providers.",
    epilog="Exit codes: 0 done or yes; 1 no, nothing found, or an unhealthy proxy; "
    "2 invalid input or settings. "
    "Settings come from the environment (EGRESS_*, PROXY_*, OTEL_*); NO_COLOR disables colours.",
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


run.register(app)
records.register(app)
denials.register(app)
audit.register(app)
backup.register(app)
export.register(app)
dead_letters.register(app)
delete.register(app)
usage.register(app)
ui.register(app)
support_bundle.register(app)
app.add_typer(policy.app, name="policy")
app.add_typer(ca.app, name="ca")


def run_app() -> None:
    """Run the command. Report invalid input and system errors as one message with exit code 2, never as a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # If the output's encoding lacks a character, print an escape instead of failing.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except EgressError as error:
        print_error(escape(error, lines=True))
        sys.exit(BAD_INPUT)
    except OSError as error:
        print_error(escape(describe_os_error(error)))
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(130)


def describe_os_error(error: OSError) -> str:
    """Return one message for an operating system error: what happened, where, and what to do."""
    what = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return f"{what}; {_ADVICE.get(error.errno or 0, 'look at the system log')}"
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else Path(str(error.filename))
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path}: {what}; {who_may(path)}"
    return f"{path}: {what}; {_ADVICE.get(error.errno or 0, 'check the path, the disk and the system log')}"
