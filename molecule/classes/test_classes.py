"""What each class of containers reaches through its listener, with the settings that OpenClaw has now; at both levels.

The code sandbox is one that OpenClaw itself started. A browser is a real Chromium in a container with the environment
and the network that OpenClaw would give it; where the listener's answer matters, curl asks what Chromium asks first.
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

# An agent's turn may take its time, as `agent_turn` lets it.
pytestmark = pytest.mark.timeout(400)

CURL = ("curl", "--silent", "--show-error", "--insecure", "--max-time", "20", "--write-out", " %{http_code}")


@pytest.fixture(scope="module")
def settings():
    """What OpenClaw has configured for its code sandboxes."""
    return sandbox_settings()["docker"]


@pytest.fixture
def browser(settings):
    """What a client gets that asks ALL_PROXY first."""
    return lambda url: in_browser(*CURL, "--proxy", settings["env"]["ALL_PROXY"], url)


def denied(kind: str, host: str):
    """The record of a denial, in Loki."""
    query = '{service_name="openclaw-proxy"} | event_name="openclaw.egress.denied"'
    return soon(lambda: loki(f'{query} | openclaw_egress_class="{kind}" | server_address="{host}"'))


def test_the_sandbox_reaches_what_its_class_allows():
    assert in_sandbox(*CURL, "--output", "/dev/null", "https://packages.example.com/").strip() == "200"


def test_pip_and_git_work_there():
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
def test_its_listener_refuses_all_else(client):
    assert "403" in in_sandbox(*client)
    assert denied("sandbox", "www.example.com")


def test_and_says_why():
    assert "no rule lets sandbox reach www.example.org" in in_sandbox(*CURL, "http://www.example.org/")


def test_a_real_chromium_loads_an_ordinary_site():
    assert "<h1>It works</h1>" in page("https://www.example.com/")


def test_and_shows_the_refusal_of_an_internal_one():
    assert "This request was refused" in page("http://wiki.internal.example.com/")
    assert denied("browser", "wiki.internal.example.com")


@pytest.mark.parametrize("host", ["10.0.0.2:3100", "169.254.169.254", "172.30.0.1:18789"])
def test_the_browser_reaches_nothing_internal(browser, host):
    # Not by Chromium: of its own accord it asks no proxy for link-local addresses.
    assert browser(f"http://{host}/").endswith("403")
    assert denied("browser", host.partition(":")[0])
