"""Generator for the tables in docs/policy.md, docs/settings.md and docs/metrics.md.

Their sources are the policy schema, the fields of the settings, and the catalogue of metrics.

`make docs` writes the tables. A test checks that the committed tables are current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from openclaw_egress.observability import catalogue
from openclaw_egress.policy.json_schema import policy_schema
from openclaw_egress.settings import ClassNetworks, Settings
from tools.documents import cell, with_table

DOCS = Path(__file__).resolve().parent.parent / "docs"
POLICY, SETTINGS, METRICS = DOCS / "policy.md", DOCS / "settings.md", DOCS / "metrics.md"


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
    """Format a value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("...\n").strip()


def settings_table() -> list[str]:
    """Return the lines of the table in docs/settings.md."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{variable(name, field)}` | {_default(field)} | {cell(field.description or '')} |")
    return rows


def variable(name: str, field: FieldInfo) -> str:
    """Return the name of the environment variable for a setting."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else name


def _default(field: FieldInfo) -> str:
    value = field.default
    if value in (None, "", (), ClassNetworks({})):
        return ""
    if isinstance(value, Path):
        return f"`~/{value.relative_to(Path.home())}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def metrics_tables() -> dict[str, list[str]]:
    """Return the lines of each table of docs/metrics.md, by its name in the marker comments."""
    tables = {name: list(_metrics(group)) for name, group in catalogue.GROUPS.items()}
    labels = [f"| `{name}` | {cell(what)} |" for name, what in catalogue.LABELS.items()]
    return tables | {"labels": ["| label | values |", "|---|---|", *labels]}


def _metrics(group: Iterable[catalogue.Metric]) -> Iterator[str]:
    yield "| metric | type | labels | unit | meaning |"
    yield "|---|---|---|---|---|"
    for metric in group:
        labels = ", ".join(f"`{name}`" for name in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.unit} | {cell(metric.text)} |"


def updated() -> dict[Path, str]:
    """Return the text of each document with its current tables."""
    found = {SETTINGS: with_table(SETTINGS.read_text(), "settings", settings_table(), SETTINGS)}
    for document, tables in ((POLICY, policy_tables()), (METRICS, metrics_tables())):
        text = document.read_text()
        for name, table in tables.items():
            text = with_table(text, name, table, document)
        found[document] = text
    return found


def main() -> int:
    """Write the tables into the three documents."""
    for document, text in updated().items():
        document.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
