"""Check of the lines at a destination that belong to a restored spool.

Before the restoration, another instance wrote the spool's lines. That instance may have written more lines after the
backup, which the destination has and the restored spool does not. These lines are a second branch of the chain. The
branch is checked separately: it must continue the chain from the newest line of the backup.

If the record of the restoration contains the newest line of the replaced spool, the audit also knows how many lines are
missing at the end of the branch. It counts these lines as lost by the restoration. Nobody can prove whether such a line
was never sent or was deleted at the destination.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from openclaw_egress.audit.chain import ChainLine, Ledger, SignatureCheck, by_itself, head_of
from openclaw_egress.audit.findings import Finding, FindingCode, Report
from openclaw_egress.audit.stores import Store
from openclaw_egress.recording.hash_chain import GENESIS
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.restorations import Restore


def lines_of_spool(store: Store, reader: SpoolReader, ledger: Ledger, end_ns: int) -> Iterator[ChainLine]:
    """Yield the lines at the destination that the spool's current or previous instances wrote.

    Omit the lines that a previous instance wrote after the backup: `branches` checks these.
    """
    for restore in reader.restores():
        if restore.seq >= ledger.first:
            for line in store.lines(restore.instance_id, ledger.earliest_ns, end_ns):
                sealed = head_of(line.text)
                if sealed is None or sealed["seq"] <= restore.seq:
                    yield line
    yield from store.lines(reader.instance_id, ledger.earliest_ns, end_ns)


def branches(
    store: Store, reader: SpoolReader, ledger: Ledger, end_ns: int, is_signed: SignatureCheck | None
) -> Iterator[Report]:
    """Yield a report for each restoration in the audited range that has a branch: lines written after the backup.

    As with an exported file, the check cannot detect forged lines after the newest signed checkpoint of a branch.
    """
    for restore in reader.restores():
        if not ledger.first <= restore.seq + 1 <= ledger.last:
            continue
        strays: list[int] = []
        lines = _branch(store, reader, restore, end_ns, strays)
        report = by_itself(
            f"{store.name}: lines that instance {restore.instance_id} wrote after the backup, which the restored spool "
            "does not have",
            lines,
            head=_head_of(restore),
            is_signed=_check_in_branch(is_signed, restore.seq),
            needs_signature=False,
        )
        report = _with_lost_lines(report, restore)
        foreign = [
            Finding(FindingCode.FOREIGN, seq, seq, "it does not follow from the newest line of the backup")
            for seq in strays
        ]
        if report.last_seq > restore.seq or report.explained or report.findings:
            yield replace(report, findings=(*foreign, *report.findings))


def _head_of(restore: Restore) -> tuple[int, str] | None:
    """Return sequence number and hash of the replaced spool's newest line, if that spool wrote the branch.

    Return None if the restoration replaced a spool of another instance, or lost no lines.
    """
    follows = restore.lost_lines and restore.replaced_seq - restore.lost_lines == restore.seq
    is_own = follows and restore.replaced_instance == restore.instance_id
    return (restore.replaced_seq, restore.replaced_hash) if is_own else None


def _check_in_branch(is_signed: SignatureCheck | None, seq: int) -> SignatureCheck | None:
    """Return a signature check for the lines of a branch.

    These lines are signed with the key of the instance that wrote line ``seq``, the newest of the backup. Always select
    the key by ``seq``, because the numbers of the lines themselves would select the restored spool's key.
    """
    return None if is_signed is None else lambda signature, text, _: is_signed(signature, text, seq)


def _with_lost_lines(report: Report, restore: Restore) -> Report:
    """Count the lines that are absent at the end of a branch as lost by the restoration.

    Remove the finding about them: it has no remedy and would recur in every audit.
    """
    lost = restore.replaced_seq - max(report.last_seq, restore.seq)
    if _head_of(restore) is None or lost <= 0:
        return report
    return replace(
        report,
        lines=report.lines + lost,
        explained={**report.explained, "lost_by_restore": lost},
        findings=tuple(finding for finding in report.findings if finding.code is not FindingCode.CUT_TAIL),
    )


def _branch(store: Store, reader: SpoolReader, restore: Restore, end_ns: int, strays: list[int]) -> Iterator[ChainLine]:
    """Yield the previous instance's lines, from the backup's newest line on.

    If ``prev`` of the first line after the backup is not the hash of the backup's newest line, add the sequence number
    of that first line to ``strays``.
    """
    newest = reader.digest(restore.seq) if restore.seq else bytes.fromhex(GENESIS)
    for line in store.lines(restore.instance_id, restore.begin_ns, end_ns):
        sealed = head_of(line.text)
        if sealed is None or sealed["seq"] < restore.seq:
            continue  # This line is not in the branch; `lines_of_spool` yields it.
        if sealed["seq"] == restore.seq + 1 and newest is not None and sealed["prev"] != newest.hex():
            strays.append(restore.seq + 1)
        yield line
