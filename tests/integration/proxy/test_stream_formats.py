"""Tests that streams of server-sent events, JSON arrays and JSON lines are recorded with their usage and message."""

import hashlib
import json

import pytest

from tests.integration.proxy.conftest import make_proxy, wait_until
from tests.support.llm_providers import GEMINI, OLLAMA, LLMProviders

STREAM = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
CONTENTS = {
    "contents": [{"parts": [{"text": "hello"}]}],
    "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
}
CHAT = {"model": "gemma3", "messages": [{"role": "user", "content": "hello"}], "think": True}


@pytest.fixture(scope="module", params=["lean", "stock"])
def proxy(request, tmp_path_factory, providers: LLMProviders):
    running = make_proxy(tmp_path_factory.mktemp(request.param), providers, request.param)
    policy = running.policy_file.read_text()
    policy = policy.replace('"api.openai.com"]', f'"api.openai.com", "{GEMINI}", "{OLLAMA}"]')
    policy = policy.replace("resolve: {", f"resolve: {{{GEMINI}: 127.0.0.1, {OLLAMA}: 127.0.0.1, ")
    running.policy_file.write_text(policy)
    with running:
        yield running
    assert "Traceback" not in running.log, running.log


@pytest.mark.parametrize(
    ("host", "path", "body", "content_type"),
    [
        (GEMINI, f"{STREAM}?alt=sse", CONTENTS, "text/event-stream"),
        (GEMINI, STREAM, CONTENTS, "application/json; charset=UTF-8"),
        (OLLAMA, "/api/chat", CHAT, "application/x-ndjson"),
        (OLLAMA, "/api/generate", {"model": "gemma3", "prompt": "hello", "think": True}, "application/x-ndjson"),
    ],
)
@pytest.mark.parametrize("plain_http", [False, True])
def test_stream_is_recorded_with_its_usage_and_message(proxy, providers, host, path, body, content_type, plain_http):
    before = {row.id for row in proxy.exchanges()}
    url = f"http://{host}:{providers.http_port}{path}" if plain_http else proxy.url(host, path)
    with proxy.client(headers={"x-goog-api-key": "key-test"}) as client:
        response = client.post(url, json=body)
    assert response.headers["content-type"] == content_type
    wait_until(lambda: {row.id for row in proxy.exchanges()} - before, proxy)
    (row,) = [row for row in proxy.exchanges() if row.id not in before]
    result = providers.log[-1]["usage"]
    if host == GEMINI:
        expected = result["promptTokenCount"] + result["toolUsePromptTokenCount"]
        assert (row.input_tokens, row.output_tokens) == (expected, result["totalTokenCount"] - expected)
    else:
        assert (row.input_tokens, row.output_tokens) == (result["prompt_eval_count"], result["eval_count"])
    assert (row.provider, row.stream) == ("gcp.gemini" if host == GEMINI else "ollama", True)
    line = proxy.line(row.id)
    assert [part["type"] for part in line["messages"][0]["parts"]] == ["reasoning", "text"]
    digest = hashlib.sha256(line["response"]["body"].encode()).hexdigest()
    assert digest == providers.log[-1]["body_sha256"] == hashlib.sha256(response.content).hexdigest()
    assert json.loads(line["request"]["body"]) == body
