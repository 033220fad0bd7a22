"""``egress ca create``, ``renew`` and ``show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openclaw_egress import ca
from openclaw_egress.cli.output import print_json
from openclaw_egress.cli.policies import policy_of
from openclaw_egress.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The root that clients trust, and the issuing CA that the proxy holds.")


@app.command()
def create(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where both certificates are [env: EGRESS_CA_DIR].")
    ] = None,
    root_key_dir: Annotated[
        Path | None, typer.Option(help="Where the root's key is kept; by default below EGRESS_STATE_DIR.")
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="A new issuing CA, although the old one still fits.")] = False,
) -> None:
    """Create missing certificates, and replace an issuing CA that is due or does not fit the inspected hosts.

    Prints "created" or "unchanged". The hosts are those of the policy (EGRESS_POLICY_FILE) or of PROXY_LLM_HOSTS.
    """
    settings = Settings.load(ca_dir=directory)
    changed = ca.create(
        settings.effective_ca_dir,
        root_key_dir or settings.state_dir / "root",
        policy_of(settings).inspect,
        force_issuing=renew,
    )
    typer.echo("created" if changed else "unchanged")


@app.command()
def renew(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Directory of both certificates [env: EGRESS_CA_DIR].")
    ] = None,
    root_key_dir: Annotated[
        Path | None, typer.Option(help="Directory of the root's key; by default below EGRESS_STATE_DIR.")
    ] = None,
) -> None:
    """Replace the issuing CA now. A running proxy serves the new one within seconds; the root stays."""
    create(directory, root_key_dir, renew=True)


@app.command()
def show(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where both certificates are [env: EGRESS_CA_DIR].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Show both certificates, their expiry dates, and the hosts that the issuing CA may sign for."""
    info = ca.show(Settings.load(ca_dir=directory).effective_ca_dir)
    if as_json:
        print_json(
            {
                "directory": str(info.directory),
                "root_subject": info.root_subject,
                "root_sha256": info.root_sha256,
                "root_expires": info.root_expires.isoformat(),
                "issuing_expires": info.issuing_expires.isoformat(),
                "names": info.names,
            }
        )
        return
    typer.echo(f"root     {info.root_subject}, valid until {info.root_expires:%Y-%m-%d}")
    typer.echo(f"         sha256 {info.root_sha256}")
    typer.echo(f"issuing  valid until {info.issuing_expires:%Y-%m-%d}, for {', '.join(info.names)}")
    typer.echo(
        f"files    {info.directory / ca.ROOT_CERT_FILE} (clients trust this one), {info.directory / ca.ISSUING_FILE}"
    )
