"""Tests of the metrics about calls to models."""

import pytest
from prometheus_client import generate_latest

from openclaw_egress.observability.metrics import MAX_MODELS, Call, Metrics


def call(**changes: object) -> Call:
    known: dict = {
        "class_name": "gateway",
        "provider": "anthropic",
        "model": "claude-opus-5",
        "status": 200,
        "tokens": {"input": 11, "output": 7, "cache_read": 5, "cache_write": None, "reasoning": 0},
        "cost_usd": 0.25,
        "first_chunk": 0.5,
    }
    return Call(**known | changes)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"egress_class": "gateway", **labels})


def test_call_counts_its_tokens_cost_status_and_first_chunk():
    metrics = Metrics()
    metrics.count_call(call())
    metrics.count_call(call(cost_usd=None, first_chunk=None, status=529))
    who = {"provider": "anthropic", "model": "claude-opus-5"}
    assert value(metrics, "openclaw_egress_tokens_total", type="input", **who) == 22
    assert value(metrics, "openclaw_egress_tokens_total", type="cache_read", **who) == 10
    assert value(metrics, "openclaw_egress_tokens_total", type="cache_write", **who) is None
    assert value(metrics, "openclaw_egress_cost_usd_total", **who) == 0.25
    assert value(metrics, "openclaw_egress_responses_total", status="529") == 1
    name = "gen_ai_client_operation_time_to_first_chunk_seconds"
    assert value(metrics, f"{name}_count", provider="anthropic") == 1
    assert value(metrics, f"{name}_bucket", provider="anthropic", le="0.32") == 0
    assert value(metrics, f"{name}_bucket", provider="anthropic", le="0.64") == 1


def test_exchange_with_another_host_counts_only_its_response():
    metrics = Metrics()
    metrics.count_call(call(provider=None, status=None))
    assert value(metrics, "openclaw_egress_responses_total", status="none") == 1
    assert b"openclaw_egress_tokens_total{" not in generate_latest(metrics.registry)


@pytest.mark.parametrize("models", [MAX_MODELS + 100])
def test_agent_that_names_many_models_makes_a_bounded_number_of_series(models):
    metrics = Metrics()
    for number in range(models):
        metrics.count_call(call(model=f"model-{number}"))
    series = generate_latest(metrics.registry).count(b"openclaw_egress_cost_usd_total{")
    assert series == MAX_MODELS + 1
    assert value(metrics, "openclaw_egress_cost_usd_total", provider="anthropic", model="other") == 25
