"""Tests of the list: conditions, pages, and the bounded search."""

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


def test_search_stops_when_its_time_is_over_and_continues_there(reader, monkeypatch):
    monkeypatch.setattr(ranges, "STEP", 50)
    times = iter(range(1000))
    page = search(reader, clock=lambda: float(next(times)), status="429")
    assert (page.lines, page.older, page.full) == ([], RECORDS + 1 - 50, False)
    page = search(reader, page.older, status="429")
    assert [line.seq for line in page.lines] == [4] and page.older is None


@pytest.mark.parametrize(
    ("name", "text"), [("status", "teapot"), ("code", "nope"), ("event", "x"), ("since", "soon"), ("until", "1e9y")]
)
def test_invalid_condition_is_named_and_matches_nothing(reader, name, text):
    conditions = listing.conditions_of({name: text})
    assert conditions.problem.startswith(f"{name}: {text!r} is not valid; write ")
    assert listing.search_page(reader, conditions, None, lambda: 0.0).lines == []


def test_new_records_are_the_later_ones_that_match(reader):
    newest, lines = listing.new_lines(reader, listing.conditions_of({}), RECORDS - 2)
    assert newest == RECORDS and [line.seq for line in lines] == [RECORDS - 1, RECORDS]
    assert len(listing.new_lines(reader, listing.conditions_of({}), 0)[1]) == RECORDS
    assert listing.new_lines(reader, listing.conditions_of({"class": "none"}), RECORDS - 2) == (RECORDS, [])


def test_cells_show_invisible_characters_as_escapes(tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(hostile_denial())
        with SpoolReader(tmp_path / "spool.db") as reader:
            (line,) = search(reader).lines
    assert all(cell.isprintable() for cell in line.cells.values())
    assert line.tone == "warn" and "\\u202e" in line.cells["detail"]
