"""Tests of the denials page: it reads a limited number of records, and links to them."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from openclaw_egress.advice.remediation import Remedy
from openclaw_egress.recording import semconv
from openclaw_egress.recording.records import DeniedRecord, EventRecord
from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.writer import Spool
from openclaw_egress.ui import denials, listing, ranges
from openclaw_egress.ui.pages import render
from tests.support.hostile_records import HIDDEN, TEXT, hostile_exchange


def denied(host: str, rule: str = "default", class_name: str = "sandbox") -> DeniedRecord:
    return DeniedRecord(class_name=class_name, host=host, port=443, rule=rule, code="no_rule", reason="no rule")


def page(views: Sequence[denials.GroupView], more: int = 0, classes: Sequence[denials.ClassView] | None = None) -> str:
    """Return the HTML of the denials page for these groups of denials and their classes."""
    known = denials.class_views([view.class_name for view in views], {}, {}) if classes is None else classes
    anchors = {one.name: f"class-{at}" for at, one in enumerate(known, 1)}
    conditions = listing.conditions_of({})
    return render(
        "denials.html", groups=views, more=more, classes=known, anchors=anchors, conditions=conditions, only_since=None
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        for number in range(30):
            spool.add(denied(f"h{number % 2}.example"))
    return tmp_path / "spool.db"


def test_all_denials_are_read_while_there_is_time(path, monkeypatch):
    monkeypatch.setattr(ranges, "STEP", 7)
    with SpoolReader(path) as reader:
        read = denials.read_denials(reader, Filters(), lambda: 0.0)
    found, oldest = read.denials, read.oldest_ns
    assert len(found) == 30 and oldest is None
    assert [one.time_ns for one in found] == sorted(one.time_ns for one in found)


def test_reading_stops_at_its_time_limit_and_reports_the_oldest_time(path, monkeypatch):
    monkeypatch.setattr(ranges, "STEP", 7)
    times = iter(range(100))
    with SpoolReader(path) as reader:
        read = denials.read_denials(reader, Filters(), lambda: float(next(times)))
    found, oldest = read.denials, read.oldest_ns
    assert len(found) == 7 and oldest == found[0].time_ns


def test_groups_are_the_most_frequent_first_with_their_remedy(path):
    with SpoolReader(path) as reader:
        found = denials.read_denials(reader, Filters(), lambda: 0.0).denials
    views, more = denials.group_views([*found, found[0]], lambda _: False)
    assert more == 0 and [(view.destination, view.count) for view in views] == [
        ("h0.example:443", 16),
        ("h1.example:443", 15),
    ]
    assert str(views[0].remedy) == "classes.sandbox.allow: {host: h0.example, ports: [443]}"


def test_groups_beyond_the_limit_are_counted(path, monkeypatch):
    monkeypatch.setattr(denials, "MAX_GROUPS", 1)
    with SpoolReader(path) as reader:
        found = denials.read_denials(reader, Filters(), lambda: 0.0).denials
    views, more = denials.group_views(found, lambda _: False)
    assert (len(views), more) == (1, 1)
    text = page(views, more)
    assert "1 less frequent destinations are not shown: <code>egress denials</code> lists all." in text


def test_link_selects_only_the_host_of_the_group(tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(denied("[*?"))
        spool.add(denied("[ab"))
    with SpoolReader(tmp_path / "spool.db") as reader:
        found = denials.read_denials(reader, Filters(), lambda: 0.0).denials
        view = next(view for view in denials.group_views(found, lambda _: False)[0] if "*" in view.destination)
        (pattern,) = parse_qs(view.records)["host"]
        assert [row.host for row in reader.query(Filters(host=pattern))] == ["[*?"]


def tunnel(host: str, class_name: str) -> EventRecord:
    attributes = {semconv.SERVER_ADDRESS: host, semconv.SERVER_PORT: 443}
    return EventRecord(
        event_name=semconv.EVENT_TUNNEL, message="a tunnel", attributes=attributes, class_name=class_name
    )


def reached(path: Path, host: str, count: int, class_name: str = "sandbox", *, by_tunnel: bool = False) -> None:
    with Spool(path, sync_seconds=None, local=True) as spool:
        for number in range(count):
            if by_tunnel:
                spool.add(tunnel(host, class_name))
            else:
                spool.close_exchange(hostile_exchange(f"{host}{number}", host=host, class_name=class_name))


def test_allowed_requests_are_counted_by_class_and_host_without_the_other_conditions(path, monkeypatch):
    reached(path, "a.example", 3)
    reached(path, "b.example", 4, by_tunnel=True)
    reached(path, "a.example", 2, by_tunnel=True)
    reached(path, "c.example", 1, class_name="browser")
    for step in (7, 10_000):
        monkeypatch.setattr(ranges, "STEP", step)
        with SpoolReader(path) as reader:
            found = denials.read_denials(reader, Filters(host="h0.*", code="no_rule"), lambda: 0.0)
            only = denials.read_denials(reader, Filters(class_name="browser"), lambda: 0.0).allowed
        assert len(found.denials) == 15
        assert {name for name, _, _ in only} == {"browser"}
        (view,) = denials.class_views(["sandbox", "sandbox"], found.allowed, {"since": "24h", "until": ""})
        counts = [(host.host, [(count, kind) for count, kind, _ in host.counts]) for host in view.hosts]
        assert counts == [("a.example", [(3, "exchange"), (2, "tunnel")]), ("b.example", [(4, "tunnel")])]


def test_allowed_requests_are_those_of_the_period(path):
    reached(path, "a.example", 3)
    with SpoolReader(path) as reader:
        begin = next(row.time_ns for row in reader.query(Filters(host="a.example")))
        found = denials.read_denials(reader, Filters(since_ns=begin + 1), lambda: 0.0)
    assert sum(found.allowed.values()) == 2 and not found.denials


def test_hosts_beyond_the_limit_are_counted(monkeypatch):
    allowed = {("sandbox", f"h{number}.example", semconv.EVENT_TUNNEL): 10 + number for number in range(8)}
    (view,) = denials.class_views(["sandbox"], allowed, {})
    assert [host.host for host in view.hosts] == [f"h{number}.example" for number in range(7, 2, -1)]
    assert (view.more_hosts, view.more) == (3, 10 + 11 + 12)
    group = denials.GroupView(1, "", "sandbox", "", "x:443", "", "", "", "", Remedy(), "")
    text = page([group], classes=[view])
    assert "3 more hosts: 33 exchanges and tunnels are not shown." in text
    assert '<a href="#class-1">sandbox</a>' in text and '<h3 id="class-1">sandbox</h3>' in text


def test_hostile_class_and_host_become_text_and_their_link_selects_them(tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(denied("x.example", class_name=TEXT))
        spool.close_exchange(hostile_exchange("01", host=f"[*?{TEXT}"))
        spool.close_exchange(hostile_exchange("02", host="[abc"))
    with SpoolReader(tmp_path / "spool.db") as reader:
        found = denials.read_denials(reader, Filters(), lambda: 0.0)
        groups, _ = denials.group_views(found.denials, lambda _: False)
        classes = denials.class_views([groups[0].class_name], found.allowed, {"since": "1h", "until": ""})
        text = page(groups, classes=classes)
        assert "<script>" not in text and "62615533" not in text
        section = text[text.index("<h2>Allowed requests") :]
        assert "&lt;script&gt;" in section and "\\u202e" in section and not set(HIDDEN) & set(section) - set("[31mevil")
        (host,) = (host for host in classes[0].hosts if "*" in host.host)
        ((count, kind, query),) = host.counts
        given = {name: texts[0] for name, texts in parse_qs(query, strict_parsing=True).items()}
        assert (count, kind, given["since"]) == (1, "exchange", "1h")
        conditions = listing.conditions_of(given)
        assert not conditions.problem
        assert [row.id for row in reader.query(conditions.filters)] == ["01"]


def test_class_without_allowed_traffic_is_shown(path):
    with SpoolReader(path) as reader:
        found = denials.read_denials(reader, Filters(), lambda: 0.0)
    groups, _ = denials.group_views(found.denials, lambda _: False)
    assert "No exchange and no recorded tunnel." in page(groups)
