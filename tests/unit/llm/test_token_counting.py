"""Tests of requests that count tokens: the record has operation and model, and the count does not add to the usage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

from openclaw_egress.llm import RequestFacts, ResponseFacts, read_request, response_reader
from openclaw_egress.llm.conversation import request_turns
from openclaw_egress.llm.registry import is_model_api
from tests.support.llm_providers import LLMProviders
from tests.unit.provider_recording import Clients

MESSAGES: Any = [{"role": "user", "content": "x"}]
CONVERSE: Any = {"messages": [{"role": "user", "content": [{"text": "x"}]}]}
GOOGLE, BEDROCK = "generativelanguage.googleapis.com", "bedrock-runtime.us-east-1.amazonaws.com"


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with LLMProviders() as providers:
        clients = Clients(providers)
        yield clients
        clients.close()


@pytest.mark.parametrize(
    ("host", "count", "provider", "model"),
    [
        (
            "api.anthropic.com",
            lambda c: c.anthropic.messages.count_tokens(model="m", messages=MESSAGES).input_tokens,
            "anthropic",
            "m",
        ),
        (
            "aiplatform.googleapis.com",
            lambda c: c.vertex.messages.count_tokens(model="m@1", messages=MESSAGES).input_tokens,
            "gcp.vertex_ai",
            "m@1",
        ),
        (
            "api.openai.com",
            lambda c: c.openai.responses.input_tokens.count(model="m", input="x").input_tokens,
            "openai",
            "m",
        ),
        (GOOGLE, lambda c: c.gemini.models.count_tokens(model="m", contents="x").total_tokens, "gcp.gemini", "m"),
        (
            BEDROCK,
            lambda c: c.bedrock.count_tokens(modelId="anthropic.m", input={"converse": CONVERSE})["inputTokens"],
            "aws.bedrock",
            "anthropic.m",
        ),
    ],
)
def test_token_count_of_an_sdk_is_not_usage(
    clients: Clients, host: str, count: Callable[[Clients], int], provider: str, model: str
) -> None:
    assert count(clients) > 0
    assert clients.last.request_facts(host) == RequestFacts("count_tokens", provider, model, False)
    assert clients.last.response_facts(host) == ResponseFacts()
    assert is_model_api(host, clients.last.path)
    assert [part.text for turn in request_turns(clients.last.request.decode()) for part in turn.parts] == ["x"]


def test_counts_in_headers_do_not_count_as_usage() -> None:
    headers = {"x-amzn-bedrock-input-token-count": "5", "x-amzn-bedrock-service-tier": "flex"}
    reader = response_reader(BEDROCK, "/model/anthropic.m/count-tokens", "application/json", headers)
    reader.feed(b'{"inputTokens": 5, "usage": {"inputTokens": 5}}')
    assert reader.finish() == ResponseFacts()


def test_usage_in_a_response_is_not_read() -> None:
    reader = response_reader("api.anthropic.com", "/v1/messages/count_tokens", "application/json")
    reader.feed(b'{"input_tokens": 5, "error": null, "usage": {"input_tokens": 5}}')
    assert reader.finish() == ResponseFacts()


def test_error_equals_the_sdks(clients: Clients) -> None:
    with pytest.raises(anthropic.RateLimitError) as caught:
        clients.anthropic.messages.count_tokens(model="fail-429", messages=MESSAGES)
    assert isinstance(caught.value.body, dict)
    assert clients.last.response_facts("api.anthropic.com") == ResponseFacts(
        error_type=caught.value.body["error"]["type"]
    )


@pytest.mark.parametrize(
    ("path", "body", "headers", "word"),
    [
        ("/v1/responses/input_tokens", {"error": {"code": "model_not_found"}}, {}, "model_not_found"),
        ("/v1beta/models/m:countTokens", {"error": {"code": 404, "status": "NOT_FOUND"}}, {}, "NOT_FOUND"),
        (
            "/v1/projects/p/locations/us/publishers/anthropic/models/count-tokens:rawPredict",
            {"error": {"code": 404, "status": "NOT_FOUND"}},
            {},
            "NOT_FOUND",
        ),
        (
            "/model/anthropic.m/count-tokens",
            {"message": "no"},
            {"x-amzn-errortype": "ThrottlingException"},
            "ThrottlingException",
        ),
    ],
)
def test_error_has_the_name_of_its_api(path: str, body: object, headers: dict[str, str], word: str) -> None:
    reader = response_reader("host.example", path, "application/json", headers)
    reader.feed(json.dumps(body).encode())
    assert reader.finish() == ResponseFacts(error_type=word)


def test_gemini_can_name_the_request_to_count() -> None:
    body = {"generateContentRequest": {"model": "models/m", "contents": [{"parts": [{"text": "x"}]}]}}
    assert [part.text for turn in request_turns(json.dumps(body)) for part in turn.parts] == ["x"]


@pytest.mark.parametrize("path", ["/v1beta/models/m:countTokens", "/model/anthropic.m/count-tokens"])
def test_path_that_other_servers_can_use_is_a_model_api_only_at_its_providers_hosts(path: str) -> None:
    assert not is_model_api("host.example", path)
    assert is_model_api(GOOGLE if ":" in path else BEDROCK, path)


def test_request_of_cloud_code_assist_has_no_model() -> None:
    body = b'{"request": {"model": "models/m", "contents": []}}'
    facts = read_request("cloudcode-pa.googleapis.com", "/v1internal:countTokens", body)
    assert facts == RequestFacts("count_tokens", "gcp.gen_ai", None, False)
    assert read_request("host.example", "/v1internal:countTokens", body) == RequestFacts()
