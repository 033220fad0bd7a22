"""The ``egress`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command given on the command line."""
    if sys.argv[1:] == ["health"]:
        # Docker runs `egress health` every few seconds, so do not spend CPU time on the imports of the other commands.
        from openclaw_egress.cli.health_check import check  # noqa: PLC0415

        sys.exit(check())
    from openclaw_egress.cli.app import run_app  # noqa: PLC0415

    run_app()
