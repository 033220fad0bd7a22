"""Fixtures of these tests and of the scenario `network`."""

import pytest

from molecule.lab.hosts import agent_turn, openclaw


@pytest.fixture(scope="session", autouse=True)
def new_sandbox():
    """Remove the sandbox, as the role advises after a change; OpenClaw creates the next one."""
    openclaw("sandbox", "recreate", "--all", "--force")
    agent_turn("hello")
