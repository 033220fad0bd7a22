"""The health server: ``/healthz``, ``/readyz`` and ``/metrics`` on loopback, for the proxy's own container only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from openclaw_egress.errors import EgressError

HOST = "127.0.0.1"

type Report = dict[str, Any]


class _QuietHandler(WSGIRequestHandler):
    timeout = 5

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class names it so)
        """Log no request: a health check every few seconds would fill the log."""


class HealthError(EgressError):
    """The health listener cannot start. The message names the cause and the remedy."""


class HealthServer:
    """The server of health and metrics. It runs in its own thread, independent of the proxy's event loop.

    ``alive`` reports whether the proxy can serve clients, ``ready`` whether all its functions work. Both return
    ``(good, details)``; the details are the JSON response, with status 200 or 503.
    """

    def __init__(
        self,
        port: int,
        registry: CollectorRegistry,
        alive: Callable[[], tuple[bool, Report]],
        ready: Callable[[], tuple[bool, Report]],
    ) -> None:
        metrics_app = make_wsgi_app(registry)

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                answer: Iterable[bytes] = metrics_app(environ, start_response)
                return answer
            checks = {"/healthz": alive, "/readyz": ready}
            if path not in checks:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/healthz /readyz /metrics\n"]
            good, report = checks[path]()
            start_response(
                "200 OK" if good else "503 Service Unavailable",
                [("Content-Type", "application/json"), ("Cache-Control", "no-store")],
            )
            return [json.dumps({"ok": good, **report}, default=str).encode() + b"\n"]

        try:
            self._server: WSGIServer = make_server(HOST, port, app, handler_class=_QuietHandler)
        except OSError as error:
            raise HealthError(
                f"cannot listen on {HOST}:{port} (health and metrics): {error.strerror}. "
                "Stop the process that uses the port, or set EGRESS_HEALTH_PORT to another port."
            ) from None
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def start(self) -> None:
        """Start the server."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the server, and wait for its thread to end."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=5)
        self._server.server_close()
