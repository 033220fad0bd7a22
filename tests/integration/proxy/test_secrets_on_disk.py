"""Tests that no byte of a credential is on disk during an exchange, after `kill -9`, after recovery, or at the end."""

import base64
import gzip
import socket
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import brotli
import pytest
import trustme

from openclaw_egress.spool.reader import SpoolReader
from tests.support.proxy_process import RunningProxy

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

REQUEST = "s3cr3t-of-the-request"
RESPONSE = "s3cr3t-of-the-response"
HEADER = "s3cr3t-of-a-header"
FORM = f"grant_type=client_credentials&client_id=me&client_secret={REQUEST}&padding={'p' * 2000}{REQUEST}".encode()
JSON = f'{{"client_id":"me","client_secret":"{REQUEST}","padding":"{"p" * 2000}{REQUEST}"}}'.encode()
TOKEN = f'{{"access_token":"{RESPONSE}","padding":"{"p" * 2000}{RESPONSE}"}}'.encode()
PLAIN = b'{"object":"list"}'
CODINGS = {"": bytes, "gzip": gzip.compress, "zstd": zstd.compress, "br": brotli.compress, "deflate": zlib.compress}


class Origin(ThreadingHTTPServer):
    """A server that sends half of its chunked response, and the rest after the test sets ``go_on``."""

    daemon_threads = True
    body = TOKEN
    coding = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), OriginHandler)
        self.go_on = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error of a connection to a killed proxy."""


class OriginHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Origin

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers.get("content-length", 0)))
        body, content_type = RESPONSES.get(self.path.partition("?form=")[2], (self.server.body, "application/json"))
        body = CODINGS[self.server.coding](body)
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("transfer-encoding", "chunked")
        self.send_header("location", f"/callback#access_token={HEADER}")
        self.send_header("set-cookie", f"session={HEADER}")
        if self.server.coding:
            self.send_header("content-encoding", self.server.coding)
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(b"%x\r\n%s\r\n" % (half, body[:half]))
        self.server.go_on.wait(30)
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) - half, body[half:]))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def origin(tmp_path) -> Iterator[Origin]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.anthropic.com").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "upstream.pem")
    with Origin() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.go_on.set()
        server.shutdown()


@pytest.fixture(params=["lean", "stock"])
def proxy(request, tmp_path, origin) -> Iterator[RunningProxy]:
    running = RunningProxy(tmp_path, [origin.server_port], tmp_path / "upstream.pem", request.param)
    with running:
        yield running


class Call:
    """A POST request that a test sends and reads in steps. Its body is chunked or has a Content-Length."""

    def __init__(self, proxy: RunningProxy, path: str, body: bytes, *headers: str, chunked: bool = True) -> None:
        raw = socket.create_connection(("127.0.0.1", proxy.ports["gateway"]), 20)
        target = f"api.anthropic.com:{proxy.provider_port}"
        raw.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert b" 200 " in raw.recv(4096)
        context = ssl.create_default_context(cafile=str(proxy.root))
        self.socket = context.wrap_socket(raw, server_hostname="api.anthropic.com")
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        head = [f"POST {path} HTTP/1.1", f"Host: {target}", length, *headers]
        self.socket.sendall("\r\n".join(head).encode() + b"\r\n\r\n")
        half = len(body) // 2
        self._pieces = (
            [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:])] if chunked else [body]
        )
        self._end = b"0\r\n\r\n" if chunked else b""

    def send_half(self) -> None:
        self.socket.sendall(self._pieces.pop(0))

    def send_rest(self) -> None:
        self.socket.sendall(b"".join(self._pieces) + self._end)

    def close(self) -> None:
        self.socket.close()

    def received(self, number: int) -> bytes:
        found = b""
        while len(found) < number and (data := self.socket.recv(65536)):
            found += data
        return found

    def received_all(self) -> bytes:
        found = b""
        while not found.endswith(b"0\r\n\r\n") and (data := self.socket.recv(65536)):
            found += data
        self.close()
        return found


def on_disk(proxy: RunningProxy) -> dict[str, list[str]]:
    """Return the secrets found in each file of the proxy's directory, such as the database and the write-ahead log."""
    found = {}
    for file in proxy.directory.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            found[str(file.relative_to(proxy.directory))] = [
                secret
                for secret in (REQUEST, RESPONSE, HEADER)
                if any(form in content for form in forms_of(secret.encode()))
            ]
    return {file: secrets for file, secrets in found.items() if secrets}


def forms_of(secret: bytes) -> list[bytes]:
    """Return the secret and its three base64 forms, one for each alignment of the secret within a longer text."""
    return [secret, *(base64.b64encode(b"x" * shift + secret)[4:-4] for shift in range(3))]


def recovered(proxy: RunningProxy, call: Call, origin: Origin) -> dict[str, Any]:
    """Restart the killed proxy. Return the record of its only exchange, which the kill interrupted."""
    call.close()
    origin.go_on.set()
    proxy.start()
    (row,) = proxy.exchanges()
    assert row.outcome == "interrupted"
    return proxy.line(row.id)


def settle() -> None:
    """Wait until the journal, which writes every 50 ms, has stored the bytes that the proxy received."""
    time.sleep(0.2)


def received_half(proxy: RunningProxy, origin: Origin) -> dict[str, Call]:
    """Start a call for each case and receive half of its response. Assert that no secret is on the disk."""
    origin.go_on.clear()
    calls = {
        case: Call(proxy, path, body, *headers, chunked=chunked)
        for case, (path, body, headers, chunked) in CASES.items()
    }
    for call in calls.values():
        call.send_half()
    settle()
    assert on_disk(proxy) == {}, "a credential is on the disk while the requests arrive"
    for call in calls.values():
        call.send_rest()
    for case, call in calls.items():
        assert call.received(100), case
    settle()
    assert on_disk(proxy) == {}, "a credential is on the disk while the responses arrive"
    return calls


FORM_TYPE = "Content-Type: application/x-www-form-urlencoded"
JSON_TYPE = "Content-Type: application/json"
GZIP = "Content-Encoding: gzip"
OPAQUE = f"\x0a\x15{REQUEST}{'p' * 2000}{REQUEST}".encode()
OCTETS = "Content-Type: application/octet-stream"
PARTS = (
    f'--B\r\nContent-Disposition: form-data; name="client_secret"\r\n\r\n{REQUEST}\r\n--B\r\n'
    f"Content-Disposition: form-data; name=x\r\n\r\n{'p' * 2000}{REQUEST}\r\n--B--\r\n"
).encode()
NESTED = b'{"auth":[{"n":"a\\\\",' + JSON[1:] + b"]}"
CASES = {
    "path": ("/oauth/token", FORM, [FORM_TYPE], True),
    "path with a length": ("/v1/oauth/token?x=1", FORM, [FORM_TYPE], False),
    "encoded path": ("//x/%2574OKEN;v=1/", FORM, ["Content-Type: application/octet-stream"], True),
    "path in words": ("/v1/getAccessToken", FORM, ["Content-Type: image/png"], True),
    "query": (f"/oauth/token?passphrase={REQUEST}&next=https://h/?token={REQUEST}", FORM, [FORM_TYPE], True),
    "path of a model API": ("/login/v1/messages", JSON, [JSON_TYPE], True),
    "form elsewhere": ("/v1/connect", FORM, [FORM_TYPE], True),
    "form elsewhere with a length": ("/v1/connect", FORM, [FORM_TYPE], False),
    "form of no type": ("/v1/connect", FORM, [], True),
    "JSON elsewhere": ("/v1/connect", JSON, [JSON_TYPE], True),
    "gzip": ("/oauth/token", gzip.compress(FORM), [FORM_TYPE, GZIP], True),
    "gzip elsewhere": ("/v1/connect", gzip.compress(JSON), [JSON_TYPE, GZIP], True),
    "multipart elsewhere": ("/v1/connect", PARTS, ["Content-Type: multipart/form-data; boundary=B"], True),
    "form of another type": ("/v1/connect", FORM, [OCTETS], True),
    "JSON of another type": ("/v1/connect", JSON, ["Content-Type: text/json"], True),
    "JSON below the top": ("/v1/connect", NESTED, [JSON_TYPE], True),
    "JSON in an array": ("/v1/connect", b"[" + JSON + b"]", [JSON_TYPE], True),
    "JSON in upper case": ("/v1/connect", JSON.replace(b"client_secret", b"Client-SECRET"), [JSON_TYPE], True),
    "JSON with an escaped name": ("/v1/connect", NESTED.replace(b"t_s", b"t\\u005fs"), [JSON_TYPE], True),
    "JSON after JSON": ("/v1/connect", b"{}\n" + JSON, [JSON_TYPE], True),
    "not gzip": ("/v1/connect", FORM, [FORM_TYPE, GZIP], True),
    "secret response elsewhere": ("/v1/connect", PLAIN, [JSON_TYPE], True),
}
KEY = f"sk-ant-{REQUEST}"
FORMS = {
    "XML-RPC": (f"<member><name>password</name><value>{REQUEST}</value></member>{{}}", "text/xml"),
    "XML": (f"<a><client_secret>{REQUEST}</client_secret><p>{{}}</p></a>", "application/xml"),
    "XML with a namespace": (f'<o:a><o:Password o:x="y">{REQUEST}</o:Password><p>{{}}</p></o:a>', "text/xml"),
    "XML with an attribute": (f"<a client_secret='{REQUEST}'><p>{{}}</p></a>", "application/soap+xml"),
    "multipart with brackets": (
        f'--B\r\nContent-Disposition: form-data; name="user[password]"\r\n\r\n{REQUEST}{{}}\r\n--B--\r\n',
        "multipart/form-data; boundary=B",
    ),
    "JSON lines": (f'{{{{"n":1}}}}\n{{{{"refresh_token":"{REQUEST}"}}}}\n{{}}', "application/x-ndjson"),
    "event stream": (f'data: {{{{"access_token":"{REQUEST}"}}}}\n\ndata: {{}}\n\n', "text/event-stream"),
    "YAML": (f"a: 1\nclient_secret: {REQUEST}\npadding: {{}}\n", "application/yaml"),
    "text": (f"the password: {REQUEST} {{}}", "text/plain"),
    "multipart": (
        f"--B\r\nContent-Disposition: form-data; name=token\r\n\r\n{REQUEST}{{}}\r\n--B--\r\n",
        "multipart/form-data; boundary=B",
    ),
    "key in JSON": (f'{{{{"key":"{KEY}","padding":"{{}}"}}}}', "application/json"),
    "key in HTML": (f"<p>{KEY}</p><p>{{}}</p>", "text/html"),
    "PEM in octets": (f"-----BEGIN PRIVATE KEY-----\n{REQUEST}\n{{}}", "application/octet-stream"),
}
# Each half of a body contains the secret.
BODIES = {
    name: (text.format("p" * 2000 + REQUEST).encode(), content_type) for name, (text, content_type) in FORMS.items()
}
RESPONSES = {
    name.replace(" ", "-"): (body.replace(REQUEST.encode(), RESPONSE.encode()), content_type)
    for name, (body, content_type) in BODIES.items()
}
for name, (body, content_type) in BODIES.items():
    for coding, compress in CODINGS.items():
        coding_header = [f"Content-Encoding: {coding}"] if coding else []
        case = f"{name} {coding}".strip()
        CASES[case] = ("/v1/connect", compress(body), [f"Content-Type: {content_type}", *coding_header], True)
    CASES[f"response of {name}"] = (f"/v1/connect?form={name.replace(' ', '-')}", PLAIN, [JSON_TYPE], True)
CASES |= {
    "unknown coding": ("/v1/connect", OPAQUE, [JSON_TYPE, "Content-Encoding: aws-chunked"], True),
    "invalid coding": ("/v1/connect", OPAQUE, [JSON_TYPE, "Content-Encoding: br"], True),
    "octets at sessions": ("/v1/sessions", OPAQUE, [OCTETS], True),
    "octets at sessions with a length": ("/v1/sessions", OPAQUE, [OCTETS], False),
    "no type at sessions": ("/v1/sessions/1", OPAQUE, [], True),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_no_byte_of_a_credential_is_on_the_disk_in_any_phase(proxy, origin, coding):
    origin.coding = coding
    calls = received_half(proxy, origin)
    origin.go_on.set()
    for call in calls.values():
        call.received_all()
    assert on_disk(proxy) == {}, "a credential is on the disk after the exchanges"
    rows = proxy.exchanges()
    assert [row.outcome for row in rows] == ["complete"] * len(CASES)
    for row in rows:
        line = proxy.line(row.id)
        for side in ("request", "response"):
            assert (line[side]["body"], line[side]["body_sha256"]) == ("[redacted]", None), line
    proxy.stop()
    assert on_disk(proxy) == {}, "a credential is on the disk after the stop"


def test_no_byte_of_a_credential_is_on_the_disk_after_a_kill_and_its_recovery(proxy, origin):
    calls = received_half(proxy, origin)
    proxy.kill()
    assert on_disk(proxy) == {}, "a credential is on the disk after the kill"
    for call in calls.values():
        call.close()
    origin.go_on.set()
    proxy.start()
    assert on_disk(proxy) == {}, "a credential is on the disk after the recovery"
    rows = proxy.exchanges()
    assert [row.outcome for row in rows] == ["interrupted"] * len(CASES)
    proxy.stop()
    assert on_disk(proxy) == {}, "a credential is on the disk after the stop"
    with SpoolReader(proxy.directory / "state" / "spool.db") as reader:
        assert reader.audit().problems == ()


def test_request_is_withheld_from_the_record_of_a_crash_once_the_response_shows_a_credential(proxy, origin):
    origin.body = f'{{"access_token":"{RESPONSE}","padding":"{"x" * 400}"}}'.encode()
    call = Call(proxy, "/v1/connect", f'{{"pin":"{REQUEST}"}}'.encode(), JSON_TYPE)
    call.send_half()
    call.send_rest()
    received = b""
    while RESPONSE.encode() not in received:
        received += call.socket.recv(65536)
    proxy.kill()
    line = recovered(proxy, call, origin)
    assert (line["request"]["body"], line["request"]["body_sha256"]) == ("[redacted]", None)
    proxy.stop()
    assert on_disk(proxy) == {}, "a credential is on the disk after the stop"


def test_body_without_credentials_is_recorded_exactly_at_any_path(proxy, origin):
    origin.body = PLAIN
    origin.go_on.set()
    call = Call(proxy, "/v1/embeddings", b'{"input":"my password is client_secret=x"}', JSON_TYPE)
    call.send_half()
    call.send_rest()
    call.received_all()
    (row,) = proxy.exchanges()
    line = proxy.line(row.id)
    assert line["request"]["body"] == '{"input":"my password is client_secret=x"}'
    assert line["response"]["body"] == PLAIN.decode()


def test_body_of_a_model_api_is_recorded_exactly_even_if_it_contains_keys(proxy, origin):
    origin.body = f'{{"type":"message","content":[{{"type":"text","text":"{KEY} password: x"}}]}}'.encode()
    origin.go_on.set()
    requested = f'{{"model":"m","messages":[{{"role":"user","content":"client_secret={KEY}"}}]}}'
    call = Call(proxy, "/v1/messages", requested.encode(), JSON_TYPE)
    call.send_half()
    call.send_rest()
    call.received_all()
    (row,) = proxy.exchanges()
    line = proxy.line(row.id)
    assert line["request"]["body"] == requested
    assert line["response"]["body"] == origin.body.decode()
