"""Data model of the policy: the classes with their rules and limits, and the decision on a request.

``loader`` reads a policy from ``policy.yml``; ``evaluate`` makes the decisions.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from openclaw_egress.policy import codes
from openclaw_egress.policy.codes import Code, Evidence
from openclaw_egress.policy.destination import Address, DestinationError, canonical_host
from openclaw_egress.policy.mask_patterns import MaskPattern
from openclaw_egress.policy.rules import Rules, describe_rule
from openclaw_egress.policy.yaml_reader import FileError

type Action = Literal["open", "enforce", "report"]
ACTIONS: tuple[Action, ...] = ("open", "enforce", "report")


class PolicyError(FileError):
    """An error in a policy, which therefore cannot be used."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of evaluating the policy for a request: allow or deny, with the rule and the reason.

    Attributes:
        rule: ``classes.sandbox.allow[3]``, ``classes.gateway.addresses[0]``, ``default``, ``address-guard``, or
            ``unknown-class``.
        code: the kind of the decision, for programs.
        inspect: whether the proxy must decrypt and record the host's traffic.
        would_deny: whether ``report`` allowed a request that ``enforce`` would deny.
        tls: whether only TLS may follow CONNECT; False if the rule has ``tls: false``.
        limited: whether the deciding rule or exception names methods or paths. Access control then refuses requests
            that an origin could interpret with another method, path or protocol than the policy.
        evidence: the values that led to the decision, for programs and for ``reason``.
    """

    allow: bool
    rule: str
    code: Code
    inspect: bool
    would_deny: bool = False
    tls: bool = True
    limited: bool = False
    evidence: Evidence = codes.NOTHING

    @classmethod
    def denial(
        cls, code: Code, evidence: Evidence = codes.NOTHING, *, inspect: bool = False, softened: bool = False
    ) -> Decision:
        """Return a denial that no rule of the policy made.

        If ``softened`` is True, the decision allows the request and only reports that ``enforce`` would deny it.
        """
        return cls(softened, codes.rule_of(code, evidence), code, inspect, softened, evidence=evidence)

    @property
    def reason(self) -> str:
        """Return the reason for the decision as one clause for people to read."""
        return codes.reason(self.code, self.evidence)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one class, which keep it from using up the proxy's resources. None means no limit.

    Attributes:
        connections: maximum concurrent connections of clients.
        requests_per_minute: maximum rate of new requests and tunnels; a burst may have up to a tenth of this number.
        header_bytes: maximum size of a request's head, including the request line.
        headers: maximum number of header fields of a request.
        header_seconds: maximum time from the first byte of a head to its last, and from CONNECT to TLS.
        idle_seconds: maximum time between requests on a connection, and between two reads of a request's body.
        total_seconds: maximum lifetime of a connection, even while it is in use.
        tokens_per_hour: budget of input and output tokens per hour (UTC). Once it is used up, requests to inspected
            hosts are refused until the next hour.
        tokens_per_day: the same budget, but per day (UTC).
        cost_usd_per_day: budget of known costs per day (UTC), in US dollars.
    """

    connections: int = 256
    requests_per_minute: int | None = None
    header_bytes: int = 64 * 1024
    headers: int = 200
    header_seconds: int = 30
    idle_seconds: int = 300
    total_seconds: int | None = None
    tokens_per_hour: int | None = None
    tokens_per_day: int | None = None
    cost_usd_per_day: float | None = None


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """The part of the policy for one class.

    ``addresses`` are its exceptions to the address guard. ``instance`` is the gateway that alone uses the listener of
    this class; empty if the policy does not say so.
    """

    name: str
    listen: int
    action: Action
    allow: Rules = field(default_factory=Rules)
    deny: Rules = field(default_factory=Rules)
    addresses: Rules = field(default_factory=Rules)
    limits: Limits = Limits()
    log_tunnels: bool = False
    allow_line: int | None = None
    instance: str = ""


@dataclass(frozen=True)
class Policy:
    """A valid policy.

    Attributes:
        classes: classes by name, in the file's order.
        inspect: the inspected hosts of every class, as canonical names and ``*.`` wildcards.
        resolve: fixed addresses by canonical name.
        digest: first 12 hex digits of the SHA-256 of the file's bytes.
        warnings: probable mistakes, for the operator, as ``file:line: text``. They do not affect decisions.
        host_addresses: addresses of the proxy's host; the address guard refuses them.
        mask: the operator's patterns of secrets to mask in records.
    """

    classes: Mapping[str, ClassPolicy]
    inspect: tuple[str, ...]
    resolve: Mapping[str, Address]
    digest: str
    warnings: tuple[str, ...] = ()
    host_addresses: Container[Address] = frozenset()
    mask: tuple[MaskPattern, ...] = ()

    def inspects(self, host: str) -> bool:
        """Return whether the host is an inspected host; False for addresses and for invalid hosts."""
        try:
            name, address = canonical_host(host)
        except DestinationError:
            return False
        return address is None and is_inspected(name, self.inspect)

    def fixed_address(self, host: str) -> Address | None:
        """Return the fixed address of a canonical name, or None if the name must be resolved.

        The address guard checks fixed and resolved addresses.
        """
        return self.resolve.get(host)

    def class_for_port(self, port: int) -> ClassPolicy | None:
        """Return the class whose listener has this port, or None."""
        return next((item for item in self.classes.values() if item.listen == port), None)

    def instance_of(self, class_name: str) -> str:
        """Return the gateway that alone uses the class's listener; empty if none is named, or for an unknown class."""
        found = self.classes.get(class_name)
        return "" if found is None else found.instance

    def describe(self, class_name: str) -> str:
        """Return a description of the class in a few lines, for people to read."""
        found = self.classes.get(class_name)
        if found is None:
            return f"there is no class {class_name}; the policy has {', '.join(self.classes)}"
        instance = f", instance {found.instance}" if found.instance else ""
        lines = [f"{found.name}: listens on {found.listen}, action {found.action}{instance}"]
        lines += [f"  {rule.name}: {describe_rule(rule)}" for part in (found.deny, found.allow) for rule in part]
        lines += [f"  {rule.name}: exception to the address guard, {describe_rule(rule)}" for rule in found.addresses]
        return "\n".join(lines)


def is_inspected(name: str, patterns: Sequence[str]) -> bool:
    """Return whether ``patterns`` match ``name``. If ``name`` is a ``*.`` wildcard, they must match all its names."""
    return any(name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:])) for pattern in patterns)
