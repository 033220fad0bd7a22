"""Tests that messages contain only existing commands, options and variables, and never advise less protection."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from openclaw_egress.cli.app import app
from openclaw_egress.settings import Settings

ROOT = Path(__file__).parents[2]
PLACES = (
    "README.md",
    "CHANGELOG.md",
    "changelogs/fragments",
    "CONTRIBUTING.md",
    "docs/operations.md",
    "roles",
    "playbooks",
    "plugins",
    "files",
    "molecule",
    "tools/demo.py",
)
ENDINGS = (".md", ".py", ".yml", ".j2", ".cjs", ".sh", ".json")
SKIPPED = ("__pycache__", "collections", "node_modules")


def texts() -> list[tuple[str, str]]:
    found = []
    for place in PLACES:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            inside = file.relative_to(ROOT)
            if file.suffix in ENDINGS and file.is_file() and not set(SKIPPED) & set(inside.parts):
                found.append((str(inside), file.read_text(encoding="utf-8", errors="replace")))
    return found


TEXTS = texts()


def commands() -> list[tuple[str, str]]:
    """Return (file, command line) for each `egress` command that the project's files mention."""
    found = []
    for name, text in TEXTS:
        joined = re.sub(r'"\s*\n\s*f?"|\n\s*(?:#\s*)?', " ", text)
        found += [(name, words) for words in re.findall(r"`egress ([a-z][^`]*)`", joined)]
        found += [(name, words) for words in re.findall(r"openclaw-proxy\s+egress ([a-z][^`|&;'\"\n]*)", text)]
        found += [(name, words) for words in re.findall(r"^\s+(?:\$ )?egress ([a-z][^\n]*)$", text, re.MULTILINE)]
        found += [(name, words.replace(",", " ")) for words in re.findall(r"\[(?:CMD, )?egress, ([^\]]*)\]", text)]
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("| command | what for |")[2].partition("\n\n")[0]
    found += [("README.md", words) for words in re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)]
    demo = (ROOT / "tools" / "demo.py").read_text().partition("for words in (")[2].partition("):")[0]
    found += [("tools/demo.py", words) for words in re.findall(r'"([^"]+)"', demo)]
    return found


def unknown_in(words: str) -> str | None:
    """Return the first subcommand or option in an `egress` command line that does not exist, or None."""
    command: Any = typer.main.get_command(app)
    try:
        line = shlex.split(words.replace("…", " "))
    except ValueError:
        line = words.split()
    for word in line:
        if word.startswith("-") and word != "-":  # A single hyphen means standard input.
            known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
            if word.split("=")[0] not in known | {"--help", "-h"}:
                return word
        elif hasattr(command, "get_command"):  # a command group of click, or of typer's copy of click
            alternatives = [command.get_command(None, name) for name in word.split("|")]
            if None in alternatives:
                return word
            command = alternatives[0]
    return None


def test_search_finds_commands_in_a_text():
    assert len({words for _, words in commands()}) > 20
    assert unknown_in("dead-letters list") == "dead-letters" and unknown_in("records --nonsense") == "--nonsense"
    assert unknown_in("policy check|nothing") == "check|nothing"


@pytest.mark.parametrize(("file", "words"), sorted(set(commands())))
def test_every_command_in_a_text_exists(file, words):
    assert unknown_in(words) is None, f"{file}: `egress {words}`"


def test_every_environment_variable_in_a_message_exists():
    known = {str(name) for field in Settings.model_fields.values() for name in field.validation_alias.choices}
    said = {
        (name, file)
        for file, text in TEXTS
        if file.startswith("files/addon") or file in ("README.md", "CHANGELOG.md")
        for name in re.findall(r"\b(?:EGRESS|PROXY)_[A-Z][A-Z_]*[A-Z]\b", text)
    }
    assert {name for name, _ in said} >= {"EGRESS_POLICY_FILE", "EGRESS_LISTEN_HOST"}
    assert {(name, file) for name, file in said if name not in known} == set()


def ansible_variables() -> set[str]:
    found: set[str] = set()
    for role in (ROOT / "roles").iterdir():
        for file in ("meta/argument_specs.yml", "defaults/main.yml"):
            path = role / file
            if path.exists():
                found |= set(re.findall(r"^\s*([a-z_]+):", path.read_text(), re.MULTILINE))
    return found


def test_every_ansible_variable_in_a_remedy_exists():
    known = ansible_variables()
    assert "openclaw_proxy_policy" in known
    said = set()
    for file, text in TEXTS:
        if file.endswith(".md"):
            parts = re.findall(r"`([^`]*)`", text)
        elif file.startswith("roles/") and file.endswith(".yml"):
            parts = messages(yaml.load(text, Loader=Lenient))
        elif file.startswith(("plugins/", "files/addon")):
            parts = [text]
        else:
            continue
        for part in parts:
            names = re.findall(
                r"(?<![\w.])(?:openclaw_(?:proxy|gateway|egress)|loki_otlp)_[a-z_]*[a-z]\b(?![*_])", part
            )
            said |= {(name, file) for name in names}
    files = {path.stem for path in (*(ROOT / "roles").iterdir(), *(ROOT / "plugins").rglob("*.py"))}
    strange = {(name, file) for name, file in said if name not in known | files | KNOWN_ELSEWHERE}
    assert strange == set()


KNOWN_ELSEWHERE = {
    "openclaw_egress_class",  # This name and the next one are Loki labels.
    "openclaw_egress_exchange_id",
    "openclaw_egress_spool_refusing",  # This name and the next two are metrics.
    "openclaw_egress_denied_total",
    "openclaw_egress_policy_last_reload_successful",
    "openclaw_egress_install",  # This name and the next five are shell names in patched build scripts.
    "openclaw_egress_name",
    "openclaw_egress_new",
    "openclaw_egress_root",
    "openclaw_egress_write",
    "openclaw_egress_status",
    "openclaw_egress_keep_spool",  # a variable of the playbook rollback.yml
    "openclaw_proxy_install",  # This name and the next one are Ansible tags.
    "openclaw_gateway_install",
}


class Lenient(yaml.SafeLoader):
    """A YAML loader that reads a value with an Ansible tag, such as `!unsafe`, as text."""


Lenient.add_multi_constructor("!", lambda loader, _, node: loader.construct_scalar(node))


def messages(value, inside: bool = False) -> list[str]:
    """Return the messages for operators in a YAML value. Remove Jinja expressions from them."""
    if isinstance(value, dict):
        spoken = ("msg", "fail_msg", "success_msg", "otherwise", "description")
        return [
            text
            for key, item in value.items()
            for text in messages(item, inside or key in spoken or "needs" in str(key))
        ]
    if isinstance(value, list):
        return [text for item in value for text in messages(item, inside)]
    return [re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", value, flags=re.DOTALL)] if inside and isinstance(value, str) else []


# Matches advice that would remove or weaken a protection.
WEAKER = re.compile(
    r"unset EGRESS_POLICY_FILE|EGRESS_OPEN_TO_NETWORK=|chmod (?:-R )?[0-7]*777|ssl_insecure=true|--ssl-insecure"
    r"|NODE_TLS_REJECT_UNAUTHORIZED|verify=False|StrictHostKeyChecking=no|--privileged\b.*(?:use|run|add)"
    r"|set (?:its )?action (?:to )?open"
    r"|(?:disable|turn off|switch off|stop) (?:the )?(?:firewall|ufw|verification|guard|policy)",
    re.IGNORECASE,
)


def test_no_message_advises_to_remove_a_protection():
    found = [
        (file, match[0]) for file, text in TEXTS if not file.startswith("molecule") for match in WEAKER.finditer(text)
    ]
    assert found == []
