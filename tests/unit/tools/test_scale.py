"""Tests of the simulation of many proxies on one destination."""

import json

import pytest

from tools import scale

STOCK_LOKI = scale.Destination(rate=4 * 2**20, burst=6 * 2**20)


def outcome(hours: float = 1, destination: scale.Destination = STOCK_LOKI, **changes: float) -> scale.Outcome:
    fleet = {"proxies": 100, "exchanges_per_hour": 600, "bytes_per_exchange": 100_000, "pace": 0} | changes
    return scale.simulate(scale.Fleet(**fleet), destination, hours)


def test_backlog_is_sent_at_the_limit_minus_the_rate_of_new_records():
    offered = 100 * 600 * 100_000 / scale.HOUR
    fastest = offered * scale.HOUR / (STOCK_LOKI.rate - offered) / scale.HOUR
    assert fastest < outcome().hours_to_catch_up < 1.1 * fastest


def test_pace_limits_a_single_proxy_below_the_limit_of_the_destination():
    changes = {"proxies": 1, "exchanges_per_hour": 36_000, "bytes_per_exchange": 100_000}
    paced = outcome(pace=2_000_000, **changes)
    # 1 MB/s of new records leave 1 MB/s for the backlog, so the backlog of one hour takes one hour.
    assert paced.hours_to_catch_up == pytest.approx(1, rel=0.05)
    assert outcome(**changes).hours_to_catch_up < paced.hours_to_catch_up / 2


def test_destination_with_a_limit_below_the_rate_never_catches_up():
    found = outcome(proxies=300)
    assert found.share_of_limit > 1 and found.hours_to_catch_up is None


def test_idle_destination_refuses_no_push():
    found = outcome(hours=0, proxies=10)
    assert (found.refused_pushes, found.backlog_gigabytes) == (0, 0)
    assert found.oldest_hours < 0.1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--proxies", "0"], "--proxies must be greater than 0"),
        (["--outage-hours", "-1"], "--outage-hours must not be negative"),
        (["--burst-mb", "1"], "--burst-mb must be at least 1.9"),
    ],
)
def test_invalid_option_is_reported(words, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        scale.main(words)
    assert stopped.value.code == 2 and named in capsys.readouterr().err


@pytest.mark.parametrize(("rate", "code"), [("4", 0), ("0.2", 1)])
def test_exit_code_shows_whether_the_destination_catches_up(rate, code, capsys):
    words = ["--proxies", "20", "--bytes-per-exchange", "1000000", "--rate-mb", rate, "--json"]
    assert scale.main(words) == code
    assert (json.loads(capsys.readouterr().out)["hours_to_catch_up"] is None) is bool(code)


def test_table_fits_into_80_columns(capsys):
    scale.main(["--proxies", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and max(map(len, lines)) <= 80
