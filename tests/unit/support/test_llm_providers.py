"""Tests of the fake provider. Other tests depend on its documented behaviour."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect

from tests.support import llm_providers
from tests.support.llm_providers import LLMProviders

STREAM = {"model": "claude-x", "messages": [], "stream": True}


@pytest.fixture(scope="module")
def providers() -> Iterator[LLMProviders]:
    with LLMProviders(http_port=0) as running:
        yield running


@pytest.fixture
def client(providers: LLMProviders) -> Iterator[httpx2.Client]:
    context = ssl.create_default_context(cafile=str(providers.ca_file))
    with httpx2.Client(
        verify=context, base_url=f"https://localhost:{providers.port}", headers={"x-api-key": "k"}
    ) as one:
        yield one


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_response_has_the_requested_encoding(client: httpx2.Client, coding: str) -> None:
    answer = client.get("/bytes/1000", headers={"x-standin-encoding": coding})
    assert answer.headers["content-encoding"] == coding
    assert len(answer.content) == 1000


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_fakes_response_has_the_requested_framing(providers: LLMProviders, client: httpx2.Client, framing: str) -> None:
    answer = client.get("/bytes/200000", headers={"x-standin-framing": framing})
    assert len(answer.content) == 200_000
    assert ("content-length" in answer.headers) == (framing == "length")
    assert (providers.log[-1]["outcome"], providers.log[-1]["wire_bytes"]) == ("complete", 200_000)


def test_response_is_aborted_as_requested(providers: LLMProviders, client: httpx2.Client) -> None:
    for path in ("/bytes/1000", "/v1/messages"):
        with pytest.raises(httpx2.RemoteProtocolError):
            client.post(path, json=STREAM, headers={"x-standin-abort-after": "77"})
        assert (providers.log[-1]["outcome"], providers.log[-1]["wire_bytes"]) == ("aborted", 77)


def test_content_length_is_wrong_as_requested(client: httpx2.Client) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        client.get("/bytes/1000", headers={"x-standin-length-off-by": "5"})
    assert len(client.get("/bytes/1000", headers={"x-standin-length-off-by": "-5"}).content) == 995


def test_controls_may_be_in_the_body(client: httpx2.Client) -> None:
    answer = client.post("/v1/messages", json=STREAM | {"standin": {"events": 20}})
    assert answer.text.count("event: content_block_delta") == 20


def test_hosts_are_distinguished_by_name(client: httpx2.Client) -> None:
    page = client.get("/", headers={"host": "www.example.org"})
    assert "<title>www.example.org</title>" in page.text
    assert client.post("/v1/messages", headers={"host": "api.openai.com"}).json()["error"]["code"] == "invalid_api_key"
    assert client.post("/v1/messages", headers={"host": "example.com"}).status_code == 404


def test_chunked_and_encoded_request_is_accepted(client: httpx2.Client) -> None:
    body = llm_providers.Encoder("zstd")
    coded = body.piece(json.dumps(STREAM | {"stream": False}).encode()) + body.end()
    answer = client.post("/v1/messages", content=iter([coded[:5], coded[5:]]), headers={"content-encoding": "zstd"})
    assert answer.json()["model"] == "claude-x"


def test_plain_http_listener_responds_as_well(providers: LLMProviders) -> None:
    assert httpx2.get(f"http://127.0.0.1:{providers.http_port}/bytes/10").content == bytes(range(10))


def test_command_reports_ready_logs_and_stops_on_a_signal(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    command = [sys.executable, llm_providers.__file__, "--tls-dir", str(tmp_path / "tls"), "--log", str(log)]
    with subprocess.Popen([*command, "--hosts", "localhost"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word, port = process.stdout.readline().split()
        assert word == "ready"
        context = ssl.create_default_context(cafile=str(tmp_path / "tls/ca.pem"))
        assert httpx2.get(f"https://localhost:{port}/bytes/3", verify=context).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert [json.loads(line)["path"] for line in log.read_text().splitlines()] == ["/bytes/3"]


def test_fake_needs_only_the_standard_library_and_cryptography(tmp_path: Path) -> None:
    script = "import sys; sys.modules.update(dict.fromkeys(['brotli', 'backports', 'zstandard'])); import llm_providers"
    directory = str(Path(llm_providers.__file__).parent)
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env={"PYTHONPATH": directory})


def test_websocket_gets_the_events_of_a_stream_as_messages(providers: LLMProviders) -> None:
    context = ssl.create_default_context(cafile=str(providers.ca_file))
    url, headers = f"wss://localhost:{providers.port}/v1/responses", {"authorization": "Bearer k"}
    question = json.dumps({"type": "response.create", "model": "gpt-x", "input": "hello"})

    async def talk() -> tuple[list[list[dict[str, Any]]], int]:
        responses: list[list[dict[str, Any]]] = []
        async with connect(url, ssl=context, additional_headers=headers) as one:
            # Send the second request in two fragments.
            for message in (question, [question[:20], question[20:]]):
                await one.send(message)
                events = [json.loads(await one.recv())]
                while events[-1]["type"] != "response.completed":
                    events.append(json.loads(await one.recv()))
                responses.append(events)
        return responses, one.close_code or 0

    responses, code = asyncio.run(talk())
    assert [event["type"] for event in responses[0]][:2] == ["response.created", "response.in_progress"]
    assert responses[0] == responses[1]
    entries = providers.log[-2:]
    assert [entry["usage"] for entry in entries] == [events[-1]["response"]["usage"] for events in responses]
    assert [entry["model"] for entry in entries] == ["gpt-x", "gpt-x"]
    assert code == 1000
