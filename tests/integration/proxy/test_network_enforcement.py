"""Tests of the destinations that each class can and cannot reach, with every kind of request."""

import json
import ssl
import time

import httpx2 as httpx
import pytest

from tests.integration.proxy.raw import connect, connected, exchange, read_all, status_of, tls

ELSEWHERE = "packages.example.com"


def denied_since(proxy, before):
    return [row for row in proxy.denials() if row.seq > before]


@pytest.fixture
def seq(proxy):
    rows = proxy.rows()
    return rows[-1].seq if rows else 0


def test_traffic_of_an_ordinary_site_is_not_decrypted(proxy, providers):
    exchanges = len(proxy.exchanges())
    # Trust only the provider's CA: a response then proves that the proxy did not decrypt.
    with proxy.client("browser", ca=providers.ca_file) as http:
        answer = http.get(proxy.url("www.example.com", "/"))
    assert answer.status_code == 200
    assert len(proxy.exchanges()) == exchanges


def test_an_inspected_host_is_decrypted_for_every_class(proxy, providers):
    exchanges = len(proxy.exchanges())
    with proxy.client("browser") as http:
        http.get(proxy.url("api.anthropic.com", "/v1/models"))
    assert [row.class_name for row in proxy.exchanges()[exchanges:]] == ["browser"]


def test_connection_stays_usable_after_a_refused_connect(proxy, providers):
    with connected(proxy.ports["browser"]) as sock:
        assert status_of(connect(sock, "10.0.0.1:443")) == 403
        host = f"www.example.com:{providers.http_port}"
        sock.sendall(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = sock.recv(65536)
        while b"HTTP/1.1 200" not in answer and (more := sock.recv(65536)):
            answer += more
        assert b"HTTP/1.1 200" in answer


def test_plain_http_to_an_ordinary_site_is_allowed(proxy, providers):
    with proxy.client("browser") as http:
        answer = http.get(f"http://www.example.com:{providers.http_port}/")
    assert answer.status_code == 200


def test_the_sandbox_is_refused_with_the_reason(proxy, providers, seq):
    began = time.time()
    with proxy.client("sandbox") as http, pytest.raises(httpx.ProxyError, match="403"):
        http.get(proxy.url("www.example.com", "/"))
    with proxy.client("sandbox") as http:
        answer = http.get(f"http://www.example.com:{providers.http_port}/", headers={"accept": "application/json"})
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["class"] == "sandbox"
    assert "sandbox" in error["reason"]
    assert answer.headers["proxy-status"].startswith("openclaw-egress; error=http_request_denied")
    assert not providers.asked_since(began)
    rows = denied_since(proxy, seq)
    assert [(row.class_name, row.host, row.rule) for row in rows] == [("sandbox", "www.example.com", "default")] * 2


def test_action_report_allows_and_records_the_request(proxy, providers, seq):
    with proxy.client("build", ca=providers.ca_file) as http:
        assert http.get(proxy.url("www.example.com", "/")).status_code == 200
    rows = denied_since(proxy, seq)
    assert [(row.class_name, row.host) for row in rows] == [("build", "www.example.com")]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0.0.0.0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "10.0.0.1", "172.16.0.1",
        "192.168.1.1", "169.254.169.254", "[fd00:ec2::254]", "[fe80::1]", "100.64.0.1", "198.18.0.1", "224.0.0.1",
        "metadata.google.internal", "127.0.0.1.", "LOCALHOST", "１２７.0.0.1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["connect", "absolute"])
def test_address_guard_refuses_internal_addresses(proxy, providers, host, how):
    """Request guarded addresses from an open class.

    The exception of this class covers the fake provider's ports, but not ports 9464 and 81.
    """
    began = time.time()
    if how == "connect":
        data = f"CONNECT {host}:9464 HTTP/1.1\r\nHost: {host}:9464\r\n\r\n"
    else:
        data = f"GET http://{host}:81/ HTTP/1.1\r\nHost: {host}:81\r\n\r\n"
    assert status_of(exchange(proxy.ports["gateway"], data.encode())) in (400, 403)
    assert not providers.asked_since(began)


def test_class_cannot_reach_the_proxys_own_ports(proxy):
    for port in (*proxy.ports.values(), proxy.health_port):
        answer = exchange(proxy.ports["gateway"], f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
        assert status_of(answer) in (400, 403)


@pytest.mark.parametrize("name", ["packages.example.com", None, "api.openai.com"])
def test_name_in_tls_must_match_connect(proxy, providers, seq, name):
    began = time.time()
    with connected(proxy.ports["browser"]) as sock:
        assert status_of(connect(sock, f"www.example.com:{providers.port}")) == 200
        with pytest.raises(OSError), tls(sock, name) as inside:
            inside.sendall(b"GET / HTTP/1.1\r\nHost: packages.example.com\r\n\r\n")
            assert not inside.recv(1), "the proxy opened the tunnel"
            raise OSError
    assert not providers.asked_since(began)
    assert [row.rule for row in denied_since(proxy, seq)] == ["syntax"]


@pytest.mark.parametrize(
    "head",
    [
        "GET /v1/models HTTP/1.1\r\nHost: {elsewhere}\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\nHost: api.anthropic.com:{port}\r\nHost: {elsewhere}\r\n\r\n",
        "GET https://{elsewhere}/ HTTP/1.1\r\nHost: api.anthropic.com:{port}\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\nHost: api.openai.com:{port}\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\n\r\n",
    ],
)
def test_names_inside_a_decrypted_tunnel_must_match(proxy, providers, head):
    began = time.time()
    with connected(proxy.ports["browser"]) as sock:
        assert status_of(connect(sock, f"api.anthropic.com:{providers.port}")) == 200
        with tls(sock, "api.anthropic.com", proxy.root) as inside:
            inside.sendall(head.format(elsewhere=ELSEWHERE, port=providers.port).encode())
            assert status_of(inside.recv(65536)) in (400, 403)
    assert not providers.asked_since(began)


def test_host_and_target_must_match_in_plain_http(proxy, providers):
    began = time.time()
    data = f"GET http://www.example.com:{providers.http_port}/ HTTP/1.1\r\nHost: {ELSEWHERE}\r\n\r\n"
    assert status_of(exchange(proxy.ports["browser"], data.encode())) in (400, 403)
    assert not providers.asked_since(began)


def test_https_in_absolute_form_is_refused(proxy, providers):
    began = time.time()
    target = proxy.url("www.example.com", "/")
    data = f"GET {target} HTTP/1.1\r\nHost: www.example.com:{providers.port}\r\n\r\n"
    assert status_of(exchange(proxy.ports["gateway"], data.encode())) == 403
    assert not providers.asked_since(began)


def test_only_tls_and_http_are_allowed_after_connect(proxy, providers, seq):
    began = time.time()
    with connected(proxy.ports["browser"]) as sock:
        assert status_of(connect(sock, f"www.example.com:{providers.http_port}")) == 200
        sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        assert read_all(sock) == b""
    assert not providers.asked_since(began)
    assert len(denied_since(proxy, seq)) == 1


def test_rule_with_tls_false_permits_any_protocol_after_connect(lean, providers):
    text = lean.policy_file.read_text()
    rule = f"{{host: packages.example.com, ports: [{providers.http_port}], tls: false}}"
    opened = f"[{{cidr: 127.0.0.1/32, ports: [{providers.http_port}]}}]"
    lean.policy_file.write_text(text.replace("enforce, allow: []}", f"enforce, allow: [{rule}], addresses: {opened}}}"))
    with lean, connected(lean.ports["sandbox"]) as sock:
        assert status_of(connect(sock, f"packages.example.com:{providers.http_port}")) == 200
        sock.sendall(b"NONSENSE\r\n\r\n")
        assert b"400" in sock.recv(65536)  # The origin sent this 400, not the proxy.


def test_direct_tls_to_a_listener_is_closed(proxy):
    with connected(proxy.ports["gateway"]) as sock, pytest.raises((ssl.SSLError, OSError)):
        tls(sock, "api.anthropic.com")


@pytest.mark.parametrize(
    ("method", "upgrade", "version"),
    [("GET", "websocket", "8"), ("GET", "websocket, h2c", "13"), ("POST", "websocket", "13"), ("GET", "websocket", "")],
)
def test_upgrade_whose_messages_cannot_be_recorded_is_refused(proxy, providers, seq, method, upgrade, version):
    began = time.time()
    headers = {"connection": "upgrade", "upgrade": upgrade, "sec-websocket-version": version}
    with proxy.client() as http:
        answer = http.request(method, proxy.url("api.openai.com", "/v1/responses"), headers=headers)
    assert answer.status_code == 403
    assert not providers.asked_since(began)
    assert [row.code for row in denied_since(proxy, seq)] == ["websocket_not_recorded"]


def test_proxy_headers_do_not_reach_the_origin(proxy, providers):
    with proxy.client("browser") as http:
        http.get(
            f"http://www.example.com:{providers.http_port}/",
            headers={"proxy-authorization": "Basic c2VjcmV0", "proxy-connection": "keep-alive"},
        )
    assert "proxy-authorization" not in [name.lower() for name in providers.log[-1]["request_header_names"]]


def test_denials_are_counted_exactly_and_recorded_up_to_a_rate(proxy, seq):
    name = "a-loop.example.org"
    for _ in range(40):
        exchange(proxy.ports["sandbox"], f"CONNECT {name}:443 HTTP/1.1\r\n\r\n".encode())
    assert len([row for row in denied_since(proxy, seq) if row.host == name]) == 10
    counted = [
        float(line.rsplit(" ", 1)[1])
        for line in proxy.metrics().splitlines()
        if line.startswith("openclaw_egress_denied_total") and 'egress_class="sandbox"' in line
    ]
    assert sum(counted) >= 40


def test_refusal_has_the_format_that_the_client_accepts(proxy, providers):
    url = f"http://www.example.com:{providers.http_port}/<script>"
    with proxy.client("sandbox") as http:
        page = http.get(url, headers={"accept": "text/html"})
        text = http.get(url)
        data = http.get(url, headers={"accept": "application/json"})
    assert page.headers["content-type"].startswith("text/html") and "<script>" not in page.text
    assert text.headers["content-type"].startswith("text/plain") and "reason: " in text.text
    assert set(json.loads(data.text)["error"]) >= {"class", "destination", "rule", "reason", "remedy"}
