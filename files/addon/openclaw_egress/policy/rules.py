"""The rules of a class: a host pattern or a network, with conditions on port, method and path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from openclaw_egress.policy.destination import Address, Network

DEFAULT_PORTS = frozenset({80, 443})


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
        """Return the rule's host pattern, or its network as text."""
        return self.host if self.host is not None else str(self.network)

    @property
    def limited(self) -> bool:
        """Return whether the rule has conditions on methods or paths."""
        return self.methods is not None or self.paths is not None

    def contains(self, address: Address) -> bool:
        """Return whether the rule is for a network that contains the address."""
        return self.network is not None and address in self.network

    def serves(self, port: int) -> bool:
        """Return whether the rule matches the port."""
        return self.ports is None or port in self.ports

    def meets(self, method: str | None, path: str | None, *, deny: bool) -> bool:
        """Return whether the rule matches the request's method and path.

        A CONNECT has neither (both are None). If the rule has conditions on methods or paths, it then matches in
        ``allow`` but not in ``deny``, because each request inside the tunnel is evaluated again. If origins may
        interpret a request in different ways, deny it:

        - A path that servers interpret in different ways matches the paths of every rule in ``deny`` and of none in
          ``allow``.
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
    """Return the percent-decoded path without its query; None if servers may interpret the path in different ways."""
    if not path or not path.startswith("/"):
        return None
    raw = path.split("?", maxsplit=1)[0]
    plain = unquote(raw, errors="replace")
    # Return None for a path that servers read in different ways: some drop `;parameters` before they resolve dot
    # segments, some decode overlong UTF-8, and some treat a fragment as part of the path (RFC 9112, section 3.2,
    # permits no fragment here).
    segments = [segment.split(";", maxsplit=1)[0] for segment in plain.split("/")[1:]]
    odd = any(char in plain for char in "%\\#\ufffd") or plain.count("/") != raw.count("/") or not plain.isprintable()
    return None if odd or "" in segments[:-1] or "." in segments or ".." in segments else plain


def _path_matches(plain: str, wanted: str) -> bool:
    if wanted.endswith("*"):
        return plain.startswith(wanted[:-1])
    return plain.rstrip("/") == wanted.rstrip("/")


class Rules:
    """Rules in file order, with an index by host, so that a look-up does not have to check every rule."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.all = tuple(rules)
        self._hosts: dict[str, list[Rule]] = {}
        self._below: dict[str, list[Rule]] = {}  # Wildcard rules, by their name without "*.".
        self._position = {id(rule): at for at, rule in enumerate(self.all)}
        self.networks = [rule for rule in self.all if rule.network is not None]
        for rule in self.all:
            if rule.host is not None:
                kept = self._below if rule.host.startswith("*.") else self._hosts
                kept.setdefault(rule.host.removeprefix("*."), []).append(rule)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.all)

    def before(self, one: Rule, other: Rule) -> bool:
        """Return whether ``one`` comes before ``other`` in the file."""
        return self._position[id(one)] < self._position[id(other)]

    def about(self, host: str, address: Address | None, *, star: bool = True) -> Iterator[Rule]:
        """Yield the rules that match a host, the most specific first.

        The order is: the host itself, networks that contain its address, ``*.`` wildcards of its parent domains and,
        if ``star`` is True, ``*``.
        """
        yield from (self._below if host.startswith("*.") else self._hosts).get(host.removeprefix("*."), ())
        if address is not None:
            yield from (rule for rule in self.networks if rule.contains(address))
        elif self._below:
            dot = host.find(".")
            while dot >= 0:
                if (below := self._below.get(host[dot + 1 :])) is not None:
                    yield from below
                dot = host.find(".", dot + 1)
        if star:
            yield from self._hosts.get("*", ())

    def covering(self, address: Address, port: int) -> Rule | None:
        """Return the first network rule that matches this address and port. Ignore the rule's methods and paths."""
        return next((rule for rule in self.networks if rule.serves(port) and rule.contains(address)), None)

    def permitting(self, address: Address, port: int, method: str | None, path: str | None) -> Rule | None:
        """Return the first exception that matches this address, port, method and path.

        At CONNECT (both None) only an exception without methods and paths matches.
        """
        for rule in self.networks:
            if not (rule.serves(port) and rule.contains(address)):
                continue
            known = method is not None or path is not None
            if not rule.limited or (known and rule.meets(method, path, deny=False)):
                return rule
        return None


def describe_rule(rule: Rule) -> str:
    """Return a description of a rule in one clause, such as ``packages.example.com; port 443``."""
    ports = sorted(rule.ports or ())
    parts = [rule.subject, f"port{'s' if len(ports) > 1 else ''} {', '.join(map(str, ports))}" if ports else "any port"]
    parts += ["methods " + ", ".join(sorted(rule.methods))] if rule.methods else []
    parts += ["paths " + ", ".join(rule.paths)] if rule.paths else []
    parts += [] if rule.tls else ["also without TLS"]
    return "; ".join(parts)
