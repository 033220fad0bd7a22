"""Tests of the page of denials: the bounded reading, and the links to the records."""

from pathlib import Path
from urllib.parse import parse_qs

import pytest

from openclaw_egress.recording.records import DeniedRecord
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.writer import Spool
from openclaw_egress.ui import denials, listing, ranges
from openclaw_egress.ui.pages import render


def denied(host: str, rule: str = "default", class_name: str = "sandbox") -> DeniedRecord:
    return DeniedRecord(class_name=class_name, host=host, port=443, rule=rule, code="no_rule", reason="no rule")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        for number in range(30):
            spool.add(denied(f"h{number % 2}.example"))
    return tmp_path / "spool.db"


def test_all_denials_are_read_while_there_is_time(path, monkeypatch):
    monkeypatch.setattr(ranges, "STEP", 7)
    with SpoolReader(path) as reader:
        found, oldest = denials.read_denials(reader, Filters(), lambda: 0.0)
    assert len(found) == 30 and oldest is None
    assert [one.time_ns for one in found] == sorted(one.time_ns for one in found)


def test_reading_stops_when_its_time_is_over_and_says_since_when(path, monkeypatch):
    monkeypatch.setattr(ranges, "STEP", 7)
    times = iter(range(100))
    with SpoolReader(path) as reader:
        found, oldest = denials.read_denials(reader, Filters(), lambda: float(next(times)))
    assert len(found) == 7 and oldest == found[0].time_ns


def test_groups_are_the_most_frequent_first_with_their_remedy(path):
    with SpoolReader(path) as reader:
        found, _ = denials.read_denials(reader, Filters(), lambda: 0.0)
    views, more = denials.group_views([*found, found[0]], lambda _: False)
    assert more == 0 and [(view.destination, view.count) for view in views] == [
        ("h0.example:443", 16),
        ("h1.example:443", 15),
    ]
    assert str(views[0].remedy) == "classes.sandbox.allow: {host: h0.example, ports: [443]}"


def test_groups_that_are_too_many_are_counted(path, monkeypatch):
    monkeypatch.setattr(denials, "MAX_GROUPS", 1)
    with SpoolReader(path) as reader:
        found, _ = denials.read_denials(reader, Filters(), lambda: 0.0)
    views, more = denials.group_views(found, lambda _: False)
    assert (len(views), more) == (1, 1)
    text = render("denials.html", groups=views, more=more, conditions=listing.conditions_of({}), only_since=None)
    assert "1 less frequent destinations are not shown: <code>egress denials</code> lists all." in text


def test_link_selects_only_the_host_of_the_group(tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(denied("[*?"))
        spool.add(denied("[ab"))
    with SpoolReader(tmp_path / "spool.db") as reader:
        found, _ = denials.read_denials(reader, Filters(), lambda: 0.0)
        view = next(view for view in denials.group_views(found, lambda _: False)[0] if "*" in view.destination)
        (pattern,) = parse_qs(view.records)["host"]
        assert [row.host for row in reader.query(Filters(host=pattern))] == ["[*?"]
