"""Tests of the dashboards and alert rules that the role loki_otlp writes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.ansible.conftest import ROOT
from tests.playbooks.test_loki import Vps2
from tests.support.loki import FakeLoki

pytestmark = pytest.mark.timeout(1200)

FILES = ROOT / "roles" / "loki_otlp" / "files"
DASHBOARDS = "grafana/dashboards/openclaw-egress"
WRITTEN = {
    f"{DASHBOARDS}.yml",
    *(f"{DASHBOARDS}/{name}.json" for name in ("traffic", "usage", "health")),
    "rules/openclaw_egress.rules.yml",
}


@pytest.fixture
def vps2(run, tmp_path) -> Iterator[Vps2]:
    (tmp_path / "grafana").mkdir()
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "ours.yml").write_text("groups: []\n")
    with FakeLoki() as loki:
        yield Vps2(run, tmp_path, loki)


def named(vps2: Vps2) -> dict[str, str]:
    """Return role variables that set both directories, and two reload commands that each create a file."""
    return {
        "loki_otlp_grafana_provisioning_dir": f"{vps2.at}/grafana/",
        "loki_otlp_grafana_reload_command": f"touch {vps2.at}/grafana-reloaded",
        "loki_otlp_prometheus_rules_dir": f"{vps2.at}/rules",
        "loki_otlp_prometheus_reload_command": f"touch {vps2.at}/prometheus-reloaded",
    }


def files(at: Path) -> set[str]:
    return {
        str(path.relative_to(at))
        for name in ("grafana", "rules")
        for path in (at / name).rglob("*")
        if path.is_file() and path.name != "ours.yml"
    }


def reloaded(vps2: Vps2) -> list[str]:
    """Return the programs that were reloaded since the last call."""
    found = sorted(vps2.at.glob("*-reloaded"))
    for path in found:
        path.unlink()
    return [path.name.removesuffix("-reloaded") for path in found]


def test_files_are_written_to_the_configured_directories_and_removed_again(vps2):
    assert vps2.good("--check", "--diff", **named(vps2)) > 0
    assert files(vps2.at) == set() and not vps2.manifest.exists()
    assert vps2.good(**named(vps2)) > 0
    assert files(vps2.at) == WRITTEN
    assert reloaded(vps2) == ["grafana", "prometheus"]
    for path in FILES.rglob("*.json"):
        assert (vps2.at / DASHBOARDS / path.name).read_bytes() == path.read_bytes()
    provider = (vps2.at / f"{DASHBOARDS}.yml").read_text()
    assert (
        yaml.safe_load(provider)["providers"][0]["options"]["path"]
        == "/etc/grafana/provisioning/dashboards/openclaw-egress"
    )
    assert vps2.good("--check", **named(vps2)) == 0

    # If the operator empties a variable, the role removes its files from that directory.
    without_rules = named(vps2) | {"loki_otlp_prometheus_rules_dir": ""}
    assert vps2.good(**without_rules) > 0
    assert files(vps2.at) == {path for path in WRITTEN if path.startswith("grafana")}
    assert (vps2.at / "rules" / "ours.yml").exists()

    # The rollback keeps an edited file, and reports its name.
    edited = vps2.at / DASHBOARDS / "usage.json"
    edited.write_text("{}")
    reloaded(vps2)
    done = vps2.play("playbooks/rollback.yml", "--limit", "two", **without_rules)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Left in place, because somebody edited them after the deployment: {edited}" in done.stdout
    assert files(vps2.at) == {f"{DASHBOARDS}/usage.json"} and not vps2.manifest.exists()
    assert "grafana" in reloaded(vps2)


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [("loki_otlp_grafana_provisioning_dir", "/nowhere"), ("loki_otlp_prometheus_rules_dir", "rules")],
)
def test_directory_that_does_not_exist_is_an_error_before_any_change(vps2, variable, wrong):
    said = vps2.bad(**named(vps2) | {variable: wrong})
    assert "Nothing was changed." in said and f"{variable} is {wrong}, which is not the absolute path" in said
    assert files(vps2.at) == set() and not vps2.manifest.exists()
