"""Tests of the gateway plan for each project in `compose_projects`. They check the container that Docker would start.

`case.yml` contains the expected values, written by hand: the command line (``starts``), ``NODE_OPTIONS``, the networks,
and the CA certificates. ``direct`` lists the hosts in ``NO_PROXY`` that the role does not add by default.

For a project that the role refuses, `case.yml` also contains the code of the problem and the remedy. The test applies
the remedy and checks the result. ``operator: true`` marks a refusal that only the operator can resolve, such as a
service with the name of the role's own service. It does not count towards the limit on refused projects.

Print a row for each project:

    pytest -q tests/unit/plugins/test_compose_projects.py --compose-table

`compose_projects/record.py` records the configurations that Compose prints.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.openclaw.egress.plugins.module_utils.dotenv import Dotenv
from ansible_collections.openclaw.egress.plugins.module_utils.gateway_plan import (
    OTHER_PROXIES,
    PROXY_VARIABLES,
    Options,
    Plan,
    make_plan,
)

FOLDER = Path(__file__).parent / "compose_projects"
IMAGES = yaml.safe_load((FOLDER / "images.yml").read_text())
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/case.yml"))
# The defaults of the role openclaw_gateway for hosts that the gateway reaches without the proxy.
DIRECT, NO_PROXY = ["10.0.0.2"], ["10.0.0.0/8", "localhost", "127.0.0.1"]
PROXY = "http://openclaw-proxy:8080"
NETWORK = "openclaw-gateway-net"
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-?+])((?:[^{}])*))?\})")


class Case:
    """One project: the expected result in `case.yml`, and the configurations before and after the remedy."""

    def __init__(self, name: str) -> None:
        self.folder = FOLDER / name
        self.stated: dict[str, Any] = yaml.safe_load((self.folder / "case.yml").read_text())
        self.recorded: dict[str, Any] = json.loads((self.folder / "configurations.json").read_text())
        self.image: dict[str, Any] = IMAGES[self.stated.get("image", "openclaw")]
        self.name: str = self.stated.get("service", "openclaw-gateway")
        self.refused: str | None = self.stated.get("refused")

    def plan(self, remedied: bool, **options: Any) -> Plan:
        given = self.recorded.get("remedied", self.recorded) if remedied else self.recorded
        remedy = self.stated.get("remedy", {}).get("options", {}) if remedied else {}
        known = {
            "service": self.name,
            "bootstrap": "mount",
            "env_file": "/srv/openclaw/.env",
            "direct_hosts": DIRECT,
            "no_proxy": NO_PROXY,
        }
        chosen = Options(**{**known, **self.stated.get("options", {}), **remedy, **options})
        return make_plan(given["uninterpolated"], given["interpolated"], self.image, None, chosen)

    @property
    def project(self) -> dict[str, Any]:
        """Return the interpolated project. If the case has a remedy, return the project after its edits."""
        found: dict[str, Any] = self.recorded.get("remedied", self.recorded)["interpolated"]
        return found

    @property
    def service(self) -> dict[str, Any]:
        found: dict[str, Any] = self.project["services"][self.name]
        return found

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables that Compose can substitute. If the remedy edits `.env`, use the edited file."""
        path = self.folder / ".env"
        text = path.read_bytes().decode() if path.exists() else ""
        for name, old, new in self.stated.get("remedy", {}).get("edit", ()):
            text = text.replace(old, new) if name == ".env" else text
        entries = Dotenv(text)
        names = re.findall(r"(?m)^(?:export )?(\w+)=", text)
        return {"HOME": "/home/op", **{n: entries.get(n) or "" for n in names}, **self.stated.get("shell", {})}


def resolved(text: str, variables: dict[str, str]) -> str:
    """Return a text from a compose file with its variables interpolated."""

    def value(found: re.Match[str]) -> str:
        name, operator, word = found[1] or found[2], found[3] or "", found[4] or ""
        known = variables.get(name, "") if not operator.startswith(":") or variables.get(name) else None
        if operator.endswith("-"):
            return known if name in variables and known is not None else word
        return known or ""

    text = text.replace("$$", "\0")
    while (after := VARIABLE.sub(value, text)) != text:
        text = after
    return text.replace("\0", "$")


def words(value: str | list[str] | None, variables: dict[str, str]) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return shlex.split(resolved(value, variables))
    return [resolved(word, variables) for word in value]


def command_line(case: Case, plan: Plan | None) -> list[str]:
    """Combine entrypoint and command as Docker (moby) does. Return the command line that it starts."""
    settings: dict[str, list[str] | None] = {}
    for name in ("entrypoint", "command"):
        ours = words(getattr(plan, name), case.variables) if plan else None
        settings[name] = words(case.service.get(name), {}) if ours is None else ours
    entrypoint, command = settings["entrypoint"], settings["command"]
    if entrypoint:
        return entrypoint + (command or [])
    own = case.image.get("Entrypoint") or [] if entrypoint is None else []
    return own + (command or case.image.get("Cmd") or [])


def environment(case: Case, plan: Plan | None) -> dict[str, str]:
    """Return the container's environment. A variable without a value removes the image's variable."""
    found = dict(entry.split("=", 1) for entry in case.image["Env"])
    for name, value in (case.service.get("environment") or {}).items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = resolved(str(value), {})
    if plan:
        found.update({name: resolved(value, case.variables) for name, value in plan.environment.items()})
    return found


def networks(case: Case, plan: Plan) -> set[str]:
    """Return the Docker names of the container's networks."""
    known = case.project.get("networks") or {}
    own = {} if case.service.get("network_mode") else case.service.get("networks") or {"default": None}
    named = {key: (known.get(key) or {}).get("name", f"openclaw_{key}") for key in own}
    if plan.networks and NETWORK in plan.networks:
        assert set(plan.networks) <= {NETWORK, "default"} and not any(plan.networks.values())
        assert ("default" in plan.networks) == (list(own) == ["default"]), "Compose leaves out the default network"
        named[NETWORK] = NETWORK
    return set(named.values())


def entries(no_proxy: str) -> list[str]:
    return [entry.strip() for entry in no_proxy.split(",") if entry.strip()]


@pytest.mark.parametrize("name", NAMES)
def test_plan_is_right_or_refused_with_a_remedy_that_works(name: str, record_property: Callable[..., None]) -> None:
    case = Case(name)
    stated = case.stated
    first = case.plan(remedied=False)
    found = {problem.code for problem in first.problems if problem.level == "application"}
    assert found == ({case.refused} if case.refused else set()), [problem.message for problem in first.problems]
    plan = case.plan(remedied=True)
    assert [problem.message for problem in plan.problems if problem.level == "application"] == []
    assert [warning.code for warning in plan.warnings] == stated.get("warns", [])
    assert bool(plan.siblings) == ("host-docker" in stated.get("warns", []))

    before, after = environment(case, None), environment(case, plan)
    assert command_line(case, plan) == shlex.split(stated["starts"])
    required = ["--require", plan.bootstrap]
    start = shlex.split(stated["starts"])
    by_words = "--require" in start
    own_options = before.get("NODE_OPTIONS", "")
    node_options = own_options if by_words else " ".join(filter(None, [*required, own_options]))
    assert after.get("NODE_OPTIONS", "") == node_options
    if "node_options" in stated:
        assert node_options == stated["node_options"].replace("BOOT", plan.bootstrap)

    role = [*DIRECT, *NO_PROXY]
    own = entries(before.get("NO_PROXY", "")) + entries(before.get("no_proxy", ""))
    assert set(own) <= set(stated.get("direct", [])), "case.yml does not list the operator's own NO_PROXY in `direct`"
    assert after["NO_PROXY"] == after["no_proxy"]
    assert after["NO_PROXY"].startswith(DIRECT[0]), (
        "literal hosts must come first, because Node compares entries as text"
    )
    added = [entry for entry in entries(after["NO_PROXY"]) if entry not in role]
    expected = [entry for entry in stated.get("direct", []) if entry not in role]
    assert sorted(added) == sorted(expected) and set(role) <= set(entries(after["NO_PROXY"]))

    assert {after[variable] for variable in PROXY_VARIABLES} == {stated.get("proxy", PROXY)}
    assert not any(after.get(variable) for variable in set(OTHER_PROXIES) - set(PROXY_VARIABLES))
    assert after["NODE_USE_ENV_PROXY"] == "1"
    ours = {*PROXY_VARIABLES, "NO_PROXY", "no_proxy", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "NODE_USE_ENV_PROXY"}
    assert {key: value for key, value in after.items() if key not in ours} == {
        key: value for key, value in before.items() if key not in ours
    }
    assert [plan.ca, plan.ca_on_host] == stated.get("ca", ["", ""])
    assert networks(case, plan) == set(stated["networks"])
    for path in (after["NODE_EXTRA_CA_CERTS"], *([] if plan.bootstrap.startswith("/app/") else [plan.bootstrap])):
        assert mountable(case, path), f"Docker cannot mount {path} into a read-only directory of the operator"

    outcome = "operator" if stated.get("operator") else "refused" if case.refused else "right"
    by = "--require" if by_words else "NODE_OPTIONS"
    record_property("compose", (name, outcome, case.refused or by, ",".join(expected) or "-"))


def mountable(case: Case, path: str) -> bool:
    """Return whether Docker can create a mount point for a file. Inside a read-only mount, it cannot."""
    above = [
        volume
        for volume in case.service.get("volumes", [])
        if path.startswith(volume["target"].rstrip("/") + "/") and volume["type"] in ("bind", "volume")
    ]
    return not any(volume.get("read_only") for volume in above)


@pytest.mark.parametrize("name", NAMES)
def test_level_network_starts_the_same_program(name: str) -> None:
    case = Case(name)
    application = command_line(case, case.plan(remedied=True))
    started = command_line(case, case.plan(remedied=True, enforcement="network"))
    assert started[0] == "/opt/openclaw-egress/firewall-entrypoint"
    assert started[started.index("--") + 1 :] == application


def test_at_most_five_percent_of_the_projects_are_refused() -> None:
    cases = [Case(name) for name in NAMES]
    possible = [case for case in cases if not case.stated.get("operator")]
    refused = [case.folder.name for case in possible if case.refused]
    print(f"compose projects: {len(cases)}, refused with a remedy: {len(refused)} ({len(refused) / len(possible):.1%})")
    assert len(cases) >= 60
    assert len(refused) <= 0.05 * len(possible), refused


def test_each_project_has_an_expected_result_and_both_configurations() -> None:
    for name in NAMES:
        case = Case(name)
        assert case.stated["about"].endswith(".") and {"starts", "networks"} <= set(case.stated)
        assert set(case.recorded) >= {"uninterpolated", "interpolated"} and case.recorded["interpolated"]
        assert ("remedy" in case.stated) == (case.refused is not None)
        assert "operator" not in case.stated or case.refused
