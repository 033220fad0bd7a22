"""The entry point of ``python -m openclaw_egress``, which runs the ``egress`` command."""

from openclaw_egress.cli import main

main()
