"""Tests of verify.yml with a fake `docker`: the program, the container and the arguments of each check."""

import json
import os
import re
from xml.etree import ElementTree

import pytest

from tests.integration.ansible.conftest import BIN
from tests.support.docker import Docker

pytestmark = pytest.mark.timeout(400)

PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: openclaw.egress.openclaw_proxy, tasks_from: variables, public: true}
    - ansible.builtin.include_role: {name: openclaw.egress.openclaw_gateway, tasks_from: verify}
"""
# Fake `docker` for programs in containers: it prints its arguments and the first line of the program. Two programs in
# the gateway print text that is not UTF-8, or not allowed in XML. The fake passes other commands to `docker-fake`.
WRAPPER = """\
#!/bin/sh
case "$1 $2" in
"exec --interactive")
  echo "$*" | grep -q "node openclaw" && exec "$0-fake" "$@"
  echo "words: $* program: $(cat | head -n 1)"; exit 0 ;;
"exec openclaw-gateway")
  test "$6" = gateway-environment && printf 'not UTF-8: \\377\\n' && exit 0
  test "$3" = sha256sum && printf '<b>&"\\033\\357\\277\\277]]>\\n' && exit 1 ;;
"exec openclaw-proxy")
  test "$3" = python3 || exit 1
  shift 4; program=$1; shift
  echo "words: $* program: $(echo "$program" | head -n 1)"; exit 0 ;;
esac
exec "$0-fake" "$@"
"""


def test_each_check_runs_its_program_on_its_host_or_container(run, tmp_path):
    (tmp_path / "openclaw").mkdir()
    (tmp_path / "openclaw" / "compose.yml").write_text("services: {openclaw-gateway: {}}\n")
    compose = {"services": {"openclaw-gateway": {"command": ["node", "dist/index.js"], "ports": []}}}
    bin_ = tmp_path / "bin"
    Docker(bin_, compose=compose, containers={"openclaw-proxy": "healthy", "openclaw-gateway": "unhealthy"})
    (bin_ / "docker").rename(bin_ / "docker-fake")
    (bin_ / "docker").write_text(WRAPPER)
    (bin_ / "docker").chmod(0o755)
    variables = {
        "openclaw_egress_home": f"{tmp_path}/home",
        "openclaw_egress_state_dir": f"{tmp_path}/state",
        "openclaw_egress_compose_dir": f"{tmp_path}/openclaw",
        "openclaw_gateway_build_script": f"{tmp_path}/build.sh",
        "openclaw_proxy_loki_address": "127.0.0.1",
        "openclaw_proxy_loki_port": 9,
        "openclaw_proxy_otlp_logs_endpoint": "http://127.0.0.1:8/v1/logs",
        "openclaw_gateway_enforcement": "network",
        "openclaw_egress_verify_file": f"{tmp_path}/report.json",
        "openclaw_egress_verify_junit": f"{tmp_path}/report.xml",
        "ansible_connection": "local",
        "ansible_become": False,
    }
    # Replace `sleep`, so that checks that wait end immediately.
    (bin_ / "sleep").write_text("#!/bin/sh\n")
    (bin_ / "sleep").chmod(0o755)
    # The second host fails before its checks, so it has no report of its own.
    interpreters = {"one": "auto_silent", "two": "/nonexistent"}
    hosts = {name: {"ansible_python_interpreter": python} for name, python in interpreters.items()}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (tmp_path / "play.yml").write_text(PLAY)
    path = os.pathsep.join([str(bin_), str(BIN), os.environ["PATH"]])
    done = run(
        "ansible-playbook", "-i", str(tmp_path / "hosts.json"), "-e", json.dumps(variables), str(tmp_path / "play.yml"),
        PATH=path,
    )  # fmt: skip
    assert done.returncode != 0, done.stdout
    assert (tmp_path / "report.json").exists(), done.stdout + done.stderr
    report, lost = json.loads((tmp_path / "report.json").read_text())
    assert lost == {"host": "two", "passed": False, "checks": []}
    found = {each["id"]: each for each in report["checks"]}
    assert found["proxy-healthy"]["passed"] and found["proxy-healthy"]["found"] == "openclaw-proxy is healthy"
    assert not found["gateway-healthy"]["passed"] and found["gateway-healthy"]["remedy"]
    assert not report["passed"] and "The gateway runs and is healthy" in done.stdout
    # The program of `spool-drained` is real, because this check runs on the host. It cannot parse the output of the
    # fake `docker exec`, so the check fails.
    assert found["spool-drained"]["found"] == "could not be checked: docker exec openclaw-proxy: no usable output"
    in_gateway = r"words: exec --interactive {} ?openclaw-gateway node {} ?- {} program: // .+"
    bootstrap = "--require /app/proxy-bootstrap.cjs"
    for name, words in {
        "llm-request": ("", bootstrap, r"https://\S+/v1/models\?egress-verify=[a-z0-9]{12}"),
        "other-tls-tunnelled": ("--env NODE_USE_ENV_PROXY=", "", "example.com"),
        "metadata-refused": ("--env NODE_USE_ENV_PROXY=", "", "169.254.169.254:443"),
        "gateway-clients": ("", bootstrap, "network"),
        "enforcement-bypass": (
            "",
            "",
            r"http://127.0.0.1:9 http://\S+:22 http://\S+:8080 http://169.254.169.254:80 http://1.1.1.1:443",
        ),
    }.items():
        pattern = in_gateway.format(*words).replace("  ", " ")
        assert re.fullmatch(pattern, found[name]["found"]), (name, found[name]["found"])
    assert re.fullmatch(r'words: 127[.]0[.]0[.]1 8082 program: """.+', found["sandbox-refused"]["found"])
    assert "loki-direct" not in found and "enforcement-firewall" in found
    assert not found["gateway-environment"]["passed"]
    assert "invalid UTF8" in found["gateway-environment"]["found"]
    suites = ElementTree.parse(tmp_path / "report.xml").getroot().findall("testsuite")
    assert [suite.get("name") for suite in suites] == ["one", "two"]
    failed = {case.get("name") for case in suites[0] if case.find("failure") is not None}
    assert failed == {each["id"] for each in report["checks"] if not each["passed"]} and len(suites[0]) == len(found)
    assert suites[1].get("failures") == "1" and suites[1].find("testcase").get("name") == "host-checked"
    assert suites[1].find("testcase/failure") is not None
    messages = {case.get("name"): case.find("failure").get("message") for case in suites[0] if case[0].tag == "failure"}
    assert messages["gateway-bootstrap"] == '<b>&"??]]>'


@pytest.mark.parametrize("limit", [[], ["--limit", "one"]])
def test_reports_of_an_earlier_run_are_removed_if_no_host_is_reached(run, tmp_path, limit):
    reports = {"openclaw_egress_verify_file": "report.json", "openclaw_egress_verify_junit": "report.xml"}
    for name in reports.values():
        (tmp_path / name).write_text("of an earlier run")
    local = {"ansible_connection": "local", "ansible_become": False}
    hosts = {"openclaw_gateways": {"hosts": {"one": {"ansible_python_interpreter": "/nonexistent"}}}}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": local, "children": hosts}}))
    variables = {name: f"{tmp_path}/{file}" for name, file in reports.items()}
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    done = run(
        "ansible-playbook", "-i", str(tmp_path / "hosts.json"), "-e", json.dumps(variables),
        "playbooks/verify.yml", *limit, PATH=path,
    )  # fmt: skip
    assert done.returncode != 0, done.stdout
    assert [name for name in reports.values() if (tmp_path / name).exists()] == [], done.stdout


def test_run_without_a_check_fails(run, tmp_path):
    compose = {"services": {"openclaw-gateway": {"command": ["node", "dist/index.js"], "ports": []}}}
    Docker(tmp_path / "bin", compose=compose, containers={"openclaw-proxy": "healthy", "openclaw-gateway": "healthy"})
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "openclaw").mkdir()
    (tmp_path / "openclaw" / "compose.yml").write_text("services: {openclaw-gateway: {}}\n")
    variables = {
        "openclaw_egress_home": f"{tmp_path}/home",
        "openclaw_egress_state_dir": f"{tmp_path}/state",
        "openclaw_egress_compose_dir": f"{tmp_path}/openclaw",
        "openclaw_gateway_build_script": f"{tmp_path}/build.sh",
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": "auto_silent",
        "__openclaw_gateway_verify_checks": [],
    }
    path = os.pathsep.join([str(tmp_path / "bin"), str(BIN), os.environ["PATH"]])
    done = run("ansible-playbook", "-i", "one,", "-e", json.dumps(variables), str(tmp_path / "play.yml"), PATH=path)
    assert done.returncode != 0 and "No check of one ran" in " ".join(done.stdout.split()), done.stdout
