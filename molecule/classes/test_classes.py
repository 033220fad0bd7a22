"""Tests of the destinations that each class reaches through its listener. They run at both enforcement levels.

OpenClaw itself started the code sandbox. The browser is a real Chromium in a container with the environment and network
that OpenClaw would give it. If a test needs the listener's response, curl sends the same request as Chromium would.
"""

import pytest

from molecule.lab.hosts import (
    in_browser,
    in_sandbox,
    loki,
    page,
    sandbox_settings,
    soon,
)

# Use a long timeout, because `agent_turn` can take minutes.
pytestmark = pytest.mark.timeout(400)

CURL = ("curl", "--silent", "--show-error", "--insecure", "--max-time", "20", "--write-out", " %{http_code}")


@pytest.fixture(scope="module")
def settings():
    """Return OpenClaw's configuration of its code sandboxes."""
    return sandbox_settings()["docker"]


@pytest.fixture
def browser(settings):
    """Return a function that requests a URL with curl through ALL_PROXY, in a browser's container."""
    return lambda url: in_browser(*CURL, "--proxy", settings["env"]["ALL_PROXY"], url)


def denied(kind: str, host: str):
    """Wait until Loki has the record of a denial. Return the matching records."""
    query = '{service_name="openclaw-proxy"} | event_name="openclaw.egress.denied"'
    return soon(lambda: loki(f'{query} | openclaw_egress_class="{kind}" | server_address="{host}"'))


def test_sandbox_reaches_the_destinations_that_its_class_allows():
    assert in_sandbox(*CURL, "--output", "/dev/null", "https://packages.example.com/").strip() == "200"


def test_pip_and_git_work_in_the_sandbox():
    index = "https://packages.example.com/simple"
    in_sandbox("pip", "install", "--quiet", "--target", "/tmp/hello", "--index-url", index, "lab-hello")
    assert "hello from the lab" in in_sandbox(
        "env", "PYTHONPATH=/tmp/hello", "python3", "-c", "import lab_hello; print(lab_hello.GREETING)"
    )
    in_sandbox("git", "clone", "--quiet", "https://git.example.com/hello.git", "/tmp/cloned")
    assert "lab_hello.py" in in_sandbox("ls", "/tmp/cloned")


@pytest.mark.parametrize(
    "client",
    [
        (*CURL, "https://www.example.com/"),
        ("git", "ls-remote", "https://www.example.com/"),
        ("python3", "-c", "import urllib.request as r; r.urlopen('https://www.example.com/')"),
    ],
    ids=lambda words: words[0],
)
def test_sandbox_listener_refuses_other_destinations(client):
    assert "403" in in_sandbox(*client)
    assert denied("sandbox", "www.example.com")


def test_sandbox_refusal_states_the_reason():
    assert "no rule lets sandbox reach www.example.org" in in_sandbox(*CURL, "http://www.example.org/")


def test_a_real_chromium_loads_an_ordinary_site():
    assert "<h1>It works</h1>" in page("https://www.example.com/")


def test_real_chromium_shows_the_refusal_of_an_internal_site():
    assert "This request was refused" in page("http://wiki.internal.example.com/")
    assert denied("browser", "wiki.internal.example.com")


@pytest.mark.parametrize("host", ["10.0.0.2:3100", "169.254.169.254", "172.30.0.1:18789"])
def test_browser_reaches_no_internal_address(browser, host):
    # Send the requests with curl, because Chromium by default does not use a proxy for link-local addresses.
    assert browser(f"http://{host}/").endswith("403")
    assert denied("browser", host.partition(":")[0])
