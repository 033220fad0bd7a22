"""The page's HTML, from templates that escape every value and make control characters visible."""

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
    """Escape invisible characters in a value. Jinja calls this for every value before it escapes HTML."""
    return value if isinstance(value, Markup) else escape(value, lines=True)


def marked(text: str) -> Markup:
    """Return a text from traffic as HTML that marks the escapes of invisible characters.

    The mark distinguishes an escape that the page wrote, such as `\\u202e`, from the same characters in the text.
    """
    mark = Markup('<b class="escape">{}</b>')
    return Markup("").join(
        html_escape(piece) if plain else mark.format(piece) for plain, piece in pieces(text, lines=True)
    )


def quoted(text: str) -> Markup:
    """Return a message of the CLI as HTML. Show the text between backticks, such as commands, as code."""
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
    """Render a template to HTML."""
    return _environment.get_template(template).render(values)
