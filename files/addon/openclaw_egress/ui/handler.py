"""The base class of the page's handlers: access, headers, queries and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, override

from tornado.web import HTTPError, RequestHandler

from openclaw_egress.errors import EgressError
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.ui import access
from openclaw_egress.ui.pages import render


@dataclass(slots=True)
class Page:
    """The objects that all handlers of the web page share."""

    reader: SpoolReader
    token: str
    settings: Settings
    ask: Callable[[], dict[str, Any] | None]
    """Function that returns the report of the running proxy; None if no proxy responds."""
    is_own: Callable[[str], bool]
    """Function that returns whether an address belongs to this machine."""
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "ui"))
    streams: int = 0
    """Number of open event streams."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Event that is set to stop the server."""


class Handler(RequestHandler):
    """A handler that checks the client's access before each request, and sends `access.HEADERS` in each response."""

    protected = True
    """Whether the client needs the token, because the handler shows records."""

    def initialize(self, page: Page) -> None:
        """Store the objects that all handlers share."""
        self.page = page

    @override
    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in access.HEADERS.items():
            self.set_header(name, value)

    @override
    def prepare(self) -> None:
        headers = self.request.headers
        if not access.is_loopback(headers.get("Host")):
            raise HTTPError(421, reason="Not Loopback")
        if not self.protected:
            return
        cookie = self.get_cookie(access.cookie_name(self.request.host))
        if not (access.is_own_request(headers.get("Sec-Fetch-Site")) and access.is_token(cookie, self.page.token)):
            self.set_status(401)
            self.finish(render("login.html", target=self.request.uri, wrong=False))

    async def run[Value](self, query: Callable[[], Value]) -> Value:
        """Run a query of the spool in a thread. If it raises a spool error, the client gets an error page."""
        return await asyncio.get_running_loop().run_in_executor(self.page.threads, query)

    def conditions(self, names: Iterable[str]) -> dict[str, str]:
        """Return the search conditions in the URL's query, by name."""
        return {name: self.get_query_argument(name, "") for name in names}

    @override
    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        if isinstance(error, EgressError):
            self.set_status(503)
            text = str(error)
        else:
            text = {404: "This page or record does not exist; the record may have been deleted."}.get(status_code, "")
        text = text or f"The page cannot be shown ({status_code} {self._reason})."
        self.finish(render("error.html", text=text))

    @override
    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if not isinstance(value, EgressError):
            super().log_exception(typ, value, tb)


class Missing(Handler):
    """The handler for unknown paths, which responds with 404."""

    protected = False

    @override
    def prepare(self) -> None:
        super().prepare()
        raise HTTPError(404)
