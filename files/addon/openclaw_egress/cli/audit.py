"""``egress audit``: check the hash chain of the spool, the destination or an exported file."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from openclaw_egress.audit.chain import (
    GONE,
    ChainLine,
    Deletions,
    Ledger,
    LedgerRow,
    SignatureCheck,
    against_ledger,
    by_itself,
)
from openclaw_egress.audit.findings import Finding, FindingCode, Report, RestoreNote
from openclaw_egress.audit.restored import branches, lines_of_spool
from openclaw_egress.audit.stores import store_at
from openclaw_egress.cli.formatting import BAD_INPUT, NEGATIVE, print_error, print_json
from openclaw_egress.cli.records import Since, Until, moment
from openclaw_egress.errors import EgressError
from openclaw_egress.observability import last_audit
from openclaw_egress.reports.text import escape
from openclaw_egress.settings import Settings
from openclaw_egress.signatures import PUBLIC_FILE, is_signed, read_public_key
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.restorations import Restore
from openclaw_egress.spool.rows import DEAD, STATES, compact

MAX_SHOWN = 50
_RUNS, _COMMANDS = 20, 20
"""Maximum number of line ranges in one printed command, and maximum number of printed commands."""
_MARGIN_NS = 600 * 10**9
"""The audit also reads lines of the destination up to this many nanoseconds after the ledger's last line.

Loki accepts lines up to ten minutes ahead of its clock, so a forged line can have such a time.
"""
_REMEDIES = {
    FindingCode.CHANGED: "these lines were edited at the destination; the spool's ledger has the hash of each original",
    FindingCode.FOREIGN: "this instance did not write these lines: find out who can push to the destination",
    FindingCode.MISSING: "Loki can take up to 30 minutes to return a backlog: before you act, repeat the audit",
    FindingCode.CUT_TAIL: "if the newest records were sent seconds ago, repeat the audit",
    FindingCode.SIGNATURE: "somebody without the instance's key wrote the chain from here on, or the key was replaced",
    FindingCode.SPOOL: "the spool's file was edited or is damaged: keep a copy of it and of the destination's records",
}


def register(app: typer.Typer) -> None:
    """Register the command `audit`."""
    app.command()(audit)


def audit(
    since: Since = None,
    until: Until = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Compare this destination with the spool: OTLP endpoint of Loki or VictoriaLogs, or base URL of Loki; "
            "`none` audits the spool only. Default: the configured endpoint.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Check a file that `egress export` wrote, without the spool; - reads standard input."
        ),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="SEQ:SHA256",
            help="With --file: require a line with this number and hash, as in a checkpoint of the proxy's log.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Check signatures with this public key, as `egress ca show` prints it. Repeat the option "
            "for each key of a restored instance. Default: the spool's keys in EGRESS_STATE_DIR, or none with --file.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Check that the records are complete and unmodified.

    Checks hash chain, parts, body hashes, checkpoints and signatures in the spool, and compares the destination's lines
    with the spool's ledger. Exit codes: 0 no findings; 1 findings; 2 invalid input, or the destination cannot be read.
    """
    since_ns = None if since is None else moment("--since", since)
    until_ns = None if until is None else moment("--until", until)
    if file is not None:
        reports = [by_itself(str(file), _lines_of(file), head=_expected(expect), is_signed=_check_of(key or []))]
    elif expect is not None:
        print_error(
            "--expect works only with --file: without --file, the audit reads the hash of every line from the spool"
        )
        raise typer.Exit(BAD_INPUT)
    else:
        settings = Settings.load()
        try:
            reports = list(_reports(settings, store, since_ns, until_ns, key))
        except EgressError as error:
            _publish_failure(settings, error)
            raise
        _publish(settings, reports)
    if as_json:
        print_json({"ok": not any(report.findings for report in reports), "reports": [r.as_json() for r in reports]})
    else:
        for report in reports:
            _print(report)
    if any(report.findings for report in reports):
        raise typer.Exit(NEGATIVE)


def _publish(settings: Settings, reports: Sequence[Report]) -> None:
    """Write the audit's result to the state directory, where the proxy's `/metrics` and `egress ui` read it."""
    codes = Counter(str(finding.code) for report in reports for finding in report.findings)
    spool = reports[0]
    result = last_audit.LastAudit(
        findings=codes.total(),
        time=time.time(),
        first=spool.last_seq - spool.lines + 1 if spool.lines else 0,
        last=spool.last_seq,
        sources=[report.source for report in reports],
        codes=codes,
    )
    try:
        last_audit.write(settings.state_dir, result)
    except OSError as error:
        print_error(
            f"/metrics and `egress ui` will not show this audit: {settings.state_dir} cannot be written "
            f"({error.strerror})"
        )


def _publish_failure(settings: Settings, error: EgressError) -> None:
    """If the spool exists, write the error to the state directory, where `egress ui` reads it."""
    with contextlib.suppress(OSError):  # Ignore write errors: the command prints the reason too.
        if settings.spool_path.exists():
            last_audit.write_failure(settings.state_dir, str(error), time.time())


def _check_of(keys: Sequence[str]) -> SignatureCheck | None:
    """Return a function that verifies signatures with any of these public keys; None if ``keys`` is empty.

    Raises:
        SigningError: a text is not a public key.
    """
    found = [read_public_key(key) for key in dict.fromkeys(keys)]
    if not found:
        return None
    return lambda signature, text, _: any(is_signed(key, signature, text) for key in found)


def _check_of_spool(settings: Settings, restores: Sequence[Restore]) -> SignatureCheck | None:
    """Return a function that verifies the signatures of a spool; None if no public key is known.

    A restored spool contains lines of several instances. For each line, the function uses only the key of the instance
    that wrote it: the key in the first of ``restores`` whose backup contains the line, else the key of this instance.

    Raises:
        SigningError: a text is not a public key.
    """
    public = settings.state_dir / PUBLIC_FILE
    own = public.read_text(errors="replace").strip() if public.is_file() else ""
    texts = [*(restore.key or own for restore in restores), own]
    keys = [read_public_key(text) if text else None for text in texts]
    if not any(keys):
        return None
    ends = [restore.seq for restore in restores]

    def check(signature: str, text: bytes, seq: int) -> bool:
        key = keys[bisect_left(ends, seq)]
        return key is not None and is_signed(key, signature, text)

    return check


def _reports(
    settings: Settings, store: str | None, since_ns: int | None, until_ns: int | None, keys: list[str] | None
) -> Iterator[Report]:
    """Audit the spool and the destination, if one is configured. Yield a report on each."""
    url = settings.logs_endpoint if store is None else "" if store == "none" else store
    with SpoolReader(settings.spool_path) as reader:
        restores = reader.restores()
        signed = _check_of_spool(settings, restores) if keys is None else _check_of(keys)
        ledger = _ledger_of(reader, since_ns, until_ns)
        deletions = Deletions(signed, reader.digest)
        for stone in reader.tombstones():
            deletions.add(stone.seq, stone.lines, stone.digest, stone.signature)
        own = against_ledger(
            f"spool {settings.spool_path}",
            ledger,
            (ChainLine(time_ns, text, seq) for seq, time_ns, text in reader.stored_between(ledger.first, ledger.last)),
            later=reader.digest,
            every_line=True,
            is_signed=signed,
            deletions=deletions,
        )
        problems = [
            *ledger.problems,
            *(
                f"the spool's table meta has a restore after line {restore.seq}, but no line of the chain records it"
                for restore in reader.unproven_restores()
            ),
        ]
        damage = tuple(Finding(FindingCode.SPOOL, 0, 0, problem) for problem in problems)
        yield replace(own, findings=(*damage, *own.findings), restored=tuple(map(_note_of, restores)))
        if not url:
            return
        place = store_at(url, os.environ)
        # Read the destination beyond the ledger's newest line, because forged lines can have later timestamps.
        end_ns = ledger.latest_ns + _MARGIN_NS
        lines = lines_of_spool(place, reader, ledger, end_ns) if len(ledger) else []
        yield against_ledger(place.name, ledger, lines, later=reader.digest, is_signed=signed, deletions=deletions)
        yield from branches(place, reader, ledger, end_ns, signed)


def _note_of(restore: Restore) -> RestoreNote:
    return RestoreNote(
        restore.seq, restore.instance_id, restore.lost_lines, restore.replaced_seq, restore.replaced_instance
    )


def _ledger_of(reader: SpoolReader, since_ns: int | None, until_ns: int | None) -> Ledger:
    """Return the ledger of the period to audit.

    Begin at the newest checkpoint at or before the start of the period. Its signature covers the hash of the line
    before it, so the chain of the audited lines begins with a signed hash.
    """
    first, last = reader.range_of(since_ns, until_ns)
    first = 1 if since_ns is None else reader.checkpoint_before(first + 1) or first
    rows = (
        LedgerRow(seq, time_ns, bytes(digest), GONE if state is None else state)
        for seq, time_ns, digest, state in reader.ledger(first, last)
    )
    ledger = Ledger.of(rows, start=first, set_back=reader.lines_after_clock_change(), pruned=reader.pruned_seq())
    if ledger.first > 1:
        ledger.before = reader.digest(ledger.first - 1) or bytes(32)
    return ledger


def _lines_of(file: Path) -> Iterator[ChainLine]:
    """Yield the lines of an exported file, or of standard input for ``-``.

    Raises:
        EgressError: the file cannot be read, or a line does not have the format of `egress export`.
    """
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as source:
            for number, line in enumerate(source, 1):
                try:
                    entry = json.loads(line)
                    yield ChainLine(int(entry["time_ns"]), str(entry["line"]))
                except (ValueError, KeyError, TypeError, RecursionError):
                    raise EgressError(
                        f"{file}:{number}: not a line of an export; use a file that `egress export` wrote"
                    ) from None
    except OSError as error:
        raise EgressError(f"{file}: {error.strerror}; use a file that `egress export` wrote") from None


def _expected(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    seq, _, digest = text.partition(":")
    digest = digest.removeprefix("sha256:").lower()
    if not seq.isdecimal() or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        print_error(
            f"--expect: {escape(text)!r} is not valid; write NUMBER:SHA256, as in a checkpoint of the proxy's log"
        )
        raise typer.Exit(BAD_INPUT)
    return int(seq), digest


def _print(report: Report) -> None:
    counts = [f"{report.lines} lines", f"{report.found} found"]
    counts += [f"{count} {name.replace('_', ' ')}" for name, count in report.explained.items()]
    if report.duplicates:
        counts.append(f"{report.duplicates} duplicates (harmless)")
    counts.append(f"{len(report.findings)} findings" if report.findings else "no findings")
    typer.echo(f"{escape(report.source)}\n  {', '.join(counts)}")
    if report.masked_bodies:
        typer.echo(
            f"  {report.masked_bodies} bodies contain masked secrets: their SHA-256 is that of the unmasked bytes"
        )
    if report.last_seq:
        typer.echo(f"  newest line {report.last_seq}, sha256 {report.last_hash}")
    if report.signed_seq is not None:
        signed = f"signed up to line {report.signed_seq}" if report.signed_seq else "no signed checkpoint yet"
        typer.echo(f"  {signed}")
    for note in report.restored:
        hint = "`egress records --event spool` shows the user and the reason"
        typer.echo(f"  restored from a backup after line {note.seq} ({hint})")
        if note.lost_lines is None:
            typer.echo("    the replaced spool could not be read, so the number of its lost lines is unknown")
        elif note.lost_lines:
            typer.echo(
                f"    {note.lost_lines} lines of the replaced spool, up to line {note.replaced_seq}, are not in "
                "the restored one: the destination has those that were sent"
            )
    if report.signed_seq is None and "deleted" in report.explained:
        typer.echo("  the signatures of the deletions were not checked, because no public key is known: add --key")
    if report.left:
        typer.echo(f"  {report.left} lines that an operator deleted from the spool are still at the destination")
    for finding in report.findings[:MAX_SHOWN]:
        where = f"lines {finding.lines}: " if finding.first else ""
        typer.echo(f"  {finding.code:<12} {where}{escape(finding.detail)}")
    if len(report.findings) > MAX_SHOWN:
        typer.echo(f"  … {len(report.findings) - MAX_SHOWN} more findings (--json lists all)")
    for code in dict.fromkeys(finding.code for finding in report.findings):
        if remedy := _REMEDIES.get(code):
            typer.echo(f"  {code}: {remedy}")
    if report.explained.get(STATES[DEAD]):
        typer.echo(
            "  dead letters: `egress dead-letter list` shows the reasons, `egress dead-letter retry` sends them again"
        )
    missing = [run for finding in report.findings for run in finding.resend]
    for at in range(0, min(len(missing), _RUNS * _COMMANDS), _RUNS):
        typer.echo(f"  to send the absent lines again: egress resend {compact(missing[at : at + _RUNS])}")
    if len(missing) > _RUNS * _COMMANDS:
        typer.echo("  … more lines are absent: repeat the audit afterwards, or use the remedies that --json prints")
