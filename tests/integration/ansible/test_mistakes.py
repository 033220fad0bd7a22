"""An operator's mistake stops a run before anything is touched, with one message that names it and the remedy."""

import json

import pytest


@pytest.fixture
def deploy(run, tmp_path):
    """Runs site.yml against an inventory given as a dict, on this machine, which has none of what is asked for."""

    def call(inventory: dict, *more: str) -> str:
        file = tmp_path / "hosts.json"
        local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "auto_silent"}
        file.write_text(json.dumps({"all": {"vars": local, "children": inventory}}))
        done = run("ansible-playbook", "-i", str(file), "site.yml", *more)
        assert done.returncode != 0, done.stdout
        assert "changed=0" in done.stdout and "Traceback" not in done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    return call


GATEWAY = {"openclaw_gateways": {"hosts": {"one": {"loki_otlp_ready_timeout": 5}}}}
NO_LOKI = {"openclaw_proxy_otlp_logs_endpoint": ""}


def test_no_gateway(deploy):
    said = deploy({"openclaw_loki": {"hosts": {"two": {}}}})
    assert "Nothing was changed" in said and "openclaw_gateways" in said


def test_no_loki(deploy):
    said = deploy(GATEWAY)
    assert "Nothing was changed" in said and "openclaw_loki" in said and "openclaw_proxy_otlp_logs_endpoint" in said


def test_a_loki_that_is_not_in_the_inventory(deploy):
    hosts = {"one": {"openclaw_proxy_loki_host": "three"}}
    said = deploy({"openclaw_gateways": {"hosts": hosts}, "openclaw_loki": {"hosts": {"two": {}}}})
    assert "openclaw_proxy_loki_host: three" in said


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("openclaw_proxy_max_body_size", "a lot", "openclaw_proxy_max_body_size"),
        ("openclaw_proxy_spool_full", "explode", "drop_oldest"),
        ("openclaw_proxy_memory", "12M", "openclaw_proxy_memory"),
        ("openclaw_proxy_policy", {"version": 1}, "openclaw_proxy_policy"),
        ("openclaw_proxy_policy_file", "/no/such/policy.yml", "/no/such/policy.yml"),
        ("openclaw_proxy_log_max_file", "several", "openclaw_proxy_log_max_file"),
    ],
)
def test_a_value_that_cannot_be_used(deploy, variable, value, named):
    said = deploy({"openclaw_gateways": {"hosts": {"one": NO_LOKI | {variable: value}}}})
    assert named in said


def test_a_host_that_lacks_what_is_needed_is_told_all_of_it(deploy):
    hosts = {
        "one": NO_LOKI
        | {"openclaw_egress_compose_dir": "/no/such/clone", "openclaw_egress_owner": "nobody-of-that-name"}
    }
    said = deploy({"openclaw_gateways": {"hosts": hosts}})
    assert "Nothing was changed." in said
    assert "/no/such/clone is no directory" in said and "no user nobody-of-that-name" in said
