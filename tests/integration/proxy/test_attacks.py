"""Tests that run those techniques of `make attack` that use a proxy, against this project's proxy and a bare mitmdump.

All servers are on loopback. The bare mitmdump proves that the techniques work: they bypass mitmdump, but not this
project's proxy.
"""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.proxy.raw import connected
from tests.security import loopback_only
from tests.security.inside.core import Knowledge
from tests.security.inside.sockets import ask
from tests.security.remote_exec import attack, techniques
from tests.support.proxy_process import free_ports

THROUGH_THE_PROXY = ("http", "tls", "addresses", "records")
SLOW = "rebinding"
"""Technique that the tests skip, because it needs a name server with changing responses. Only the lab has one."""

GET_PAST_A_BARE_MITMDUMP = {
    "plainly", "host_header_elsewhere", "one_connection_two_requests", "redirects", "connect_in_connect",
    "not_tls_in_a_tunnel", "upgrades", "headers_that_are_believed", "magic_hosts", "other_schemes",
    "other_host_when_decrypted", "request_smuggling_when_decrypted", "spellings_of_addresses",
    "services_of_the_inside", "literals_of_the_internet", "metadata_through_the_proxy", "another_name_in_tls",
    "another_name_when_decrypted", "hellos_of_two_minds", "tls_to_the_listener", "spellings_of_the_denied_name",
    "names_of_two_minds", "plain_http_in_a_tunnel",
}  # fmt: skip


def ways_out(knowledge, providers):
    """Run the techniques.

    Return three values: the names of the techniques that bypassed the proxy, the errors of those that could not run,
    and the token of each technique, by name.
    """
    chosen = [
        found
        for found in techniques("browser", alone=False)
        if found.steps.__module__.rpartition(".")[2] in THROUGH_THE_PROXY and found.name != SLOW
    ]
    tokens = {found.name: f"t{number:02x}{time.time_ns() % 10**6}" for number, found in enumerate(chosen)}
    outcomes = attack((sys.executable,), knowledge, tokens)
    assert {found["name"] for found in outcomes} == set(tokens)
    named = [str(entry["host"]) for entry in providers.log]
    out = {found["name"] for found in outcomes if found["out"]}
    out |= {name for name, token in tokens.items() if any(token in host for host in named)}
    return out, {found["name"]: found["detail"] for found in outcomes if found["broken"]}, tokens


def knowledge(port, providers, allowed, inspected, health):
    return Knowledge(
        place="browser",
        proxy=("127.0.0.1", port),
        health=(("127.0.0.1", health),),
        allowed=allowed,
        denied="denied.example.net",
        inspected=inspected,
        tls_port=providers.port,
        http_port=providers.http_port,
        canary="203.0.113.66",
        resolver="203.0.113.10",
        hosts=("127.0.0.1",),
        spellings=tuple(
            (host, health) for host in ("127.0.0.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "127.1")
        ),
    )


def test_no_technique_bypasses_the_proxy_or_the_record(lean, providers):
    with lean:
        target = knowledge(lean.ports["browser"], providers, "www.example.com", "api.anthropic.com", lean.health_port)
        out, broken, tokens = ways_out(target, providers)
        assert (out, broken) == (set(), {})
        requested = {entry["path"] for entry in providers.log if entry["host"].startswith("api.anthropic.com")}
        mine = {path for path in requested if any(token in path for token in tokens.values())}
        recorded = {row.url.partition("anthropic.com")[2].partition("/")[2] for row in lean.exchanges() if row.url}
        assert mine and {path.removeprefix("/") for path in mine} <= recorded


@pytest.fixture
def bare(tmp_path):
    """Yield the port of a mitmdump. Its only script, loopback_only.py, refuses connections that leave the machine."""
    (port,) = free_ports(1)
    mitmdump = str(Path(sys.executable).with_name("mitmdump"))
    listening = ("--listen-host", "127.0.0.1", "--listen-port", str(port))
    options = ("--quiet", "--ssl-insecure", "--set", f"confdir={tmp_path}", "--scripts", loopback_only.__file__)
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen([mitmdump, *listening, *options], stdout=nowhere, stderr=nowhere)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), connected(port):
                break
            time.sleep(0.2)
        # Before any technique runs, check that mitmdump refuses connections that leave the machine.
        request = b"GET http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"
        assert loopback_only.REFUSED.encode() in ask(("127.0.0.1", port), request)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def test_same_techniques_bypass_a_bare_mitmdump(bare, providers):
    out, _, _ = ways_out(knowledge(bare, providers, "localhost", "localhost", providers.http_port), providers)
    assert out >= GET_PAST_A_BARE_MITMDUMP
