"""Tests that clients of one class cannot use up the model labels of another class in /metrics."""

import re

from openclaw_egress.observability.model_calls import MAX_MODELS
from tests.integration.proxy.conftest import make_proxy

MESSAGE = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def test_class_with_many_models_does_not_affect_the_labels_of_another_class(tmp_path, providers):
    with make_proxy(tmp_path, providers) as proxy:

        def ask(http, model: str) -> int:
            return http.post(
                proxy.url("api.anthropic.com", "/v1/messages"), json=MESSAGE | {"model": model}
            ).status_code

        with proxy.client("browser", headers={"x-api-key": "sk-ant-test"}) as http:
            # The fake provider responds with status NNN to requests for the model fail-NNN.
            assert all(ask(http, f"fail-{status}") == status for status in range(400, 406 + MAX_MODELS))
            assert "fail-" not in proxy.metrics()
            assert all(ask(http, f"model-{number}") == 200 for number in range(MAX_MODELS + 6))
        with proxy.client("gateway", headers={"x-api-key": "sk-ant-test"}) as http:
            assert ask(http, "claude-opus-5") == 200
        text = proxy.metrics()
    assert f"model-{MAX_MODELS - 1}" in text
    assert f"model-{MAX_MODELS}" not in text
    assert (
        'openclaw_egress_tokens_total{egress_class="browser",model="other",provider="anthropic",type="input"}' in text
    )
    for name in ("gen_ai_client_token_usage_count", "gen_ai_client_operation_duration_seconds_count"):
        assert re.search(rf'^{name}{{egress_class="gateway",.*gen_ai_request_model="claude-opus-5"', text, re.MULTILINE)
