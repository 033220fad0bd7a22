"""Settings for all tests."""

import os

import pytest
from hypothesis import settings

from tests.support import reworded

# Set no deadline, because `make bench` measures speed. In CI, use the same examples each time; local runs use random
# ones.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

reworded.install_if_asked()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest test first, so that the other workers do not wait for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_reworded.py")
