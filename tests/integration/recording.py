"""An HTTP proxy and an origin on loopback. They store the requests that they receive, so that tests can check them.

The proxy resolves every name to this machine and keeps the requested port.
"""

import base64
import contextlib
import hashlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import trustme

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3.
ACK_SECONDS = 20  # Only a failing test reaches this timeout.


@dataclass(frozen=True)
class Seen:
    """One received request. `connection` has the same value for all requests on the same TCP connection."""

    method: str
    target: str
    headers: dict[str, str]
    connection: tuple[str, int]


class Recorder(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: Any, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.seen: list[Seen] = []
        self.acknowledged = threading.Event()
        self.refuse = False

    @property
    def lines(self) -> list[str]:
        return [f"{seen.method} {seen.target}" for seen in self.seen]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def note(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        peer = tuple(self.client_address[:2]) if self.client_address else ("unix", 0)
        self.server.seen.append(Seen(self.command, self.path, headers, peer))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class OriginHandler(Handler):
    def do_GET(self) -> None:
        self.note()
        if self.headers.get("upgrade") == "websocket":
            self.speak_websocket()
        elif self.path == "/stream":
            self.stream()
        else:
            if self.path == "/ack":
                self.server.acknowledged.set()
            self.answer(f"origin {self.path}".encode())

    def do_POST(self) -> None:
        self.note()
        self.answer(self.rfile.read(int(self.headers.get("content-length", 0))))

    def stream(self) -> None:
        """Send a response in two parts, the second one after the client has acknowledged the first."""
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"6\r\nfirst;\r\n")
        last = b"last" if self.server.acknowledged.wait(ACK_SECONDS) else b"lost"
        self.wfile.write(b"4\r\n" + last + b"\r\n0\r\n\r\n")

    def speak_websocket(self) -> None:
        key = self.headers["sec-websocket-key"].encode() + WEBSOCKET_GUID
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "Upgrade")
        self.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key).digest()).decode())
        self.end_headers()
        self.wfile.write(b"\x81\x05hello" + b"\x88\x02\x03\xe8")  # A text message, then a close frame with code 1000.
        self.close_connection = True


class ProxyHandler(Handler):
    def do_CONNECT(self) -> None:
        self.note()
        if self.server.refuse:
            self.send_error(403, "no rule allows it")
            return
        port = int(self.path.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=relay, args=(upstream, self.connection), daemon=True)
            back.start()
            relay(self.connection, upstream)
            back.join()
        self.close_connection = True

    def do_GET(self) -> None:
        self.note()
        url = http.client.urlsplit(self.path)
        upstream = http.client.HTTPConnection("127.0.0.1", url.port or 80)
        upstream.request(self.command, url.path, headers={"host": self.headers["host"]})
        self.answer(upstream.getresponse().read())
        upstream.close()


def relay(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class UnixRecorder(Recorder):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)  # type: ignore[arg-type]


@dataclass
class Network:
    """A proxy, a TLS origin and a plain HTTP origin. The certificate is for llm.example.test and loopback.

    ``pem_file`` contains the key and the certificate for a server in the client's process.
    """

    directory: Path
    proxy: Recorder = field(init=False)
    tls: Recorder = field(init=False)
    plain: Recorder = field(init=False)
    unix: Recorder = field(init=False)
    ca_file: Path = field(init=False)
    pem_file: Path = field(init=False)
    server_names: list[str | None] = field(default_factory=list)
    NAMES: ClassVar = ("llm.example.test", "localhost", "127.0.0.1")

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Network"]:
        authority = trustme.CA()
        self.ca_file = self.directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate = authority.issue_cert(*self.NAMES)
        certificate.configure_cert(context)
        self.pem_file = self.directory / "server.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(str(self.pem_file))
        context.sni_callback = lambda _, name, __: self.server_names.append(name)
        self.proxy = Recorder(("127.0.0.1", 0), ProxyHandler)
        self.plain = Recorder(("127.0.0.1", 0), OriginHandler)
        self.tls = Recorder(("127.0.0.1", 0), OriginHandler)
        self.tls.socket = context.wrap_socket(self.tls.socket, server_side=True)
        self.unix = UnixRecorder(str(self.directory / "s"), OriginHandler)
        servers = (self.proxy, self.plain, self.tls, self.unix)
        for server in servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield self
        finally:
            for server in servers:
                server.shutdown()
                server.server_close()
