"""Tests of ``instance``: a record contains the gateway whose listener the client used, not what the client claims."""

import pytest

from tests.integration.proxy.conftest import make_proxy, wait_until


@pytest.fixture(scope="module", params=["lean", "stock"])
def shared(request, tmp_path_factory, providers):
    """Yield a proxy for two gateways: gw-a has the classes gateway and sandbox, gw-b has browser; build has none."""
    running = make_proxy(tmp_path_factory.mktemp("instances"), providers, request.param)
    text = running.policy_file.read_text()
    for class_name, instance in (("gateway", "gw-a"), ("sandbox", "gw-a"), ("browser", "gw-b")):
        text = text.replace(f"  {class_name}: {{", f"  {class_name}: {{instance: {instance}, log_tunnels: true, ")
    running.policy_file.write_text(text)
    with running:
        yield running
    assert "Traceback" not in running.log, running.log


CLAIM = {"x-openclaw-instance": "gw-a", "openclaw.egress.instance": "gw-a", "proxy-authorization": "Basic Z3ctYTp4"}


def test_exchange_names_the_gateway_of_its_listener(shared):
    for class_name in ("gateway", "browser"):
        with shared.client(class_name) as http:
            http.get(shared.url("api.anthropic.com", "/v1/models"), headers=CLAIM)
    wait_until(lambda: len(shared.rows(event_names=["openclaw.egress.exchange"])) >= 2, shared)
    found = {row.class_name: row.instance for row in shared.rows(event_names=["openclaw.egress.exchange"])}
    assert found == {"gateway": "gw-a", "browser": "gw-b"}


def test_denial_names_the_gateway_of_its_listener(shared, providers):
    for class_name in ("sandbox", "browser"):
        with shared.client(class_name) as http:
            assert http.get(f"http://denied.invalid:{providers.http_port}/", headers=CLAIM).status_code == 403
    found = {row.class_name: row.instance for row in shared.denials()}
    assert found["sandbox"] == "gw-a" and found["browser"] == "gw-b"


def test_tunnel_names_the_gateway_of_its_listener(shared, providers):
    with shared.client("browser", ca=providers.ca_file) as http:
        assert http.get(shared.url("www.example.com", "/")).status_code == 200
    wait_until(lambda: shared.rows(event_names=["openclaw.egress.tunnel"]), shared)
    assert {row.instance for row in shared.rows(event_names=["openclaw.egress.tunnel"])} == {"gw-b"}


def test_class_without_instance_names_no_gateway(shared):
    with shared.client("build") as http:
        http.get(shared.url("api.anthropic.com", "/v1/models"), headers=CLAIM)
    wait_until(lambda: "build" in {row.class_name for row in shared.rows()}, shared)
    assert {row.instance for row in shared.rows() if row.class_name == "build"} == {None}


def test_reload_gives_a_listener_to_another_gateway(tmp_path, providers):
    with make_proxy(tmp_path, providers) as proxy:
        text = proxy.policy_file.read_text()
        for instance in ("gw-a", "gw-b"):
            before = proxy.ask("/readyz")["policy"]
            proxy.policy_file.write_text(text.replace("  sandbox: {", f"  sandbox: {{instance: {instance}, "))
            wait_until(lambda before=before: proxy.ask("/readyz")["policy"] != before, proxy)
            with proxy.client("sandbox") as http:
                assert http.get(f"http://denied.invalid:{providers.http_port}/").status_code == 403
        assert [row.instance for row in proxy.denials()] == ["gw-a", "gw-b"]
