"""The cost of a call to a model in US dollars: the provider's own value, else the value from the price data.

The price data is the package `genai-prices`, or a newer copy of its file ``data.json`` that the operator names. Unless
the provider, the model and the counts are known, the cost is unknown. It is never estimated.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from genai_prices import Usage as PricedUsage
from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from genai_prices.types import ModelInfo, Provider, _providers_from_raw

from openclaw_egress.errors import EgressError
from openclaw_egress.llm.model import ResponseFacts

_PROVIDERS = {
    "anthropic": "anthropic",
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "groq": "groq",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together_ai": "together",
    "x_ai": "x-ai",
}
"""Provider of the price data for a value of ``gen_ai.provider.name``.

Providers whose hosts also serve subscriptions at a flat rate, such as `github_copilot` and `z_ai`, are not listed.
"""
_STATES_DOLLARS = {"openrouter", "perplexity", "x_ai"}
"""Providers whose responses state the cost, in US dollars according to their references."""
_STANDARD_TIERS = {"default", "standard", "on_demand"}
"""Service tiers at the prices in the data. Others, such as ``flex`` and ``priority``, have other prices."""
_OWN_PRICES = {
    "cache_read_tokens": "cache_read_mtok",
    "cache_write_1h_tokens": "cache_write_1h_mtok",
    "web_searches": "web_searches_kcount",
}
"""Counts that most providers price apart, and the price. Without it, genai-prices would price them wrongly."""
_PRICED_ARNS = re.compile(r"arn:[a-z-]+:bedrock:[^:]*:[^:]*:(?:foundation-model|inference-profile)/(.+)")
"""Bedrock's ARNs of models at the prices in the data, and the model's id. Others, as custom or provisioned models, have
other prices although their name can contain that of a model."""
_CACHED_MODELS = 256


class PriceFileError(EgressError):
    """The operator's price file cannot be used; the message names a remedy."""


class PriceTable:
    """Prices of models.

    Args:
        file: a copy of ``data.json`` of genai-prices; None for the data in the installed package.

    Raises:
        PriceFileError: the file cannot be read, or is not price data.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._providers = get_snapshot().providers if file is None else _read(file)
        # Agents choose the names of models, so a cache must be bounded. The one of genai-prices is not.
        self._find = lru_cache(maxsize=_CACHED_MODELS)(self._find_uncached)

    def cost_of(self, provider: str | None, model: str | None, facts: ResponseFacts, time_ns: int) -> float | None:
        """Return the cost of a call in US dollars; None if it is unknown.

        Args:
            provider: value of ``gen_ai.provider.name``.
            model: the model of the response, else of the request.
            facts: information about the response.
            time_ns: time of the request in Unix nanoseconds, because prices change.
        """
        billing, usage = facts.billing, facts.usage
        if provider in _STATES_DOLLARS and billing.stated_cost is not None:
            return billing.stated_cost
        known = _PROVIDERS.get(provider or "")
        if model is not None and model.startswith("arn:"):
            model = _model_of_arn(model)
        if known is None or model is None or usage.input_tokens is None:
            return None
        if provider == "aws.bedrock" and "anthropic." not in model:
            return None  # The data has the prices of one Region, and those of other makers' models differ by Region.
        if billing.incomplete or (usage.output_tokens is None and not billing.no_output):
            return None
        if billing.service_tier is not None and billing.service_tier not in _STANDARD_TIERS:
            return None
        counts = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_tokens": usage.cache_read_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
            "cache_write_1h_tokens": billing.cache_write_1h_tokens,
            "input_audio_tokens": billing.input_audio_tokens,
            "output_audio_tokens": billing.output_audio_tokens,
            "input_image_tokens": billing.input_image_tokens,
            "output_image_tokens": billing.output_image_tokens,
            "web_searches": billing.web_searches,
        }
        when = datetime.fromtimestamp(time_ns / 1e9, UTC)
        try:
            maker, priced = self._find(known, model)
            used = PricedUsage(**{name: n for name, n in counts.items() if n})
            found = priced.calc_price(used, maker, genai_request_timestamp=when)
        except (LookupError, ValueError, re.error):
            # Unknown model, counts that contradict each other, or an invalid pattern in the operator's file.
            return None
        if not found.total_price and not _is_free(found.model_price):
            return None
        if any(counts[name] and getattr(found.model_price, price, None) is None for name, price in _OWN_PRICES.items()):
            return None
        cost = float(found.total_price)
        return cost if math.isfinite(cost) else None

    def _find_uncached(self, provider_id: str, model: str) -> tuple[Provider, ModelInfo]:
        """Return the entries of a provider and a model.

        Raises:
            LookupError: the data lacks the provider or the model.
        """
        provider = find_provider_by_id(self._providers, provider_id)
        priced = provider.find_model(model.lower(), all_providers=self._providers) if provider is not None else None
        if provider is None or priced is None:
            raise LookupError(model)
        return provider, priced


def _model_of_arn(arn: str) -> str | None:
    """Return the model that an ARN names; None for one with other prices."""
    found = _PRICED_ARNS.fullmatch(arn)
    return found[1] if found is not None else None


def _is_free(price: object) -> bool:
    """Return whether the data states prices, which then are zero; a model without any price is not free."""
    return any(value is not None for name, value in vars(price).items() if not name.startswith("_"))


def _read(file: Path) -> list[Provider]:
    advice = "copy prices/data.json of a release of genai-prices there, or unset EGRESS_PRICES_FILE"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(raw, list) or not raw:
            raise ValueError("expected a JSON array of providers")
        return _providers_from_raw(raw)
    except OSError as error:
        raise PriceFileError(f"price file {file}: {error.strerror}; {advice}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PriceFileError(f"price file {file} is not price data ({what}); {advice}") from None
