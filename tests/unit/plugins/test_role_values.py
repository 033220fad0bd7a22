"""Tests that the gateway's role converts numbers and booleans, because `-e NAME=VALUE` makes them strings."""

import re
from pathlib import Path

import pytest
import yaml

ROLE = Path(__file__).parents[3] / "roles" / "openclaw_gateway"
OPTIONS = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
TYPED = {name: spec["type"] for name, spec in OPTIONS.items() if spec["type"] in ("int", "bool")}
FILES = [path for part in ("tasks", "vars", "templates") for path in sorted((ROLE / part).iterdir())]


@pytest.mark.parametrize("name", TYPED)
def test_every_use_of_a_typed_variable_converts_it(name):
    uses = 0
    for path in FILES:
        text = path.read_text()
        for found in re.finditer(rf"(?<!\w){name}\b", text):
            before, after = text[: found.start()], text[found.end() :]
            inside = before.rfind("{{") > before.rfind("}}") or re.search(r"(when|until|that): [^\n]*\Z", before)
            # Ignore `{{ NAME }}` without a filter: it inserts the value into a message, which needs no conversion.
            shown = before.endswith("{{ ") and after.startswith(" }} ")
            if inside and not shown:
                uses += 1
                assert after.startswith(f" | {TYPED[name]}"), (
                    f"{path.name}: {text[found.start() - 40 : found.end() + 40]}"
                )
    assert uses
