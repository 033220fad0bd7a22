"""``egress policy check`` and ``explain``."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from openclaw_egress.cli.output import BAD_INPUT, NEGATIVE, complain, harmless, print_json
from openclaw_egress.destinations import DestinationError, parse_destination
from openclaw_egress.policy import Decision, Policy, builtin_policy, decide, load_policy
from openclaw_egress.settings import DEFAULT_LLM_HOSTS, Settings

app = typer.Typer(no_args_is_help=True, help="Check the policy, and ask it.")

File = Annotated[
    Path | None, typer.Option("--policy", help="Policy file [env: EGRESS_POLICY_FILE]; without: built in.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="Policy file; without it, EGRESS_POLICY_FILE.")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether a policy can be used: exit code 0, or 2 with file, line, what is wrong and what to do."""
    policy = policy_of(Settings.load(policy_file=file))
    if as_json:
        classes = {found.name: {"listen": found.listen, "action": found.action} for found in policy.classes.values()}
        print_json(
            {"digest": policy.digest, "inspect": policy.inspect, "classes": classes, "warnings": policy.warnings}
        )
        return
    for warning in policy.warnings:
        complain(f"warning: {warning}")
    for name in policy.classes:
        typer.echo(policy.describe(name))
    typer.echo(f"inspected: {', '.join(policy.inspect)}\nthe policy is good (digest {policy.digest})")


@app.command()
def explain(
    class_name: Annotated[str, typer.Argument(metavar="CLASS", help="gateway, browser, sandbox, build, …")],
    url: Annotated[str, typer.Argument(help="https://host/path, http://host:port/, or host:port.")],
    method: Annotated[str, typer.Option(help="HTTP method, for rules that name methods.")] = "GET",
    resolve: Annotated[bool, typer.Option("--resolve", help="Look the name up and check its addresses too.")] = False,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """What the policy decides, by which rule and why. Exit code 0 allowed, 1 denied."""
    policy = policy_of(Settings.load(policy_file=file))
    if class_name not in policy.classes:
        complain(f"there is no class {harmless(class_name)}; there are {', '.join(policy.classes)}")
        raise typer.Exit(BAD_INPUT)
    host, port, path = _parts(url)
    answers: list[dict[str, Any]] = []
    try:
        destination = parse_destination(host, port)
    except DestinationError as error:
        decision = Decision(allow=False, rule="syntax", reason=str(error), inspect=False)
    else:
        inspected = policy.inspects(destination.host)
        decision = decide(policy, class_name, destination, *((method.upper(), path) if inspected else (None, None)))
        known = destination.address or policy.fixed_address(destination.host)
        if decision.allow and (known is not None or resolve):
            from openclaw_egress.proxy.gate import check_address  # noqa: PLC0415  (mitmproxy takes a second to load)

            for address in [str(known)] if known is not None else _addresses(destination.host, port):
                verdict = check_address(policy, class_name, destination, address)
                answers.append({"address": address, "allow": verdict.allow, "reason": verdict.reason})
                if not verdict.allow:
                    decision = verdict
                    break
    _answer(class_name, f"{host}:{port}", decision, answers, as_json)
    if not decision.allow:
        raise typer.Exit(NEGATIVE)


def _answer(
    class_name: str, destination: str, decision: Decision, addresses: list[dict[str, Any]], as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "class": class_name,
                "destination": destination,
                "allow": decision.allow,
                "rule": decision.rule,
                "reason": decision.reason,
                "inspect": decision.inspect,
                "would_deny": decision.would_deny,
                "addresses": addresses,
            }
        )
        return
    word = "allowed" if decision.allow else "denied"
    if decision.would_deny:
        word = "allowed (report only: enforce would deny it)"
    typer.echo(f"{word}: {harmless(decision.reason)}\nrule:    {decision.rule}")
    if decision.allow:
        typer.echo(f"traffic: {'decrypted and recorded' if decision.inspect else 'tunnelled, not decrypted'}")
    for answer in addresses:
        typer.echo(f"address: {answer['address']} {'ok' if answer['allow'] else 'refused'}")


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings name, or the built-in one."""
    if settings.policy_file is not None:
        return load_policy(settings.policy_file, settings.llm_hosts)
    return builtin_policy(settings.llm_hosts or DEFAULT_LLM_HOSTS)


def _parts(url: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url if "://" in url else f"//{url}", scheme="https")
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
        host = parts.hostname
    except ValueError as error:
        complain(f"{harmless(url)}: {error}")
        raise typer.Exit(BAD_INPUT) from None
    if not host or not port:
        complain(f"{harmless(url)} names no host; write https://host/path or host:port")
        raise typer.Exit(BAD_INPUT)
    return host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        complain(f"{host} does not resolve here: {error}")
        raise typer.Exit(NEGATIVE) from None
    return list(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in found))
