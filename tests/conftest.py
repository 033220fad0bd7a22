"""Settings for all tests."""

import os

from hypothesis import settings

from tests.support import reworded

# Set no deadline, because `make bench` measures speed. In CI, use the same examples each time; local runs use random
# ones.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

reworded.install_if_asked()
