"""Tests of address guard exceptions with methods and paths, as in the default policy's exceptions for telemetry."""

import json
import time

import pytest

from openclaw_egress.cli.explain import ask
from openclaw_egress.policy.loader import load_policy
from tests.integration.proxy.conftest import make_proxy
from tests.integration.proxy.raw import connect, connected, exchange, status_of

H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


@pytest.fixture(scope="module", params=["lean", "stock"])
def limited(request, tmp_path_factory, providers):
    """Start a proxy that permits POST /otlp/v1/logs on loopback: to gateway by address, to browser by name."""
    running = make_proxy(tmp_path_factory.mktemp(f"limited-{request.param}"), providers, request.param)
    exception = {
        "cidr": "127.0.0.1/32",
        "ports": [providers.http_port],
        "methods": ["POST"],
        "paths": ["/otlp/v1/logs"],
    }
    name = {"host": "loki.example.com", "ports": [providers.http_port], "tls": False}
    classes = {
        "gateway": {"listen": running.ports["gateway"], "action": "open", "addresses": [exception]},
        "browser": {
            "listen": running.ports["browser"], "action": "enforce", "allow": [name], "addresses": [exception],
        },
    }  # fmt: skip
    for name in ("sandbox", "build"):
        classes[name] = {"listen": running.ports[name], "action": "enforce"}
    resolve = {"loki.example.com": "127.0.0.1"}
    running.policy_file.write_text(json.dumps({"version": 1, "classes": classes, "resolve": resolve}))
    with running:
        yield running
    assert "Traceback" not in running.log, running.log


def head(host, target, method="POST", fields=""):
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 0\r\n\r\n".encode()


@pytest.fixture(params=[("gateway", "127.0.0.1"), ("browser", "loki.example.com")], ids=["address", "name"])
def route(request, limited, providers):
    class_name, host = request.param
    return limited.ports[class_name], f"{host}:{providers.http_port}"


def requested(providers, began: float, number: int) -> list[dict]:
    """Wait until the provider's log has ``number`` requests, and return them.

    A response can arrive before its log entry.
    """
    end = time.monotonic() + 30
    while len(found := providers.asked_since(began)) < number and time.monotonic() < end:
        time.sleep(0.02)
    return found


def test_request_named_by_the_exception_passes(route, providers):
    port, host = route
    began = time.time()
    for target in ("/otlp/v1/logs", "/otlp/v1/logs?a=b"):
        assert status_of(exchange(port, head(host, f"http://{host}{target}"))) not in (0, 400, 403, 502, 503)
    assert len(requested(providers, began, 2)) == 2


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("GET", "/otlp/v1/logs", ""),
        ("post", "/otlp/v1/logs", ""),
        ("Post", "/otlp/v1/logs", ""),
        ("GET", "/loki/api/v1/query_range", ""),
        ("POST", "/loki/api/v1/query_range", ""),
        ("POST", "/loki/api/v1/push", ""),
        ("POST", "/otlp/v1/../../loki/api/v1/query_range", ""),
        ("POST", "/otlp/v1/logs/../../../loki/api/v1/query_range", ""),
        ("POST", "/otlp/v1/logs/%2e%2e/%2e%2e/loki", ""),
        ("POST", "/otlp/v1/logs/%252e%252e/loki", ""),
        ("POST", "//otlp/v1/logs", ""),
        ("POST", "/otlp/v1/logs;/../../loki", ""),
        ("POST", "/otlp/v1/logs#/../../loki", ""),
        ("POST", "/otlp/v1%2flogs", ""),
        ("POST", "", ""),
        ("POST", "/otlp/v1/logs", "X-HTTP-Method-Override: GET\r\n"),
        ("POST", "/otlp/v1/logs", "X_HTTP_Method_Override: GET\r\n"),
        ("POST", "/otlp/v1/logs", "x-original-url: /loki/api/v1/query_range\r\n"),
        ("POST", "/otlp/v1/logs", "X-Forwarded-Path: /loki/api/v1/query_range\r\n"),
        ("POST", "/otlp/v1/logs", "X-Forwarded-Prefix: /loki\r\n"),
        ("POST", "/otlp/v1/logs", "X-Envoy-Original-Path: /loki/api/v1/query_range\r\n"),
        ("POST", "/otlp/v1/logs", "Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        ("POST", "/otlp/v1/logs", H2C),
    ],
)
def test_other_requests_in_absolute_form_are_refused(route, providers, method, path, fields):
    port, host = route
    began = time.time()
    assert status_of(exchange(port, head(host, f"http://{host}{path}", method, fields))) in (400, 403)
    assert not providers.asked_since(began)


def test_explain_distinguishes_methods_by_case_as_the_proxy_does(limited, providers):
    policy = load_policy(limited.policy_file, None)
    url = f"http://127.0.0.1:{providers.http_port}/otlp/v1/logs"
    assert [ask(policy, "gateway", url, method).decision.allow for method in ("POST", "post")] == [True, False]


def test_other_requests_on_an_allowed_connection_are_refused(route, providers):
    port, host = route
    began = time.time()
    with connected(port) as sock:
        sock.sendall(
            head(host, f"http://{host}/otlp/v1/logs") + head(host, f"http://{host}/loki/api/v1/query_range", "GET")
        )
        answers = b""
        while answers.count(b"HTTP/1.1") < 2 and (piece := sock.recv(65536)):
            answers += piece
    assert b"HTTP/1.1 403" in answers
    assert [entry["path"] for entry in requested(providers, began, 1)] == ["/otlp/v1/logs"]


def test_tunnel_to_a_limited_exception_is_refused(route, providers):
    port, host = route
    began = time.time()
    with connected(port) as sock:
        answer = connect(sock, host)
    assert status_of(answer) == 403
    assert not providers.asked_since(began)
