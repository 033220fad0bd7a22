"""Generator for the table of variables in each role's README. Its only source is the role's argument_specs.

`make docs` writes the tables. A test checks that the committed tables are current.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from tools.documents import cell, with_table

ROLES = Path(__file__).resolve().parent.parent / "roles"
MARKUP = re.compile(r"\b([COVP])\(([^)]*)\)")


def plain(text: str) -> str:
    """Convert Ansible's markup to Markdown."""
    return MARKUP.sub(lambda found: f"`{found[2]}`", cell(text))


def default_of(option: dict[str, Any]) -> str:
    """Return a variable's default as one line of YAML.

    Without a default, return `required` or a reference to defaults/main.yml.
    """
    if "default" not in option:
        return "required" if option.get("required") else "see defaults/main.yml"
    value = option["default"]
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    return "`" + yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip() + "`"


def table(role: Path) -> list[str]:
    """Return the lines of the table of a role's variables."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    rows = ["| variable | type | default | what it is |", "|---|---|---|---|"]
    for name, option in specs["main"]["options"].items():
        kind = option.get("type", "str") + (f" of {option['elements']}" if "elements" in option else "")
        what = plain(
            option["description"] if isinstance(option["description"], str) else " ".join(option["description"])
        )
        if choices := option.get("choices"):
            what += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
        rows.append(f"| `{name}` | {kind} | {default_of(option)} | {what} |")
    return rows


def updated(role: Path) -> str:
    """Return the text of a role's README with the current table of variables."""
    document = role / "README.md"
    return with_table(document.read_text(), "variables", table(role), document)


def roles() -> list[Path]:
    """Return the directory of each role."""
    return sorted(path.parent.parent for path in ROLES.glob("*/meta/argument_specs.yml"))


def main() -> int:
    """Write the table of variables into the README of each role."""
    for role in roles():
        (role / "README.md").write_text(updated(role))
    return 0


if __name__ == "__main__":
    sys.exit(main())
