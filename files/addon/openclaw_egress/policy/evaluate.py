"""Policy evaluation: whether a class may reach a destination. Pure functions.

The caller evaluates a request in three steps:

1. ``decide`` evaluates host, port, method and path. It resolves no name, so a denied request causes no DNS query.
2. ``decide_address`` checks each address that the name of an allowed request resolved to.
3. ``with_addresses`` combines these decisions.

``decide`` checks in this order, and the first match decides:

1. the rules in the class's ``deny``;
2. the address guard, which denies special address literals and names such as ``localhost``, unless an exception in
   the class's ``addresses`` permits the address;
3. the rules in the class's ``allow``;
4. the class's ``action``:

========  =========================================================================================
action    requests that no rule matches
========  =========================================================================================
open      allow every name, on every port
enforce   deny
report    allow, and set ``Decision.would_deny``; a rule in ``deny`` that matches a name only reports, too
========  =========================================================================================

With every action:

- A request to an address literal is denied unless a rule names the address.
- The address guard applies.
- An exception in ``addresses`` with methods or paths is valid for plain HTTP requests only. It never permits a
  CONNECT, because a tunnel hides methods and paths.
- ``*.example.com`` matches every name below ``example.com``, at any depth, but not ``example.com``.
- Without ``ports``, a rule in ``allow`` matches only the ports 80 and 443, and a rule in ``deny`` matches every port.
  A forgotten ``ports`` therefore never opens other ports.
- A path is compared without its query: exactly, or as a prefix if the rule ends in ``*``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from openclaw_egress.policy.codes import Code, Evidence
from openclaw_egress.policy.destination import Address, Destination, guard_reason, guarded_name
from openclaw_egress.policy.model import ClassPolicy, Decision, Policy, is_inspected
from openclaw_egress.policy.rules import Rule, describe_rule


def decide(
    policy: Policy, class_name: str, destination: Destination, method: str | None = None, path: str | None = None
) -> Decision:
    """Return whether a class may request a destination. Resolve no name, and never raise an exception.

    For a CONNECT, ``method`` and ``path`` are None. If the host is inspected, each request inside the tunnel is then
    evaluated again with both.
    """
    evidence = Evidence(class_name, destination)
    found = policy.classes.get(class_name)
    if found is None:
        return Decision.denial(Code.UNKNOWN_CLASS, evidence)
    host, address, port = destination.host, destination.address, destination.port
    inspect = address is None and is_inspected(host, policy.inspect)
    allowing = _allowing(found, destination, method, path)
    denying = next(
        (rule for rule in found.deny.about(host, address) if rule.serves(port) and rule.meets(method, path, deny=True)),
        None,
    )
    softened = found.action == "report" and (address is None or allowing is not None)
    if denying is not None:
        code = Code.DENIED_BY_RULE
        return Decision(softened, denying.name, code, inspect, would_deny=softened, evidence=evidence)
    # A rule in `deny` with methods or paths also makes the decision `limited`. The proxy then refuses header fields
    # that could make the origin interpret the request as a denied one.
    limited = (allowing is not None and allowing.limited) or any(
        rule.limited and rule.serves(port) for rule in found.deny.about(host, address)
    )
    guarded = _guarded(found, evidence, destination, method, path)
    if guarded is not None:
        return Decision.denial(*guarded, inspect=inspect)
    if allowing is not None:
        tls = allowing.tls or inspect
        return Decision(True, allowing.name, Code.ALLOWED_BY_RULE, inspect, tls=tls, limited=limited, evidence=evidence)
    if address is not None:
        return Decision.denial(Code.LITERAL_WITHOUT_RULE, evidence, inspect=inspect)
    if found.action == "open":
        return Decision(True, "default", Code.ALLOWED_BY_ACTION, inspect, limited=limited, evidence=evidence)
    return Decision.denial(*_unmatched(found, evidence, destination), inspect=inspect, softened=softened)


def decide_address(
    policy: Policy,
    class_name: str,
    destination: Destination,
    ip: Address,
    method: str | None = None,
    path: str | None = None,
) -> Decision:
    """Return whether a class may connect to ``ip``, one of the addresses of a destination that :func:`decide` allowed.

    The address guard denies even if the class's action is ``report``. The decision's rule is:

    - ``default`` for a public address;
    - ``classes.NAME.addresses[N]`` for an exception to the address guard;
    - ``address-guard``, or the network rule in ``deny``, for a denial.
    """
    evidence = Evidence(class_name, destination, address=ip)
    found = policy.classes.get(class_name)
    if found is None:
        return Decision.denial(Code.UNKNOWN_CLASS, evidence)
    inspect = destination.address is None and is_inspected(destination.host, policy.inspect)
    denying = found.deny.covering(ip, destination.port)
    if denying is not None:
        softened = found.action == "report"
        evidence = evidence._replace(network=denying.network)
        denied = Decision(
            softened, denying.name, Code.ADDRESS_DENIED_BY_RULE, inspect, would_deny=softened, evidence=evidence
        )
        if not softened:
            return denied
    exception = found.addresses.permitting(ip, destination.port, method, path)
    guarded = guard_reason(ip)
    if exception is None and (guarded is not None or ip in policy.host_addresses):
        return Decision.denial(*_refused_by_guard(found, evidence, guarded, (ip,)), inspect=inspect)
    if denying is not None:
        return denied
    if exception is not None:
        limited = exception.limited
        return Decision(True, exception.name, Code.ADDRESS_EXCEPTION, inspect, limited=limited, evidence=evidence)
    return Decision(True, "default", Code.ADDRESS_PUBLIC, inspect, evidence=evidence)


def with_addresses(decision: Decision, verdicts: Iterable[Decision]) -> Decision:
    """Combine the decision that allowed a name with the decisions on its addresses.

    If an address is denied, return its denial. Otherwise return ``decision``, with ``would_deny`` or ``limited`` set if
    they are set in a decision on an address.
    """
    for verdict in verdicts:
        if not verdict.allow:
            return verdict
        if verdict.would_deny and not decision.would_deny:
            decision = replace(
                decision, rule=verdict.rule, code=verdict.code, evidence=verdict.evidence, would_deny=True
            )
        if verdict.limited:
            decision = replace(decision, limited=True)
    return decision


def _allowing(found: ClassPolicy, destination: Destination, method: str | None, path: str | None) -> Rule | None:
    """Return the rule that allows the request; ``*`` never matches an address literal.

    For an ``open`` class, an address exception also permits requests to the literal IP. For other classes it does not:
    access to one hostname in a private network must not grant access to the whole network by IP.
    """
    address = destination.address
    for rule in found.allow.about(destination.host, address, star=address is None):
        if rule.serves(destination.port) and rule.meets(method, path, deny=False):
            return rule
    if address is None or found.action != "open":
        return None
    return found.addresses.permitting(address, destination.port, method, path)


def _guarded(
    found: ClassPolicy, evidence: Evidence, destination: Destination, method: str | None, path: str | None
) -> tuple[Code, Evidence] | None:
    """Return the address guard's denial of a destination, or None.

    Without a look-up, the guard can deny only address literals and the names in `GUARDED_NAMES`.
    """
    if destination.address is not None:
        stands_for, reason = (destination.address,), guard_reason(destination.address)
    else:
        named = guarded_name(destination.host)
        reason, stands_for = (None, ()) if named is None else named  # type: ignore[assignment]
    if reason is None or any(found.addresses.permitting(ip, destination.port, method, path) for ip in stands_for):
        return None
    return _refused_by_guard(found, evidence._replace(address=destination.address), reason, stands_for)


def _refused_by_guard(
    found: ClassPolicy, evidence: Evidence, guarded: str | None, addresses: Sequence[Address]
) -> tuple[Code, Evidence]:
    """Return the address guard's denial.

    If an exception covers the address but not this method or path, the denial names the exception. ``guarded`` is the
    kind of the special address, such as loopback. It is None if the guard refuses the address only because it belongs
    to the proxy's host.
    """
    port = evidence.destination.port if evidence.destination is not None else 0
    evidence = evidence._replace(range=guarded or "an address of this proxy's host")
    for rule in found.addresses.networks:
        if rule.serves(port) and any(rule.contains(ip) for ip in addresses):
            return Code.EXCEPTION_NOT_MET, evidence._replace(rule=rule.name, allows=describe_rule(rule))
    return Code.HOST_ADDRESS if guarded is None else Code.ADDRESS_GUARDED, evidence


def _unmatched(found: ClassPolicy, evidence: Evidence, destination: Destination) -> tuple[Code, Evidence]:
    """Return the denial of a request that no rule matches. Name the most specific rule for its host, if any."""
    for rule in found.allow.about(destination.host, destination.address):
        return Code.RULE_NOT_MET, evidence._replace(rule=rule.name, allows=describe_rule(rule))
    return Code.NO_RULE, evidence
