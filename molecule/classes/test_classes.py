"""What each class of containers reaches at the level `application`, with the settings that OpenClaw has now.

The code sandbox is one that OpenClaw itself started. A browser is a container with the environment and the network that
OpenClaw would give it, and curl asking the variable that Chromium asks first.
"""

import json

import pytest

from molecule.lab.hosts import agent_turn, connecting, in_gateway, in_sandbox, loki, openclaw, sandbox, soon

CURL = ("curl", "--silent", "--show-error", "--insecure", "--max-time", "20", "--write-out", " %{http_code}")
BROWSER_NETWORK = "openclaw-sandbox-browser"


@pytest.fixture(scope="module", autouse=True)
def new_sandbox():
    """As the role says to do after a change; OpenClaw makes the next one by itself."""
    openclaw("sandbox", "recreate", "--all", "--force")
    agent_turn("hello")


@pytest.fixture(scope="module")
def settings():
    """What OpenClaw has configured for its sandboxes."""
    answer = openclaw("config", "get", "agents.defaults.sandbox.docker", "--json")
    return json.loads(answer[answer.index("{") :])


@pytest.fixture(scope="module")
def browser(settings):
    """Runs a command in a container as OpenClaw makes one for a browser."""
    in_gateway("sh", "-c", f"docker network inspect {BROWSER_NETWORK} || docker network create {BROWSER_NETWORK}")
    words = [word for name, value in settings["env"].items() for word in ("--env", f"{name}={value}")]

    def run(*command: str) -> str:
        return in_gateway(
            *("docker", "run", "--rm", "--network", BROWSER_NETWORK, "--read-only", "--cap-drop", "ALL", *words),
            *("openclaw-sandbox:bookworm-slim", "sh", "-c", '"$@" 2>&1; true', "sh", *command),
        )

    return run


@pytest.fixture
def chromium(browser, settings):
    """What a client gets that asks ALL_PROXY first."""
    return lambda url: browser(*CURL, "--proxy", settings["env"]["ALL_PROXY"], url)


def denied(kind: str, host: str):
    """The record of a denial, in Loki."""
    query = '{service_name="openclaw-proxy"} | event_name="openclaw.egress.denied"'
    return soon(lambda: loki(f'{query} | openclaw_egress_class="{kind}" | server_address="{host}"'))


def test_the_operators_network_is_back_now_that_the_class_may_reach_something(settings):
    assert settings["network"] == "bridge"
    form = "{{.HostConfig.NetworkMode}}"
    assert in_gateway("docker", "inspect", "--format", form, sandbox()).strip() == "bridge"


def test_the_sandbox_reaches_what_its_class_allows():
    assert in_sandbox(*CURL, "--output", "/dev/null", "https://packages.example.com/").strip() == "200"


@pytest.mark.parametrize(
    "client",
    [
        (*CURL, "https://www.example.com/"),
        ("git", "ls-remote", "https://www.example.com/"),
        ("python3", "-c", "import urllib.request as r; r.urlopen('https://www.example.com/')"),
    ],
    ids=lambda words: words[0],
)
def test_its_listener_refuses_all_else(client):
    assert "403" in in_sandbox(*client)
    assert denied("sandbox", "www.example.com")


def test_and_says_why():
    assert "no rule lets sandbox reach www.example.org" in in_sandbox(*CURL, "http://www.example.org/")


def test_what_the_level_application_does_not_stop():
    """A sandbox with a network that ignores its variables: written down in the role's README, and here."""
    other = in_sandbox(
        *CURL, "--output", "/dev/null", "--proxy", "http://172.30.0.250:8081", "https://www.example.com/"
    )
    assert other.strip() == "200"
    assert connecting(in_sandbox, "198.51.100.10", 443) == "connected"


def test_the_browser_reaches_an_ordinary_site(chromium):
    assert chromium("https://www.example.com/").endswith("200")


@pytest.mark.parametrize("host", ["wiki.internal.example.com", "10.0.0.2:3100", "169.254.169.254", "172.30.0.1:18789"])
def test_the_browser_reaches_nothing_internal(chromium, host):
    assert chromium(f"http://{host}/").endswith("403")
    assert denied("browser", host.partition(":")[0])


@pytest.mark.parametrize(
    ("port", "host"),
    [(8081, "www.example.com"), (8082, "packages.example.com"), (8083, "registry.example.com")],
)
def test_openclaws_own_conformance_test_of_each_listener(port, host):
    answer = openclaw(
        *("proxy", "validate", "--proxy-url", f"http://172.30.0.250:{port}"),
        *("--allowed-url", f"http://{host}/", "--json"),
    )
    assert json.loads(answer[answer.index("{") :])["ok"] is True
