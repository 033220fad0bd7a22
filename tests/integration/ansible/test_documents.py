"""Tests that the documentation for operators agrees with the code.

The guides in docs/ must name only commands, variables and messages that exist. The troubleshooting page must have every
check, code and alert.
"""

import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import AliasChoices
from typer.core import TyperGroup

from openclaw_egress.cli.app import app
from openclaw_egress.observability import catalogue
from openclaw_egress.policy import codes
from openclaw_egress.policy.codes import Code, Evidence
from openclaw_egress.policy.loader import read_policy
from openclaw_egress.settings import Settings
from tests.integration.ansible.conftest import ROOT, Run
from tests.support.egress_command import run_egress
from tools import provider_table, references
from tools.monitoring.alerts import ALERTS_NAME
from tools.role_tables import default_of, roles, updated

GUIDE = ROOT / "playbooks" / "extras" / "https-forward-proxy.md"
DOCUMENTS = ("*.md", "roles/*/README.md", "playbooks/extras/*.md", "molecule/lab/*.md")
FENCED = re.compile(r"(?:<!-- (?P<where>[^>]*) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
DOCS = sorted((ROOT / "docs").glob("*.md"))
TROUBLESHOOT = (ROOT / "docs/troubleshoot.md").read_text()
STANDALONE = (ROOT / "docs/standalone.md").read_text()
ALLOWED = {Code.ALLOWED_BY_RULE, Code.ALLOWED_BY_ACTION, Code.ADDRESS_PUBLIC, Code.ADDRESS_EXCEPTION}
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


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


@pytest.mark.parametrize(
    "document", [references.POLICY, ROOT / "docs" / "several-gateways.md"], ids=lambda one: one.name
)
def test_policy_in_the_document_is_valid(document):
    found = FENCED.search(document.read_text())
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
    several = run("ansible-inventory", "-i", "inventories/several-gateways", "--list")
    assert pair.returncode == fleet.returncode == several.returncode == 0
    (host,) = yaml.safe_load(several.stdout)["openclaw_gateways"]["hosts"]
    assert len(yaml.safe_load(several.stdout)["_meta"]["hostvars"][host]["openclaw_gateway_instances"]) == 2
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


def blocks(text: str, kind: str) -> list[str]:
    """Return the contents of the fenced blocks of one kind."""
    return [found["text"] for found in FENCED.finditer(text) if found["kind"] == kind]


def rows(heading: str) -> list[list[str]]:
    """Return the cells of each row of the tables below a heading of the troubleshooting page, without the first row."""
    section = TROUBLESHOOT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:1] == "|"
    ]
    assert len(found) > 2, f"no table below {heading}"
    return found[2:]


def checks() -> list[dict[str, str]]:
    """Return the checks of verify.yml."""
    index = (ROOT / "roles/openclaw_gateway/vars/checks.yml").read_text().replace("!unsafe ", "")
    return list(yaml.safe_load(index)["__openclaw_gateway_verify_checks"])


def source_text() -> str:
    """Return all sources with the parts of each message joined: adjacent string literals, and lines of folded YAML."""
    files = [
        *(ROOT / "files/addon").rglob("*.py"),
        *(ROOT / "plugins").rglob("*.py"),
        *(path for role in (ROOT / "roles").iterdir() for path in role.rglob("*.yml")),
        *(ROOT / "playbooks/tasks").glob("*.yml"),
        *(ROOT / "roles/openclaw_gateway/files").rglob("firewall-entrypoint"),
    ]
    joined = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in files))
    return " ".join(joined.split())


def test_every_check_has_a_line_with_its_id_and_description() -> None:
    found = {row[0].strip("`"): row[1] for row in rows("Checks of verify.yml")}
    assert found == {check["id"]: check["about"] for check in checks()}


@pytest.mark.parametrize("code", sorted(set(Code) - ALLOWED))
def test_every_code_and_a_fixed_part_of_its_reason_are_in_the_table_of_codes(code: Code) -> None:
    table = "\n".join(row[0] for row in rows("Codes"))
    assert f"`{code}`" in table
    fixed = [part for part, *_ in string.Formatter().parse(codes._SENTENCES[code]) if len(part.strip()) > 5]
    quoted = re.search(rf"`{code}` \(`([^`]+)`", table)
    if fixed:
        assert quoted, f"write a fixed part of the reason after the code: {fixed}"
        # In a quoted reason, CLASS stands for the name of the class.
        sentence = codes.reason(code, Evidence(class_name="CLASS"))
        assert quoted[1] in sentence or quoted[1] in codes.summary(1), sentence


def test_every_alert_is_in_the_table_of_alerts() -> None:
    deployed = (ROOT / "roles/loki_otlp/files/prometheus/openclaw_egress.rules.yml").read_text()
    alerts = {rule["alert"] for group in yaml.safe_load(deployed)["groups"] for rule in group["rules"]}
    assert set(re.findall(rf"{ALERTS_NAME}\w+", "".join(row[0] for row in rows("Alerts")))) == alerts


@pytest.mark.parametrize("heading", ["The proxy does not start", "Deployment", "Disk, spool and clock", "Certificates"])
def test_messages_of_the_troubleshooting_page_are_those_of_the_code(heading: str) -> None:
    sources = source_text()
    spans = [span for row in rows(heading) for span in SPAN.findall(row[0])]
    operators_own = {".env", "COMPOSE_FILE", "docker-compose.egress.yml", "proxy.log", "policy.yml:7: classes…"}
    assert [span for span in spans if span not in operators_own and span not in sources] == []


def commands() -> list[tuple[str, str]]:
    """Return each `egress` command in the guides, with the name of its file."""
    found = []
    for file in DOCS:
        text = file.read_text()
        lines = [line for kind in ("sh", "bash") for block in blocks(text, kind) for line in block.splitlines()]
        # `egress --version` has no command, and is not checked.
        for written in [*lines, *SPAN.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))]:
            if command := re.match(r"(?:docker exec (?:-\S+ )*openclaw-proxy )?egress (?=[a-z])([^|>&#]*)", written):
                found.append((file.name, command[1].partition(" || ")[0].strip()))
    return sorted(set(found))


@pytest.mark.parametrize(("file", "command"), commands())
def test_every_egress_command_of_the_guides_can_be_parsed(file: str, command: str) -> None:
    """Parse the command without running it. A placeholder in capitals stands for any value."""
    words = shlex.split(command.replace("…", ""))
    parsed = typer.main.get_command(app)
    while isinstance(parsed, TyperGroup) and words:
        assert words[0] in parsed.commands, f"{file}: egress {command}: no command {words[0]}"
        parsed = parsed.commands[words.pop(0)]
    options = {option for parameter in parsed.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= options, f"{file}: egress {command}"


def playbook_commands() -> list[list[str]]:
    """Return the words of each `ansible-playbook` command in the guides."""
    lines = [line for file in DOCS for block in blocks(file.read_text(), "sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("ansible-playbook")]


@pytest.mark.parametrize("playbook", sorted({words[3] for words in playbook_commands()}))
def test_every_playbook_of_the_guides_exists(playbook: str, run: Run) -> None:
    done = run("ansible-playbook", "-i", "inventories/example", playbook, "--syntax-check")
    assert done.returncode == 0, done.stderr


def test_every_option_and_host_of_the_playbook_commands_exists() -> None:
    fleet = (ROOT / "inventories/fleet/hosts.yml").read_text()
    for program, inventory, hosts, _, *options in playbook_commands():
        assert (program, inventory, hosts) == ("ansible-playbook", "-i", "my-hosts")
        assert {option for option in options if option.startswith("-")} <= {"--check", "--diff", "--limit", "-e"}
        if "--limit" in options:
            names = options[options.index("--limit") + 1].split(",")
            assert [name for name in names if f" {name}:" not in fleet] == []


def test_every_variable_of_the_guides_exists() -> None:
    options = {
        name
        for role in roles()
        for name in yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    }
    known = options | set(
        yaml.safe_load((ROOT / "playbooks/vars/variables.yml").read_text())["__variables_of_playbooks"]
    )
    for file in DOCS:
        named = re.findall(r"(?<![\w.])(?:openclaw_(?:egress|proxy|gateway)|loki_otlp)_\w+", without_metrics(file))
        assert set(named) - known == set(), file.name


def without_metrics(file: Path) -> str:
    """Return the document without names of metrics, Loki's names of attributes, and groups of the inventory."""
    text = re.sub(r"```logql.*?```", "", file.read_text(), flags=re.DOTALL)
    return re.sub(r"openclaw_egress[_.](?!home|state_dir|compose_dir|owner|inner|verify|keep|put|rollout)\w+", "", text)


def test_every_setting_of_the_guides_exists() -> None:
    known = {
        str(choice)
        for field in Settings.model_fields.values()
        if isinstance(field.validation_alias, AliasChoices)
        for choice in field.validation_alias.choices
    }
    for file in DOCS:
        assert set(re.findall(r"\b(?:EGRESS|PROXY)_[A-Z][A-Z_]*[A-Z]\b", file.read_text())) - known == set(), file.name


def test_policy_of_the_standalone_guide_is_valid() -> None:
    policy = STANDALONE.partition("<<'END'\n")[2].partition("END\n")[0]
    assert read_policy(policy.encode(), "policy.yml").warnings == ()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_unit_of_the_standalone_guide_is_valid(tmp_path: Path) -> None:
    # `systemd-analyze verify` requires that the program exists.
    unit = blocks(STANDALONE, "ini")[0].replace("/opt/openclaw-egress/bin/egress", sys.executable)
    file = tmp_path / "openclaw-egress.service"
    file.write_text(unit)
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_index_of_the_documents_names_each_document() -> None:
    index = (ROOT / "docs/README.md").read_text()
    assert [file.name for file in DOCS if file.name != "README.md" and f"]({file.name})" not in index] == []
