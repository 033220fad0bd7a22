"""What would allow a denied destination: the rule and where it belongs, or what to do where no rule can. Pure."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from openclaw_egress.denials import ANY, NOT_TLS, SINGLY_PER_CLASS, DenialGroup
from openclaw_egress.destinations import Address, Destination, DestinationError, guarded_name, parse_destination
from openclaw_egress.policy import LIMITED_EXCEPTION


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRule:
    """A rule that is to be written into a policy: a host or a range of addresses, with its ports."""

    ports: tuple[int, ...]
    host: str | None = None
    cidr: str | None = None
    tls: bool = True

    def __str__(self) -> str:
        """As in the file: ``{host: packages.example.com, ports: [443]}``."""
        subject = f"host: {_scalar(self.host)}" if self.host is not None else f"cidr: {_scalar(str(self.cidr))}"
        ports = ", ".join(map(str, self.ports))
        return f"{{{subject}, ports: [{ports}]{'' if self.tls else ', tls: false'}}}"

    def as_json(self) -> dict[str, object]:
        """The same for programs."""
        subject = {"host": self.host} if self.host is not None else {"cidr": self.cidr}
        return {**subject, "ports": list(self.ports)} | ({} if self.tls else {"tls": False})


@dataclass(frozen=True, slots=True)
class Remedy:
    """What the operator can do: ``rules`` are those that would allow it, each with the list it belongs to.

    Where there is none, ``advice`` says what else helps; otherwise what is worth knowing before the rule is written.
    """

    rules: Sequence[tuple[str, NewRule]] = ()
    advice: str = ""

    def __str__(self) -> str:
        rules = " and ".join(f"{under}: {rule}" for under, rule in self.rules)
        return "; ".join(filter(None, (rules, self.advice)))


def remedy_for(group: DenialGroup) -> Remedy:
    """What would allow this destination to this class, as the denial's rule and reason tell."""
    name, rule = group.class_name, group.rule
    if rule == ANY:
        return Remedy(
            advice=f"counted for the whole class, beyond {SINGLY_PER_CLASS} in a minute: where to was not kept"
        )
    if rule.startswith(f"classes.{name}.deny["):
        return Remedy(advice=f"deny goes before allow: narrow {rule}, or take it out")
    if rule.startswith(f"classes.{name}.limits."):
        return Remedy(advice=f"raise {rule}, where that much is meant")
    if rule == "recording":
        return Remedy(advice="no rule can allow what cannot be recorded: let the client do without WebSockets there")
    if rule == "unknown-class":
        return Remedy(advice=f"name class {name} under classes")
    destination = _destination(group)
    if destination is not None and rule == "address-guard":
        return _exception(group, destination)
    if destination is not None and rule == "default":
        return Remedy([_allow(name, destination)])
    if destination is not None and (rule, group.reason) == ("syntax", NOT_TLS):
        return Remedy([_allow(name, destination, tls=False)], "not where the host is inspected")
    return Remedy(advice=f"no rule can allow it, the client must ask in another way: {group.reason}")


def _destination(group: DenialGroup) -> Destination | None:
    """None where what was asked for is no destination."""
    try:
        return parse_destination(group.host, group.port)
    except DestinationError:
        return None


def _allow(class_name: str, destination: Destination, *, tls: bool = True) -> tuple[str, NewRule]:
    return f"classes.{class_name}.allow", NewRule(host=destination.host, ports=(destination.port,), tls=tls)


def _exception(group: DenialGroup, destination: Destination) -> Remedy:
    addresses = _guarded_addresses(group, destination)
    under = f"classes.{group.class_name}.addresses"
    if LIMITED_EXCEPTION in group.reason:
        return Remedy(advice=f"no exception without methods and paths is proposed: {group.reason}; widen that one")
    if not addresses:
        return Remedy(
            advice=f"{under}: {{cidr: …, ports: [{destination.port}]}} with the address that {group.host} has"
        )
    rules = [
        (under, NewRule(cidr=str(ipaddress.ip_network(address)), ports=(destination.port,))) for address in addresses
    ]
    if destination.address is not None:
        # An exception alone is for names that have the address.
        rules.insert(0, _allow(group.class_name, destination))
    return Remedy(rules, "an exception to the address guard")


def _guarded_addresses(group: DenialGroup, destination: Destination) -> tuple[Address, ...]:
    """The addresses that the guard refused: the destination itself, what its name means, or as the reason says."""
    if destination.address is not None:
        return (destination.address,)
    if (known := guarded_name(destination.host)) is not None:
        return known[1]
    for word in group.reason.split():
        try:
            return (ipaddress.ip_address(word.rstrip(",")),)
        except ValueError:
            continue
    return ()


_PLAIN = re.compile(r"[a-z_][a-z0-9_-]*(\.[a-z0-9_-]+)+|[0-9]+(\.[0-9]+){3}(/[0-9]+)?")


def _scalar(text: str) -> str:
    """A text in YAML's flow style: plain where nothing else can be meant, else in quotes."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
