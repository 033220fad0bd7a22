"""``egress ca create``, ``renew`` and ``show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openclaw_egress import certificates
from openclaw_egress.cli.formatting import print_json
from openclaw_egress.policy.configured import configured_policy
from openclaw_egress.reports.text import escape
from openclaw_egress.settings import Settings
from openclaw_egress.signatures import PUBLIC_FILE

app = typer.Typer(no_args_is_help=True, help="Manage the root CA and the issuing CA.")

DIRECTORY = "Use the certificates in this directory; by default ca in EGRESS_STATE_DIR [env: EGRESS_CA_DIR]."
ROOT_KEY = "Use the root CA's key in this directory; by default root in EGRESS_STATE_DIR."


@app.command()
def create(
    directory: Annotated[Path | None, typer.Option("--dir", help=DIRECTORY)] = None,
    root_key_dir: Annotated[Path | None, typer.Option(help=ROOT_KEY)] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Replace the issuing CA even if it is still valid.")] = False,
) -> None:
    """Create or replace certificates where needed.

    Creates missing certificates. Replaces an issuing CA that is due for renewal or is not for exactly the inspected
    hosts. Prints "created" or "unchanged". The hosts are those of the policy (EGRESS_POLICY_FILE) or of
    PROXY_LLM_HOSTS.
    """
    settings = Settings.load(ca_dir=directory)
    changed = certificates.create(
        settings.effective_ca_dir,
        root_key_dir or settings.state_dir / "root",
        configured_policy(settings).inspect,
        force_issuing=renew,
    )
    typer.echo("created" if changed else "unchanged")


@app.command()
def renew(
    directory: Annotated[Path | None, typer.Option("--dir", help=DIRECTORY)] = None,
    root_key_dir: Annotated[Path | None, typer.Option(help=ROOT_KEY)] = None,
) -> None:
    """Replace the issuing CA now. A running proxy serves the new one within seconds; the root CA stays the same."""
    create(directory, root_key_dir, renew=True)


@app.command()
def show(
    directory: Annotated[Path | None, typer.Option("--dir", help=DIRECTORY)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show both CA certificates, and the public key that signs checkpoints.

    Prints subject, fingerprint and expiry dates, and the hosts that the issuing CA may sign for.
    """
    settings = Settings.load(ca_dir=directory)
    info = certificates.show(settings.effective_ca_dir)
    public = settings.state_dir / PUBLIC_FILE
    signing_key = public.read_text(errors="replace").strip() if public.is_file() else None
    if as_json:
        print_json(
            {
                "directory": str(info.directory),
                "root_subject": info.root_subject,
                "root_sha256": info.root_sha256,
                "root_expires": info.root_expires.isoformat(),
                "issuing_expires": info.issuing_expires.isoformat(),
                "names": info.names,
                "signing_key": signing_key,
            }
        )
        return
    typer.echo(f"root     {info.root_subject}, valid until {info.root_expires:%Y-%m-%d}")
    typer.echo(f"         sha256 {info.root_sha256}")
    typer.echo(f"issuing  valid until {info.issuing_expires:%Y-%m-%d}, for {', '.join(info.names)}")
    typer.echo(
        f"files    {info.directory / certificates.ROOT_CERT_FILE} (clients trust this one),"
        f" {info.directory / certificates.ISSUING_FILE}"
    )
    if signing_key:
        typer.echo(f"signing  {escape(signing_key)} (public key of the checkpoints)")
