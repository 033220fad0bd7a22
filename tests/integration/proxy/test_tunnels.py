"""Tests of ``log_tunnels``: each tunnel has one record. The record of a refusal has the status that the client got."""

import json
import time

import pytest

from openclaw_egress.recording.records import rfc3339
from openclaw_egress.spool.reader import SpoolReader
from tests.integration.proxy.conftest import make_proxy


@pytest.fixture(scope="module", params=["lean", "stock"])
def logging_proxy(request, tmp_path_factory, providers):
    running = make_proxy(tmp_path_factory.mktemp("tunnels"), providers, request.param)
    text = running.policy_file.read_text()
    running.policy_file.write_text(text.replace("  browser: {", "  browser: {log_tunnels: true, "))
    with running:
        yield running
    assert "Traceback" not in running.log, running.log


def tunnels(proxy, number: int):
    """Wait until there are ``number`` tunnel records. Return them."""
    end = time.monotonic() + 20
    while True:
        rows = [row for row in proxy.rows() if row.event_name == "openclaw.egress.tunnel"]
        if len(rows) >= number or time.monotonic() > end:
            return rows
        time.sleep(0.05)


def test_tunnel_has_one_record_with_client_destination_and_size(logging_proxy, providers):
    before = time.time_ns()
    known = len(tunnels(logging_proxy, 0))
    with logging_proxy.client("browser", ca=providers.ca_file) as http:
        for _ in range(3):
            assert http.get(logging_proxy.url("www.example.com", "/")).status_code == 200
        assert len(tunnels(logging_proxy, 0)) == known, "an open tunnel must not be recorded before its end"
    (row,) = tunnels(logging_proxy, known + 1)[known:]
    assert (row.class_name, row.client, row.host, row.port) == (
        "browser", "127.0.0.1", "www.example.com", logging_proxy.provider_port,
    )  # fmt: skip
    assert row.rule == "classes.browser.allow[0]" and row.method == "CONNECT" and row.duration > 0
    assert rfc3339(before) <= row.begin <= rfc3339(time.time_ns())
    with SpoolReader(logging_proxy.directory / "state" / "spool.db") as reader:
        line = json.loads(reader.line(row.seq))
    # The sizes include the TLS handshake, and three requests and responses inside TLS.
    assert line["openclaw.egress.request.size"] > 500 and line["openclaw.egress.response.size"] > 1000


def test_inspected_exchanges_and_classes_without_the_setting_have_no_tunnel_record(logging_proxy, providers):
    known = len(tunnels(logging_proxy, 0))
    with logging_proxy.client("browser") as http:
        http.get(logging_proxy.url("api.anthropic.com", "/v1/models"))
    with logging_proxy.client("gateway", ca=providers.ca_file) as http:
        http.get(logging_proxy.url("www.example.com", "/"))
    with logging_proxy.client("browser", ca=providers.ca_file) as http:
        http.get(logging_proxy.url("packages.example.com", "/"))
    rows = tunnels(logging_proxy, known + 1)[known:]
    assert [(row.class_name, row.host) for row in rows] == [("browser", "packages.example.com")]


def test_record_of_a_refusal_has_status_and_client(logging_proxy, providers):
    with logging_proxy.client("sandbox") as http:
        assert http.get(f"http://www.example.com:{providers.http_port}/").status_code == 403
    row = [row for row in logging_proxy.denials() if row.class_name == "sandbox"][-1]
    assert (row.status, row.client, row.outcome) == (403, "127.0.0.1", "denied")
    assert row.seq in [found.seq for found in logging_proxy.rows(status_min=400, status_max=499)]


def test_reported_request_is_recorded_without_a_status(logging_proxy, providers):
    with logging_proxy.client("build", ca=providers.ca_file) as http:
        assert http.get(logging_proxy.url("www.example.com", "/")).status_code == 200
    row = [row for row in logging_proxy.denials() if row.class_name == "build"][-1]
    assert (row.status, row.client, row.outcome) == (None, "127.0.0.1", "reported")


def test_record_of_an_exchange_has_the_clients_address(logging_proxy):
    with logging_proxy.client() as http:
        http.get(logging_proxy.url("api.anthropic.com", "/v1/models"))
    assert logging_proxy.exchanges()[-1].client == "127.0.0.1"


def test_open_tunnel_is_recorded_when_the_proxy_stops(tmp_path, providers):
    proxy = make_proxy(tmp_path, providers)
    proxy.policy_file.write_text(proxy.policy_file.read_text().replace("browser: {", "browser: {log_tunnels: true, "))
    with proxy, proxy.client("browser", ca=providers.ca_file) as http:
        http.get(proxy.url("www.example.com", "/"))
        proxy.stop()
    assert [row.host for row in tunnels(proxy, 1)] == ["www.example.com"]
