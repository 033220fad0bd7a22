"""``python -m openclaw_egress`` is the ``egress`` command."""

from openclaw_egress.cli import main

main()
