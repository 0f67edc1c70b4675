"""Durations are counted in the bucket that they belong to, and nothing is lost between the buckets and the sum."""

from hypothesis import given
from hypothesis import strategies as st

from agentos.core.communication.voice.measuring.durations import BOUNDS_SECONDS, Durations


def test_nothing_was_counted() -> None:
    empty = Durations().statistics()
    assert (empty.count, empty.sum_seconds, set(empty.within)) == (0, 0.0, {0})


def test_a_bound_belongs_to_its_bucket() -> None:
    durations = Durations()
    for bound in BOUNDS_SECONDS:
        if bound >= 0.005:  # milliseconds are counted
            durations.add_ms(int(bound * 1000))
    within = dict(zip(BOUNDS_SECONDS, durations.statistics().within, strict=True))
    assert (within[0.0025], within[0.005], within[0.01], within[30.0]) == (0, 1, 2, 12)


@given(st.lists(st.integers(0, 100_000)))
def test_each_is_within_every_bound_above_it(added: list[int]) -> None:
    durations = Durations()
    for milliseconds in added:
        durations.add_ms(milliseconds)
    found = durations.statistics()
    assert (found.count, found.sum_seconds) == (len(added), sum(added) / 1000)
    for bound, count in zip(found.bounds_seconds, found.within, strict=True):
        assert count == sum(1 for milliseconds in added if milliseconds / 1000 <= bound)
