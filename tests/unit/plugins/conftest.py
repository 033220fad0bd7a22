"""What the tests of the collection's plugins share: the package's import path, and where the specimens are."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# The plugins import each other by the collection's name, as they do on a host.
sys.path.insert(0, str(ROOT / "collections"))
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Path:
    """Build scripts as operators have them, one for each generation, and what they become."""
    return GOLDEN
