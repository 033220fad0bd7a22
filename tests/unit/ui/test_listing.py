"""Tests of the list of records: filter conditions, pages, and the time limit of the search."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.writer import Spool
from openclaw_egress.ui import listing, ranges
from tests.support.hostile_records import hostile_denial, hostile_exchange

RECORDS = 120


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpoolReader]:
    path: Path = tmp_path_factory.mktemp("list") / "spool.db"
    with Spool(path, sync_seconds=None, local=True) as spool:
        for number in range(RECORDS):
            chosen = ("browser", 429) if number == 3 else ("gateway", 200)
            spool.close_exchange(hostile_exchange(f"{number:04x}", class_name=chosen[0], status=chosen[1]))
    with SpoolReader(path) as reader:
        yield reader


def search(reader: SpoolReader, before: int | None = None, clock=lambda: 0.0, **given: str) -> listing.Page:
    return listing.search_page(reader, listing.conditions_of(given), before, clock)


def test_pages_together_have_each_record_once(reader):
    seen, before = [], None
    while True:
        page = search(reader, before)
        seen += [line.seq for line in page.lines]
        if page.older is None:
            break
        before = page.older
    assert seen == list(range(RECORDS, 0, -1))


def test_conditions_select_records(reader):
    assert [line.seq for line in search(reader, **{"class": "browser"}).lines] == [4]
    assert [line.seq for line in search(reader, status="4xx").lines] == [4]
    assert search(reader, event="denied").lines == []
    assert len(search(reader, host="api.anthropic.com*", since="1h").lines) == listing.PAGE
    assert search(reader, until="2020-01-01").lines == []


def test_search_stops_at_its_time_limit_and_continues_from_there(reader, monkeypatch):
    monkeypatch.setattr(ranges, "STEP", 50)
    times = iter(range(1000))
    page = search(reader, clock=lambda: float(next(times)), status="429")
    assert (page.lines, page.older, page.full) == ([], RECORDS + 1 - 50, False)
    page = search(reader, page.older, status="429")
    assert [line.seq for line in page.lines] == [4] and page.older is None


@pytest.mark.parametrize(
    ("name", "text"), [("status", "teapot"), ("code", "nope"), ("event", "x"), ("since", "soon"), ("until", "1e9y")]
)
def test_invalid_condition_is_reported_and_matches_no_record(reader, name, text):
    conditions = listing.conditions_of({name: text})
    assert conditions.problem.startswith(f"{name}: {text!r} is not valid; write ")
    assert listing.search_page(reader, conditions, None, lambda: 0.0).lines == []


def news(reader: SpoolReader, after: int, clock=lambda: 0.0, **given: str) -> listing.News:
    return listing.news(reader, listing.conditions_of(given), after, clock)


def test_new_records_are_the_later_ones_that_match(reader):
    found = news(reader, RECORDS - 2)
    assert found.newest == RECORDS and [line.seq for line in found.lines] == [RECORDS - 1, RECORDS]
    assert (len(news(reader, 0).lines), news(reader, 0).left_out) == (RECORDS, 0)
    assert news(reader, RECORDS - 2, **{"class": "none"}).lines == []
    assert news(reader, RECORDS) == listing.News(RECORDS)


def test_new_record_is_found_however_many_lines_arrived_after_it(reader, monkeypatch):
    monkeypatch.setattr(ranges, "STEP", 10)
    found = news(reader, 0, status="429")
    assert ([line.seq for line in found.lines], found.left_out) == ([4], 0)


def test_new_lines_that_were_not_searched_in_time_are_counted(reader, monkeypatch):
    monkeypatch.setattr(ranges, "STEP", 10)
    times = iter(range(1000))
    found = news(reader, 3, clock=lambda: float(next(times)), status="429")
    assert (found.lines, found.left_out, found.before) == ([], RECORDS - 10 - 3, RECORDS - 10 + 1)


def test_new_records_beyond_the_limit_are_counted_and_linked(reader, monkeypatch):
    monkeypatch.setattr(listing, "LIVE", 20)
    found = news(reader, 10)
    shown = [line.seq for line in found.lines]
    assert shown == list(range(RECORDS - 19, RECORDS + 1)) and found.left_out == RECORDS - 20 - 10
    monkeypatch.setattr(listing, "PAGE", RECORDS)
    assert [line.seq for line in search(reader, found.before).lines] == list(range(shown[0] - 1, 0, -1))


def test_each_line_that_arrived_is_shown_or_counted_as_left_out(reader, monkeypatch):
    """Check with several limits that the page either shows each new line or counts it as left out."""
    for step, most, reads in ((7, 1000, 2), (7, 13, 50), (1000, 120, 1), (1, 119, 119)):
        monkeypatch.setattr(ranges, "STEP", step)
        monkeypatch.setattr(listing, "LIVE", most)
        times = iter([0.0] * reads + [9.0] * 200)
        found = news(reader, 0, clock=lambda times=times: next(times))
        assert len(found.lines) + found.left_out == RECORDS, (step, most, reads)
        assert found.left_out == (found.before - 1 if found.left_out else 0)


def test_long_condition_is_refused_and_not_cut(reader):
    conditions = listing.conditions_of({"host": "x" * (listing.MAX_TEXT + 1)})
    assert conditions.problem == "host: the condition has 1,025 characters; write at most 1024"
    assert listing.search_page(reader, conditions, None, lambda: 0.0).lines == []


def test_cells_show_invisible_characters_as_escapes(tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(hostile_denial())
        with SpoolReader(tmp_path / "spool.db") as reader:
            (line,) = search(reader).lines
    assert all(cell.isprintable() for cell in line.cells.values())
    assert line.tone == "warn" and "\\u202e" in line.cells["detail"]
