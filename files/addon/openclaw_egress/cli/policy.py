"""``egress policy check``, ``explain``, ``test``, ``suggest``, ``groups`` and ``schema``."""

from __future__ import annotations

import socket
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from openclaw_egress.advice.suggest import Suggestion, SuggestionError, suggested_text, unified_diff
from openclaw_egress.advice.suggest import suggest as suggest_rules
from openclaw_egress.cli.denials import SINCE, Since
from openclaw_egress.cli.explain import Verdict, ask
from openclaw_egress.cli.formatting import BAD_INPUT, NEGATIVE, print_error, print_json
from openclaw_egress.cli.records import moment
from openclaw_egress.policy.cases import Case, load_cases
from openclaw_egress.policy.configured import configured_policy
from openclaw_egress.policy.destination import DestinationError
from openclaw_egress.policy.host_groups import ALL, GROUPS, group_names, hosts_of
from openclaw_egress.policy.json_schema import schema_text
from openclaw_egress.policy.model import Decision, Policy
from openclaw_egress.reports.text import escape
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import Filters, SpoolReader

app = typer.Typer(no_args_is_help=True, help="Check the policy, and query its decisions.")

File = Annotated[
    Path | None,
    typer.Option("--policy", help="Use this policy file; by default the built-in policy [env: EGRESS_POLICY_FILE]."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="Policy file; by default that of EGRESS_POLICY_FILE.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check whether a policy is valid.

    Exit codes: 0 valid; 2 invalid, with the file, the line, the error and the remedy.
    """
    policy = configured_policy(Settings.load(policy_file=file))
    if as_json:
        classes = {
            found.name: {
                "listen": found.listen,
                "action": found.action,
                "inspected": _reachable(policy, found.name),
                **({"instance": found.instance} if found.instance else {}),
            }
            for found in policy.classes.values()
        }
        print_json(
            {"digest": policy.digest, "inspect": policy.inspect, "classes": classes, "warnings": policy.warnings}
        )
        return
    for warning in policy.warnings:
        print_error(f"warning: {warning}")
    for name in policy.classes:
        typer.echo(policy.describe(name))
    typer.echo(_wrapped(f"inspected: {', '.join(policy.inspect)}"))
    typer.echo(f"the policy is valid (digest {policy.digest})")


def _reachable(policy: Policy, class_name: str) -> list[str]:
    """Return the inspected hosts from which the class may request ``/`` with GET. Skip wildcards."""
    hosts = (host for host in policy.inspect if not host.startswith("*."))
    return [host for host in hosts if ask(policy, class_name, f"https://{host}/", "GET", None).decision.allow]


@app.command()
def groups(as_json: AsJson = False) -> None:
    """List the groups of LLM hosts that `inspect` and PROXY_LLM_HOSTS accept, such as @google or @all."""
    if as_json:
        print_json({name: hosts_of(name) for name in group_names()})
        return
    for name, hosts in GROUPS.items():
        typer.echo(_wrapped(f"@{name}: {', '.join(hosts)}"))
    typer.echo(f"@{ALL}: the hosts of all groups")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


@app.command()
def explain(
    class_name: Annotated[str, typer.Argument(metavar="CLASS", help="Class such as gateway or sandbox.")],
    url: Annotated[str, typer.Argument(help="Destination: https://host/path, http://host:port/ or host:port.")],
    method: Annotated[str, typer.Option(help="Use this HTTP method; by default GET.")] = "GET",
    resolve: Annotated[bool, typer.Option("--resolve", help="Resolve the name, and check its addresses.")] = False,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Show how the policy decides a request, by which rule and why. Exit codes: 0 allowed; 1 denied."""
    policy = configured_policy(Settings.load(policy_file=file))
    _known_class(policy, class_name)
    try:
        verdict = ask(policy, class_name, url, method, _addresses if resolve else None)
    except DestinationError as error:
        print_error(escape(error))
        raise typer.Exit(BAD_INPUT) from None
    _answer(class_name, verdict, as_json)
    if not verdict.decision.allow:
        raise typer.Exit(NEGATIVE)


def _answer(class_name: str, verdict: Verdict, as_json: bool) -> None:
    decision = verdict.decision
    if as_json:
        print_json(
            {
                "class": class_name,
                "destination": verdict.destination,
                "allow": decision.allow,
                "rule": decision.rule,
                "code": decision.code,
                "reason": decision.reason,
                "inspect": decision.inspect,
                "would_deny": decision.would_deny,
                "addresses": [
                    {"address": address, "allow": checked.allow, "reason": checked.reason}
                    for address, checked in verdict.addresses
                ],
            }
        )
        return
    typer.echo(f"{_word(decision)}: {escape(decision.reason)}\nrule:    {decision.rule}")
    if decision.allow:
        typer.echo(f"traffic: {'decrypted and recorded' if decision.inspect else 'tunnelled, not decrypted'}")
    for address, checked in verdict.addresses:
        typer.echo(f"address: {address} {'ok' if checked.allow else 'refused'}")


def _word(decision: Decision) -> str:
    if decision.would_deny:
        return "allowed (report only: enforce would deny it)"
    return "allowed" if decision.allow else "denied"


@app.command()
def test(
    cases_file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="YAML: a list of {class, url, expect}, optionally with method and rule."),
    ],
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Compare the policy's decisions with expected ones. Exit codes: 0 all match; 1 some differ; 2 a file is invalid.

    A case is `- {class: sandbox, url: "https://www.example.com/", expect: deny}`. Optional keys: `method` (default GET)
    and `rule`, the expected rule, such as default or classes.sandbox.deny[0]. Cases are evaluated as in
    `explain`, without name resolution.
    """
    policy = configured_policy(Settings.load(policy_file=file))
    cases = load_cases(cases_file, list(policy.classes))
    decided = [(case, ask(policy, case.class_name, case.url, case.method).decision) for case in cases]
    failed = [(case, decision) for case, decision in decided if not case.meets(decision)]
    if as_json:
        print_json(
            {
                "passed": len(decided) - len(failed),
                "failed": len(failed),
                "cases": [_case_as_json(case, decision) for case, decision in decided],
            }
        )
    else:
        for case, decision in failed:
            typer.echo(f"{cases_file}:{case.line}: {_failure(case, decision)}")
        typer.echo(f"{len(decided) - len(failed)} passed, {len(failed)} failed")
    if failed:
        raise typer.Exit(NEGATIVE)


def _failure(case: Case, decision: Decision) -> str:
    expected = case.expect if case.rule is None else f"{case.expect} by {case.rule}"
    found = f"{_word(decision)} by {decision.rule}: {decision.reason}"
    return escape(f"{case.class_name} {case.method} {case.url}: expected {expected}, but {found}")


def _case_as_json(case: Case, decision: Decision) -> dict[str, Any]:
    return {
        "line": case.line,
        "class": case.class_name,
        "method": case.method,
        "url": case.url,
        "passed": case.meets(decision),
        "expect": case.expect,
        "expect_rule": case.rule,
        "allow": decision.allow,
        "rule": decision.rule,
        "reason": decision.reason,
        "would_deny": decision.would_deny,
    }


@app.command()
def suggest(
    class_name: Annotated[str, typer.Argument(metavar="CLASS", help="A class whose action is report.")],
    since: Since = SINCE,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Print the rules that a class needs.

    The output is a diff of the policy; apply it with `patch`. The action of the class must be `report`. Each host
    that passed only because of `report` gets a rule with the ports that were used. With these rules, `enforce` denies
    none of that traffic. Standard error lists what was left out, and why. No file is written.

    If Ansible writes the policy, add the rules to its variable instead.

    Exit codes: 0 rules printed; 1 nothing to suggest; 2 invalid input.
    """
    settings = Settings.load(policy_file=file)
    policy = configured_policy(settings)
    if settings.policy_file is None:
        print_error("there is no policy file to change: specify it with --policy or EGRESS_POLICY_FILE")
        raise typer.Exit(BAD_INPUT)
    _known_class(policy, class_name)
    filters = Filters(since_ns=moment("--since", since), class_name=class_name)
    with SpoolReader(settings.spool_path) as reader:
        suggestion = suggest_rules(policy, class_name, reader.denials(filters))
    try:
        diff = _diff(settings.policy_file, settings, class_name, suggestion)
    except SuggestionError as error:
        print_error(str(error))
        raise typer.Exit(BAD_INPUT) from None
    for destination, why in suggestion.left_out.items():
        print_error(f"left out: {escape(destination)}: {escape(why)}")
    for note in suggestion.notes:
        print_error(f"note: {escape(note)}")
    if as_json:
        print_json(
            {
                "class": class_name,
                "rules": [rule.as_json() for rule in suggestion.rules],
                "left_out": suggestion.left_out,
                "notes": suggestion.notes,
                "diff": diff.decode(),
            }
        )
    else:
        # Write bytes: `patch` compares lines byte by byte, and the output encoding could change them.
        typer.echo(diff, nl=False)
    if not suggestion.rules:
        action = policy.classes[class_name].action
        hint = (
            "" if action == "report" else f" (its action is {action}; a suggestion needs the records of action report)"
        )
        print_error(f"nothing to suggest for class {class_name} since {escape(since)}{hint}")
        raise typer.Exit(NEGATIVE)


@app.command()
def schema() -> None:
    """Print the JSON Schema of policies, for editors.

    Save the schema in the directory of the policy. Begin the policy with
    `# yaml-language-server: $schema=policy.schema.json`.
    """
    typer.echo(schema_text(), nl=False)


def _diff(file: Path, settings: Settings, class_name: str, suggestion: Suggestion) -> bytes:
    if not suggestion.rules:
        return b""
    data = file.read_bytes()
    changed = suggested_text(data, str(file), settings.llm_hosts, class_name, suggestion)
    return unified_diff(data, changed, file.name).encode()


def _known_class(policy: Policy, class_name: str) -> None:
    if class_name not in policy.classes:
        print_error(f"there is no class {escape(class_name)}; there are {', '.join(policy.classes)}")
        raise typer.Exit(BAD_INPUT)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        print_error(f"{host} does not resolve on this machine: {error}")
        raise typer.Exit(NEGATIVE) from None
    return list(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in found))
