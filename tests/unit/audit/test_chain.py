"""Tests of the audit of a hash chain: every kind of tampering is found, and a clean chain has no findings."""

import random
from pathlib import Path

import pytest

from openclaw_egress.audit.chain import GONE, ChainLine, against_ledger, by_itself
from openclaw_egress.audit.findings import FindingCode
from openclaw_egress.recording.records import EventRecord
from openclaw_egress.spool.rows import ranges
from openclaw_egress.spool.writer import Spool
from tests.support import tampered_chains as chains


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    path: Path = tmp_path_factory.mktemp("chain") / "spool.db"
    chains.write_chain(path)
    ledger, lines = chains.read_chain(path)
    assert len(ledger) == len(lines) == chains.LINES
    return ledger, lines


def codes(report) -> set[tuple[str, int]]:
    return {(finding.code.value, finding.first) for finding in report.findings}


@pytest.mark.parametrize("name", chains.TAMPERINGS)
def test_comparison_with_the_ledger_finds_every_tampering(chain, name):
    ledger, lines = chain
    tamper, expected = chains.TAMPERINGS[name]
    assert codes(against_ledger("store", ledger, tamper(list(lines)))) == expected


@pytest.mark.parametrize("name", chains.TAMPERINGS)
def test_check_without_a_ledger_finds_every_tampering(chain, name):
    ledger, lines = chain
    tamper, _ = chains.TAMPERINGS[name]
    head = (ledger.last, ledger.digest(ledger.last).hex())
    found = by_itself("file", tamper(list(lines)), head=head)
    # Without the ledger or signatures, an audit cannot detect a forged line that continues the chain correctly.
    assert bool(found.findings) == (name != "forge after the end")


def test_clean_lines_have_no_findings_in_any_order_and_with_duplicates(chain):
    ledger, lines = chain
    for seed in range(10):
        shuffled = [*lines, *lines[3:5]]
        random.Random(seed).shuffle(shuffled)
        for report in (against_ledger("store", ledger, shuffled), by_itself("file", shuffled)):
            assert not report.findings
            assert (report.lines, report.found, report.duplicates) == (chains.LINES, chains.LINES, 2)
            assert report.last_hash == ledger.digest(chains.LINES).hex()


def test_audit_explains_lines_that_were_not_sent_or_were_dropped(tmp_path):
    path = tmp_path / "spool.db"
    with Spool(path, sync_seconds=None) as spool:
        for number in range(6):
            spool.add(EventRecord(event_name="openclaw.egress.policy", message=str(number)))
        spool.acknowledge([1, 2, 3])
        spool.dead_letter([5], "the destination refuses it")
    ledger, lines = chains.read_chain(path)
    report = against_ledger("store", ledger, [line for at, line in enumerate(lines, 1) if at <= 3])
    assert not report.findings
    assert report.explained == {"pending": 3, "dead_letter": 1}
    # The spool and the destination no longer have line 5; line 7 records the loss.
    ledger.states[4] = GONE
    report = against_ledger("store", ledger, [line for at, line in enumerate(lines, 1) if at <= 3 or at == 7])
    assert report.explained == {"pending": 2, "dropped": 1} and not report.findings


def test_deleted_rows_are_distinguished_from_pruned_rows(chain):
    ledger, lines = chain
    states = bytes(ledger.states)
    try:
        ledger.states[0] = GONE
        pruned = against_ledger("spool", ledger, lines[1:], every_line=True)
        ledger.states[4] = GONE
        deleted = against_ledger("spool", ledger, [*lines[1:4], *lines[5:]], every_line=True)
    finally:
        ledger.states[:] = states
    assert (pruned.findings, pruned.explained) == ((), {"pruned": 1})
    assert codes(deleted) == {("missing", 5)}


def test_body_that_differs_from_its_hash_is_found(chain):
    _, lines = chain
    text = lines[0].text.replace('"body":"early-0"', '"body":"early-9"')
    assert text != lines[0].text
    report = by_itself("file", [ChainLine(1, text)])
    assert codes(report) == {("body", 1)}


def test_masked_body_is_counted_instead_of_compared(chain):
    _, lines = chain
    text = lines[0].text.replace('"body":"early-0"', '"body":"[masked:github:0123456789ab]","body_masked":1')
    assert text != lines[0].text
    report = by_itself("file", [ChainLine(1, text)])
    assert (report.findings, report.masked_bodies) == ((), 1)


def test_flood_of_forged_lines_is_bounded(chain):
    ledger, lines = chain
    forged = [ChainLine(1, f"forged {number}") for number in range(5000)]
    report = against_ledger("store", ledger, [*lines, *forged])
    assert len(report.findings) == 1000
    assert {finding.code for finding in report.findings} == {FindingCode.FOREIGN}


def test_ranges_join_consecutive_numbers():
    assert list(ranges([])) == []
    assert list(ranges([1, 2, 3, 7, 9, 10])) == [(1, 3), (7, 7), (9, 10)]
