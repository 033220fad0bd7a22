"""`--check --diff` on a bare host changes nothing."""

from molecule.lab.hosts import changes_since


def test_nothing_was_changed():
    assert changes_since("bare_check", "bare") == ""
