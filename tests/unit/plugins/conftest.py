"""Shared setup of the tests of the collection's plugins: the import path."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# The plugins import each other by the collection's name, as on a host.
sys.path.insert(0, str(ROOT / "collections"))
