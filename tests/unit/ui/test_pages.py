"""Tests of the template filters: they show the commands in messages as code, and escape all other text."""

import pytest

from openclaw_egress.ui.pages import quoted


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Run `egress audit`, then wait.", "Run <code>egress audit</code>, then wait."),
        ("`a` and `b`", "<code>a</code> and <code>b</code>"),
        ("no command", "no command"),
        ("one ` alone", "one ` alone"),
        ("<b>` `<i>` `", "&lt;b&gt;<code> </code>&lt;i&gt;<code> </code>"),
        ("`<script>`\u202e", "<code>&lt;script&gt;</code>\\u202e"),
    ],
)
def test_quoted_commands_are_code_and_everything_else_is_escaped(text, html):
    assert str(quoted(text)) == html
