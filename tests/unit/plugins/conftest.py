"""Setup of the import path, so that tests can import the collection's plugins."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# The plugins import each other by the name of the collection, so make it importable by this name.
sys.path.insert(0, str(ROOT / "collections"))
