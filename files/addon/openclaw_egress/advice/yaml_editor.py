"""Editor that inserts rules into a policy's text. It preserves the existing text: comments, line endings and order.

The editor parses the YAML only to find positions. An alias has the position of its anchor, so a rule added to a
shared list changes every class that uses the list. Before using the result, the caller must load it as a policy
and compare it with the original.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, SequenceNode

MAX_LINE = 120
"""Maximum length of a line. If the rules do not fit, each gets its own line."""


class PlaceError(Exception):
    """The text has no place where the editor can insert rules. The message contains the reason."""


def with_rules(text: str, class_name: str, rules: Sequence[str]) -> str:
    """Return a policy's text with rules appended to the list ``allow`` of a class. Create the list if it is absent.

    Args:
        text: a valid policy without a byte order mark.
        class_name: one of its classes.
        rules: each in YAML's flow style, such as ``{host: packages.example.com, ports: [443]}``.

    Raises:
        PlaceError: the class or its list cannot be edited.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ignore warnings about reused anchors, as the policy loader does.
        root = YAML(typ="rt", pure=True).compose(text)
    found = _entry(_entry(root, "classes"), class_name)
    allow = _entry(found, "allow")
    if not isinstance(found, MappingNode) or not found.value:
        raise PlaceError(f"class {class_name} is empty, or not written as a mapping")
    if allow is None and found.flow_style:
        return _into_flow(text, found, found.value[-1][1], rules, ("allow: [", "]"))
    if allow is None:
        indent = " " * found.value[0][0].start_mark.column
        return _after_line(text, _end(found), [f"{indent}allow:", *(f"{indent}  - {rule}" for rule in rules)])
    if not isinstance(allow, SequenceNode):
        raise PlaceError(f"allow of class {class_name} is not written as a list")
    if allow.flow_style:
        return _into_flow(text, allow, allow.value[-1] if allow.value else None, rules)
    dash = text.rfind("-", 0, allow.value[-1].start_mark.index)
    indent = " " * (dash - _line_start(text, dash))
    return _after_line(text, _end(allow), [f"{indent}- {rule}" for rule in rules])


def _entry(node: Node | None, name: str) -> Node | None:
    """Return the value of a key in a mapping; None if the key is absent or the node is not a mapping."""
    pairs: list[tuple[Node, Node]] = node.value if isinstance(node, MappingNode) else []
    for key, value in pairs:
        if key.value == name:
            return value
    return None


def _end(node: Node) -> int:
    """Return the position where a value ends.

    Do not use the end mark of a block, because it is after trailing comments and blank lines.
    """
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _into_flow(
    text: str, collection: Node, last: Node | None, rules: Sequence[str], around: tuple[str, str] = ("", "")
) -> str:
    """Insert rules after the entry ``last`` of ``[…]`` or ``{…}``: on the same line if they fit, else on lines below.

    ``around`` is a pair of texts to insert before and after the rules: inside ``{…}``, the key ``allow`` with an
    opening bracket, and a closing bracket.
    """
    if last is None:
        # The list begins at the first bracket, because an anchor or a tag before it cannot contain a bracket.
        at, separator = text.index("[", collection.start_mark.index) + 1, ""
    else:
        at, separator = _end(last), ", "
        begin = _line_start(text, last.start_mark.index)
        if not around[0] and not (indent := text[begin : last.start_mark.index]).strip():
            return _on_lines(text, at, int(collection.end_mark.index), indent, rules)
    head, tail = around
    line_start, line_end = _line_start(text, at), _line_end(text, at)
    flat = separator + head + ", ".join(rules) + tail
    if line_end - line_start + len(flat) <= MAX_LINE:
        return text[:at] + flat + text[at:]
    line = text[line_start:at]
    broken = _newline(text) + " " * (len(line) - len(line.lstrip(" ")) + 4)
    return (
        text[:at]
        + separator.rstrip()
        + (" " + head if head else "")
        + broken
        + f",{broken}".join(rules)
        + tail
        + text[at:]
    )


def _on_lines(text: str, at: int, end: int, indent: str, rules: Sequence[str]) -> str:
    """Insert rules below the last entry of a ``[…]`` list with one entry per line. The list ends at ``end``."""
    newline = _newline(text) + indent
    line_end = _line_end(text, at)
    if end <= line_end:
        return text[:at] + "".join(f",{newline}{rule}" for rule in rules) + text[at:]
    comma = text[at:line_end].lstrip().startswith(",")
    added = newline + f",{newline}".join(rules) + ("," if comma else "")
    return text[:at] + ("" if comma else ",") + text[at:line_end] + added + text[line_end:]


def _after_line(text: str, at: int, lines: Sequence[str]) -> str:
    """Insert lines below the line that contains the position ``at``. A comment at the end of that line stays there."""
    end = _line_end(text, at)
    return text[:end] + "".join(_newline(text) + line for line in lines) + text[end:]


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """Return the position of the first line ending (LF or CRLF) at or after ``at``, or of the end of the text."""
    end = text.find("\n", at)
    if end < 0:
        return len(text)
    return end - 1 if end > at and text[end - 1] == "\r" else end


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
