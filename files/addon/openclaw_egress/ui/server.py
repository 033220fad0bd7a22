"""The web server of the page: on loopback only, read-only, and protected by a token (see `access`).

The server is a separate process that opens the spool read-only, so that it cannot disturb the proxy. Queries run in a
small thread pool. Each thread has its own connection to the database, and no thread keeps a transaction open.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from openclaw_egress.errors import EgressError
from openclaw_egress.ui import handlers
from openclaw_egress.ui.handler import Missing, Page

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 64 * 1024


class UIError(EgressError):
    """The page cannot be served. The message contains the cause and the remedy."""


def application(page: Page) -> Application:
    """Return the web application with all handlers."""
    shared = {"page": page}
    return Application(
        [
            (r"/", handlers.Live, shared),
            (r"/events", handlers.Events, shared),
            (r"/records/([0-9]{1,18})", handlers.Record, shared),
            (r"/records/([0-9]{1,18})/(request|response)", handlers.Body, shared),
            (r"/records/([0-9]{1,18})/session", handlers.Session, shared),
            (r"/records/([0-9]{1,18})\.har", handlers.Har, shared),
            (r"/denials", handlers.Denials, shared),
            (r"/policy", handlers.Policy, shared),
            (r"/usage", handlers.UsageTotals, shared),
            (r"/health", handlers.Health, shared),
            (r"/login", handlers.Login, shared),
            (r"/static/([a-z]+\.[a-z]+)", handlers.Static, shared),
        ],
        default_handler_class=Missing,
        default_handler_args=shared,
        log_function=lambda _: None,
        compress_response=False,
    )


async def serve(page: Page, port: int, ready: Callable[[int], None]) -> None:
    """Serve the page on loopback until SIGINT or SIGTERM. Call ``ready`` with the port when the server listens.

    Raises:
        UIError: the port cannot be used.
    """
    try:
        sockets = bind_sockets(port, HOST)
    except OSError as error:
        raise UIError(
            f"cannot listen on {HOST}:{port}: {error.strerror}; "
            "stop the program that uses the port, or choose another one: --port, EGRESS_UI_PORT"
        ) from None
    server = HTTPServer(application(page), max_body_size=MAX_REQUEST_BYTES, max_header_size=MAX_REQUEST_BYTES)
    server.add_sockets(sockets)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, page.ended.set)
    ready(sockets[0].getsockname()[1])
    await page.ended.wait()
    server.stop()
    await server.close_all_connections()
    page.threads.shutdown(wait=False, cancel_futures=True)
