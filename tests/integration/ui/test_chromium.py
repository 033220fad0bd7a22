"""Tests of the web page in a real Chromium: hostile records, keyboard use, live records, accessibility (axe-core)."""

import json
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Route, expect

from openclaw_egress.spool.writer import Spool
from tests.support.chromium import CHROMIUM, NO_CHROMIUM, Watched, chromium, unfold
from tests.support.hostile_records import ATTACK, hostile_denial, hostile_exchange, write_hostile_spool
from tests.support.ui_process import RunningUI

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

VIEWS = [
    "/",
    "/records/1",
    "/records/2",
    "/records/1/session",
    "/denials",
    "/policy",
    "/usage",
    "/health",
    "/?status=x",
    "/nothing",
]
OUTSIDE = "<img src=https://evil.example/x><script src=https://evil.example/x.js></script>"
LOGIN = "the login page"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningUI]:
    state = tmp_path_factory.mktemp("state")
    write_hostile_spool(state)
    with RunningUI(state) as running:
        yield running


@pytest.fixture
def tab(browser: Browser, served: RunningUI) -> Iterator[Watched]:
    watched = Watched(browser, served)
    watched.log_in(served)
    yield watched
    watched.context.close()


def test_address_with_the_token_opens_the_page_and_the_history_contains_no_token(tab, served):
    assert tab.page.url == f"{served.base}/"
    (cookie,) = tab.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and cookie["expires"] == -1
    tab.page.go_back()
    assert served.token not in tab.page.url and served.token not in tab.page.content()


def test_page_works_without_javascript(browser, served):
    watched = Watched(browser, served, java_script_enabled=False)
    page = watched.open("/records/1")
    page.get_by_label("Token").fill(served.token)
    page.get_by_role("button", name="Open").click()
    assert page.get_by_role("heading", name="Conversation").is_visible()
    watched.open("/")
    page.get_by_label("event").select_option("denied")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#records tbody tr")).to_have_count(1)
    watched.context.close()


@pytest.mark.parametrize("path", VIEWS)
def test_hostile_records_run_no_script_and_load_no_resource(tab, path):
    page = tab.open(path)
    unfold(page)
    assert page.evaluate("window.hacked") is None
    assert tab.elsewhere == [] and tab.violations == []


def test_content_security_policy_stops_unescaped_markup(tab):
    """Insert an attack into the HTML of a page, as if a template had not escaped a record."""

    def attacked(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("</main>", f"{ATTACK}{OUTSIDE}</main>"))

    tab.page.route("**/records/1", attacked)
    page = tab.open("/records/1")
    assert page.locator("main img").count() == 2 and page.evaluate("window.hacked") is None
    # Chromium reports requests that the Content Security Policy blocked, although it did not send them.
    assert {url: tab.failed.get(url) for url in tab.elsewhere} == {
        "https://evil.example/x": "csp",
        "https://evil.example/x.js": "csp",
    }
    assert sum("Content Security Policy" in text for text in tab.violations) >= 4


def test_content_security_policy_prevents_scripts_from_writing_markup(tab):
    page = tab.open("/")
    assert page.evaluate("try { document.body.innerHTML = '<b>'; '' } catch (error) { error.name }") == "TypeError"


def test_new_records_appear_as_text(browser, tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(hostile_denial())
        with RunningUI(tmp_path) as served:
            watched = Watched(browser, served)
            watched.log_in(served)
            page = watched.page
            page.wait_for_function("document.getElementById('live').textContent === 'waiting for records'")
            spool.close_exchange(hostile_exchange("0002"))
            page.wait_for_selector("#records tbody tr:nth-child(2)")
            first = page.locator("#records tbody tr").first
            assert "<script>" in first.inner_text() and "\\u202e" in first.inner_text()
            assert page.evaluate("window.hacked") is None and watched.violations == []
            first.get_by_role("link").click()
            assert page.get_by_role("heading", name="Record 2").is_visible()
            watched.context.close()


def test_omitted_lines_are_shown_as_a_row_with_a_link(tab):
    news = {"newest": 9, "lines": [], "left_out": 1234, "before": 3}
    event = f"id: 9\ndata: {json.dumps(news)}\n\n"
    tab.page.route("**/events?**", lambda route: route.fulfill(content_type="text/event-stream", body=event))
    page = tab.open("/")
    link = page.get_by_role("link", name="1,234 lines before line 3 are not shown: search them").first
    expect(link).to_have_attribute("href", "/?&before=3")
    link.click()
    expect(page.locator("#records tbody tr")).to_have_count(2)


def test_pause_stops_new_records(browser, tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(hostile_denial())
        with RunningUI(tmp_path) as served:
            watched = Watched(browser, served)
            watched.log_in(served)
            page = watched.page
            page.get_by_role("button", name="Pause").click()
            spool.add(hostile_denial())
            page.get_by_role("button", name="Continue").click()
            # The record that arrived during the pause appears after the pause, and only once.
            page.wait_for_selector("#records tbody tr:nth-child(2)")
            assert page.locator("#records tbody tr").count() == 2
            watched.context.close()


def test_keyboard_reaches_the_content_first(tab):
    page = tab.open("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "class"


@pytest.mark.parametrize("path", [*VIEWS, LOGIN])
def test_axe_finds_no_violation(browser, served, path):
    watched = Watched(browser, served)
    if path != LOGIN:
        watched.log_in(served)
    page = watched.open(path if path != LOGIN else "/")
    assert (page.get_by_label("Token").count() == 1) == (path == LOGIN)
    unfold(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options={"runOnly": RULES})
        assert found.violations_count == 0, f"{scheme}: {found.generate_report()}"
    watched.context.close()


@pytest.mark.parametrize("path", VIEWS)
def test_page_fits_the_width_of_a_phone(browser, served, path):
    watched = Watched(browser, served, viewport={"width": 360, "height": 740})
    watched.log_in(served)
    page = watched.open(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    watched.context.close()
