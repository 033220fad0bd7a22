"""A patch for tests that replaces every reason by its code, to show that no code parses a reason's text.

``test_reworded.py`` runs tests with ``EGRESS_TEST_REWORDED=1``, which installs it.
"""

import os

VARIABLE = "EGRESS_TEST_REWORDED"


def install_if_asked() -> None:
    """Replace each template by its code, if the variable is set."""
    if os.environ.get(VARIABLE):
        from openclaw_egress.policy import codes

        codes._SENTENCES.update({code: str(code) for code in codes.Code})
        codes._SUMMARY = "summary"
