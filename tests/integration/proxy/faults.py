"""A proxy in the test process that can raise an exception at any code line, and an upstream that checks the records."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import linecache
import socket
import sqlite3
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from openclaw_egress.app import launcher
from openclaw_egress.app.service import Service
from openclaw_egress.settings import Settings
from openclaw_egress.spool.reader import Filters, SpoolReader
from tests.integration.proxy.raw import read_head, status_of
from tests.support.llm_providers import make_certificates
from tests.support.proxy_process import free_ports

SECONDS = 2.0
"""Timeout of each wait in seconds. A passing run never reaches it."""

INSPECTED, TUNNELLED, RAW = "api.llm.example", "www.example.com", "raw.example"


# ── injected exceptions ──────────────────────────────────────────────────────────────────────────────────────────

type Place = tuple[CodeType, int]


class Injected(Exception):
    """The exception that the tests inject."""


class Faults:
    """A tracer (PEP 669) that stores which lines of the given functions a thread runs, and can raise at one of them."""

    TOOL = 4

    def __init__(self, functions: Iterable[FunctionType]) -> None:
        self.codes = [code for function in functions for code in _with_inner(function.__code__)]
        self.reached: dict[Place, None] = {}
        self.thread: int | None = None
        self._at: Place | None = None

    def __enter__(self) -> Faults:
        events = sys.monitoring.events
        sys.monitoring.use_tool_id(self.TOOL, "faults")
        sys.monitoring.register_callback(self.TOOL, events.LINE, self._line)
        for code in self.codes:
            sys.monitoring.set_local_events(self.TOOL, code, events.LINE)
        return self

    def __exit__(self, *_: object) -> None:
        for code in self.codes:
            sys.monitoring.set_local_events(self.TOOL, code, 0)
        sys.monitoring.free_tool_id(self.TOOL)

    def _line(self, code: CodeType, line: int) -> None:
        if threading.get_ident() != self.thread:
            return
        if self._at == (code, line):
            raise Injected(describe((code, line)))
        self.reached[code, line] = None

    @contextlib.contextmanager
    def at(self, place: Place | None) -> Iterator[None]:
        """Within the context, raise an exception each time this line runs. If ``place`` is None, raise nothing."""
        self._at = place
        try:
            yield
        finally:
            self._at = None


def functions_of(*modules: ModuleType | type) -> Iterator[FunctionType]:
    """Yield all functions and methods that modules or classes define, including properties and decorated functions."""
    for module in modules:
        for value in vars(module).values():
            found = getattr(value, "fget", None) or getattr(value, "__func__", value)
            home = module.__name__ if isinstance(module, ModuleType) else module.__module__
            if isinstance(found, type) and found.__module__ == home:
                yield from functions_of(found)
            while isinstance(found, FunctionType):
                if found.__code__.co_filename == sys.modules[home].__file__:
                    yield found
                found = getattr(found, "__wrapped__", None)


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)


def text_of(place: Place) -> str:
    """Return the source text of a code line."""
    return linecache.getline(place[0].co_filename, place[1]).strip()


def describe(place: Place) -> str:
    """Return the function, line number and source text of a code line, for a failure message."""
    return f"{place[0].co_qualname}:{place[1]} {text_of(place)}"


# ── the upstream server ──────────────────────────────────────────────────────────────────────────────────────────


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def _read(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionError("the request body ended before its Content-Length")
            return body
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_POST(self) -> None:
        body = self._read()
        self.server.arrived(self.headers["host"].partition(":")[0], self.path, body)
        if self.path.startswith("/broken/"):
            self.close_connection = True
        elif self.headers.get("upgrade") == "websocket":
            self._speak_websocket()
        elif self.path.startswith("/stream/"):
            self._stream()
        else:
            size = 5000 if self.path.startswith("/long/") else 20
            answer = json.dumps({"model": "m", "text": "x" * size}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    do_GET = do_POST

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"d\r\ndata: first\n\n\r\n")
        # Wait until the client has received the first event. If the proxy aborted the connection, this times out.
        self.server.upstream.acknowledged.wait(SECONDS)
        self.wfile.write(b"c\r\ndata: last\n\n\r\n0\r\n\r\n")

    def _speak_websocket(self) -> None:
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "Upgrade")
        self.send_header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")  # RFC 6455, section 1.3
        self.end_headers()
        if self.path.startswith("/socket/"):
            message = self._read_message()
            if message is not None:
                self.server.message_arrived(self.path, message)
        if self.path.endswith("/responses"):
            for kind in (b"created", b"completed"):
                event = b'{"type":"response.%s","response":{"id":"r"}}' % kind
                self.wfile.write(bytes([0x81, len(event)]) + event)
        self.wfile.write(b"\x81\x05hello" + b"\x88\x02\x03\xe8")  # a text message, then a close frame with code 1000
        self.close_connection = True

    def _read_message(self) -> bytes | None:
        """Read one short text frame with an all-zero mask. Return its payload, or None if the client sends none."""
        head = self.rfile.read(6)
        return self.rfile.read(head[1] & 0x7F) if len(head) == 6 and head[0] == 0x81 else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    upstream: Upstream

    def get_request(self) -> tuple[Any, Any]:
        found = super().get_request()
        self.upstream.accepted(found[1])
        return found

    def arrived(self, host: str, path: str, body: bytes) -> None:
        self.upstream.arrived(host, path, body)

    def message_arrived(self, path: str, message: bytes) -> None:
        self.upstream.message_arrived(path, message)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore broken connections: the tests cause them."""


class Upstream:
    """An upstream server with a TLS listener and a plain listener.

    It checks that the spool contains each complete request.
    """

    def __init__(self, directory: Path) -> None:
        self.ca_file, cert, key = make_certificates(directory / "upstream", (INSPECTED, TUNNELLED, RAW))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        self.plain, self.tls = (_Server(("127.0.0.1", 0), _Handler) for _ in range(2))
        self.tls.socket = context.wrap_socket(self.tls.socket, server_side=True, do_handshake_on_connect=False)
        self.spool: Path | None = None
        self.requests: list[tuple[str, str]] = []
        self.unrecorded: list[str] = []
        self.acknowledged = threading.Event()
        self._connections = 0
        self._probes: set[Any] = set()
        self._changed = threading.Condition()
        for server in (self.plain, self.tls):
            server.upstream = self
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Close both listeners."""
        for server in (self.plain, self.tls):
            server.shutdown()
            server.server_close()

    def accepted(self, address: Any) -> None:
        """Count an accepted connection, unless `connections` opened it as a probe."""
        with self._changed:
            if address in self._probes:
                self._probes.remove(address)
                self._changed.notify_all()
            else:
                self._connections += 1

    def connections(self) -> int:
        """Return the number of connections so far, including those that each listener has not accepted yet.

        Each listener accepts in order. When it has accepted the probe, it has accepted all earlier connections.
        """
        for server in (self.plain, self.tls):
            with socket.socket() as probe, self._changed:
                probe.bind(("127.0.0.1", 0))
                self._probes.add(probe.getsockname())
                probe.connect(("127.0.0.1", server.server_port))
                assert self._changed.wait_for(lambda: not self._probes, SECONDS)
        return self._connections

    def arrived(self, host: str, path: str, body: bytes) -> None:
        """Store a complete request that arrived. If the spool does not contain it yet, add it to `unrecorded`."""
        self.requests.append((host, path))
        if host == INSPECTED and not self._recorded(path, body):
            self.unrecorded.append(path)

    def message_arrived(self, path: str, message: bytes) -> None:
        """Add the path of a WebSocket message to `unrecorded` if the spool does not contain the message yet."""
        assert self.spool is not None
        with contextlib.closing(sqlite3.connect(self.spool, timeout=SECONDS)) as db:
            chunks = db.execute("SELECT data FROM chunks WHERE direction = 'request'").fetchall()
        if all(message not in chunk for (chunk,) in chunks):
            self.unrecorded.append(path)

    def _recorded(self, path: str, body: bytes) -> bool:
        # Search the records before and after the journal: an exchange that ends in between moves from the journal to
        # the records.
        return any(found(path, body) for found in (self._in_records, self._in_journal, self._in_records))

    def _in_records(self, path: str, body: bytes) -> bool:
        """Return whether the records contain the request with this body."""
        assert self.spool is not None
        with SpoolReader(self.spool) as reader:
            for row in reader.query(Filters(limit=10, newest_first=True)):
                if row.url and row.url.endswith(path):
                    kept = json.loads(reader.lines_for(row.id)[0]).get("request") or {}
                    return (kept.get("body") or "").encode() == body
        return False

    def _in_journal(self, path: str, body: bytes) -> bool:
        assert self.spool is not None
        with contextlib.closing(sqlite3.connect(self.spool, timeout=SECONDS)) as db:
            for name, head in db.execute("SELECT id, head FROM exchanges WHERE head LIKE ?", (f'%{path}",%',)):
                if json.loads(head)["request_complete"]:
                    chunks = db.execute("SELECT data FROM chunks WHERE id = ? AND direction = 'request'", (name,))
                    return b"".join(row[0] for row in chunks) == body
        return False


# ── the proxy ────────────────────────────────────────────────────────────────────────────────────────────────────


class Witness:
    """The last add-on in the chain. It counts the clients whose disconnection all other add-ons have handled."""

    def __init__(self) -> None:
        self.gone = 0
        self._changed = threading.Condition()
        self.running_now = threading.Event()

    def running(self) -> None:
        """Record that the listeners are open."""
        self.running_now.set()

    def client_disconnected(self, _: object) -> None:
        """Count one disconnected client."""
        with self._changed:
            self.gone += 1
            self._changed.notify_all()

    def wait_for(self, number: int) -> bool:
        """Wait for this number of disconnected clients. Return False at the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self.gone >= number, SECONDS)


class ProxyHere:
    """The proxy that `egress run` starts, in a thread of the test process."""

    CLASSES = ("gateway", "sandbox", "narrow", "report")

    def __init__(self, directory: Path, upstream: Upstream, faults: Faults) -> None:
        self.upstream, self.faults, self.witness = upstream, faults, Witness()
        *numbers, health, self.closed_port = free_ports(len(self.CLASSES) + 2)
        self.ports = dict(zip(self.CLASSES, numbers, strict=True))
        policy_file = directory / "policy.yml"
        policy_file.write_text(self._policy())
        self.service = Service(
            Settings.load(
                policy_file=policy_file,
                state_dir=directory / "state",
                logs_endpoint="",
                listen_host="127.0.0.1",
                health_port=health,
                upstream_ca=upstream.ca_file,
            )
        )
        self.spool = self.service.settings.spool_path
        upstream.spool = self.spool
        self.clients = 0
        self.patience = SECONDS
        self.loop = asyncio.new_event_loop()
        self._stop: list[Callable[[], None]] = []
        # Do not install the signal handler, because only the main thread can do that. Store it, because `stop` calls
        # it.
        self.loop.add_signal_handler = lambda _, stop: self._stop.append(stop)  # type: ignore[method-assign,assignment,misc]
        self._thread = threading.Thread(target=self._run, name="proxy")
        self.context = ssl.create_default_context(cafile=str(upstream.ca_file))
        self.context.load_verify_locations(str(directory / "state" / "ca" / "mitmproxy-ca-cert.pem"))

    def _policy(self) -> str:
        here = [self.upstream.plain.server_port, self.upstream.tls.server_port]
        opened = [{"cidr": cidr, "ports": [*here, self.closed_port]} for cidr in ("127.0.0.1/32", "::1/128")]
        denied = [{"host": INSPECTED, "paths": ["/denied/*"]}]
        classes = {
            "gateway": {
                "action": "open",
                "allow": [{"host": RAW, "ports": here[:1], "tls": False}],
                "deny": denied,
                "addresses": opened,
            },
            "sandbox": {"action": "enforce", "addresses": opened},
            "narrow": {"action": "open"},
            "report": {"action": "report", "addresses": opened},
        }
        return json.dumps(
            {
                "version": 1,
                "inspect": [INSPECTED],
                "classes": {name: {"listen": self.ports[name], **rest} for name, rest in classes.items()},
                "resolve": dict.fromkeys((INSPECTED, TUNNELLED, RAW), "127.0.0.1"),
            }
        )

    def _run(self) -> None:
        self.faults.thread = threading.get_ident()
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(launcher._serve(self.service))
        self.loop.close()

    def __enter__(self) -> ProxyHere:
        self._thread.start()
        assert self.witness.running_now.wait(SECONDS * 4)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the proxy as SIGTERM does."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop[0])
            self._thread.join(SECONDS * 4)
        assert not self._thread.is_alive()

    # ── clients ──────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def client(self, class_name: str = "gateway") -> Iterator[socket.socket]:
        """Open a connection to a listener."""
        self.clients += 1
        with socket.create_connection(("127.0.0.1", self.ports[class_name]), self.patience) as sock:
            yield sock

    @contextlib.contextmanager
    def tunnel(
        self, host: str, class_name: str = "gateway", sni: str = "", tls: bool = True
    ) -> Iterator[socket.socket]:
        """Open a tunnel with CONNECT, and TLS inside unless ``tls`` is False."""
        with self.client(class_name) as sock:
            port = self.upstream.tls.server_port if tls else self.upstream.plain.server_port
            target = f"{host}:{port}"
            sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            if status_of(read_head(sock)) != 200:
                raise ConnectionRefusedError
            if not tls:
                yield sock
                return
            with self.context.wrap_socket(sock, server_hostname=sni or host) as inside:
                yield inside

    def gone(self) -> bool:
        """Return whether the add-ons have handled the disconnection of all clients."""
        return self.witness.wait_for(self.clients)

    def complete(self, path: str) -> bool:
        """Return whether the spool has a complete record of this exchange."""
        with contextlib.closing(sqlite3.connect(self.spool, timeout=SECONDS)) as db:
            found = db.execute("SELECT outcome FROM records WHERE part = 0 AND url LIKE ?", (f"%{path}",)).fetchall()
        return found == [("complete",)]


def ask(
    sock: socket.socket,
    method: str,
    target: str,
    host: str,
    *headers: str,
    body: bytes = b"",
    after_first: Callable[[], None] | None = None,
) -> tuple[int, bytes]:
    """Send a request. Return the status and the complete body of the response."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
    sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    answer = http.client.HTTPResponse(sock, method=method)
    answer.begin()
    first = b""
    if after_first is not None:
        first = answer.read1(100)
        after_first()
    return answer.status, first + answer.read()
