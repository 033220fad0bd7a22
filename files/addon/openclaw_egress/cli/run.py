"""``egress run``, ``health`` and ``status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openclaw_egress.cli.formatting import BAD_INPUT, NEGATIVE, escape, print_json, size
from openclaw_egress.cli.health_check import ask, check, health_url

if TYPE_CHECKING:
    from openclaw_egress.certificates import CAInfo

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
        typer.Option(help="Keep spool and CA here; by default ~/.local/state/openclaw-egress [env: EGRESS_STATE_DIR]."),
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

    # A SIGHUP during start-up must not end the proxy.
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
    """Check whether the proxy serves.

    Docker's health check runs this in the proxy's container. Exit code 0 or 1.
    """
    raise typer.Exit(check())


def status(as_json: JSON = False) -> None:
    """Show the state of proxy, spool, export and certificates.

    Exit code 0 healthy, 1 a problem or no running proxy, 2 the spool belongs to another user.
    """
    from openclaw_egress import certificates  # noqa: PLC0415
    from openclaw_egress.settings import Settings  # noqa: PLC0415
    from openclaw_egress.spool.reader import SpoolReader  # noqa: PLC0415
    from openclaw_egress.spool.schema import SpoolError  # noqa: PLC0415

    settings = Settings.load()
    running = ask("/readyz")
    report = running or {}
    problems: list[str] = list(report.get("problems", []))
    # Report an unreadable file as a problem, and still show the other results.
    spool: dict[str, int] | None = None
    dead: dict[str, int] = {}
    try:
        with SpoolReader(settings.spool_path) as reader:
            spool, dead = reader.stats(), reader.dead_letter_counts()
    except SpoolError as error:
        problems.append(str(error))
    # Show the CA that a running proxy has in memory, because the files may be newer.
    authority: dict[str, Any] | None = report.get("ca")
    if running is None:
        try:
            info = certificates.show(settings.effective_ca_dir)
            authority = _as_json(info)
            problems += info.problems(certificates.utc_now())
        except certificates.CAError as error:
            problems.append(str(error))
    if as_json:
        print_json(
            {
                "running": running is not None,
                "ready": bool(report.get("ok")),
                "problems": problems,
                "warnings": report.get("warnings", []),
                "export": report.get("export", {}),
                "spool": spool,
                "dead_letters": dead,
                "ca": authority,
            }
        )
    else:
        _print_status(running, problems, spool, dead, authority)
    if _is_forbidden(settings.spool_path):
        raise typer.Exit(BAD_INPUT)
    if problems or not report.get("ok"):
        raise typer.Exit(NEGATIVE)


def _as_json(info: CAInfo) -> dict[str, Any]:
    return {
        "root_sha256": info.root_sha256,
        "root_expires": info.root_expires.isoformat(),
        "issuing_sha256": info.issuing_sha256,
        "issuing_expires": info.issuing_expires.isoformat(),
        "names": info.names,
    }


def _is_forbidden(path: Path) -> bool:
    """Return whether the spool belongs to another user."""
    import os  # noqa: PLC0415

    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK)


def _print_status(
    running: dict[str, Any] | None,
    problems: list[str],
    spool: dict[str, int] | None,
    dead: dict[str, int],
    authority: dict[str, Any] | None,
) -> None:
    if running is None:
        typer.echo(f"proxy    not running (no proxy responds on {health_url()})")
    else:
        typer.echo(f"proxy    running, policy {escape(running.get('policy'))}{', with problems' if problems else ''}")
    for problem in problems:
        # Escape the text, because a problem can quote the destination's response.
        typer.echo(f"problem  {escape(problem)}")
    for warning in (running or {}).get("warnings", []):
        typer.echo(f"warning  {escape(warning)}")
    if export := (running or {}).get("export"):
        typer.echo(
            f"export   {export['status']}, to {escape(export['endpoint'])}; {export['pushed_records']} lines pushed"
        )
    if spool is not None:
        kept = sum(spool[f"{state}_records"] for state in ("pending", "acknowledged", "local"))
        used = sum(value for name, value in spool.items() if name.endswith("_bytes"))
        typer.echo(
            f"spool    {kept} lines kept ({size(used)}), {spool['pending_records']} waiting, "
            f"{spool['acknowledged_records']} acknowledged, {spool['dead_letter_records']} dead letters, "
            f"{spool['open_exchanges']} exchanges in progress"
        )
    if dead:
        reasons = ", ".join(f"{count} {code}" for code, count in dead.items())
        typer.echo(f"dead     {reasons} (`egress dead-letter list` shows the lines)")
    if authority is not None:
        what = "served" if running is not None else "on disk"
        until, root = str(authority["issuing_expires"])[:10], str(authority["root_expires"])[:10]
        typer.echo(f"ca       issuing certificate ({what}) valid until {until}, root until {root}")
