"""Tables in documents that are generated from the code: the text between two marker comments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def with_table(text: str, name: str, table: Iterable[str], document: Path) -> str:
    """Return the text of a document with the current lines of a table.

    Args:
        text: the document's text.
        name: the table's name in the marker comments.
        table: the lines.
        document: the document's path, for the error.

    Raises:
        SystemExit: the document lacks the marker comments of this name.
    """
    begin, end = f"<!-- {name}: written by `make docs` -->", f"<!-- end of {name} -->"
    before, mark, rest = text.partition(begin)
    if not mark or end not in rest:
        raise SystemExit(f"{document} does not contain the marker comments {begin} and {end}")
    return before + "\n".join([begin, *table, end]) + rest.partition(end)[2]


def cell(text: str) -> str:
    """Return a text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
