"""Cases for a policy: what it is expected to decide, kept in a file beside it; `egress policy test` asks them.

The file is a list::

    - {class: sandbox, url: "https://packages.example.com/simple/", expect: allow}
    - {class: sandbox, url: "https://www.example.com/", expect: deny, rule: default}
    - {class: gateway, url: "https://api.openai.com/v1/files", method: DELETE, expect: deny}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openclaw_egress.policy.destination import DestinationError, split_url
from openclaw_egress.policy.model import Decision
from openclaw_egress.policy.yaml_reader import FileError, Node, read_file

type Expectation = Literal["allow", "deny"]

EXPECTATIONS: tuple[Expectation, ...] = ("allow", "deny")
EXAMPLE = '{class: sandbox, url: "https://www.example.com/", expect: deny}'


class CasesError(FileError):
    """The cases cannot be used."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request and what is expected of it; ``rule`` is None where any may decide. ``line`` is the case's own."""

    line: int
    class_name: str
    url: str
    method: str
    expect: Expectation
    rule: str | None = None

    def meets(self, decision: Decision) -> bool:
        """Whether the decision is the expected one."""
        return decision.allow is (self.expect == "allow") and self.rule in (None, decision.rule)


class _Node(Node):
    error = CasesError


def load_cases(path: Path, classes: Sequence[str]) -> list[Case]:
    """Read a file of cases.

    Args:
        path: the file, as the module's text shows.
        classes: the classes that the policy has.

    Raises:
        CasesError: the first thing that is wrong, with its line and what to do.
    """
    data = read_file(path, CasesError, "the file of cases", "check the path and its permissions")
    root = _Node.document(data, str(path), f"write a list of cases, as in `- {EXAMPLE}`", "make several files of it")
    cases = [_case(node, classes) for node in root.items(f"- {EXAMPLE}")]
    if not cases:
        root.fail("there is no case", f"write one, as in `- {EXAMPLE}`")
    return cases


def _case(node: _Node, classes: Sequence[str]) -> Case:
    entries = node.mapping(("class", "url", "method", "expect", "rule"), EXAMPLE)
    class_name = node.required(entries, "class", "say which class asks, as in `class: sandbox`")
    address = node.required(entries, "url", 'say what it asks for, as in `url: "https://www.example.com/"`')
    expect = node.required(entries, "expect", "say what is to be decided: `expect: allow` or `expect: deny`")
    url = address.text('url: "https://www.example.com/"')
    try:
        split_url(url)
    except DestinationError as error:
        address.fail(f"this is no URL ({error})", "write https://host/path or host:port")
    return Case(
        line=node.line,
        class_name=class_name.choice(classes, "class of this policy", "class: sandbox"),
        url=url,
        method=entries["method"].text("method: GET") if "method" in entries else "GET",
        expect=expect.choice(EXPECTATIONS, "decision", "expect: deny"),
        rule=entries["rule"].text("rule: default") if "rule" in entries else None,
    )
