"""The gateway's plan, against one golden file per deployment.

Each file holds the operator's compose files, what Compose 2.26.1 prints for them without and with resolved variables,
the image, the container and the options, and the expected plan without its empty values.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.openclaw.egress.plugins.module_utils.gateway_plan import Options, make_plan

PLANS = Path(__file__).parent / "golden" / "plans"
CASES = {path.stem: path for path in sorted(PLANS.glob("*.yml"))}


def planned(given: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return the plan of a case's input without its empty values; problems and warnings without their messages."""
    found = make_plan(
        given.get("uninterpolated"),
        given.get("interpolated"),
        given.get("image"),
        given.get("container"),
        Options(**{"service": "openclaw-gateway", **given.get("options", {}), **options}),
    ).as_dict()
    for kind in ("problems", "warnings"):
        for item in found[kind]:
            assert item.pop("message").startswith(f"{item['where']}: {item['found']}. ")
    return {name: value for name, value in found.items() if value not in (None, [], {}, "")}


@pytest.mark.parametrize("name", CASES)
def test_plan(name):
    case = yaml.safe_load(CASES[name].read_text())
    given = copy.deepcopy(case["given"])
    assert planned(given) == case["plan"]
    assert given == case["given"], "the plan changed its input"


@pytest.mark.parametrize("name", CASES)
def test_each_problem_states_place_finding_and_remedy(name):
    plan = yaml.safe_load(CASES[name].read_text())["plan"]
    for item in [*plan.get("problems", []), *plan.get("warnings", [])]:
        assert item["code"] and item["where"] and item["found"] and item["remedy"].endswith(".")
        assert item["level"] in ("application", "network")
