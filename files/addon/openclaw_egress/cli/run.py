"""``egress run``, ``health`` and ``status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openclaw_egress.cli.formatting import BAD_INPUT, NEGATIVE, print_json
from openclaw_egress.cli.health_check import ask, check, health_url
from openclaw_egress.reports.text import escape, size

if TYPE_CHECKING:
    from openclaw_egress.reports.status import Status

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def register(app: typer.Typer) -> None:
    """Register the commands `run`, `health` and `status`."""
    app.command()(run)
    app.command()(health)
    app.command()(status)


def run(
    policy: Annotated[
        Path | None,
        typer.Option(help="Use this policy file; by default the built-in policy [env: EGRESS_POLICY_FILE]."),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            help="Store the spool and the CA here; by default ~/.local/state/openclaw-egress [env: EGRESS_STATE_DIR]."
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Send records to this URL over OTLP/HTTP; by default they stay in the spool "
            "[env: OTEL_EXPORTER_OTLP_LOGS_ENDPOINT]."
        ),
    ] = None,
    listen_host: Annotated[
        str | None, typer.Option(help="Listen on this address; by default 127.0.0.1 [env: EGRESS_LISTEN_HOST].")
    ] = None,
    health_port: Annotated[
        int | None, typer.Option(help="Serve /healthz on this port; by default 9464 [env: EGRESS_HEALTH_PORT].")
    ] = None,
) -> None:
    """Run the proxy until SIGTERM or SIGINT; SIGHUP reloads the policy.

    By default it listens on loopback, allows class gateway every public name, and keeps all records on this machine.
    """
    import logging  # noqa: PLC0415
    import signal  # noqa: PLC0415

    # Ignore SIGHUP during start-up, because its default action would end the proxy.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from openclaw_egress.app.launcher import serve  # noqa: PLC0415  (mitmproxy takes a second to load)
    from openclaw_egress.app.service import Service  # noqa: PLC0415
    from openclaw_egress.settings import Settings  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    serve(
        Service(
            Settings.load(
                policy_file=policy,
                state_dir=state_dir,
                logs_endpoint=endpoint,
                listen_host=listen_host,
                health_port=health_port,
            )
        )
    )


def health() -> None:
    """Check whether the running proxy is healthy.

    Docker's health check runs this in the proxy's container. Exit codes: 0 healthy; 1 unhealthy.
    """
    raise typer.Exit(check())


def status(as_json: JSON = False) -> None:
    """Show the state of proxy, spool, export and certificates.

    Exit codes: 0 healthy; 1 a problem, or no running proxy; 2 this user cannot read the spool.
    """
    from openclaw_egress.reports.status import status_of  # noqa: PLC0415
    from openclaw_egress.settings import Settings  # noqa: PLC0415

    settings = Settings.load()
    found = status_of(settings, ask("/readyz"))
    if as_json:
        print_json(found.as_json())
    else:
        _print_status(found)
    if _is_forbidden(settings.spool_path):
        raise typer.Exit(BAD_INPUT)
    if found.problems or not found.report.get("ok"):
        raise typer.Exit(NEGATIVE)


def _is_forbidden(path: Path) -> bool:
    """Return whether this user lacks the permission to read the spool."""
    import os  # noqa: PLC0415

    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK)


def _direct(no_proxy: list[str]) -> str:
    return f", except {escape(', '.join(no_proxy))}" if no_proxy else ""


def _print_status(found: Status) -> None:
    problems, spool = found.problems, found.spool
    if found.running is None:
        typer.echo(f"proxy    not running (no proxy responds on {health_url()})")
    else:
        policy = escape(found.report.get("policy"))
        typer.echo(f"proxy    running, policy {policy}{', with problems' if problems else ''}")
    for problem in problems:
        # Escape the text, because a problem may quote the destination's response.
        typer.echo(f"problem  {escape(problem)}")
    for warning in found.report.get("warnings", []):
        typer.echo(f"warning  {escape(warning)}")
    if upstream := found.report.get("upstream_proxy"):
        typer.echo(f"upstream {escape(upstream['url'])}{_direct(upstream['no_proxy'])}")
    if export := found.report.get("export"):
        typer.echo(
            f"export   {export['status']}, to {escape(export['endpoint'])}; {export['pushed_records']} lines pushed"
        )
    if spool is not None:
        typer.echo(
            f"spool    {found.kept_lines} lines kept ({size(found.used_bytes)}), {spool['pending_records']} waiting, "
            f"{spool['acknowledged_records']} acknowledged, {spool['dead_letter_records']} dead letters, "
            f"{spool['open_exchanges']} exchanges in progress"
        )
    if dead := found.dead_letters:
        reasons = ", ".join(f"{count} {code}" for code, count in dead.items())
        typer.echo(f"dead     {reasons} (`egress dead-letter list` shows the lines)")
    if (authority := found.ca) is not None:
        what = "served" if found.running is not None else "on disk"
        until, root = str(authority["issuing_expires"])[:10], str(authority["root_expires"])[:10]
        typer.echo(f"ca       issuing certificate ({what}) valid until {until}, root until {root}")
