"""Tests of `egress policy suggest`: it suggests the fewest rules that allow the recorded requests of a class."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.advice.remediation import NewRule
from openclaw_egress.advice.suggest import (
    Request,
    Suggestion,
    SuggestionError,
    enforcing,
    suggest,
    suggested_text,
    unified_diff,
)
from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.destination import parse_destination
from openclaw_egress.policy.evaluate import decide
from openclaw_egress.policy.loader import read_policy
from openclaw_egress.policy.model import Policy
from openclaw_egress.recording.denials import ANY, Denial

HEAD = "version: 1  # one\ninspect: [api.openai.com]\nclasses:\n"


def report(host: str, port: int = 443, method: str | None = "CONNECT", **changes) -> Denial:
    """Return a denial that was reported and not enforced."""
    known: dict = {"class_name": "box", "rule": "default", "reason": "no rule", "time_ns": 1, "enforced": False}
    return Denial(**known | {"host": host, "port": port, "method": method} | changes)


def read(text: str) -> Policy:
    return read_policy(text.encode(), "policy.yml")


def box(rules: str = "") -> Policy:
    return read(HEAD + f"  box: {{listen: 1, action: report{rules}}}\n")


def suggested(policy: Policy, *denials: Denial) -> list[str]:
    return [str(rule) for rule in suggest(policy, "box", denials).rules]


# ── the suggested rules ──────────────────────────────────────────────────────────────────────────────────────────


def test_each_host_gets_one_rule_with_its_requested_ports():
    denials = [report("b.example"), report("a.example", 80, "GET"), report("a.example"), report("a.example", 8443)]
    assert suggested(box(), *denials, *denials) == [
        "{host: a.example, ports: [80, 443, 8443]}",
        "{host: b.example, ports: [443]}",
    ]


def test_enforced_denials_and_other_classes_are_ignored():
    other = (report("a.example", enforced=True), report("b.example", class_name="other"))
    assert suggested(box(), *other) == []


def test_destination_allowed_by_the_current_policy_gets_no_rule():
    assert suggested(box(", allow: [a.example]"), report("a.example"), report("a.example", 8443)) == [
        "{host: a.example, ports: [8443]}"
    ]


@pytest.mark.parametrize(("method", "rules"), [("GET", ["{host: api.openai.com, ports: [443]}"]), ("POST", [])])
def test_a_rule_that_names_methods_is_not_enough_for_another_method(method, rules):
    policy = box(", allow: [{host: api.openai.com, methods: [POST]}]")
    assert suggested(policy, report("api.openai.com"), report("api.openai.com", 443, method)) == rules


LEFT_OUT = {
    "deny": (", deny: ['*.internal.example']", [report("a.internal.example")]),
    "deny is evaluated before allow": (", deny: [a.example]", [report("a.example", rule="classes.box.deny[0]")]),
    "loopback": ("", [report("localhost", 9000)]),
    "10.1.2.3": ("", [report("llm.example")]),
    "address guard": ("", [report("rebind.example"), report("rebind.example", rule="address-guard", enforced=True)]),
}


@pytest.mark.parametrize("why", list(LEFT_OUT))
@pytest.mark.wording
def test_omitted_destinations_are_listed_with_the_reason(why):
    rules, denials = LEFT_OUT[why]
    policy = read(HEAD + f"  box: {{listen: 1, action: report{rules}}}\nresolve: {{llm.example: 10.1.2.3}}\n")
    found = suggest(policy, "box", denials)
    assert found.rules == ()
    ((destination, said),) = found.left_out.items()
    assert destination.startswith(denials[0].host) and why in said


def test_many_names_of_one_domain_get_rules_and_a_note_about_a_wildcard():
    names = [f"n{number}.cdn.example.com" for number in range(21)]
    found = suggest(box(), "box", [report(name) for name in names])
    assert [rule.host for rule in found.rules] == sorted(names)
    assert found.notes == (
        '21 names below cdn.example.com are listed one by one; consider the wildcard "*.cdn.example.com"',
    )
    assert suggest(box(), "box", [report(name) for name in names[1:]]).notes == ()


def test_many_names_of_a_top_level_domain_get_no_wildcard_hint():
    assert suggest(box(), "box", [report(f"n{number}.example") for number in range(30)]).notes == ()


def test_summarised_reports_are_mentioned():
    found = suggest(box(), "box", [report(ANY, 0, None, rule=ANY, count=30), report(ANY, 0, None, rule=ANY, count=12)])
    assert (found.rules, found.notes[0][:21]) == ((), "42 more requests were")


def test_bytes_that_are_not_tls_are_mentioned():
    refused = report("git.example", 22, rule="syntax", code=Code.NOT_TLS, enforced=True)
    found = suggest(box(), "box", [report("git.example", 22), refused])
    assert "clients also sent bytes that are not TLS to git.example:22" in found.notes[0]


# ── the edited policy text ───────────────────────────────────────────────────────────────────────────────────────

A, B = "{host: a.example, ports: [443]}", "{host: b.example, ports: [443]}"
BOX, KEYS = "  box:\n", "    listen: 1\n    action: report\n"
TEXTS = {
    # Definitions of a class. `«` and `»` enclose the text that the suggestion for a.example and b.example adds.
    "flow, without allow": f"  box: {{listen: 1, action: report«, allow: [{A}, {B}]»}}  # why\n",
    "flow, a comma at the end": f"  box: {{listen: 1, action: report«, allow: [{A}, {B}]», }}\n",
    "flow, empty": f"  box: {{listen: 1, allow: [«{A}, {B}»], action: report}}\n",
    "flow, one": f"  box: {{listen: 1, allow: [x.example«, {A}, {B}»], action: report}}\n",
    "flow, a mapping last": f"{BOX}    allow: [{{host: x}}«, {A}, {B}» ] # y\n{KEYS}",
    "flow, no room": (
        "  box: {listen: 1, action: report, allow: [{host: an-ordinary-name.example, ports: [443]}«,\n"
        f"      {A},\n      {B}»]}}\n"
    ),
    "flow, no room and no allow": (
        f"  box: {{listen: 1, action: report, deny: [{', '.join(f'd{n}.example' for n in range(6))}]«, allow: [\n"
        f"      {A},\n      {B}]»}}\n"
    ),
    "flow, on lines": f"{BOX}{KEYS}    allow: [\n      x.example«,»  # x\n«      {A},\n      {B}\n»    ]\n",
    "flow, on lines, a comma last": (
        f"{BOX}    allow: [\n      w,\n      x,  # x\n«      {A},\n      {B},\n»      # y\n    ]\n{KEYS}"
    ),
    "flow, on lines, closed at once": f"{BOX}    allow: [\n      w,\n      x«,\n      {A},\n      {B}»]\n{KEYS}",
    "block, without allow": f"{BOX}{KEYS}«    allow:\n      - {A}\n      - {B}\n»\n  # z\n",
    "block, without allow, a comment": (
        f"  box:\n      listen: 1\n      action: report # y\n«      allow:\n        - {A}\n        - {B}\n»  # z\n"
    ),
    "block, empty": f"{BOX}    listen: 1\n    allow: [«{A}, {B}»]\n    action: report\n",
    "block, texts": (
        f"{BOX}    allow:\n    - w.example # w\n    - x.example # x\n«    - {A}\n    - {B}\n»    # y\n{KEYS}"
    ),
    "block, indented": f"{BOX}{KEYS}    allow:\n      -  x.example\n«      - {A}\n      - {B}\n»\n\n",
    "block, mappings": (
        f"{BOX}{KEYS}    allow:\n    - w\n    - host: x.example\n      ports:\n      - 80  # p\n"
        f"«    - {A}\n    - {B}\n»  # z\n"
    ),
    "block, below its dash": (f"{BOX}{KEYS}    allow:\n     -\n       host: x-y.example\n«     - {A}\n     - {B}\n»"),
    "block, an anchor": f"  box: &b\n{KEYS}    allow: &l\n    - &x x.example\n«    - {A}\n    - {B}\n»",
    "flow, an anchor": f"  box: {{listen: 1, action: report, allow: &l [«{A}, {B}»]}}\n",
}
AROUND = "  first: {listen: 7, action: enforce, allow: [z.example]}\n", "  last:\n    listen: 8\n    action: open\n"


def add(text: str) -> str:
    """Return the policy text after the suggested rules for port 443 of a.example and b.example are added."""
    found = suggest(read(text), "box", [report("a.example"), report("b.example")])
    return suggested_text(text.encode(), "policy.yml", None, "box", found).decode()


@pytest.mark.parametrize("shape", list(TEXTS))
@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_added_rules_follow_the_files_style_and_other_bytes_stay(shape, place, newline):
    marked = TEXTS[shape] + AROUND[1] if place == "first" else AROUND[0] + TEXTS[shape]
    marked = (HEAD + marked).replace("\n", newline)
    before = "".join(part.partition("»")[2] if at else part for at, part in enumerate(marked.split("«")))
    assert add(before) == marked.replace("«", "").replace("»", "")


def test_missing_final_newline_and_byte_order_mark_are_kept():
    text = HEAD + "  box:\n    listen: 1\n    action: report\n    allow:\n    - x.example"
    assert add(text) == f"{text}\n    - {A}\n    - {B}"
    found = suggest(read(text), "box", [report("a.example")])
    assert suggested_text(b"\xef\xbb\xbf" + text.encode(), "p", None, "box", found).startswith(b"\xef\xbb\xbfversion")


ONE, TWO = "  one: {listen: 1, action: open", "  box: {listen: 2, action: report"
SHARED = {
    "an alias": f"{ONE}, allow: &l [x.example]}}\n{TWO}, allow: *l}}\n",
    "shared by anchor": f"{TWO}, allow: &l [x.example]}}\n{ONE}, allow: *l}}\n",
    "an alias last": f"{ONE}, allow: [&x x.example]}}\n{TWO}, allow: [y, *x]}}\n",
    "an alias last in a block": f"{ONE}, allow: [&x x.example]}}\n{BOX}{KEYS.replace('1', '2')}    allow:\n    - *x\n",
    "merged": "  one: &o {listen: 1, action: report, allow: [x.example]}\n  box: {<<: *o, listen: 2}\n",
    "another list of the class": f"{TWO}, deny: &d [y], allow: *d}}\n",
}


@pytest.mark.parametrize("shape", list(SHARED))
def test_rules_are_only_printed_if_the_edit_would_change_other_bytes(shape):
    with pytest.raises(SuggestionError) as refused:
        add(HEAD + SHARED[shape])
    assert f"write them under classes.box.allow:\n  - {A}\n  - {B}" in str(refused.value)


@pytest.mark.wording
def test_rules_that_would_not_allow_the_requests_are_not_written():
    text = f"{HEAD}{BOX}{KEYS}"
    missing = Suggestion((NewRule(host="a.example", ports=(443,)),), (Request(parse_destination("b.example", 443)),))
    with pytest.raises(SuggestionError, match=r"still denied by default: no rule lets box reach b\.example:443"):
        suggested_text(text.encode(), "policy.yml", None, "box", missing)


def test_diff_marks_a_missing_final_newline():
    assert unified_diff(b"a\nb", b"a\nb\nc", "p.yml").splitlines()[3:] == [
        " a", "-b", "\\ No newline at end of file", "+b", "+c", "\\ No newline at end of file",
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
@pytest.mark.parametrize("end", ["", "\n", "\n# \u2028# é\n"])
@pytest.mark.parametrize("text", [BOX + KEYS + "    allow:\n    - x.example", "  box: {listen: 1, action: report}"])
def test_diff_can_be_applied_with_patch(tmp_path, text, end):
    before = HEAD + text + end
    after = add(before)
    file = tmp_path / "policy.yml"
    file.write_bytes(before.encode())
    diff = unified_diff(before.encode(), after.encode(), "policy.yml")
    subprocess.run(["patch", "--quiet", str(file)], input=diff.encode(), check=True)
    assert file.read_bytes() == after.encode()


labels = st.sampled_from(["a", "b", "null", "x-y", "_z", "com", "1e3", "xn--bcher-kva"])
hosts = st.lists(labels, min_size=1, max_size=3).map(".".join)


@given(st.lists(st.tuples(hosts, st.integers(1, 65535)), min_size=1, max_size=30), st.sampled_from(list(TEXTS)))
def test_suggested_rules_allow_every_reported_request(seen, shape):
    marked = HEAD + TEXTS[shape]
    before = "".join(part.partition("»")[2] if at else part for at, part in enumerate(marked.split("«")))
    found = suggest(read(before), "box", [report(host, port) for host, port in seen])
    after = before
    if found.rules:
        after = suggested_text(before.encode(), "policy.yml", None, "box", found).decode()
    policy = enforcing(read(after), "box")
    assert not found.left_out
    assert all(decide(policy, "box", request.destination).allow for request in found.requests)
    for host, port in seen:
        assert suggested(policy, report(host, port)) == []


@pytest.mark.parametrize("host", ["metadata.tencentyun.com", "innocent.example"])
def test_metadata_is_never_suggested(host):
    text = (
        "version: 1\nresolve: {innocent.example: 169.254.169.254}\nclasses:\n  sandbox: {listen: 1, action: report, "
        "addresses: [{cidr: 169.254.169.254/32, ports: [80]}]}\n"
    )
    policy = read_policy(text.encode(), "policy.yml")
    seen = Denial(class_name="sandbox", host=host, port=80, rule="default", reason="no rule", time_ns=1, enforced=False)
    found = suggest(policy, "sandbox", [seen])
    assert not found.rules and "metadata" in found.left_out[f"{host}:80"]
