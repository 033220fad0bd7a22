"""Tests of the settings that the proxy reads from environment variables."""

import pytest

from openclaw_egress.settings import Settings, SettingsError

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


@pytest.mark.parametrize(("value", "expected"), [("off", 0), ("0", 0), ("900000", 900_000)])
def test_pace_of_the_export_is_bytes_per_second_or_off(monkeypatch: pytest.MonkeyPatch, value: str, expected: int):
    monkeypatch.setenv("EGRESS_EXPORT_MAX_BYTES_PER_SECOND", value)
    assert Settings.load().export_max_bytes_per_second == expected


@pytest.mark.parametrize("value", ["3", "2.5", "-1", "2MB"])
def test_pace_that_is_not_in_bytes_is_refused(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("EGRESS_EXPORT_MAX_BYTES_PER_SECOND", value)
    with pytest.raises(SettingsError, match="EGRESS_EXPORT_MAX_BYTES_PER_SECOND"):
        Settings.load()
