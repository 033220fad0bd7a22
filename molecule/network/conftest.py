"""The same new sandbox as in the tests of both levels."""

from molecule.classes.conftest import new_sandbox

__all__ = ["new_sandbox"]
