"""Tests of the settings that the proxy reads from environment variables."""

import pytest

from openclaw_egress.settings import Settings

VARIABLES = {
    str(field.validation_alias.choices[0]): name  # type: ignore[union-attr]
    for name, field in Settings.model_fields.items()
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, variable: str):
    monkeypatch.delenv(variable, raising=False)
    default = getattr(Settings.load(), VARIABLES[variable])
    monkeypatch.setenv(variable, "")
    assert getattr(Settings.load(), VARIABLES[variable]) == default
