"""Test of the web page beside a running proxy, with the demo's data. PICTURES=1 also writes the pictures in docs/."""

import os
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page

from tests.support.chromium import CHROMIUM, NO_CHROMIUM, Watched, chromium
from tests.support.llm_providers import LLMProviders
from tests.support.png import without_filters
from tests.support.proxy_process import RunningProxy
from tests.support.ui_process import RunningUI
from tools import demo

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
DOCS = Path(__file__).parents[3] / "docs"


def picture(page: Page, view: str, height: int = 900) -> None:
    """With PICTURES=1, write a screenshot of the upper part of a page to docs/ui-VIEW.png."""
    if os.environ.get("PICTURES") == "1":
        page.evaluate("scrollTo(0, 0)")
        shown = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": height})
        (DOCS / f"ui-{view}.png").write_bytes(without_filters(shown))


@pytest.fixture
def proxy(tmp_path, monkeypatch):
    """Yield the fake provider, and a proxy that records tunnels of the class browser."""
    monkeypatch.chdir(tmp_path)  # Use relative paths, because the view Policy shows the path of the policy file.
    with LLMProviders(http_port=0) as providers:
        proxy = RunningProxy(Path(), [providers.port, providers.http_port], providers.ca_file)
        policy = yaml.safe_load(proxy.policy_file.read_text())
        policy["classes"]["browser"]["log_tunnels"] = True
        proxy.policy_file.write_text(yaml.safe_dump(policy, sort_keys=False, default_flow_style=None))
        with proxy:
            yield providers, proxy


def test_page_shows_the_demo_while_the_proxy_runs(proxy):
    providers, proxy = proxy
    with RunningUI(Path("state"), proxy.environment) as served, chromium() as browser:
        with proxy.client() as http:
            demo.anthropic_calls(proxy, http)
            demo.openai_calls(proxy, http)
        demo.classes(proxy, providers)

        tab = Watched(browser, served, viewport={"width": 1280, "height": 600})
        page = tab.log_in(served)
        page.wait_for_function("document.getElementById('live').textContent === 'waiting for records'")
        assert page.locator("#records tbody tr").count() == 10
        picture(page, "live", height=750)

        page.get_by_role("row").filter(has_text="tools").last.get_by_role("link").click()
        conversation = page.locator("section").filter(has=page.get_by_role("heading", name="Conversation"))
        for said in (
            "Answer in one sentence.",
            "Compare the weather in Oslo and Paris.",
            "get_weather",
            '"city": "Oslo"',
        ):
            assert conversation.get_by_text(said).first.is_visible()
        assert demo.KEY not in page.content() and "[redacted]" in page.content()
        page.locator("details.tool_result > summary").click()
        assert conversation.get_by_text("rain, 7 °C").is_visible()
        picture(page, "exchange")

        page = tab.open(page.url.removeprefix(served.base) + "/session")
        assert page.get_by_text("(same conversation)").is_visible() and "sun, 11 °C" in page.content()
        picture(page, "session", height=1600)

        page = tab.open("/denials")
        assert "classes.sandbox.allow: {host: www.example.com" in page.content()
        assert page.locator("tbody tr").filter(has_text="reported").count() == 1
        picture(page, "denials")

        page = tab.open("/policy")
        assert page.get_by_text("browser.allow[0]: allowed 1").is_visible()
        assert page.get_by_text("browser.allow[1]: never used").is_visible()
        picture(page, "policy", height=1400)

        page = tab.open("/usage")
        assert "claude-opus-5" in page.content()
        picture(page, "usage")

        page = tab.open("/health")
        assert page.get_by_text("The proxy is running.").is_visible()
        picture(page, "health")
        assert tab.elsewhere == [] and tab.violations == []
