"""Tests of the metrics of model calls."""

import math

import pytest
from prometheus_client import generate_latest

from openclaw_egress.observability.metrics import Call, Metrics
from openclaw_egress.observability.model_calls import MAX_ERRORS, MAX_MODELS

CONVENTIONAL = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "anthropic",
    "gen_ai_request_model": "claude-opus-5",
    "gen_ai_response_model": "",
}


def call(**changes: object) -> Call:
    known: dict = {
        "class_name": "gateway",
        "operation": "chat",
        "provider": "anthropic",
        "requested_model": "claude-opus-5",
        "response_model": None,
        "status": 200,
        "error_type": None,
        "tokens": {"input": 11, "output": 7, "cache_read": 5, "cache_write": None, "reasoning": 0},
        "cost_usd": 0.25,
        "duration": 2.0,
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
    assert value(metrics, f"{name}_count", **CONVENTIONAL) == 1
    assert value(metrics, f"{name}_bucket", **CONVENTIONAL, le="0.32") == 0
    assert value(metrics, f"{name}_bucket", **CONVENTIONAL, le="0.64") == 1


def test_call_counts_in_the_metrics_of_the_conventions():
    metrics = Metrics()
    metrics.count_call(call(response_model="claude-opus-5-20261101"))
    labels = CONVENTIONAL | {"gen_ai_response_model": "claude-opus-5-20261101"}
    for kind, tokens, below in (("input", 11, "4.0"), ("output", 7, "4.0")):
        name = "gen_ai_client_token_usage"
        assert value(metrics, f"{name}_sum", **labels, gen_ai_token_type=kind) == tokens
        assert value(metrics, f"{name}_bucket", **labels, gen_ai_token_type=kind, le=below) == 0
        assert value(metrics, f"{name}_bucket", **labels, gen_ai_token_type=kind, le="16.0") == 1
    name = "gen_ai_client_operation_duration_seconds"
    assert value(metrics, f"{name}_sum", **labels, error_type="") == 2
    assert value(metrics, f"{name}_bucket", **labels, error_type="", le="1.28") == 0
    assert value(metrics, f"{name}_bucket", **labels, error_type="", le="2.56") == 1


def test_bucket_boundaries_equal_those_of_the_conventions():
    metrics = Metrics()
    metrics.count_call(call())
    found: dict[str, set[float]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name.startswith("gen_ai") and sample.name.endswith("_bucket"):
                found.setdefault(family.name, set()).add(float(sample.labels["le"]))
    seconds = {0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, math.inf}
    tokens = {1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864, math.inf}
    assert found == {
        "gen_ai_client_token_usage": tokens,
        "gen_ai_client_operation_duration_seconds": seconds,
        "gen_ai_client_operation_time_to_first_chunk_seconds": seconds,
    }


def test_server_that_is_no_known_provider_counts_its_calls():
    metrics = Metrics()
    metrics.count_call(call(provider=None))
    who = {"provider": "unknown", "model": "claude-opus-5"}
    assert value(metrics, "openclaw_egress_tokens_total", type="input", **who) == 11
    labels = CONVENTIONAL | {"gen_ai_provider_name": ""}
    assert value(metrics, "gen_ai_client_token_usage_count", **labels, gen_ai_token_type="input") == 1


def test_exchange_other_than_a_model_call_counts_only_its_response():
    metrics = Metrics()
    metrics.count_call(call(operation=None, status=None, tokens={}, cost_usd=None, first_chunk=None))
    assert value(metrics, "openclaw_egress_responses_total", status="none") == 1
    assert b"provider=" not in generate_latest(metrics.registry)


def test_models_of_one_class_do_not_use_up_the_labels_of_another_class():
    metrics = Metrics()
    for number in range(1000):
        metrics.count_call(call(class_name="sandbox", requested_model=f"model-{number}"))
    metrics.count_call(call())
    assert value(metrics, "openclaw_egress_cost_usd_total", provider="anthropic", model="claude-opus-5") == 0.25
    who = {"egress_class": "sandbox", "provider": "anthropic"}
    assert value(metrics, "openclaw_egress_cost_usd_total", **who, model="other") == 0.25 * (1000 - MAX_MODELS)
    series = generate_latest(metrics.registry).count(b'openclaw_egress_cost_usd_total{egress_class="sandbox"')
    assert series == MAX_MODELS + 1


@pytest.mark.parametrize("chosen", ["requested_model", "response_model"])
def test_models_of_one_class_do_not_affect_the_conventional_labels_of_another_class(chosen):
    metrics = Metrics()
    for number in range(1000):
        metrics.count_call(call(class_name="sandbox", **{chosen: f"model-{number}"}))
    metrics.count_call(call())
    name = "gen_ai_client_operation_duration_seconds_count"
    assert value(metrics, name, **CONVENTIONAL, error_type="") == 1
    series = generate_latest(metrics.registry).count(name.encode() + b'{egress_class="sandbox"')
    assert series == MAX_MODELS + 1


def test_failed_call_names_a_model_only_if_the_class_has_used_it():
    metrics = Metrics()
    failed = {"status": 529, "error_type": "overloaded_error", "tokens": {}, "cost_usd": None, "first_chunk": None}
    metrics.count_call(call(response_model="claude-opus-5-20261101"))
    metrics.count_call(call(**failed))
    metrics.count_call(call(**failed, requested_model="claude-0"))
    name = "gen_ai_client_operation_duration_seconds_count"
    assert value(metrics, name, **CONVENTIONAL, error_type="overloaded_error") == 1
    labels = CONVENTIONAL | {"gen_ai_request_model": "other"}
    assert value(metrics, name, **labels, error_type="overloaded_error") == 1


def test_number_of_series_for_errors_is_limited_for_each_class():
    metrics = Metrics()
    failed = {"tokens": {}, "cost_usd": None, "first_chunk": None}
    for number in range(1000):
        metrics.count_call(call(**failed, class_name="sandbox", requested_model="m", error_type=str(number)))
    metrics.count_call(call())
    metrics.count_call(call(**failed, error_type="overloaded_error"))
    name = "gen_ai_client_operation_duration_seconds_count"
    assert value(metrics, name, **CONVENTIONAL, error_type="overloaded_error") == 1
    labels = {"egress_class": "sandbox", "gen_ai_request_model": "other", "error_type": "_OTHER"}
    assert value(metrics, name, **CONVENTIONAL | labels) == 1000 - MAX_ERRORS


@pytest.mark.parametrize("tokens", [{}, {"input": None, "output": 0}], ids=["none", "zero"])
def test_model_without_reported_usage_has_no_own_label(tokens):
    metrics = Metrics()
    for number in range(1000):
        metrics.count_call(
            call(requested_model=f"model-{number}", status=404, tokens=tokens, cost_usd=None, first_chunk=None)
        )
    metrics.count_call(call())
    text = generate_latest(metrics.registry)
    assert b"model-" not in text
    assert value(metrics, "openclaw_egress_cost_usd_total", provider="anthropic", model="claude-opus-5") == 0.25


def test_same_model_at_two_providers_counts_twice_towards_the_limit():
    metrics = Metrics()
    for number in range(MAX_MODELS - 1):
        metrics.count_call(call(requested_model=f"model-{number}"))
    for provider in ("aws.bedrock", "gcp.vertex_ai"):
        metrics.count_call(call(provider=provider))
    assert value(metrics, "openclaw_egress_cost_usd_total", provider="aws.bedrock", model="claude-opus-5") == 0.25
    assert value(metrics, "openclaw_egress_cost_usd_total", provider="gcp.vertex_ai", model="other") == 0.25
