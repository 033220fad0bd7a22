"""The page's HTML: templates in which every value is escaped, and control characters are visible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from markupsafe import escape as html_escape

from openclaw_egress.reports.text import escape, pieces, seconds, size

HERE = Path(__file__).parent
STATIC = HERE / "static"


def visible(value: object) -> object:
    """Return a value with escapes for invisible characters. Jinja calls it for every value before it escapes HTML."""
    return value if isinstance(value, Markup) else escape(value, lines=True)


def marked(text: str) -> Markup:
    """Return a text from traffic as HTML in which escapes of invisible characters are marked.

    The mark distinguishes an escape such as `\\u202e` that the page wrote from the same characters in the text.
    """
    mark = Markup('<b class="escape">{}</b>')
    return Markup("").join(
        html_escape(piece) if plain else mark.format(piece) for plain, piece in pieces(text, lines=True)
    )


def quoted(text: str) -> Markup:
    """Return a message as HTML in which text between two backticks is code, as the CLI writes commands."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return html_escape(escape(text, lines=True))
    code = Markup("<code>{}</code>")
    return Markup("").join(
        code.format(escape(part, lines=True)) if number % 2 else html_escape(escape(part, lines=True))
        for number, part in enumerate(parts)
    )


_environment = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=visible,
)
_environment.filters |= {"marked": marked, "quoted": quoted, "seconds": seconds, "size": size}


def render(template: str, **values: Any) -> str:
    """Return the HTML of a template."""
    return _environment.get_template(template).render(values)
