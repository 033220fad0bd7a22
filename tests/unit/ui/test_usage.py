"""Tests of the usage page: the slowest and the most expensive exchanges, and the note on omitted exchanges."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from openclaw_egress.spool.reader import Filters, SpoolReader
from openclaw_egress.spool.schema import connect
from openclaw_egress.spool.writer import Spool
from openclaw_egress.ui import listing, ranges, usage
from openclaw_egress.ui.pages import render
from tests.support.hostile_records import TEXT, hostile_denial, hostile_exchange

HOUR_NS = 3600 * 10**9
BEGIN_NS = 490_000 * HOUR_NS
RECORDS = 40


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[SpoolReader]:
    """Yield a spool with one exchange per hour. Each exchange is slower and cheaper than the previous one."""
    path = tmp_path / "spool.db"
    with Spool(path, sync_seconds=None, local=True) as spool:
        for number in range(1, RECORDS + 1):
            name = "browser" if number % 2 else "gateway"
            spool.close_exchange(hostile_exchange(f"{number:04x}", class_name=name))
        with closing(connect(path)) as db:
            for table in ("records", "ledger"):
                db.execute(f"UPDATE {table} SET time_ns = ? + seq * ?", (BEGIN_NS, HOUR_NS))
            db.execute("UPDATE records SET duration = seq, cost_usd = 100 - seq")
    with SpoolReader(path) as found:
        yield found


def searched(reader: SpoolReader, clock=lambda: 0.0, **filters) -> tuple[list[int], list[int], int | None]:
    slowest, dearest, oldest_ns = usage.read_extremes(reader, Filters(**filters), clock)
    return [row.seq for row in slowest], [row.seq for row in dearest], oldest_ns


def test_slowest_and_most_expensive_exchanges_of_the_whole_spool_are_listed(reader, monkeypatch):
    expected = list(range(40, 30, -1)), list(range(1, 11)), None
    assert searched(reader) == expected
    monkeypatch.setattr(ranges, "STEP", 7)
    assert searched(reader) == expected


@pytest.mark.parametrize("step", [7, 10_000])
def test_slowest_and_most_expensive_exchanges_are_limited_to_period_and_class(reader, monkeypatch, step):
    monkeypatch.setattr(ranges, "STEP", step)
    period = {"since_ns": BEGIN_NS + 10 * HOUR_NS, "until_ns": BEGIN_NS + 14 * HOUR_NS}
    assert searched(reader, **period) == ([13, 12, 11, 10], [10, 11, 12, 13], None)
    assert searched(reader, **period, class_name="browser") == ([13, 11], [11, 13], None)
    assert searched(reader, since_ns=BEGIN_NS + 39 * HOUR_NS) == ([40, 39], [39, 40], None)
    assert searched(reader, until_ns=BEGIN_NS) == ([], [], None)


def test_exchanges_without_the_value_and_denials_are_not_listed(tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.close_exchange(hostile_exchange("01", cost_usd=None, end_ns=0))
        spool.close_exchange(hostile_exchange("02", cost_usd=0.0))
        spool.add(hostile_denial())
    with SpoolReader(tmp_path / "spool.db") as reader:
        assert searched(reader) == ([2], [], None)


def test_search_that_ran_out_of_time_names_the_oldest_line_searched(reader, monkeypatch):
    monkeypatch.setattr(ranges, "STEP", 7)
    times = iter(range(100))
    slowest, _, oldest_ns = searched(reader, clock=lambda: float(next(times)))
    assert slowest == list(range(40, 33, -1)) and oldest_ns == BEGIN_NS + 34 * HOUR_NS


def page(reader: SpoolReader, clock=lambda: 0.0) -> str:
    view = usage.usage_of(reader, BEGIN_NS, None, None, clock)
    return render("usage.html", view=view, conditions=listing.conditions_of({}))


def test_page_reports_that_the_search_ended_early(reader, monkeypatch):
    mark = "The slowest and dearest exchanges are only those since"
    assert mark not in page(reader)
    monkeypatch.setattr(ranges, "STEP", 7)
    times = iter(range(100))
    text = page(reader, clock=lambda: float(next(times)))
    assert mark in text and TEXT not in text and "&lt;script&gt;" in text and "\\u202e" in text


def test_page_shows_the_number_of_omitted_days(reader, monkeypatch):
    assert "not shown" not in page(reader)
    monkeypatch.setattr(usage, "MAX_ROWS", 1)
    text = page(reader)
    assert "the last 1 days" in text and "earlier days are not shown: <code>egress usage --by day</code>" in text


def test_each_search_reads_a_range_of_numbers_and_no_whole_table(reader):
    """Check the query plan.

    No index contains duration or cost, so the search must limit its work by a range of primary keys.
    """
    statements: list[str] = []
    connection = reader.connections.get()
    connection.set_trace_callback(statements.append)
    reader.highest("cost_usd", Filters(limit=3).within(5, 20))
    connection.set_trace_callback(None)
    (plan, *_), *_ = ([row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in statements)
    assert plan == "SEARCH records USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
