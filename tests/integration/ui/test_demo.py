"""The page beside a running proxy, with the demo's data. With PICTURES=1 it also writes the pictures in docs/."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import FloatRect

from tests.support.chromium import CHROMIUM, NO_CHROMIUM, Watched, chromium
from tests.support.llm_providers import LLMProviders
from tests.support.proxy_process import RunningProxy
from tests.support.ui_process import RunningUI
from tools import demo

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
PICTURE: FloatRect = {"x": 0, "y": 0, "width": 1280, "height": 1130}
DOCS = Path(__file__).parents[3] / "docs"


def test_page_shows_the_demo_beside_the_running_proxy(tmp_path):
    pictures = DOCS if os.environ.get("PICTURES") == "1" else tmp_path
    with (
        LLMProviders(http_port=0) as providers,
        RunningProxy(tmp_path, [providers.port, providers.http_port], providers.ca_file) as proxy,
        RunningUI(tmp_path / "state", proxy.environment) as served,
        chromium() as browser,
    ):
        with proxy.client() as http:
            demo.anthropic_calls(proxy, http)
            demo.openai_calls(proxy, http)
        demo.classes(proxy, providers)

        tab = Watched(browser, served, viewport={"width": 1280, "height": 720})
        page = tab.log_in(served)
        page.wait_for_function("document.getElementById('live').textContent === 'waiting for records'")
        assert page.locator("#records tbody tr").count() == 8
        page.screenshot(path=pictures / "ui-live.png")

        page.get_by_role("row").filter(has_text="tools").get_by_role("link").click()
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
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=pictures / "ui-exchange.png", full_page=True, clip=PICTURE)

        assert "classes.sandbox.allow: {host: www.example.com" in tab.open("/denials").content()
        assert "claude-opus-5" in tab.open("/usage").content()
        assert tab.open("/health").get_by_text("The proxy is running.").is_visible()
        assert tab.elsewhere == [] and tab.violations == []
