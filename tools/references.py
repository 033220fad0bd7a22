"""Generator of the tables in docs/policy.md and docs/settings.md, from the policy's schema and the settings' fields.

`make docs` writes the tables; a test compares them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from openclaw_egress.policy.json_schema import policy_schema
from openclaw_egress.settings import Settings
from tools.documents import cell, with_table

DOCS = Path(__file__).resolve().parent.parent / "docs"
POLICY, SETTINGS = DOCS / "policy.md", DOCS / "settings.md"


def policy_tables() -> dict[str, list[str]]:
    """Return the lines of each table of docs/policy.md, by its name in the marker comments."""
    schema: Any = policy_schema()
    definitions = schema["$defs"]
    one_class = definitions["class"]["properties"]
    objects = {
        "policy": schema["properties"],
        "class": one_class,
        "allow": definitions["allowRule"]["properties"],
        "deny": definitions["denyRule"]["properties"],
        "addresses": definitions["exception"]["properties"],
        "limits": one_class["limits"]["properties"],
    }
    return {name: list(_keys(properties, definitions)) for name, properties in objects.items()}


def _keys(properties: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    yield "| key | example | what it is |"
    yield "|---|---|---|"
    for key, found in properties.items():
        known = {**definitions[found["$ref"].rpartition("/")[2]], **found} if "$ref" in found else found
        what = known["description"]
        if "minimum" in known and "listen" not in key:
            what += f" From {known['minimum']:,} to {known['maximum']:,}."
        if "default" in known:
            what += f" Default: `{_yaml(known['default'])}`."
        yield f"| `{key}` | `{_yaml(known['examples'][0])}` | {cell(what)} |"


def _yaml(value: object) -> str:
    """Return a value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("...\n").strip()


def settings_table() -> list[str]:
    """Return the lines of the table in docs/settings.md."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{variable(name, field)}` | {_default(field)} | {cell(field.description or '')} |")
    return rows


def variable(name: str, field: FieldInfo) -> str:
    """Return the environment variable of a setting."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else name


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == "":
        return ""
    if isinstance(value, Path):
        return f"`~/{value.relative_to(Path.home())}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def updated() -> dict[Path, str]:
    """Return the text of each document with its current tables."""
    found = {SETTINGS: with_table(SETTINGS.read_text(), "settings", settings_table(), SETTINGS)}
    text = POLICY.read_text()
    for name, table in policy_tables().items():
        text = with_table(text, name, table, POLICY)
    return found | {POLICY: text}


def main() -> int:
    """Write the tables."""
    for document, text in updated().items():
        document.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
