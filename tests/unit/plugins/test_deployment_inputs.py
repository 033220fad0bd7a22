"""Test that each input of `tests/deployments` names tests that exist. `python -m tests.deployments` runs them."""

from pathlib import Path

import pytest

from tests.deployments.__main__ import ids_of, read_inputs

ROOT = Path(__file__).parents[3]
FOLDER = Path(__file__).parent


def test_inputs_are_numbered_without_gaps():
    assert sorted(read_inputs()) == list(range(1, 19))


@pytest.mark.parametrize("number", read_inputs())
def test_each_named_test_exists(number):
    entry = read_inputs()[number]
    assert ids_of(entry)
    for name in ids_of(entry):
        file, _, function = name.partition("::")
        assert f"def {function.partition('[')[0]}(" in (ROOT / file).read_text(), name
    assert all((FOLDER / "golden/plans" / f"{name}.yml").exists() for name in entry.get("plans", []))
    assert all((FOLDER / "build_scripts" / f"{name}.sh").exists() for name in entry.get("scripts", []))
