"""``egress policy check`` and ``explain``."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from openclaw_egress.cli.output import BAD_INPUT, NEGATIVE, complain, harmless, print_json
from openclaw_egress.destinations import Destination, DestinationError, parse_destination
from openclaw_egress.policy import Decision, Policy, builtin_policy, decide, load_policy, with_addresses
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
    try:
        found = decide_request(policy, class_name, url, method, _addresses if resolve else None)
    except ValueError as error:
        complain(f"{harmless(url)}: {harmless(str(error))}; write https://host/path or host:port")
        raise typer.Exit(BAD_INPUT) from None
    _answer(class_name, found, as_json)
    if not found.decision.allow:
        raise typer.Exit(NEGATIVE)


@dataclass(frozen=True, slots=True)
class Explained:
    """What the proxy would decide on a request.

    Attributes:
        asked: host and port as in the URL.
        addresses: those that were looked at, each with the decision on it, up to the first that is refused.
    """

    asked: str
    decision: Decision
    addresses: tuple[tuple[str, Decision], ...] = ()


def decide_request(
    policy: Policy,
    class_name: str,
    url: str,
    method: str = "GET",
    addresses_of: Callable[[str, int], Sequence[str]] | None = None,
) -> Explained:
    """What the proxy decides on a request for a URL, step by step as the proxy does.

    ``https`` begins with a CONNECT, of which only host and port are known; where the host is inspected the request
    inside is decided after it. ``addresses_of`` gives a name's addresses; without it only literals and fixed answers
    are looked at.

    Raises:
        ValueError: the URL names no host.
    """
    scheme, host, port, path = _parts(url)
    asked = f"{host}:{port}"
    try:
        destination = parse_destination(host, port)
    except DestinationError as error:
        return Explained(asked, Decision(allow=False, rule="syntax", reason=str(error), inspect=False))
    steps: list[tuple[str | None, str | None]] = [(method.upper(), path)]
    if scheme != "http":
        steps = [(None, None), *(steps if policy.inspects(destination.host) else [])]
    answers: tuple[tuple[str, Decision], ...] | None = None
    for known in steps:
        decision = decide(policy, class_name, destination, *known)
        if not decision.allow:
            return Explained(asked, decision, answers or ())
        if answers is None:
            answers = _decide_addresses(policy, class_name, destination, addresses_of)
        decision = with_addresses(decision, [verdict for _, verdict in answers])
        if not decision.allow:
            break
    return Explained(asked, decision, answers or ())


def _decide_addresses(
    policy: Policy,
    class_name: str,
    destination: Destination,
    addresses_of: Callable[[str, int], Sequence[str]] | None,
) -> tuple[tuple[str, Decision], ...]:
    known = destination.address or policy.fixed_address(destination.host)
    if known is None and addresses_of is None:
        return ()
    from openclaw_egress.proxy.gate import check_address  # noqa: PLC0415  (mitmproxy takes a second to load)

    answers: list[tuple[str, Decision]] = []
    for address in [str(known)] if known is not None else addresses_of(destination.host, destination.port):  # type: ignore[misc]
        answers.append((address, check_address(policy, class_name, destination, address)))
        if not answers[-1][1].allow:
            break
    return tuple(answers)


def _answer(class_name: str, found: Explained, as_json: bool) -> None:
    decision = found.decision
    if as_json:
        print_json(
            {
                "class": class_name,
                "destination": found.asked,
                "allow": decision.allow,
                "rule": decision.rule,
                "reason": decision.reason,
                "inspect": decision.inspect,
                "would_deny": decision.would_deny,
                "addresses": [
                    {"address": address, "allow": verdict.allow, "reason": verdict.reason}
                    for address, verdict in found.addresses
                ],
            }
        )
        return
    word = "allowed" if decision.allow else "denied"
    if decision.would_deny:
        word = "allowed (report only: enforce would deny it)"
    typer.echo(f"{word}: {harmless(decision.reason)}\nrule:    {decision.rule}")
    if decision.allow:
        typer.echo(f"traffic: {'decrypted and recorded' if decision.inspect else 'tunnelled, not decrypted'}")
    for address, verdict in found.addresses:
        typer.echo(f"address: {address} {'ok' if verdict.allow else 'refused'}")


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings name, or the built-in one."""
    if settings.policy_file is not None:
        return load_policy(settings.policy_file, settings.llm_hosts)
    return builtin_policy(settings.llm_hosts or DEFAULT_LLM_HOSTS)


def _parts(url: str) -> tuple[str, str, int, str]:
    parts = urlsplit(url if "://" in url else f"//{url}", scheme="https")
    port = parts.port
    if port is None:
        port = {"https": 443, "http": 80, "wss": 443, "ws": 80}.get(parts.scheme)
    if not parts.hostname or port is None:
        raise ValueError("it names no host" if port is not None else f"{parts.scheme}: has no port that is known")
    return parts.scheme, parts.hostname, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        complain(f"{host} does not resolve here: {error}")
        raise typer.Exit(NEGATIVE) from None
    return list(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in found))
