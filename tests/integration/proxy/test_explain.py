"""Tests that `egress policy explain` agrees with the proxy, for random policies and requests."""

import asyncio
import contextlib
import random
import re
import ssl

import pytest

from openclaw_egress.cli.explain import ask
from openclaw_egress.policy.loader import load_policy
from tests.integration.proxy.raw import connected, read_head, status_of, tls
from tests.support.policy_fuzz import Answers, Values, compare, explained, policy_text, request
from tests.support.proxy_process import free_ports

CASES, POLICIES = 10_000, 34


def test_explain_agrees_with_access_control_on_random_requests():
    different, outcomes = asyncio.run(compare(seed=20_261, policies=POLICIES, requests=CASES // POLICIES + 10))
    assert different == []
    assert sum(outcomes.values()) >= CASES
    # Require many cases of each common outcome. If all cases had the same outcome, agreement would prove nothing.
    common = {"allowed", "denied default", "denied address-guard", "denied syntax", "malformed"}
    assert all(outcomes[name] >= 100 for name in common), outcomes
    assert sum(number for name, number in outcomes.items() if name.endswith(".deny")) >= 100


# Regression cases for the mismatches that random cases found.
POLICY = """\
version: 1
inspect: [api.llm.example]
classes:
  gateway: {listen: 8080, action: open, deny: [{host: api.llm.example, paths: ["/admin*"]}]}
  build: {listen: 8083, action: report, allow: ["*"], deny: [{cidr: 8.8.8.0/24}]}
resolve: {dns.example: 8.8.8.8}
"""


@pytest.fixture
def policy(tmp_path):
    file = tmp_path / "policy.yml"
    file.write_text(POLICY)
    return load_policy(file, None)


@pytest.mark.parametrize(
    ("class_name", "url", "allow", "rule"),
    [
        ("gateway", "https://xn--n3h.example/", True, "default"),
        ("gateway", "https://example.com:0/", False, "syntax"),
        ("gateway", "http://example.com:0/", False, "syntax"),
        ("gateway", "https://api.llm.example/admin", False, "classes.gateway.deny[0]"),
        ("build", "https://dns.example/", True, "classes.build.deny[0]"),
    ],
)
def test_explain_names_the_rule_that_decides_in_the_proxy(policy, class_name, url, allow, rule):
    found = ask(policy, class_name, url, "GET").decision
    assert (found.allow, found.rule) == (allow, rule)
    assert found.would_deny is (class_name == "build")


# ── over sockets ─────────────────────────────────────────────────────────────────────────────────────────────────


class Listener:
    """A client of one listener. After a denial, it reuses its connection for the next request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open = contextlib.ExitStack()
        self.sock = None

    def ask(self, requested) -> tuple[int, str]:
        """Send a request. Return status and rule for a 400 or 403 response, and ``(0, "")`` for any other."""
        if self.sock is None:
            self.sock = self.open.enter_context(connected(self.port))
        sock = self.sock
        for number, head in enumerate(requested.heads):
            sock.sendall(head)
            answer = read_head(sock)
            ours = re.search(rb'openclaw-egress; error=http_request_denied; details="([^"]*)"', answer)
            if status_of(answer) == 403 and ours and number == 0:
                _read_body(sock, answer)
                return 403, ours[1].decode()
            if requested.connect is None or number or status_of(answer) != 200:
                break
            try:
                sock = self.open.enter_context(tls(sock, _sni(requested.connect)))
            except ssl.SSLError:
                break  # The proxy does not decrypt this tunnel, and the server behind it does not use TLS.
            except OSError:
                break
        self.close()
        return (status_of(answer), ours[1].decode() if ours else "") if status_of(answer) in (400, 403) else (0, "")

    def close(self) -> None:
        self.open.close()
        self.sock = None


def _read_body(sock, head: bytes) -> None:
    missing = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
    while missing:
        missing -= len(sock.recv(missing))


def _sni(target: str) -> str | None:
    host = target.rpartition(":")[0].rstrip(".").lower()
    return None if host.startswith("[") else host


@pytest.fixture
def values(providers):
    # Allow only addresses on loopback, so that no request leaves the machine.
    return Values(
        answers=(("127.0.0.1",), ("127.0.0.1", "10.0.0.2", "169.254.169.254")),
        ports=(80, 443, providers.port, providers.http_port),
        listeners=free_ports(12),
        every_name_fixed=True,
        literals=("127.0.0.1", "10.0.0.2", "169.254.169.254", "fd00::1", "::1"),
        excepted=("127.0.0.0/8",),
        rules=(6, 1, 4),
    )


def test_running_proxy_responds_403_exactly_if_explain_denies(lean, values):
    chance = random.Random(7)
    lean.policy_file.write_text(policy_text(chance, values))
    policy = load_policy(lean.policy_file, None)
    lean.ports = {found.name: found.listen for found in policy.classes.values()}
    answers = Answers({})  # Resolve no names: the policy has a fixed address for each name.
    seen = {"allowed": 0, "denied": 0, "malformed": 0}
    with lean:
        listeners = {name: Listener(port) for name, port in lean.ports.items()}
        different = []
        for _ in range(500):
            requested = request(chance, values, chance.choice(list(policy.classes)))
            said = explained(policy, requested, answers)
            if not requested.heads:
                continue
            done = listeners[requested.class_name].ask(requested)
            outcome = "malformed" if said[1] == "syntax" else said[0]
            seen[outcome] += 1
            expected = {"allowed": [(0, "")], "denied": [(403, said[1])], "malformed": [(400, ""), (403, "syntax")]}
            if done not in expected[outcome]:
                different.append((requested, said, done))
        for listener in listeners.values():
            listener.close()
    assert different == []
    assert answers.requested == []
    assert all(number >= 50 for number in seen.values()), seen
    assert "Traceback" not in lean.log
