"""HTTP server of the Loki fake: paths, responses and faults."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from . import reading
from .bodies import decoded, partial_body, status_body
from .faults import Fault
from .limits import NO_ORG_ID
from .wire import RequestError, Resource, read_json, read_protobuf

if TYPE_CHECKING:
    from .fake import FakeLoki

TEXT, BINARY, JSON = "text/plain; charset=utf-8", "application/octet-stream", "application/json"
NAME = "fake of Loki's HTTP contract; not Loki"
# Response to GET /loki/api/v1/status/buildinfo, with Loki's keys. The version is empty, as in the recording.
_BUILD = {"version": "", "revision": "", "branch": "", "buildUser": NAME, "buildDate": "", "goVersion": ""}
_HANG_S = 300.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    # ── responses ────────────────────────────────────────────────────────────────────────────────────────────────
    def _answer(self, status: int, body: bytes = b"", kind: str | None = None, **headers: str) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(usegmt=True))
        if kind is not None:
            self.send_header("Content-Type", kind)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n", JSON)

    def _body(self) -> bytes:
        limit = self.server.loki.store.limits.request_bytes
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            size = int(self.headers.get("Content-Length") or 0)
            if size > limit:
                self.close_connection = True
                raise RequestError("Loki fake: the request is too large")
            return self.rfile.read(size)
        body = bytearray()
        while size := int(self.rfile.readline(100).split(b";")[0] or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline(10)
            if len(body) > limit:
                self.close_connection = True
                raise RequestError("Loki fake: the request is too large")
        while self.rfile.readline(10_000).strip():
            pass
        return bytes(body)

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _request(self) -> None:
        url = urlsplit(self.path)
        try:
            body = self._body()
        except RequestError as error:
            self._answer(413, status_body(str(error)), BINARY)
            return
        except ValueError:
            self.close_connection = True
            self._answer(400, b"bad request", TEXT)
            return
        if url.path == "/standin/faults":
            self._faults(body)
            return
        if url.path == "/standin/config" and self.command == "POST":
            self.server.loki.configure(body.decode())
            self._answer(204)
            return
        fault = self.server.loki.faults.take(url.path)
        if fault and fault.delay_s:
            time.sleep(fault.delay_s)
        limits = self.server.loki.store.limits
        if limits.auth_enabled and url.path != "/ready" and not self.headers.get("X-Scope-OrgID"):
            self._answer(401, f"{NO_ORG_ID}\n".encode(), TEXT)
        elif url.path == "/otlp/v1/logs" and self.command == "POST":
            self._push(body, fault)
        elif not (fault and fault.answers and self._go_wrong(fault)):
            self._serve(url.path, parse_qs(url.query or body.decode("latin-1"), keep_blank_values=True))

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _request

    def _serve(self, path: str, parameters: dict[str, list[str]]) -> None:
        loki, value = self.server.loki, re.fullmatch(r"/loki/api/v1/label/([^/]+)/values", path)
        readers: dict[str, Callable[[], Any]] = {
            "/loki/api/v1/query_range": lambda: reading.query_range(loki.store, parameters),
            "/loki/api/v1/query": lambda: reading.query(loki.store, parameters),
            "/loki/api/v1/labels": lambda: reading.labels(loki.store, parameters),
            "/loki/api/v1/series": lambda: reading.series(loki.store, parameters),
            "/loki/api/v1/status/buildinfo": lambda: _BUILD,
        }
        if path in ("/otlp/v1/logs", "/flush") and self.command != "POST":
            self._answer(405)
        elif path == "/flush":
            loki.store.flush()
            self._answer(204)
        elif path == "/ready":
            self._answer(200, b"ready\n", TEXT)
        elif path == "/config":
            self._answer(200, loki.config.encode(), "text/yaml; charset=utf-8")
        elif path in readers or value:
            try:
                answer = reading.label_values(loki.store, parameters, unquote(value[1])) if value else readers[path]()
            except reading.BadQuery as error:
                self._answer(400, str(error).encode("utf-8", "replace"), TEXT)
            except reading.TooLarge as error:
                self._answer(500, str(error).encode(), TEXT)
            else:
                self._json(answer)
        else:
            self._answer(404, b"404 page not found\n", TEXT)

    def _push(self, body: bytes, fault: Fault | None) -> None:
        loki = self.server.loki
        if fault and fault.answers and not fault.after_storing:
            loki.note(
                fault.status or (200 if fault.html or fault.partial_rejected else 0), "fault", 0, body, self.headers
            )
            self._go_wrong(fault)
            return
        kind, encoding = self.headers.get("Content-Type", ""), self.headers.get("Content-Encoding", "")
        resources: list[Resource] = []
        try:
            raw = decoded(body, encoding, loki.store.limits.request_bytes)
            if kind not in ("application/x-protobuf", "application/json"):
                raise RequestError(f"content type: {kind} is not supported")
            resources = read_protobuf(raw) if kind == "application/x-protobuf" else read_json(raw)
            status, message = loki.push(resources)
        except RequestError as error:
            status, message = 400, str(error)
        if status == 204 and not loki.copied(body, kind, encoding):
            status, message = 503, "the copy could not be forwarded: push again"
        records = sum(len(scope.records) for resource in resources for scope in resource.scopes)
        loki.note(status, message, records, body, self.headers)
        if fault and fault.answers:
            self._go_wrong(fault)
        elif status == 204:
            self._answer(204)
        else:
            self._answer(status, status_body(message), BINARY)

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _go_wrong(self, fault: Fault) -> bool:
        if fault.hang:
            self.server.loki.faults.released.wait(_HANG_S)
            self.close_connection = True
        elif fault.reset:
            # Set the linger time to zero, so that close() sends RST.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault.html:
            page = b"<!doctype html><title>Gateway</title><h1>Something in between answered</h1>\n"
            self._answer(fault.status or 200, page, "text/html; charset=utf-8", **fault.headers)
        elif fault.partial_rejected:
            self._answer(fault.status or 200, partial_body(fault.partial_rejected), "application/x-protobuf")
        else:
            status = fault.status or 500
            body = b"" if status == 204 else status_body(f"an injected fault is active: {status}")
            self._answer(status, body, BINARY, **fault.headers)
        return True

    def _faults(self, body: bytes) -> None:
        faults = self.server.loki.faults
        try:
            if self.command == "POST":
                what = json.loads(body or b"{}")
                if what:
                    faults.set(**what)
                else:
                    faults.clear()
            elif self.command == "DELETE":
                faults.clear()
        except (ValueError, TypeError, re.error) as error:
            self._json({"error": str(error)}, 400)
        else:
            self._json(faults.state())


class Server(ThreadingHTTPServer):
    """HTTP server of one Loki fake. It tracks its connections, to close idle keep-alive connections when it stops."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], loki: FakeLoki) -> None:
        self.loki = loki
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection and track it."""
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and stop tracking it."""
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening and close all connections."""
        super().server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of clients that disconnect and of the fake's own resets. Print other errors with traceback."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
