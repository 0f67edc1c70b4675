"""A part that crashes now and then is restarted; a storm of crashes is not."""

from hypothesis import given
from hypothesis import strategies as st

from machines.restart import CrashLog, Intensity


def allowed(times: list[float], intensity: Intensity) -> list[bool]:
    log, answers = CrashLog(), []
    for at in times:
        log, answer = log.after_crash(at, intensity)
        answers.append(answer)
    return answers


def test_the_limit_is_the_number_of_restarts_within_the_window() -> None:
    assert allowed([0, 1, 2, 3], Intensity(limit=3, window=60)) == [True, True, True, False]


def test_a_crash_that_left_the_window_is_forgiven() -> None:
    assert allowed([0, 30, 61], Intensity(limit=2, window=60)) == [True, True, True]
    assert allowed([0, 30, 59], Intensity(limit=2, window=60)) == [True, True, False]


def test_a_crash_exactly_one_window_ago_counts_no_more() -> None:
    assert allowed([0, 60], Intensity(limit=1, window=60)) == [True, True]


def test_slow_leaks_of_crashes_are_forgiven_for_ever() -> None:
    assert all(allowed([at * 61.0 for at in range(100)], Intensity(limit=1, window=60)))


def test_a_limit_of_zero_never_restarts() -> None:
    assert allowed([0, 1000], Intensity(limit=0, window=60)) == [False, False]


def test_a_crash_leaves_the_old_log_as_it_was() -> None:
    log, _ = CrashLog().after_crash(1, Intensity(3, 60))
    log.after_crash(2, Intensity(3, 60))
    assert log.times == (1,)


@given(
    st.lists(st.integers(0, 100), max_size=60).map(sorted),
    st.integers(0, 5),
    st.integers(1, 50),
)
def test_the_answer_is_that_of_counting_all_crashes(times: list[int], limit: int, window: int) -> None:
    intensity = Intensity(limit, window)
    log = CrashLog()
    for index, at in enumerate(times):
        log, answer = log.after_crash(at, intensity)
        assert answer == (sum(1 for earlier in times[:index] if earlier > at - window) < limit)
        assert len(log.times) <= limit + 1
