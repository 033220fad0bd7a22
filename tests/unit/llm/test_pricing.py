"""Tests of the cost of calls: it follows the providers' price lists, and is unknown if it could only be guessed."""

import json
import time
from dataclasses import replace
from importlib.metadata import version

import pytest

from openclaw_egress.llm import read_request, response_reader
from openclaw_egress.llm.model import Billing, RequestFacts, ResponseFacts, Usage
from openclaw_egress.llm.pricing import PriceFileError, PriceTable
from openclaw_egress.llm.registry import provider_of

NOW = 1_795_800_000_000_000_000  # 2026-11-27


@pytest.fixture(scope="module")
def prices() -> PriceTable:
    return PriceTable()


def facts(*tokens: int | None, **billing: object) -> ResponseFacts:
    known = (*tokens, *[None] * (5 - len(tokens)))
    return ResponseFacts(usage=Usage(*known), billing=Billing(**billing))


HOSTS = {
    "anthropic": "api.anthropic.com",
    "aws.bedrock": "bedrock-runtime.eu-west-1.amazonaws.com",
    "fireworks_ai": "api.fireworks.ai",
    "gcp.gemini": "generativelanguage.googleapis.com",
    "gcp.vertex_ai": "aiplatform.googleapis.com",
    "groq": "api.groq.com",
    "openai": "api.openai.com",
}


def cost(
    prices: PriceTable,
    provider: str | None,
    model: str | None,
    responded: ResponseFacts,
    time_ns: int = NOW,
    host: str | None = None,
    **requested: str,
) -> float | None:
    """Return the cost of a call. The default host is the provider's host in ``HOSTS``, whose prices are known."""
    request = RequestFacts("chat", provider, model, **requested)
    return prices.cost_of(host or HOSTS.get(provider or "", "h.example"), request, responded, time_ns)


def test_prices_below_were_checked_against_this_version_of_the_data() -> None:
    assert version("genai-prices") == "0.1.13", "check the prices below against the providers' lists again"


# The expected costs are calculated from the providers' public price lists, in dollars per million tokens.
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
        # Requests to a regional or geographic endpoint cost 10 % more.
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
def test_cost_of_a_known_call_equals_the_price_list(prices, provider, model, tokens, billing, dollars):
    assert cost(prices, provider, model, facts(*tokens, **billing)) == pytest.approx(dollars, rel=1e-9)


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
        # The price data has a single price for this model, but the model costs more in ap-south-1.
        ("aws.bedrock", "meta.llama3-70b-instruct-v1:0", (1, 1), {}),
        ("aws.bedrock", "amazon.nova-pro-v1:0", (1, 1), {"service_tier": "optimized"}),
        ("openai", "gpt-image-1.5", (1000, 500), {"incomplete": True}),
        ("gcp.vertex_ai", "claude-sonnet-4-5", (1000, 100), {"incomplete": True}),
        # The price data has no price for searches or for cache writes with a lifetime of one hour.
        ("gcp.vertex_ai", "claude-opus-4-1", (1000, 100), {"web_searches": 3}),
        ("gcp.vertex_ai", "claude-3-7-sonnet", (1000, 100, None, 600), {"cache_write_1h_tokens": 600}),
        # The counts contradict each other: there are more cached tokens than input tokens.
        ("openai", "gpt-4o", (10, 5, 20), {}),
        # The provider discounts cached tokens, but the price data has no price for them.
        ("fireworks_ai", "accounts/fireworks/models/glm-4p7", (1000, 5, 900), {}),
    ],
)
def test_cost_is_unknown_rather_than_guessed(prices, provider, model, tokens, billing):
    assert cost(prices, provider, model, facts(*tokens, **billing)) is None


# Hosts that are missing from the price data. The regional hosts of OpenAI and xAI charge 10 % more, those of Together
# 25 %. Prices also differ at Codestral's host, at Moonshot's host in China, and for Azure's regional, data zone and
# provisioned deployments.
@pytest.mark.parametrize(
    ("provider", "host", "model"),
    [
        ("anthropic", "eu.anthropic.com", "claude-opus-4-5"),
        ("aws.bedrock", "bedrock-runtime.us-gov-west-1.amazonaws.com", "anthropic.claude-3-haiku-20240307-v1:0"),
        ("aws.bedrock", "bedrock-runtime.cn-north-1.amazonaws.com.cn", "anthropic.claude-3-haiku-20240307-v1:0"),
        ("azure.ai.openai", "me.openai.azure.com", "gpt-4o"),
        ("azure.ai.inference", "me.services.ai.azure.com", "gpt-4o"),
        ("gcp.vertex_ai", "europe-west1-aiplatform.googleapis.com", "gemini-2.5-pro"),
        ("gcp.vertex_ai", "aiplatform.eu.rep.googleapis.com", "gemini-2.5-pro"),
        ("mistral_ai", "codestral.mistral.ai", "codestral-2508"),
        ("moonshot_ai", "api.moonshot.cn", "kimi-k2-0905-preview"),
        ("openai", "eu.api.openai.com", "gpt-4o"),
        ("openai", "us.api.openai.com", "gpt-4o"),
        ("openai", "gateway.openai.com", "gpt-4o"),
        ("together_ai", "us-api.together.ai", "NousResearch/Nous-Hermes-2-Yi-34B"),
        ("together_ai", "ca-api.together.ai", "NousResearch/Nous-Hermes-2-Yi-34B"),
        ("x_ai", "us.api.x.ai", "grok-4.6"),
    ],
)
def test_host_with_other_prices_has_no_cost(prices, provider, host, model):
    assert provider_of(host) == provider
    assert cost(prices, provider, model, facts(1000, 100), host=host) is None


@pytest.mark.parametrize(
    ("provider", "host", "model"),
    [
        ("aws.bedrock", "bedrock-runtime.ap-south-1.amazonaws.com", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("mistral_ai", "api.mistral.ai", "codestral-2508"),
        ("moonshot_ai", "api.moonshot.ai", "kimi-k2-0905-preview"),
        ("openai", "API.openai.com.", "gpt-4o"),
        ("together_ai", "api.together.xyz", "NousResearch/Nous-Hermes-2-Yi-34B"),
        ("together_ai", "api.together.ai", "NousResearch/Nous-Hermes-2-Yi-34B"),
    ],
)
def test_host_at_list_prices_has_a_cost(prices, provider, host, model):
    assert cost(prices, provider, model, facts(1000, 100), host=host)


@pytest.mark.parametrize("provider", ["openrouter", "perplexity", "x_ai"])
def test_cost_is_unknown_if_a_provider_that_reports_costs_omits_it(prices, provider):
    known = {"openrouter": "openai/gpt-4o", "perplexity": "sonar", "x_ai": "grok-4.6"}[provider]
    assert cost(prices, provider, known, facts(1000, 100)) is None


@pytest.mark.parametrize(
    ("billing", "requested", "priced"),
    [
        ({}, {}, True),
        ({"speed": "standard", "region": "global"}, {}, True),
        ({"region": "not_available"}, {}, True),
        ({"speed": "fast"}, {}, False),
        ({"region": "us"}, {}, False),
        ({"region": "a new region"}, {}, False),
        ({}, {"speed": "fast"}, False),
        ({}, {"region": "us"}, False),
        ({}, {"service_tier": "flex"}, False),
        ({}, {"service_tier": "auto"}, True),
        # If the requested tier or speed was not available, the tier or speed in the response takes precedence.
        ({"speed": "standard", "service_tier": "standard"}, {"speed": "fast", "service_tier": "priority"}, True),
        ({"service_tier": "priority"}, {"service_tier": "auto"}, False),
    ],
)
def test_tier_speed_and_region_at_other_prices_have_no_cost(prices, billing, requested, priced):
    found = cost(prices, "anthropic", "claude-opus-4-5", facts(1000, 100, **billing), **requested)
    assert (found is not None) == priced


@pytest.mark.parametrize(
    ("path", "body", "requested"),
    [
        ("/v1/messages", {"speed": "fast", "inference_geo": "us"}, {"speed": "fast", "region": "us"}),
        ("/v1/chat/completions", {"service_tier": "flex"}, {"service_tier": "flex"}),
        ("/v1beta/models/m:generateContent", {"serviceTier": "flex"}, {"service_tier": "flex"}),
        ("/v1/audio/speech", {"speed": 1.5}, {}),
    ],
)
def test_request_options_that_affect_the_price_are_read(path, body, requested):
    found = read_request("h.example", path, json.dumps(body | {"model": "m"}).encode())
    assert {name: getattr(found, name) for name in ("service_tier", "speed", "region")} == {
        "service_tier": None,
        "speed": None,
        "region": None,
    } | requested


def test_peak_price_of_deepseek_is_unknown(prices):
    hours = [1_795_996_800_000_000_000 + hour * 3600 * 10**9 for hour in range(24)]  # 2026-11-30, a Monday
    known = [
        cost(prices, "deepseek", "deepseek-v4-pro", facts(1000, 100), when, "api.deepseek.com") is not None
        for when in hours
    ]
    assert [hour for hour, priced in enumerate(known) if not priced] == [1, 2, 3, 6, 7, 8, 9]


def test_sum_of_several_prompts_has_no_price_where_long_prompts_cost_more(prices):
    tiered, flat = "claude-haiku-5-5", "claude-opus-4-5"
    assert cost(prices, "anthropic", tiered, facts(150_000, 100)) is not None
    assert cost(prices, "anthropic", tiered, facts(150_000, 100, several_prompts=True)) is None
    assert cost(prices, "anthropic", flat, facts(150_000, 100, several_prompts=True)) is not None


def iteration(kind: str, *counts: int) -> dict[str, object]:
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return {"type": kind, **dict(zip(names, counts, strict=True))}


@pytest.mark.parametrize(
    ("excluded", "usage", "dollars"),
    [
        ([], Usage(23_000, 1000, 0, 0), (23_000 * 5 + 1000 * 25) / 1e6),
        # This is the usage example in Anthropic's documentation of compaction.
        (
            [iteration("compaction", 180_000, 3500, 0, 0)],
            Usage(203_000, 4500, 0, 0),
            (203_000 * 5 + 4500 * 25) / 1e6,
        ),
        (
            [iteration("compaction", 10, 20, 300, 400), iteration("compaction", 1, 2, 3, 4)],
            Usage(23_000 + 710 + 8, 1022, 303, 404),
            (23_011 * 5 + 303 * 0.5 + 404 * 6.25 + 1022 * 25) / 1e6,
        ),
        # The advisor tool can use another model, whose price is unknown.
        ([iteration("advisor_message", 10, 20, 0, 0)], Usage(23_010, 1020, 0, 0), None),
    ],
)
def test_tokens_that_the_counts_exclude_are_used_tokens(prices, excluded, usage, dollars):
    sdk = iteration("message", 23_000, 1000, 0, 0)
    counts = sdk | {"iterations": [*excluded, sdk]}
    plain = read("/v1/messages", {"model": "claude-opus-4-5", "usage": counts})
    stream = response_reader("h", "/v1/messages", "text/event-stream")
    start = {"type": "message_start", "message": {"model": "claude-opus-4-5", "usage": sdk}}
    for event in (start, {"type": "message_delta", "usage": counts}):
        stream.feed(f"data: {json.dumps(event)}\n\n".encode())
    for found in (plain, stream.finish()):
        assert found.usage == usage
        assert cost(prices, "anthropic", None, found) == (None if dollars is None else pytest.approx(dollars))


def test_billed_counts_of_cohere_decide_its_cost(prices):
    billed = facts(71, 419, billed_input_tokens=5, billed_output_tokens=418)
    found = cost(prices, "cohere", "command-a-03-2025", billed, host="api.cohere.com")
    assert found == pytest.approx((5 * 2.5 + 418 * 10) / 1e6)


def test_cached_sound_has_its_own_price(prices):
    known = facts(1000, 0, 500, input_audio_tokens=400, cache_read_audio_tokens=300)
    unknown = facts(1000, 0, 500, input_audio_tokens=400)
    expected = (400 * 0.3 + 200 * 0.03 + 100 * 1 + 300 * 0.1) / 1e6
    assert cost(prices, "gcp.gemini", "gemini-2.5-flash", known) == pytest.approx(expected)
    assert cost(prices, "gcp.gemini", "gemini-2.5-flash", unknown) is None


def test_price_of_a_standard_model_does_not_apply_to_fine_tuned_and_dedicated_models(prices):
    for provider, host, model in [
        ("openai", "api.openai.com", "ft:gpt-4.1-2025-04-14:me::a1"),
        ("mistral_ai", "api.mistral.ai", "ft:open-mistral-7b:a:20240531:b"),
        ("together_ai", "api.together.ai", "me/NousResearch/Nous-Hermes-2-Yi-34B-bb04c904"),
        ("fireworks_ai", "api.fireworks.ai", "accounts/me/models/glm-4p7"),
        ("fireworks_ai", "api.fireworks.ai", "accounts/fireworks/models/glm-4p7#accounts/me/deployments/a1"),
        ("gcp.gemini", "generativelanguage.googleapis.com", "tunedModels/mine"),
        ("openai", "api.openai.com", "gpt-5-search-api"),
        ("openai", "api.openai.com", "gpt-4o-search-preview"),
    ]:
        assert cost(prices, provider, model, facts(1000, 100), host=host) is None, model


def test_cost_from_an_unknown_provider_is_not_interpreted_as_dollars(prices):
    assert cost(prices, None, "m", facts(1, 1, stated_cost=5.0)) is None
    assert cost(prices, "openai", "gpt-4o", facts(1000, 100, stated_cost=5.0)) == pytest.approx(0.0035)


COHERE_UNITS = {"input_tokens": 5, "output_tokens": 7}
COHERE = Billing(billed_input_tokens=5, billed_output_tokens=7)
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
        ("/v1/responses", {"output": [], "service_tier": "priority"}, Billing(service_tier="priority")),
        ("/v1/responses", {"output": [], "usage": {"cost_in_usd_ticks": 10**9}}, Billing(stated_cost=0.1)),
        ("/v1/responses", {"output": [{"type": "message"}, {"type": "reasoning"}]}, Billing()),
        ("/v1/responses", {"output": [{"type": "message"}, {"type": "web_search_call"}]}, Billing(incomplete=True)),
        ("/v1/responses", {"output": [{"type": "a new tool"}]}, Billing(incomplete=True)),
        ("/v1/embeddings", {"usage": {"cost": 0.5}}, Billing(stated_cost=0.5, no_output=True)),
        # If the client uses its own provider key, the cost is OpenRouter's fee plus the provider's price.
        (
            "/v1/chat/completions",
            CHAT | {"usage": {"cost": 0.25, "is_byok": True, "cost_details": {"upstream_inference_cost": 2}}},
            Billing(stated_cost=2.25),
        ),
        ("/v1/chat/completions", CHAT | {"usage": {"cost": 0.25, "is_byok": True}}, Billing()),
        ("/v1/messages", {"usage": {"cost": 0.5}}, Billing(stated_cost=0.5)),
        (
            "/v1/messages",
            {"usage": {"speed": "fast", "inference_geo": "us"}},
            Billing(speed="fast", region="us"),
        ),
        ("/v1/messages", {"container": {"id": "container_1"}}, Billing(incomplete=True)),
        (
            "/v1/messages",
            {"usage": {"iterations": [{"type": "message"}, {"type": "message"}]}},
            Billing(several_prompts=True),
        ),
        ("/v2/chat", {"usage": {"billed_units": {"input_tokens": 5, "output_tokens": 7}}}, COHERE),
        ("/v1/chat", {"text": "", "response_id": "a", "meta": {"billed_units": COHERE_UNITS}}, COHERE),
        (
            "/v2/chat",
            {"usage": {"billed_units": COHERE_UNITS | {"search_units": 1}}},
            replace(COHERE, incomplete=True),
        ),
        ("/v2/chat", {"usage": {"tokens": {"input_tokens": 5}}}, Billing(incomplete=True)),
        (
            "/v1beta/models/m:generateContent",
            {"candidates": [{"groundingMetadata": {"webSearchQueries": ["a"]}}]},
            Billing(incomplete=True),
        ),
        ("/v1beta/models/m:generateContent", {"candidates": [{"groundingMetadata": {}}]}, Billing()),
        (
            "/v1beta/interactions",
            {"object": "interaction", "usage": {"grounding_tool_count": [{"type": "google_search", "count": 1}]}},
            Billing(incomplete=True),
        ),
        (
            "/v1/chat/completions",
            CHAT | {"usage": {"prompt_tokens_details": {"audio_tokens": 4}}},
            Billing(input_audio_tokens=4),
        ),
        (
            "/v1beta/models/m:generateContent",
            {
                "candidates": [],
                "usageMetadata": {
                    "promptTokensDetails": [
                        {"modality": "TEXT", "tokenCount": 9},
                        {"modality": "AUDIO", "tokenCount": 4},
                    ],
                    "toolUsePromptTokensDetails": [{"modality": "AUDIO", "tokenCount": 1}, {"modality": "AUDIO"}, None],
                    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 7}],
                    "serviceTier": "flex",
                },
            },
            Billing(service_tier="flex", input_audio_tokens=5, output_image_tokens=7),
        ),
        (
            "/v1/models/m:generateContent",
            {"candidates": [], "usageMetadata": {"trafficType": "ON_DEMAND"}},
            Billing(service_tier="on_demand"),
        ),
        (
            "/v1/models/m:generateContent",
            {"candidates": [], "usageMetadata": {"serviceTier": "unspecified"}},
            Billing(),
        ),
        (
            "/v1/models/m:generateContent",
            {"candidates": [], "usageMetadata": {"trafficType": "TRAFFIC_TYPE_UNSPECIFIED"}},
            Billing(),
        ),
        (
            "/v1/messages",
            {
                "usage": {
                    "service_tier": "standard",
                    "cache_creation": {"ephemeral_1h_input_tokens": 9, "ephemeral_5m_input_tokens": 3},
                    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
                }
            },
            Billing(
                service_tier="standard",
                cache_write_5m_tokens=3,
                cache_write_1h_tokens=9,
                web_searches=2,
                web_fetches=1,
            ),
        ),
        ("/v1/messages", {"usage": {"iterations": [{"type": "message", "input_tokens": 9}]}}, Billing()),
        ("/v1/messages", {"usage": {"iterations": [{"type": "compaction"}]}}, Billing()),
        (
            "/v1/messages",
            {"usage": {"iterations": [{"type": "message"}, {"type": "advisor_message", "model": "m"}]}},
            Billing(several_prompts=True, incomplete=True),
        ),
        (
            "/v1/messages",
            {
                "usage": {
                    "cache_creation": {"ephemeral_1h_input_tokens": 9},
                    "iterations": [
                        {"type": "message", "cache_creation": {"ephemeral_1h_input_tokens": 9}},
                        {"type": "compaction", "cache_creation": {"ephemeral_1h_input_tokens": 4}},
                    ],
                }
            },
            Billing(several_prompts=True, cache_write_1h_tokens=13),
        ),
    ],
)
def test_response_values_that_affect_the_price_are_read(path, body, billing):
    assert read(path, body).billing == billing


def test_stream_values_that_affect_the_price_are_read():
    reader = response_reader("h", "/v1/chat/completions", "text/event-stream")
    for event in (CHAT | {"service_tier": "flex"}, {"choices": [], "usage": {"cost": 0.125}}):
        reader.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert reader.finish().billing == Billing(stated_cost=0.125, service_tier="flex")


DONE = {"type": "response.completed"}
MESSAGE = {"type": "message_start", "message": {"usage": {"input_tokens": 1, "speed": "fast", "inference_geo": "us"}}}


@pytest.mark.parametrize(
    ("path", "events", "billing"),
    [
        ("/v1/messages", [MESSAGE], Billing(speed="fast", region="us")),
        (
            "/v1/messages",
            [{"type": "message_start", "message": {}}, {"type": "message_delta", "delta": {"container": {"id": "c"}}}],
            Billing(incomplete=True),
        ),
        ("/v1/responses", [DONE | {"response": {"output": [{"type": "message"}]}}], Billing()),
        ("/v1/responses", [DONE | {"response": {"output": [{"type": "web_search_call"}]}}], Billing(incomplete=True)),
        (
            "/v1/responses",
            [
                {"type": "response.output_item.added", "output_index": 0, "item": {"type": "file_search_call"}},
                DONE | {"response": {}},
            ],
            Billing(incomplete=True),
        ),
        (
            "/v1beta/models/m:streamGenerateContent",
            [{"candidates": [{"groundingMetadata": {"webSearchQueries": ["a"]}}]}, {"candidates": []}],
            Billing(incomplete=True),
        ),
    ],
)
def test_stream_values_on_which_the_price_depends_are_read(path, events, billing):
    reader = response_reader("h", path, "text/event-stream")
    for event in events:
        reader.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert reader.finish().billing == billing


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
    assert cost(prices, "openai", "m", facts(1_000_000, 1_000_000)) == pytest.approx(3)
    assert cost(prices, "openai", "n", facts(1, 1)) is None
    assert cost(prices, "openai", "free", facts(1, 1)) == 0
    assert cost(prices, "openai", "gpt-4o", facts(1, 1)) is None


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
            cost(prices, provider, model, found)
            cost(prices, provider, model, found, time.time_ns())


@pytest.mark.parametrize(
    ("match", "price"), [({"regex": "("}, 1), ({"equals": "m"}, 1e300)], ids=["invalid-pattern", "infinite-cost"]
)
def test_price_file_with_unusable_values_leaves_the_cost_unknown(tmp_path, match, price):
    models = [{"id": "m", "match": match, "prices": {"input_mtok": price}}]
    file = tmp_path / "data.json"
    file.write_text(json.dumps([{"id": "openai", "name": "OpenAI", "api_pattern": "x", "models": models}]))
    assert cost(PriceTable(file), "openai", "m", facts(2**63 - 1, 1)) is None
