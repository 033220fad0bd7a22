"""Remedies for denials: rules that would allow the destination, or other advice if no rule can. Pure functions."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.destination import (
    SPECIAL_RANGES,
    Address,
    Destination,
    DestinationError,
    guarded_name,
    parse_destination,
)
from openclaw_egress.recording.denials import ANY, SINGLY_PER_CLASS, DenialGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRule:
    """A rule to add to a policy: a host or an address range, with ports."""

    ports: tuple[int, ...]
    host: str | None = None
    cidr: str | None = None
    tls: bool = True

    def __str__(self) -> str:
        """Return the rule in the policy's syntax: ``{host: packages.example.com, ports: [443]}``."""
        subject = f"host: {_scalar(self.host)}" if self.host is not None else f"cidr: {_scalar(str(self.cidr))}"
        ports = ", ".join(map(str, self.ports))
        return f"{{{subject}, ports: [{ports}]{'' if self.tls else ', tls: false'}}}"

    def as_json(self) -> dict[str, object]:
        """Return the rule as a JSON object."""
        subject = {"host": self.host} if self.host is not None else {"cidr": self.cidr}
        return {**subject, "ports": list(self.ports)} | ({} if self.tls else {"tls": False})


@dataclass(frozen=True, slots=True)
class Remedy:
    """A proposal to the operator: rules that would allow the destination, and the policy list for each rule.

    If there are rules, ``advice`` is a warning about them. If there are none, it says what the operator can do instead.
    """

    rules: Sequence[tuple[str, NewRule]] = ()
    advice: str = ""

    def __str__(self) -> str:
        rules = " and ".join(f"{under}: {rule}" for under, rule in self.rules)
        return "; ".join(filter(None, (rules, self.advice)))


def remedy_for(group: DenialGroup, is_own: Callable[[str], bool] = lambda _: False) -> Remedy:
    """Return the remedy for a group of denials that have the same rule and code.

    ``is_own`` tests whether an address belongs to this machine.
    """
    name, rule = group.class_name, group.rule
    if rule == ANY:
        return Remedy(
            advice=f"the class had more than {SINGLY_PER_CLASS} denials in a minute, so destinations were not recorded"
        )
    if rule.startswith(f"classes.{name}.deny["):
        return Remedy(advice=f"deny is evaluated before allow: narrow {rule}, or remove it")
    if rule.startswith(f"classes.{name}.limits."):
        return Remedy(advice=f"raise {rule} if the class needs more")
    if rule == "recording":
        return Remedy(
            advice="no rule can allow traffic that cannot be recorded: the client must send the handshake of RFC 6455"
        )
    if rule == "response-syntax":
        return Remedy(advice=f"no rule can allow it: the server must send a valid response: {group.reason}")
    if rule == "dns":
        return Remedy(
            advice=f"no rule can help: check the name and the resolver of the proxy's container: {group.reason}"
        )
    if rule == "internal-error":
        return Remedy(advice="no rule can allow it: look for the error in the proxy's log")
    if rule == "memory-budget":
        return Remedy(advice=f"raise EGRESS_MEMORY_BUDGET and the container's memory limit: {group.reason}")
    if rule == "neighbours":
        return Remedy(advice=f"no rule can allow it: only addresses in EGRESS_NEIGHBOURS may connect: {group.reason}")
    if rule == "class-networks":
        return Remedy(
            advice=f"no rule can allow it: the client must use the listener of its own network's class: {group.reason}"
        )
    if rule == "upstream-proxy":
        if group.code == Code.UPSTREAM_PROXY_NAMED:
            return Remedy(advice=f"no rule is proposed: only this proxy uses its upstream proxy: {group.reason}")
        return Remedy(advice=f"no rule can help: check EGRESS_UPSTREAM_PROXY with `egress status`: {group.reason}")
    if rule == "unknown-class":
        return Remedy(advice=f"add class {name} under classes")
    destination = _destination(group)
    if destination is not None and (why := _never(group, destination, is_own)) is not None:
        return Remedy(advice=f"no rule is proposed: {why}")
    if destination is not None and rule == "address-guard":
        return _exception(group, destination)
    if destination is not None and rule == "default":
        return Remedy([_allow(name, destination)])
    if destination is not None and group.code == Code.NOT_TLS:
        return Remedy([_allow(name, destination, tls=False)], "valid only for a host that is not inspected")
    return Remedy(advice=f"no rule can allow it: the client must send a different request: {group.reason}")


# IPv6 addresses of the metadata services of AWS and Oracle Cloud. The AWS range also contains its services for EKS pod
# identities, time and DNS.
_METADATA = [ipaddress.ip_network(text) for text in ("fd00:ec2::/32", "fd00:c1::a9fe:a9fe/128")]
_METADATA += [row.network for row in SPECIAL_RANGES if row.name == "cloud metadata"]
_METADATA_NAMES = frozenset(
    {
        "instance-data",
        "instance-data.ec2.internal",
        "instance-data.local",
        "metadata",
        "metadata.azure.com",
        "metadata.azure.internal",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.internal",
        "metadata.oraclecloud.com",
        "metadata.packet.net",
        "metadata.platformequinix.com",
        "metadata.tencentyun.com",
        "rancher-metadata",
    }
)
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_EMBEDDING = [
    ipaddress.ip_network(text)
    for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
]


def never_opened(host: str, address: Address | None = None) -> str | None:
    """Return the reason why no rule may allow this canonical host or address; None if a rule may allow it.

    No rule may allow cloud metadata services, because they issue credentials, or loopback and link-local addresses,
    because they belong to the proxy's own host or link.
    """
    if host in _METADATA_NAMES:
        return f"{host} is a cloud metadata service, which issues credentials"
    known = guarded_name(host)
    for found in (address, *(known[1] if known is not None else ())):
        for part in _meanings(found) if found is not None else ():
            if any(part in network for network in _METADATA):
                return f"{part} is a cloud metadata service, which issues credentials"
            if part.is_link_local or part.is_loopback or part.is_unspecified or part in _THIS_NETWORK:
                return f"{part} belongs to the proxy's own host or link"
    return None


def _meanings(address: Address) -> Iterator[Address]:
    """Yield the address, then any IPv4 addresses embedded in it."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        number = int(address)
        if any(address in network for network in _EMBEDDING) or (number >> 32) & 0xFFFF_FFFF in (0x5EFE, 0x0200_5EFE):
            yield ipaddress.IPv4Address(number & 0xFFFF_FFFF)
        if address.sixtofour is not None:
            yield address.sixtofour
        if address.teredo is not None:
            yield from address.teredo


def _never(group: DenialGroup, destination: Destination, is_own: Callable[[str], bool]) -> str | None:
    # If the address guard refused a hostname, check the address that it resolved to; the denial contains this address.
    addresses = _guarded_addresses(group, destination) if group.rule == "address-guard" else (destination.address,)
    if group.code in (Code.OWN_ADDRESS, Code.HOST_ADDRESS):
        return f"{group.reason}: it belongs to the proxy's host"
    for address in addresses or (None,):
        if (why := never_opened(destination.host, address)) is not None:
            return why
        if address is not None and is_own(str(address)):
            return f"{address} is an address of this machine"
    return None


def _destination(group: DenialGroup) -> Destination | None:
    """Return the destination of the denials; None if it is not a valid destination."""
    try:
        return parse_destination(group.host, group.port)
    except DestinationError:
        return None


def _allow(class_name: str, destination: Destination, *, tls: bool = True) -> tuple[str, NewRule]:
    return f"classes.{class_name}.allow", NewRule(host=destination.host, ports=(destination.port,), tls=tls)


def _exception(group: DenialGroup, destination: Destination) -> Remedy:
    addresses = _guarded_addresses(group, destination)
    under = f"classes.{group.class_name}.addresses"
    if group.code == Code.EXCEPTION_NOT_MET:
        return Remedy(advice=f"no wider exception is proposed: {group.reason}; extend that exception if needed")
    if not addresses:
        return Remedy(advice=f"{under}: {{cidr: …, ports: [{destination.port}]}} with the address of {group.host}")
    rules = [
        (under, NewRule(cidr=str(ipaddress.ip_network(address)), ports=(destination.port,))) for address in addresses
    ]
    if destination.address is not None:
        # For a hostname, the exception suffices. An IP literal also needs a rule in `allow` that names it.
        rules.insert(0, _allow(group.class_name, destination))
    return Remedy(rules, "an exception to the address guard")


def _guarded_addresses(group: DenialGroup, destination: Destination) -> tuple[Address, ...]:
    """Return the addresses that the address guard refused.

    For an IP literal, return the literal itself. For a name such as ``localhost``, return the addresses in
    `GUARDED_NAMES`. For any other name, return the resolved address that the denial contains.
    """
    if destination.address is not None:
        return (destination.address,)
    if (known := guarded_name(destination.host)) is not None:
        return known[1]
    return (ipaddress.ip_address(group.address),) if group.address else ()


_PLAIN = re.compile(r"[a-z_][a-z0-9_-]*(\.[a-z0-9_-]+)+|[0-9]+(\.[0-9]+){3}(/[0-9]+)?")


def _scalar(text: str) -> str:
    """Return a string as a YAML scalar. Quote it unless YAML reads the unquoted text as the same string."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
