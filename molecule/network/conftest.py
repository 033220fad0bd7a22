"""Import of the fixture `new_sandbox`, which is shared with the scenario `classes`."""

from molecule.classes.conftest import new_sandbox

__all__ = ["new_sandbox"]
