"""Shared setup of the tests of the collection's plugins: the import path, and the golden files."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# The plugins import each other by the collection's name, as on a host.
sys.path.insert(0, str(ROOT / "collections"))
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Path:
    """Return build scripts as operators have them, one per generation, with the expected result."""
    return GOLDEN
