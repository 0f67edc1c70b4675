"""How old the oldest of a backlog is: at least what counts alone can prove, and never more than the truth."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from agentos.core.communication.voice.measuring.backlog_age import LOOKS_KEPT, BacklogAge


def test_nothing_waits_where_all_is_done() -> None:
    age = BacklogAge()
    assert age.look(0.0, 0, 0) == 0
    assert age.look(1.0, 7, 7) == 0


def test_what_waits_is_as_old_as_the_first_look_that_saw_it() -> None:
    age = BacklogAge()
    assert age.look(1.0, 5, 0) == 0
    assert age.look(3.0, 5, 4) == 2.0
    assert age.look(4.0, 9, 4) == 3.0


def test_once_the_old_ones_are_done_the_younger_ones_count() -> None:
    age = BacklogAge()
    age.look(1.0, 5, 0)
    age.look(3.0, 9, 0)
    assert age.look(7.0, 9, 5) == 4.0
    assert age.look(8.0, 9, 9) == 0
    assert age.look(9.0, 10, 9) == 0


def test_a_backlog_that_never_clears_takes_no_more_room() -> None:
    age = BacklogAge()
    for second in range(10 * LOOKS_KEPT):
        assert age.look(float(second), second + 1, 0) == second
    assert len(age._looks) <= LOOKS_KEPT
    assert age.look(10.0 * LOOKS_KEPT, 10 * LOOKS_KEPT, 10 * LOOKS_KEPT) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=60), st.booleans())
def test_the_bound_is_never_above_the_true_age_and_one_look_below_it_at_most(
    script: list[tuple[int, int, bool]], last_first: bool
) -> None:
    """Each second some come, some are done and perhaps somebody looks; served in order, or the youngest first."""
    age = BacklogAge()
    waiting: deque[int] = deque()
    came = done = 0
    looked = -1
    longest_gap = 0
    for second, (coming, serving, looks) in enumerate(script):
        waiting.extend([second] * coming)
        came += coming
        for _ in range(min(serving, len(waiting))):
            if last_first:
                waiting.pop()
            else:
                waiting.popleft()
            done += 1
        if looks:
            longest_gap = max(longest_gap, second - looked)
            looked = second
            bound = age.look(float(second), came, done)
            true = second - waiting[0] if waiting else 0
            assert bound <= true
            if not last_first:
                assert true - bound <= longest_gap


def test_an_empty_queue_has_no_age_whatever_became_of_what_waited() -> None:
    age = BacklogAge()
    assert age.look(0, 5, 0) == 0
    assert age.look(1, 3, 3) == 0
    assert age.look(1.25, 4, 3) == 0
