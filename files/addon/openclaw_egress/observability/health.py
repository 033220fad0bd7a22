"""The health server, which listens only on loopback, and the metrics server for Prometheus."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from openclaw_egress.errors import EgressError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

HOST = "127.0.0.1"

type Report = dict[str, Any]


class _QuietHandler(WSGIRequestHandler):
    timeout = 5

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (name defined by the base class)
        """Do not log requests: a health check every few seconds would fill the log."""


class HealthError(EgressError):
    """A health or metrics server cannot start. The message contains the cause and the remedy."""


class _Server:
    """A server that runs in its own thread, independent of the proxy's event loop."""

    def __init__(self, host: str, port: int, app: WSGIApplication, purpose: str, remedy: str) -> None:
        try:
            self._server: WSGIServer = make_server(host, port, app, handler_class=_QuietHandler)
        except OSError as error:
            raise HealthError(f"cannot listen on {host}:{port} ({purpose}): {error.strerror}. {remedy}") from None
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name=purpose, daemon=True)

    def start(self) -> None:
        """Start the server."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the server, and wait for its thread to end."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=5)
        self._server.server_close()


class MetricsServer(_Server):
    """The server of ``/metrics`` on an address that the operator configures, for Prometheus outside the container.

    It serves only ``/metrics``. It is a separate server, so that a client that blocks it cannot block health checks.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        metrics_app = make_wsgi_app(registry)

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if environ.get("PATH_INFO") == "/metrics":
                body: Iterable[bytes] = metrics_app(environ, start_response)
                return body
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics\n"]

        remedy = "Set EGRESS_METRICS_LISTEN to an address of this machine and a free port."
        super().__init__(host, port, app, "metrics", remedy)


class HealthServer(_Server):
    """The server of ``/healthz``, ``/readyz`` and ``/metrics`` on loopback.

    ``alive`` reports whether the proxy can serve clients, ``ready`` whether all its functions work. Both return
    ``(good, details)``. The response contains the details as JSON. Its status is 200 if ``good`` is true, else 503.
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
                body: Iterable[bytes] = metrics_app(environ, start_response)
                return body
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

        remedy = "Stop the process that uses the port, or set EGRESS_HEALTH_PORT to another port."
        super().__init__(HOST, port, app, "health and metrics", remedy)
