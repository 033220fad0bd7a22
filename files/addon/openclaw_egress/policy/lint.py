"""Warnings about probable mistakes in a valid policy: rules without effect, and disabled protection."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from itertools import islice

from openclaw_egress.policy.destination import SPECIAL_RANGES, Network, guard_reason, literal_of
from openclaw_egress.policy.model import ClassPolicy
from openclaw_egress.policy.rules import Rule, Rules
from openclaw_egress.policy.yaml_reader import Node


def class_warnings(found: ClassPolicy) -> Iterator[str]:
    """Yield warnings, as ``line: text``, about valid rules that are probably mistakes."""
    if found.action == "open" and found.allow_line and not found.allow.all:
        yield f"{found.allow_line}: classes.{found.name}.allow is empty, but action open allows every name anyway"
    for rule in found.addresses:
        for special in SPECIAL_RANGES:
            if special.name == "cloud metadata" and rule.network and _within(special.network, rule.network):
                what = f"{special.name} ({special.cidr}, {special.source})"
                yield f"{rule.line}: {rule.name} disables the address guard for {what}"
        if rule.limited and (cover := _cover(rule, found.addresses, same_list=True)):
            yield f"{rule.line}: {rule.name} has no effect: {cover.name} (line {cover.line}) already permits all of it"
    for rule in found.deny:
        if cover := _cover(rule, found.deny, same_list=True):
            yield f"{rule.line}: {rule.name} has no effect: {cover.name} (line {cover.line}) already denies this"
    for rule in found.allow:
        if cover := _cover(rule, found.deny):
            yield f"{rule.line}: {rule.name} has no effect: {cover.name} (line {cover.line}) denies this"
        elif cover := _cover(rule, found.allow, same_list=True):
            yield f"{rule.line}: {rule.name} has no effect: {cover.name} (line {cover.line}) already allows this"
        elif reason := _guarded_rule(rule, found):
            yield (
                f"{rule.line}: {rule.name} has no effect: {rule.subject} is {reason}, "
                "so the address guard refuses it; add an exception in `addresses`"
            )
        elif found.action == "open" and rule.host is not None and rule.tls and literal_of(rule.host) is None:
            yield f"{rule.line}: {rule.name} has no effect: action open allows every name"


def answer_warnings(node: Node, classes: Mapping[str, ClassPolicy]) -> Iterator[str]:
    """Yield warnings, as ``line: text``, about fixed addresses (``resolve``) that the address guard refuses."""
    for name, entry in node.mapping().items():
        answer = ipaddress.ip_address(entry.value)
        reason = guard_reason(answer)
        if reason and not any(rule.contains(answer) for found in classes.values() for rule in found.addresses):
            yield (
                f"{entry.line}: resolve.{name}: {answer} is {reason}, so the address guard refuses it; "
                "add an exception in `addresses`"
            )


def _cover(rule: Rule, rules: Rules, *, same_list: bool = False) -> Rule | None:
    """Return a rule in ``rules`` that matches every request that ``rule`` matches, or None.

    If ``same_list`` is True, ``rules`` contains ``rule`` itself. Rules after it for the same host are then skipped: of
    two equal rules, only the later one is reported. The search stops after a fixed number of rules, so it can miss one.
    """
    if rule.network is not None:
        found: Iterator[Rule] = (other for other in rules.networks[:500] if _within(rule.network, other.network))
    else:
        address = literal_of(rule.subject)
        found = rules.about(rule.subject, address, star=address is None or not same_list)
    for other in islice(found, 50):
        twin = same_list and other.subject == rule.subject and not rules.before(other, rule)
        if other is not rule and not twin and _as_wide(other, rule):
            return other
    return None


def _as_wide(other: Rule, rule: Rule) -> bool:
    return (
        (other.ports is None or (rule.ports is not None and other.ports >= rule.ports))
        and other.methods is None
        and other.paths is None
        and (rule.tls or not other.tls)
    )


def _within(inner: Network, outer: Network | None) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def _guarded_rule(rule: Rule, found: ClassPolicy) -> str | None:
    """Return the reason why the address guard refuses every address of a rule.

    Return None if the guard does not refuse all of them, or if an exception overlaps the rule.
    """
    if rule.network is not None:
        first, last = rule.network.network_address, rule.network.broadcast_address
    elif (address := literal_of(rule.subject)) is not None:
        first = last = address
    else:
        return None
    reason = guard_reason(first)
    excepted = any(
        exception.network is not None and (_within(exception.network, net) or _within(net, exception.network))
        for net in [ipaddress.ip_network(first) if rule.network is None else rule.network]
        for exception in found.addresses
    )
    return None if reason is None or excepted or guard_reason(last) != reason else reason
