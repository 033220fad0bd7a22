"""The import path for the tests of the collection's plugins."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# Make the collection importable by its name, because the plugins import each other by that name.
sys.path.insert(0, str(ROOT / "collections"))
