"""Denials are kept singly up to a rate; beyond it they are counted, and every one is accounted for."""

from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.denials import ANY, MAX_KEYS, SINGLY_PER_CLASS, SINGLY_PER_KEY, WINDOW_SECONDS, DenialRate, Key

LOOP = Key("sandbox", "example.com:443", "default")


def test_the_first_are_kept_singly_and_the_others_counted_once_their_window_is_over():
    rate = DenialRate()
    kept = [rate.singly(LOOP, now=float(second)) for second in range(25)]
    assert kept == [True] * SINGLY_PER_KEY + [False] * (25 - SINGLY_PER_KEY)
    assert rate.due(now=WINDOW_SECONDS) == []
    assert rate.due(now=WINDOW_SECONDS + 1) == [(LOOP, 25 - SINGLY_PER_KEY)]
    assert rate.due(now=WINDOW_SECONDS + 2) == []


def test_after_the_window_they_are_kept_singly_again():
    rate = DenialRate()
    for _ in range(SINGLY_PER_KEY + 1):
        rate.singly(LOOP, now=0.0)
    assert rate.singly(LOOP, now=WINDOW_SECONDS + 1)
    assert rate.due(now=WINDOW_SECONDS + 1) == [(LOOP, 1)]


def test_ever_new_names_do_not_help_a_loop():
    rate = DenialRate()
    kept = sum(rate.singly(Key("sandbox", f"{number}.example:443", "default"), now=0.0) for number in range(1000))
    assert kept == SINGLY_PER_CLASS
    assert rate.due(now=0.0, everything=True) == [(Key("sandbox", ANY, ANY), 1000 - SINGLY_PER_CLASS)]


def test_one_class_does_not_use_up_the_rate_of_another():
    rate = DenialRate()
    for number in range(1000):
        rate.singly(Key("sandbox", f"{number}.example:443", "default"), now=0.0)
    assert rate.singly(Key("browser", "example.com:443", "default"), now=0.0)


def test_memory_is_bounded():
    rate = DenialRate()
    for number in range(MAX_KEYS * 2):
        rate.singly(Key("sandbox", f"{number}.example:443", "default"), now=0.0)
    assert len(rate._windows) <= MAX_KEYS


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.floats(0, 30)), max_size=200))
def test_every_denial_is_kept_or_counted_exactly_once(steps):
    rate, now, kept, counted = DenialRate(), 0.0, 0, 0
    for class_name, destination, pause in steps:
        now += pause
        kept += rate.singly(Key(class_name, destination, "default"), now)
        counted += sum(count for _, count in rate.due(now))
    counted += sum(count for _, count in rate.due(now, everything=True))
    assert kept + counted == len(steps)
