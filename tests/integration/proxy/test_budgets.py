"""Tests of budgets with a running proxy: refusal with reason and time, also after a kill, until the next day."""

import sqlite3
from contextlib import closing

import pytest

from tests.integration.proxy.conftest import make_proxy

MESSAGE = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def limited(tmp_path, providers):
    running = make_proxy(tmp_path, providers, "lean")
    text = running.policy_file.read_text()
    # A call of the fake provider has more than a thousand tokens, and costs a cent.
    limits = "{tokens_per_day: 1000, cost_usd_per_day: 0.01}"
    running.policy_file.write_text(text.replace("  browser: {", f"  browser: {{limits: {limits}, "))
    with running:
        yield running
    assert "Traceback" not in running.log, running.log


def ask(proxy, class_name: str = "browser"):
    with proxy.client(class_name) as http:
        return http.post(
            proxy.url("api.anthropic.com", "/v1/messages"),
            json=MESSAGE,
            headers={"x-api-key": "sk-ant-test", "anthropic-version": "2023-06-01", "accept": "application/json"},
        )


def test_class_over_its_budget_is_refused_until_the_next_day(limited, providers):
    assert ask(limited).status_code == 200
    refused = ask(limited)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 24 * 3600
    error = refused.json()["error"]
    assert error["rule"] in ("classes.browser.limits.tokens_per_day", "classes.browser.limits.cost_usd_per_day")
    denial = limited.denials()[-1]
    assert (denial.code, denial.status, denial.class_name) == ("budget_exceeded", 429, "browser")
    # Other classes, and hosts that are not inspected, are not affected.
    assert ask(limited, "gateway").status_code == 200
    with limited.client("browser") as http:
        assert http.get(f"http://www.example.com:{providers.http_port}/").status_code == 200
    share = limited.metrics()
    assert 'openclaw_egress_budget_used_ratio{egress_class="browser",limit="tokens_per_day"}' in share

    limited.kill()
    limited.start()
    assert ask(limited).status_code == 429

    # The next day has come when the stored hours are a day older.
    limited.stop()
    with closing(sqlite3.connect(limited.directory / "state" / "spool.db", isolation_level=None)) as db:
        db.execute("UPDATE usage_hours SET hour = hour - 24")
    limited.start()
    assert ask(limited).status_code == 200
