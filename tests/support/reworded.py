"""A patch for tests that replaces every reason and remedy, to show that no code parses or compares their text.

The patch replaces each reason by its code. It replaces every remedy by the same text, so that code that compares two
remedies fails too. ``test_reworded.py`` runs tests with ``EGRESS_TEST_REWORDED=1``, which installs the patch.
"""

import functools
import inspect
import os
from typing import Any

VARIABLE = "EGRESS_TEST_REWORDED"
REMEDY = "remedy"


def install_if_asked() -> None:
    """Replace all reasons and remedies if ``EGRESS_TEST_REWORDED`` is set.

    Call this before modules such as ``listeners`` and ``audit`` import a replaced function such as ``refusal``.
    """
    if os.environ.get(VARIABLE):
        _replace_reasons()
        _replace_remedies()


def _replace_reasons() -> None:
    from openclaw_egress.policy import codes

    codes._SENTENCES.update({code: str(code) for code in codes.Code})
    codes._SUMMARY = "summary"


def _replace_remedies() -> None:
    from openclaw_egress import certificates
    from openclaw_egress.advice.remediation import Remedy
    from openclaw_egress.export import otlp_client
    from openclaw_egress.policy.yaml_reader import FileError
    from openclaw_egress.proxy import error_responses
    from openclaw_egress.spool import schema

    for owner, function, parameter in (
        (FileError, "__init__", "remedy"),
        (Remedy, "__init__", "advice"),
        (error_responses, "refusal", "remedy"),
        (certificates, "_read", "remedy"),
        (certificates, "_certificates_in", "remedy"),
        (certificates, "_key_in", "remedy"),
    ):
        _replace_argument(owner, function, parameter)
    schema._remedy = lambda name, path: REMEDY

    # Import these modules only now, because they import functions that are replaced above.
    from openclaw_egress.app import listeners
    from openclaw_egress.cli import app, audit

    for table in (otlp_client.REMEDIES, listeners._REMEDIES, app._ADVICE, audit._REMEDIES):
        table.update({key: REMEDY for key, text in table.items() if text})


def _replace_argument(owner: Any, function: str, parameter: str) -> None:
    """Wrap a function so that `REMEDY` replaces the argument for this parameter, unless the argument is empty."""
    original = getattr(owner, function)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def reworded(*args: Any, **keywords: Any) -> Any:
        bound = signature.bind(*args, **keywords)
        bound.apply_defaults()
        if bound.arguments[parameter]:
            bound.arguments[parameter] = REMEDY
        return original(*bound.args, **bound.kwargs)

    setattr(owner, function, reworded)
