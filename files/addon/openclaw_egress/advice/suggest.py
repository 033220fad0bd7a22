"""The smallest set of rules for a class with action `report`, computed from its recorded traffic. Pure functions."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from openclaw_egress.advice.remediation import NewRule, never_opened
from openclaw_egress.advice.yaml_editor import PlaceError, with_rules
from openclaw_egress.errors import EgressError
from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.destination import Destination, DestinationError, parse_destination, split_url
from openclaw_egress.policy.evaluate import decide, decide_address
from openclaw_egress.policy.loader import read_policy
from openclaw_egress.policy.model import ClassPolicy, Decision, Policy, PolicyError
from openclaw_egress.policy.rules import Rules
from openclaw_egress.recording.denials import ANY, Denial

MANY_NAMES = 20
"""If more requested names than this have the same parent domain, a note proposes a wildcard."""


class SuggestionError(EgressError):
    """The rules cannot be added to the policy's text. The message contains the reason and the rules."""


@dataclass(frozen=True, slots=True)
class Request:
    """A recorded request; method and path are None if unknown."""

    destination: Destination
    method: str | None = None
    path: str | None = None
    plain: bool = False
    """Whether the request was plain HTTP, so that the proxy saw its method and path."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The smallest set of rules for a class.

    Attributes:
        rules: one rule for each host, with the requested ports.
        requests: the requests that these rules allow.
        left_out: destinations that no rule of ``allow`` can or should allow, each with the reason.
        notes: hints for the operator.
    """

    rules: tuple[NewRule, ...] = ()
    requests: tuple[Request, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def suggest(policy: Policy, class_name: str, denials: Iterable[Denial]) -> Suggestion:
    """Return the rules that a class still needs, so that `enforce` would allow its recorded traffic.

    Args:
        policy: the current policy.
        class_name: one of the classes of ``policy``.
        denials: the recorded denials of the class. Rules are suggested only for requests that the action `report`
            allowed. Destinations that the address guard denied get no rule. Destinations to which a client sent bytes
            that are not TLS get a note.
    """
    seen = _Seen.of(class_name, denials)
    enforced = enforcing(policy, class_name)
    ports: dict[str, set[int]] = {}
    requests: list[Request] = []
    left_out: dict[str, str] = {}
    for request in seen.requests:
        destination = request.destination
        decision = _decide(enforced, class_name, request)
        why = _why_not_allowable(enforced, class_name, request, decision, seen.guarded)
        if why is not None:
            left_out[str(destination)] = why
        elif not decision.allow:
            ports.setdefault(destination.host, set()).add(destination.port)
            requests.append(request)
    rules = tuple(NewRule(host=host, ports=tuple(sorted(ports[host]))) for host in sorted(ports))
    notes = (*_wildcards(list(ports)), *_not_tls(requests, seen.not_tls), *_uncounted(seen.unknown))
    return Suggestion(rules, tuple(requests), left_out, notes)


def enforcing(policy: Policy, class_name: str) -> Policy:
    """Return the policy with the class's action set to `enforce`."""
    found = replace(policy.classes[class_name], action="enforce")
    return replace(policy, classes={**policy.classes, class_name: found})


def suggested_text(
    data: bytes, file: str, llm_hosts: Sequence[str] | None, class_name: str, suggestion: Suggestion
) -> bytes:
    """Add the rules to a policy, and return the new bytes.

    Check that nothing else changes, and that `enforce` then allows the recorded requests.

    Args:
        data: the current policy.
        file: the policy's name in error messages.
        llm_hosts: as for `policy.read_policy`.
        class_name: the class that gets the rules.
        suggestion: the rules to add, at least one.

    Raises:
        SuggestionError: the rules cannot be added without another change, or do not allow a recorded request.
    """
    mark = "\ufeff" if data.startswith(b"\xef\xbb\xbf") else ""
    try:
        text = mark + with_rules(data.decode("utf-8-sig"), class_name, [str(rule) for rule in suggestion.rules])
        changed = read_policy(text.encode(), file, llm_hosts)
    except (PlaceError, PolicyError) as error:
        raise SuggestionError(_by_hand(class_name, suggestion, str(error))) from None
    before = read_policy(data, file, llm_hosts)
    if not _only_added(before, changed, class_name, len(suggestion.rules)):
        raise SuggestionError(
            _by_hand(class_name, suggestion, "a YAML alias shares the list with another part of the file")
        )
    enforced = enforcing(changed, class_name)
    for request in suggestion.requests:
        decision = _decide(enforced, class_name, request)
        if not decision.allow:
            raise SuggestionError(
                _by_hand(class_name, suggestion, f"still denied by {decision.rule}: {decision.reason}")
            )
    return text.encode()


def unified_diff(before: bytes, after: bytes, name: str) -> str:
    """Return a diff that ``patch`` accepts, even if the file has no trailing newline."""
    old, new = (_lines(data.decode()) for data in (before, after))
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(old, new, name, name)
    )


def _lines(text: str) -> list[str]:
    """Split the text after each LF only, like ``patch``. `str.splitlines` would also split at other characters."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


# ── recorded traffic ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Seen:
    """The recorded denials of a class, without duplicates.

    ``guarded`` and ``not_tls`` contain pairs of host and port: destinations that the address guard refused, and those
    to which a client sent something other than TLS after CONNECT. ``unknown`` is the number of reported requests
    whose destination was not recorded.
    """

    requests: dict[Request, None] = field(default_factory=dict)
    guarded: set[tuple[str, int]] = field(default_factory=set)
    not_tls: set[tuple[str, int]] = field(default_factory=set)
    unknown: int = 0

    @classmethod
    def of(cls, class_name: str, denials: Iterable[Denial]) -> _Seen:
        seen = cls()
        for denial in denials:
            if denial.class_name == class_name:
                seen._add(denial)
        return seen

    def _add(self, denial: Denial) -> None:
        if denial.rule == "address-guard":
            self.guarded.add((denial.host, denial.port))
        elif denial.code == Code.NOT_TLS:
            self.not_tls.add((denial.host, denial.port))
        elif not denial.enforced and denial.host == ANY:
            self.unknown += denial.count
        elif not denial.enforced and (request := _request(denial)) is not None:
            self.requests[request] = None


def _request(denial: Denial) -> Request | None:
    try:
        destination = parse_destination(denial.host, denial.port)
        scheme, _, _, path = split_url(denial.url) if denial.url else ("", "", 0, None)
    except DestinationError:
        return None
    method = None if denial.method == "CONNECT" else denial.method
    return Request(destination, method, path, plain=method is not None and scheme == "http")


def _decide(policy: Policy, class_name: str, request: Request) -> Decision:
    """Return the policy's decision on a request.

    Like the proxy, use method and path only for plain HTTP and inspected hosts.
    """
    return decide(policy, class_name, request.destination, *_seen_of(policy, request))


def _seen_of(policy: Policy, request: Request) -> tuple[str | None, str | None]:
    if request.method is None or not (request.plain or policy.inspects(request.destination.host)):
        return None, None
    return request.method, request.path


def _why_not_allowable(
    policy: Policy, class_name: str, request: Request, decision: Decision, guarded: set[tuple[str, int]]
) -> str | None:
    destination = request.destination
    if decision.rule.startswith(f"classes.{class_name}.deny["):
        return f"{decision.rule} denies it, and deny is evaluated before allow"
    if decision.rule == "address-guard":
        return decision.reason
    fixed = policy.fixed_address(destination.host)
    if (never := never_opened(destination.host, destination.address or fixed)) is not None:
        return f"no rule is proposed: {never}"
    if fixed is not None:
        seen = _seen_of(policy, request)
        if not (checked := decide_address(policy, class_name, destination, fixed, *seen)).allow:
            return checked.reason
    if (destination.host, destination.port) in guarded:
        return "the address guard refused an address of this name (`egress denials` shows the address)"
    return None


# ── notes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _wildcards(hosts: Sequence[str]) -> Iterator[str]:
    """Yield notes that propose wildcards: one for each domain below which many names were requested.

    If nested domains contain the same requested names, propose only the wildcard of the innermost domain.
    """
    below = Counter(parent for host in hosts for parent in parents(host) if parent.count(".") > 1)
    for parent, count in sorted(below.items()):
        closer = any(other.endswith(parent[1:]) and other != parent and below[other] == count for other in below)
        if count > MANY_NAMES and not closer:
            yield f'{count} names below {parent[2:]} are listed one by one; consider the wildcard "{parent}"'


def parents(host: str) -> Iterator[str]:
    """Yield the wildcards that match a name, the closest first: ``*.b.c`` and ``*.c`` for ``a.b.c``."""
    while (dot := host.find(".")) >= 0:
        host = host[dot + 1 :]
        yield f"*.{host}"


def _not_tls(requests: Sequence[Request], not_tls: set[tuple[str, int]]) -> Iterator[str]:
    for destination in dict.fromkeys(request.destination for request in requests):
        if (destination.host, destination.port) in not_tls:
            yield (
                f"clients also sent bytes that are not TLS to {destination}: only `tls: false` in its rule allows them"
            )


def _uncounted(unknown: int) -> Iterator[str]:
    if unknown:
        yield f"{unknown} more requests were counted without their destinations: rules may be missing here"


# ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _only_added(before: Policy, after: Policy, class_name: str, added: int) -> bool:
    """Return whether ``added`` rules were added at the end of the class's ``allow``, and nothing else changed."""
    whole, cut = before.classes[class_name], after.classes[class_name]
    kept = replace(cut, allow=Rules(cut.allow.all[: len(whole.allow.all)]))
    return (
        len(cut.allow.all) == len(whole.allow.all) + added
        and (before.inspect, before.resolve) == (after.inspect, after.resolve)
        and [_outline(found) for found in before.classes.values()]
        == [_outline(kept if name == class_name else found) for name, found in after.classes.items()]
    )


def _outline(found: ClassPolicy) -> tuple[object, ...]:
    """Return the content of a class without line numbers, for comparison."""
    lists = [[replace(rule, line=None) for rule in rules] for rules in (found.allow, found.deny, found.addresses)]
    return found.name, found.listen, found.action, found.limits, found.log_tunnels, found.instance, lists


def _by_hand(class_name: str, suggestion: Suggestion, why: str) -> str:
    rules = "".join(f"\n  - {rule}" for rule in suggestion.rules)
    return f"the rules cannot be added to the text ({why}); write them under classes.{class_name}.allow:{rules}"
