"""Tests of the `egress` command: its output, its errors, and the escaping of text from traffic."""

import base64
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openclaw_egress.advice.suggest import SuggestionError
from openclaw_egress.certificates import CAError
from openclaw_egress.cli.app import app
from openclaw_egress.errors import EgressError
from openclaw_egress.llm.model import RequestFacts, ResponseFacts, Usage
from openclaw_egress.observability.health import HealthError
from openclaw_egress.policy.cases import CasesError, load_cases
from openclaw_egress.policy.codes import Code, summary
from openclaw_egress.policy.yaml_reader import FileError
from openclaw_egress.recording.records import Body, DeniedRecord, EventRecord, ExchangeRecord
from openclaw_egress.reports.text import escape
from openclaw_egress.settings import SettingsError
from openclaw_egress.spool.schema import SpoolError
from openclaw_egress.spool.writer import Spool
from tests.support.egress_command import run_egress

EVIL = "gpt\x1b[31m\u202e\nX-Injected: 1\x07"
POLICY = """\
version: 1
inspect: [api.anthropic.com]
classes:
  gateway: {listen: 8080, action: open}
  sandbox: {listen: 8082, action: enforce, allow: [{host: packages.example.com, ports: [443]}]}
"""


def exchange(name: str, **changes: object) -> ExchangeRecord:
    known: dict = {
        "id": name,
        "class_name": "gateway",
        "method": "POST",
        "url": "https://api.anthropic.com/v1/messages",
        "host": "api.anthropic.com",
        "port": 443,
        "begin_ns": 1_000_000_000,
        "end_ns": 1_500_000_000,
        "status": 200,
        "request_headers": [("x-api-key", "[redacted]"), ("accept", "a"), ("accept", "b")],
        "request_body": Body.of(b'{"model":"claude-opus-5"}'),
        "response_body": Body.of(b'{"id":"msg_1"}'),
        "request_facts": RequestFacts(provider_name="anthropic", model="claude-opus-5", stream=False),
        "response_facts": ResponseFacts(usage=Usage(input_tokens=11, output_tokens=7)),
    }
    return ExchangeRecord(**known | changes)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state directory with a few records."""
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(EventRecord(event_name="openclaw.egress.policy", message="policy loaded"))
        for number, changes in enumerate(
            (
                {},
                {
                    "status": 429,
                    "request_facts": RequestFacts(provider_name="openai", model="gpt-6"),
                    "host": "api.openai.com",
                },
                {"class_name": "browser", "status": 529},
            )
        ):
            record = exchange(f"{number}aaaaaaa-exchange", **changes)
            spool.open_exchange(record.id, record.class_name, {})
            spool.close_exchange(record)
        spool.add(
            DeniedRecord(
                class_name="sandbox",
                host="www.example.com",
                port=443,
                rule="default",
                code=Code.NO_RULE,
                reason="no rule lets it",
            )
        )
    return tmp_path


@pytest.fixture
def egress(state: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs the command in this process and returns its exit code and output."""
    monkeypatch.setenv("EGRESS_STATE_DIR", str(state))
    monkeypatch.setenv("EGRESS_HEALTH_PORT", "1")

    def call(*words: str):
        return CliRunner().invoke(app, [*words])

    return call


def lines(result) -> list[dict]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_table_lists_exchanges_and_denials_newest_last(egress):
    result = egress("records")
    rows = result.stdout.splitlines()
    assert rows[0].split()[:6] == ["time", "class", "client", "method", "host", "model"]
    assert len(rows) == 5
    assert "claude-opus-5" in rows[1] and "0aaaaaaa" in rows[1] and "0.50 s" in rows[1]
    assert "denied" in rows[4] and "no rule lets it" in rows[4]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--model", "gpt-*"], ["1aaaaaaa"]),
        (["--class", "browser"], ["2aaaaaaa"]),
        (["--status", "429"], ["1aaaaaaa"]),
        (["--status", "4xx"], ["1aaaaaaa"]),
        (["--status", "500-599"], ["2aaaaaaa"]),
        (["--host", "api.openai.com"], ["1aaaaaaa"]),
        (["--event", "exchange", "--limit", "1"], ["2aaaaaaa"]),
        (["--since", "1h", "--event", "exchange"], ["0aaaaaaa", "1aaaaaaa", "2aaaaaaa"]),
        (["--until", "1h"], []),
        (["--since", "2020-01-01T00:00", "--until", "2020-01-02"], []),
    ],
)
def test_records_are_filtered_by_each_option(egress, options, found):
    result = egress("records", "--json", *options)
    assert [row["id"][:8] for row in lines(result)] == found


@pytest.mark.parametrize(
    "options",
    [["--status", "abc"], ["--since", "yesterday"], ["--event", "nothing"], ["--limit", "0"], ["--nonsense"],
        ["--since", "99999999999d"], ["--since", "1969-12-31"], ["--until", "9999-12-31"]],
)  # fmt: skip
def test_invalid_option_is_refused(egress, options):
    result = egress("records", *options)
    assert result.exit_code == 2
    assert options[0].lstrip("-") in result.stderr


def test_json_lines_have_names_that_programs_can_rely_on(egress):
    row = lines(egress("records", "--json", "--model", "claude-opus-5", "--class", "gateway"))[0]
    assert row["class"] == "gateway" and row["input_tokens"] == 11 and row["time"].endswith("Z")
    assert "error_type" not in row


def test_missing_spool_is_reported_in_one_message(tmp_path):
    done = run_egress("records", environment=environment_of(tmp_path / "nothing"))
    assert done.returncode == 2
    assert done.stderr.startswith("egress: spool ") and "the file does not exist yet" in done.stderr


# ── show ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_exchange_is_shown_by_a_prefix_of_its_id(egress):
    text = egress("show", "0aaa").stdout
    for part in (
        "11 in, 7 out",
        "POST https://api.anthropic.com/v1/messages",
        "x-api-key: [redacted]",
        "accept: b",
        '"msg_1"',
    ):
        assert part in text


def test_show_prints_an_exchange_as_json(egress):
    (found,) = lines(egress("show", "0aaa", "--json"))
    assert found["usage_details"] == {}
    assert found["record"]["status"] == 200 and found["exchange"]["response"]["body"] == '{"id":"msg_1"}'


@pytest.mark.parametrize(("name", "said"), [("nope", "no exchange ID starts with"), ("", "start with")])
def test_unknown_or_ambiguous_id_is_refused(egress, name, said):
    result = egress("show", name)
    assert result.exit_code == 1 and said in result.stderr


@pytest.mark.parametrize("damage", [b"\x00\xff", "text"])
def test_damaged_exchange_is_reported_in_one_message(state, egress, damage):
    with sqlite3.connect(state / "spool.db") as database:
        database.execute("UPDATE records SET otlp = ? WHERE exchange_id LIKE '0aaa%'", (damage,))
    result = egress("show", "0aaa")
    assert result.exit_code == 2
    assert "is damaged in the spool" in result.stderr and "Traceback" not in result.output


def test_parts_are_assembled_and_binary_bodies_are_described(state, egress):
    with Spool(state / "spool.db", sync_seconds=None, local=True) as spool:
        for name, body in (("long", b"y" * 900_000), ("bytes", b"\xff\xfe\x00")):
            spool.open_exchange(name, "gateway", {})
            spool.close_exchange(exchange(name, response_body=Body.of(body)))
    assert "y" * 900_000 in egress("show", "long").stdout
    assert f"(base64 of 3 bytes)\n│ {base64.b64encode(b'\xff\xfe\x00').decode()}" in egress("show", "bytes").stdout


# ── text from traffic ────────────────────────────────────────────────────────────────────────────────────────────


def test_control_characters_are_escaped(state, egress):
    with Spool(state / "spool.db", sync_seconds=None, local=True) as spool:
        record = exchange(
            "evil", request_facts=RequestFacts(model=EVIL), url=f"https://h/{EVIL}", host=EVIL,
            response_body=Body.of(EVIL.encode()), request_headers=[(EVIL, EVIL)],
        )  # fmt: skip
        spool.open_exchange("evil", "gateway", {})
        spool.close_exchange(record)
    for words in (["records"], ["show", "evil"], ["records", "--json"], ["show", "evil", "--json"]):
        output = egress(*words).stdout
        assert not set(output) & {"\x1b", "\u202e", "\x07"}, words
    assert "\\x1b[31m" in egress("records").stdout


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\n", "a\\x09b\\x0a"),
        ("\u2066x", "\\u2066x"),
        ("é✓ ok", "é✓ ok"),
        ("\U000e0041", "\\U000e0041"),
        ("\x9b", "\\x9b"),
    ],
)
def test_text_from_traffic_is_escaped_for_terminals(text, shown):
    assert escape(text) == shown


def test_line_ends_are_kept_on_request():
    assert escape("a\n\tb\r", lines=True) == "a\n\tb\\x0d"


# ── denials ──────────────────────────────────────────────────────────────────────────────────────────────────────


def deny(state: Path, *changes: dict) -> None:
    """Record one denial per item of ``changes``, which overrides fields of a reported denial of class sandbox."""
    known = {
        "class_name": "sandbox", "port": 443, "rule": "default", "code": Code.NO_RULE, "reason": "no rule",
        "enforced": False,
    }  # fmt: skip
    with Spool(state / "spool.db", sync_seconds=None, local=True) as spool:
        for change in changes:
            spool.add(DeniedRecord(**known | change))


def test_denials_are_counted_and_have_a_remedy(egress, state):
    guarded = {
        "host": "10.0.0.2", "port": 3100, "rule": "address-guard", "reason": "10.0.0.2 is private", "enforced": True,
        "code": Code.ADDRESS_GUARDED, "address": "10.0.0.2",
    }  # fmt: skip
    deny(
        state,
        {"host": "packages.example.com"},
        {"host": "packages.example.com", "count": 41, "reason": summary(41), "summary": True},
        guarded,
        guarded,
        {"host": "*", "port": 0, "rule": "*", "count": 7, "reason": summary(7), "summary": True},
    )
    result = egress("denials")
    assert result.exit_code == 0
    # Ignore lines that do not begin with a number: they continue the last column of the previous line.
    rows = [line.split() for line in result.stdout.splitlines() if line.split()[0].isdigit()]
    said = " ".join(result.stdout.split())
    assert [row[0] for row in rows] == ["42", "7", "2", "1"]
    assert [row[4] for row in rows] == ["packages.example.com:443", "*", "10.0.0.2:3100", "www.example.com:443"]
    assert [row[6] for row in rows] == ["reported", "reported", "refused", "refused"]
    assert "classes.sandbox.allow: {host: packages.example.com, ports: [443]}" in said
    assert "classes.sandbox.allow: {host: 10.0.0.2, ports: [3100]} and" in said
    assert "classes.sandbox.addresses: {cidr: 10.0.0.2/32, ports: [3100]}" in said


def test_denials_as_json(egress, state):
    deny(state, {"host": "www.example.com"})
    (found,) = lines(egress("denials", "--json", "--class", "sandbox"))
    assert found.pop("last").endswith("Z")
    assert found == {
        "class": "sandbox",
        "clients": [],
        "destination": "www.example.com:443",
        "host": "www.example.com",
        "port": 443,
        "rule": "default",
        "code": "no_rule",
        "reason": "no rule",
        "count": 2,
        "enforced": 1,
        "reported": 1,
        "allow": [
            {
                "under": "classes.sandbox.allow",
                "rule": {"host": "www.example.com", "ports": [443]},
                "text": "{host: www.example.com, ports: [443]}",
            }
        ],
        "advice": "",
    }


def test_denials_and_records_are_filtered_by_code(egress, state):
    deny(state, {"host": "git.example", "port": 22, "rule": "syntax", "code": Code.NOT_TLS})
    assert [row["host"] for row in lines(egress("denials", "--json", "--code", "not_tls"))] == ["git.example"]
    assert [row["host"] for row in lines(egress("records", "--json", "--code", "no_rule"))] == ["www.example.com"]
    assert [row["code"] for row in lines(egress("records", "--json", "--event", "denied"))] == ["no_rule", "not_tls"]
    for command in ("denials", "records", "tail"):
        refused = egress(command, "--code", "no rule")
        assert refused.exit_code == 2 and "docs/codes.md lists all" in refused.stderr


def test_denials_are_filtered_by_class_and_time(egress, state):
    deny(state, {"host": "a.example", "class_name": "browser"})
    assert [row["class"] for row in lines(egress("denials", "--json", "--class", "browser"))] == ["browser"]
    result = egress("denials", "--since", "0s", "--class", "nobody")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "egress: nothing of class nobody was denied since 0s\n"
    assert egress("denials", "--since", "yesterday").exit_code == 2


def test_denied_destinations_are_escaped(egress, state):
    deny(state, {"host": EVIL, "rule": "syntax", "reason": EVIL, "class_name": "sand\x1bbox"})
    for words in (["denials"], ["denials", "--json"]):
        assert not set(egress(*words).stdout) & {"\x1b", "\u202e", "\x07"}


# ── policy ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def policy(tmp_path, monkeypatch) -> Path:
    file = tmp_path / "policy.yml"
    file.write_text(POLICY)
    monkeypatch.setenv("EGRESS_POLICY_FILE", str(file))
    return file


def test_valid_policy_is_reported_as_valid(egress, policy):
    result = egress("policy", "check")
    assert (
        result.exit_code == 0
        and "the policy is valid" in result.stdout
        and "packages.example.com; port 443" in result.stdout
    )
    (found,) = lines(egress("policy", "check", "--json"))
    assert found["classes"]["sandbox"] == {"listen": 8082, "action": "enforce", "inspected": []}
    assert found["classes"]["gateway"]["inspected"] == ["api.anthropic.com"]


@pytest.mark.wording
def test_invalid_policy_is_reported_with_file_line_and_remedy(tmp_path):
    file = tmp_path / "policy.yml"
    file.write_text(POLICY.replace("enforce", "enfroce"))
    done = run_egress("policy", "check", str(file), environment=environment_of(tmp_path))
    assert done.returncode == 2
    assert f"{file}:5: " in done.stderr and "enforce" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["sandbox", "https://packages.example.com/x"], 0, "tunnelled"),
        (["sandbox", "https://www.example.com"], 1, "no rule lets sandbox reach www.example.com:443"),
        (["gateway", "https://api.anthropic.com"], 0, "decrypted and recorded"),
        (["gateway", "http://0x7f.1/"], 1, "loopback"),
        (["gateway", "169.254.169.254:80"], 1, "metadata"),
        (["gateway", "https://[::1]/"], 1, "loopback"),
        (["nobody", "https://example.com"], 2, "there is no class nobody"),
        (["gateway", "https://"], 2, "has no host"),
        (["gateway", "https://[::1"], 2, "IPv6"),
        (["gateway", "https://example.com:99999"], 2, "ort"),
    ],
)
@pytest.mark.wording
def test_explain_prints_decision_rule_and_reason(egress, policy, words, code, said):
    result = egress("policy", "explain", *words)
    assert result.exit_code == code, result.output
    assert said in result.stdout + result.stderr


def test_explain_prints_the_decision_as_json(egress, policy):
    result = egress("policy", "explain", "sandbox", "https://www.example.com", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["rule"] == "default"


CASES = """\
# what the sandbox is for
- {class: sandbox, url: "https://packages.example.com/simple/", expect: allow}
- {class: sandbox, url: "https://www.example.com/", expect: deny, rule: default}
- class: gateway
  url: http://0x7f.1/
  expect: deny
  rule: address-guard
- {class: gateway, url: "https://api.anthropic.com/v1/messages", method: POST, expect: allow}
"""


@pytest.fixture
def cases(tmp_path):
    """Return a function that writes test cases for a policy to a file and returns the path of the file."""

    def write(text: str) -> str:
        file = tmp_path / "cases.yml"
        file.write_text(text)
        return str(file)

    return write


def test_policy_test_passes_if_all_cases_match(egress, policy, cases):
    result = egress("policy", "test", cases(CASES))
    assert (result.exit_code, result.stdout) == (0, "4 passed, 0 failed\n")


@pytest.mark.wording
def test_failed_case_is_reported_with_place_expectation_decision_and_rule(egress, policy, cases):
    file = cases(CASES.replace("expect: allow", "expect: deny", 1).replace("rule: default", "rule: address-guard"))
    result = egress("policy", "test", file)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{file}:2: sandbox GET https://packages.example.com/simple/: expected deny, "
        "but allowed by classes.sandbox.allow[0]: sandbox may reach packages.example.com:443",
        f"{file}:3: sandbox GET https://www.example.com/: expected deny by address-guard, "
        "but denied by default: no rule lets sandbox reach www.example.com:443",
        "2 passed, 2 failed",
    ]
    found = json.loads(egress("policy", "test", file, "--json").stdout)
    assert (found["passed"], found["failed"]) == (2, 2)
    assert found["cases"][1] == {
        "line": 3,
        "class": "sandbox",
        "method": "GET",
        "url": "https://www.example.com/",
        "passed": False,
        "expect": "deny",
        "expect_rule": "address-guard",
        "allow": False,
        "rule": "default",
        "reason": "no rule lets sandbox reach www.example.com:443",
        "would_deny": False,
    }


@pytest.mark.wording
def test_cases_use_method_path_and_fixed_addresses_without_a_lookup(egress, policy, cases, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("the command resolved a name"))
    other = policy.with_name("other.yml")
    other.write_text(
        "version: 1\ninspect: [api.openai.com]\nresolve: {llm.example: 10.1.2.3}\nclasses:\n"
        "  a: {listen: 1, action: enforce, allow: [{host: api.openai.com, methods: [post], paths: ['/v1/*']}]}\n"
        "  b: {listen: 2, action: report, allow: [llm.example]}\n"
    )
    file = cases(
        '- {class: a, url: "https://api.openai.com/v1/responses", method: POST, expect: allow}\n'
        '- {class: a, url: "https://api.openai.com/v1/responses", expect: deny}\n'
        '- {class: a, url: "https://api.openai.com/v2/x", method: POST, expect: deny}\n'
        "- {class: b, url: llm.example:443, expect: deny, rule: address-guard}\n"
        "- {class: b, url: www.example.com:443, expect: deny}\n"
    )
    result = egress("policy", "test", file, "--policy", str(other))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{file}:5: b GET www.example.com:443: expected deny, but allowed (report only: enforce would deny it) "
        "by default: no rule lets b reach www.example.com:443",
        "4 passed, 1 failed",
    ]


CASE = "class: sandbox, url: 'https://a.example/', expect: deny"


@pytest.mark.wording
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: the file is empty; write a list of cases, as in "),
        ("[]\n", "1: the file contains no test case; add one, as in "),
        ("cases: []\n", "1: the value is a mapping; write a list, as in "),
        ("- {class: sandbox, url: a, expect: deny\n", "2: the file is not valid YAML"),
        ("\n- a\n", "2: [0]: the value is a string; write a mapping, as in "),
        (f"- {{{CASE}, expct: deny}}\n", "1: [0]: unknown key 'expct'; did you mean 'expect'?"),
        ("- {url: a, expect: deny}\n", "1: [0]: 'class' is missing; add the class of the client"),
        ("- class: sandbox\n  expect: deny\n", "1: [0]: 'url' is missing; add the requested URL"),
        ("- class: sandbox\n  url: https://a.example\n", "1: [0]: 'expect' is missing; write the expected decision"),
        (f"- {{{CASE}}}\n- class: sandbx\n  url: a\n  expect: deny\n",
            "2: [1].class: 'sandbx' is not a class of this policy; did you mean 'sandbox'?"),
        (f"- {{{CASE.replace('deny', 'denied')}}}\n",
            "1: [0].expect: 'denied' is not a decision; did you mean 'deny'?"),
        ("- {class: sandbox, url: 'https://', expect: deny}\n",
            "1: [0].url: not a valid URL (https:// has no host; write https://host/path or host:port); "),
        ("- {class: sandbox, url: 443, expect: deny}\n", "1: [0].url: the value is a number; write a string, as in "),
    ],
)  # fmt: skip
def test_invalid_cases_are_reported_with_file_line_and_remedy(cases, text, said):
    file = cases(text)
    with pytest.raises(CasesError) as refused:
        load_cases(Path(file), ["gateway", "sandbox"])
    assert str(refused.value).startswith(f"{file}:{said}")


@pytest.mark.wording
def test_missing_cases_file_is_reported_in_one_message(policy, state):
    environment = environment_of(state, EGRESS_POLICY_FILE=str(policy))
    done = run_egress("policy", "test", "/nowhere/cases.yml", environment=environment)
    assert done.returncode == 2
    assert done.stderr == (
        "egress: /nowhere/cases.yml: the file of cases cannot be read (No such file or directory); "
        "check the path and its permissions\n"
    )


REPORTING = POLICY.replace("enforce", "report")


@pytest.fixture
def reporting(policy) -> Path:
    """Set the action of class sandbox to `report`. Return the policy file."""
    policy.write_text(REPORTING)
    return policy


@pytest.mark.wording
def test_suggest_prints_a_diff_for_a_class_in_report(egress, reporting, state):
    deny(state, {"host": "a.example"}, {"host": "b.internal", "port": 9000}, {"host": "localhost"})
    result = egress("policy", "suggest", "sandbox")
    assert result.exit_code == 0
    line = "  sandbox: {listen: 8082, action: report, allow: [{host: packages.example.com, ports: [443]}"
    assert result.stdout == (
        "--- policy.yml\n+++ policy.yml\n@@ -2,4 +2,6 @@\n inspect: [api.anthropic.com]\n classes:\n"
        f"   gateway: {{listen: 8080, action: open}}\n-{line}]}}\n+{line},\n"
        "+      {host: a.example, ports: [443]},\n+      {host: b.internal, ports: [9000]}]}\n"
    )
    assert result.stderr == "egress: left out: localhost:443: localhost is loopback (RFC 6761)\n"
    assert reporting.read_text() == REPORTING


def test_suggest_prints_the_rules_as_json(egress, reporting, state):
    deny(state, {"host": "a.example", "port": 80}, {"host": "a.example"}, {"host": "*", "port": 0, "count": 3})
    (found,) = lines(egress("policy", "suggest", "sandbox", "--json"))
    assert found["class"] == "sandbox"
    assert found["rules"] == [{"host": "a.example", "ports": [80, 443]}]
    assert found["left_out"] == {} and found["notes"][0].startswith("3 more requests were counted")
    assert found["diff"].startswith("--- policy.yml\n")


def test_suggest_without_a_result_prints_one_message_and_exits_with_1(egress, policy):
    result = egress("policy", "suggest", "sandbox")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing to suggest" in result.stderr and "its action is enforce" in result.stderr
    result = egress("policy", "suggest", "sandbox", "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["rules"] == []


def test_suggest_uses_only_the_requested_time(egress, reporting, state):
    deny(state, {"host": "a.example"})
    assert egress("policy", "suggest", "sandbox", "--since", "2100-01-01").exit_code == 1


def test_suggestion_requires_a_class_and_a_policy_file(egress, reporting, state, monkeypatch):
    deny(state, {"host": "a.example"})
    result = egress("policy", "suggest", "nobody")
    assert result.exit_code == 2 and "there is no class nobody" in result.stderr
    reporting.write_text(REPORTING.replace("allow: [", "allow: &a [") + "  z: {listen: 1, action: open, allow: *a}\n")
    result = egress("policy", "suggest", "sandbox")
    assert result.exit_code == 2 and result.stdout == ""
    assert "write them under classes.sandbox.allow:\n  - {host: a.example, ports: [443]}" in result.stderr
    monkeypatch.delenv("EGRESS_POLICY_FILE")
    result = egress("policy", "suggest", "gateway")
    assert result.exit_code == 2 and "there is no policy file to change" in result.stderr


def test_groups_are_listed_within_80_columns_and_as_json(egress):
    text = egress("policy", "groups").stdout
    assert "\n@google: generativelanguage.googleapis.com," in text
    assert max(map(len, text.splitlines())) <= 80
    (found,) = lines(egress("policy", "groups", "--json"))
    assert found["anthropic"] == ["api.anthropic.com"] and len(found["bedrock"]) > 30
    assert set(found["all"]) == {host for name, hosts in found.items() if name != "all" for host in hosts}


def test_checked_policy_names_the_hosts_of_its_groups(egress, monkeypatch):
    monkeypatch.setenv("PROXY_LLM_HOSTS", "@all")
    text = egress("policy", "check").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "bedrock-runtime.eu-west-1.amazonaws.com," in text.split()


def test_schema_command_prints_the_json_schema(egress):
    result = egress("policy", "schema")
    assert (result.exit_code, json.loads(result.stdout)["additionalProperties"]) == (0, False)


# ── ca, status, health ───────────────────────────────────────────────────────────────────────────────────────────


def test_ca_is_created_once_and_can_be_shown(egress, tmp_path):
    assert egress("ca", "create").stdout == "created\n"
    assert egress("ca", "create").stdout == "unchanged\n"
    assert egress("ca", "create", "--renew").stdout == "created\n"
    assert "api.anthropic.com, api.openai.com" in egress("ca", "show").stdout
    (found,) = lines(egress("ca", "show", "--json"))
    assert found["names"] == ["api.anthropic.com", "api.openai.com"]


def test_status_without_a_proxy_reports_the_spool_and_exits_with_1(egress):
    egress("ca", "create")
    result = egress("status")
    assert result.exit_code == 1 and "not running" in result.stdout and "5 lines kept" in result.stdout
    result = egress("status", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["running"] is False and found["spool"]["pending_records"] == 0


def test_status_reports_an_unreadable_part_and_continues(egress, state):
    egress("ca", "create")
    (state / "spool.db").write_bytes(b"no database" * 1000)
    result = egress("status", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["spool"] is None and found["ca"]["root_sha256"]
    assert "spool.db" in found["problems"][0]
    (state / "ca" / "mitmproxy-ca.pem").write_text("no certificate")
    result = egress("status")
    assert result.exit_code == 1 and result.stdout.count("\nproblem ") == 2, result.stdout


@pytest.mark.parametrize("answer", [b"<html>", b'{"status": "up"}', b"\xff\xfe"])
def test_another_server_on_the_health_port_is_not_reported_as_the_proxy(egress, monkeypatch, answer):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("EGRESS_HEALTH_PORT", str(server.server_port))
        assert "no proxy responds" in egress("status").stdout
        server.shutdown()


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "files" / "addon")}
HEALTH_ALONE = """
import sys
sys.argv = ["egress", "health"]
try:
    from openclaw_egress.cli import main
    main()
except SystemExit:
    print([name for name in ("pydantic", "rich", "typer", "mitmproxy") if name in sys.modules])
"""


def environment_of(state: Path, **variables: str) -> dict[str, str]:
    return ENVIRONMENT | {"EGRESS_STATE_DIR": str(state), "EGRESS_HEALTH_PORT": "1"} | variables


def process(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "openclaw_egress", *words],
        env=environment_of(state),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_health_fails_without_a_proxy_and_imports_no_other_command(tmp_path):
    done = process(tmp_path, "health")
    assert done.returncode == 1 and "the proxy is not running" in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", HEALTH_ALONE],
        env=ENVIRONMENT | {"EGRESS_HEALTH_PORT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_egress_run_imports_only_the_add_ons_that_it_uses():
    script = """
import sys
from openclaw_egress.app import launcher
from mitmproxy.master import Master
print([name for name in ("flask", "ldap3", "mitmproxy.addons.script") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_closed_pipe_ends_the_command_quietly(state):
    command = f"{sys.executable} -m openclaw_egress records --json | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"for i in $(seq 3); do {command}; done"],
        env=ENVIRONMENT | {"EGRESS_STATE_DIR": str(state)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 3


def test_tail_prints_the_newest_records_and_then_new_ones(state):
    environment = ENVIRONMENT | {"EGRESS_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "openclaw_egress", "tail", "--json", "-n", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["event_name"] == "openclaw.egress.denied"
        time.sleep(0.5)
        with Spool(state / "spool.db", sync_seconds=None, local=True) as spool:
            spool.open_exchange("new", "gateway", {})
            spool.close_exchange(exchange("new"))
        assert json.loads(following.stdout.readline())["id"] == "new"
        following.terminate()


def test_output_has_no_colours_without_a_terminal(state):
    assert "\x1b" not in process(state, "records").stdout


def test_every_operator_error_is_printed_without_a_traceback():
    for error in (CAError, FileError, HealthError, SettingsError, SpoolError, SuggestionError):
        assert issubclass(error, EgressError)
    done = process(Path("/dev/null"), "run")
    assert done.returncode == 2 and done.stderr.startswith("egress: ") and "Traceback" not in done.stderr


def test_records_denials_and_show_name_the_gateway_instance(egress, state):
    with Spool(state / "spool.db", sync_seconds=None, local=True) as spool:
        for name in ("a", "b"):
            record = exchange(f"exchange-{name}", class_name=f"gateway-{name}", instance=f"gw-{name}")
            spool.open_exchange(record.id, record.class_name, {})
            spool.close_exchange(record)
            spool.add(
                DeniedRecord(
                    class_name=f"sandbox-{name}",
                    instance=f"gw-{name}",
                    host=f"{name}.example",
                    port=443,
                    rule="default",
                    code="no_rule",
                    reason="why",
                )
            )
    rows = [json.loads(line) for line in egress("records", "--instance", "gw-b", "--json").stdout.splitlines()]
    assert [(row["class"], row["instance"]) for row in rows] == [("gateway-b", "gw-b"), ("sandbox-b", "gw-b")]
    assert "gw-b" in egress("show", "exchange-b").stdout
    denied = egress("denials", "--instance", "gw-a", "--since", "2000-01-01", "--json").stdout
    assert [json.loads(line)["class"] for line in denied.splitlines()] == ["sandbox-a"]
    assert "no matching records" in egress("records", "--instance", "gw-c").output
