"""Import of the fixture `new_sandbox`, which the scenarios `classes` and `network` share."""

from molecule.classes.conftest import new_sandbox

__all__ = ["new_sandbox"]
