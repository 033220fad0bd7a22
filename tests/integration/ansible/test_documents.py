"""Tests that the documentation for operators agrees with the code."""

import os
import re
import shlex

import pytest
import yaml

from openclaw_egress.observability import catalogue
from openclaw_egress.policy.loader import read_policy
from openclaw_egress.settings import Settings
from tests.integration.ansible.conftest import ROOT
from tests.support.egress_command import run_egress
from tools import provider_table, references
from tools.role_tables import default_of, roles, updated

GUIDE = ROOT / "playbooks" / "extras" / "https-forward-proxy.md"
DOCUMENTS = ("*.md", "roles/*/README.md", "playbooks/extras/*.md", "molecule/lab/*.md")
FENCED = re.compile(r"(?:<!-- (?P<where>[^>]*) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


@pytest.mark.parametrize("role", roles(), ids=lambda role: role.name)
def test_readme_tables_match_the_argument_specs(role):
    assert (role / "README.md").read_text() == updated(role), "run `make docs`"


def test_provider_table_matches_the_groups():
    assert provider_table.DOCUMENT.read_text() == provider_table.updated(), "run `make docs`"


@pytest.mark.parametrize(("document", "text"), references.updated().items(), ids=lambda one: getattr(one, "name", ""))
def test_references_match_their_sources(document, text):
    assert document.read_text() == text, "run `make docs`"


def test_every_setting_is_described():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_label_of_a_metric_is_described():
    used = {label for group in catalogue.GROUPS.values() for metric in group for label in metric.labels}
    assert set(catalogue.LABELS) == used


def test_policy_in_the_reference_is_valid():
    found = FENCED.search(references.POLICY.read_text())
    assert read_policy(found["text"].encode(), "policy.yml").warnings == ()


@pytest.mark.parametrize("role", roles(), ids=lambda role: role.name)
def test_every_public_variable_is_documented_with_its_default(role):
    options = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    assert set(defaults) <= set(options), "argument_specs.yml does not describe every default"
    assert {name for name in options if not options[name].get("required")} <= set(defaults), (
        "an optional variable has no value in defaults/main.yml"
    )
    for name, value in defaults.items():
        if "default" in options[name] and not (isinstance(value, str) and "{{" in value):
            same = {"default": value}, {"default": options[name]["default"]}
            assert default_of(same[0]) == default_of(same[1]), name


def test_playbooks_and_options_in_the_guide_exist(run):
    commands = [
        shlex.split(line)
        for found in FENCED.finditer(GUIDE.read_text())
        if found["kind"] == "sh" and not found["where"]
        for line in found["text"].splitlines()
    ]
    assert len(commands) >= 4
    for words in commands:
        assert words[0] == "ansible-playbook"
        done = run(*[word for word in words if word not in ("--check", "--diff")], "--syntax-check")
        assert done.returncode == 0, done.stderr


def test_egress_commands_of_the_guide_are_valid():
    """Run the guide's commands for VPS-1 without a proxy. Each must be a valid command and end without a traceback."""
    commands = re.findall(
        r"docker exec openclaw-proxy egress ([^\n`]*)", GUIDE.read_text() + (ROOT / "README.md").read_text()
    )
    assert len(commands) >= 5
    for command in set(commands):
        if command in ("…", ""):
            continue
        environment = os.environ | {"EGRESS_STATE_DIR": "/no/such/directory"}
        done = run_egress(*shlex.split(command), environment=environment)
        assert not re.search("No such (command|option)|Missing argument|no class", done.stderr), done.stderr
        assert "Traceback" not in done.stderr


def test_example_inventories_have_one_and_several_gateways(run):
    pair = run("ansible-inventory", "-i", "inventories/example", "--list")
    fleet = run("ansible-inventory", "-i", "inventories/fleet", "--list")
    assert pair.returncode == fleet.returncode == 0
    assert len(yaml.safe_load(pair.stdout)["openclaw_gateways"]["hosts"]) == 1
    assert len(yaml.safe_load(fleet.stdout)["openclaw_gateways"]["hosts"]) > 1


def test_links_in_the_documentation_have_a_target():
    for file in [
        *ROOT.glob("*.md"),
        *ROOT.glob("roles/*/README.md"),
        *ROOT.glob("playbooks/extras/*.md"),
        *ROOT.glob("molecule/lab/*.md"),
        *ROOT.glob("docs/**/*.md"),
    ]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name}: {target}"
