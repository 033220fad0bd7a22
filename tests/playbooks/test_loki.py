"""Tests of the role loki_otlp against the Loki fake: its checks, its messages, and its edits."""

import json
import os
import re
import shlex
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.integration.ansible.conftest import BIN
from tests.support.docker import Docker
from tests.support.loki import FakeLoki

pytestmark = pytest.mark.timeout(1200)

SCHEMA = """schema_config:
  configs:
    - from: 2024-01-01
      store: {store}
      schema: {schema}
"""
CONFIG = "limits_config:\n  # a week\n  retention_period: 168h\n" + SCHEMA.format(store="tsdb", schema="v13")
ALLOWED = CONFIG.replace("  retention", "  allow_structured_metadata: true\n  retention")


class Vps2:
    """A fake VPS-2: a directory of this machine, and a Loki fake that reads its configuration on restart."""

    def __init__(self, run, at: Path, loki: FakeLoki) -> None:
        self.run, self.at, self.loki = run, at, loki
        self.file, self.manifest = at / "loki.yml", at / "state" / "manifest.json"
        Docker(at / "bin")
        (at / "bin" / "ufw").write_text("#!/bin/sh\necho 'Status: inactive'\n")
        (at / "bin" / "ufw").chmod(0o755)

    def configure(self, text: str) -> None:
        self.file.write_text(text)
        self.loki.configure(text)

    def play(self, playbook: str = "", *more: str, **variables: object) -> subprocess.CompletedProcess[str]:
        restart = ["curl", "--silent", "--fail", "--data-binary", f"@{self.file}", f"{self.loki.url}/standin/config"]
        two = {
            "loki_otlp_address": "127.0.0.1",
            "loki_otlp_port": self.loki.port,
            "loki_otlp_ready_timeout": 5,
            "loki_otlp_state_dir": f"{self.at}/state",
            "loki_otlp_config_file": str(self.file),
            "loki_otlp_validate_command": "test -s %s",
            "loki_otlp_restart_command": shlex.join(restart),
            **variables,
        }
        local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "auto_silent"}
        one = {"openclaw_proxy_otlp_headers": two.pop("headers", ""), **two.pop("gateway", {})}
        hosts = {"openclaw_gateways": {"hosts": {"one": one}}, "openclaw_loki": {"hosts": {"two": two}}}
        (self.at / "hosts.json").write_text(json.dumps({"all": {"vars": local, "children": hosts}}))
        (self.at / "role.yml").write_text(
            "- hosts: openclaw_loki\n  gather_facts: false\n  roles: [openclaw.egress.loki_otlp]\n"
        )
        path = os.pathsep.join([str(self.at / "bin"), str(BIN), os.environ["PATH"]])
        return self.run(
            "ansible-playbook",
            "-i",
            str(self.at / "hosts.json"),
            playbook or str(self.at / "role.yml"),
            *more,
            PATH=path,
        )

    def good(self, *more: str, **variables: object) -> int:
        """Run the role, which must succeed. Return the number of changed tasks."""
        done = self.play("", *more, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"changed=(\d+)", done.stdout)
        assert found, done.stdout
        return int(found[1])

    def bad(self, *more: str, **variables: object) -> str:
        """Run the role, which must fail. Return its error message."""
        done = self.play("", *more, **variables)
        assert done.returncode != 0, done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def vps2(run, tmp_path) -> Iterator[Vps2]:
    with FakeLoki() as loki:
        yield Vps2(run, tmp_path, loki)


def test_test_record_is_pushed_and_read_back_without_a_change(vps2):
    assert [vps2.good(), vps2.good()] == [0, 0]
    found = vps2.loki.records()
    assert [line for _, line, _ in found] == ["probe", "probe"]
    assert {labels["service_name"] for _, _, labels in found} == {"openclaw-egress-probe"}
    assert all(re.fullmatch(r"\d{10}", labels["probe"]) for _, _, labels in found)


def test_check_mode_pushes_nothing(vps2):
    assert vps2.good("--check") == 0
    assert vps2.loki.records() == []


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "requires a tenant or credentials"), (500, "does not respond with Loki's configuration")],
)
def test_check_mode_reports_the_same_invalid_configuration_as_a_run(vps2, status, said):
    vps2.loki.faults.set(status=status, path="/config")
    assert said in vps2.bad("--check")


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_configuration_hidden_by_a_reverse_proxy_causes_a_warning_with_the_limits_to_check(vps2, status, check):
    vps2.loki.faults.set(status=status, path="/config")
    done = vps2.play("", *check)
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, said
    assert f"/config responds with {status} (a reverse proxy?), so the role does not check the limits of Loki" in said
    assert "limits_config.max_line_size: at least 200000 bytes" in said
    assert len(vps2.loki.records()) == (0 if check else 1)


@pytest.mark.parametrize(("status", "said"), [(401, "requires a tenant or credentials"), (403, ""), (404, "")])
def test_configuration_that_the_role_should_edit_but_cannot_read_stops_the_role(vps2, status, said):
    vps2.configure(CONFIG)
    vps2.loki.faults.set(status=status, path="/config")
    found = vps2.bad(loki_otlp_manage_config=True)
    assert "Nothing was changed." in found and f"/config responds with {status}" in found
    assert (said or f"allow_structured_metadata: true under limits_config in {vps2.file}") in found
    assert vps2.file.read_text() == CONFIG and not vps2.manifest.exists() and vps2.loki.records() == []


@pytest.mark.parametrize("variable", [{}, {"loki_otlp_scheme": "https"}])
def test_test_record_uses_tls_if_the_gateways_do(run, tmp_path, variable):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    loki = FakeLoki()
    loki._server.socket = context.wrap_socket(loki._server.socket, server_side=True)
    with loki:
        vps2 = Vps2(run, tmp_path, loki)
        endpoint = f"https://127.0.0.1:{loki.port}/otlp/v1/logs"
        gateway = {} if variable else {"openclaw_proxy_otlp_logs_endpoint": endpoint}
        assert vps2.good(gateway=gateway, loki_otlp_ca_file=str(tmp_path / "ca.pem"), **variable) == 0
        assert [line for _, line, _ in loki.records()] == ["probe"]
        assert "CERTIFICATE_VERIFY_FAILED" in vps2.bad(gateway=gateway, **variable)


@pytest.mark.parametrize(
    "endpoint", ["https://logs.example.com/otlp/v1/logs", "http://127.0.0.1:3100/otlp", "", "https://{{ undefined }}/"]
)
def test_endpoint_elsewhere_does_not_change_the_scheme(vps2, endpoint):
    assert vps2.good(gateway={"openclaw_proxy_otlp_logs_endpoint": endpoint}) == 0


def test_all_wrong_limits_are_reported_in_one_message_before_the_first_change(vps2):
    wrong = "limits_config:\n  max_line_size: 64KB\n  per_stream_rate_limit: 1MB\n"
    vps2.configure(wrong + SCHEMA.format(store="tsdb", schema="v13") + "server:\n  grpc_server_max_recv_msg_size: 1\n")
    prometheus = vps2.at / "rules"
    prometheus.mkdir()
    said = vps2.bad(loki_otlp_prometheus_rules_dir=str(prometheus))
    assert "Nothing was changed. The configuration of Loki at" in said
    for found in (
        "limits_config.allow_structured_metadata is false",
        "limits_config.max_line_size is 64KB. The minimum is 200000 bytes",
        "limits_config.per_stream_rate_limit is 1MB. The minimum is 2500000 bytes",
        "server.grpc_server_max_recv_msg_size is 1. The minimum is 3000000 bytes",
    ):
        assert found in said
    assert not vps2.manifest.exists() and not list(prometheus.iterdir())
    assert vps2.loki.records() == []
    limits = "  allow_structured_metadata: true\n  max_line_size: 256KB\n  per_stream_rate_limit: 3MB\n"
    server = "server:\n  grpc_server_max_recv_msg_size: 16777216\n"
    vps2.configure("limits_config:\n" + limits + SCHEMA.format(store="tsdb", schema="v13") + server)
    assert vps2.good() == 0


def test_role_does_not_edit_the_file_while_another_limit_is_wrong(vps2):
    text = CONFIG.replace("  retention", "  max_line_size: 64KB\n  retention")
    vps2.configure(text)
    said = vps2.bad(loki_otlp_manage_config=True)
    assert "limits_config.max_line_size is 64KB" in said and "allow_structured_metadata" not in said
    assert vps2.file.read_text() == text and not vps2.manifest.exists()


def test_export_rate_of_the_gateway_is_compared_with_the_limits(vps2):
    said = vps2.bad(gateway={"openclaw_proxy_export_max_bytes_per_second": 10_000_000})
    assert "limits_config.per_stream_rate_limit is 3MB. The minimum is 10000000 bytes" in said
    assert "per_stream_rate_limit: 10MB" in said


def test_large_results_of_queries_cause_a_warning(vps2):
    done = vps2.play("")
    assert done.returncode == 0
    assert "grpc_server_max_send_msg_size: 16777216" in done.stdout


def test_refused_test_record_stops_the_role_before_the_first_change(vps2):
    vps2.loki.faults.set(status=400, count=None)
    (vps2.at / "rules").mkdir()
    said = vps2.bad(loki_otlp_prometheus_rules_dir=str(vps2.at / "rules"))
    assert "Nothing was changed. http://127.0.0.1" in said and "responds with 400 to a record with metadata" in said
    assert not vps2.manifest.exists() and not list((vps2.at / "rules").iterdir())


def test_check_mode_reports_a_missing_loki_and_continues(vps2):
    vps2.loki.faults.set(status=503, path="/ready")
    vps2.good("--check")


def test_missing_key_means_false(vps2):
    """Expect the role to treat a missing key as false, because a real Loki omits false booleans."""
    vps2.configure(CONFIG.replace("  retention", "  allow_structured_metadata: false\n  retention"))
    assert "allow_structured_metadata" not in vps2.loki.config
    said = vps2.bad()
    assert "limits_config.allow_structured_metadata is false" in said
    assert "loki_otlp_manage_config: true" in said and str(vps2.file) in said
    assert vps2.loki.records() == []


def test_accepted_record_that_is_not_found_is_reported(vps2):
    vps2.loki.faults.set(status=204)
    assert "does not find it within 10 s" in vps2.bad()


def test_loki_with_tenants_is_called_with_the_exporters_headers(vps2):
    vps2.configure("auth_enabled: true\n" + ALLOWED)
    said = vps2.bad()
    assert "Nothing was changed." in said and "openclaw_proxy_otlp_headers" in said and "responds with 401" in said
    assert vps2.good(headers="authorization=Basic%20c2VjcmV0,x-scope-orgid=agents") == 0
    headers = {name.lower(): value for name, value in vps2.loki.pushes[-1].headers.items()}
    assert (headers["x-scope-orgid"], headers["authorization"]) == ("agents", "Basic c2VjcmV0")
    done = vps2.play("", "-vvv", headers="authorization=Basic%20c2VjcmV0,x-scope-orgid=agents")
    assert "c2VjcmV0" not in done.stdout


@pytest.mark.parametrize(
    ("limits", "edited"),
    [
        (
            "limits_config:\n  # a week\n  retention_period: 168h\n",
            "limits_config:\n  # a week\n  allow_structured_metadata: true\n  retention_period: 168h\n",
        ),
        (
            "limits_config: # ours\n    retention_period: 168h\n\n",
            "limits_config: # ours\n    allow_structured_metadata: true\n    retention_period: 168h\n\n",
        ),
        (
            "limits_config:\n\n  volume_enabled: true\n  # off: it is slow\n"
            "  allow_structured_metadata: false  # for now\n  x: 1\n",
            "limits_config:\n\n  volume_enabled: true\n  # off: it is slow\n"
            "  allow_structured_metadata: true  # for now\n  x: 1\n",
        ),
        (
            "limits_config:\n  # allow_structured_metadata: false\n  x: 1\n",
            "limits_config:\n  # allow_structured_metadata: false\n  allow_structured_metadata: true\n  x: 1\n",
        ),
        ("limits_config: {}\n", "limits_config:\n  allow_structured_metadata: true\n"),
        ("limits_config:  # none\n", "limits_config:  # none\n  allow_structured_metadata: true\n"),
        ("server:\n  x: 1\n", "server:\n  x: 1\nlimits_config:\n  allow_structured_metadata: true\n"),
    ],
    ids=["first", "other indent", "false", "in a comment", "flow", "empty", "absent"],
)
def test_edit_changes_only_one_key_and_rollback_reverts_it(vps2, limits, edited):
    absent = limits.startswith("server")
    before, after = (
        (SCHEMA.format(store="tsdb", schema="v13") + text)
        if absent
        else text + SCHEMA.format(store="tsdb", schema="v13")
        for text in (limits, edited)
    )
    vps2.configure(before)
    assert vps2.good(loki_otlp_manage_config=True) > 0
    assert vps2.file.read_text() == after
    assert vps2.good(loki_otlp_manage_config=True) == 0
    done = vps2.play("playbooks/rollback.yml", "--limit", "two")
    assert vps2.file.read_text() == before, done.stdout + done.stderr
    assert not vps2.manifest.exists()
    assert [path.name for path in vps2.at.glob("loki.yml*")] == ["loki.yml"]


def test_correct_file_is_reloaded_without_an_edit(vps2):
    vps2.configure(CONFIG)
    vps2.file.write_text(ALLOWED)
    vps2.good(loki_otlp_manage_config=True)
    assert vps2.file.read_text() == ALLOWED


def test_unsupported_form_of_the_configuration_is_left_and_reported(vps2):
    text = "limits_config: {retention_period: 168h}\n" + SCHEMA.format(store="tsdb", schema="v13")
    vps2.configure(text)
    said = vps2.bad(loki_otlp_manage_config=True)
    assert "Nothing was changed." in said and "in a form that this role does not edit" in said
    assert vps2.file.read_text() == text and not vps2.manifest.exists()


@pytest.mark.parametrize("later", [False, True], ids=["alone", "v13 to come"])
@pytest.mark.parametrize("manage", [False, True])
def test_message_for_an_older_schema_has_both_steps_and_the_date(vps2, later, manage):
    day = (datetime.now(UTC) + timedelta(days=3 if later else 1)).strftime("%Y-%m-%d")
    text = "limits_config:\n  x: 1\n" + SCHEMA.format(store="boltdb-shipper", schema="v12")
    if later:
        text += f"    - from: {day}\n      store: tsdb\n      schema: v13\n"
    vps2.configure(text)
    said = vps2.bad(loki_otlp_manage_config=manage)
    assert "active today is v12 on boltdb-shipper" in said and "Two steps: (1)" in said
    assert f"(2) from {day} on (UTC), set limits_config.allow_structured_metadata: true" in said
    assert ("such a period from" if later else f"with `from: {day}`") in said
    assert vps2.file.read_text() == text and not vps2.manifest.exists()
