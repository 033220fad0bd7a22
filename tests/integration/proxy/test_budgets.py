"""Tests of budgets with a running proxy.

Above its budget, a class is refused until the next period, even after `kill -9`.
"""

import datetime
import json

import pytest

from tests.integration.proxy.clocked_proxy import ClockedProxy

MESSAGE = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
# One call to the fake provider uses up each of these budgets: it uses more than a thousand tokens and costs one cent.
BUDGETS = [
    ({"tokens_per_hour": 1000}, HOUR),
    ({"tokens_per_day": 1000, "cost_usd_per_day": 0.01}, DAY),
    ({"cost_usd_per_day": 0.01}, DAY),
]


@pytest.fixture(params=BUDGETS, ids=["hour", "day", "cost"])
def limited(request, tmp_path, providers):
    """Yield three values: a proxy that enforces budgets for class browser, these budgets, and their period."""
    limits, period = request.param
    running = ClockedProxy(tmp_path, [providers.port, providers.http_port], providers.ca_file)
    text = running.policy_file.read_text()
    running.policy_file.write_text(text.replace("  browser: {", f"  browser: {{limits: {json.dumps(limits)}, "))
    with running:
        yield running, limits, period
    assert "Traceback" not in running.log, running.log


def ask(proxy, class_name: str = "browser"):
    with proxy.client(class_name) as http:
        return http.post(
            proxy.url("api.anthropic.com", "/v1/messages"),
            json=MESSAGE,
            headers={"x-api-key": "sk-ant-test", "anthropic-version": "2023-06-01", "accept": "application/json"},
        )


def test_class_over_its_budget_is_refused_until_the_next_period(limited, providers):
    proxy, limits, period = limited
    assert ask(proxy).status_code == 200
    now = proxy.now
    opens = now.replace(minute=0, second=0, microsecond=0) + HOUR
    if period == DAY:
        opens = now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    refused = ask(proxy)
    assert refused.status_code == 429
    waits = datetime.timedelta(seconds=int(refused.headers["retry-after"]))
    assert abs(now + waits - opens) < datetime.timedelta(seconds=30)
    error = refused.json()["error"]
    assert error["rule"] in {f"classes.browser.limits.{name}" for name in limits}
    assert f"{opens:%Y-%m-%dT%H:%M:%SZ}" in error["reason"]
    denial = proxy.denials()[-1]
    assert (denial.code, denial.status, denial.class_name) == ("budget_exceeded", 429, "browser")
    assert denial.reason == error["reason"]
    # The budget does not affect other classes, or hosts that are not inspected.
    assert ask(proxy, "gateway").status_code == 200
    with proxy.client("browser") as http:
        assert http.get(f"http://www.example.com:{providers.http_port}/").status_code == 200
    shares = proxy.metrics()
    for name in limits:
        assert f'openclaw_egress_budget_used_ratio{{egress_class="browser",limit="{name}"}}' in shares

    proxy.kill()
    proxy.start()
    assert ask(proxy).status_code == 429

    proxy.ahead += max(opens - proxy.now - datetime.timedelta(seconds=20), datetime.timedelta())
    assert ask(proxy).status_code == 429
    proxy.ahead += opens - proxy.now
    assert ask(proxy).status_code == 200
    assert ask(proxy).status_code == 429
