"""The policy: the destinations that each class may reach. Read from ``policy.yml``, decided by pure functions.

The functions are called in this order:

1. ``decide`` looks at the name only, so that a denied class causes no DNS query.
2. ``decide_address`` looks at each address that the name resolved to.
3. ``with_addresses`` combines both.

``decide`` evaluates in this order:

1. the class's ``deny``;
2. the address guard, unless an exception in the class's ``addresses`` permits the address;
3. the class's ``allow``;
4. the class's ``action``:

========  =========================================================================================
action    destinations that no rule matches
========  =========================================================================================
open      allow every name, on every port
enforce   deny
report    allow, and set ``Decision.would_deny``; a name in ``deny`` is also only reported
========  =========================================================================================

For every action:

- An address literal needs a rule that names it. The address guard applies.
- An exception with methods or paths is valid for plain HTTP requests only. It never permits a CONNECT, because a
  tunnel hides both.
- ``*.example.com`` matches every name below ``example.com``, at any depth, but not ``example.com``.
- Without ``ports``, a rule in ``allow`` matches 80 and 443, and a rule in ``deny`` matches every port, so that an
  omission never opens anything.
- A path is compared without its query: exactly, or as a prefix if the rule ends in ``*``.

The first half of this module decides and knows nothing of the file. The second half reads the file, with the line of
each value.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from openclaw_egress.policy import codes
from openclaw_egress.policy.codes import Code, Evidence
from openclaw_egress.policy.destination import (
    SPECIAL_RANGES,
    Address,
    Destination,
    DestinationError,
    Network,
    canonical_host,
    guard_reason,
    guarded_name,
)
from openclaw_egress.policy.yaml_reader import FileError, Node, read_file
from openclaw_egress.settings import DEFAULT_LLM_HOSTS, HEALTH_PORT

type Action = Literal["open", "enforce", "report"]

ACTIONS: tuple[Action, ...] = ("open", "enforce", "report")
DEFAULT_PORTS = frozenset({80, 443})
MAX_RULES = 50_000
"""Maximum of all classes together: aliases can make a small YAML file expand to a large one."""


class PolicyError(FileError):
    """Policy that cannot be used."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of evaluating the policy: allow or deny, with rule and reason.

    Attributes:
        rule: ``classes.sandbox.allow[3]``, ``classes.gateway.addresses[0]``, ``default``, ``address-guard``, or
            ``unknown-class``.
        code: the kind of the decision, for programs.
        inspect: whether the proxy must decrypt and record the host's traffic.
        would_deny: whether ``report`` allowed a request that ``enforce`` would deny.
        tls: whether only TLS may follow CONNECT; False if the rule has ``tls: false``.
        limited: whether the deciding rule or exception names methods or paths. Access control then refuses requests
            that an origin could read with another method, path or protocol than the policy did.
        evidence: the values behind the decision, for programs and for ``reason``.
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
        """Return a denial that no rule of the policy made. If ``softened``, it is only reported."""
        return cls(softened, codes.rule_of(code, evidence), code, inspect, softened, evidence=evidence)

    @property
    def reason(self) -> str:
        """Return the decision in one clause, for people."""
        return codes.reason(self.code, self.evidence)


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``allow``, ``deny`` or ``addresses``: a host pattern or a network, with conditions.

    None in ``ports``, ``methods`` or ``paths`` matches any value.
    """

    name: str
    line: int | None
    host: str | None = None
    network: Network | None = None
    ports: frozenset[int] | None = DEFAULT_PORTS
    methods: frozenset[str] | None = None
    paths: tuple[str, ...] | None = None
    tls: bool = True

    @property
    def subject(self) -> str:
        """Return the host or network of the rule, as in the file."""
        return self.host if self.host is not None else str(self.network)

    @property
    def limited(self) -> bool:
        """Return whether the rule names methods or paths."""
        return self.methods is not None or self.paths is not None

    def serves(self, port: int) -> bool:
        """Return whether the rule matches the port."""
        return self.ports is None or port in self.ports

    def meets(self, method: str | None, path: str | None, *, deny: bool) -> bool:
        """Return whether the rule matches the request's method and path.

        At CONNECT (both None), a rule in ``allow`` matches and a rule in ``deny`` does not, because each request to an
        inspected host is decided again. A request that origins may read differently matches ``deny``, not ``allow``:

        - A path that servers read in more than one way matches every rule in ``deny`` and none in ``allow``.
        - Methods are case-sensitive (RFC 9110, section 9.1), but an origin may ignore the case: `post` matches a rule
          for POST in ``deny``, but not in ``allow``.
        """
        if not self.limited:
            return True
        if method is None and path is None:
            return not deny
        if not self._names_method(method or "", deny=deny):
            return False
        if self.paths is None:
            return True
        plain = plain_path(path)
        return deny if plain is None else any(_path_matches(plain, wanted) for wanted in self.paths)

    def _names_method(self, method: str, *, deny: bool) -> bool:
        return self.methods is None or (method.upper() if deny else method) in self.methods


def plain_path(path: str | None) -> str | None:
    """Return the percent-decoded path without its query; None if servers can interpret it differently."""
    if not path or not path.startswith("/"):
        return None
    raw = path.split("?", maxsplit=1)[0]
    plain = unquote(raw, errors="replace")
    # Some servers drop `;parameters` before they resolve dot segments, decode overlong UTF-8, or treat a fragment,
    # which RFC 9112, section 3.2, does not permit here, as part of the path.
    segments = [segment.split(";", maxsplit=1)[0] for segment in plain.split("/")[1:]]
    odd = any(char in plain for char in "%\\#\ufffd") or plain.count("/") != raw.count("/") or not plain.isprintable()
    return None if odd or "" in segments[:-1] or "." in segments or ".." in segments else plain


def _path_matches(plain: str, wanted: str) -> bool:
    if wanted.endswith("*"):
        return plain.startswith(wanted[:-1])
    return plain.rstrip("/") == wanted.rstrip("/")


class Rules:
    """Rules in file order, with an index: a look-up walks the labels of a name instead of all rules."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.all = tuple(rules)
        self._hosts: dict[str, list[Rule]] = {}
        self._below: dict[str, list[Rule]] = {}  # Wildcards, without their "*.".
        self._position = {id(rule): at for at, rule in enumerate(self.all)}
        self.networks = [rule for rule in self.all if rule.network is not None]
        for rule in self.all:
            if rule.host is not None:
                kept = self._below if rule.host.startswith("*.") else self._hosts
                kept.setdefault(rule.host.removeprefix("*."), []).append(rule)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.all)

    def before(self, one: Rule, other: Rule) -> bool:
        """Return whether ``one`` is above ``other`` in the file."""
        return self._position[id(one)] < self._position[id(other)]

    def about(self, host: str, address: Address | None, *, star: bool = True) -> Iterator[Rule]:
        """Yield the rules that match a host, the most specific first.

        The order is: the host itself, networks with its address, ``*.`` wildcards of its parents, and ``*`` if
        ``star``.
        """
        yield from (self._below if host.startswith("*.") else self._hosts).get(host.removeprefix("*."), ())
        if address is not None:
            yield from (rule for rule in self.networks if _contains(rule, address))
        elif self._below:
            dot = host.find(".")
            while dot >= 0:
                if (below := self._below.get(host[dot + 1 :])) is not None:
                    yield from below
                dot = host.find(".", dot + 1)
        if star:
            yield from self._hosts.get("*", ())

    def covering(self, address: Address, port: int) -> Rule | None:
        """Return the first network rule for this address and port, whatever methods and paths it names."""
        return next((rule for rule in self.networks if rule.serves(port) and _contains(rule, address)), None)

    def permitting(self, address: Address, port: int, method: str | None, path: str | None) -> Rule | None:
        """Return the first exception that matches this address, port, method and path.

        At CONNECT (both None) only an exception without methods and paths matches.
        """
        for rule in self.networks:
            if not (rule.serves(port) and _contains(rule, address)):
                continue
            known = method is not None or path is not None
            if not rule.limited or (known and rule.meets(method, path, deny=False)):
                return rule
        return None


def _contains(rule: Rule, address: Address) -> bool:
    return rule.network is not None and address in rule.network


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one class, so that it cannot exhaust the proxy for other classes. None is no limit.

    Attributes:
        connections: maximum concurrent connections of clients.
        requests_per_minute: maximum rate of new requests and tunnels; a burst may have a tenth of it.
        header_bytes: maximum size of a request's head, including the request line.
        headers: maximum number of header fields of a request.
        header_seconds: maximum time from the first byte of a head to its last, and from CONNECT to TLS.
        idle_seconds: maximum time between requests on a connection, and between two reads of a request's body.
        total_seconds: maximum lifetime of a connection, also while it is in use.
    """

    connections: int = 256
    requests_per_minute: int | None = None
    header_bytes: int = 64 * 1024
    headers: int = 200
    header_seconds: int = 30
    idle_seconds: int = 300
    total_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """The part of the policy for one class. ``addresses`` are its exceptions to the address guard."""

    name: str
    listen: int
    action: Action
    allow: Rules = field(default_factory=Rules)
    deny: Rules = field(default_factory=Rules)
    addresses: Rules = field(default_factory=Rules)
    limits: Limits = Limits()
    log_tunnels: bool = False
    allow_line: int | None = None


@dataclass(frozen=True)
class Policy:
    """A valid policy.

    Attributes:
        classes: classes by name, in the file's order.
        inspect: the inspected hosts of every class, as canonical names and ``*.`` wildcards.
        resolve: fixed addresses by canonical name.
        digest: first 12 hex digits of the SHA-256 of the file's bytes.
        warnings: probable mistakes, for the operator, as ``file:line: text``. None of them changes a decision.
        host_addresses: addresses of the proxy's host; the address guard refuses them.
    """

    classes: Mapping[str, ClassPolicy]
    inspect: tuple[str, ...]
    resolve: Mapping[str, Address]
    digest: str
    warnings: tuple[str, ...] = ()
    host_addresses: Container[Address] = frozenset()

    def inspects(self, host: str) -> bool:
        """Return whether the host is an inspected host; False for addresses and for invalid hosts."""
        try:
            name, address = canonical_host(host)
        except DestinationError:
            return False
        return address is None and is_inspected(name, self.inspect)

    def fixed_address(self, host: str) -> Address | None:
        """Return the fixed address of a canonical name; None if it must be resolved. The guard checks both."""
        return self.resolve.get(host)

    def class_for_port(self, port: int) -> ClassPolicy | None:
        """Return the class whose listener has this port."""
        return next((item for item in self.classes.values() if item.listen == port), None)

    def describe(self, class_name: str) -> str:
        """Return the class in a few lines, for people."""
        found = self.classes.get(class_name)
        if found is None:
            return f"there is no class {class_name}; the policy has {', '.join(self.classes)}"
        lines = [f"{found.name}: listens on {found.listen}, action {found.action}"]
        lines += [f"  {rule.name}: {describe_rule(rule)}" for part in (found.deny, found.allow) for rule in part]
        lines += [f"  {rule.name}: exception to the address guard, {describe_rule(rule)}" for rule in found.addresses]
        return "\n".join(lines)


def describe_rule(rule: Rule) -> str:
    """Return a rule in one clause, such as ``packages.example.com; port 443``."""
    ports = sorted(rule.ports or ())
    parts = [rule.subject, f"port{'s' if len(ports) > 1 else ''} {', '.join(map(str, ports))}" if ports else "any port"]
    parts += ["methods " + ", ".join(sorted(rule.methods))] if rule.methods else []
    parts += ["paths " + ", ".join(rule.paths)] if rule.paths else []
    parts += [] if rule.tls else ["also without TLS"]
    return "; ".join(parts)


def is_inspected(name: str, patterns: Sequence[str]) -> bool:
    """Return whether the inspected patterns match a canonical name, or all names of a ``*.`` wildcard."""
    return any(name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:])) for pattern in patterns)


# ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────────


def decide(
    policy: Policy, class_name: str, destination: Destination, method: str | None = None, path: str | None = None
) -> Decision:
    """Return whether a class may request a destination, without name resolution. Never raises.

    ``method`` and ``path`` are None at CONNECT; each request to an inspected host is decided with both.
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
    # Also limited by a rule in `deny` with methods or paths: the origin must not read a request that it denies.
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

    ``report`` never softens the address guard. The decision's rule is:

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
    """Return an allowing decision on a name, combined with those on its addresses: one denied address denies."""
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
    """Return the guard's denial of a literal, or of a name that always means a guarded address; None if it passes."""
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
    """Return the guard's denial. It names an exception that covers the address but not this method or path.

    ``guarded`` is None for an address of the proxy's host.
    """
    port = evidence.destination.port if evidence.destination is not None else 0
    evidence = evidence._replace(range=guarded or "an address of this proxy's host")
    for rule in found.addresses.networks:
        if rule.serves(port) and any(_contains(rule, ip) for ip in addresses):
            return Code.EXCEPTION_NOT_MET, evidence._replace(rule=rule.name, allows=describe_rule(rule))
    return Code.HOST_ADDRESS if guarded is None else Code.ADDRESS_GUARDED, evidence


def _unmatched(found: ClassPolicy, evidence: Evidence, destination: Destination) -> tuple[Code, Evidence]:
    """Return the default denial. It names the most specific rule that matches the host, if any."""
    for rule in found.allow.about(destination.host, destination.address):
        return Code.RULE_NOT_MET, evidence._replace(rule=rule.name, allows=describe_rule(rule))
    return Code.NO_RULE, evidence


# ── reading the file ─────────────────────────────────────────────────────────────────────────────────────────────


KEYS = ("version", "inspect", "classes", "resolve")
CLASS_KEYS = ("listen", "action", "allow", "deny", "addresses", "limits", "log_tunnels")
RULE_KEYS = {
    "allow": ("host", "cidr", "ports", "methods", "paths", "tls"),
    "deny": ("host", "cidr", "ports", "methods", "paths"),
    "addresses": ("cidr", "ports", "methods", "paths"),
}
"""Permitted keys of a rule, by list. `json_schema` describes every key for editors."""
# A request of curl has 200 bytes in 6 fields; lower limits than these would refuse ordinary clients.
LIMITS = {
    "connections": (1, 100_000),
    "requests_per_minute": (1, 1_000_000),
    "header_bytes": (1024, 1024 * 1024),
    "headers": (10, 10_000),
    "header_seconds": (1, 3600),
    "idle_seconds": (1, 3600),
    "total_seconds": (1, 7 * 24 * 3600),
}
"""Minimum and maximum of each limit. The defaults are in `Limits`."""
CLASS_NAME = r"[a-z][a-z0-9_-]{0,31}"
METHOD = r"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]*"


class _Node(Node):
    error = PolicyError


def load_policy(path: Path, llm_hosts: Sequence[str] | None) -> Policy:
    """Read and check a policy file.

    Args:
        path: the file, YAML 1.2 in UTF-8, at most 1 MB.
        llm_hosts: ``PROXY_LLM_HOSTS``; None if it is not set. It is the default of ``inspect``. If both are set, they
            must name the same hosts.

    Raises:
        PolicyError: the first problem, with its line and a remedy.
    """
    remedy = "check the path and that the proxy's user may read it"
    return read_policy(read_file(path, PolicyError, "the policy", remedy), str(path), llm_hosts)


def builtin_policy(llm_hosts: Sequence[str]) -> Policy:
    """Return the policy to use without a file: class ``gateway`` on port 8080 may reach every public name.

    Raises:
        PolicyError: ``llm_hosts`` contains an entry that cannot be inspected.
    """
    gateway = ClassPolicy(name="gateway", listen=8080, action="open")
    inspect = _from_environment(llm_hosts)
    return Policy({"gateway": gateway}, inspect, {}, _digest(("built-in " + " ".join(inspect)).encode()))


def read_policy(data: bytes, file: str, llm_hosts: Sequence[str] | None = None) -> Policy:
    """Return the policy from a file's bytes, as :func:`load_policy`; ``file`` is its name in messages."""
    root = _Node.document(data, file, "write `version: 1` and `classes:`", "use wildcards and CIDRs")
    top = root.mapping(KEYS, "version: 1")
    version = root.required(top, "version", "write `version: 1` at the top")
    if version.integer("1") != 1:
        version.fail(f"version {version.value} is not supported", "write `version: 1`")
    inspect = _inspect(top.get("inspect"), llm_hosts)
    resolve = _resolve(top["resolve"]) if "resolve" in top else {}
    section = root.required(top, "classes", "add one class, as in `gateway: {listen: 8080, action: open}`")
    classes: dict[str, ClassPolicy] = {}
    listeners: dict[int, str] = {}
    rules = 0
    for name, node in section.mapping().items():
        if not re.fullmatch(CLASS_NAME, name):
            node.fail(f"{name!r} is not a valid class name", "use a-z, 0-9, - and _, at most 32, a letter first")
        found = _class(name, node, inspect, listeners)
        rules += sum(len(part.all) for part in (found.allow, found.deny, found.addresses))
        if rules > MAX_RULES:
            node.fail(f"there are more than {MAX_RULES} rules", "use wildcards, and fewer aliases")
        listeners[found.listen] = name
        classes[name] = found
    if not classes:
        section.fail("the policy has no class", "add one, as in `gateway: {listen: 8080, action: open}`")
    odd = [text for found in classes.values() for text in _odd(found)]
    if "resolve" in top:
        odd += _odd_answers(top["resolve"], classes)
    return Policy(classes, inspect, resolve, _digest(data), tuple(f"{file}:{text}" for text in odd))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _class(name: str, node: _Node, inspect: Sequence[str], listeners: Mapping[int, str]) -> ClassPolicy:
    entries = node.mapping(CLASS_KEYS, "gateway: {listen: 8080, action: open}")
    listen = node.required(entries, "listen", "name the port of its listener, as in `listen: 8080`")
    port = _port(listen)
    if port == HEALTH_PORT:
        listen.fail(f"port {port} serves health and metrics", "use another port, as in `listen: 8080`")
    if port in listeners:
        listen.fail(f"port {port} is already used by class {listeners[port]}", "use a different port for each class")
    acting = node.required(entries, "action", f"write one of {', '.join(ACTIONS)}")
    action = acting.choice(ACTIONS, "action", "action: enforce")
    lists = {
        key: Rules([_rule(item, key, inspect) for item in entries[key].items(f"{key}: [{_EXAMPLES[key]}]")])
        for key in _EXAMPLES
        if key in entries
    }
    limits = _limits(entries["limits"]) if "limits" in entries else Limits()
    log_tunnels = entries["log_tunnels"].boolean() if "log_tunnels" in entries else False
    allow_line = entries["allow"].line if "allow" in entries else None
    return ClassPolicy(name, port, action, **lists, limits=limits, log_tunnels=log_tunnels, allow_line=allow_line)


_EXAMPLES = {
    "allow": "{host: packages.example.com, ports: [443]}",
    "deny": '"*.internal.example"',
    "addresses": "{cidr: 10.0.0.2/32, ports: [3100]}",
}


def _rule(node: _Node, kind: str, inspect: Sequence[str]) -> Rule:
    example = _EXAMPLES[kind]
    if isinstance(node.value, str) and kind != "addresses":
        host = _pattern(node)
        return Rule(node.where, node.line, host=host, ports=None if kind == "deny" else DEFAULT_PORTS)
    if not isinstance(node.value, dict) and kind != "addresses":
        node.wrong_type(f"a host, or a mapping as in `{example}`")
    entries = node.mapping(RULE_KEYS[kind], example)
    if "host" in entries and "cidr" in entries:
        node.fail("a rule cannot have both host and cidr", "split it into two rules")
    if "host" not in entries and "cidr" not in entries:
        node.fail(f"'{RULE_KEYS[kind][0]}' is missing", f"write the rule as in `{example}`")
    if kind == "addresses" and "ports" not in entries:
        node.fail("an exception to the address guard needs ports", f"add them, as in `{example}`")
    ports = None if kind == "deny" else DEFAULT_PORTS
    if "ports" in entries:
        ports = frozenset(_port(item) for item in _some(entries["ports"], "ports: [443]"))
    rule = Rule(
        node.where,
        node.line,
        host=_pattern(entries["host"]) if "host" in entries else None,
        network=_network(entries["cidr"], exception=kind == "addresses") if "cidr" in entries else None,
        ports=ports,
        methods=frozenset(map(_method, _some(entries["methods"], "methods: [POST]"))) if "methods" in entries else None,
        paths=tuple(map(_path, _some(entries["paths"], 'paths: ["/v1/*"]'))) if "paths" in entries else None,
        tls=entries["tls"].boolean() if "tls" in entries else True,
    )
    inspected = rule.host is not None and is_inspected(rule.host, inspect)
    if kind == "addresses":
        if rule.limited and 443 in (ports or ()):
            what = "methods" if "methods" in entries else "paths"
            entries[what].fail(
                f"port 443 carries TLS, so the proxy cannot see the {what} of its requests",
                f"use {what} for plain HTTP ports only, and add a separate exception for 443 without {what}",
            )
    elif rule.limited and not inspected:
        what = "methods" if rule.methods else "paths"
        entries[what].fail(
            f"{rule.subject} is not inspected, so the proxy cannot see the {what} of its requests",
            f"add it to inspect, or remove {what}",
        )
    if not rule.tls and inspected:
        entries["tls"].fail(f"{rule.subject} is inspected, so it must use TLS", "remove `tls: false`")
    return rule


def _limits(node: _Node) -> Limits:
    given = {}
    for name, entry in node.mapping([item.name for item in fields(Limits)], "limits: {connections: 64}").items():
        given[name] = entry.integer("64")
        low, high = LIMITS[name]
        if not low <= given[name] <= high:
            entry.fail(f"{given[name]} is out of range", f"write a number from {low} to {high}")
    return Limits(**given)


def _some(node: _Node, example: str) -> list[_Node]:
    items = node.items(example)
    if not items:
        node.fail(
            "the list is empty, so the rule would never match", f"add an entry, as in `{example}`, or remove the list"
        )
    return items


def _port(node: _Node) -> int:
    port = node.integer("443")
    if not 1 <= port <= 65535:
        node.fail(f"{port} is not a port", "write a number from 1 to 65535")
    return port


def _method(node: _Node) -> str:
    method = node.text("POST").upper()
    if not re.fullmatch(METHOD, method) or method == "CONNECT":
        node.fail(f"{node.value!r} is not a valid method for a rule", "write a method such as GET or POST")
    return method


def _path(node: _Node) -> str:
    path = node.text("/v1/*")
    if plain_path(path.removesuffix("*")) != path.removesuffix("*") or "*" in path[:-1]:
        node.fail(
            f"{path!r} is not a valid path for a rule",
            "start it with /, without query, escapes and dot segments; use * only at the end",
        )
    return path


def _pattern(node: _Node) -> str:
    """Return the canonical form of a rule's host: ``*``, a ``*.`` wildcard, or one host."""
    text = node.text("packages.example.com")
    if text == "*":
        return text
    suffix = text.removeprefix("*.")
    if "*" in suffix:
        node.fail(f"{text!r} is not a wildcard", 'write "*." and a name, as in "*.example.com", or "*" for every host')
    try:
        host, address = canonical_host(suffix)
    except DestinationError as error:
        node.fail(f"not a valid host: {error}", _host_remedy(text))
    if address is not None and suffix != text:
        node.fail(f"{text!r} is not a wildcard", "for an address range write {cidr: 192.0.2.0/24}")
    return host if suffix == text else f"*.{host}"


def _host_remedy(text: str) -> str:
    if "://" in text:
        return "write only the host, without scheme and path"
    if "/" in text and text[:1].isdigit():
        return f"write {{cidr: {text}}}"
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit():
        return f"write {{host: {host}, ports: [{port}]}}"
    return "write a name such as packages.example.com"


def _network(node: _Node, *, exception: bool) -> Network:
    text = node.text("10.0.0.2/32")
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            network, one = ipaddress.ip_network(text, strict=False), text.split("/")[0]
            node.fail(f"{text} has host bits set", f"write {network} for the network, or {one} for one address")
        node.fail(f"{text!r} is not an address range", "write one such as 10.0.0.0/24 or fd00::/64")
    if exception and network.prefixlen < 8:
        node.fail(
            f"an exception for {network} would disable the address guard",
            "list the networks you need, each /8 or narrower",
        )
    return network


def _inspect(node: _Node | None, llm_hosts: Sequence[str] | None) -> tuple[str, ...]:
    if node is None:
        return _from_environment(DEFAULT_LLM_HOSTS if llm_hosts is None else llm_hosts)
    patterns = tuple(dict.fromkeys(_inspected(item) for item in node.items('inspect: ["api.anthropic.com"]')))
    if llm_hosts is not None and set(patterns) != set(_from_environment(llm_hosts)):
        node.fail(
            f"PROXY_LLM_HOSTS names different hosts ({', '.join(llm_hosts)})",
            "remove one of the two, or make them equal",
        )
    return patterns


def _from_environment(llm_hosts: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(_inspected(_Node(host, "PROXY_LLM_HOSTS", 0, "")) for host in llm_hosts))
    except PolicyError as error:
        raise PolicyError(error.file, None, error.problem, error.remedy) from None


def _inspected(node: _Node) -> str:
    pattern = _pattern(node)
    if pattern == "*":
        node.fail("`*` cannot be inspected", 'list the LLM hosts; a wildcard such as "*.openai.azure.com" is valid')
    if canonical_host(pattern.removeprefix("*."))[1] is not None:
        node.fail(
            f"{pattern} is an address, not a host name", "write a host name, and map it to the address in `resolve`"
        )
    return pattern


def _resolve(node: _Node) -> dict[str, Address]:
    answers: dict[str, Address] = {}
    for key, value in node.mapping(None, "llm.corp.example: 10.1.2.3").items():
        try:
            host, literal = canonical_host(key)
        except DestinationError as error:
            value.fail(f"not a valid host: {error}", "write a name such as llm.corp.example")
        if literal is not None:
            value.fail(f"{key} is an address, not a host name", "write a name such as llm.corp.example")
        if host in answers:
            value.fail(f"{host} is listed twice", "remove one of the two")
        try:
            answers[host] = ipaddress.ip_address(value.text("llm.corp.example: 10.1.2.3"))
        except ValueError:
            value.fail(f"{value.value!r} is not an address", "write one such as 10.1.2.3")
    return answers


def _odd(found: ClassPolicy) -> Iterator[str]:
    """Yield warnings about rules that are valid but probably a mistake, as ``line: text``."""
    if found.action == "open" and found.allow_line and not found.allow.all:
        yield f"{found.allow_line}: classes.{found.name}.allow is empty, but action open allows every name anyway"
    for rule in found.addresses:
        for special in SPECIAL_RANGES:
            if special.name == "cloud metadata" and rule.network and _within(special.network, rule.network):
                what = f"{special.name} ({special.cidr}, {special.source})"
                yield f"{rule.line}: {rule.name} disables the address guard for {what}"
        if rule.limited and (cover := _cover(rule, found.addresses, same_list=True)):
            yield f"{rule.line}: {rule.name} has no effect: {cover.name} (line {cover.line}) already permits all"
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


def _odd_answers(node: _Node, classes: Mapping[str, ClassPolicy]) -> Iterator[str]:
    for name, entry in node.mapping().items():
        answer = ipaddress.ip_address(entry.value)
        reason = guard_reason(answer)
        if reason and not any(_contains(rule, answer) for found in classes.values() for rule in found.addresses):
            yield (
                f"{entry.line}: resolve.{name}: {answer} is {reason}, so the address guard refuses it; "
                "add an exception in `addresses`"
            )


def _cover(rule: Rule, rules: Rules, *, same_list: bool = False) -> Rule | None:
    """Return a rule that covers ``rule`` completely. The search is bounded, so None does not mean that none exists."""
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
    """Return why the guard refuses every address of a rule; None if it does not, or an exception overlaps the rule."""
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


def literal_of(host: str) -> Address | None:
    """Return a canonical host as an address; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
