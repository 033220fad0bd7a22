"""``egress ui``: the read-only web page over the spool."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from openclaw_egress.cli.health_check import ask
from openclaw_egress.settings import UI_PORT, Settings
from openclaw_egress.spool.reader import SpoolReader


def register(app: typer.Typer) -> None:
    """Register the command `ui`."""
    app.command()(ui)


def ui(
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help=f"Serve on this port of 127.0.0.1; by default {UI_PORT} [env: EGRESS_UI_PORT]."
        ),
    ] = None,
) -> None:
    """Serve a read-only web page over the spool until Ctrl-C, and print its address.

    The page is on loopback only. From another machine, open an SSH tunnel to the port. The address contains a token
    that is new at each start; do not share it, because it shows all records.
    """
    import asyncio  # noqa: PLC0415

    from openclaw_egress.proxy.resolver import is_own_address  # noqa: PLC0415
    from openclaw_egress.ui import access, server  # noqa: PLC0415  (no other command needs tornado and Jinja)
    from openclaw_egress.ui.handler import Page  # noqa: PLC0415

    settings = Settings.load(ui_port=port)
    token = access.new_token()

    def ready(bound: int) -> None:
        typer.echo(f"egress ui: http://{server.HOST}:{bound}/#token={token}")

    with SpoolReader(settings.spool_path) as reader:
        page = Page(reader, token, settings, partial(ask, "/readyz"), is_own_address)
        asyncio.run(server.serve(page, settings.ui_port, ready))
