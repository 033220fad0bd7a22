"""Tests of starts with operator errors: the proxy exits with one message (what, where, remedy) and no traceback."""

import os
import re
import subprocess

import pytest

from tests.integration.proxy.conftest import make_proxy
from tests.support.llm_providers import LLMProviders
from tests.support.proxy_process import RunningProxy, free_ports


@pytest.fixture(params=["lean", "stock"])
def stopped(request, tmp_path, providers) -> RunningProxy:
    return make_proxy(tmp_path, providers, request.param)


def refused(proxy: RunningProxy) -> str:
    """Start the proxy, which must fail. Return its message."""
    done = subprocess.run(
        proxy.command,
        env=proxy.environment,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode not in (0, None), said
    assert "Traceback" not in said, said
    return said


def test_start_fails_on_a_policy_with_a_typo(stopped):
    text = stopped.policy_file.read_text()
    stopped.policy_file.write_text(text.replace("action: enforce", "action: enforced", 1))
    said = refused(stopped)
    assert f"{stopped.policy_file}:5: " in said and "enforce" in said
    assert not (stopped.directory / "state" / "spool.db").exists()


def test_start_fails_on_a_missing_policy(stopped):
    stopped.policy_file.unlink()
    assert f"{stopped.policy_file}: " in refused(stopped)


def test_start_fails_if_proxy_llm_hosts_contradicts_the_policy(stopped):
    stopped.environment["PROXY_LLM_HOSTS"] = "api.mistral.ai"
    assert "PROXY_LLM_HOSTS" in refused(stopped)


def test_hosts_of_all_groups_are_inspected(stopped):
    text = stopped.policy_file.read_text()
    stopped.policy_file.write_text(re.sub("^inspect: .*$", 'inspect: ["@all"]', text, count=1, flags=re.MULTILINE))
    with stopped, stopped.client(headers={"x-api-key": "k"}) as http:
        body = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
        assert http.post(stopped.url("api.anthropic.com", "/v1/messages"), json=body).status_code == 200
        assert http.get(stopped.url("api.openai.com", "/v1/models")).status_code < 500
        recorded = [row.host for row in stopped.exchanges()]
    assert recorded == ["api.anthropic.com", "api.openai.com"]


def test_start_fails_on_a_setting_that_is_not_a_number(stopped):
    stopped.environment["PROXY_MAX_BODY_SIZE"] = "1 MB"
    assert "PROXY_MAX_BODY_SIZE" in refused(stopped)


def test_start_fails_on_a_ca_directory_without_a_ca(stopped):
    stopped.environment["EGRESS_CA_DIR"] = str(stopped.directory)
    assert "mitmproxy-ca" in refused(stopped)


def test_start_fails_on_an_unreadable_ca(stopped):
    with stopped:
        pass
    (stopped.directory / "state" / "ca" / "mitmproxy-ca.pem").write_text("not a certificate")
    stopped.environment["EGRESS_CA_DIR"] = str(stopped.directory / "state" / "ca")
    assert "mitmproxy-ca.pem" in refused(stopped)


def test_start_fails_on_an_invalid_upstream_ca(stopped):
    stopped.environment["EGRESS_UPSTREAM_CA"] = str(stopped.policy_file)
    assert "EGRESS_UPSTREAM_CA" in refused(stopped)


def test_state_directory_that_is_a_file_is_reported_in_one_message(stopped):
    file = stopped.directory / "state"
    file.write_text("")
    assert str(file) in refused(stopped)


def test_start_fails_on_a_spool_that_is_another_kind_of_file(stopped):
    state = stopped.directory / "state"
    state.mkdir()
    (state / "spool.db").write_bytes(b"this is not a database, and it is long enough to be looked at" * 100)
    said = refused(stopped)
    assert "damaged" in said and "spool.db" in said


def test_second_proxy_on_the_same_spool_does_not_start(stopped):
    with stopped:
        other = make_other(stopped)
        assert "another" in refused(other).lower()


def test_start_fails_on_a_port_in_use(stopped, providers):
    text = stopped.policy_file.read_text()
    stopped.policy_file.write_text(text.replace(str(stopped.ports["browser"]), str(providers.port)))
    stopped.ports["browser"] = providers.port
    assert str(providers.port) in refused(stopped)


def test_start_fails_on_a_health_port_in_use(stopped, providers):
    stopped.environment["EGRESS_HEALTH_PORT"] = str(providers.port)
    assert "EGRESS_HEALTH_PORT" in refused(stopped)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write to every directory")
def test_start_fails_on_a_read_only_state_directory(stopped):
    state = stopped.directory / "state"
    state.mkdir(mode=0o500)
    assert "uid" in refused(stopped)


def test_start_fails_on_a_listener_that_no_class_owns(tmp_path, providers):
    stock = make_proxy(tmp_path, providers, "stock")
    owned, stock.ports["gateway"] = stock.ports["gateway"], free_ports(1)[0]
    said = refused(stock)
    assert "does not belong to a class" in said and str(owned) in said


def test_provider_with_an_untrusted_certificate_gets_502(tmp_path, providers):
    with LLMProviders() as stranger:
        proxy = make_proxy(tmp_path, providers)
        text = proxy.policy_file.read_text()
        proxy.policy_file.write_text(text.replace(str(providers.port), str(stranger.port)))
        proxy.provider_port = stranger.port
        with proxy, proxy.client() as http:
            assert http.get(proxy.url("api.anthropic.com", "/v1/models")).status_code == 502
            assert [row.error_type for row in proxy.exchanges()] == ["tls_error"]
        assert not stranger.log


def make_other(proxy: RunningProxy) -> RunningProxy:
    """Return a second proxy of the same kind with the same state directory and another health port."""
    other = RunningProxy.__new__(RunningProxy)
    other.__dict__.update(proxy.__dict__)
    other.environment = proxy.environment | {"EGRESS_HEALTH_PORT": "1"}
    return other
