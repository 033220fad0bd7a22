"""Test that `--check --diff` on a bare host changes nothing."""

from molecule.lab.hosts import changes_since


def test_check_mode_changes_nothing():
    assert changes_since("bare_check", "bare") == ""
