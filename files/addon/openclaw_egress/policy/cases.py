"""Test cases for a policy: requests with the expected decisions. `egress policy test` runs them.

A file of test cases contains a list::

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
    """A file of test cases is invalid."""


@dataclass(frozen=True, slots=True)
class Case:
    """A request with its expected decision. If ``rule`` is None, any rule may make the decision."""

    line: int
    class_name: str
    url: str
    method: str
    expect: Expectation
    rule: str | None = None

    def meets(self, decision: Decision) -> bool:
        """Return whether the decision is as expected."""
        return decision.allow is (self.expect == "allow") and self.rule in (None, decision.rule)


class _Node(Node):
    error = CasesError


def load_cases(path: Path, classes: Sequence[str]) -> list[Case]:
    """Return the cases in a file.

    Args:
        path: the file, in the format that the module's docstring shows.
        classes: the classes of the policy.

    Raises:
        CasesError: the first problem, with its line and a remedy.
    """
    data = read_file(path, CasesError, "the file of cases", "check the path and its permissions")
    root = _Node.document(data, str(path), f"write a list of cases, as in `- {EXAMPLE}`", "split it into several files")
    cases = [_case(node, classes) for node in root.items(f"- {EXAMPLE}")]
    if not cases:
        root.fail("the file contains no test case", f"add one, as in `- {EXAMPLE}`")
    return cases


def _case(node: _Node, classes: Sequence[str]) -> Case:
    entries = node.mapping(("class", "url", "method", "expect", "rule"), EXAMPLE)
    class_name = node.required(entries, "class", "add the class of the client, as in `class: sandbox`")
    address = node.required(entries, "url", 'add the requested URL, as in `url: "https://www.example.com/"`')
    expect = node.required(entries, "expect", "write the expected decision: `expect: allow` or `expect: deny`")
    url = address.text('url: "https://www.example.com/"')
    try:
        split_url(url)
    except DestinationError as error:
        address.fail(f"not a valid URL ({error})", "write https://host/path or host:port")
    return Case(
        line=node.line,
        class_name=class_name.choice(classes, "a class of this policy", "class: sandbox"),
        url=url,
        method=entries["method"].text("method: GET") if "method" in entries else "GET",
        expect=expect.choice(EXPECTATIONS, "a decision", "expect: deny"),
        rule=entries["rule"].text("rule: default") if "rule" in entries else None,
    )
