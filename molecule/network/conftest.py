"""The fixture for a new sandbox from the tests of both levels."""

from molecule.classes.conftest import new_sandbox

__all__ = ["new_sandbox"]
