"""Tests of the ranges of line numbers that the web page reads from the spool, one after another."""

import pytest

from openclaw_egress.ui import ranges


@pytest.fixture(autouse=True)
def short_steps(monkeypatch):
    monkeypatch.setattr(ranges, "STEP", 10)


def test_ranges_cover_each_line_once_newest_first():
    assert list(ranges.newest_first(3, 26, lambda: 0.0)) == [(16, 26), (6, 16), (3, 6)]
    assert list(ranges.newest_first(1, 1, lambda: 0.0)) == []


def test_no_range_begins_after_the_time_limit():
    times = iter([0.0, 0.1, ranges.READ_SECONDS])
    assert list(ranges.newest_first(1, 100, lambda: next(times))) == [(90, 100), (80, 90)]


def test_first_range_is_read_even_without_time():
    assert list(ranges.newest_first(1, 100, lambda: 0.0, seconds=-1.0)) == [(90, 100)]
