"""The cost that a provider states in the usage of a response, in the provider's unit.

Sources: OpenRouter's page on usage accounting, Perplexity's and xAI's API references. OpenRouter states a number as
`cost`, Perplexity an object with `total_cost`, and xAI `cost_in_usd_ticks`, of which 10,000,000,000 are a dollar.
If a client uses its own key of another provider (`is_byok`), OpenRouter's `cost` excludes the charge of that provider:
only `cost_details.upstream_inference_cost` has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openclaw_egress.llm.model import amount_of, object_of

MEMBERS = frozenset({"cost", "cost_in_usd_ticks", "is_byok", "cost_details"})
"""Members of the usage object that have the cost."""


def stated_cost(usage: Mapping[str, Any]) -> float | None:
    """Return the cost that a usage object states; None if it states none, or only a part of it."""
    stated, ticks = usage.get("cost"), amount_of(usage.get("cost_in_usd_ticks"))
    cost = amount_of(stated["total_cost"] if isinstance(stated, dict) and "total_cost" in stated else stated)
    if cost is None:
        return None if ticks is None else ticks / 1e10
    if usage.get("is_byok") is not True:
        return cost
    upstream = amount_of(object_of(usage.get("cost_details")).get("upstream_inference_cost"))
    return None if upstream is None else cost + upstream
