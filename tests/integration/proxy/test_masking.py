"""Tests that known secrets are not written to disk, logs or export destinations, and that traffic stays unmodified."""

import hashlib
import json
import re
import time

import pytest

from tests.integration.proxy import test_secrets_on_disk
from tests.integration.proxy.test_secrets_on_disk import Call, Origin, recovered, settle
from tests.integration.proxy.test_secrets_on_disk import origin as origin  # noqa: PLC0414  (a fixture)
from tests.support.generated_secrets import private_pem, secrets
from tests.support.loki.fake import FakeLoki
from tests.support.proxy_process import RunningProxy

SECRETS = secrets(200)
SENT, RECEIVED = [secret for _, secret in SECRETS[:100]], [secret for _, secret in SECRETS[100:]]
PEM = private_pem(9)
PEM_LINES = PEM.splitlines()[1:-1]
PATH = f"/v1/messages?note={SENT[0]}&x=1"
JSON_TYPE = "Content-Type: application/json"
POLICY = "mask: [{name: acme, pattern: 'acme-[0-9]{16}'}]\n"
OWN = "acme-0123456789012345"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def request_body() -> bytes:
    """Return a request body with secrets and a private key in its text, and a secret as its model name."""
    content = [{"type": "text", "text": f"Use {secret}, please.\n"} for secret in SENT]
    content += [{"type": "text", "text": PEM}, {"type": "text", "text": OWN}]
    return json.dumps({"model": SENT[1], "max_tokens": 9, "messages": [{"role": "user", "content": content}]}).encode()


def response_body() -> bytes:
    """Return an event stream in which one secret is split over two events and each other secret is in one event."""
    cut = RECEIVED[0][: len(RECEIVED[0]) // 2], RECEIVED[0][len(RECEIVED[0]) // 2 :]
    texts = [f" {secret}\n" for secret in RECEIVED[1:]] + [PEM, " ", *cut, " end"]
    start = {"type": "message", "id": "msg_1", "role": "assistant", "model": "claude-sonnet-4-5", "content": []}
    events = [{"type": "message_start", "message": start | {"usage": {"input_tokens": 7, "output_tokens": 1}}}]
    events += [{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}]
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts
    ]
    events += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 42}}]
    events += [{"type": "message_stop"}]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def found_in(proxy: RunningProxy, loki: FakeLoki) -> list[tuple[str, str]]:
    """Return (location, secret) for each secret that is in a file, in the Loki fake or in the metrics."""
    texts = {str(file): file.read_bytes() for file in proxy.directory.rglob("*") if file.is_file()}
    texts["loki"] = repr(loki.records()).encode()
    if proxy.process is not None and proxy.process.poll() is None:
        texts["metrics"] = proxy.metrics().encode()
    needles = [*SENT, *RECEIVED, *PEM_LINES, OWN]
    return [(place, needle) for place, data in texts.items() for needle in needles if needle.encode() in data]


@pytest.fixture
def loki():
    with FakeLoki() as running:
        yield running


@pytest.fixture
def proxy(tmp_path, origin: Origin, loki: FakeLoki):
    directory = tmp_path / "proxy"
    directory.mkdir()
    endpoint = loki.url + "/otlp/v1/logs"
    running = RunningProxy(
        directory, [origin.server_port], tmp_path / "upstream.pem", OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=endpoint
    )
    running.policy_file.write_text(running.policy_file.read_text() + POLICY)
    with running:
        yield running


@pytest.fixture(autouse=True)
def stream(monkeypatch):
    """Let the origin respond with an event stream."""
    monkeypatch.setitem(test_secrets_on_disk.RESPONSES, "", (response_body(), "text/event-stream"))


def call_with_secrets(proxy: RunningProxy) -> Call:
    headers = [JSON_TYPE, f"x-note: {SENT[2]}", f"x-own: {OWN}"]
    call = Call(proxy, PATH, request_body(), *headers)
    call.send_half()
    return call


def test_no_known_secret_leaves_the_memory_in_any_phase(proxy, origin, loki):
    call = call_with_secrets(proxy)
    settle()
    assert found_in(proxy, loki) == [], "a secret leaked while the request arrives"
    call.send_rest()
    received = call.received(2000)
    settle()
    assert found_in(proxy, loki) == [], "a secret leaked while the response arrives"
    origin.go_on.set()
    received += call.received_all()
    framed = received.partition(b"\r\n\r\n")[2]
    assert re.sub(rb"(?:\r\n|\A)[0-9a-f]+\r\n", b"", framed).removesuffix(b"\r\n") == response_body()
    (row,) = proxy.exchanges()
    line = proxy.line(row.id)
    end = time.monotonic() + 30
    while proxy.ask("/readyz")["spool"]["pending_records"] and time.monotonic() < end:
        time.sleep(0.05)
    assert found_in(proxy, loki) == [], "a secret leaked after the exchange"
    assert loki.lines()
    body = request_body()
    assert (line["request"]["body_size"], line["request"]["body_sha256"]) == (len(body), digest(body))
    assert line["request"]["body_masked"] == len(SENT) + 3
    assert line["response"]["body_sha256"] == digest(response_body())
    assert (row.input_tokens, row.output_tokens) == (7, 42), "usage must be read from the unmasked bytes"
    for secret in RECEIVED:
        assert digest(secret.encode())[:12] in json.dumps(line["messages"]), secret
    json.loads(line["request"]["body"])
    proxy.stop()
    assert found_in(proxy, loki) == [], "a secret leaked after the stop"


def test_no_known_secret_is_on_the_disk_after_a_kill_and_its_recovery(proxy, origin, loki):
    call = call_with_secrets(proxy)
    call.send_rest()
    call.received(2000)
    settle()
    proxy.kill()
    assert found_in(proxy, loki) == [], "a secret leaked after the kill"
    line = recovered(proxy, call, origin)
    body = request_body()
    assert (line["request"]["body_size"], line["request"]["body_sha256"]) == (len(body), digest(body))
    assert line["request"]["body_masked"] == len(SENT) + 3
    assert found_in(proxy, loki) == [], "a secret leaked after the recovery"


def test_bodies_are_exact_when_masking_is_off(tmp_path, origin, loki):
    (tmp_path / "off").mkdir()
    origin.go_on.set()
    with RunningProxy(
        tmp_path / "off", [origin.server_port], tmp_path / "upstream.pem", EGRESS_MASK_BODIES="off"
    ) as proxy:
        call = call_with_secrets(proxy)
        call.send_rest()
        call.received_all()
        (row,) = proxy.exchanges()
        line = proxy.line(row.id)
        assert line["request"]["body"].encode() == request_body()
        assert line["response"]["body"].encode() == response_body()
        assert "body_masked" not in line["request"]
        assert SENT[2] not in json.dumps(line["request"]["headers"]), "headers must be redacted even with masking off"
