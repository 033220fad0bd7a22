"""The policy: which class may reach what. Read from ``policy.yml``, decided by pure functions.

A decision is a value. ``decide`` looks at names only, so that nothing is resolved for a class that is denied;
``decide_address`` then looks at each answer. Order: ``deny``, ``allow``, what the class's action says.

========  =========================================================================================
action    what happens to a name that no rule denies
========  =========================================================================================
open      allowed, on every port
enforce   allowed if a rule of ``allow`` names it
report    decided as ``enforce``, then let through all the same; ``Decision.would_deny`` says so
========  =========================================================================================

Whatever the action: an address literal needs a rule that names it, and the address guard holds but for the class's
``addresses``. An exception with methods or paths is for plain HTTP requests alone: it never permits a CONNECT, because
a tunnel hides both. ``*.example.com`` stands for every name below ``example.com``, at any depth, and not for itself.
Without ``ports`` a rule of ``allow`` means 80 and 443, one of ``deny`` every port: what is forgotten must not open
anything. A path is compared without its query, in whole or, where the rule ends in ``*``, from its start.

The file's text and the values are apart: the second half of this module reads the file and knows lines, the first
half decides and knows none.
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
"""In all classes together: aliases in YAML can make a small file mean a large one."""


class PolicyError(FileError):
    """The policy cannot be used."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Allow or deny, by which rule, and why.

    Attributes:
        rule: ``classes.sandbox.allow[3]``, ``classes.gateway.addresses[0]``, ``default``, ``address-guard``, or
            ``unknown-class``.
        code: the kind of the decision; what programs compare.
        inspect: the host's traffic is to be decrypted and recorded.
        would_deny: only in ``report``: it is allowed, and ``enforce`` would have denied it.
        tls: what follows CONNECT must be TLS; False where the rule says ``tls: false``.
        limited: the deciding rule or exception names methods or paths. The gate then refuses what an origin could
            take for another method, path or protocol than the policy saw.
        evidence: what the decision was made of.
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
        """Return the denial of a kind that no rule of the policy makes; a softened one is only reported."""
        return cls(softened, codes.rule_of(code, evidence), code, inspect, softened, evidence=evidence)

    @property
    def reason(self) -> str:
        """Return the decision in one clause, for people."""
        return codes.reason(self.code, self.evidence)


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``allow``, ``deny`` or ``addresses``: a host pattern or a network, with conditions.

    ``ports``, ``methods`` and ``paths`` are None where any will do.
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
        """What the rule is about, as in the file."""
        return self.host if self.host is not None else str(self.network)

    @property
    def limited(self) -> bool:
        """Whether the rule names methods or paths."""
        return self.methods is not None or self.paths is not None

    def serves(self, port: int) -> bool:
        """Whether the rule is about this port."""
        return self.ports is None or port in self.ports

    def meets(self, method: str | None, path: str | None, *, deny: bool) -> bool:
        """Whether the request's method and path meet the rule.

        Before a request is known (both None, at CONNECT) an allowing rule applies and a denying one does not yet: each
        request of an inspected host is decided again. A path that servers read in more than one way meets every
        denying rule and no allowing one. Methods are case-sensitive (RFC 9110, section 9.1), but an origin may ignore
        the case: `post` meets a denying rule for POST and no allowing one.
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
    """A request's path without query and escapes; None if it can be read in more than one way."""
    if not path or not path.startswith("/"):
        return None
    raw = path.split("?", maxsplit=1)[0]
    plain = unquote(raw, errors="replace")
    # Some servers drop `;parameters` before they resolve dot segments, keep a fragment (RFC 9112, 3.2, has none) as a
    # part of the path, or decode overlong UTF-8.
    segments = [segment.split(";", maxsplit=1)[0] for segment in plain.split("/")[1:]]
    odd = any(char in plain for char in "%\\#\ufffd") or plain.count("/") != raw.count("/") or not plain.isprintable()
    return None if odd or "" in segments[:-1] or "." in segments or ".." in segments else plain


def _path_matches(plain: str, wanted: str) -> bool:
    if wanted.endswith("*"):
        return plain.startswith(wanted[:-1])
    return plain.rstrip("/") == wanted.rstrip("/")


class Rules:
    """Rules in file order, with an index: names are found by walking their labels, not by asking each rule."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.all = tuple(rules)
        self._hosts: dict[str, list[Rule]] = {}
        self._below: dict[str, list[Rule]] = {}  # wildcards, without their *.
        self._position = {id(rule): at for at, rule in enumerate(self.all)}
        self.networks = [rule for rule in self.all if rule.network is not None]
        for rule in self.all:
            if rule.host is not None:
                kept = self._below if rule.host.startswith("*.") else self._hosts
                kept.setdefault(rule.host.removeprefix("*."), []).append(rule)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.all)

    def before(self, one: Rule, other: Rule) -> bool:
        """Whether ``one`` stands above ``other`` in the file."""
        return self._position[id(one)] < self._position[id(other)]

    def about(self, host: str, address: Address | None, *, star: bool = True) -> Iterator[Rule]:
        """Rules that name the host, the closest first: itself, its networks, ``*.`` parents, ``*`` (if ``star``)."""
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
        """The first network rule for this address and port, whatever methods and paths it names."""
        return next((rule for rule in self.networks if rule.serves(port) and _contains(rule, address)), None)

    def permitting(self, address: Address, port: int, method: str | None, path: str | None) -> Rule | None:
        """Return the first exception for this address and port that the request's method and path meet.

        At CONNECT (both None) only an exception without methods and paths does.
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
    """What one class may use of the proxy, so that it cannot take it from the others. None: no limit.

    Attributes:
        connections: of clients, open at the same time.
        requests_per_minute: requests and tunnels begun, with as many at once as a tenth of a minute gives.
        header_bytes: of a request's head, its line included.
        headers: fields of a request.
        header_seconds: from a head's first byte to its last, and from CONNECT to TLS.
        idle_seconds: between requests on a connection, and between two pieces of a request's body.
        total_seconds: the life of a connection, whatever happens on it.
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
    """What one class may do. ``addresses`` are its exceptions to the address guard."""

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
    """A policy that was read and checked.

    Attributes:
        classes: by name, in the file's order.
        inspect: canonical names and ``*.`` wildcards that are decrypted and recorded, for every class.
        resolve: fixed answers, by canonical name.
        digest: first 12 hex digits of the SHA-256 of the file's bytes.
        warnings: ``file:line: what is odd``, for the operator; none of them changes a decision.
        host_addresses: the addresses of the machine that the proxy runs on; the guard refuses them.
    """

    classes: Mapping[str, ClassPolicy]
    inspect: tuple[str, ...]
    resolve: Mapping[str, Address]
    digest: str
    warnings: tuple[str, ...] = ()
    host_addresses: Container[Address] = frozenset()

    def inspects(self, host: str) -> bool:
        """Whether the host is decrypted and recorded; False for addresses and for what is no host."""
        try:
            name, address = canonical_host(host)
        except DestinationError:
            return False
        return address is None and is_inspected(name, self.inspect)

    def fixed_address(self, host: str) -> Address | None:
        """The fixed answer for a canonical name, or None: ask the resolver. The guard applies to both."""
        return self.resolve.get(host)

    def class_for_port(self, port: int) -> ClassPolicy | None:
        """The class whose listener has the port."""
        return next((item for item in self.classes.values() if item.listen == port), None)

    def describe(self, class_name: str) -> str:
        """The class in a few lines, for a person."""
        found = self.classes.get(class_name)
        if found is None:
            return f"there is no class {class_name}; there are {', '.join(self.classes)}"
        lines = [f"{found.name}: listens on {found.listen}, action {found.action}"]
        lines += [f"  {rule.name}: {describe_rule(rule)}" for part in (found.deny, found.allow) for rule in part]
        lines += [f"  {rule.name}: exception to the guard, {describe_rule(rule)}" for rule in found.addresses]
        return "\n".join(lines)


def describe_rule(rule: Rule) -> str:
    """A rule in one clause: ``packages.example.com, port 443``."""
    ports = sorted(rule.ports or ())
    parts = [rule.subject, f"port{'s' if len(ports) > 1 else ''} {', '.join(map(str, ports))}" if ports else "any port"]
    parts += ["methods " + ", ".join(sorted(rule.methods))] if rule.methods else []
    parts += ["paths " + ", ".join(rule.paths)] if rule.paths else []
    parts += [] if rule.tls else ["without TLS too"]
    return "; ".join(parts)


def is_inspected(name: str, patterns: Sequence[str]) -> bool:
    """Whether a canonical name (or a ``*.`` wildcard as a whole) is covered by the inspected patterns."""
    return any(name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:])) for pattern in patterns)


# ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────────


def decide(
    policy: Policy, class_name: str, destination: Destination, method: str | None = None, path: str | None = None
) -> Decision:
    """Whether a class may ask for a destination, by name alone: nothing is resolved, nothing raises.

    ``method`` and ``path`` are None at CONNECT; a request of an inspected host is decided with both.
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
    # What is denied by method or path must not pass as another method or path either.
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
    """Whether a class may connect to ``ip``, one of the addresses of a destination that :func:`decide` allowed.

    The rule is ``default`` for a public address, ``classes.NAME.addresses[N]`` for an exception to the guard, and
    ``address-guard`` or the network rule of ``deny`` for what is refused. ``report`` does not soften the guard.
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
    """An allowing decision on a name together with :func:`decide_address` on its addresses: one bad answer denies."""
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
    """The rule that lets the class ask; for a literal never ``*``.

    Of a class that may reach every name, an exception to the guard names literals as well. Of another it does not: who
    may reach one name in a private network may not therefore reach the whole of it, past every name.
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
    """Return the guard's refusal of what needs no look-up: a literal, or a name that always means a guarded address."""
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
    """Return the guard's refusal, with the exception that would permit it but for the request's method or path.

    ``guarded`` is None for an address of the proxy's host.
    """
    port = evidence.destination.port if evidence.destination is not None else 0
    evidence = evidence._replace(range=guarded or "an address of this proxy's host")
    for rule in found.addresses.networks:
        if rule.serves(port) and any(_contains(rule, ip) for ip in addresses):
            return Code.EXCEPTION_NOT_MET, evidence._replace(rule=rule.name, allows=describe_rule(rule))
    return Code.HOST_ADDRESS if guarded is None else Code.ADDRESS_GUARDED, evidence


def _unmatched(found: ClassPolicy, evidence: Evidence, destination: Destination) -> tuple[Code, Evidence]:
    """Return the denial by default; it names the closest rule that matches the host."""
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
"""What each list's rules may have. `policy_schema` describes every key for editors."""
# A request of curl's has 200 bytes in 6 fields; a proxy that takes less is a wall of another kind.
LIMITS = {
    "connections": (1, 100_000),
    "requests_per_minute": (1, 1_000_000),
    "header_bytes": (1024, 1024 * 1024),
    "headers": (10, 10_000),
    "header_seconds": (1, 3600),
    "idle_seconds": (1, 3600),
    "total_seconds": (1, 7 * 24 * 3600),
}
"""The least and the most of each; a class that names none has the defaults of `Limits`."""
CLASS_NAME = r"[a-z][a-z0-9_-]{0,31}"
METHOD = r"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]*"


class _Node(Node):
    error = PolicyError


def load_policy(path: Path, llm_hosts: Sequence[str] | None) -> Policy:
    """Read and check a policy file.

    Args:
        path: the file, YAML 1.2 in UTF-8, at most 1 MB.
        llm_hosts: ``PROXY_LLM_HOSTS`` where it is set, else None. It is what ``inspect`` defaults to; where both are
            set they must name the same hosts.

    Raises:
        PolicyError: the first thing that is wrong, with its line and what to do.
    """
    remedy = "check the path and that the proxy's user may read it"
    return read_policy(read_file(path, PolicyError, "the policy", remedy), str(path), llm_hosts)


def builtin_policy(llm_hosts: Sequence[str]) -> Policy:
    """The policy where no file is named: class ``gateway`` on port 8080 may reach every public name.

    Raises:
        PolicyError: ``llm_hosts`` has something that cannot be inspected.
    """
    gateway = ClassPolicy(name="gateway", listen=8080, action="open")
    inspect = _from_environment(llm_hosts)
    return Policy({"gateway": gateway}, inspect, {}, _digest(("built-in " + " ".join(inspect)).encode()))


def read_policy(data: bytes, file: str, llm_hosts: Sequence[str] | None = None) -> Policy:
    """As :func:`load_policy`, from the file's bytes; ``file`` is its name in messages."""
    root = _Node.document(data, file, "write `version: 1` and `classes:`", "use wildcards and CIDRs")
    top = root.mapping(KEYS, "version: 1")
    version = root.required(top, "version", "write `version: 1` at the top")
    if version.integer("1") != 1:
        version.fail(f"this is version {version.value}", "write `version: 1`, the only one there is")
    inspect = _inspect(top.get("inspect"), llm_hosts)
    resolve = _resolve(top["resolve"]) if "resolve" in top else {}
    section = root.required(top, "classes", "name at least one, as in `gateway: {listen: 8080, action: open}`")
    classes: dict[str, ClassPolicy] = {}
    listeners: dict[int, str] = {}
    rules = 0
    for name, node in section.mapping().items():
        if not re.fullmatch(CLASS_NAME, name):
            node.fail(f"{name!r} is no name for a class", "use lower-case letters, digits, - and _, at most 32")
        found = _class(name, node, inspect, listeners)
        rules += sum(len(part.all) for part in (found.allow, found.deny, found.addresses))
        if rules > MAX_RULES:
            node.fail(f"there are more than {MAX_RULES} rules", "use wildcards, and fewer aliases")
        listeners[found.listen] = name
        classes[name] = found
    if not classes:
        section.fail("there is no class", "name at least one, as in `gateway: {listen: 8080, action: open}`")
    odd = [text for found in classes.values() for text in _odd(found)]
    if "resolve" in top:
        odd += _odd_answers(top["resolve"], classes)
    return Policy(classes, inspect, resolve, _digest(data), tuple(f"{file}:{text}" for text in odd))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _class(name: str, node: _Node, inspect: Sequence[str], listeners: Mapping[int, str]) -> ClassPolicy:
    entries = node.mapping(CLASS_KEYS, "gateway: {listen: 8080, action: open}")
    listen = node.required(entries, "listen", "give the port of its listener, as in `listen: 8080`")
    port = _port(listen)
    if port == HEALTH_PORT:
        listen.fail(f"port {port} is where health and metrics are", "take another, as in `listen: 8080`")
    if port in listeners:
        listen.fail(f"port {port} already belongs to class {listeners[port]}", "give each class a port of its own")
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
        node.fail("a rule has host or cidr, not both", "make two rules of it")
    if "host" not in entries and "cidr" not in entries:
        node.fail(f"'{RULE_KEYS[kind][0]}' is missing", f"say what the rule is about, as in `{example}`")
    if kind == "addresses" and "ports" not in entries:
        node.fail("an exception to the address guard needs ports", f"name them, as in `{example}`")
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
                f"port 443 carries TLS, so the {what} of its requests are not seen",
                f"limit plain HTTP ports alone; write an exception for 443 of its own, without {what}",
            )
    elif rule.limited and not inspected:
        what = "methods" if rule.methods else "paths"
        entries[what].fail(
            f"{rule.subject} is not inspected, so its {what} are not seen", f"add it to inspect, or leave {what} out"
        )
    if not rule.tls and inspected:
        entries["tls"].fail(f"{rule.subject} is inspected, so it must speak TLS", "leave tls out")
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
        node.fail("the list is empty, so the rule would never apply", f"fill it, as in `{example}`, or leave it out")
    return items


def _port(node: _Node) -> int:
    port = node.integer("443")
    if not 1 <= port <= 65535:
        node.fail(f"{port} is not a port", "write a number from 1 to 65535")
    return port


def _method(node: _Node) -> str:
    method = node.text("POST").upper()
    if not re.fullmatch(METHOD, method) or method == "CONNECT":
        node.fail(f"{node.value!r} is not a method that a rule can name", "write one such as GET or POST")
    return method


def _path(node: _Node) -> str:
    path = node.text("/v1/*")
    if plain_path(path.removesuffix("*")) != path.removesuffix("*") or "*" in path[:-1]:
        node.fail(
            f"{path!r} is not a path that a rule can name",
            "begin it with /, leave out the query, escapes and dot segments; a * may stand at its end alone",
        )
    return path


def _pattern(node: _Node) -> str:
    """A host as a rule names it: ``*``, ``*.`` and a name, or one host; canonical."""
    text = node.text("packages.example.com")
    if text == "*":
        return text
    suffix = text.removeprefix("*.")
    if "*" in suffix:
        node.fail(
            f"{text!r} is not a wildcard", 'a * stands for whole labels in front: "*.example.com", or "*" for all'
        )
    try:
        host, address = canonical_host(suffix)
    except DestinationError as error:
        node.fail(f"this is not a host: {error}", _host_remedy(text))
    if address is not None and suffix != text:
        node.fail(f"{text!r} is not a wildcard", "for a range of addresses write {cidr: 192.0.2.0/24}")
    return host if suffix == text else f"*.{host}"


def _host_remedy(text: str) -> str:
    if "://" in text:
        return "write the host alone, without scheme and path"
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
            remedy = (
                f"write {ipaddress.ip_network(text, strict=False)} for the network, or {text.split('/')[0]} for one"
            )
            node.fail(f"{text} has bits set behind its prefix", remedy)
        node.fail(f"{text!r} is not a range of addresses", "write it as in 10.0.0.0/24 or fd00::/64")
    if exception and network.prefixlen < 8:
        node.fail(
            f"an exception for {network} would lift the address guard",
            "name the networks that are meant, /8 or narrower",
        )
    return network


def _inspect(node: _Node | None, llm_hosts: Sequence[str] | None) -> tuple[str, ...]:
    if node is None:
        return _from_environment(DEFAULT_LLM_HOSTS if llm_hosts is None else llm_hosts)
    patterns = tuple(dict.fromkeys(_inspected(item) for item in node.items('inspect: ["api.anthropic.com"]')))
    if llm_hosts is not None and set(patterns) != set(_from_environment(llm_hosts)):
        node.fail(
            f"PROXY_LLM_HOSTS names other hosts ({', '.join(llm_hosts)})", "keep one of the two, or make them the same"
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
        node.fail("not everything can be inspected", 'name the LLM hosts; wildcards are written "*.openai.azure.com"')
    if canonical_host(pattern.removeprefix("*."))[1] is not None:
        node.fail(f"{pattern} is an address", "name the host; `resolve` can give it this address")
    return pattern


def _resolve(node: _Node) -> dict[str, Address]:
    answers: dict[str, Address] = {}
    for key, value in node.mapping(None, "llm.corp.example: 10.1.2.3").items():
        try:
            host, literal = canonical_host(key)
        except DestinationError as error:
            value.fail(f"this is not a host: {error}", "write a name such as llm.corp.example")
        if literal is not None:
            value.fail(f"{key} is an address already", "write a name such as llm.corp.example")
        if host in answers:
            value.fail(f"{host} is there twice", "keep one of them")
        try:
            answers[host] = ipaddress.ip_address(value.text("llm.corp.example: 10.1.2.3"))
        except ValueError:
            value.fail(f"{value.value!r} is not an address", "write one as in 10.1.2.3")
    return answers


def _odd(found: ClassPolicy) -> Iterator[str]:
    """What is legal and probably not meant, as ``line: text``."""
    if found.action == "open" and found.allow_line and not found.allow.all:
        yield f"{found.allow_line}: classes.{found.name}.allow: empty, and yet action open allows every name"
    for rule in found.addresses:
        for special in SPECIAL_RANGES:
            if special.name == "cloud metadata" and rule.network and _within(special.network, rule.network):
                yield f"{rule.line}: {rule.name} lifts the guard for {special.name} ({special.cidr}, {special.source})"
        if rule.limited and (cover := _cover(rule, found.addresses, same_list=True)):
            yield f"{rule.line}: {rule.name} limits nothing: {cover.name} (line {cover.line}) lets everything through"
    for rule in found.deny:
        if cover := _cover(rule, found.deny, same_list=True):
            yield f"{rule.line}: {rule.name} never applies: {cover.name} (line {cover.line}) denies it already"
    for rule in found.allow:
        if cover := _cover(rule, found.deny):
            yield f"{rule.line}: {rule.name} never applies: {cover.name} (line {cover.line}) denies it"
        elif cover := _cover(rule, found.allow, same_list=True):
            yield f"{rule.line}: {rule.name} is not needed: {cover.name} (line {cover.line}) allows it already"
        elif reason := _guarded_rule(rule, found):
            yield f"{rule.line}: {rule.name} never applies: {rule.subject} is {reason}; exceptions go in `addresses`"
        elif found.action == "open" and rule.host is not None and rule.tls and literal_of(rule.host) is None:
            yield f"{rule.line}: {rule.name} is not needed: action open allows every name"


def _odd_answers(node: _Node, classes: Mapping[str, ClassPolicy]) -> Iterator[str]:
    for name, entry in node.mapping().items():
        answer = ipaddress.ip_address(entry.value)
        reason = guard_reason(answer)
        if reason and not any(_contains(rule, answer) for found in classes.values() for rule in found.addresses):
            yield f"{entry.line}: resolve: {name} is {answer}, {reason}; no exception in `addresses` lets it through"


def _cover(rule: Rule, rules: Rules, *, same_list: bool = False) -> Rule | None:
    """A rule that makes ``rule`` pointless; only what plainly covers it, and not searched for at any price."""
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
    """Why the guard refuses all that a rule about addresses allows, where no exception touches it."""
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
    """The address that a canonical host is, or None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
