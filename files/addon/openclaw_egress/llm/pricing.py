"""The cost of a call to a model in US dollars: the value that the provider reports, else a value from the price data.

The price data comes from the package `genai-prices`, or from a newer copy of its ``data.json`` that the operator
configures. If the provider, the model or the counts are unknown, the cost is unknown. It is never estimated.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from genai_prices import Usage as PricedUsage
from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from genai_prices.types import ModelInfo, Provider, TieredPrices, TimeOfDateConstraint, _providers_from_raw

from openclaw_egress.errors import EgressError
from openclaw_egress.llm.model import Billing, RequestFacts, ResponseFacts


class _Listed(NamedTuple):
    """The ID of a provider in the price data, and the hosts to which its prices apply."""

    provider_id: str
    """ID of the provider in the price data."""
    hosts: str
    """Pattern for the hosts on which these prices apply. Other hosts charge more, or in another currency."""


_LISTED = {
    "anthropic": _Listed("anthropic", r"api\.anthropic\.com"),
    # Exclude GovCloud and China, because the data has only the prices for standard Regions.
    "aws.bedrock": _Listed("aws", r"(?!.*(?:[.-]us-gov-|\.cn$)).*"),
    "cerebras": _Listed("cerebras", r"api\.cerebras\.ai"),
    "cohere": _Listed("cohere", r"api\.cohere\.(?:ai|com)"),
    "deepseek": _Listed("deepseek", r"api\.deepseek\.com"),
    "fireworks_ai": _Listed("fireworks", r"api\.fireworks\.ai"),
    "gcp.gemini": _Listed("google", r"generativelanguage\.googleapis\.com"),
    "gcp.vertex_ai": _Listed("google", r"aiplatform\.googleapis\.com"),
    "groq": _Listed("groq", r"api\.groq\.com"),
    "mistral_ai": _Listed("mistral", r"api\.mistral\.ai"),
    "moonshot_ai": _Listed("moonshotai", r"api\.moonshot\.ai"),
    "openai": _Listed("openai", r"api\.openai\.com"),
    "together_ai": _Listed("together", r"api\.together\.(?:ai|xyz)"),
}
"""Price lists by ``gen_ai.provider.name``.

Two kinds of provider are not listed:

- providers whose hosts also serve flat-rate subscriptions, such as `github_copilot` and `z_ai`;
- Azure, because the data has only the prices of global deployments. Neither request nor response shows whether a
  deployment is global, regional, in a data zone, or provisioned.
"""
_STATES_DOLLARS = {"openrouter", "perplexity", "x_ai"}
"""Providers whose responses report the cost, in US dollars according to their references.

If a response does not report the cost, the cost is unknown, because it depends on the route, searches, or tool calls.
"""
_STANDARD_TIERS = {"default", "standard", "on_demand"}
"""Service tiers with the prices in the data. Other tiers, such as ``flex`` and ``priority``, have different prices."""
_UNDECIDED_TIERS = {"auto", "standard_only"}
"""Requested service tiers that let the provider choose the tier. The response reports the chosen tier."""
_STANDARD_SPEEDS = {"standard"}
_STANDARD_REGIONS = {"global", "not_available"}
"""Anthropic's regions with the prices in the data. ``not_available``: the region of the model cannot be chosen."""
_OWN_PRICES = {
    "cache_read_tokens": "cache_read_mtok",
    "cache_write_1h_tokens": "cache_write_1h_mtok",
    "web_searches": "web_searches_kcount",
}
"""Counts for which most providers have a separate price, and the name of this price.

If the data lacks the price, genai-prices calculates a wrong cost, so treat the cost as unknown.
"""
_PRICED_ARNS = re.compile(r"arn:[a-z-]+:bedrock:[^:]*:[^:]*:(?:foundation-model|inference-profile)/(.+)")
"""Matches the ARNs of Bedrock's models whose price is in the price data. The group is the model's id.

Other ARNs, such as those of custom or provisioned models, have other prices, even if they contain a model's name.
"""
_CACHED_MODELS = 256


class PriceFileError(EgressError):
    """The operator's price file cannot be used. The message contains the remedy."""


class PriceTable:
    """Prices of models.

    Args:
        file: a copy of ``data.json`` of genai-prices; None for the data in the installed package.

    Raises:
        PriceFileError: the file cannot be read, or is not price data.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._providers = get_snapshot().providers if file is None else _read(file)
        # Use a bounded cache, because agents choose the names of models. The cache of genai-prices is not bounded.
        self._find = lru_cache(maxsize=_CACHED_MODELS)(self._find_uncached)

    def cost_of(self, host: str, asked: RequestFacts, answered: ResponseFacts, time_ns: int) -> float | None:
        """Return the cost of a call in US dollars; None if it is unknown.

        Args:
            host: the host of the request.
            asked: information about the request.
            answered: information about the response.
            time_ns: time of the request in Unix nanoseconds, because prices change.
        """
        billing, usage, provider = answered.billing, answered.usage, asked.provider_name or ""
        if provider in _STATES_DOLLARS:
            return billing.stated_cost
        listed, model = _LISTED.get(provider), answered.model or asked.model
        if model is not None and model.startswith("arn:"):
            model = _model_of_arn(model)
        if listed is None or model is None or usage.input_tokens is None:
            return None
        if not re.fullmatch(listed.hosts, host.lower().rstrip(".")) or not _at_standard_terms(asked, billing):
            return None
        if provider == "aws.bedrock" and "anthropic." not in model:
            return None  # Other models' prices differ by Region, but the data has those of only one Region.
        if provider == "openai" and "-search-" in model:
            return None  # Each search with these models is billed, but no response reports the number of searches.
        if billing.incomplete or (usage.output_tokens is None and not billing.no_output):
            return None
        return self._list_price(listed.provider_id, model, answered, datetime.fromtimestamp(time_ns / 1e9, UTC))

    def _list_price(self, provider_id: str, model: str, answered: ResponseFacts, when: datetime) -> float | None:
        """Return the cost of the tokens at the prices in the data; None if a price is missing or ambiguous."""
        billing, usage = answered.billing, answered.usage
        given = usage.input_tokens if billing.billed_input_tokens is None else billing.billed_input_tokens
        made = usage.output_tokens if billing.billed_output_tokens is None else billing.billed_output_tokens
        counts = {
            "input_tokens": given,
            "output_tokens": made,
            "cache_read_tokens": usage.cache_read_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
            "cache_write_1h_tokens": billing.cache_write_1h_tokens,
            "input_audio_tokens": billing.input_audio_tokens,
            "cache_audio_read_tokens": billing.cache_read_audio_tokens,
            "output_audio_tokens": billing.output_audio_tokens,
            "input_image_tokens": billing.input_image_tokens,
            "output_image_tokens": billing.output_image_tokens,
            "web_searches": billing.web_searches,
        }
        try:
            maker, priced = self._find(provider_id, model)
            used = PricedUsage(**{name: n for name, n in counts.items() if n})
            found = priced.calc_price(used, maker, genai_request_timestamp=when)
        except (LookupError, ValueError, re.error):
            # The cost is unknown, because genai-prices does not know the model, the counts contradict each other, a
            # count with a separate price (such as cached audio) is missing, or the operator's file has an invalid
            # pattern.
            return None
        if not found.total_price and not _is_free(found.model_price):
            return None
        if any(counts[name] and getattr(found.model_price, price, None) is None for name, price in _OWN_PRICES.items()):
            return None
        if _depends_on_the_hour(priced, when) or (billing.several_prompts and _has_tiers(found.model_price)):
            return None
        cost = float(found.total_price)
        return cost if math.isfinite(cost) else None

    def _find_uncached(self, provider_id: str, model: str) -> tuple[Provider, ModelInfo]:
        """Return the entries for a provider and a model in the price data.

        Raises:
            LookupError: the data lacks the provider or the model.
        """
        provider = find_provider_by_id(self._providers, provider_id)
        priced = provider.find_model(model.lower(), all_providers=self._providers) if provider is not None else None
        if provider is None or priced is None:
            raise LookupError(model)
        return provider, priced


def _model_of_arn(arn: str) -> str | None:
    """Return the model in an ARN, or None if the data does not have the prices for this ARN."""
    found = _PRICED_ARNS.fullmatch(arn)
    return found[1] if found is not None else None


def _at_standard_terms(asked: RequestFacts, billing: Billing) -> bool:
    """Return whether the prices in the data apply to this tier, speed and region.

    If the response does not report one of them, use its value in the request.
    """
    tier = billing.service_tier or (None if asked.service_tier in _UNDECIDED_TIERS else asked.service_tier)
    terms = (
        (tier, _STANDARD_TIERS),
        (billing.speed or asked.speed, _STANDARD_SPEEDS),
        (billing.region or asked.region, _STANDARD_REGIONS),
    )
    return all(term is None or term in standard for term, standard in terms)


def _depends_on_the_hour(model: ModelInfo, when: datetime) -> bool:
    """Return whether the price depends on the hour of the day, as DeepSeek's peak prices do.

    Such a price is ambiguous: peak prices do not apply on weekends and holidays, but the data does not say so.
    """
    prices = model.prices if isinstance(model.prices, list) else []
    limits = (price.constraint for price in prices)
    return any(isinstance(limit, TimeOfDateConstraint) and limit.active(when) for limit in limits)


def _has_tiers(price: object) -> bool:
    """Return whether the price per token depends on the length of the prompt."""
    return any(isinstance(value, TieredPrices) for value in vars(price).values())


def _is_free(price: object) -> bool:
    """Return whether a cost of zero is the actual cost.

    This is so if the data lists prices for the model, even prices of zero. Without listed prices, the cost is unknown.
    """
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
