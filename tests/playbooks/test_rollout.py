"""Tests of the rollout of site.yml to several hosts: batches, failed and unreachable hosts, and the report.

The playbooks are real. Stubs replace the roles' tasks: they create the manifest, and fail where the inventory sets
``stub_fails``.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.integration.ansible.conftest import ROOT, Run

# Set a long timeout, because each run starts about ten processes for each host.
pytestmark = pytest.mark.timeout(1200)

ROLES = ("loki_otlp", "openclaw_proxy", "openclaw_gateway")
UNREACHABLE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


def tasks_of(role: str) -> dict[str, list[dict]]:
    """Return the stub task files of a role. A stub fails if the host's variable ``stub_fails`` names it."""
    fail = {"ansible.builtin.fail": {"msg": f"{role} is broken here"}}
    manifest = {"path": "{{ openclaw_egress_state_dir }}/manifest.json", "mode": "0600"}
    return {
        "preflight": [fail | {"when": f"stub_fails == '{role} preflight'"}],
        "verify": [fail | {"when": f"stub_fails == '{role} verify'"}],
        "main": [
            {"ansible.builtin.ping": {}},
            {"ansible.builtin.file": manifest | {"state": "touch"}, "when": "role_name != 'loki_otlp'"},
            fail | {"when": f"stub_fails == '{role}'"},
        ],
        "rollback": [
            {
                "ansible.builtin.file": {"path": manifest["path"], "state": "absent"},
                "when": f"'{role}' == 'openclaw_proxy'",
            },
            fail | {"when": f"stub_fails_rollback == '{role}'"},
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the collection with stub roles.

    The stubs create and remove the manifest, and fail where the inventory sets ``stub_fails``.
    """
    collections = tmp_path_factory.mktemp("checkout") / "collections"
    copy = collections / "ansible_collections" / "openclaw" / "egress"
    ignored = shutil.ignore_patterns("collections", "files", "templates")
    for folder in ("roles", "playbooks", "meta"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for name in ("site.yml", "galaxy.yml"):
        shutil.copy(ROOT / name, copy)
    (copy / "plugins").symlink_to(ROOT / "plugins")
    for role in ROLES:
        for name, tasks in tasks_of(role).items():
            (copy / "roles" / role / "tasks" / f"{name}.yml").write_text(yaml.safe_dump(tasks))
    return copy


@dataclass
class Rollout:
    """The outcome of one run of site.yml."""

    code: int
    output: str
    states: dict[str, str]
    """State of each gateway in the report file; empty if there is no report."""
    errors: dict[str, str]


@pytest.fixture
def rollout(run: Run, checkout: Path, tmp_path: Path):
    """Return a function that runs site.yml on gateways with the given variables.

    Each gateway has its own state directory.
    """

    def call(gateways: dict[str, dict], *words: str, loki: dict[str, dict] | None = None) -> Rollout:
        for name, variables in gateways.items():
            directory = tmp_path / name
            directory.mkdir(exist_ok=True)
            variables.setdefault("openclaw_egress_state_dir", str(directory))
        common = {
            "ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "auto_silent",
            "stub_fails": "", "stub_fails_rollback": "",
        }  # fmt: skip
        groups = {"openclaw_gateways": {"hosts": gateways}, "openclaw_loki": {"hosts": loki or {"loki": {}}}}
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": common, "children": groups}}))
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        done = run(
            "ansible-playbook", "-i", str(tmp_path / "hosts.json"), "site.yml",
            "-e", f"openclaw_egress_rollout_file={report}", *words,
            cwd=checkout, collections=checkout.parents[2], ANSIBLE_SSH_RETRIES="0", ANSIBLE_TIMEOUT="5",
        )  # fmt: skip
        hosts = json.loads(report.read_text())["hosts"] if report.exists() else []
        return Rollout(
            done.returncode,
            done.stdout + done.stderr,
            {host["host"]: host["state"] for host in hosts},
            {host["host"]: host["error"] for host in hosts},
        )

    return call


def deployed(tmp_path: Path, *names: str) -> list[bool]:
    return [(tmp_path / name / "manifest.json").exists() for name in names]


def test_failing_host_does_not_stop_the_other_hosts_of_its_batch(rollout, tmp_path):
    # Seven hosts: batches of one, two and four.
    done = rollout(
        {
            "one": {},
            "two": {},
            "three": {},
            "four": {"stub_fails": "openclaw_gateway"},
            "five": {"stub_fails": "openclaw_gateway", "openclaw_egress_put_back": False},
            "six": {"stub_fails": "openclaw_proxy", "stub_fails_rollback": "openclaw_gateway"},
            "seven": dict(UNREACHABLE),
        }
    )
    assert done.code != 0
    changed = dict.fromkeys(("four", "five", "six", "seven"), "failed") | {"four": "put back"}
    assert done.states == dict.fromkeys(("one", "two", "three"), "verified") | changed
    assert "openclaw_gateway is broken here" in done.errors["four"]
    assert "Putting the host back failed as well" in done.errors["six"] and "rollback.yml" in done.errors["six"]
    assert "unreachable" in done.errors["seven"]
    assert deployed(tmp_path, *done.states) == [True, True, True, False, True, True, False]


@pytest.mark.parametrize(
    ("broken", "state", "error"),
    [
        ({"stub_fails": "openclaw_gateway"}, "put back", "openclaw_gateway is broken here"),
        ({"stub_fails": "openclaw_gateway verify"}, "put back", "openclaw_gateway is broken here"),
        (UNREACHABLE, "failed", "the host is unreachable"),
    ],
    ids=["broken", "check", "unreachable"],
)
def test_no_host_is_deployed_after_the_first_host_failed(rollout, tmp_path, broken, state, error):
    done = rollout({"one": dict(broken), "two": {}, "three": {}})
    assert done.code != 0
    assert done.states == {"one": state, "two": "failed", "three": "failed"}
    assert error in done.errors["one"]
    assert "Nothing was changed here: the rollout stopped after one" in done.errors["two"]
    assert deployed(tmp_path, "one", "two", "three") == [False, False, False]


def test_gateways_of_an_unreachable_loki_are_not_changed(rollout, tmp_path):
    loki = {"loki": {}, "away": dict(UNREACHABLE)}
    done = rollout({"one": {}, "two": {"openclaw_proxy_loki_host": "away"}}, loki=loki)
    assert done.code != 0
    assert deployed(tmp_path, "one", "two") == [done.states.get("one") == "verified", False], done.output


def test_host_is_not_reported_as_verified_without_the_checks(rollout, tmp_path):
    hosts = {"one": {"stub_fails": "openclaw_gateway verify"}, "two": {}}
    done = rollout(hosts, "-e", "openclaw_egress_rollout_verify=false")
    assert done.code == 0, done.output
    assert done.states == {"one": "deployed", "two": "deployed"}
    assert deployed(tmp_path, "one", "two") == [True, True]


def test_check_mode_does_not_report_a_deployment(rollout, tmp_path):
    done = rollout({"one": {}, "two": {"stub_fails": "openclaw_gateway"}}, "--check")
    assert done.states["one"] == "checked" and done.states["two"] != "deployed"
    assert deployed(tmp_path, "one", "two") == [False, False]


def test_a_host_with_an_earlier_deployment_is_not_rolled_back(rollout, tmp_path):
    assert rollout({"one": {}}).code == 0
    done = rollout({"one": {"stub_fails": "openclaw_proxy"}})
    assert done.code != 0
    assert done.states == {"one": "failed"}
    assert deployed(tmp_path, "one") == [True]


def test_gateway_whose_loki_is_on_another_gateway_is_deployed(rollout, tmp_path):
    both = {"loki_otlp_state_dir": f"{tmp_path}-loki", "openclaw_egress_state_dir": str(tmp_path / "one")}
    gateways = {"one": dict(both), "two": {"openclaw_proxy_loki_host": "one"}}
    done = rollout(gateways, loki={"one": dict(both)})
    assert done.states == {"one": "verified", "two": "verified"}, done.output


def test_limit_checks_the_inventory_as_well(rollout, tmp_path):
    done = rollout({"one": {"openclaw_proxy_loki_host": "nowhere"}, "two": {}}, "--limit", "one")
    assert done.code != 0
    assert "is not a host of the group openclaw_loki" in " ".join(done.output.split())
    assert deployed(tmp_path, "one") == [False]


def test_host_in_both_groups_needs_two_state_directories(rollout, tmp_path):
    both = {"openclaw_egress_state_dir": str(tmp_path), "loki_otlp_state_dir": f"{tmp_path}/"}
    done = rollout({"one": both}, loki={"one": both})
    assert done.code != 0
    assert "Set loki_otlp_state_dir of this host to another one" in " ".join(done.output.split())
    both["loki_otlp_state_dir"] = f"{tmp_path}-loki"
    assert rollout({"one": both}, loki={"one": both}).code == 0


def test_default_state_directories_of_a_host_of_both_groups_differ(rollout):
    """Run in check mode, in which the stub roles change nothing."""
    default = {"openclaw_egress_state_dir": "/var/lib/openclaw-egress"}
    assert rollout({"one": default}, "--check", loki={"one": {}}).code == 0
