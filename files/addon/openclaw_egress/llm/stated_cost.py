"""The cost that a provider reports in the usage object of a response, in the provider's unit.

Sources: OpenRouter's page on usage accounting, Perplexity's and xAI's API references. In OpenRouter's responses, `cost`
is a number. In Perplexity's, it is an object with `total_cost`. xAI sends `cost_in_usd_ticks`: 10,000,000,000 ticks are
one dollar. If a client uses its own key for another provider (`is_byok`), OpenRouter's `cost` excludes the charge of
that provider, which is in `cost_details.upstream_inference_cost`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openclaw_egress.llm.model import amount_of, object_of

MEMBERS = frozenset({"cost", "cost_in_usd_ticks", "is_byok", "cost_details"})
"""Members of the usage object that contain the cost."""


def stated_cost(usage: Mapping[str, Any]) -> float | None:
    """Return the cost in a usage object; None if there is no cost or only a part of it."""
    stated, ticks = usage.get("cost"), amount_of(usage.get("cost_in_usd_ticks"))
    cost = amount_of(stated["total_cost"] if isinstance(stated, dict) and "total_cost" in stated else stated)
    if cost is None:
        return None if ticks is None else ticks / 1e10
    if usage.get("is_byok") is not True:
        return cost
    upstream = amount_of(object_of(usage.get("cost_details")).get("upstream_inference_cost"))
    return None if upstream is None else cost + upstream
