"""Random policies and requests, generated from a seed, to compare access control with `explain`.

Tests run the same cases in two ways: they call the real :class:`AccessControl` with mitmproxy's parser and flows, or
they send the bytes of the requests to a running proxy.

This module converts URLs to requests as clients do. It converts non-ASCII names to A-labels and omits user information
and fragments. It does not change unusual ASCII characters.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import idna
from mitmproxy import connection, http, tls
from mitmproxy.net.http.http1 import read_request_head
from mitmproxy.proxy.context import Context

from openclaw_egress.cli.explain import ask
from openclaw_egress.policy.destination import DestinationError, canonical_host
from openclaw_egress.policy.loader import read_policy
from openclaw_egress.policy.model import Decision, Policy
from openclaw_egress.proxy.access_control import INSPECT, AccessControl


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(" "))


ACTIONS = ("open", "enforce", "report")
INSPECTED = ("api.llm.example", "*.azure.example", "xn--ki-zka.example")
NAMES = _words(
    "api.llm.example api.llm.example x.azure.example x.azure.example azure.example xn--ki-zka.example "
    "example.com www.example.com a.b.example.com example.org internal.example db.internal.example "
    "xn--bcher-kva.example xn--n3h.example under_score.example r3---sn.example 1.2.3.4.example 1e3 "
    "localhost a.localhost metadata.google.internal"
)
ODD_HOSTS = _words(
    "bücher.example BÜCHER.example bu\u0308cher.example kİ.example ｅｘａｍｐｌｅ．com example\u3002com １０．0.0.２ "
    "a..b -a.example a-.example *.example.com xn--.example user@example.com %65xample.com example.com%2f 1.2.3.4.5 "
    "256.0.0.1 09.1 example.1 0x7f.1 2130706433 0x [127.0.0.1] [example.com] [::1 [1::2::3] [fe80::1%25eth0] "
    + "x"
    * 64
)
PATTERNS = (*NAMES, "*", "*.example.com", "*.example", "*.internal.example", "*.azure.example", "*.localhost")
LITERALS = _words("8.8.8.8 1.1.1.1 10.0.0.2 127.0.0.1 169.254.169.254 2001:4860:4860::8888 fd00::1 ::ffff:a00:2 ::1")
NETWORKS = _words(
    "8.8.8.0/24 8.8.8.0/24 2606:4700::/32 10.0.0.0/8 10.0.0.2/32 127.0.0.0/8 "
    "2001:4860::/32 fd00::/8 ::1/128 169.254.169.254/32"
)
PUBLIC = ("93.184.216.34", "8.8.8.8", "2606:4700:4700::1111")
PORTS = (80, 443, 8080, 8443, 22)
ODD_PORTS = ("", "0", "00443", "65535", "65536", "99999999", "-1", "x")
METHODS = ("GET", "POST", "DELETE", "get", "PATCH", "OPTIONS")
PATHS = _words(
    " / ? # /v1/messages /v1/messages?x=1 /v1/messages#top /v1/messages/ /v1/%6dessages /v1//messages /v1/../admin "
    "/v1/%2e%2e/admin /v1/./messages /admin /ADMIN /%61dmin /admin%2Fx /admin%00 /admin/x?/v1/ /v1;x/messages "
    "/v1/%C3%BC /v1/%FF /v1/%25%36 /\\admin //admin /v1/ü"
)


# ── policies ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Values:
    """The values from which policies and requests are generated. Tests of a running proxy replace the defaults."""

    answers: Sequence[Sequence[str]] = (PUBLIC, PUBLIC, (*PUBLIC, *LITERALS))
    literals: Sequence[str] = LITERALS
    excepted: Sequence[str] = NETWORKS
    ports: Sequence[int] = PORTS
    listeners: Sequence[int] = (8080, 8081, 8082)
    every_name_fixed: bool = False
    rules: tuple[int, int, int] = (5, 3, 3)
    """Maximum number of rules in ``allow``, ``deny`` and ``addresses``, in this order."""


def policy_text(chance: random.Random, values: Values) -> str:
    """Return a valid policy file with a class for each listener."""
    allow, deny, addresses = values.rules
    classes = {
        f"class{number}": {
            "listen": listener,
            "action": ACTIONS[number % len(ACTIONS)],
            "allow": [_rule(chance, values, "allow") for _ in range(chance.randint(0, allow))],
            "deny": [_rule(chance, values, "deny") for _ in range(chance.randint(0, deny))],
            "addresses": [_exception(chance, values) for _ in range(chance.randint(0, addresses))],
        }
        for number, listener in enumerate(values.listeners)
    }
    names = every_name() if values.every_name_fixed else chance.sample(NAMES, 3)
    fixed = {name: chance.choice(chance.choice(values.answers)) for name in names}
    return json.dumps({"version": 1, "inspect": INSPECTED, "classes": classes, "resolve": fixed})


def _rule(chance: random.Random, values: Values, kind: Literal["allow", "deny"]) -> Any:
    if chance.random() < (0.4 if kind == "deny" else 0.2):
        rule: dict[str, Any] = {"cidr": chance.choice(NETWORKS)}
    else:
        host = chance.choice(PATTERNS if chance.random() < 0.8 else values.literals)
        if chance.random() < 0.3:
            return host
        rule = {"host": host}
        if host in INSPECTED or host == "x.azure.example":
            if chance.random() < 0.5:
                rule["methods"] = chance.sample(("GET", "POST", "DELETE"), chance.randint(1, 2))
            if chance.random() < 0.5:
                rule["paths"] = chance.sample(("/v1/*", "/v1/messages", "/admin*", "/", "/v1/ü"), chance.randint(1, 2))
    if chance.random() < 0.5:
        rule["ports"] = _ports(chance, values)
    return rule


def _exception(chance: random.Random, values: Values) -> dict[str, Any]:
    found: dict[str, Any] = {"cidr": chance.choice(values.excepted), "ports": _ports(chance, values)}
    if 443 not in found["ports"] and chance.random() < 0.5:
        found["methods"] = chance.sample(("GET", "POST", "DELETE"), chance.randint(1, 2))
    if 443 not in found["ports"] and chance.random() < 0.5:
        found["paths"] = chance.sample(("/v1/*", "/v1/messages", "/admin*", "/", "/v1/ü"), chance.randint(1, 2))
    return found


def _ports(chance: random.Random, values: Values) -> list[int]:
    return chance.sample(list(values.ports), chance.randint(1, min(3, len(values.ports))))


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Asked:
    """One request: the arguments for `explain`, and the bytes that a client sends for the same URL.

    ``connect`` is the target of CONNECT, or None for plain HTTP. ``heads`` are the request heads that the client sends,
    beginning with CONNECT if it needs a tunnel.
    """

    class_name: str
    url: str
    method: str
    connect: str | None = None
    heads: tuple[bytes, ...] = ()


def request(chance: random.Random, values: Values, class_name: str) -> Asked:
    """Return a random request. Its URL spells the destination in one of many ways."""
    scheme = chance.choice(("http", "https", "https", "HTTP", "HTTPS", ""))
    host = _host(chance, values)
    port = ""
    if chance.random() < 0.6:
        port = f":{chance.choice(values.ports) if chance.random() < 0.9 else chance.choice(ODD_PORTS)}"
    path, method = chance.choice(PATHS), chance.choice(METHODS)
    if not scheme and port == ":":
        port = ""  # Otherwise, `host:` before a path such as `//x` would look like the scheme of a URL.
    url = f"{scheme}://{host}{port}{path}" if scheme else f"{host}{port}{path}"
    return as_sent(class_name, url, method, scheme.lower() or "https", host, port, path)


def _host(chance: random.Random, values: Values) -> str:
    kind = chance.random()
    if kind < 0.1:
        return chance.choice(ODD_HOSTS)
    if kind < 0.3:
        literal = chance.choice(values.literals)
        if ":" in literal:
            return f"[{literal.upper() if chance.random() < 0.5 else literal}]"
        return spelled(chance, literal)
    name = chance.choice(NAMES)
    if chance.random() < 0.2:
        name = "".join(char.upper() if chance.random() < 0.5 else char for char in name)
    return name + "." * (chance.random() < 0.1)


def spelled(chance: random.Random, ipv4: str) -> str:
    """Return an IPv4 address in a random notation of ``inet_aton(3)``."""
    one, two, three, four = map(int, ipv4.split("."))
    numbers = chance.choice(
        (
            [one, two, three, four],
            [one, two, three << 8 | four],
            [one, two << 16 | three << 8 | four],
            [one << 24 | two << 16 | three << 8 | four],
        )
    )
    return ".".join(chance.choice(("{}", "{}", "0{:o}", "0x{:x}", "0X{:X}")).format(number) for number in numbers)


def as_sent(class_name: str, url: str, method: str, scheme: str, host: str, port: str, path: str) -> Asked:
    """Return the request that a client sends for a URL. Leave ``heads`` empty if no client can send it."""
    try:
        host = host if host.isascii() else _a_labels(host)
    except idna.IDNAError:
        return Asked(class_name, url, method)
    host = host.rpartition("@")[2]
    port = "" if port == ":" else port
    path = path.partition("#")[0]
    if not path.startswith("/"):
        path = f"/{path}"
    sent_path = "".join(char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode()) for char in path)
    host_line = f"Host: {host}{port}\r\n\r\n"
    if scheme == "http":
        return Asked(
            class_name,
            url,
            method,
            None,
            (f"{method} http://{host}{port}{sent_path} HTTP/1.1\r\n{host_line}".encode(),),
        )
    target = f"{host}{port or ':443'}"
    heads = (
        f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode(),
        f"{method} {sent_path} HTTP/1.1\r\n{host_line}".encode(),
    )
    return Asked(class_name, url, method, target, heads)


def _a_labels(host: str) -> str:
    mapped = idna.uts46_remap(host, std3_rules=False)
    return ".".join(
        label if label.isascii() else idna.alabel(label).decode() for label in mapped.replace("\u3002", ".").split(".")
    )


# ── access control ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Notes:
    """An observer of access control that stores the latest decision on a request."""

    enforced: Decision | None = None
    reported: Decision | None = None
    inspect: bool | None = None

    def denied(self, *words: Any, enforced: bool, status: int | None = None) -> None:
        """Store the decision to deny, either as enforced or as only reported."""
        decision = words[2]
        if enforced:
            self.enforced = decision
        else:
            self.reported = decision

    def allowed(self, _: str, *, inspect: bool) -> None:
        """Store whether the proxy inspects the host."""
        self.inspect = inspect


@dataclass
class Answers:
    """A fake resolver with fixed addresses. ``requested`` contains the names that were looked up."""

    known: dict[str, tuple[str, ...]]
    requested: list[str] = field(default_factory=list)

    async def addresses(self, _: str, host: str, port: int) -> tuple[str, ...]:
        """Return the addresses of a host, as :meth:`Resolver.addresses` does."""
        return self.of(host, port)

    def of(self, host: str, _: int) -> tuple[str, ...]:
        """Return the addresses of a host, and add its name to ``requested``. `explain` calls this method."""
        self.requested.append(host)
        return self.known[host]

    def close(self) -> None:
        """Do nothing; the fake holds no resources."""


def every_name() -> list[str]:
    """Return all canonical names that a request can contain."""
    names = set()
    for written in (*NAMES, *ODD_HOSTS):
        with contextlib.suppress(DestinationError):
            host, literal = canonical_host(written.rpartition("@")[2])
            names |= {host} if literal is None else set()
    return sorted(names)


def some_answers(chance: random.Random, values: Values) -> dict[str, tuple[str, ...]]:
    """Return one to three addresses for each name that a request can contain."""
    return {host: tuple(chance.sample(chance.choice(values.answers), chance.randint(1, 3))) for host in every_name()}


type Verdict = tuple[Literal["allowed", "denied", "malformed", "failed"], str, str, bool, bool]
"""Outcome; rule and reason of a denial; whether the denial is only reported; whether the proxy inspects the host."""


async def ask_access_control(access_control: AccessControl, notes: Notes, policy: Policy, requested: Asked) -> Verdict:
    """Call the hooks of access control for a request in mitmproxy's order. Return the verdict."""
    client = connection.Client(
        peername=("192.0.2.7", 50000),
        sockname=("192.0.2.1", policy.classes[requested.class_name].listen),
        timestamp_start=0,
    )
    access_control.client_connected(client)
    assert client.error is None
    server = connection.Server(address=None)
    try:
        for number, head in enumerate(requested.heads):
            try:
                message = read_request_head(head.removesuffix(b"\r\n\r\n").split(b"\r\n"))
            except ValueError:
                return "malformed", "", "", False, False
            flow = http.HTTPFlow(client, server)
            flow.request = message
            notes.enforced = notes.reported = notes.inspect = None
            if requested.connect is not None and number == 0:
                await access_control.http_connect(flow)
            else:
                # Set host and scheme as mitmproxy does in HttpStream.state_wait_for_request_headers.
                if number:
                    assert server.address is not None
                    message.data.host, message.data.port = server.address[:2]
                    message.scheme = "https"
                else:
                    message.authority = ""
                await access_control.requestheaders(flow)
            if flow.response is not None:
                if flow.response.status_code != 403 or notes.enforced is None:
                    return "failed", str(flow.response.status_code), "", False, False
                return "denied", notes.enforced.rule, notes.enforced.reason, False, False
            if requested.connect is not None and number == 0:
                server.address = (message.host, message.port)
                if not _decrypts(access_control, client, server):
                    break
            else:
                assert (INSPECT in flow.metadata) is notes.inspect
        decision = notes.reported
        return (
            "allowed",
            decision.rule if decision else "",
            decision.reason if decision else "",
            decision is not None,
            bool(notes.inspect),
        )
    finally:
        access_control.client_disconnected(client)


def _decrypts(access_control: AccessControl, client: connection.Client, server: connection.Server) -> bool:
    assert server.address is not None
    host = server.address[0]
    literal = ":" in host or host.replace(".", "").isdigit()
    context = Context(client, SimpleNamespace())  # type: ignore[arg-type]
    context.server = server
    hello = tls.ClientHelloData(context, SimpleNamespace(sni=None if literal else host))  # type: ignore[arg-type]
    access_control.tls_clienthello(hello)
    return not hello.ignore_connection


def explained(policy: Policy, requested: Asked, answers: Answers) -> Verdict:
    """Return the verdict of `explain` on a request."""
    try:
        found = ask(policy, requested.class_name, requested.url, requested.method, answers.of)
    except ValueError:
        return "malformed", "", "", False, False
    decision = found.decision
    if not decision.allow:
        return "denied", decision.rule, decision.reason, False, False
    result = (decision.rule, decision.reason) if decision.would_deny else ("", "")
    return "allowed", *result, decision.would_deny, decision.inspect


def same(said: Verdict, done: Verdict) -> bool:
    """Return whether the verdicts of `explain` and of access control agree.

    If the host is invalid, do not compare the reasons: mitmproxy's parser may refuse the request as malformed before
    access control sees the host.
    """
    nonsense = ("malformed", "syntax")
    if said[0] == "malformed" or said[1] == "syntax":
        return done[0] in nonsense or done[1] in nonsense
    return said == done


@dataclass
class Difference:
    """A request on which `explain` and access control disagree."""

    requested: Asked
    said: Verdict
    done: Verdict


async def compare(
    seed: int, policies: int, requests: int, values: Values | None = None
) -> tuple[list[Difference], dict]:
    """Compare `explain` with access control for random policies, with ``requests`` random requests for each policy.

    Return the differences, and the number of requests with each outcome.
    """
    values = values or Values()
    chance = random.Random(seed)
    different: list[Difference] = []
    outcomes: dict[str, int] = {}
    for number in range(policies):
        policy = read_policy(policy_text(chance, values).encode(), f"policy {number} of seed {seed}")
        known = some_answers(chance, values)
        notes, resolver = Notes(), Answers(known)
        access_control = AccessControl(lambda policy=policy: policy, notes, resolver)  # type: ignore[misc,arg-type]
        for _ in range(requests):
            requested = request(chance, values, chance.choice(list(policy.classes)))
            if not requested.heads:
                continue
            resolver.requested.clear()
            done = await ask_access_control(access_control, notes, policy, requested)
            looked_up = list(resolver.requested)
            resolver.requested.clear()
            said = explained(policy, requested, resolver)
            outcome = f"{done[0]} {said[1]}".split("[")[0] if done[0] == "denied" else done[0]
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if not same(said, done) or (
                said[0] != "malformed" and done[0] != "malformed" and looked_up != resolver.requested
            ):
                different.append(Difference(requested, said, done))
    return different, outcomes
