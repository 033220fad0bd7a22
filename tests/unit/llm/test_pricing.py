"""Tests of the cost of calls: checked against the providers' price lists, and unknown rather than guessed."""

import json
import time
from dataclasses import replace

import pytest

from openclaw_egress.llm import response_reader
from openclaw_egress.llm.model import Billing, ResponseFacts, Usage
from openclaw_egress.llm.pricing import PriceFileError, PriceTable

NOW = 1_795_800_000_000_000_000  # 2026-11-27


@pytest.fixture(scope="module")
def prices() -> PriceTable:
    return PriceTable()


def facts(*tokens: int | None, **billing: object) -> ResponseFacts:
    known = (*tokens, *[None] * (5 - len(tokens)))
    return ResponseFacts(usage=Usage(*known), billing=Billing(**billing))


# Dollars for a million tokens, from the providers' public price lists.
@pytest.mark.parametrize(
    ("provider", "model", "tokens", "billing", "dollars"),
    [
        ("anthropic", "claude-sonnet-4-5-20250929", (1000, 100), {}, (1000 * 3 + 100 * 15) / 1e6),
        ("anthropic", "claude-sonnet-4-5", (1000, 0, 600), {}, (400 * 3 + 600 * 0.3) / 1e6),
        ("anthropic", "claude-sonnet-4-5", (1000, 0, None, 600), {}, (400 * 3 + 600 * 3.75) / 1e6),
        (
            "anthropic",
            "claude-sonnet-4-5",
            (1000, 0, None, 600),
            {"cache_write_1h_tokens": 200},
            (400 * 3 + 400 * 3.75 + 200 * 6) / 1e6,
        ),
        ("anthropic", "claude-sonnet-4-5", (300_000, 1000), {}, (300_000 * 6 + 1000 * 22.5) / 1e6),
        ("anthropic", "claude-opus-4-5", (1000, 100), {"web_searches": 3}, (1000 * 5 + 100 * 25) / 1e6 + 0.03),
        ("anthropic", "claude-opus-4-5", (1000, 100), {"service_tier": "standard"}, (1000 * 5 + 100 * 25) / 1e6),
        ("openai", "gpt-4o-2024-08-06", (1000, 100), {}, (1000 * 2.5 + 100 * 10) / 1e6),
        ("openai", "gpt-4o", (1000, 100, 400), {"service_tier": "default"}, (600 * 2.5 + 400 * 1.25 + 100 * 10) / 1e6),
        ("openai", "gpt-4o-mini", (2000, 1000), {}, (2000 * 0.15 + 1000 * 0.6) / 1e6),
        ("openai", "o3-mini", (1000, 500, None, None, 400), {}, (1000 * 1.1 + 500 * 4.4) / 1e6),
        ("gcp.gemini", "gemini-2.5-pro", (1000, 500), {}, (1000 * 1.25 + 500 * 10) / 1e6),
        ("gcp.vertex_ai", "gemini-2.5-pro", (1000, 0), {"service_tier": "on_demand"}, 1000 * 1.25 / 1e6),
        ("gcp.vertex_ai", "claude-sonnet-4-5-20250929", (1000, 100, 400), {}, (600 * 3 + 400 * 0.3 + 100 * 15) / 1e6),
        ("gcp.gemini", "gemini-2.5-flash", (1000, 0), {"input_audio_tokens": 400}, (600 * 0.3 + 400 * 1) / 1e6),
        (
            "gcp.gemini",
            "gemini-2.5-flash-image",
            (0, 1300),
            {"output_image_tokens": 1290},
            (10 * 2.5 + 1290 * 30) / 1e6,
        ),
        ("aws.bedrock", "anthropic.claude-3-5-sonnet-20240620-v1:0", (1000, 100), {}, (1000 * 3 + 100 * 15) / 1e6),
        ("aws.bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", (1000, 0), {}, 1000 * 3 / 1e6),
        # An endpoint of one region or geography costs ten percent more.
        ("aws.bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", (1000, 0), {}, 1000 * 3.3 / 1e6),
        (
            "aws.bedrock",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            (1000, 0),
            {"service_tier": "default"},
            1000 * 3.3 / 1e6,
        ),
        ("openai", "text-embedding-3-small", (1000, None), {"no_output": True}, 1000 * 0.02 / 1e6),
        (
            "openai",
            "gpt-image-1.5",
            (1000, 500),
            {"input_image_tokens": 600, "output_image_tokens": 400},
            (400 * 5 + 600 * 8 + 100 * 10 + 400 * 32) / 1e6,
        ),
        ("fireworks_ai", "accounts/fireworks/models/glm-4p7", (1000, 0), {}, 1000 * 0.6 / 1e6),
        ("groq", "llama-3.1-8b-instant", (1000, 500), {"service_tier": "on_demand"}, (1000 * 0.05 + 500 * 0.08) / 1e6),
        ("openrouter", "a model that no list has", (1, 1), {"stated_cost": 0.0042}, 0.0042),
        ("openrouter", "openai/gpt-4o", (1000, 100), {"stated_cost": 0.5}, 0.5),
    ],
)
def test_cost_of_a_known_call_is_the_price_lists(prices, provider, model, tokens, billing, dollars):
    assert prices.cost_of(provider, model, facts(*tokens, **billing), NOW) == pytest.approx(dollars, rel=1e-9)


@pytest.mark.parametrize(
    ("provider", "model", "tokens", "billing"),
    [
        (None, "gpt-4o", (1, 1), {}),
        ("some.provider", "gpt-4o", (1, 1), {}),
        ("openai", None, (1, 1), {}),
        ("openai", "a model that no list has", (1, 1), {}),
        ("openai", "gpt-4o", (1, None), {}),
        ("openai", "gpt-4o", (None, 1), {}),
        ("openai", "gpt-4o", (1000, 100), {"service_tier": "flex"}),
        ("anthropic", "claude-opus-4-5", (1000, 100), {"service_tier": "priority"}),
        ("gcp.vertex_ai", "gemini-2.5-pro", (1000, 100), {"service_tier": "provisioned_throughput"}),
        ("aws.bedrock", "arn:aws:bedrock:us-east-1:1:custom-model/amazon.titan-text-lite-v1:0:4k/a", (1, 1), {}),
        ("aws.bedrock", "arn:aws:bedrock:us-east-1:1:provisioned-model/anthropic.claude-instant-v1", (1, 1), {}),
        ("aws.bedrock", "arn:aws:bedrock:us-east-1:1:application-inference-profile/a1b2", (1, 1), {}),
        ("aws.bedrock", "anthropic.claude-3-5-sonnet-20240620-v1:0", (1, 1), {"service_tier": "flex"}),
        # Its price in ap-south-1 is higher than the one in the data.
        ("aws.bedrock", "meta.llama3-70b-instruct-v1:0", (1, 1), {}),
        ("aws.bedrock", "amazon.nova-pro-v1:0", (1, 1), {"service_tier": "optimized"}),
        ("openai", "gpt-image-1.5", (1000, 500), {"incomplete": True}),
        ("gcp.vertex_ai", "claude-sonnet-4-5", (1000, 100), {"incomplete": True}),
        # The data has no price of searches, nor of writes to a cache for one hour.
        ("gcp.vertex_ai", "claude-opus-4-1", (1000, 100), {"web_searches": 3}),
        ("gcp.vertex_ai", "claude-3-7-sonnet", (1000, 100, None, 600), {"cache_write_1h_tokens": 600}),
        ("openai", "gpt-4o", (10, 5, 20), {}),  # more cached tokens than tokens
        # The data has no price of cached tokens, for which the provider gives a discount.
        ("fireworks_ai", "accounts/fireworks/models/glm-4p7", (1000, 5, 900), {}),
    ],
)
def test_cost_is_unknown_rather_than_guessed(prices, provider, model, tokens, billing):
    assert prices.cost_of(provider, model, facts(*tokens, **billing), NOW) is None


def test_cost_that_an_unknown_provider_states_is_not_taken_for_dollars(prices):
    assert prices.cost_of(None, "m", facts(1, 1, stated_cost=5.0), NOW) is None
    assert prices.cost_of("openai", "gpt-4o", facts(1000, 100, stated_cost=5.0), NOW) == pytest.approx(0.0035)


CHAT = {"model": "m", "choices": [{"message": {"content": "a"}}]}


def read(path: str, body: object) -> ResponseFacts:
    reader = response_reader("host.example", path, "application/json")
    reader.feed(json.dumps(body).encode())
    return reader.finish()


@pytest.mark.parametrize(
    ("path", "body", "billing"),
    [
        ("/v1/chat/completions", CHAT | {"usage": {"cost": 0.25}}, Billing(stated_cost=0.25)),
        ("/v1/chat/completions", CHAT | {"usage": {"cost": {"total_cost": 0.5}}}, Billing(stated_cost=0.5)),
        ("/v1/chat/completions", CHAT | {"usage": {"cost_in_usd_ticks": 25_000_000}}, Billing(stated_cost=0.0025)),
        ("/v1/chat/completions", CHAT | {"usage": {"cost": -1}}, Billing()),
        ("/v1/chat/completions", CHAT | {"usage": {"cost": {"other": 1}}}, Billing()),
        ("/v1/chat/completions", CHAT | {"usage": {}, "service_tier": "flex"}, Billing(service_tier="flex")),
        ("/v1/responses", {"usage": {}, "service_tier": "priority"}, Billing(service_tier="priority")),
        (
            "/v1/chat/completions",
            CHAT | {"usage": {"prompt_tokens_details": {"audio_tokens": 4}}},
            Billing(input_audio_tokens=4),
        ),
        (
            "/v1beta/models/m:generateContent",
            {
                "usageMetadata": {
                    "promptTokensDetails": [
                        {"modality": "TEXT", "tokenCount": 9},
                        {"modality": "AUDIO", "tokenCount": 4},
                    ],
                    "toolUsePromptTokensDetails": [{"modality": "AUDIO", "tokenCount": 1}, {"modality": "AUDIO"}, None],
                    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 7}],
                    "serviceTier": "flex",
                }
            },
            Billing(service_tier="flex", input_audio_tokens=5, output_image_tokens=7),
        ),
        (
            "/v1/models/m:generateContent",
            {"usageMetadata": {"trafficType": "ON_DEMAND"}},
            Billing(service_tier="on_demand"),
        ),
        ("/v1/models/m:generateContent", {"usageMetadata": {"serviceTier": "unspecified"}}, Billing()),
        ("/v1/models/m:generateContent", {"usageMetadata": {"trafficType": "TRAFFIC_TYPE_UNSPECIFIED"}}, Billing()),
        (
            "/v1/messages",
            {
                "usage": {
                    "service_tier": "standard",
                    "cache_creation": {"ephemeral_1h_input_tokens": 9},
                    "server_tool_use": {"web_search_requests": 2},
                }
            },
            Billing(service_tier="standard", cache_write_1h_tokens=9, web_searches=2),
        ),
        ("/v1/messages", {"usage": {"iterations": [{"type": "message", "input_tokens": 9}]}}, Billing()),
        ("/v1/messages", {"usage": {"iterations": [{"type": "compaction"}]}}, Billing(incomplete=True)),
        (
            "/v1/messages",
            {"usage": {"iterations": [{"type": "message"}, {"type": "advisor_message", "model": "m"}]}},
            Billing(incomplete=True),
        ),
    ],
)
def test_response_states_what_the_price_depends_on(path, body, billing):
    assert read(path, body).billing == billing


def test_stream_states_what_the_price_depends_on():
    reader = response_reader("h", "/v1/chat/completions", "text/event-stream")
    for event in (CHAT | {"service_tier": "flex"}, {"choices": [], "usage": {"cost": 0.125}}):
        reader.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert reader.finish().billing == Billing(stated_cost=0.125, service_tier="flex")


def test_operators_price_file_replaces_the_prices(tmp_path):
    file = tmp_path / "data.json"
    file.write_text(
        json.dumps(
            [
                {
                    "id": "openai",
                    "name": "OpenAI",
                    "api_pattern": "https://api\\.openai\\.com",
                    "models": [
                        {"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": 1, "output_mtok": 2}},
                        {"id": "n", "match": {"equals": "n"}, "prices": {}},
                        {"id": "free", "match": {"equals": "free"}, "prices": {"input_mtok": 0, "output_mtok": 0}},
                    ],
                }
            ]
        )
    )
    prices = PriceTable(file)
    assert prices.cost_of("openai", "m", facts(1_000_000, 1_000_000), NOW) == pytest.approx(3)
    assert prices.cost_of("openai", "n", facts(1, 1), NOW) is None
    assert prices.cost_of("openai", "free", facts(1, 1), NOW) == 0
    assert prices.cost_of("openai", "gpt-4o", facts(1, 1), NOW) is None


@pytest.mark.parametrize("content", [None, "{", "{}", "[]", "[1]", '[{"id": 5}]', "\x00"])
def test_price_file_that_cannot_be_used_is_refused_with_a_remedy(tmp_path, content):
    file = tmp_path / "data.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PriceFileError) as error:
        PriceTable(file)
    assert str(file) in str(error.value)
    assert "EGRESS_PRICES_FILE" in str(error.value)
    assert "\n" not in str(error.value)


def test_hostile_counts_never_raise(prices):
    huge = 2**63 - 1
    for model in ("gpt-4o", "claude-opus-4-5", "\x00", "a" * 10_000, "(((", "*"):
        for provider in ("openai", "anthropic", "openrouter"):
            found = replace(facts(huge, huge, huge, huge, huge), billing=Billing(web_searches=huge))
            prices.cost_of(provider, model, found, NOW)
            prices.cost_of(provider, model, found, time.time_ns())


@pytest.mark.parametrize(
    ("match", "price"), [({"regex": "("}, 1), ({"equals": "m"}, 1e300)], ids=["invalid-pattern", "infinite-cost"]
)
def test_price_file_with_unusable_values_leaves_the_cost_unknown(tmp_path, match, price):
    models = [{"id": "m", "match": match, "prices": {"input_mtok": price}}]
    file = tmp_path / "data.json"
    file.write_text(json.dumps([{"id": "openai", "name": "OpenAI", "api_pattern": "x", "models": models}]))
    facts = ResponseFacts(usage=Usage(2**63 - 1, 1))
    assert PriceTable(file).cost_of("openai", "m", facts, 1_795_784_400_000_000_000) is None
