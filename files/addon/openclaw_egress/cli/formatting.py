"""Helpers that all commands share: exit codes, messages, tables, and quoting of text from traffic."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, BinaryIO

import typer

from openclaw_egress.reports.text import escape

NEGATIVE, BAD_INPUT = 1, 2


def print_error(message: str) -> None:
    """Print one message for the operator on standard error."""
    print(f"egress: {message}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a JSON value on one line, as printable ASCII, so that no terminal interprets it."""
    print(json.dumps(value, default=str).replace("\x7f", "\\u007f"))


def new_file(path: Path) -> BinaryIO:
    """Create a file, and return it open for writing. Only its owner can read it, because it can contain prompts.

    Raises:
        typer.Exit: the file exists. The command has printed the message.
        OSError: the file cannot be created.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        print_error(f"{escape(path)} exists already: use another file name")
        raise typer.Exit(BAD_INPUT) from None
    return os.fdopen(descriptor, "wb")


NARROW = 120
"""Minimum width of a terminal, in characters, for tables with all columns."""


def is_narrow() -> bool:
    """Return whether the output is a terminal that is too narrow for all columns."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns < NARROW


def quoted(text: str) -> str:
    """Put a mark before each line of text from traffic, so that the text cannot imitate the command's own output.

    On a terminal, wrap long lines here: if the terminal wrapped them, the continuation lines would have no mark.
    """
    lines = escape(text, lines=True).split("\n")
    if sys.stdout.isatty():
        from rich.cells import chop_cells  # noqa: PLC0415  (slow to import, and needed only on a terminal)

        room = max(10, shutil.get_terminal_size().columns - 2)
        lines = [piece for line in lines for piece in chop_cells(line.expandtabs(8), room) or [""]]
    return "\n".join(f"│ {line}" for line in lines)


def print_table(columns: list[tuple[str, str]], rows: list[list[object]], colours: list[str]) -> None:
    """Print a table.

    ``columns`` are pairs of name and alignment. ``colours`` has the colour of each row, or "". On a terminal only, use
    the colours and wrap long cells to fit the window.
    """
    from rich.console import Console  # noqa: PLC0415  (slow to import, and not every command prints a table)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, (name, justify) in enumerate(columns):
        # Make the column wide enough for an IPv4 address on one line.
        least = min(15, max((len(str(row[at])) for row in rows), default=0)) if name == "client" else None
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold", min_width=least)
    for row, colour in zip(rows, colours, strict=True):
        table.add_row(*(Text(escape(cell)) for cell in row), style=colour)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(200, console.width))
    console.print(table)
