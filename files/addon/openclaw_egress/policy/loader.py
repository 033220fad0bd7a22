"""The reader of ``policy.yml``. Each error message contains the line, the problem and the remedy."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from openclaw_egress.policy.destination import Address, DestinationError, Network, canonical_host
from openclaw_egress.policy.host_groups import group_names, hosts_of
from openclaw_egress.policy.lint import answer_warnings, class_warnings
from openclaw_egress.policy.mask_patterns import MAX_PATTERNS, NAME, MaskPattern, PatternError, mask_pattern
from openclaw_egress.policy.model import ACTIONS, ClassPolicy, Limits, Policy, PolicyError, is_inspected
from openclaw_egress.policy.rules import DEFAULT_PORTS, Rule, Rules, plain_path
from openclaw_egress.policy.yaml_reader import Node, read_file
from openclaw_egress.settings import DEFAULT_LLM_HOSTS, HEALTH_PORT

MAX_RULES = 50_000
"""Maximum number of rules of all classes together, because aliases can make a small YAML file expand to a large one."""

KEYS = ("version", "inspect", "classes", "resolve", "mask")
CLASS_KEYS = ("listen", "action", "allow", "deny", "addresses", "limits", "log_tunnels", "instance")
MASK_KEYS = ("name", "pattern")
RULE_KEYS = {
    "allow": ("host", "cidr", "ports", "methods", "paths", "tls"),
    "deny": ("host", "cidr", "ports", "methods", "paths"),
    "addresses": ("cidr", "ports", "methods", "paths"),
}
"""Permitted keys of a rule in each list of rules. `json_schema` describes every key for editors."""
# The minima of `header_bytes` and `headers` still admit ordinary clients: curl sends 6 fields, 200 bytes in all.
LIMITS = {
    "connections": (1, 100_000),
    "requests_per_minute": (1, 1_000_000),
    "header_bytes": (1024, 1024 * 1024),
    "headers": (10, 10_000),
    "header_seconds": (1, 3600),
    "idle_seconds": (1, 3600),
    "total_seconds": (1, 7 * 24 * 3600),
    "tokens_per_hour": (1, 10**12),
    "tokens_per_day": (1, 10**12),
    "cost_usd_per_day": (0.01, 1_000_000),
}
"""Minimum and maximum of each limit. The defaults are in `Limits`."""
FRACTIONS = {"cost_usd_per_day"}
"""Limits that accept fractional numbers."""
CLASS_NAME = r"[a-z][a-z0-9_-]{0,31}"
INSTANCE_NAME = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
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
    """Return the policy for a proxy without a policy file: class ``gateway`` on port 8080 may reach every public name.

    Raises:
        PolicyError: ``llm_hosts`` contains an entry that cannot be inspected.
    """
    gateway = ClassPolicy(name="gateway", listen=8080, action="open")
    inspect = _from_environment(llm_hosts)
    return Policy({"gateway": gateway}, inspect, {}, _digest(("built-in " + " ".join(inspect)).encode()))


def read_policy(data: bytes, file: str, llm_hosts: Sequence[str] | None = None) -> Policy:
    """Return the policy in ``data``, like :func:`load_policy`. ``file`` is the file name to use in error messages."""
    root = _Node.document(data, file, "write `version: 1` and `classes:`", "use wildcards and CIDRs")
    top = root.mapping(KEYS, "version: 1")
    version = root.required(top, "version", "write `version: 1` at the top")
    if version.integer("1") != 1:
        version.fail(f"version {version.value} is not supported", "write `version: 1`")
    inspect = _inspect(top.get("inspect"), llm_hosts)
    resolve = _resolve(top["resolve"]) if "resolve" in top else {}
    mask = _mask(top["mask"]) if "mask" in top else ()
    section = root.required(top, "classes", "add one class, as in `gateway: {listen: 8080, action: open}`")
    classes: dict[str, ClassPolicy] = {}
    listeners: dict[int, str] = {}
    rules = 0
    for name, node in section.mapping().items():
        if not re.fullmatch(CLASS_NAME, name):
            node.fail(
                f"{name!r} is not a valid class name",
                "use at most 32 characters: a-z, 0-9, - and _, starting with a letter",
            )
        found = _class(name, node, inspect, listeners)
        rules += sum(len(part.all) for part in (found.allow, found.deny, found.addresses))
        if rules > MAX_RULES:
            node.fail(f"there are more than {MAX_RULES} rules", "use wildcards, and fewer aliases")
        listeners[found.listen] = name
        classes[name] = found
    if not classes:
        section.fail("the policy has no class", "add one, as in `gateway: {listen: 8080, action: open}`")
    odd = [text for found in classes.values() for text in class_warnings(found)]
    if "resolve" in top:
        odd += answer_warnings(top["resolve"], classes)
    return Policy(classes, inspect, resolve, _digest(data), tuple(f"{file}:{text}" for text in odd), mask=mask)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _class(name: str, node: _Node, inspect: Sequence[str], listeners: Mapping[int, str]) -> ClassPolicy:
    entries = node.mapping(CLASS_KEYS, "gateway: {listen: 8080, action: open}")
    listen = node.required(entries, "listen", "add the port of its listener, as in `listen: 8080`")
    port = _port(listen)
    if port == HEALTH_PORT:
        listen.fail(f"port {port} serves health and metrics", "use another port, as in `listen: 8080`")
    if port in listeners:
        listen.fail(f"port {port} is already used by class {listeners[port]}", "use a different port for each class")
    acting = node.required(entries, "action", f"write one of {', '.join(ACTIONS)}")
    action = acting.choice(ACTIONS, "an action", "action: enforce")
    lists = {
        key: Rules([_rule(item, key, inspect) for item in entries[key].items(f"{key}: [{_EXAMPLES[key]}]")])
        for key in _EXAMPLES
        if key in entries
    }
    limits = _limits(entries["limits"]) if "limits" in entries else Limits()
    log_tunnels = entries["log_tunnels"].boolean() if "log_tunnels" in entries else False
    allow_line = entries["allow"].line if "allow" in entries else None
    instance = _instance(entries["instance"]) if "instance" in entries else ""
    return ClassPolicy(
        name, port, action, **lists, limits=limits, log_tunnels=log_tunnels, allow_line=allow_line, instance=instance
    )


def _instance(node: _Node) -> str:
    name = node.text("gw-a")
    if not re.fullmatch(INSTANCE_NAME, name):
        node.fail(
            f"{name!r} is not a valid name of a gateway instance",
            "use at most 32 characters: a-z, 0-9 and -, starting and ending with a letter or a digit",
        )
    return name


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
        node.fail("an exception to the address guard needs ports", f"add ports, as in `{example}`")
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
    given: dict[str, Any] = {}
    for name, entry in node.mapping([item.name for item in fields(Limits)], "limits: {connections: 64}").items():
        given[name] = entry.number("2.50") if name in FRACTIONS else entry.integer("64")
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
        node.fail(f"{port} is not a port number", "write a number from 1 to 65535")
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
            "start it with /; omit query, escapes and dot segments; use * only at the end",
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
        node.fail(f"{text!r} is not an address range", "write a range such as 10.0.0.0/24 or fd00::/64")
    if exception and network.prefixlen < 8:
        node.fail(
            f"an exception for {network} would disable the address guard",
            "list the networks you need, each /8 or narrower",
        )
    return network


def _inspect(node: _Node | None, llm_hosts: Sequence[str] | None) -> tuple[str, ...]:
    if node is None:
        return _from_environment(DEFAULT_LLM_HOSTS if llm_hosts is None else llm_hosts)
    patterns = _patterns(node.items('inspect: ["api.anthropic.com"]'))
    if llm_hosts is not None and set(patterns) != set(_from_environment(llm_hosts)):
        node.fail(
            f"PROXY_LLM_HOSTS has other hosts than `inspect` ({', '.join(llm_hosts)})",
            "remove `inspect` or PROXY_LLM_HOSTS, or make them equal",
        )
    return patterns


def _from_environment(llm_hosts: Sequence[str]) -> tuple[str, ...]:
    try:
        return _patterns([_Node(host, "PROXY_LLM_HOSTS", 0, "") for host in llm_hosts])
    except PolicyError as error:
        raise PolicyError(error.file, None, error.problem, error.remedy) from None


def _patterns(nodes: Sequence[_Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pattern for node in nodes for pattern in _inspected(node)))


def _inspected(node: _Node) -> tuple[str, ...]:
    """Return the host patterns for an entry of ``inspect``: all hosts of a group, or the single host or wildcard."""
    text = node.text("api.anthropic.com")
    try:
        group = hosts_of(text)
    except LookupError:
        node.fail(
            f"there is no group of hosts {text!r}", f"use one of {', '.join(f'@{name}' for name in group_names())}"
        )
    if group is not None:
        return group
    pattern = _pattern(node)
    if pattern == "*":
        node.fail("`*` cannot be inspected", 'list the LLM hosts; a wildcard such as "*.openai.azure.com" is valid')
    if canonical_host(pattern.removeprefix("*."))[1] is not None:
        node.fail(
            f"{pattern} is an address, not a host name", "write a host name, and map it to the address in `resolve`"
        )
    return (pattern,)


def _mask(node: _Node) -> tuple[MaskPattern, ...]:
    example = "mask: [{name: acme, pattern: 'acme_[0-9a-f]{32}'}]"
    items = node.items(example)
    if len(items) > MAX_PATTERNS:
        node.fail(f"there are more than {MAX_PATTERNS} patterns", "join patterns with |")
    found: dict[str, MaskPattern] = {}
    for item in items:
        entries = item.mapping(MASK_KEYS, example)
        name = item.required(entries, "name", f"add it, as in `{example}`")
        source = item.required(entries, "pattern", f"add it, as in `{example}`")
        text = name.text("acme")
        if not re.fullmatch(NAME, text):
            name.fail(
                f"{text!r} is not a valid name", "use at most 32 characters: a-z, 0-9 and -, starting with a letter"
            )
        if text in found:
            name.fail(f"{text} is used twice", "give each pattern a different name")
        try:
            found[text] = mask_pattern(text, source.text("acme_[0-9a-f]{32}"))
        except PatternError as error:
            source.fail(str(error), error.remedy)
    return tuple(found.values())


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
            value.fail(f"{host} is listed twice", "remove one of the two entries")
        try:
            answers[host] = ipaddress.ip_address(value.text("llm.corp.example: 10.1.2.3"))
        except ValueError:
            value.fail(f"{value.value!r} is not an IP address", "write an IP address such as 10.1.2.3")
    return answers
