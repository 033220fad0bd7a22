"""Tests of `egress audit` and `egress export` with lines from the spool, from a file, and from the Loki fake."""

import json
import sqlite3
import stat
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from openclaw_egress.audit.stores import StoreError
from openclaw_egress.cli.app import app
from openclaw_egress.observability import last_audit
from openclaw_egress.recording.otlp import decode_text
from openclaw_egress.recording.records import EventRecord
from openclaw_egress.spool import reader as spool_reader
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.schema import SpoolError
from openclaw_egress.spool.writer import Spool
from tests.support import tampered_chains as chains
from tests.support.loki import FakeLoki
from tests.support.otlp_push import push_lines

EDIT_LINE_4 = "UPDATE records SET otlp = CAST(replace(CAST(otlp AS TEXT), 'early-3', 'other-3') AS BLOB) WHERE seq = 4"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return the path of a spool whose lines are acknowledged. Set the environment so that `egress` uses this spool."""
    chains.write_chain(tmp_path / "spool.db")
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", raising=False)
    return tmp_path / "spool.db"


@pytest.fixture(scope="module")
def loki():
    with FakeLoki() as running:
        yield running


def egress(*words, **options):
    return CliRunner().invoke(app, [*map(str, words)], **options)


def findings(result) -> list[set[tuple[str, int]]]:
    assert result.exit_code in (0, 1), result.output
    reports = json.loads(result.stdout)["reports"]
    return [{(finding["code"], finding["first"]) for finding in report["findings"]} for report in reports]


def change(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def instance_of(path) -> str:
    with SpoolReader(path) as reader:
        return reader.instance_id


def test_clean_spool_has_no_findings(path):
    result = egress("audit")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[1] == "  18 lines, 18 found, no findings"
    assert lines[2].startswith("  newest line 18, sha256 ")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("statements", "code"),
    [
        (["UPDATE records SET otlp = (SELECT otlp FROM records WHERE seq = 1) WHERE seq = 2"], "spool"),
        (["UPDATE records SET otlp = x'00' WHERE seq = 2"], "foreign"),
        (["DELETE FROM records WHERE seq = 5"], "missing"),
        (["DELETE FROM records WHERE seq = 9"], "missing_part"),
        (["DELETE FROM records WHERE seq > 15"], "cut_tail"),
        (["DELETE FROM ledger WHERE seq = 4"], "spool"),
        (["UPDATE ledger SET hash = zeroblob(32) WHERE seq = 3"], "spool"),
        (["UPDATE ledger SET time_ns = 0 WHERE seq = 3"], "spool"),
        (["DELETE FROM ledger WHERE seq = 4", "DELETE FROM records WHERE seq = 4"], "spool"),
        ([EDIT_LINE_4], "changed"),
    ],
)
def test_every_tampering_of_the_spool_is_found(path, statements, code):
    change(path, *statements)
    result = egress("audit", "--json")
    assert result.exit_code == 1, result.output
    assert code in {found for found, _ in findings(result)[0]}
    assert not json.loads(result.stdout)["ok"]


@pytest.mark.wording
def test_editing_a_line_and_its_ledger_row_breaks_the_chain(path):
    with SpoolReader(path) as reader:
        text = reader.line(4)
    edited = text.replace("early-3", "other-3")
    change(
        path, "UPDATE records SET otlp = CAST(replace(CAST(otlp AS TEXT), 'early-3', 'other-3') AS BLOB) WHERE seq = 4"
    )
    change(path, f"UPDATE ledger SET hash = x'{chains.line_hash(edited)}' WHERE seq = 4")
    result = egress("audit")
    assert result.exit_code == 1
    assert "line 5 does not contain the hash of the previous line" in result.stdout
    assert "spool: the spool's file was edited" in result.stdout


@pytest.mark.parametrize("name", chains.TAMPERINGS)
def test_every_tampering_of_loki_is_found(path, loki, name):
    _, lines = chains.read_chain(path)
    tamper, expected = chains.TAMPERINGS[name]
    push_lines(f"{loki.url}/otlp/v1/logs", instance_of(path), tamper(list(lines)))
    result = egress("audit", "--json", "--store", f"{loki.url}/otlp/v1/logs")
    assert result.exit_code == 1, result.output
    assert findings(result) == [set(), expected]


def test_duplicate_lines_in_loki_cause_no_finding(path, loki, monkeypatch):
    _, lines = chains.read_chain(path)
    push_lines(f"{loki.url}/otlp/v1/logs", instance_of(path), lines)
    push_lines(f"{loki.url}/otlp/v1/logs", instance_of(path), [(lines[2].time_ns + 1, lines[2].text)])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{loki.url}/otlp/v1/logs")
    result = egress("audit")
    assert result.exit_code == 0, result.output
    assert f"Loki {loki.url}\n  18 lines, 18 found, 1 duplicates (harmless), no findings" in result.stdout


def test_loki_is_read_in_pages_below_its_limits(tmp_path, monkeypatch):
    """Read 30 lines of 150 KB. Together they exceed the maximum size of one Loki response."""
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    with chains.Spool(tmp_path / "spool.db", sync_seconds=None) as spool:
        for number in range(30):
            spool.close_exchange(chains.exchange(f"large-{number}", 150_000))
        spool.acknowledge(range(1, 31))
    _, lines = chains.read_chain(tmp_path / "spool.db")
    with FakeLoki() as loki:
        push_lines(f"{loki.url}/otlp/v1/logs", instance_of(tmp_path / "spool.db"), lines)
        result = egress("audit", "--store", loki.url)
    assert result.exit_code == 0, result.output
    assert "30 lines, 30 found, no findings" in result.stdout


def test_more_lines_with_one_time_than_a_page_holds_are_all_read(path, loki):
    ledger, lines = chains.read_chain(path)
    forged = [(ledger.latest_ns + 1, f"forged {number}") for number in range(100)]
    push_lines(f"{loki.url}/otlp/v1/logs", instance_of(path), [*lines, *forged])
    report = json.loads(egress("audit", "--json", "--store", loki.url).stdout)["reports"][1]
    assert report["found"] == 18 and len(report["findings"]) == 100


def test_exported_file_passes_the_audit(path, tmp_path):
    file = tmp_path / "records.jsonl"
    assert egress("export", "--output", file).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    result = egress("audit", "--file", file)
    assert result.exit_code == 0, result.output
    assert f"{file}\n  18 lines, 18 found, no findings\n  newest line 18, sha256 " in result.stdout
    assert egress("export", "--output", file).exit_code == 2
    assert egress("audit", "--file", "-", input=egress("export").stdout).exit_code == 0


def test_lines_pruned_before_an_older_one_was_acknowledged_cause_no_finding(tmp_path, monkeypatch):
    day_ns, now = 86_400 * 10**9, [1]
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", raising=False)
    with Spool(
        tmp_path / "spool.db", sync_seconds=None, max_age=timedelta(days=1), clock_ns=lambda: now[0] * day_ns
    ) as spool:
        for number in range(4):
            spool.add(EventRecord(event_name="openclaw.egress.policy", message=str(number)))
        spool.acknowledge([2, 3])
        now[0] = 3
        assert spool.expire()
        spool.acknowledge([1, 4])
    result = egress("audit", "--store", "none")
    assert result.exit_code == 0 and "2 pruned" in result.stdout, result.stdout


@pytest.mark.parametrize("name", [name for name in chains.TAMPERINGS if name != "forge after the end"])
def test_every_tampering_of_a_file_is_found(path, tmp_path, name):
    ledger, lines = chains.read_chain(path)
    file = tmp_path / "records.jsonl"
    tampered = chains.TAMPERINGS[name][0](list(lines))
    file.write_text("".join(json.dumps({"time_ns": line.time_ns, "line": line.text}) + "\n" for line in tampered))
    expect = f"{ledger.last}:{ledger.digest(ledger.last).hex()}"
    result = egress("audit", "--file", file, "--expect", expect)
    assert result.exit_code == 1, result.output


def test_result_of_an_audit_of_the_spool_is_stored_for_the_metrics(path, tmp_path):
    assert last_audit.gauges(tmp_path) == {}
    before = time.time()
    assert egress("audit").exit_code == 0
    found = last_audit.gauges(tmp_path)
    assert found["audit_findings"] == 0 and before <= found["audit_timestamp_seconds"] <= time.time()
    change(path, EDIT_LINE_4)
    count = sum(map(len, findings(egress("audit", "--json"))))
    assert count and last_audit.gauges(tmp_path)["audit_findings"] == count
    # An audit of a file does not change the gauges, because the file can come from another instance.
    assert egress("audit", "--file", "/dev/null").exit_code in (0, 1)
    assert last_audit.gauges(tmp_path)["audit_findings"] == count
    (tmp_path / last_audit.FILE).write_text("[]")
    assert last_audit.gauges(tmp_path) == {}


def test_result_has_the_range_the_sources_and_the_findings(path, tmp_path):
    assert egress("audit").exit_code == 0
    found = last_audit.read(tmp_path)
    assert (found.first, found.last, found.sources, found.codes) == (1, 18, [f"spool {path}"], {})
    assert egress("audit", "--since", time_before(path, 4)).exit_code == 0
    found = last_audit.read(tmp_path)
    assert 1 < found.first <= 4 and found.last == 18
    change(path, EDIT_LINE_4)
    assert egress("audit").exit_code == 1
    found = last_audit.read(tmp_path)
    assert "changed" in found.codes and sum(found.codes.values()) == found.findings


def test_failed_audit_is_stored_with_the_last_result_until_an_audit_completes(path, tmp_path):
    assert egress("audit").exit_code == 0
    before = last_audit.read(tmp_path)
    assert isinstance(egress("audit", "--store", "http://127.0.0.1:9").exception, StoreError)
    found = last_audit.read(tmp_path)
    assert found.failed_at >= before.time and "127.0.0.1:9" in found.failure
    assert (found.findings, found.time, found.last) == (0, before.time, 18)
    assert last_audit.gauges(tmp_path)["audit_findings"] == 0
    assert egress("audit").exit_code == 0
    assert last_audit.read(tmp_path).failed_at is None


def test_failure_without_a_completed_audit_has_no_findings(path, tmp_path):
    assert last_audit.read(tmp_path) is None
    (tmp_path / last_audit.FILE).write_text("{")
    last_audit.write_failure(tmp_path, "x" * 2000, 1.0)
    found = last_audit.read(tmp_path)
    assert found.findings is None and found.failure == "x" * 1000 + " …" and last_audit.gauges(tmp_path) == {}


def test_failed_audit_creates_no_file_without_a_spool(tmp_path, monkeypatch):
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    assert isinstance(egress("audit").exception, SpoolError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"findings": "x"}',
        '{"codes": [1]}',
        '{"time": {}}',
        "[" * 10**5,
        # Numbers that no audit can have written: negative, not finite, or too large for a float or an SQLite integer.
        f'{{"findings": 1{"0" * 400}, "time": 1}}',
        '{"findings": -1, "time": 1}',
        '{"findings": 0, "time": NaN}',
        '{"findings": 0, "time": 1, "failed_at": Infinity}',
        '{"findings": 0, "time": 1, "first": 9223372036854775808}',
    ],
)
def test_damaged_result_is_reported(tmp_path, text):
    (tmp_path / last_audit.FILE).write_text(text)
    with pytest.raises(last_audit.LastAuditError, match="run `egress audit` to write it again"):
        last_audit.read(tmp_path)
    assert last_audit.gauges(tmp_path) == {}


def test_path_with_invalid_utf8_can_be_shown(tmp_path):
    last_audit.write(tmp_path, last_audit.LastAudit(findings=0, time=1.0, sources=["spool /\udcff"]))
    last_audit.write_failure(tmp_path, "/\udcff: refused", 2.0)
    found = last_audit.read(tmp_path)
    assert (found.sources, found.failure) == (["spool /\\udcff"], "/\\udcff: refused")


def test_audit_reports_that_its_result_cannot_be_written(path, tmp_path):
    (tmp_path / last_audit.FILE).mkdir()
    result = egress("audit")
    assert result.exit_code == 0
    assert "/metrics and `egress ui` will not show this audit" in result.stderr
    assert not list(tmp_path.glob(".last-audit-*"))


def test_audit_is_limited_to_the_requested_time_range(path):
    with SpoolReader(path) as reader:
        times = [time_ns for _, time_ns, _, _ in reader.ledger(*reader.range_of())]
        assert len(list(reader.ledger(*reader.range_of(times[3], times[7])))) == 4
    assert egress("audit", "--since", "1h").exit_code == 0


def time_before(path, seq: int) -> str:
    """Return a value for `--since` that lies between the timestamps of line ``seq`` and the line before it."""
    with SpoolReader(path) as reader:
        times = {seq: time_ns for seq, time_ns, _, _ in reader.ledger(*reader.range_of())}
    return datetime.fromtimestamp((times[seq - 1] + times[seq]) / 2e9, UTC).isoformat()


def test_range_begins_at_the_checkpoint_before_it_and_each_line_is_read_once(signed, monkeypatch):
    decoded = []
    monkeypatch.setattr(spool_reader, "decode_text", lambda encoded: decoded.append(1) or decode_text(encoded))
    report = json.loads(egress("audit", "--json", "--since", time_before(signed, 14)).stdout)["reports"][0]
    assert (report["lines"], report["found"], report["findings"]) == (8, 8, [])
    assert report["signed_seq"] == 17 and len(decoded) == 8


@pytest.mark.parametrize(("seq", "found"), [(10, False), (11, True), (12, True), (14, True)])
def test_range_is_checked_from_its_checkpoint_on(signed, seq, found):
    change(
        signed, f"UPDATE records SET otlp = CAST(replace(CAST(otlp AS TEXT), '{seq}', 'xx') AS BLOB) WHERE seq = {seq}"
    )
    change(signed, f"UPDATE ledger SET hash = zeroblob(32) WHERE seq = {seq}")
    # The audit begins before line 14, at the checkpoint in line 11, which contains the hash of line 10.
    result = egress("audit", "--json", "--since", time_before(signed, 14))
    assert result.exit_code == 1, result.output
    texts = [finding["detail"] for finding in json.loads(result.stdout)["reports"][0]["findings"]]
    assert (f"line {seq} was changed: its hash differs from the ledger" in texts) == found
    assert f"line {seq + 1} does not contain the hash of the previous line" in texts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--store", "http://127.0.0.1:9/otlp/v1/logs"], "http://127.0.0.1:9 does not respond"),
        (["--store", "http://127.0.0.1:9/collector/v1/logs"], "records cannot be read back from this URL"),
        (["--file", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["--expect", "1:ab"], "--expect works only with --file"),
        (["--file", "/dev/null", "--expect", "1:ab"], "--expect: '1:ab' is not valid"),
    ],
)
def test_invalid_input_of_audit_is_reported_in_one_message(path, words, message):
    result = egress("audit", *words)
    assert message in result.output + str(result.exception)


def test_invalid_line_of_a_file_is_named_in_the_error(path, tmp_path):
    (tmp_path / "x").write_text('{"time_ns": 1, "line": "a"}\nnot json\n')
    result = egress("audit", "--file", tmp_path / "x")
    assert f"{tmp_path / 'x'}:2: not a line of an export" in str(result.exception)


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def signed(tmp_path, monkeypatch):
    """Return the path of a spool with signed checkpoints."""
    chains.write_chain(tmp_path / "spool.db", signed=True)
    monkeypatch.setenv("EGRESS_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", raising=False)
    return tmp_path / "spool.db"


def write_file(path, lines):
    path.write_text("".join(json.dumps({"time_ns": line.time_ns, "line": line.text}) + "\n" for line in lines))
    return path


def public_key(spool) -> str:
    return (spool.parent / "signing-key.pub").read_text().strip()


def test_signatures_of_the_spool_are_checked_with_the_key_in_its_directory(signed):
    result = egress("audit")
    assert result.exit_code == 0, result.output
    assert "  signed up to line 17" in result.stdout


def test_only_signatures_detect_a_completely_rewritten_chain(signed, tmp_path):
    file = write_file(tmp_path / "x", chains.rewrite(list(chains.read_chain(signed)[1])))
    assert egress("audit", "--file", file).exit_code == 0
    result = egress("audit", "--json", "--file", file, "--key", public_key(signed))
    assert result.exit_code == 1
    assert findings(result)[0] == {("signature", 11), ("signature", 18), ("signature", 0)}


def test_checkpoint_without_a_signature_after_a_signed_one_is_found(signed, tmp_path):
    lines = chains.read_chain(signed)[1]
    sealed = json.loads(lines[17].text)
    del sealed["openclaw.egress.checkpoint.signature"]
    lines[17] = lines[17]._replace(text=chains.compact(sealed))
    result = egress("audit", "--json", "--file", write_file(tmp_path / "x", lines), "--key", public_key(signed))
    assert ("signature", 18) in findings(result)[0]


def test_signature_of_another_checkpoint_is_not_accepted(signed, tmp_path):
    lines = chains.read_chain(signed)[1]
    one, other = json.loads(lines[10].text), json.loads(lines[17].text)
    other["openclaw.egress.checkpoint.signature"] = one["openclaw.egress.checkpoint.signature"]
    lines[17] = lines[17]._replace(text=chains.compact(other))
    result = egress("audit", "--json", "--file", write_file(tmp_path / "x", lines), "--key", public_key(signed))
    assert ("signature", 18) in findings(result)[0]


def test_unsigned_spool_of_an_earlier_version_has_no_findings(path):
    chains.Signer.in_directory(path.parent)
    result = egress("audit")
    assert result.exit_code == 0, result.output
    assert "  no signed checkpoint yet" in result.stdout


def test_text_that_is_not_a_key_is_refused(path):
    result = egress("audit", "--key", "abc")
    assert "not a public signing key: 'abc'; use the key that `egress ca show` prints" in str(result.exception)
