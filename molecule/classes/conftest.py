"""What these tests stand on, and those of the scenario `network`."""

import pytest

from molecule.lab.hosts import agent_turn, openclaw


@pytest.fixture(scope="session", autouse=True)
def new_sandbox():
    """As the role says to do after a change; OpenClaw makes the next one by itself."""
    openclaw("sandbox", "recreate", "--all", "--force")
    agent_turn("hello")
