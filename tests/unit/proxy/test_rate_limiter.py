"""Tests of the token bucket that limits the request rate of a class."""

import pytest

from openclaw_egress.proxy.rate_limiter import Rate


def test_burst_of_a_tenth_passes_at_once_and_the_rest_at_the_rate():
    rate = Rate(60)
    assert [rate.take(0.0) for _ in range(6)] == [0.0] * 6
    assert rate.take(0.0) == pytest.approx(1.0)
    assert rate.take(0.5) == pytest.approx(0.5)
    assert rate.take(1.0) == 0.0


def test_unused_allowance_does_not_accumulate():
    rate = Rate(60)
    rate.take(0.0)
    assert [rate.take(3600.0) for _ in range(7)][-1] > 0


def test_rate_below_ten_still_permits_one_request_at_once():
    rate = Rate(1)
    assert rate.take(0.0) == 0.0
    assert rate.take(30.0) == pytest.approx(30.0)
