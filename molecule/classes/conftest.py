"""Fixtures of these tests and of the scenario `network`."""

import pytest

from molecule.lab.hosts import recreate_sandbox


@pytest.fixture(scope="session", autouse=True)
def new_sandbox():
    """Remove the sandbox, as the role advises after a change; OpenClaw creates the next one."""
    recreate_sandbox()
