"""The system's Chromium, which opens the web page. The Python package `playwright` contains no browser."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.support.ui_process import RunningUI

CHROMIUM = shutil.which("chromium")
NO_CHROMIUM = "no Chromium: install the system's package `chromium`"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium and yield the browser; close it when the context exits."""
    with sync_playwright() as playwright:
        # Chromium refuses to start its sandbox as root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Watched:
    """A tab of a new browser profile that records the requests and the errors of the page."""

    def __init__(self, browser: Browser, served: RunningUI, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.base = served.base
        self.elsewhere: list[str] = []
        """URLs of requests to servers other than the web page's, including requests that the browser blocked."""
        self.failed: dict[str, str | None] = {}
        self.violations: list[str] = []
        """Messages of errors that the page caused, including violations of its Content Security Policy."""
        self.page.on(
            "request", lambda request: request.url.startswith(served.base) or self.elsewhere.append(request.url)
        )
        self.page.on("requestfailed", lambda request: self.failed.update({request.url: request.failure}))
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.violations.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        # Chromium logs an error for each response with an error status, such as the 401 of the login page. Ignore it.
        if message.type == "error" and "the server responded with a status" not in message.text:
            self.violations.append(message.text)

    def open(self, path: str) -> Page:
        """Open a path of the web page. Return the page."""
        self.page.goto(self.base + path)
        return self.page

    def log_in(self, served: RunningUI) -> Page:
        """Log in with the address that `egress ui` printed, which contains the login token. Return the page."""
        self.page.goto(served.address)
        self.page.wait_for_selector("#records")
        return self.page


def unfold(page: Page) -> None:
    """Open every collapsed `<details>` element of the page."""
    closed = page.locator("details:not([open]) > summary")
    while closed.count():
        closed.first.click()
