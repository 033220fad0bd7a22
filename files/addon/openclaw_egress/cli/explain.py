"""Policy evaluation for `egress policy explain` and `test`, with the same steps as the proxy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openclaw_egress.policy.codes import Code, Evidence
from openclaw_egress.policy.destination import Destination, DestinationError, parse_destination, split_url
from openclaw_egress.policy.evaluate import decide, with_addresses
from openclaw_egress.policy.model import Decision, Policy

type LookUp = Callable[[str, int], list[str]]
"""A function that returns the addresses of a host and port."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision, and the addresses that were checked for it, in the order of the checks."""

    destination: str
    decision: Decision
    addresses: tuple[tuple[str, Decision], ...] = ()


def ask(policy: Policy, class_name: str, url: str, method: str, look_up: LookUp | None = None) -> Verdict:
    """Return the policy's decision on a request, with the same steps as the proxy.

    For an ``https`` URL, first evaluate the CONNECT, which shows only host and port. If the host is inspected, then
    evaluate the request inside the tunnel.

    Args:
        policy: the policy to evaluate.
        class_name: the class of the client.
        url: ``https://host/path``, or ``host:port``.
        method: the HTTP method; its case matters. Method and path are evaluated only if the host is inspected.
        look_up: resolves an allowed name, so that its addresses are checked as well. Without this function, only IP
            literals and the policy's fixed addresses are checked.

    Raises:
        DestinationError: ``url`` has no host and port.
    """
    scheme, host, port, path = split_url(url)
    text = f"{host}:{port}"
    try:
        destination = parse_destination(host, port)
    except DestinationError as error:
        return Verdict(text, Decision.denial(Code.INVALID_DESTINATION, Evidence(detail=str(error))))
    steps: list[tuple[str | None, str | None]] = [(method, path)]
    if scheme != "http":
        steps = [(None, None), *(steps if policy.inspects(destination.host) else [])]
    addresses: tuple[tuple[str, Decision], ...] = ()
    found: list[str] | None = None
    for known in steps:
        decision = decide(policy, class_name, destination, *known)
        if not decision.allow:
            break
        if found is None:
            found = _addresses(policy, destination, look_up)
        # Like the proxy, check the addresses both for CONNECT and for the request, because an address exception can be
        # limited to some methods and paths.
        addresses = _decide_addresses(policy, class_name, destination, found, *known)
        decision = with_addresses(decision, [verdict for _, verdict in addresses])
        if not decision.allow:
            break
    return Verdict(text, decision, addresses)


def _addresses(policy: Policy, destination: Destination, look_up: LookUp | None) -> list[str]:
    known = destination.address or policy.fixed_address(destination.host)
    if known is not None:
        return [str(known)]
    return look_up(destination.host, destination.port) if look_up is not None else []


def _decide_addresses(
    policy: Policy,
    class_name: str,
    destination: Destination,
    found: list[str],
    method: str | None,
    path: str | None,
) -> tuple[tuple[str, Decision], ...]:
    if not found:
        return ()
    from openclaw_egress.proxy.request_checks import check_address  # noqa: PLC0415  (mitmproxy takes a second to load)

    addresses: list[tuple[str, Decision]] = []
    for address in found:
        addresses.append((address, check_address(policy, class_name, destination, address, method, path)))
        if not addresses[-1][1].allow:
            break
    return tuple(addresses)
