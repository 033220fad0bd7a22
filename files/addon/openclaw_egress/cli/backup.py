"""``egress backup`` and ``restore``: copy the spool to one file, and restore it from that file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openclaw_egress.cli.dead_letters import By, Why, signed_reason
from openclaw_egress.cli.formatting import print_error, print_json
from openclaw_egress.reports.text import escape, size
from openclaw_egress.settings import Settings
from openclaw_egress.spool.backup import back_up
from openclaw_egress.spool.backup import restore as restore_backup

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def register(app: typer.Typer) -> None:
    """Register the commands `backup` and `restore`."""
    app.command()(backup)
    app.command()(restore)


def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Write the backup to this new file, which only its owner can read.")
    ],
    with_keys: Annotated[
        bool,
        typer.Option(
            "--with-keys",
            help="Add the private keys of the state directory: the signing key, and the CA if it is stored there.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a copy of the spool to one file. The proxy may run meanwhile.

    The file contains prompts and responses. By default it contains no private key. Exchanges in progress are not part
    of it. Exit codes: 0 done; 2 the file exists or cannot be written.
    """
    made = back_up(Settings.load(), file, keys=with_keys)
    if as_json:
        print_json(
            {
                "file": str(file),
                "size": file.stat().st_size,
                "last_seq": made.seq,
                "last_hash": made.digest,
                "instance": made.instance_id,
                "open_exchanges": made.open_exchanges,
                "files": made.files,
            }
        )
        return
    typer.echo(f"{escape(file)}: {size(file.stat().st_size)}, lines up to {made.seq} of instance {made.instance_id}")
    typer.echo(f"  newest line {made.seq}, sha256 {made.digest}")
    typer.echo(f"  files: {', '.join(made.files) or 'none'}" + ("" if with_keys else " (no private key)"))
    if made.open_exchanges:
        typer.echo(f"  {made.open_exchanges} exchanges in progress are not part of the backup")
    if with_keys:
        print_error("the backup contains private keys: whoever reads it can sign as this instance")


def restore(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Restore this file, which `egress backup` wrote; - reads standard input."),
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Move an existing spool that has records aside, without deleting it.")
    ] = False,
    why: Why = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Restore the spool of a backup into EGRESS_STATE_DIR. Stop the proxy first.

    The restored spool is a new instance and continues the chain of the backup; a record contains the user and the
    reason. If the backup contains private keys, those that are absent here are restored. Exit codes: 0 done; 2 nothing
    was changed.
    """
    settings = Settings.load()
    done = restore_backup(settings, file, signed_reason(why, by), replace=replace)
    if as_json:
        print_json(
            {
                "spool": str(settings.spool_path),
                "last_seq": done.backup.seq,
                "previous_instance": done.backup.instance_id,
                "instance": done.instance_id,
                "files": done.files,
                "aside": None if done.aside is None else str(done.aside),
                "lost_lines": done.lost_lines,
            }
        )
        return
    typer.echo(f"{escape(settings.spool_path)}: restored, lines up to {done.backup.seq}")
    typer.echo(f"  instance {done.instance_id}, restored from instance {done.backup.instance_id}")
    typer.echo(f"  restored keys: {', '.join(done.files) or 'none'}")
    if done.aside is not None:
        typer.echo(f"  the previous spool is {escape(done.aside)}; delete it when you do not need it any more")
        lost = "an unknown number of" if done.lost_lines is None else done.lost_lines
        typer.echo(f"  {lost} lines of the previous spool are not in the backup")
    typer.echo(
        "  only the destination has the lines that the previous instance wrote after the backup: see `egress audit`"
    )
