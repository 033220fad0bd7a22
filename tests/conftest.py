"""What holds for every test."""

import os

from hypothesis import settings

# Speed is measured by `make bench`. In CI the same examples in each run: what random ones find belongs on a desk.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
