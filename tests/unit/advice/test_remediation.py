"""Tests of the remedies for denials. A remedy is a rule that would allow the destination, or advice."""

from ipaddress import ip_network

import pytest
from ruamel.yaml import YAML

from openclaw_egress.advice.remediation import NewRule, remedy_for
from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.destination import parse_destination
from openclaw_egress.policy.evaluate import decide, decide_address
from openclaw_egress.policy.loader import read_policy
from openclaw_egress.recording.denials import ANY, DenialGroup


def group(host: str, port: int, rule: str = "default", *, code: Code | str = "", address: str = "") -> DenialGroup:
    """Return a group of denials. Use the code as the reason, because advice must not depend on the text of a reason."""
    return DenialGroup(
        class_name="sandbox",
        host=host,
        port=port,
        rule=rule,
        reason=code,
        code=code,
        address=address or None,
        enforced=1,
    )


GUARDED = {"code": Code.ADDRESS_GUARDED}
AT = {"code": Code.ADDRESS_GUARDED, "address": "10.1.2.3"}
OWN = {"code": Code.OWN_ADDRESS, "address": "192.0.2.7"}
HOST = {"code": Code.HOST_ADDRESS, "address": "203.0.113.7"}
NOT_TLS = {"code": Code.NOT_TLS}
NO_RULE = {"code": Code.NO_RULE}
ALLOWED = [
    # Cases: host, port and rule of the denial, its code and address, and the expected advice.
    ("packages.example.com", 443, "default", NO_RULE,
        "classes.sandbox.allow: {host: packages.example.com, ports: [443]}"),
    ("intranet", 80, "default", NO_RULE, 'classes.sandbox.allow: {host: "intranet", ports: [80]}'),
    ("8.8.8.8", 53, "default", NO_RULE, "classes.sandbox.allow: {host: 8.8.8.8, ports: [53]}"),
    ("2620:fe::fe", 443, "default", NO_RULE, 'classes.sandbox.allow: {host: "2620:fe::fe", ports: [443]}'),
    ("git.example", 22, "syntax", NOT_TLS,
        "classes.sandbox.allow: {host: git.example, ports: [22], tls: false}; valid only for a "
        "host that is not inspected"),
    ("10.1.2.3", 80, "address-guard", AT,
        "classes.sandbox.allow: {host: 10.1.2.3, ports: [80]} and "
        "classes.sandbox.addresses: {cidr: 10.1.2.3/32, ports: [80]}; an exception to the address guard"),
    ("evil.example", 443, "address-guard", AT,
        "classes.sandbox.addresses: {cidr: 10.1.2.3/32, ports: [443]}; an exception to the address guard"),
]  # fmt: skip


@pytest.mark.wording
@pytest.mark.parametrize(("host", "port", "rule", "result", "said"), ALLOWED)
def test_remedy_is_a_rule_in_the_policys_syntax(host, port, rule, result, said):
    assert str(remedy_for(group(host, port, rule, **result))) == said


@pytest.mark.parametrize(("host", "port", "rule", "result", "said"), ALLOWED)
def test_policy_with_the_proposed_rule_is_valid(host, port, rule, result, said):
    rules = remedy_for(group(host, port, rule, **result)).rules
    lists = {under.rpartition(".")[2]: [str(new) for other, new in rules if other == under] for under, _ in rules}
    text = ", ".join(f"{kind}: [{', '.join(written)}]" for kind, written in lists.items())
    policy = read_policy(
        f"version: 1\nclasses:\n  sandbox: {{listen: 1, action: enforce, {text}}}\n".encode(), "policy.yml"
    )
    for _, new in rules:
        if new.host is not None:
            decision = decide(policy, "sandbox", parse_destination(host, port))
            assert (decision.allow, decision.tls) == (True, new.tls)
        else:
            address = ip_network(new.cidr)[0]
            assert decide_address(policy, "sandbox", parse_destination(host, port), address).allow


@pytest.mark.wording
@pytest.mark.parametrize(
    ("host", "port", "rule", "result", "said"),
    [
        ("a..b", 0, "syntax", {"code": Code.INVALID_DESTINATION},
            "no rule can allow it: the client must send a different request: "),
        ("a.example", 443, "syntax", {"code": Code.HOST_HEADER_MISSING},
            "no rule can allow it: the client must send a different request: "),
        ("?", 0, "syntax", NOT_TLS, "no rule can allow it: the client must send a different request: "),
        ("api.openai.com", 443, "recording", {"code": Code.WEBSOCKET_NOT_RECORDED},
            "no rule can allow traffic that cannot be recorded"),
        ("a.example", 443, "classes.sandbox.deny[2]", {"code": Code.DENIED_BY_RULE},
            "deny is evaluated before allow: narrow classes.sandbox.deny[2]"),
        ("a.example", 443, "unknown-class", {"code": Code.UNKNOWN_CLASS}, "add class sandbox under classes"),
        (ANY, 0, "classes.sandbox.limits.connections", {"code": Code.CONNECTION_LIMIT},
            "raise classes.sandbox.limits.connections"),
        (ANY, 0, ANY, {"code": Code.VARIOUS}, "the class had more than 300 denials in a minute"),
        ("me.example", 443, "address-guard", OWN, "no rule is proposed: own_address"),
        ("me.example", 443, "address-guard", HOST, "no rule is proposed: host_address"),
        ("a.example", 443, "memory-budget", {"code": Code.MEMORY_LIMIT}, "raise EGRESS_MEMORY_BUDGET"),
        ("a.example", 443, "neighbours", {"code": Code.UNKNOWN_NEIGHBOUR}, "no rule can allow it: only addresses in"),
        ("a.example", 443, "class-networks", {"code": Code.OTHER_NETWORK}, "no rule can allow it: the client must use"),
        ("proxy.example", 3128, "upstream-proxy", {"code": Code.UPSTREAM_PROXY_NAMED},
            "no rule is proposed: only this proxy uses its upstream proxy"),
        ("a.example", 443, "upstream-proxy", {"code": Code.UPSTREAM_PROXY_UNREACHABLE},
            "no rule can help: check EGRESS_UPSTREAM_PROXY"),
        ("localhost", 9000, "address-guard", GUARDED, "no rule is proposed: 127.0.0.1"),
        ("x.example", 443, "address-guard", GUARDED,
            "classes.sandbox.addresses: {cidr: …, ports: [443]} with the address of x.example"),
    ],
)  # fmt: skip
def test_remedy_is_advice_if_no_rule_can_allow_the_destination(host, port, rule, result, said):
    remedy = remedy_for(group(host, port, rule, **result))
    assert not remedy.rules and str(remedy).startswith(said)


@pytest.mark.parametrize("name", ["null", "true", "1e3", "on", "null.example", "x", "_dmarc.example", "0o7.example"])
def test_host_is_unmodified_after_yaml_parsing(name):
    rule = str(NewRule(host=name, ports=(443,)))
    assert YAML(typ="safe", pure=True).load(rule) == {"host": name, "ports": [443]}


NEVER = [
    "169.254.169.254", "169.254.170.2", "169.254.42.42", "168.63.129.16", "100.100.100.200", "192.0.0.192",
    "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42", "fe80::1", "127.0.0.1", "127.8.9.1", "::1",
    "0.0.0.0",
    "0.1.2.3", "::", "::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::",
    "::ffff:127.0.0.1", "2620:fe::5efe:a9fe:a9fe", "metadata.google.internal", "metadata.tencentyun.com",
    "instance-data.ec2.internal", "localhost", "any.localhost", "metadata",
]  # fmt: skip


@pytest.mark.wording
@pytest.mark.parametrize("host", NEVER)
@pytest.mark.parametrize("rule", ["address-guard", "default", "syntax"])
def test_metadata_link_local_and_own_addresses_are_never_proposed(host, rule):
    remedy = remedy_for(group(host, 80, rule, **{"syntax": NOT_TLS, "default": NO_RULE}.get(rule, GUARDED)))
    assert not remedy.rules and "cidr" not in str(remedy) and remedy.advice.startswith("no rule")


@pytest.mark.wording
@pytest.mark.parametrize("address", NEVER[:5])
def test_a_name_that_resolved_to_metadata_is_never_proposed(address):
    remedy = remedy_for(group("innocent.example", 80, "address-guard", code=Code.ADDRESS_GUARDED, address=address))
    assert not remedy.rules and "no rule is proposed" in remedy.advice


def test_addresses_of_this_machine_are_never_proposed():
    denied = group("10.1.2.3", 80, "address-guard", **AT)
    assert remedy_for(denied).rules
    assert not remedy_for(denied, lambda address: address == "10.1.2.3").rules


@pytest.mark.wording
def test_wide_exception_is_not_proposed_if_a_narrow_one_exists():
    text = (
        "version: 1\nclasses:\n  sandbox: {listen: 1, action: open, "
        "addresses: [{cidr: 10.0.0.2/32, ports: [3100], methods: [POST], paths: [/otlp/v1/logs]}]}\n"
    )
    policy = read_policy(text.encode(), "policy.yml")
    denied = decide(policy, "sandbox", parse_destination("10.0.0.2", 3100), "GET", "/loki/api/v1/query_range")
    assert denied.code == Code.EXCEPTION_NOT_MET
    found = group("10.0.0.2", 3100, denied.rule, code=denied.code, address=str(denied.evidence.address))
    found.reason = denied.reason
    remedy = remedy_for(found)
    assert not remedy.rules and denied.reason in remedy.advice
    assert denied.evidence.rule == "classes.sandbox.addresses[0]"
