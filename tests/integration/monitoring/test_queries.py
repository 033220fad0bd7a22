"""Tests of each query of the dashboards and alerts, against the records and metrics of a real proxy."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from openclaw_egress.observability.catalogue import BY_NAME
from tests.integration.monitoring.conftest import MESSAGE, arrived, make_traffic, targets
from tests.support.loki.fake import FakeLoki
from tests.support.prometheus import NO_PROMETHEUS, PROMETHEUS, RunningPrometheus
from tests.support.proxy_process import RunningProxy
from tools.monitoring.alerts import rules_file, rules_text

METRIC = re.compile(r"\b(?:openclaw_egress|gen_ai_client)_\w+")
WITHOUT_SERIES = {"openclaw_egress_unrecorded_total"}
"""Metrics that have no time series as long as every request is recorded."""
FIELD = re.compile(r"\{\{\.(\w+)\}\}")
LEGEND = re.compile(r"\{\{(\w+)\}\}")


def ask(loki: FakeLoki, query: dict[str, Any], expr: str, **more: str) -> tuple[int, Any]:
    """Send a query as Grafana does. Return the status, and the result or the error."""
    instant = query["queryType"] == "instant"
    limit = {} if instant else {"limit": str(query["maxLines"])}
    parameters = urllib.parse.urlencode({"query": expr} | limit | more)
    try:
        with urllib.request.urlopen(
            f"{loki.url}/loki/api/v1/query{'' if instant else '_range'}?{parameters}"
        ) as answer:
            return answer.status, json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("target", targets("loki"), ids=lambda target: target.name)
def test_query_to_loki_returns_fields_that_the_records_have(target, proxy, loki):
    status, result = ask(loki, target.query, target.expr)
    assert status == 200, result
    assert result
    if target.query["queryType"] == "instant":
        (labels,) = re.findall(r"sum by \(([^)]*)\)", target.expr)
        assert all(set(one["metric"]) == set(labels.split(", ")) for one in result)
        assert all(float(one["value"][1]) > 0 for one in result)
        return
    lines = [line for stream in result for _, line in stream["values"]]
    assert all(0 < len(line) < 1000 and not line.startswith("{") for line in lines), lines
    known = {name for stream in result for name in stream["stream"]}
    assert set(FIELD.findall(target.expr)) <= known


def test_queries_to_loki_stay_below_its_limit_where_whole_lines_exceed_it(proxy, loki):
    long = [{"role": "user", "content": "x" * 150_000}]
    with proxy.client(headers={"x-api-key": "sk-ant-test"}) as http:
        for _ in range(30):
            assert (
                http.post(proxy.url("api.anthropic.com", "/v1/messages"), json=MESSAGE | {"messages": long}).status_code
                == 200
            )
    arrived(proxy)
    lines = {"queryType": "range", "maxLines": 1000}
    status, error = ask(loki, lines, '{service_name="openclaw-proxy"} | event_name="openclaw.egress.exchange"')
    assert status == 500 and "larger than max" in error
    for target in targets("loki"):
        status, error = ask(loki, target.query, target.expr)
        assert status == 200, (target.name, error)


def test_metrics_of_dashboards_and_alerts_exist(proxy):
    rules = [rule["expr"] for rule in rules_file()["groups"][0]["rules"]]
    queries = [target.expr for target in targets("prometheus")]
    named = {name for text in [*queries, *rules] for name in METRIC.findall(text)} - {"openclaw_egress_seq"}
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", proxy.metrics(), re.MULTILINE))
    series = {
        f"{name}_{part}" for name, kind in families.items() if kind == "histogram" for part in ("bucket", "count")
    }
    assert len(named) > 25
    assert named - set(families) - series == set()


def test_catalogue_lists_the_metrics_of_a_proxy_with_their_types_and_labels(proxy):
    found = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(proxy.metrics())
        if not family.name.endswith("_created")
    }
    assert set(found) == set(BY_NAME)
    for name, family in found.items():
        metric = BY_NAME[name]
        assert (family.type, family.documentation) == (metric.kind, metric.text), name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels in (set(metric.labels), set()), name
        assert labels or not metric.labels or name in WITHOUT_SERIES, name


def near_its_budget(prometheus: RunningPrometheus, proxy: RunningProxy) -> bool:
    """Return whether the budget alert for class browser fires.

    If a new day (UTC) has begun, first use up its budget again.
    """
    used = re.findall(r'^openclaw_egress_budget_used_ratio\{.*"browser".*\} (\S+)$', proxy.metrics(), re.MULTILINE)
    if [float(share) for share in used] == [0]:
        make_traffic(proxy, "browser")
    return prometheus.states().get("OpenClawEgressBudgetNear") == "firing"


@pytest.mark.skipif(PROMETHEUS is None, reason=NO_PROMETHEUS)
def test_queries_to_prometheus_return_series(proxy, loki, tmp_path):
    with RunningPrometheus(tmp_path, [f"127.0.0.1:{proxy.health_port}"], rules_text()) as prometheus:
        prometheus.wait_for(lambda: prometheus.query("openclaw_egress_exchanges_total"))
        make_traffic(proxy, "gateway")
        prometheus.wait_for(lambda: near_its_budget(prometheus, proxy))
        assert prometheus.rule_errors() == []
        for target in targets("prometheus"):
            if any(name in target.expr for name in WITHOUT_SERIES):
                assert prometheus.query(target.expr) == []
                continue
            prometheus.wait_for(lambda target=target: prometheus.query(target.expr), target.name)
            legend = set(LEGEND.findall(target.query.get("legendFormat") or ""))
            assert all(legend <= set(one["metric"]) for one in prometheus.query(target.expr)), target.name
