"""The Grafana dashboards, built with grafana-foundation-sdk. They need Grafana 11 or later.

Queries to Loki return fields, never whole lines: a result with bodies can exceed Loki's default limit of 4 MiB. Counts
by destination and by API key come from Loki, because the Prometheus metrics have no labels for them.
"""

from __future__ import annotations

from collections.abc import Iterator

from grafana_foundation_sdk.builders.bargauge import Panel as BarGauge
from grafana_foundation_sdk.builders.common import ReduceDataOptions
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
    TextBoxVariable,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.logs import Panel as Logs
from grafana_foundation_sdk.builders.loki import Dataquery as LogQL
from grafana_foundation_sdk.builders.prometheus import Dataquery as PromQL
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode
from grafana_foundation_sdk.models.dashboard import Dashboard as BuiltDashboard
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    Panel,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tools.monitoring.alerts import ALERTS_NAME, JOB, SPOOL_USED

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${prometheus}")
LOKI = DataSourceRef(type_val="loki", uid="${loki}")
GATEWAY = 'instance=~"$instance"'
RECORDS = '{service_name="$service"}'
DENIED = f'{RECORDS} | event_name="openclaw.egress.denied" | openclaw_egress_enforced="true"'
# Select only lines without a part index. If a record is split over several lines, only the first line has no part
# index, and it contains all attributes.
EXCHANGES = f'{RECORDS} | event_name="openclaw.egress.exchange" | openclaw_egress_part_index=""'
MAX_LINES = 200
AUDIT = "The result of `egress audit`, which nothing runs by itself."
TAG = "openclaw-egress"

type Panels = Iterator[Builder[Panel]]
type Query = tuple[str, str]
"""A PromQL expression, and the legend for its series."""


def _graph(title: str, unit: str, *queries: Query, help_text: str = "", width: int = 12) -> TimeSeries:
    """Return a graph over time."""
    panel = TimeSeries().title(title).description(help_text).unit(unit).min(0).span(width).height(8)
    panel = panel.datasource(PROMETHEUS)
    for number, (expr, legend) in enumerate(queries):
        panel = panel.with_target(PromQL().expr(expr).legend_format(legend).range().ref_id(chr(65 + number)))
    return panel


def _number(
    title: str, unit: str, expr: str, *, help_text: str = "", red_from: float | None = None, width: int = 6
) -> Stat:
    """Return a panel with one number for the dashboard's time range. From ``red_from`` on, the number is red."""
    steps = [Threshold(color="green", value=None)]
    if red_from is not None:
        steps.append(Threshold(color="red", value=red_from))
    return (
        Stat()
        .title(title)
        .description(help_text)
        .unit(unit)
        .span(width)
        .height(4)
        .datasource(PROMETHEUS)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .no_value("none")
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(PromQL().expr(expr).instant().ref_id("A"))
    )


def _table(title: str, query: Builder[Panel] | PromQL | LogQL, source: DataSourceRef, *, help_text: str = "") -> Table:
    """Return a table that shows the result of an instant query, with one row per series."""
    return (
        Table()
        .title(title)
        .description(help_text)
        .span(12)
        .height(9)
        .datasource(source)
        .with_target(query)  # type: ignore[arg-type]  # the SDK has no common query type for Loki and Prometheus
        .with_transformation(DataTransformerConfig(id_val="organize", options={"excludeByName": {"Time": True}}))
    )


def _top(title: str, labels: str, lines: str, number: str, *, help_text: str = "") -> Table:
    """Return a table that sums a field of records by labels, and shows the 20 largest sums."""
    expr = f"topk(20, sum by ({labels}) (sum_over_time({lines} | unwrap {number} [$__range])))"
    query = LogQL().expr(expr).query_type("instant").ref_id("A")
    return _table(title, query, LOKI, help_text=help_text)


def _records(title: str, lines: str, fields: str, *, help_text: str = "") -> Logs:
    """Return a list of records. Each record is one line with some of its fields."""
    return (
        Logs()
        .title(title)
        .description(help_text)
        .span(24)
        .height(10)
        .datasource(LOKI)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .with_target(
            LogQL().expr(f"{lines} | line_format `{fields}`").query_type("range").max_lines(MAX_LINES).ref_id("A")
        )
    )


def _rate(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{GATEWAY}{more}}}[$__rate_interval]))"


def _in_range(metric: str, more: str = "") -> str:
    return f"sum(increase({metric}{{{GATEWAY}{more}}}[$__range]))"


def _quantile(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', f'le, {by}')})"


def _traffic() -> Panels:
    yield _graph(
        "Allowed requests and tunnels",
        "reqps",
        (_rate("openclaw_egress_allowed_total", "egress_class"), "{{egress_class}}"),
    )
    yield _graph(
        "Denied requests and tunnels",
        "reqps",
        (_rate("openclaw_egress_denied_total", "egress_class", ', enforced="true"'), "{{egress_class}}"),
        (
            _rate("openclaw_egress_denied_total", "egress_class", ', enforced="false"'),
            "{{egress_class}}, only reported",
        ),
    )
    yield _graph("Responses by status", "reqps", (_rate("openclaw_egress_responses_total", "status"), "{{status}}"))
    duration = "openclaw_egress_exchange_duration_seconds"
    yield _graph(
        "Duration of exchanges",
        "s",
        (_quantile(0.5, duration, "egress_class"), "{{egress_class}} p50"),
        (_quantile(0.95, duration, "egress_class"), "{{egress_class}} p95"),
    )


def _denials() -> Panels:
    yield _table(
        "Denials by rule",
        PromQL()
        .expr(
            "sum by (egress_class, rule, code, enforced) "
            f"(increase(openclaw_egress_denied_total{{{GATEWAY}}}[$__range])) > 0"
        )
        .instant()
        .format(PromQueryFormat.TABLE)
        .ref_id("A"),
        PROMETHEUS,
    )
    yield _top(
        "Denied destinations",
        "openclaw_egress_class, server_address, openclaw_egress_code",
        DENIED,
        "openclaw_egress_count",
        help_text="The 20 most frequent. `egress denials` also names the rule that would allow each.",
    )
    yield _records(
        "Denials, newest first",
        DENIED,
        "{{.openclaw_egress_class}} {{.server_address}}:{{.server_port}} {{.openclaw_egress_code}}: "
        "{{.openclaw_egress_reason}}",
    )


def _sums() -> Panels:
    exact = "Prometheus misses what happened before its first scrape. `egress usage` has exact sums."
    yield _number("Cost", "currencyUSD", _in_range("openclaw_egress_cost_usd_total"), help_text=exact)
    yield _number("Exchanges", "short", _in_range("openclaw_egress_exchanges_total"), help_text=exact)
    for kind in ("input", "output"):
        yield _number(
            f"Tokens, {kind}", "short", _in_range("openclaw_egress_tokens_total", f', type="{kind}"'), help_text=exact
        )


def _tokens() -> Panels:
    cost, tokens = "openclaw_egress_cost_usd_total", "openclaw_egress_tokens_total"
    yield _graph(
        "Cost per hour by model",
        "currencyUSD",
        (f"3600 * {_rate(cost, 'model')}", "{{model}}"),
        help_text="Calls whose price is unknown are missing.",
    )
    yield _graph("Cost per hour by class", "currencyUSD", (f"3600 * {_rate(cost, 'egress_class')}", "{{egress_class}}"))
    yield _graph(
        "Tokens per second by kind",
        "short",
        (_rate(tokens, "type"), "{{type}}"),
        help_text="Input includes tokens from the cache; output includes reasoning.",
    )
    yield _graph(
        "Tokens per second by provider and model",
        "short",
        (_rate(tokens, "provider, model", ', type=~"input|output"'), "{{provider}} {{model}}"),
    )
    yield _graph(
        "Share of input tokens from the cache",
        "percentunit",
        (f"{_rate(tokens, 'model', ', type="cache_read"')} / {_rate(tokens, 'model', ', type="input"')}", "{{model}}"),
    )
    first = "gen_ai_client_operation_time_to_first_chunk_seconds"
    yield _graph(
        "Time to the first chunk",
        "s",
        (_quantile(0.5, first, "gen_ai_provider_name"), "{{gen_ai_provider_name}} p50"),
        (_quantile(0.95, first, "gen_ai_provider_name"), "{{gen_ai_provider_name}} p95"),
        help_text="Streamed responses only.",
    )
    duration, model = "gen_ai_client_operation_duration_seconds", "gen_ai_request_model"
    yield _graph(
        "Duration of calls",
        "s",
        (_quantile(0.5, duration, model), "{{gen_ai_request_model}} p50"),
        (_quantile(0.95, duration, model), "{{gen_ai_request_model}} p95"),
    )
    yield _graph(
        "Failed calls",
        "reqps",
        (
            _rate(f"{duration}_count", f"{model}, error_type", ', error_type!=""'),
            "{{gen_ai_request_model}} {{error_type}}",
        ),
        help_text="A model without reported usage is shown as `other`.",
    )


def _budgets() -> Panels:
    yield (
        BarGauge()
        .title("Used share of budgets")
        .description("The budgets in `limits` of each class. At 100 % the proxy refuses requests to inspected hosts.")
        .unit("percentunit")
        .min(0)
        .max(1)
        .span(12)
        .height(9)
        .datasource(PROMETHEUS)
        .thresholds(
            ThresholdsConfig()
            .mode(ThresholdsMode.ABSOLUTE)
            .steps([Threshold(None, "green"), Threshold(0.8, "orange"), Threshold(1, "red")])
        )
        .with_target(
            PromQL()
            .expr(f"openclaw_egress_budget_used_ratio{{{GATEWAY}}}")
            .legend_format("{{instance}} {{egress_class}} {{limit}}")
            .instant()
            .ref_id("A")
        )
    )
    yield _top(
        "Cost by API key",
        "openclaw_egress_key, gen_ai_request_model, openclaw_egress_class",
        EXCHANGES,
        "openclaw_egress_cost_usd",
        help_text="The 20 largest. The key is shown as the first 12 digits of its SHA-256.",
    )
    yield _records(
        "Exchanges, newest first",
        EXCHANGES,
        "{{.openclaw_egress_class}} {{.server_address}} {{.gen_ai_request_model}} "
        "status={{.http_response_status_code}} in={{.gen_ai_usage_input_tokens}} out={{.gen_ai_usage_output_tokens}} "
        "usd={{.openclaw_egress_cost_usd}} s={{.openclaw_egress_duration}} id={{.openclaw_egress_exchange_id}}",
        help_text="`egress show ID` and `egress ui` show the messages.",
    )


def _state() -> Panels:
    for title, unit, expr, red_from, help_text in (
        ("Proxies that do not respond", "short", f'count(up{{job="{JOB}"}} == 0) or vector(0)', 1, ""),
        ("Oldest waiting record", "s", f"max(openclaw_egress_export_backlog_seconds{{{GATEWAY}}})", 600, ""),
        ("Used share of the spool", "percentunit", f"max({SPOOL_USED % f'{{{GATEWAY}}}'})", 0.7, ""),
        (
            "Issuing CA expires in",
            "s",
            f"min(openclaw_egress_ca_expiry_timestamp_seconds{{{GATEWAY}}}) - time()",
            None,
            "The daily job renews it 30 days before it expires.",
        ),
        ("Findings of the last audit", "short", f"sum(openclaw_egress_audit_findings{{{GATEWAY}}})", 1, AUDIT),
        (
            "Age of the last audit",
            "s",
            f"time() - min(openclaw_egress_audit_timestamp_seconds{{{GATEWAY}}})",
            None,
            AUDIT,
        ),
    ):
        yield _number(title, unit, expr, red_from=red_from, help_text=help_text, width=4)
    yield _table(
        "Firing alerts",
        PromQL()
        .expr(f'ALERTS{{alertname=~"{ALERTS_NAME}.+", alertstate="firing"}}')
        .instant()
        .format(PromQueryFormat.TABLE)
        .ref_id("A"),
        PROMETHEUS,
    )
    yield _graph(
        "Not working",
        "short",
        (f"openclaw_egress_spool_refusing{{{GATEWAY}}}", "{{instance}} cannot record, and refuses"),
        (f"1 - openclaw_egress_policy_last_reload_successful{{{GATEWAY}}}", "{{instance}} policy file refused"),
        (f"openclaw_egress_export_failures_in_a_row{{{GATEWAY}}}", "{{instance}} failed pushes in a row"),
        (
            f"increase(openclaw_egress_hook_failures_total{{{GATEWAY}}}[$__rate_interval])",
            "{{instance}} failures of hooks",
        ),
        (
            f"increase(openclaw_egress_unrecorded_total{{{GATEWAY}}}[$__rate_interval])",
            "{{instance}} requests refused unrecorded",
        ),
        help_text="Everything is 0 if all works.",
    )


def _export() -> Panels:
    yield _graph("Waiting records", "short", (f"openclaw_egress_export_backlog_records{{{GATEWAY}}}", "{{instance}}"))
    yield _graph(
        "Age of the oldest waiting record",
        "s",
        (f"openclaw_egress_export_backlog_seconds{{{GATEWAY}}}", "{{instance}}"),
    )
    # `rate` is correct although these metrics are gauges: like counters, they only increase, and restart at 0.
    yield _graph(
        "Accepted bytes per second",
        "Bps",
        (f"rate(openclaw_egress_export_pushed_bytes{{{GATEWAY}}}[$__rate_interval])", "{{instance}}"),
    )
    yield _graph("Dead letters", "short", (f"openclaw_egress_dead_letters{{{GATEWAY}}}", "{{instance}} {{reason}}"))


def _disk_and_memory() -> Panels:
    yield _graph(
        "Spool",
        "bytes",
        *[
            (f"openclaw_egress_spool_{name}_bytes{{{GATEWAY}}}", f"{{{{instance}}}} {legend}")
            for name, legend in (
                ("pending", "waiting"),
                ("acknowledged", "acknowledged"),
                ("dead_letter", "dead letters"),
                ("local", "local"),
                ("max", "limit"),
            )
        ],
        help_text="The proxy deletes acknowledged records when it needs room.",
    )
    yield _graph(
        "Memory in use by traffic",
        "bytes",
        (f"openclaw_egress_memory_used_bytes{{{GATEWAY}}}", "{{instance}} {{egress_class}}"),
        (f"openclaw_egress_memory_budget_bytes{{{GATEWAY}}}", "{{instance}} limit"),
    )
    yield _records(
        "Events of the proxy",
        f'{RECORDS} | event_name=~"openclaw.egress.(policy|ca|spool)" | json',
        "{{.event_name}} {{.message}} {{.openclaw_egress_reason}}",
        help_text="Policies and CAs that were loaded or refused, dropped lines, dead letters.",
    )


def _dashboard(name: str, title: str, description: str, rows: dict[str, Panels]) -> BuiltDashboard:
    board = (
        Dashboard(f"OpenClaw egress: {title}")
        .uid(f"{TAG}-{name}")
        .description(description)
        .tags([TAG])
        .time("now-24h", "now")
        .refresh("1m")
        .timezone("browser")
        .link(
            DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(DatasourceVariable("prometheus").label("Prometheus").type("prometheus"))
        .with_variable(DatasourceVariable("loki").label("Loki").type("loki"))
        .with_variable(
            QueryVariable("instance")
            .label("Gateway")
            .datasource(PROMETHEUS)
            .query("label_values(openclaw_egress_spool_max_bytes, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(text="All", value="$__all"))
        )
        .with_variable(
            TextBoxVariable("service")
            .label("Service in Loki")
            .description("openclaw_proxy_service_name")
            .default_value("openclaw-proxy")
        )
    )
    number = 0
    for row, panels in rows.items():
        number += 1
        board = board.with_row(Row(row).id(number))
        for panel in panels:
            number += 1
            board = board.with_panel(panel.id(number))  # type: ignore[attr-defined]  # all panel builders have it
    return board.build()


def dashboards() -> dict[str, BuiltDashboard]:
    """Return all dashboards by file name."""
    return {
        "traffic": _dashboard(
            "traffic",
            "traffic and denials",
            "What each class of containers requested, and what was denied.",
            {"Traffic": _traffic(), "Denials": _denials()},
        ),
        "usage": _dashboard(
            "usage",
            "tokens and cost",
            "Tokens and cost of the calls to model providers.",
            {"In this range": _sums(), "Over time": _tokens(), "Budgets, keys and exchanges": _budgets()},
        ),
        "health": _dashboard(
            "health",
            "health",
            "State of the proxy, of the export to Loki, and of the spool.",
            {"State": _state(), "Export": _export(), "Spool and memory": _disk_and_memory()},
        ),
    }
