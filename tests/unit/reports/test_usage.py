"""Tests of `regrouped`, which lets the web page read the totals once and group them in several ways."""

from pathlib import Path

import pytest

from openclaw_egress.reports.usage import By, grouped, regrouped
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.writer import Spool
from tests.support.hostile_records import hostile_exchange

NAMES = (By.MODEL, By.CLASS, By.DAY)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        for number in range(12):
            spool.close_exchange(
                hostile_exchange(f"{number:04x}", class_name=f"c{number % 3}", host=f"h{number % 2}", cost_usd=number)
            )
    return tmp_path / "spool.db"


@pytest.mark.parametrize("at", range(len(NAMES)))
def test_totals_grouped_again_are_those_of_one_group(path, at):
    with SpoolReader(path) as reader:
        expected = grouped(reader, [NAMES[at]], 0, times=False)
        found = regrouped(grouped(reader, NAMES, 0, times=False), NAMES, at)
    assert [(values, totals.counts) for values, totals in found] == [
        (values, totals.counts) for values, totals in expected
    ]


def test_totals_without_times_have_the_same_counts(path):
    with SpoolReader(path) as reader:
        with_times, without = (grouped(reader, [By.CLASS], 0, times=times) for times in (True, False))
    assert [totals.counts for _, totals in with_times] == [totals.counts for _, totals in without]
    assert with_times[0][1].duration.percentile(0.5) and without[0][1].duration.percentile(0.5) is None
