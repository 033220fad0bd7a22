"""Tests of files that only tools read: changelog fragments, the ignore files of ansible-test, and workflows."""

import re

import yaml

from tests.integration.ansible.conftest import ROOT

IGNORE_FILES = sorted((ROOT / "tests" / "sanity").glob("ignore-*.txt"))


def test_every_ignored_sanity_finding_has_a_reason():
    assert IGNORE_FILES
    for file in IGNORE_FILES:
        for line in file.read_text().splitlines():
            assert re.fullmatch(r"\S+ [a-z-]+(:[a-z0-9-]+|!skip)? # \S.+", line), f"{file.name}: {line}"


def test_sanity_versions_are_the_same_in_every_file():
    default = re.search(r"set -- ([\d. ]+)$", (ROOT / "tools" / "sanity.sh").read_text(), re.MULTILINE)
    assert default
    versions = default[1].split()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["sanity"]["strategy"]["matrix"]["ansible-core"] == versions
    assert [file.stem.removeprefix("ignore-") for file in IGNORE_FILES] == versions
    supported = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["requires_ansible"]
    assert supported == f">={versions[0]}.0"


def test_every_changelog_entry_starts_with_its_area():
    for file in (ROOT / "changelogs" / "fragments").glob("*.yml"):
        for entries in yaml.safe_load(file.read_text()).values():
            for entry in entries:
                assert re.match(r"[a-z_]+ - \S.*\.$", entry, re.DOTALL), f"{file.name}: {entry}"


def test_actionlint_has_the_same_version_in_every_file():
    files = (ROOT / ".github" / "workflows" / "ci.yml", ROOT / ".pre-commit-config.yaml")
    versions = {version for file in files for version in re.findall(r"actionlint@(v[\d.]+)", file.read_text())}
    assert len(versions) == 1
