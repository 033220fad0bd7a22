"""Tests of plain HTTP inside a CONNECT tunnel, as undici's ProxyAgent and `curl --proxytunnel` send it.

The proxy must decide on and record such a request like any other. `test_http_syntax` also sends malformed requests in
such a tunnel.
"""

import json
import socket
import subprocess
import time

import pytest

from tests.integration.proxy.conftest import make_proxy, refusals, wait_until
from tests.integration.proxy.raw import connect, connected, read_all, status_of, tls
from tests.security.inside.sockets import read_answer

ELSEWHERE = "packages.example.com"
KEY = "sk-ant-api03-a-key-that-must-not-be-kept-anywhere"


@pytest.fixture(params=["gateway", "browser"], ids=["open", "enforce"])
def class_name(request):
    return request.param


def answers(proxy, class_name, target, *requests, pause=0.0):
    """Send requests one after the other in one tunnel. Return the responses."""
    with connected(proxy.ports[class_name]) as sock:
        assert status_of(connect(sock, target)) == 200
        found = []
        for request in requests:
            for piece in request if isinstance(request, tuple) else (request,):
                sock.sendall(piece.encode())
                time.sleep(pause)
            found.append(read_answer(sock))
        return found


def get(host, path="/", *fields, method="GET"):
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{''.join(f'{field}\r\n' for field in fields)}\r\n"


def refused_since(proxy, before):
    """Wait for refusals that are not in ``before``. Return them as (class, code)."""
    wait_until(lambda: refusals(proxy) != before, proxy)
    return [(class_name, code) for class_name, _, code in (refusals(proxy) - before).elements()]


@pytest.fixture
def site(providers):
    return f"www.example.com:{providers.http_port}"


@pytest.fixture
def provider(providers):
    return f"api.anthropic.com:{providers.http_port}"


def test_plain_requests_in_a_tunnel_reach_an_ordinary_site(proxy, providers, class_name, site):
    began, before, exchanges = time.time(), refusals(proxy), len(proxy.exchanges())
    requests = [get(site, "/?a"), get(site, f"http://{site}/?b"), get(site, "/?c", "Content-Length: 0", method="POST")]
    assert [status_of(answer) for answer in answers(proxy, class_name, site, *requests)] == [200] * 3
    requested = [(entry["method"], entry["path"]) for entry in providers.asked_since(began)]
    assert requested == [("GET", "/?a"), ("GET", "/?b"), ("POST", "/?c")]
    assert (refusals(proxy), len(proxy.exchanges())) == (before, exchanges)


def test_request_of_curl_with_proxytunnel_is_allowed(proxy, site):
    words = ["curl", "--silent", "--proxytunnel", "--proxy", f"http://127.0.0.1:{proxy.ports['gateway']}"]
    words += ["--output", "/dev/null", "--write-out", "%{http_code}", "--noproxy", "", f"http://{site}/"]
    assert subprocess.run(words, capture_output=True, text=True, check=False, timeout=30).stdout == "200"


def test_request_line_that_arrives_byte_by_byte_is_recognised(proxy, class_name, site):
    assert [status_of(answer) for answer in answers(proxy, class_name, site, tuple(get(site)), pause=0.002)] == [200]


def test_plain_requests_in_a_tunnel_to_an_inspected_host_are_recorded(proxy, providers, class_name, provider):
    began, known = time.time(), len(proxy.exchanges())
    body = json.dumps({"model": "claude-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]})
    fields = (f"Content-Length: {len(body)}", "Content-Type: application/json", f"X-Api-Key: {KEY}")
    request = get(provider, "/v1/messages", *fields, method="POST") + body
    assert [status_of(answer) for answer in answers(proxy, class_name, provider, request, request)] == [200, 200]
    wait_until(lambda: len(proxy.exchanges()) >= known + 2, proxy)
    rows = proxy.exchanges()[known:]
    assert [row.url for row in rows] == [f"http://{provider}/v1/messages"] * 2
    usage = [entry["usage"] for entry in providers.asked_since(began)]
    inputs = [sum(count for name, count in found.items() if "input_tokens" in name) for found in usage]
    assert [row.input_tokens for row in rows] == inputs
    assert [row.output_tokens for row in rows] == [found["output_tokens"] for found in usage]
    assert {row.class_name for row in rows} == {class_name}


OTHER = {
    "another Host": (lambda site, other: get(other), "host_header_mismatch"),
    "another host in the target": (lambda site, other: get(site, f"http://{other}/"), "host_header_mismatch"),
    "another host in both": (lambda site, other: get(other, f"http://{other}/"), "host_header_mismatch"),
    "another host by https": (lambda site, other: get(other, f"https://{other}/"), "host_header_mismatch"),
    "another port": (lambda site, other: get(site.partition(":")[0]), "host_header_mismatch"),
    "two Hosts": (lambda site, other: get(site, "/", f"Host: {other}"), "host_header_repeated"),
    "no Host": (lambda site, other: "GET / HTTP/1.1\r\n\r\n", "host_header_missing"),
    "CONNECT": (lambda site, other: get(other, other, method="CONNECT"), "nested_connect"),
    "HTTP/2": (lambda site, other: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed_request"),
    "SSH": (lambda site, other: "SSH-2.0-OpenSSH_9.9\r\n", "not_tls"),
    "SMTP": (lambda site, other: "EHLO a\r\n", "not_tls"),
}


@pytest.mark.parametrize("kind", OTHER)
def test_request_to_another_host_than_the_tunnels_is_refused_and_recorded(proxy, providers, class_name, site, kind):
    make, code = OTHER[kind]
    began, before = time.time(), refusals(proxy)
    request = make(site, f"{ELSEWHERE}:{providers.http_port}")
    (answer,) = answers(proxy, class_name, site, request)
    assert status_of(answer) in (0, 400, 403)
    assert refused_since(proxy, before) == [(class_name, code)]
    assert not providers.asked_since(began)


@pytest.mark.parametrize("kind", [kind for kind in OTHER if kind not in ("SSH", "SMTP")])
def test_second_request_to_another_host_is_refused_and_recorded(proxy, providers, class_name, site, kind):
    make, code = OTHER[kind]
    began, before = time.time(), refusals(proxy)
    second = make(site, f"{ELSEWHERE}:{providers.http_port}")
    first, refused = answers(proxy, class_name, site, get(site, "/?first"), second)
    assert status_of(first) == 200 and status_of(refused) in (400, 403)
    assert refused_since(proxy, before) == [(class_name, code)]
    assert [entry["path"] for entry in providers.asked_since(began)] == ["/?first"]
    began, before = time.time(), refusals(proxy)
    answers(proxy, class_name, site, get(site, "/?first") + second)
    assert refused_since(proxy, before) == [(class_name, code)]
    wait_until(lambda: providers.asked_since(began), proxy)
    assert [entry["path"] for entry in providers.asked_since(began)] == ["/?first"]


def test_tls_after_a_plain_request_is_refused(proxy, providers, class_name, site):
    began, before = time.time(), refusals(proxy)
    with connected(proxy.ports[class_name]) as sock:
        assert status_of(connect(sock, site)) == 200
        sock.sendall(get(site, "/?first").encode())
        assert status_of(read_answer(sock)) == 200
        with pytest.raises(OSError):
            tls(sock, "www.example.com")
    assert refused_since(proxy, before) == [(class_name, "not_http")]
    assert [entry["path"] for entry in providers.asked_since(began)] == ["/?first"]


def test_plain_request_inside_tls_is_not_a_second_tunnel(proxy, providers, class_name):
    """Send plain bytes after the TLS handshake.

    The proxy must end the connection and forward nothing to the provider.
    """
    began = time.time()
    with connected(proxy.ports[class_name]) as sock:
        assert status_of(connect(sock, f"api.anthropic.com:{providers.port}")) == 200
        inside = tls(sock, "api.anthropic.com", proxy.root)
        with socket.socket(fileno=inside.detach()) as plain:
            plain.sendall(get(f"api.anthropic.com:{providers.port}").encode())
            assert b"HTTP/1.1" not in read_all(plain)
    assert not providers.asked_since(began)


@pytest.mark.parametrize("upgrade", ["websocket, h2c", "h2c", "TLS/1.0"])
def test_upgrade_to_an_inspected_host_is_not_forwarded(proxy, providers, class_name, provider, upgrade):
    before = refusals(proxy)
    fields = ("Connection: Upgrade", f"Upgrade: {upgrade}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: YQ==")
    began = time.time()
    (answer,) = answers(proxy, class_name, provider, get(provider, "/v1/models", *fields))
    if "websocket" in upgrade:
        assert status_of(answer) == 403
        assert refused_since(proxy, before) == [(class_name, "websocket_not_recorded")]
        assert not providers.asked_since(began)
    else:
        (entry,) = providers.asked_since(began)
        assert "upgrade" not in entry["request_header_names"]


def test_a_guarded_address_and_a_denied_name_open_no_tunnel(proxy, providers):
    for name, target in (
        ("gateway", "169.254.169.254:80"),
        ("gateway", "10.9.9.9:80"),
        ("sandbox", "www.example.com:80"),
    ):
        with connected(proxy.ports[name]) as sock:
            assert status_of(connect(sock, target)) == 403


def test_methods_and_paths_of_a_rule_limit_requests_inside_a_plain_tunnel(tmp_path, providers):
    running = make_proxy(tmp_path, providers)
    rule = {
        "host": "api.anthropic.com", "ports": [providers.http_port], "methods": ["POST"], "paths": ["/v1/messages"],
    }  # fmt: skip
    browser = {"listen": running.ports["browser"], "action": "enforce", "allow": [rule]}
    browser["addresses"] = [{"cidr": "127.0.0.1/32", "ports": [providers.http_port]}]
    classes = {"browser": browser}
    for name in ("gateway", "sandbox", "build"):
        classes[name] = {"listen": running.ports[name], "action": "enforce"}
    policy = {"version": 1, "inspect": ["api.anthropic.com"], "classes": classes}
    policy["resolve"] = {"api.anthropic.com": "127.0.0.1"}
    running.policy_file.write_text(json.dumps(policy))
    host = f"api.anthropic.com:{providers.http_port}"
    length = "Content-Length: 0"
    refused = [
        get(host, "/v1/messages"),
        get(host, "/v1/files", length, method="POST"),
        get(host, "/v1/messages/../files", length, method="POST"),
        get(host, "/v1/messages", length, "X-Original-URL: /v1/files", method="POST"),
        get(host, "/v1/messages", length, "Connection: Upgrade", "Upgrade: h2c", method="POST"),
    ]
    with running:
        began = time.time()
        passed, *others = answers(running, "browser", host, get(host, "/v1/messages", length, method="POST"), *refused)
        assert status_of(passed) not in (0, 403)
        assert [status_of(answer) for answer in others] == [403] * len(refused)
        assert len(running.denials()) == len(refused)
        assert len(providers.asked_since(began)) == 1
