"""Asks a policy as the proxy would: `egress policy explain` and `test` show what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openclaw_egress.destinations import DestinationError, parse_destination, split_url
from openclaw_egress.policy import Decision, Policy, decide

type LookUp = Callable[[str, int], list[str]]
"""Gives the addresses of a host and port."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided, and on which addresses, in the order in which they were looked at."""

    destination: str
    decision: Decision
    addresses: tuple[tuple[str, Decision], ...] = ()


def ask(policy: Policy, class_name: str, url: str, method: str, look_up: LookUp | None = None) -> Verdict:
    """What the policy decides on a request, by name, and by the addresses that are known without asking anybody.

    Args:
        policy: the policy to ask.
        class_name: who asks.
        url: ``https://host/path``, or ``host:port``.
        method: considered, as the path is, where the host is inspected.
        look_up: where it is given, the addresses of an allowed name are looked up and decided on too.

    Raises:
        DestinationError: ``url`` names no host and port.
    """
    host, port, path = split_url(url)
    text = f"{host}:{port}"
    try:
        destination = parse_destination(host, port)
    except DestinationError as error:
        return Verdict(text, Decision(allow=False, rule="syntax", reason=str(error), inspect=False))
    request = (method.upper(), path) if policy.inspects(destination.host) else (None, None)
    decision = decide(policy, class_name, destination, *request)
    found: list[str] = []
    if decision.allow:
        known = destination.address or policy.fixed_address(destination.host)
        if known is not None:
            found = [str(known)]
        elif look_up is not None:
            found = look_up(destination.host, port)
    if not found:
        return Verdict(text, decision)
    from openclaw_egress.proxy.gate import check_address  # noqa: PLC0415  (mitmproxy takes a second to load)

    addresses: list[tuple[str, Decision]] = []
    for address in found:
        checked = check_address(policy, class_name, destination, address)
        addresses.append((address, checked))
        if not checked.allow:
            return Verdict(text, checked, tuple(addresses))
    return Verdict(text, decision, tuple(addresses))
