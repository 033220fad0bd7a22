"""Fixtures of the scenarios `classes` and `network`."""

import pytest

from molecule.lab.hosts import recreate_sandbox


@pytest.fixture(scope="session", autouse=True)
def new_sandbox():
    """Make OpenClaw create a new sandbox, as the role advises after a change of settings."""
    recreate_sandbox()
