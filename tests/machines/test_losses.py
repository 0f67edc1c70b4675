"""Frames that were lost: runs in order, and what is asked of them."""

from hypothesis import given
from hypothesis import strategies as st

from machines.losses import MAX_FRAME, MOST_RUNS, Losses, Lost, clipped


def test_what_follows_for_the_same_reason_is_one_run() -> None:
    losses = Losses()
    losses.add(5, 2, "disk_full")
    losses.add(7, 3, "disk_full")
    losses.add(10, 1, "missing")
    losses.add(12, 1, "missing")
    assert losses.between(0, 99) == (Lost(5, 5, "disk_full"), Lost(10, 1, "missing"), Lost(12, 1, "missing"))


def test_what_comes_late_stands_in_its_place() -> None:
    losses = Losses([Lost(20, 5, "missing")])
    losses.add(3, 4, "disk_full")
    assert losses.between(0, 99) == (Lost(3, 4, "disk_full"), Lost(20, 5, "missing"))


def test_of_more_runs_than_are_kept_nothing_is_known() -> None:
    losses = Losses()
    for number in range(MOST_RUNS + 2):
        assert losses.known_below == (MAX_FRAME if number <= MOST_RUNS else 2 * MOST_RUNS)
        losses.add(2 * number, 1, "missing")
    assert len(losses.between(0, MAX_FRAME)) == MOST_RUNS
    assert losses.known_below == 2 * MOST_RUNS


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from("ab"))),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_what_is_asked_is_what_was_added(runs: list[tuple[int, int, str]], known: int, below: int) -> None:
    losses, at = Losses(), 0
    frames: dict[int, str] = {}
    for space, count, reason in runs:
        losses.add(at + space, count, reason)
        frames |= dict.fromkeys(range(at + space, at + space + count), reason)
        at += space + count
    found = losses.between(known, below)
    told = {frame: run.reason for run in found for frame in range(run.first, run.upto)}
    assert told == {frame: reason for frame, reason in frames.items() if known <= frame < below}
    assert clipped(found, known, below) == found
