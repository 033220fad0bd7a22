"""Tests of the policy: decisions with rule and reason, and the error messages for an invalid file."""

from __future__ import annotations

import hashlib
import ipaddress
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openclaw_egress.cli.explain import ask
from openclaw_egress.policy import loader
from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.destination import Destination, DestinationError, guard_reason, parse_destination
from openclaw_egress.policy.evaluate import decide, decide_address
from openclaw_egress.policy.host_groups import GROUPS
from openclaw_egress.policy.loader import builtin_policy, load_policy, read_policy
from openclaw_egress.policy.model import Decision, Limits, Policy, PolicyError
from tests.unit.schema_check import schema_errors

EXAMPLE = """\
version: 1
inspect: ["api.anthropic.com", "api.openai.com", "*.openai.azure.com"]
classes:
  gateway: {listen: 8080, action: open, addresses: [{cidr: 10.0.0.2/32, ports: [3100, 4318, 9090]}]}
  browser: {listen: 8081, action: enforce, allow: ["*"], deny: ["*.internal.example"]}
  sandbox: {listen: 8082, action: enforce, allow: [{host: packages.example.com, ports: [443]}]}
  build:   {listen: 8083, action: enforce, allow: ["registry.example.com"]}
resolve: {llm.corp.example: 10.0.0.2}
"""


def read(text: str, llm_hosts: tuple[str, ...] | None = None) -> Policy:
    """Read a policy. Check that it is also valid under the JSON schema for editors."""
    data = textwrap.dedent(text).encode()
    policy = read_policy(data, "policy.yml", llm_hosts)
    assert schema_errors(data) == []
    return policy


def class_with(rules: str, action: str = "enforce") -> Policy:
    """Return a policy that inspects api.openai.com and *.azure.example, and has one class with these rules."""
    return read(
        f"version: 1\ninspect: [api.openai.com, '*.azure.example']\n"
        f"classes:\n  sandbox:\n    listen: 8082\n    action: {action}\n"
        + textwrap.indent(textwrap.dedent(rules), "    ")
    )


def at(host: str, port: int = 443) -> Destination:
    return parse_destination(host, port)


def verdict(decision: Decision) -> tuple[bool, str, str]:
    return decision.allow, decision.rule, decision.reason


# ── the example in the documentation ─────────────────────────────────────────────────────────────────────────────

DECISIONS = [
    # Cases: class, host, port, and the expected decision (allow, rule, reason).
    ("gateway", "anything.example", 443, True, "default", "gateway may reach every name"),
    ("gateway", "anything.example", 8443, True, "default", "gateway may reach every name"),
    ("gateway", "10.0.0.2", 3100, True, "classes.gateway.addresses[0]", "gateway may reach 10.0.0.2:3100"),
    ("gateway", "10.0.0.2", 22, False, "address-guard", "10.0.0.2 is private (10.0.0.0/8, RFC 1918)"),
    ("gateway", "127.1", 80, False, "address-guard", "127.0.0.1 is loopback (127.0.0.0/8, RFC 1122)"),
    ("gateway", "localhost", 80, False, "address-guard", "localhost is loopback (RFC 6761)"),
    ("gateway", "8.8.8.8", 443, False, "default", "8.8.8.8:443 is an address literal, for which gateway has no rule"),
    ("browser", "example.com", 80, True, "classes.browser.allow[0]", "browser may reach example.com:80"),
    (
        "browser",
        "example.com",
        22,
        False,
        "default",
        "browser may not reach example.com:22: classes.browser.allow[0] matches the host but not this port, method or "
        "path (it allows *; ports 80, 443)",
    ),
    (
        "browser",
        "a.b.internal.example",
        443,
        False,
        "classes.browser.deny[0]",
        "browser may not reach a.b.internal.example:443",
    ),
    ("browser", "internal.example", 443, True, "classes.browser.allow[0]", "browser may reach internal.example:443"),
    ("browser", "8.8.8.8", 443, False, "default", "8.8.8.8:443 is an address literal, for which browser has no rule"),
    (
        "sandbox",
        "Packages.Example.com.",
        443,
        True,
        "classes.sandbox.allow[0]",
        "sandbox may reach packages.example.com:443",
    ),
    (
        "sandbox",
        "packages.example.com",
        80,
        False,
        "default",
        "sandbox may not reach packages.example.com:80: classes.sandbox.allow[0] matches the host but not this port, "
        "method or path (it allows packages.example.com; port 443)",
    ),
    ("sandbox", "evil.example", 443, False, "default", "no rule lets sandbox reach evil.example:443"),
    ("sandbox", "xpackages.example.com", 443, False, "default", "no rule lets sandbox reach xpackages.example.com:443"),
    (
        "sandbox",
        "a.packages.example.com",
        443,
        False,
        "default",
        "no rule lets sandbox reach a.packages.example.com:443",
    ),
    ("build", "registry.example.com", 80, True, "classes.build.allow[0]", "build may reach registry.example.com:80"),
    ("nobody", "example.com", 443, False, "unknown-class", "there is no class 'nobody'"),
]


@pytest.mark.parametrize(("name", "host", "port", "allow", "rule", "reason"), DECISIONS)
@pytest.mark.wording
def test_documented_example_gives_the_expected_decisions(
    name: str, host: str, port: int, allow: bool, rule: str, reason: str
) -> None:
    assert verdict(decide(read(EXAMPLE), name, at(host, port))) == (allow, rule, reason)


def test_documented_example_is_read_with_its_values() -> None:
    policy = read(EXAMPLE)
    assert {item.name: (item.listen, item.action) for item in policy.classes.values()} == {
        "gateway": (8080, "open"),
        "browser": (8081, "enforce"),
        "sandbox": (8082, "enforce"),
        "build": (8083, "enforce"),
    }
    assert policy.inspect == ("api.anthropic.com", "api.openai.com", "*.openai.azure.com")
    assert policy.digest == hashlib.sha256(EXAMPLE.encode()).hexdigest()[:12]
    assert policy.warnings == ()
    assert policy.fixed_address("llm.corp.example") == ipaddress.ip_address("10.0.0.2")
    assert policy.fixed_address("other.example") is None
    found = policy.class_for_port(8082)
    assert found is not None and found.name == "sandbox"
    assert policy.class_for_port(9999) is None


def test_description_of_a_class_lists_its_rules() -> None:
    policy = read(EXAMPLE)
    assert policy.describe("gateway") == (
        "gateway: listens on 8080, action open\n"
        "  classes.gateway.addresses[0]: exception to the address guard, 10.0.0.2/32; ports 3100, 4318, 9090"
    )
    assert policy.describe("browser") == (
        "browser: listens on 8081, action enforce\n"
        "  classes.browser.deny[0]: *.internal.example; any port\n"
        "  classes.browser.allow[0]: *; ports 80, 443"
    )
    assert policy.describe("x") == "there is no class x; the policy has gateway, browser, sandbox, build"


# ── inspection ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("host", "inspected"),
    [
        ("api.openai.com", True),
        ("API.OpenAI.com.", True),
        ("x.api.openai.com", False),
        ("openai.com", False),
        ("a.openai.azure.com", True),
        ("a.b.openai.azure.com", True),
        ("openai.azure.com", False),
        ("xopenai.azure.com", False),
        ("8.8.8.8", False),
        ("no host", False),
    ],
)
def test_inspected_patterns_match_whole_labels_of_a_name(host: str, inspected: bool) -> None:
    assert read(EXAMPLE).inspects(host) is inspected


def test_decision_contains_whether_the_host_is_inspected() -> None:
    policy = read(EXAMPLE)
    assert decide(policy, "gateway", at("api.openai.com")).inspect
    assert not decide(policy, "gateway", at("example.com")).inspect
    assert decide_address(policy, "gateway", at("api.openai.com"), ipaddress.ip_address("8.8.8.8")).inspect


def test_inspect_defaults_to_the_environment_and_then_to_the_built_in_hosts() -> None:
    text = "version: 1\nclasses: {gateway: {listen: 8080, action: open}}\n"
    assert read(text, ("LLM.corp.example", "*.openai.azure.com")).inspect == ("llm.corp.example", "*.openai.azure.com")
    assert read(text).inspect == ("api.anthropic.com", "api.openai.com")


def test_inspect_and_the_environment_may_both_name_the_same_hosts() -> None:
    assert read(EXAMPLE, ("*.openai.azure.com", "api.openai.com", "API.anthropic.com")).inspects("api.openai.com")


@pytest.mark.parametrize("entry", ["@google", "google"])
def test_group_name_is_replaced_by_its_hosts(entry: str) -> None:
    text = "version: 1\n{}classes: {{a: {{listen: 1, action: open}}}}\n"
    from_policy = read(text.format(f'inspect: ["{entry}", llm.corp.example]\n'))
    assert from_policy.inspect == (*GROUPS["google"], "llm.corp.example")
    assert read(text.format(""), (entry, "llm.corp.example")).inspect == from_policy.inspect
    assert read(text.format(f'inspect: ["{entry}"]\n'), GROUPS["google"]).inspects("generativelanguage.googleapis.com")


def test_all_groups_contain_every_region_once() -> None:
    policy = read("version: 1\ninspect: ['@all', '@bedrock', anthropic]\nclasses: {a: {listen: 1, action: open}}\n")
    assert len(policy.inspect) == len(set(policy.inspect))
    assert not [pattern for pattern in policy.inspect if pattern != pattern.lower()]
    for host in (
        "bedrock-runtime.us-east-1.amazonaws.com",
        "us-central1-aiplatform.googleapis.com",
        "mine.openai.azure.com",
        "api.individual.githubcopilot.com",
    ):
        assert policy.inspects(host), host
    assert not policy.inspects("s3.us-east-1.amazonaws.com") and not policy.inspects("evilamazonaws.com")


def test_host_with_the_name_of_a_group_has_a_final_dot() -> None:
    assert read("version: 1\ninspect: [qwen.]\nclasses: {a: {listen: 1, action: open}}\n").inspect == ("qwen",)


def test_unknown_group_is_refused_with_a_list_of_groups() -> None:
    with pytest.raises(PolicyError, match=r"inspect\[0\]: there is no group of hosts '@goggle'; use one of @anthropic"):
        read("version: 1\ninspect: ['@goggle']\nclasses: {a: {listen: 1, action: open}}\n")
    with pytest.raises(PolicyError, match="PROXY_LLM_HOSTS: there is no group of hosts '@goggle'"):
        read("version: 1\nclasses: {a: {listen: 1, action: open}}\n", ("@goggle",))


def test_inspect_may_be_empty() -> None:
    assert read("version: 1\ninspect: []\nclasses: {a: {listen: 1, action: open}}\n").inspect == ()


def test_the_built_in_policy_opens_the_gateway_to_names() -> None:
    policy = builtin_policy(["api.openai.com"])
    assert list(policy.classes) == ["gateway"]
    assert policy.classes["gateway"].listen == 8080
    assert decide(policy, "gateway", at("example.com")).allow
    assert not decide(policy, "gateway", at("127.0.0.1")).allow
    assert policy.inspects("api.openai.com") and not policy.inspects("api.anthropic.com")
    assert policy.digest != builtin_policy(["api.anthropic.com"]).digest


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_deny_takes_precedence_over_allow() -> None:
    policy = class_with("allow: [a.example]\ndeny: [a.example]\n")
    assert decide(policy, "sandbox", at("a.example")).rule == "classes.sandbox.deny[0]"


def test_deny_rule_without_ports_matches_every_port_even_in_an_open_class() -> None:
    policy = class_with("deny: [a.example, {host: c.example}, {cidr: 93.184.0.0/16}]\n", action="open")
    assert not decide(policy, "sandbox", at("a.example", 8443)).allow
    assert not decide(policy, "sandbox", at("c.example", 8443)).allow
    assert not decide_address(policy, "sandbox", at("b.example", 8443), ipaddress.ip_address("93.184.1.1")).allow
    assert decide(policy, "sandbox", at("b.example", 8443)).allow


def test_deny_rule_with_ports_matches_only_these() -> None:
    policy = class_with("deny: [{host: a.example, ports: [25]}]\n", action="open")
    assert not decide(policy, "sandbox", at("a.example", 25)).allow
    assert decide(policy, "sandbox", at("a.example", 443)).allow


def test_decision_contains_the_most_specific_rule() -> None:
    policy = class_with("allow: ['*', '*.example', '*.b.example', a.b.example]\n")
    rules = [
        decide(policy, "sandbox", at(host)).rule for host in ("a.b.example", "x.b.example", "x.example", "other.test")
    ]
    assert rules == [f"classes.sandbox.allow[{at}]" for at in (3, 2, 1, 0)]


def test_rules_match_the_canonical_form_of_a_host() -> None:
    policy = class_with("allow: ['BÜCHER.example.', 0x08.0x08.0x08.0x08]\n")
    assert decide(policy, "sandbox", at("xn--bcher-kva.example")).allow
    assert decide(policy, "sandbox", at("8.8.8.8")).allow


def test_address_literal_is_allowed_by_its_own_rule_or_by_a_range() -> None:
    policy = class_with("allow: [8.8.8.8, {cidr: 9.9.9.0/24, ports: [853]}, {cidr: '2620:fe::/48'}]\n")
    allowed = [("8.8.8.8", 443), ("9.9.9.9", 853), ("2620:fe::fe", 443)]
    denied = [("8.8.4.4", 443), ("9.9.9.9", 443), ("9.9.10.1", 853), ("2620:ff::1", 443), ("::ffff:8.8.8.8", 443)]
    assert [decide(policy, "sandbox", at(*item)).allow for item in allowed + denied] == [True] * 3 + [False] * 5


@pytest.mark.parametrize("action", ["open", "enforce", "report"])
@pytest.mark.wording
def test_address_literal_needs_a_rule_for_every_action(action: str) -> None:
    policy = class_with("allow: ['*']\n", action=action)
    assert decide(policy, "sandbox", at("example.com")).allow
    decision = decide(policy, "sandbox", at("8.8.8.8"))
    assert (decision.allow, decision.would_deny) == (False, False)
    assert decision.code == Code.LITERAL_WITHOUT_RULE
    assert decision.reason == "8.8.8.8:443 is an address literal, for which sandbox has no rule"


@pytest.mark.parametrize("action", ["open", "enforce", "report"])
@pytest.mark.parametrize("host", ["localhost", "x.localhost", "127.0.0.1", "::1", "metadata.google.internal"])
def test_no_allow_rule_lifts_the_address_guard(action: str, host: str) -> None:
    policy = class_with(f"allow: ['*', '{host}', {{cidr: 127.0.0.0/8}}]\n", action=action)
    found = decide(policy, "sandbox", at(host, 80))
    assert (found.allow, found.rule) == (False, "address-guard")


def test_action_report_allows_an_address_literal_only_with_a_rule_for_it() -> None:
    for rules, allow in (("deny: [8.8.8.8]\n", False), ("deny: [8.8.8.8]\nallow: [8.8.8.8]\n", True)):
        decision = decide(class_with(rules, "report"), "sandbox", at("8.8.8.8"))
        assert (decision.allow, decision.would_deny, decision.rule) == (allow, allow, "classes.sandbox.deny[0]")


def test_report_allows_and_marks_requests_that_enforce_denies() -> None:
    rules = "allow: [a.example]\ndeny: [b.example]\n"
    reporting, enforcing = class_with(rules, action="report"), class_with(rules)
    for host, would_deny in (("a.example", False), ("b.example", True), ("c.example", True)):
        reported, enforced = (decide(policy, "sandbox", at(host)) for policy in (reporting, enforcing))
        assert (reported.allow, reported.would_deny) == (True, would_deny)
        assert (enforced.allow, enforced.would_deny) == (not would_deny, False)
        assert (reported.rule, reported.reason) == (enforced.rule, enforced.reason)


def test_tunnel_without_tls_needs_a_rule_with_tls_false() -> None:
    policy = class_with("allow: [{host: git.example, ports: [22], tls: false}, git.example]\n")
    assert decide(policy, "sandbox", at("git.example", 22)).tls is False
    assert decide(policy, "sandbox", at("git.example", 443)).tls is True


def test_inspected_host_needs_tls_despite_a_wildcard_without_tls() -> None:
    policy = class_with("allow: [{host: '*', tls: false}]\n")
    assert decide(policy, "sandbox", at("api.openai.com")).tls is True
    assert decide(policy, "sandbox", at("other.example")).tls is False


# ── methods and paths ────────────────────────────────────────────────────────────────────────────────────────────

PATHS = "allow: [{host: api.openai.com, methods: [post], paths: [/v1/responses, '/v1/chat/*']}]\n"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        (None, None, True),  # CONNECT: the proxy decides again on each request in the tunnel
        ("POST", "/v1/responses", True),
        ("POST", "/v1/responses/", True),
        ("POST", "/v1/responses?stream=1", True),
        ("POST", "/v1/resp%6fnses", True),
        ("POST", "/v1/chat/completions", True),
        ("GET", "/v1/responses", False),
        ("post", "/v1/responses", False),  # methods are case-sensitive
        ("Post", "/v1/responses", False),
        ("CONNECT", "/v1/responses", False),
        ("POST", "/v1/responses/r1", False),
        ("POST", "/v1/files", False),
        ("POST", "/V1/responses", False),
        ("POST", "/v1/chat/../files", False),
        ("POST", "/v1/chat/%2e%2e/files", False),
        ("POST", "/v1/chat/..%2ffiles", False),
        ("POST", "/v1%2fresponses", False),
        ("POST", "/v1/chat/%252e%252e/files", False),
        ("POST", "/v1/chat/..\\files", False),
        ("POST", "/v1/chat//files", False),
        ("POST", "/v1/chat/.", False),
        ("POST", "/v1/chat/%00", False),
        ("POST", "", False),
        ("POST", "*", False),
        ("POST", None, False),
        (None, "/v1/responses", False),
    ],
)
def test_rule_with_methods_and_paths_allows_only_these(method: str | None, path: str | None, allow: bool) -> None:
    assert decide(class_with(PATHS), "sandbox", at("api.openai.com"), method, path).allow is allow


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        (None, None, True),
        ("GET", "/v1/models", True),
        ("POST", "/v1/models", True),
        ("DELETE", "/v1/models", False),
        ("delete", "/v1/models", False),  # a deny rule ignores the method's case, as an origin may
        ("OPTIONS", "*", False),
        ("GET", "/v1/files", False),
        ("GET", "/v1/files/", False),
        ("GET", "/v1/%66iles", False),
        ("GET", "/v1%2Ffiles%2Fx", False),
        ("GET", "/v1/x/../files", False),
        ("GET", "//v1/files", False),
        ("GET", "/v1/fi%2565s", False),
        ("GET", None, False),
    ],
)
def test_deny_rule_matches_every_spelling_of_its_methods_and_paths(
    method: str | None, path: str | None, allow: bool
) -> None:
    rules = "deny: [{host: api.openai.com, methods: [DELETE]}, {host: api.openai.com, paths: [/v1/files]}]\n"
    assert decide(class_with(rules, "open"), "sandbox", at("api.openai.com"), method, path).allow is allow


@pytest.mark.wording
def test_reason_names_a_rule_that_matches_only_the_host() -> None:
    assert decide(class_with(PATHS), "sandbox", at("api.openai.com"), "GET", "/v1/files").reason == (
        "sandbox may not reach api.openai.com:443: classes.sandbox.allow[0] matches the host but not this port, method "
        "or path (it allows api.openai.com; ports 80, 443; methods POST; paths /v1/responses, /v1/chat/*)"
    )


def test_methods_and_paths_are_valid_for_a_completely_inspected_wildcard() -> None:
    policy = class_with("allow: [{host: '*.eu.azure.example', methods: [POST]}]\n")
    assert decide(policy, "sandbox", at("a.eu.azure.example"), "POST", "/").allow
    assert not decide(policy, "sandbox", at("a.eu.azure.example"), "GET", "/").allow


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.wording
def test_name_that_resolves_to_a_public_address_is_allowed() -> None:
    found = decide_address(read(EXAMPLE), "browser", at("example.com"), ipaddress.ip_address("93.184.215.14"))
    assert verdict(found) == (True, "default", "93.184.215.14 is public")


@pytest.mark.wording
def test_name_that_resolves_to_a_guarded_address_is_refused() -> None:
    found = decide_address(read(EXAMPLE), "browser", at("evil.example"), ipaddress.ip_address("169.254.169.254"))
    assert verdict(found) == (
        False,
        "address-guard",
        "evil.example is 169.254.169.254, which is cloud metadata "
        "(169.254.169.254/32, AWS, Azure, Google Cloud and others)",
    )


@pytest.mark.parametrize(
    ("name", "port", "ip", "allow"),
    [
        ("gateway", 3100, "10.0.0.2", True),
        ("gateway", 443, "10.0.0.2", False),
        ("gateway", 3100, "10.0.0.3", False),
        ("gateway", 3100, "::ffff:10.0.0.2", False),
        ("browser", 3100, "10.0.0.2", False),
        ("nobody", 3100, "10.0.0.2", False),
        ("nobody", 443, "8.8.8.8", False),
    ],
)
def test_exception_holds_only_for_its_class_addresses_and_ports(name: str, port: int, ip: str, allow: bool) -> None:
    found = decide_address(read(EXAMPLE), name, at("loki.example", port), ipaddress.ip_address(ip))
    assert found.allow is allow
    if allow:
        assert found.rule == "classes.gateway.addresses[0]"


def test_address_guard_applies_to_fixed_addresses() -> None:
    policy = read(EXAMPLE)
    answer = policy.fixed_address("llm.corp.example")
    assert answer is not None
    assert not decide_address(policy, "browser", at("llm.corp.example"), answer).allow


def test_address_guard_denies_also_with_action_report() -> None:
    policy = class_with("allow: ['*']\n", action="report")
    assert not decide_address(policy, "sandbox", at("a.example"), ipaddress.ip_address("127.0.0.1")).allow


@pytest.mark.parametrize(("action", "allow"), [("enforce", False), ("open", False), ("report", True)])
@pytest.mark.wording
def test_name_that_resolves_into_a_denied_range_is_denied(action: str, allow: bool) -> None:
    policy = class_with("allow: ['*']\ndeny: [{cidr: 93.184.0.0/16}]\n", action=action)
    found = decide_address(policy, "sandbox", at("a.example"), ipaddress.ip_address("93.184.1.1"))
    assert (found.allow, found.would_deny, found.rule) == (allow, allow, "classes.sandbox.deny[0]")
    assert found.code == Code.ADDRESS_DENIED_BY_RULE
    assert found.reason == "a.example is 93.184.1.1, which is in 93.184.0.0/16, which sandbox may not reach"


def test_exception_does_not_permit_an_address_that_deny_refuses() -> None:
    policy = class_with("allow: ['*']\ndeny: [{cidr: 10.1.0.0/16}]\naddresses: [{cidr: 10.0.0.0/8, ports: [443]}]\n")
    found = decide_address(policy, "sandbox", at("a.example"), ipaddress.ip_address("10.1.1.1"))
    assert (found.allow, found.rule) == (False, "classes.sandbox.deny[0]")
    assert decide_address(policy, "sandbox", at("a.example"), ipaddress.ip_address("10.2.1.1")).allow
    assert not decide(policy, "sandbox", at("10.1.1.1")).allow


@pytest.mark.parametrize(
    ("action", "allow", "allowed"),
    [
        ("open", "[]", True), ("enforce", "[]", False), ("report", "[]", False), ("enforce", "['*']", False),
        ("enforce", "[10.2.1.1]", True), ("enforce", "[{cidr: 10.2.0.0/16}]", True), ("enforce", "[10.3.1.1]", False),
    ],
)  # fmt: skip
def test_exception_permits_literal_addresses_only_in_an_open_class(action, allow, allowed) -> None:
    policy = class_with(f"allow: {allow}\naddresses: [{{cidr: 10.0.0.0/8, ports: [443]}}]\n", action)
    assert decide(policy, "sandbox", at("10.2.1.1")).allow is allowed


def test_name_localhost_passes_if_an_exception_covers_loopback() -> None:
    policy = class_with("allow: [{host: localhost, ports: [9000]}]\naddresses: [{cidr: 127.0.0.1/32, ports: [9000]}]\n")
    assert decide(policy, "sandbox", at("localhost", 9000)).allow
    assert decide_address(policy, "sandbox", at("localhost", 9000), ipaddress.ip_address("127.0.0.1")).allow
    assert not decide_address(policy, "sandbox", at("localhost", 9000), ipaddress.ip_address("::1")).allow


# ── bad files ────────────────────────────────────────────────────────────────────────────────────────────────────

HEAD = "version: 1\nclasses:\n  sandbox:\n    listen: 8082\n    action: enforce\n"
"""The first five lines of a policy. The text of a case follows on line 6, inside the class."""

ALLOW_EXAMPLE = "{host: packages.example.com, ports: [443]}"
BAD = {
    # Cases: the text of a policy, and the expected message: line number, problem, remedy.
    "": "1: the file is empty; write `version: 1` and `classes:`",
    "# only a comment\n": "1: the file is empty; write `version: 1` and `classes:`",
    "- 1\n": "1: the value is a list; write a mapping, as in `version: 1`",
    "classes: {a: {listen: 1, action: open}}\n": "1: 'version' is missing; write `version: 1` at the top",
    "version: 2\n": "1: version: version 2 is not supported; write `version: 1`",
    "version: '1'\n": "1: version: the value is a string; write a whole number, as in `1`",
    "version: 1.0\n": "1: version: the value is a fraction; write a whole number, as in `1`",
    "version: 1\n": ("1: 'classes' is missing; add one class, as in `gateway: {listen: 8080, action: open}`"),
    "version: 1\nclasses:\n": "2: classes: the value is empty; write a mapping, as in `key: value`",
    "version: 1\nclasses: {}\n": (
        "2: classes: the policy has no class; add one, as in `gateway: {listen: 8080, action: open}`"
    ),
    "version: 1\nclases: {}\n": "2: unknown key 'clases'; did you mean 'classes'?",
    "version: 1\nfoo: {}\n": "2: unknown key 'foo'; use one of version, inspect, classes, resolve, mask",
    "version: 1\nversion: 1\n": "2: key 'version' appears twice; keep one of them",
    HEAD + "    alow: []\n": "6: classes.sandbox: unknown key 'alow'; did you mean 'allow'?",
    HEAD + "    listen: 8083\n": "6: key 'listen' appears twice; keep one of them",
    HEAD + "\tallow: []\n": "6: there is a tab at the start of a line; indent with spaces",
    HEAD + "    allow: [a\n": (
        "7: the file is not valid YAML (expected ',' or ']', but got '<stream end>'); "
        "check indentation, colons, brackets and quotes up to here"
    ),
    HEAD + "    allow:\n    - *.example.com\n": (
        '7: a * without quotes is an alias in YAML; put names that begin with * in quotes, as in "*.example.com"'
    ),
    HEAD + "    allow: [*]\n": (
        '6: a * without quotes is an alias in YAML; put names that begin with * in quotes, as in "*.example.com"'
    ),
    HEAD + "    allow: [a\x00b]\n": (
        "6: the file is not readable YAML (ReaderError); "
        "use only mappings, lists and plain values, without control characters"
    ),
    HEAD + "  Foo: {}\n": (
        "6: classes.Foo: 'Foo' is not a valid class name; use at most 32 characters: a-z, 0-9, - and _, "
        "starting with a letter"
    ),
    HEAD + "  1: {}\n": "6: classes.1: the key 1 is not a string; put it in quotes",
    HEAD + "  b: {action: open}\n": (
        "6: classes.b: 'listen' is missing; add the port of its listener, as in `listen: 8080`"
    ),
    HEAD + "  b: {listen: 8083}\n": "6: classes.b: 'action' is missing; write one of open, enforce, report",
    HEAD + "  b:\n    action: open\n    listen: 8082\n": (
        "8: classes.b.listen: port 8082 is already used by class sandbox; use a different port for each class"
    ),
    HEAD.replace("8082", "9464"): (
        "4: classes.sandbox.listen: port 9464 serves health and metrics; use another port, as in `listen: 8080`"
    ),
    HEAD.replace(
        "8082", "65536"
    ): "4: classes.sandbox.listen: 65536 is not a port number; write a number from 1 to 65535",
    HEAD.replace(
        "8082", "true"
    ): "4: classes.sandbox.listen: the value is true or false; write a whole number, as in `443`",
    HEAD.replace("enforce", "enforced"): (
        "5: classes.sandbox.action: 'enforced' is not an action; did you mean 'enforce'?"
    ),
    HEAD.replace("enforce", "allow"): (
        "5: classes.sandbox.action: 'allow' is not an action; write one of open, enforce, report"
    ),
    HEAD + "    limits: {conections: 5}\n": (
        "6: classes.sandbox.limits: unknown key 'conections'; did you mean 'connections'?"
    ),
    HEAD + "    limits: {header_seconds: 0}\n": (
        "6: classes.sandbox.limits.header_seconds: 0 is out of range; write a number from 1 to 3600"
    ),
    HEAD + "    limits: {connections: many}\n": (
        "6: classes.sandbox.limits.connections: the value is a string; write a whole number, as in `64`"
    ),
    HEAD + "    instance: GW_A\n": (
        "6: classes.sandbox.instance: 'GW_A' is not a valid name of a gateway instance; use at most 32 characters: "
        "a-z, 0-9 and -, starting and ending with a letter or a digit"
    ),
    HEAD + "    instance: 7\n": ("6: classes.sandbox.instance: the value is a number; write a string, as in `gw-a`"),
    HEAD + "    log_tunnels: 1\n": "6: classes.sandbox.log_tunnels: the value is a number; write true or false",
    HEAD + "    allow: a.example\n": (
        f"6: classes.sandbox.allow: the value is a string; write a list, as in `allow: [{ALLOW_EXAMPLE}]`"
    ),
    HEAD + "    allow: [~]\n": (
        f"6: classes.sandbox.allow[0]: the value is empty; write a host, or a mapping as in `{ALLOW_EXAMPLE}`"
    ),
    HEAD + "    allow: ['*foo.example']\n": (
        "6: classes.sandbox.allow[0]: '*foo.example' is not a wildcard; "
        'write "*." and a name, as in "*.example.com", or "*" for every host'
    ),
    HEAD + "    allow: ['a.*.example']\n": (
        "6: classes.sandbox.allow[0]: 'a.*.example' is not a wildcard; "
        'write "*." and a name, as in "*.example.com", or "*" for every host'
    ),
    HEAD + "    allow: ['*.10.0.0.1']\n": (
        "6: classes.sandbox.allow[0]: '*.10.0.0.1' is not a wildcard; for an address range write {cidr: 192.0.2.0/24}"
    ),
    HEAD + "    allow: ['https://a.example/x']\n": (
        "6: classes.sandbox.allow[0]: not a valid host: 'https://a.example/x' has a colon; only a host is expected; "
        "write only the host, without scheme and path"
    ),
    HEAD + "    allow: ['a.example:8443']\n": (
        "6: classes.sandbox.allow[0]: not a valid host: 'a.example:8443' has a colon; only a host is expected; "
        "write {host: a.example, ports: [8443]}"
    ),
    HEAD + "    allow: [10.0.0.0/8]\n": (
        "6: classes.sandbox.allow[0]: not a valid host: '10.0.0.0/8' has a slash where a host is expected; "
        "write {cidr: 10.0.0.0/8}"
    ),
    HEAD + "    allow: [a..example]\n": (
        "6: classes.sandbox.allow[0]: not a valid host: 'a..example' has an empty label; "
        "write a name such as packages.example.com"
    ),
    HEAD + "    allow:\n    - a.example\n    - host: b.example\n      prots: [1]\n": (
        "9: classes.sandbox.allow[1]: unknown key 'prots'; did you mean 'ports'?"
    ),
    HEAD + "    allow: [{ports: [443]}]\n": (
        f"6: classes.sandbox.allow[0]: 'host' is missing; write the rule as in `{ALLOW_EXAMPLE}`"
    ),
    HEAD + "    allow: [{host: a, cidr: 8.0.0.0/8}]\n": (
        "6: classes.sandbox.allow[0]: a rule cannot have both host and cidr; split it into two rules"
    ),
    HEAD + "    allow: [{cidr: 8.8.8.8/24}]\n": (
        "6: classes.sandbox.allow[0].cidr: 8.8.8.8/24 has host bits set; "
        "write 8.8.8.0/24 for the network, or 8.8.8.8 for one address"
    ),
    HEAD + "    allow: [{cidr: example.com}]\n": (
        "6: classes.sandbox.allow[0].cidr: 'example.com' is not an address range; "
        "write a range such as 10.0.0.0/24 or fd00::/64"
    ),
    HEAD + "    allow: [{host: a, ports: 443}]\n": (
        "6: classes.sandbox.allow[0].ports: the value is a number; write a list, as in `ports: [443]`"
    ),
    HEAD + "    allow: [{host: a, ports: []}]\n": (
        "6: classes.sandbox.allow[0].ports: the list is empty, so the rule would never match; "
        "add an entry, as in `ports: [443]`, or remove the list"
    ),
    HEAD + "    allow: [{host: a, ports: [443, 0]}]\n": (
        "6: classes.sandbox.allow[0].ports[1]: 0 is not a port number; write a number from 1 to 65535"
    ),
    HEAD + "    allow: [{host: a, ports: ['443']}]\n": (
        "6: classes.sandbox.allow[0].ports[0]: the value is a string; write a whole number, as in `443`"
    ),
    HEAD + "    allow:\n    - host: a.example\n      methods: [GET]\n": (
        "8: classes.sandbox.allow[0].methods: a.example is not inspected, "
        "so the proxy cannot see the methods of its requests; add it to inspect, or remove methods"
    ),
    HEAD + "    deny: [{host: '*', paths: [/x]}]\n": (
        "6: classes.sandbox.deny[0].paths: * is not inspected, "
        "so the proxy cannot see the paths of its requests; add it to inspect, or remove paths"
    ),
    HEAD + "    deny: [{cidr: 8.0.0.0/8, paths: [/x]}]\n": (
        "6: classes.sandbox.deny[0].paths: 8.0.0.0/8 is not inspected, "
        "so the proxy cannot see the paths of its requests; add it to inspect, or remove paths"
    ),
    HEAD + "    allow: [{host: api.openai.com, methods: [CONNECT]}]\n": (
        "6: classes.sandbox.allow[0].methods[0]: 'CONNECT' is not a valid method for a rule; "
        "write a method such as GET or POST"
    ),
    HEAD + "    allow: [{host: api.openai.com, paths: ['/v1/../x']}]\n": (
        "6: classes.sandbox.allow[0].paths[0]: '/v1/../x' is not a valid path for a rule; "
        "start it with /; omit query, escapes and dot segments; use * only at the end"
    ),
    HEAD + "    allow: [{host: api.openai.com, tls: false}]\n": (
        "6: classes.sandbox.allow[0].tls: api.openai.com is inspected, so it must use TLS; remove `tls: false`"
    ),
    HEAD + "    allow: [{host: a, tls: no}]\n": (
        "6: classes.sandbox.allow[0].tls: the value is a string; write true or false"
    ),
    HEAD + "    deny: [{host: a, tls: false}]\n": (
        "6: classes.sandbox.deny[0]: unknown key 'tls'; use one of host, cidr, ports, methods, paths"
    ),
    HEAD + "    addresses: [10.0.0.2]\n": (
        "6: classes.sandbox.addresses[0]: the value is a string; write a mapping, as in `{cidr: 10.0.0.2/32, "
        "ports: [3100]}`"
    ),
    HEAD + "    addresses: [{cidr: 10.0.0.2/32}]\n": (
        "6: classes.sandbox.addresses[0]: an exception to the address guard needs ports; "
        "add ports, as in `{cidr: 10.0.0.2/32, ports: [3100]}`"
    ),
    HEAD + "    addresses: [{cidr: 0.0.0.0/1, ports: [80]}]\n": (
        "6: classes.sandbox.addresses[0].cidr: an exception for 0.0.0.0/1 would disable the address guard; "
        "list the networks you need, each /8 or narrower"
    ),
    HEAD + "inspect: api.openai.com\n": (
        '6: inspect: the value is a string; write a list, as in `inspect: ["api.anthropic.com"]`'
    ),
    HEAD + "inspect: ['*']\n": (
        '6: inspect[0]: `*` cannot be inspected; list the LLM hosts; a wildcard such as "*.openai.azure.com" is valid'
    ),
    HEAD + "inspect: [10.0.0.1]\n": (
        "6: inspect[0]: 10.0.0.1 is an address, not a host name; "
        "write a host name, and map it to the address in `resolve`"
    ),
    HEAD + "resolve: {a.example: b.example}\n": (
        "6: resolve.a.example: 'b.example' is not an IP address; write an IP address such as 10.1.2.3"
    ),
    HEAD + "resolve:\n  a.example: 8.8.8.8\n  A.example.: 8.8.4.4\n": (
        "8: resolve.A.example.: a.example is listed twice; remove one of the two entries"
    ),
    HEAD + "resolve: {127.1: 8.8.8.8}\n": "6: resolve.127.1: the key 127.1 is not a string; put it in quotes",
    HEAD + "resolve: {'127.1': 8.8.8.8}\n": (
        "6: resolve.127.1: 127.1 is an address, not a host name; write a name such as llm.corp.example"
    ),
    HEAD + "resolve: {'*.a': 8.8.8.8}\n": (
        "6: resolve.*.a: not a valid host: '*' in '*.a' is not a label of a host name; "
        "write a name such as llm.corp.example"
    ),
    HEAD + "---\nversion: 1\n": (
        "6: the file is not valid YAML (but found another document); "
        "check indentation, colons, brackets and quotes up to here"
    ),
}


def test_named_limits_replace_only_their_defaults() -> None:
    found = read(HEAD + "    limits: {connections: 5, requests_per_minute: 60}\n").classes["sandbox"].limits
    assert found == replace(Limits(), connections=5, requests_per_minute=60)
    assert read(HEAD).classes["sandbox"].limits == Limits()


@pytest.mark.wording
@pytest.mark.parametrize("text", list(BAD), ids=lambda text: repr(text.removeprefix(HEAD))[:40])
def test_invalid_file_is_reported_with_line_problem_and_remedy(text: str) -> None:
    with pytest.raises(PolicyError) as refused:
        read_policy(text.encode(), "policy.yml")
    assert str(refused.value) == f"policy.yml:{BAD[text]}"
    error = refused.value
    assert str(error) == f"{error.file}:{error.line}: {error.problem}; {error.remedy}"


TWO_PLACES = {
    HEAD + text
    for text in (
        "  b:\n    action: open\n    listen: 8082\n",
        "    allow:\n    - host: a.example\n      methods: [GET]\n",
        "    deny: [{host: '*', paths: [/x]}]\n",
        "    deny: [{cidr: 8.0.0.0/8, paths: [/x]}]\n",
        "    allow: [{host: api.openai.com, tls: false}]\n",
        "resolve:\n  a.example: 8.8.8.8\n  A.example.: 8.8.4.4\n",
        # Only an address parser can detect the following errors.
        "    allow: ['*.10.0.0.1']\n",
        "    allow: [{cidr: 8.8.8.8/24}]\n",
        "    addresses: [{cidr: 0.0.0.0/1, ports: [80]}]\n",
        "inspect: [10.0.0.1]\n",
        "resolve: {127.1: 8.8.8.8}\n",
        "resolve: {'127.1': 8.8.8.8}\n",
    )
}
"""Policies whose error a JSON Schema cannot detect: two parts contradict each other, or an address must be parsed."""


@pytest.mark.parametrize("text", list(BAD), ids=lambda text: repr(text.removeprefix(HEAD))[:40])
def test_schema_refuses_each_error_in_a_single_value(text: str) -> None:
    assert bool(schema_errors(text.encode())) is (text not in TWO_PLACES)


def refusal_of(data: bytes, llm_hosts: tuple[str, ...] | None = None) -> str:
    with pytest.raises(PolicyError) as refused:
        read_policy(data, "policy.yml", llm_hosts)
    return str(refused.value)


@pytest.mark.wording
def test_inspect_that_differs_from_the_environment_is_an_error() -> None:
    assert refusal_of(EXAMPLE.encode(), ("api.openai.com", "llm.example")) == (
        "policy.yml:2: inspect: PROXY_LLM_HOSTS has other hosts than `inspect` (api.openai.com, llm.example); "
        "remove `inspect` or PROXY_LLM_HOSTS, or make them equal"
    )


@pytest.mark.wording
@pytest.mark.parametrize("make", [builtin_policy, lambda hosts: read(HEAD, hosts)])
def test_invalid_host_in_the_environment_is_reported_with_its_variable(make: object) -> None:
    with pytest.raises(PolicyError) as refused:
        make(("api.openai.com", "https://llm.example"))  # type: ignore[operator]
    assert refused.value.line is None
    assert str(refused.value) == (
        "PROXY_LLM_HOSTS: not a valid host: 'https://llm.example' has a colon; only a host is expected; "
        "write only the host, without scheme and path"
    )


@pytest.mark.wording
def test_file_that_is_not_utf8_is_reported_with_line_and_byte() -> None:
    assert refusal_of(b"version: 1\n# caf\xe9\n") == "policy.yml:2: byte 0xe9 is not UTF-8; save the file as UTF-8"


def test_byte_order_mark_is_ignored() -> None:
    assert read_policy(b"\xef\xbb\xbf" + HEAD.encode(), "policy.yml").classes


@pytest.mark.wording
def test_a_file_of_more_than_a_megabyte_is_not_read() -> None:
    assert refusal_of(b"#" * 1_000_001) == (
        "policy.yml: the file is larger than 1000000 bytes; use wildcards and CIDRs"
    )


def test_a_deeply_nested_file_is_refused() -> None:
    assert "nested too deeply" in refusal_of(b"version: " + b"[" * 1_000)


@pytest.mark.wording
def test_aliases_may_share_a_list_but_not_expand_it_without_limit() -> None:
    shared = "version: 1\nclasses:\n  a: {listen: 1, action: enforce, allow: &list [x.example, y.example]}\n"
    policy = read(shared + "  b: {listen: 2, action: enforce, allow: *list}\n")
    assert decide(policy, "b", at("y.example")).rule == "classes.b.allow[1]"

    many = ", ".join(f"h{number}.example" for number in range(1000))
    bomb = shared.replace("x.example, y.example", many)
    bomb += "".join(f"  c{number}: {{listen: {number}, action: enforce, allow: *list}}\n" for number in range(2, 200))
    assert "there are more than 50000 rules; use wildcards, and fewer aliases" in refusal_of(bomb.encode())


@pytest.mark.wording
def test_recursive_alias_is_refused() -> None:
    assert "write a host, or a mapping" in refusal_of((HEAD + "    allow: &a [*a]\n").encode())


def test_merge_key_is_supported() -> None:
    policy = read(HEAD.replace("sandbox:", "sandbox: &base") + "  b: {<<: *base, listen: 8083}\n")
    assert (policy.classes["b"].listen, policy.classes["b"].action) == (8083, "enforce")


def test_policy_is_loaded_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.yml"
    file.write_text(EXAMPLE)
    assert load_policy(file, None).digest == read(EXAMPLE).digest
    file.write_text("version: 3\n")
    with pytest.raises(PolicyError) as refused:
        load_policy(file, None)
    assert str(refused.value).startswith(f"{file}:1: version: version 3 is not supported;")


@pytest.mark.wording
def test_file_that_cannot_be_read_causes_an_error(tmp_path: Path) -> None:
    remedy = "check the path and that the proxy's user may read it"
    for path, problem in ((tmp_path / "none.yml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(PolicyError) as refused:
            load_policy(path, None)
        assert str(refused.value) == f"{path}: the policy cannot be read ({problem}); {remedy}"


# ── warnings ─────────────────────────────────────────────────────────────────────────────────────────────────────

WARNINGS = {
    # Cases: action and rules of a class, and the expected warnings. The rules begin on line 7 of the policy.
    ("open", "allow: []\n"): ["7: classes.sandbox.allow is empty, but action open allows every name anyway"],
    ("open", "allow: [a.example]\n"): ["7: classes.sandbox.allow[0] has no effect: action open allows every name"],
    ("open", "allow: [8.8.8.8, {host: a, ports: [22], tls: false}]\n"): [],
    ("enforce", ""): [],
    ("enforce", "allow: []\n"): [],
    ("enforce", "allow:\n- a.example\n- A.example\n"): [
        "9: classes.sandbox.allow[1] has no effect: classes.sandbox.allow[0] (line 8) already allows this"
    ],
    ("enforce", "allow:\n- a.b.example\n- '*.example'\n"): [
        "8: classes.sandbox.allow[0] has no effect: classes.sandbox.allow[1] (line 9) already allows this"
    ],
    ("enforce", "allow:\n- {host: a.example, ports: [8443]}\n- '*.example'\n"): [],
    ("enforce", "allow:\n- {host: a.example, tls: false}\n- '*.example'\n"): [],
    ("enforce", "allow:\n- api.openai.com\n- {host: api.openai.com, methods: [GET]}\n"): [
        "9: classes.sandbox.allow[1] has no effect: classes.sandbox.allow[0] (line 8) already allows this"
    ],
    ("enforce", "allow:\n- {host: api.openai.com, methods: [GET]}\n- {host: api.openai.com, methods: [POST]}\n"): [],
    ("enforce", "allow:\n- a.x.example\ndeny:\n- '*.x.example'\n"): [
        "8: classes.sandbox.allow[0] has no effect: classes.sandbox.deny[0] (line 10) denies this"
    ],
    ("enforce", "allow:\n- '*.a.x.example'\ndeny:\n- '*.x.example'\n"): [
        "8: classes.sandbox.allow[0] has no effect: classes.sandbox.deny[0] (line 10) denies this"
    ],
    ("enforce", "allow: ['*.example']\ndeny: [a.example, {host: '*.example', ports: [80]}]\n"): [],
    ("enforce", "allow: [8.8.8.8]\ndeny: [{cidr: 8.0.0.0/8}]\n"): [
        "7: classes.sandbox.allow[0] has no effect: classes.sandbox.deny[0] (line 8) denies this"
    ],
    ("enforce", "allow: ['*', 8.8.8.8]\n"): [],
    ("enforce", "deny: [{cidr: 8.8.0.0/16}, {cidr: 8.0.0.0/8}]\n"): [
        "7: classes.sandbox.deny[0] has no effect: classes.sandbox.deny[1] (line 7) already denies this"
    ],
    ("enforce", "allow: [10.1.2.3]\n"): [
        "7: classes.sandbox.allow[0] has no effect: 10.1.2.3 is private (10.0.0.0/8, RFC 1918), "
        "so the address guard refuses it; add an exception in `addresses`"
    ],
    ("enforce", "allow: [10.1.2.3]\naddresses: [{cidr: 10.1.0.0/16, ports: [443]}]\n"): [],
    ("enforce", "allow: [{cidr: 192.168.0.0/24}]\n"): [
        "7: classes.sandbox.allow[0] has no effect: 192.168.0.0/24 is private (192.168.0.0/16, RFC 1918), "
        "so the address guard refuses it; add an exception in `addresses`"
    ],
    ("enforce", "addresses: [{cidr: 169.254.169.0/24, ports: [80]}]\n"): [
        "7: classes.sandbox.addresses[0] disables the address guard for cloud metadata "
        "(169.254.169.254/32, AWS, Azure, Google Cloud and others)"
    ],
}


@pytest.mark.parametrize(("action", "rules"), list(WARNINGS))
def test_probable_mistakes_cause_warnings(action: str, rules: str) -> None:
    assert list(class_with(rules, action).warnings) == [f"policy.yml:{text}" for text in WARNINGS[action, rules]]


def test_fixed_address_that_every_class_refuses_causes_a_warning() -> None:
    assert list(read(HEAD + "resolve: {llm.example: 10.1.2.3}\n").warnings) == [
        "policy.yml:6: resolve.llm.example: 10.1.2.3 is private (10.0.0.0/8, RFC 1918), "
        "so the address guard refuses it; add an exception in `addresses`"
    ]


# ── properties ───────────────────────────────────────────────────────────────────────────────────────────────────

labels = st.sampled_from(["a", "b", "example", "x-y", "_z", "com"])
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
patterns = st.one_of(names, names.map("*.{}".format), st.just("*"), st.ip_addresses().map(str))
ports = st.integers(1, 65535)
destinations = st.builds(
    parse_destination, st.one_of(names, st.ip_addresses().map(str)), st.sampled_from([22, 80, 443])
)
actions = st.sampled_from(["open", "enforce", "report"])


def covers(pattern: str, host: str, *, literal: bool) -> bool:
    """Return whether a pattern matches a host. Compare directly, without the index that the policy uses."""
    if literal or not pattern.startswith("*"):
        return pattern == host
    return pattern == "*" or host.endswith(pattern[1:])


@settings(deadline=None)
@given(st.lists(patterns, max_size=6), st.lists(patterns, max_size=4), actions, destinations)
def test_decisions_equal_those_of_a_linear_search(
    allow: list[str], deny: list[str], action: str, destination: Destination
) -> None:
    policy = class_with(f"allow: {allow}\ndeny: {deny}\n", action)
    literal = destination.address is not None
    decision = decide(policy, "sandbox", destination)
    denied = any(covers(item, destination.host, literal=literal) or item == "*" for item in deny)
    listed = destination.port in (80, 443) and any(covers(item, destination.host, literal=literal) for item in allow)
    guarded = destination.address is not None and guard_reason(destination.address) is not None
    allowed = (listed or (action == "open" and not literal)) and not denied and not guarded
    softened = action == "report" and not allowed and (not literal or (listed and denied))
    assert decision.allow is (allowed or softened)
    assert decision.would_deny is softened
    assert decision.reason


@settings(deadline=None)
@given(
    st.one_of(st.sampled_from(["gateway", "browser", "sandbox"]), st.text()),
    st.builds(Destination, st.text(), st.one_of(st.none(), st.ip_addresses()), st.integers()),
    st.one_of(st.none(), st.text()),
    st.one_of(st.none(), st.text(), st.text("/.%2eE\\?#av1", max_size=20).map("/{}".format)),
    st.ip_addresses(),
)
@example("gateway", Destination("api.openai.com", None, 443), "GET", "/\udcff%ff", ipaddress.ip_address("::1"))
def test_deciding_never_raises(
    name: str, destination: Destination, method: str | None, path: str | None, ip: ipaddress.IPv4Address
) -> None:
    for policy in (read(EXAMPLE), class_with(PATHS), class_with("deny: [{host: api.openai.com, paths: [/v1/*]}]\n")):
        for decision in (
            decide(policy, name, destination, method, path),
            decide_address(policy, name, destination, ip),
        ):
            assert decision.rule and decision.reason


@settings(deadline=None)
@given(actions, st.lists(patterns, max_size=4), st.one_of(names, st.ip_addresses().map(str)), ports, st.ip_addresses())
def test_no_policy_without_an_exception_permits_a_guarded_address(
    action: str, allow: list[str], host: str, port: int, ip: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    policy = class_with(f"allow: {allow}\n", action)
    if guard_reason(ip) is not None:
        assert not decide_address(policy, "sandbox", parse_destination(host, port), ip).allow


PIECES = """
    version:_1 classes: __a: ____listen:_1 ____action:_open ____allow: ____-_ * &x_ [ ] { } :_ , host cidr:_
    1.2.3.4/24 ' " \\t \\n \\n \\n !!int_ | > % <<:_ -_ é 2001-99-99
"""
yaml_pieces = st.sampled_from(PIECES.split()).map(
    lambda piece: piece.replace("\\n", "\n").replace("\\t", "\t").replace("_", " ")
)
yaml_texts = st.one_of(
    st.binary(max_size=200), st.text(max_size=200).map(str.encode), st.lists(yaml_pieces).map("".join).map(str.encode)
)


@settings(deadline=None)
@given(yaml_texts)
def test_any_file_gives_a_policy_or_an_error_with_a_remedy(data: bytes) -> None:
    for text in (data, HEAD.encode() + b"    allow: " + data, HEAD.encode() + data):
        try:
            assert read_policy(text, "policy.yml").classes
        except PolicyError as error:
            assert error.problem and error.remedy
            assert error.line is None or error.line >= 1


@settings(deadline=None)
@given(st.text(max_size=30))
def test_rule_matches_every_host_that_it_accepts(text: str) -> None:
    try:
        destination = parse_destination(text, 443)
    except DestinationError:
        return
    node = loader._Node(text, "policy.yml", 1, "allow[0]")
    assert loader._pattern(node) == destination.host


def test_lookup_among_many_rules_uses_the_host_index() -> None:
    many = "".join(f"- h{number}.example\n" for number in range(2000))
    found = class_with(f"allow:\n{many}- '*.b.test'\n").classes["sandbox"]
    assert [rule.subject for rule in found.allow.about("h7.example", None)] == ["h7.example"]
    assert [rule.subject for rule in found.allow.about("a.b.test", None)] == ["*.b.test"]


# ── exceptions with methods and paths ────────────────────────────────────────────────────────────────────────────

LOGS = "addresses: [{cidr: 10.0.0.2/32, ports: [3100], methods: [POST], paths: [/otlp/v1/logs]}]\n"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/otlp/v1/logs", True),
        ("POST", "/otlp/v1/logs?tenant=a", True),
        ("post", "/otlp/v1/logs", False),
        (None, None, False),  # CONNECT: the proxy cannot see method and path in a tunnel
        ("GET", "/otlp/v1/logs", False),
        ("POST", "/loki/api/v1/push", False),
        ("POST", "/loki/api/v1/query_range", False),
        ("POST", "/otlp/v1/logs/../../loki/api/v1/query_range", False),
        ("POST", "/otlp/v1/logs#/../../../loki/api/v1/query_range", False),
        ("POST", "//otlp/v1/logs", False),
        ("POST", "/otlp//v1/logs", False),
        ("POST", "/otlp/v1/%2e%2e/v1/logs", False),
        ("POST", "/otlp/v1/%252e%252e/logs", False),
        ("POST", "/otlp/v1%2flogs", False),
        ("POST", "/otlp/v1/logs;/../query", False),
        ("POST", "/otlp\\v1\\logs", False),
        ("POST", "/OTLP/v1/logs", False),
        ("POST", "http://10.0.0.2:3100/otlp/v1/logs", False),
        ("POST", "*", False),
        ("POST", "", False),
    ],
)
@pytest.mark.parametrize("action", ["open", "enforce", "report"])
@pytest.mark.wording
def test_exception_with_methods_and_paths_permits_only_these(action, method, path, allow) -> None:
    policy = class_with("allow: [{cidr: 10.0.0.2/32, ports: [3100]}]\n" + LOGS, action)
    for host in ("10.0.0.2", "167772162"):
        found = decide(policy, "sandbox", at(host, 3100), method, path)
        assert found.allow is allow, found
    address = ipaddress.ip_address("10.0.0.2")
    found = decide_address(policy, "sandbox", at("loki.example", 3100), address, method, path)
    rule = "classes.sandbox.addresses[0]" if allow else "address-guard"
    assert (found.allow, found.rule, found.limited) == (allow, rule, allow)
    if not allow:
        assert found.code == Code.EXCEPTION_NOT_MET
        assert (str(found.evidence.address), found.evidence.rule) == ("10.0.0.2", "classes.sandbox.addresses[0]")
        assert found.reason == (
            "loki.example is 10.0.0.2, which is private (10.0.0.0/8, RFC 1918), and has an exception for plain HTTP "
            "requests only: classes.sandbox.addresses[0] allows 10.0.0.2/32; port 3100; methods POST; "
            "paths /otlp/v1/logs"
        )


@pytest.mark.parametrize(
    "path",
    [
        "/v1/..;/admin", "/v1/.;/..;a=b/admin", "/v1/%2e%2e;/admin", "/v1/..%3b/admin", "/v1/;a/admin",
        "/v1/a#/../admin",
        "/v1/%c0%ae%c0%ae/admin", "/v1/%23/../admin",
    ],
)  # fmt: skip
def test_ambiguous_path_matches_every_denying_rule_and_no_allowing_one(path) -> None:
    allowing = class_with("allow: [{host: api.openai.com, paths: ['/v1/*']}]\n")
    assert not decide(allowing, "sandbox", at("api.openai.com"), "GET", path).allow
    denying = class_with("deny: [{host: api.openai.com, paths: ['/admin*']}]\n", "open")
    assert not decide(denying, "sandbox", at("api.openai.com"), "GET", path).allow


def test_an_ordinary_path_with_parameters_still_meets_a_rule() -> None:
    policy = class_with("allow: [{host: api.openai.com, paths: ['/v1/*']}]\n")
    assert decide(policy, "sandbox", at("api.openai.com"), "GET", "/v1/a;b=c").allow


def test_limits_on_methods_of_inspected_hosts_are_marked_in_the_decision() -> None:
    policy = class_with("deny: [{host: api.openai.com, methods: [DELETE]}]\n", "open")
    assert decide(policy, "sandbox", at("api.openai.com"), "POST", "/").limited
    assert not decide(policy, "sandbox", at("www.example.com"), "POST", "/").limited


def test_exception_without_effect_causes_a_warning() -> None:
    policy = class_with(
        "addresses:\n"
        "  - {cidr: 10.0.0.2/32, ports: [3100], paths: [/otlp/v1/logs]}\n"
        "  - {cidr: 10.0.0.0/8, ports: [3100, 9090]}\n"
    )
    assert policy.warnings == (
        "policy.yml:8: classes.sandbox.addresses[0] has no effect: classes.sandbox.addresses[1] (line 9) "
        "already permits all of it",
    )


@pytest.mark.wording
@pytest.mark.parametrize("limit", ["methods: [POST]", "paths: [/otlp/v1/logs]"])
def test_exception_with_methods_or_paths_for_port_443_is_an_error(limit) -> None:
    rule = f"{{cidr: 10.0.0.2/32, ports: [80, 443], {limit}}}"
    data = f"version: 1\nclasses:\n  a: {{listen: 1, action: open, addresses: [{rule}]}}\n"
    assert schema_errors(data.encode()) != []
    with pytest.raises(PolicyError) as caught:
        read_policy(data.encode(), "policy.yml")
    what = limit.split(":")[0]
    assert str(caught.value) == (
        f"policy.yml:3: classes.a.addresses[0].{what}: port 443 carries TLS, so the proxy cannot see the {what} of its "
        f"requests; use {what} for plain HTTP ports only, and add a separate exception for 443 without {what}"
    )


DEFAULTS = Path(__file__).parents[3] / "roles" / "openclaw_proxy" / "defaults" / "main.yml"


@pytest.mark.parametrize(
    ("method", "url", "allow"),
    [
        ("POST", "http://10.0.0.2:3100/otlp/v1/logs", True),
        ("POST", "http://10.0.0.2:4318/v1/traces", True),
        ("POST", "http://10.0.0.2:9090/api/v1/otlp/v1/metrics", True),
        ("GET", "http://10.0.0.2:3100/loki/api/v1/query_range", False),
        ("POST", "http://10.0.0.2:3100/loki/api/v1/push", False),
        ("POST", "http://10.0.0.2:4318/v1/logs", False),
        ("POST", "http://10.0.0.2:3100/v1/traces", False),
        ("GET", "http://10.0.0.2:9090/api/v1/query", False),
        ("POST", "10.0.0.2:3100", False),
    ],
)
def test_roles_default_policy_allows_writing_telemetry_but_not_reading_it(method, url, allow) -> None:
    text = DEFAULTS.read_text()
    text = "version: 1\n" + textwrap.dedent(text[text.index("  classes:\n") :])
    for variable, value in {
        "{{ openclaw_proxy_loki_address }}": "10.0.0.2",
        '"{{ [openclaw_proxy_loki_port | int] }}"': "[3100]",
    }.items():
        assert variable in text
        text = text.replace(variable, value)
    assert ask(read(text), "gateway", url, method).decision.allow is allow


def masking(entry: str) -> str:
    return f"version: 1\nclasses: {{gateway: {{listen: 8080, action: open}}}}\nmask:\n  - {entry}\n"


def test_patterns_of_secrets_are_read() -> None:
    policy = read(masking("{name: acme, pattern: 'acme_[0-9a-f]{32}'}"))
    assert [(found.name, found.compiled.search(b"acme_" + b"0a" * 16) is not None) for found in policy.mask] == [
        ("acme", True)
    ]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{name: acme, pattern: 'a*'}", "it can match as few as 0 bytes"),
        ("{name: acme, pattern: 'abc'}", "it can match as few as 3 bytes"),
        ("{name: acme, pattern: 'acme_[0-9]+'}", "it can match as few as 6 bytes"),
        ("{name: acme, pattern: 'acme_[0-9]{8,}'}", "it can match more than 256 bytes"),
        (
            "{name: acme, pattern: 'acme_([a-z]{1,9}[0-9]{0,9}){4,9}'}",
            "a repetition inside a repetition is not supported",
        ),
        ("{name: acme, pattern: '(?:a|aa){8,90}#'}", "alternatives inside a repetition are not supported"),
        ("{name: acme, pattern: '[a-z]{1,60}[a-z]{1,60}[a-z]{1,60}[a-z]{9,60}#'}", "a search of"),
        ("{name: acme, pattern: 'acme_(?=x)[0-9]{8}'}", "a lookahead or lookbehind is not supported"),
        ("{name: acme, pattern: '([a-z]{8})\\1'}", "a back reference is not supported"),
        ("{name: acme, pattern: '^[0-9]{12}$'}", "^, $"),
        ("{name: acme, pattern: 'acme_[0-9'}", "not a valid regular expression"),
        ("{name: acme, pattern: 'größe_[0-9]{12}'}", "characters or not ASCII"),
        ("{name: Acme, pattern: 'acme_[0-9]{12}'}", "'Acme' is not a valid name"),
        ("{name: acme}", "'pattern' is missing"),
        ("{pattern: 'acme_[0-9]{12}'}", "'name' is missing"),
    ],
)
def test_unusable_pattern_of_a_secret_is_refused(entry: str, problem: str) -> None:
    with pytest.raises(PolicyError) as error:
        read_policy(masking(entry).encode(), "policy.yml")
    assert problem in str(error.value) and error.value.line == 4, str(error.value)
