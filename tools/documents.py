"""Functions that write generated tables into documents. In a document, each table is between two marker comments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def with_table(text: str, name: str, table: Iterable[str], document: Path) -> str:
    """Replace a table in the text of a document. Return the new text.

    Args:
        text: the document's text.
        name: the table's name in the marker comments.
        table: the new lines of the table.
        document: the document's path, for the error message.

    Raises:
        SystemExit: the document lacks the marker comments of this name.
    """
    begin, end = f"<!-- {name}: written by `make docs` -->", f"<!-- end of {name} -->"
    before, mark, rest = text.partition(begin)
    if not mark or end not in rest:
        raise SystemExit(f"{document} does not contain the marker comments {begin} and {end}")
    return before + "\n".join([begin, *table, end]) + rest.partition(end)[2]


def cell(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
