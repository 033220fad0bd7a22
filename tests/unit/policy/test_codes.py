"""Tests of the denial codes. Each must have a name in snake case, a reason text, and an entry in the documentation."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from openclaw_egress.policy import codes
from openclaw_egress.policy.codes import Code, Evidence
from openclaw_egress.policy.destination import parse_destination

DOCUMENT = Path(__file__).parents[3] / "docs" / "codes.md"
EVIDENCE = Evidence(
    "sandbox",
    parse_destination("a.example", 443),
    other=parse_destination("b.example", 443),
    address=ip_address("10.1.2.3"),
    network=ip_network("10.0.0.0/8"),
    range="private (10.0.0.0/8, RFC 1918)",
    rule="classes.sandbox.allow[0]",
    allows="b.example; port 443",
    limit="headers",
    most=7,
    detail="what a parser said {0.most}",
)


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_sentence_with_and_without_evidence(code):
    for evidence in (EVIDENCE, codes.NOTHING):
        assert isinstance(codes.reason(code, evidence), str)
    assert codes.reason(code, EVIDENCE)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)


def test_documentation_lists_every_code_with_its_rule():
    rows = re.findall(r"^\| `([a-z_]+)` \| (.*?) \| (.+?) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(code for code, _, _ in rows) == sorted(Code)
    for code, rule, _ in rows:
        known = codes._RULES.get(Code(code))
        assert known is None or rule == f"`{known}`", code


def test_sentence_names_the_limits_key_in_the_policy():
    assert codes.rule_of(Code.HEAD_TIMEOUT, EVIDENCE) == "classes.sandbox.limits.headers"
    assert codes.rule_of(Code.NOT_TLS) == "syntax"
