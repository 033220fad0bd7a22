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


def test_models_that_one_class_names_take_no_label_from_another_class():
    metrics = Metrics()
    for number in range(1000):
        metrics.count_call(call(class_name="sandbox", model=f"model-{number}"))
    metrics.count_call(call())
    assert value(metrics, "openclaw_egress_cost_usd_total", provider="anthropic", model="claude-opus-5") == 0.25
    who = {"egress_class": "sandbox", "provider": "anthropic"}
    assert value(metrics, "openclaw_egress_cost_usd_total", **who, model="other") == 0.25 * (1000 - MAX_MODELS)
    series = generate_latest(metrics.registry).count(b'openclaw_egress_cost_usd_total{egress_class="sandbox"')
    assert series == MAX_MODELS + 1


@pytest.mark.parametrize("tokens", [{}, {"input": None, "output": 0}], ids=["none", "zero"])
def test_model_without_reported_usage_takes_no_label(tokens):
    metrics = Metrics()
    for number in range(1000):
        metrics.count_call(call(model=f"model-{number}", status=404, tokens=tokens, cost_usd=None, first_chunk=None))
    metrics.count_call(call())
    text = generate_latest(metrics.registry)
    assert b"model-" not in text
    assert value(metrics, "openclaw_egress_cost_usd_total", provider="anthropic", model="claude-opus-5") == 0.25


def test_same_model_at_two_providers_takes_two_places():
    metrics = Metrics()
    for number in range(MAX_MODELS - 1):
        metrics.count_call(call(model=f"model-{number}"))
    for provider in ("aws.bedrock", "gcp.vertex_ai"):
        metrics.count_call(call(provider=provider))
    assert value(metrics, "openclaw_egress_cost_usd_total", provider="aws.bedrock", model="claude-opus-5") == 0.25
    assert value(metrics, "openclaw_egress_cost_usd_total", provider="gcp.vertex_ai", model="other") == 0.25
