"""Tests of the health page: the result of the last audit, and the remedy for its findings."""

from dataclasses import replace

import pytest

from openclaw_egress.observability.last_audit import LastAudit
from openclaw_egress.reports.status import Status
from openclaw_egress.reports.text import local_time
from openclaw_egress.ui import health
from openclaw_egress.ui.pages import render
from tests.support.hostile_records import HIDDEN, TEXT

NOW = 1_780_000_000.0
CLEAN = LastAudit(findings=0, time=NOW - 3600, first=101, last=200, sources=["spool x", "Loki http://10.0.0.2:3100"])


def audits(last: LastAudit | None = CLEAN, unreadable: str = "") -> health.Audits:
    return health.Audits(last, unreadable, "line 200", 250, lambda seq: seq * 10**9)


def section(*of: object) -> health.Section:
    return health.audit_section(audits(*of), NOW)  # type: ignore[arg-type]


def test_audit_shows_time_range_and_result():
    found = section()
    assert dict(found.facts) == {
        "newest checkpoint": "line 200",
        "last audit": local_time(int((NOW - 3600) * 1e9)),
        "result": "no findings",
        "audited": f"lines 101 to 200, {local_time(101 * 10**9)} to {local_time(200 * 10**9)}",
        "newer lines": "50",
        "compared": "spool x, Loki http://10.0.0.2:3100",
    }
    assert not found.problem and not found.warning


@pytest.mark.parametrize(
    ("last", "unreadable", "problem", "warning"),
    [
        (None, "", "", "No audit of this spool has ended yet. Run `egress audit`, and then `egress audit --since 25h`"),
        (replace(CLEAN, time=NOW - 25 * 3600 - 1), "", "", "The last audit is more than 25 hours ago. Run `egress"),
        (replace(CLEAN, time=NOW - 25 * 3600), "", "", ""),
        (replace(CLEAN, findings=3), "", "The records differ from the chain. Run `egress audit`", ""),
        (replace(CLEAN, failed_at=NOW, failure="x"), "", "Remove the cause of the failure, and run", ""),
        (replace(CLEAN, findings=3, failed_at=NOW), "", "The records differ from the chain.", ""),
        (LastAudit(failed_at=NOW, failure="x"), "", "Remove the cause of the failure, and run", ""),
        (None, "f: damaged; run it", "The last audit cannot be shown: f: damaged; run it", ""),
    ],
)
def test_page_shows_the_remedy(last, unreadable, problem, warning):
    found = section(last, unreadable)
    for text, expected in ((found.problem, problem), (found.warning, warning)):
        assert text.startswith(expected) and bool(text) == bool(expected)


def test_findings_are_named_by_their_code_and_a_failure_by_its_reason():
    facts = dict(section(replace(CLEAN, findings=3, codes={"changed": 2, "foreign": 1})).facts)
    assert facts["result"] == "3 findings: 2 changed, 1 foreign"
    facts = dict(section(LastAudit(failed_at=NOW, failure="Loki: refused")).facts)
    assert facts["failed since then"] == f"{local_time(int(NOW * 1e9))}: Loki: refused" and "last audit" not in facts


def test_result_of_an_older_version_has_no_range():
    facts = dict(section(LastAudit(findings=0, time=NOW)).facts)
    assert set(facts) == {"newest checkpoint", "last audit", "result"}


@pytest.mark.parametrize("time", [1e300, float("inf"), float("nan"), -1e300])
def test_invalid_time_of_the_file_is_named(time):
    facts = dict(section(replace(CLEAN, time=time, failed_at=time)).facts)
    assert facts["last audit"] == "at an invalid time" and facts["failed since then"].startswith("at an invalid time")


def test_hostile_file_becomes_text():
    last = replace(CLEAN, findings=1, codes={TEXT: 1}, sources=[TEXT], failed_at=NOW, failure=TEXT)
    text = render("health.html", view=health.health_of(Status(running=None), audits(last, TEXT), NOW))
    assert "<script>" not in text and "<img" not in text and "62615533" not in text and "\\u202e" in text
    assert not [char for char in HIDDEN if not char.isprintable() and char in text]
    assert text.count("&lt;script&gt;") == 3


def test_problem_of_the_audit_is_shown_with_it_and_not_as_a_problem_of_the_proxy():
    view = health.health_of(Status(running={"ok": True}), audits(replace(CLEAN, findings=1)), NOW)
    text = render("health.html", view=view)
    assert "The proxy is running." in text and '<p class="problem">The records differ' in text
