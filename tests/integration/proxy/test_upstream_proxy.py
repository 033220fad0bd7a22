"""Tests of the upstream proxy: the proxy opens allowed connections through it, and sends nothing else to it."""

import base64
import contextlib
import json
import re
import socket
import ssl
import threading

import pytest

from tests.integration.proxy.conftest import make_proxy, wait_until
from tests.integration.proxy.raw import connect, connected, read_all, read_head, status_of, tls
from tests.support import websocket_provider
from tests.support.llm_providers import make_certificates
from tests.support.proxy_process import PROVIDERS, SITES, RunningProxy
from tests.support.upstream_proxy import ConnectProxy
from tests.support.websocket_provider import WebSocketProvider

LOGIN = "corp-user:a-password-with:a-colon-Zq9"
ENCODED = base64.b64encode(LOGIN.encode())
HOSTS = {**dict.fromkeys((*PROVIDERS, *SITES), "127.0.0.1"), "direct.example.com": "192.0.2.1"}


def make(directory, corp, provider_ports, ca, kind="lean", policy=lambda text: text, **environment):
    """Return a proxy with the upstream proxy ``corp``. Only ``corp`` can resolve the names of the destinations."""
    (login := directory / "login").write_text(LOGIN + "\n")
    settings = {
        "EGRESS_UPSTREAM_PROXY": corp.url,
        "EGRESS_UPSTREAM_PROXY_AUTH_FILE": str(login),
        "EGRESS_UPSTREAM_RESOLVE": "off",
        **environment,
    }
    running = RunningProxy(directory, provider_ports, ca, kind, **settings)
    text = re.sub(r"resolve: .*\n", "", running.policy_file.read_text())
    running.policy_file.write_text(policy(text))
    return running


@pytest.fixture(scope="module")
def corp():
    with ConnectProxy(HOSTS, credentials=LOGIN) as running:
        yield running


@pytest.fixture(autouse=True)
def forgotten(corp):
    corp.heads.clear()


@pytest.fixture
def received(providers):
    """Return a function that returns the log entries of requests that reached the origin since the test began."""
    before = len(providers.log)
    return lambda: providers.log[before:]


@pytest.fixture(scope="module", params=["lean", "stock"])
def proxy(request, tmp_path_factory, corp, providers):
    directory = tmp_path_factory.mktemp(request.param)
    ports = [providers.port, providers.http_port]
    with make(directory, corp, ports, providers.ca_file, request.param) as running:
        yield running
    assert "Traceback" not in running.log, running.log
    written = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "login")
    assert LOGIN.encode() not in written and LOGIN.split(":", 1)[1].encode() not in written and ENCODED not in written


@pytest.fixture
def behind(tmp_path, providers):
    """Return a function that starts a proxy behind the given upstream proxy."""
    with contextlib.ExitStack() as stack:

        def start(corp, **options):
            ports = [providers.port, providers.http_port]
            return stack.enter_context(make(tmp_path, corp, ports, providers.ca_file, **options))

        yield start


def new_denials(proxy, before, number):
    wait_until(lambda: len(proxy.denials()) >= before + number, proxy)
    return proxy.denials()[before:]


def test_inspected_request_uses_the_upstream_proxy_and_is_recorded(proxy, corp, providers, received):
    before = len(proxy.exchanges())
    with proxy.client() as http:
        for _ in range(2):
            answer = http.post(
                proxy.url("api.openai.com", "/v1/chat/completions"),
                json={"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]},
                headers={"authorization": "Bearer of-a-test", "proxy-authorization": "Basic of-the-client"},
            )
            assert answer.status_code == 200
    rows = proxy.exchanges()[before:]
    assert [(row.outcome, row.host) for row in rows] == [("complete", "api.openai.com")] * 2
    assert corp.targets == [f"api.openai.com:{providers.port}"], "both requests must use one tunnel"
    assert [line.split(b":")[0] for line in corp.heads[0].split(b"\r\n")[1:-2]] == [b"Host", b"Proxy-Authorization"]
    assert b"of-the-client" not in corp.heads[0] and ENCODED in corp.heads[0]
    assert [request["status"] for request in received()] == [200, 200]
    assert all("proxy-authorization" not in request["request_header_names"] for request in received())


def test_events_of_a_stream_pass_through_the_upstream_proxy(proxy, corp):
    with (
        proxy.client() as http,
        http.stream(
            "POST",
            proxy.url("api.openai.com", "/v1/chat/completions"),
            json={"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "hi"}]},
            headers={"authorization": "Bearer of-a-test"},
        ) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "[DONE]" in [line.removeprefix("data: ") for line in answer.iter_lines()]
    assert len(corp.heads) == 1


def test_tunnel_passes_bytes_of_any_protocol_in_tls(proxy, corp, providers):
    with proxy.client("browser", ca=providers.ca_file) as http:
        assert http.get(proxy.url("www.example.com", "/")).status_code == 200
    assert corp.targets == [f"www.example.com:{providers.port}"]


def test_plain_http_uses_a_tunnel_and_the_origin_receives_no_credentials(proxy, corp, providers, received):
    with proxy.client("browser") as http:
        url = f"http://www.example.com:{providers.http_port}/"
        answer = http.get(url, headers={"proxy-authorization": "Basic of-the-client", "x-kept": "1"})
    assert answer.status_code == 200
    assert corp.targets == [f"www.example.com:{providers.http_port}"] and corp.heads[0].startswith(b"CONNECT ")
    (request,) = received()
    assert "x-kept" in request["request_header_names"] and "proxy-authorization" not in request["request_header_names"]


def test_denied_destination_never_reaches_the_upstream_proxy(proxy, corp, providers):
    before = len(proxy.denials())
    for head in (
        f"CONNECT www.example.com:{providers.port} HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        f"GET http://www.example.com:{providers.http_port}/ HTTP/1.1\r\n"
        f"Host: www.example.com:{providers.http_port}\r\n\r\n",
    ):
        with connected(proxy.ports["sandbox"]) as sock:
            sock.sendall(head.encode())
            assert status_of(read_head(sock)) == 403
    assert [row.code for row in new_denials(proxy, before, 2)] == ["no_rule"] * 2
    assert corp.heads == []


@pytest.mark.parametrize(
    ("class_name", "target", "code"),
    [
        ("gateway", "10.1.2.3:443", "address_guarded"),
        ("gateway", "0x7f.1:{corp}", "address_guarded"),
        ("gateway", "127.0.0.1:{corp}", "address_guarded"),
        ("gateway", "localhost:{corp}", "address_guarded"),
        ("gateway", "[::ffff:127.0.0.1]:{corp}", "address_guarded"),
        ("browser", "93.184.216.34:443", "literal_without_rule"),
    ],
)
def test_address_is_guarded_although_the_upstream_proxy_could_reach_it(proxy, corp, class_name, target, code):
    before = len(proxy.denials())
    with connected(proxy.ports[class_name]) as sock:
        assert status_of(connect(sock, target.format(corp=corp.port))) == 403
    assert [row.code for row in new_denials(proxy, before, 1)] == [code]
    assert corp.heads == []


def test_name_without_a_dot_is_not_sent_to_the_upstream_proxy(proxy, corp):
    before = len(proxy.denials())
    with connected(proxy.ports["gateway"]) as sock:
        assert status_of(connect(sock, "intranet-of-the-corporation:443")) == 502
    assert [row.code for row in new_denials(proxy, before, 1)] == ["name_not_resolved"]
    assert corp.heads == []


@pytest.mark.parametrize(
    "head",
    [
        "CONNECT evil.example.org:443 HTTP/1.1\r\nHost: evil.example.org:443\r\n\r\n",
        "GET http://evil.example.org/ HTTP/1.1\r\nHost: evil.example.org\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.example.org\r\n\r\n",
        "GET http://www.example.com:{port}/ HTTP/1.1\r\nHost: evil.example.org\r\n\r\n",
    ],
    ids=["a second CONNECT", "another absolute form", "another Host", "an absolute form with another Host"],
)
def test_client_reaches_only_the_destination_of_its_tunnel(proxy, corp, providers, received, head):
    with connected(proxy.ports["gateway"]) as sock:
        assert status_of(connect(sock, f"www.example.com:{providers.http_port}")) == 200
        sock.sendall(head.format(port=providers.http_port).encode())
        assert status_of(read_head(sock)) in (400, 403)
    assert corp.targets == [f"www.example.com:{providers.http_port}"]
    assert received() == []


@pytest.mark.parametrize(
    "target",
    ["www.example.com:{port}%0d%0aX-Evil:1", "www.example.com@evil.example.org:{port}", "www.example.com:{port}\tx"],
)
def test_target_of_connect_cannot_contain_a_header(proxy, corp, providers, target):
    with connected(proxy.ports["gateway"]) as sock:
        assert status_of(connect(sock, target.format(port=providers.port))) in (400, 403)
    assert corp.heads == []


def test_bytes_after_the_response_to_connect_are_from_the_origin(behind, tmp_path):
    with ConnectProxy(HOSTS, greeting=b"220 hello from the origin\r\n") as corp, listener() as (port, _):

        def opened(text):
            rule = json.dumps({"host": "www.example.com", "ports": [port], "tls": False})
            return text.replace("action: enforce, allow: []", f"action: enforce, allow: [{rule}]")

        proxy = behind(corp, policy=opened)
        with connected(proxy.ports["sandbox"]) as sock:
            assert status_of(connect(sock, f"www.example.com:{port}")) == 200
            sock.sendall(b"x")
            assert sock.recv(100) == b"220 hello from the origin\r\n"


@contextlib.contextmanager
def listener():
    """Run a server that keeps connections open. Yield its port and the list of connections."""
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        stopping = threading.Event()

        def accept():
            with contextlib.suppress(OSError):
                while not stopping.is_set():
                    accepted.append(server.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], accepted
        stopping.set()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        for sock in accepted:
            sock.close()


def test_websocket_to_an_inspected_host_is_recorded(tmp_path, corp):
    with WebSocketProvider(tmp_path) as provider:
        (home := tmp_path / "proxy").mkdir()
        with make(home, corp, [provider.port, provider.port], provider.ca_file) as proxy:
            context = ssl.create_default_context(cafile=str(proxy.root))
            url = proxy.url("api.openai.com", "/v1/things").replace("https", "wss")
            with websocket_provider.dial(url, ssl=context, proxy=proxy.proxy_url()) as sock:
                sock.send("one")
                assert sock.recv() == "one"
            wait_until(proxy.exchanges, proxy)
            (row,) = proxy.exchanges()
    assert (row.status, row.outcome) == (101, "complete")
    assert corp.targets == [f"api.openai.com:{provider.port}"]


# ── no_proxy and look-ups ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("entry", ["www.example.com", ".example.com", "127.0.0.0/8"])
def test_no_proxy_connects_directly_and_under_the_address_guard(behind, corp, providers, entry):
    def fixed(text):
        return text + "resolve: {www.example.com: 127.0.0.1, packages.example.com: 10.1.2.3}\n"

    proxy = behind(corp, policy=fixed, EGRESS_UPSTREAM_NO_PROXY=entry)
    with proxy.client(ca=providers.ca_file) as http:
        assert http.get(proxy.url("www.example.com", "/")).status_code == 200
    assert corp.heads == []
    with connected(proxy.ports["gateway"]) as sock:
        assert status_of(connect(sock, "packages.example.com:443")) == 403
    assert [row.code for row in proxy.denials()] == ["address_guarded"]


def test_name_that_resolves_here_to_a_private_address_is_refused(behind, corp, providers):
    def fixed(text):
        return text + "resolve: {www.example.com: 10.1.2.3, packages.example.com: 127.0.0.1}\n"

    proxy = behind(corp, policy=fixed, EGRESS_UPSTREAM_RESOLVE="on")
    with connected(proxy.ports["gateway"]) as sock:
        assert status_of(connect(sock, "www.example.com:443")) == 403
    assert corp.heads == []
    # CONNECT to the upstream proxy must name the fixed address from the policy.
    with proxy.client(ca=providers.ca_file) as http:
        assert http.get(proxy.url("packages.example.com", "/")).status_code == 200
    assert corp.targets == [f"127.0.0.1:{providers.port}"]


def test_policy_decides_by_name_if_the_name_does_not_resolve_here(behind, providers):
    with ConnectProxy({"www.example.invalid": "127.0.0.1"}) as corp:
        proxy = behind(corp, EGRESS_UPSTREAM_RESOLVE="on", EGRESS_UPSTREAM_PROXY_AUTH_FILE="")
        with connected(proxy.ports["gateway"]) as sock:
            assert status_of(connect(sock, f"www.example.invalid:{providers.port}")) == 200
        assert corp.targets == [f"www.example.invalid:{providers.port}"]
        with connected(proxy.ports["browser"]) as sock:
            assert status_of(connect(sock, f"other.example.invalid:{providers.port}")) == 403
        assert len(corp.heads) == 1, "a denied name must not reach the upstream proxy"


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────


FAILURES = {
    "upstream_proxy_unreachable": {},
    "upstream_proxy_login": {"credentials": "other:password"},
    "upstream_proxy_refused": {"response": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"},
    "upstream_proxy_protocol": {"response": b"SSH-2.0-OpenSSH\r\n\r\n"},
}


@pytest.mark.parametrize("code", FAILURES)
def test_failure_of_the_upstream_proxy_has_one_record_and_a_clear_response(behind, providers, received, code):
    with ConnectProxy(HOSTS, **FAILURES[code]) as corp:
        if code == "upstream_proxy_unreachable":
            corp.stop()
        proxy = behind(corp)
        place = f"127.0.0.1:{corp.port}"
        # Send CONNECT to a host that is not inspected. The proxy must respond with 502.
        with connected(proxy.ports["browser"]) as sock:
            sock.sendall(f"CONNECT www.example.com:{providers.port} HTTP/1.1\r\nHost: www.example.com\r\n\r\n".encode())
            answer = read_head(sock)
            assert status_of(answer) == 502, answer
            assert place in sock.recv(4096).decode()
        (row,) = proxy.denials()
        assert (row.code, row.rule, row.status) == (code, "upstream-proxy", 502)
        # Send a request to an inspected host. The record of its exchange must have the code of the failure.
        with proxy.client() as http:
            answer = http.get(proxy.url("api.openai.com", "/v1/models"))
        assert answer.status_code == 502 and place in answer.text
        (exchange,) = proxy.exchanges()
        assert (exchange.outcome, exchange.error_type) == ("upstream_error", code)
        # Send a plain HTTP request.
        with proxy.client("browser") as http:
            answer = http.get(f"http://www.example.com:{providers.http_port}/")
        assert answer.status_code == 502 and place in answer.text
        wait_until(lambda: len(proxy.denials()) == 2, proxy)
        assert proxy.denials()[1].code == code
        ready = proxy.ask("/readyz")
        assert ready["upstream_proxy"]["url"] == corp.url
        # /readyz must not report a failure that may concern only this destination.
        of_destination = code in ("upstream_proxy_refused", "upstream_proxy_protocol")
        assert bool(ready["upstream_proxy"]["problem"]) is not of_destination
        assert ready["ok"] is of_destination
        assert LOGIN not in proxy.log and LOGIN.split(":", 1)[1] not in proxy.log
    assert received() == []


def test_problem_ends_when_the_upstream_proxy_responds_again(behind, providers):
    with ConnectProxy(HOSTS) as corp:
        corp.stop()
        proxy = behind(corp)
        with connected(proxy.ports["browser"]) as sock:
            assert status_of(connect(sock, f"www.example.com:{providers.port}")) == 502
        assert not proxy.ask("/readyz")["ok"]
        with ConnectProxy(HOSTS, port=corp.port):
            with proxy.client("browser", ca=providers.ca_file) as http:
                assert http.get(proxy.url("www.example.com", "/")).status_code == 200
            assert proxy.ask("/readyz")["ok"]


def test_upstream_proxy_with_tls_is_verified(behind, providers, tmp_path, tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    ca, certificate, key = make_certificates(directory, ("127.0.0.1", *HOSTS))
    (both := directory / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    with ConnectProxy(HOSTS, certificate=str(both), credentials=LOGIN) as corp:
        (trusted := directory / "trusted.pem").write_bytes(ca.read_bytes() + providers.ca_file.read_bytes())
        proxy = behind(corp, EGRESS_UPSTREAM_CA=str(trusted))
        with proxy.client("browser", ca=providers.ca_file) as http:
            assert http.get(proxy.url("www.example.com", "/")).status_code == 200
        with proxy.client() as http:
            assert http.get(proxy.url("api.openai.com", "/v1/models")).status_code == 401
        # Close only the client's sending direction. The proxy must then close the tunnel.
        with connected(proxy.ports["browser"]) as sock:
            assert status_of(connect(sock, f"www.example.com:{providers.port}")) == 200
            inside = tls(sock, "www.example.com", providers.ca_file)
            inside.shutdown(socket.SHUT_WR)
            read_all(inside)
        assert "Traceback" not in proxy.log and "crashed" not in proxy.log


def test_upstream_proxy_with_an_unknown_certificate_is_refused(behind, providers, tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    _, certificate, key = make_certificates(directory, ("127.0.0.1",))
    (both := directory / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    with ConnectProxy(HOSTS, certificate=str(both), credentials=LOGIN) as corp:
        proxy = behind(corp)
        with connected(proxy.ports["browser"]) as sock:
            assert status_of(connect(sock, f"www.example.com:{providers.port}")) == 502
        assert [row.code for row in proxy.denials()] == ["upstream_proxy_tls"]
        assert corp.heads == [], "no credentials before the certificate is verified"


def test_new_credentials_apply_without_a_restart(behind, corp, providers, tmp_path):
    proxy = behind(corp)
    (tmp_path / "login").write_text("corp-user:old\n")
    with connected(proxy.ports["browser"]) as sock:
        assert status_of(connect(sock, f"www.example.com:{providers.port}")) == 502
    (tmp_path / "login").write_text(LOGIN)
    with connected(proxy.ports["browser"]) as sock:
        assert status_of(connect(sock, f"www.example.com:{providers.port}")) == 200


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("EGRESS_UPSTREAM_PROXY", "socks5://proxy.example.com:1080", "must be an HTTP proxy"),
        ("EGRESS_UPSTREAM_PROXY", "proxy.example.com:3128", "must be an HTTP proxy"),
        ("EGRESS_UPSTREAM_PROXY", "http://proxy.example.com", "has no port"),
        ("EGRESS_UPSTREAM_PROXY", "http://proxy.example.com:3128/path", "has a path or query"),
        ("EGRESS_UPSTREAM_PROXY", "http://user:S3cret-word@proxy.example.com:3128", "EGRESS_UPSTREAM_PROXY_AUTH_FILE"),
        ("EGRESS_UPSTREAM_NO_PROXY", "example.com:443", "without a port"),
        ("EGRESS_UPSTREAM_NO_PROXY", "10.0.0.1/8", "host bits"),
        ("EGRESS_UPSTREAM_PROXY_AUTH_FILE", "/nowhere/login", "cannot be read"),
        ("EGRESS_UPSTREAM_PROXY_AUTH_FILE", "/dev/null", "must contain one line USER:PASSWORD"),
    ],
)
def test_invalid_setting_stops_the_start(tmp_path, providers, variable, value, said):
    settings = {"EGRESS_UPSTREAM_PROXY": "http://127.0.0.1:3128", variable: value}
    running = make_proxy(tmp_path, providers, **settings)
    with pytest.raises(RuntimeError, match="the proxy ended with 2"):
        running.start()
    (line,) = running.log.strip().splitlines()
    assert variable in line and said in line and "S3cret" not in line


@pytest.mark.parametrize(("host", "named"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "own")])
def test_proxy_that_names_itself_as_upstream_proxy_does_not_start(tmp_path, providers, host, named):
    running = make_proxy(tmp_path, providers, EGRESS_LISTEN_HOST=host)
    port = running.proxy_url("browser").rpartition(":")[2]
    running.environment["EGRESS_UPSTREAM_PROXY"] = f"http://{own_address() if named == 'own' else named}:{port}"
    with pytest.raises(RuntimeError, match="the proxy ended with 2"):
        running.start()
    assert "listener of this proxy" in running.log


def own_address() -> str:
    """Return an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no route, so it has no address but loopback")
        return probe.getsockname()[0]
