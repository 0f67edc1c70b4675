"""How long speech to text will take for what waits, by the pace that it shows: arithmetic, without a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.core.communication.voice.stt.pace import HALF_LIFE_SECONDS, LEAST_FRAMES, Pace


def test_before_anything_was_decoded_there_is_no_pace() -> None:
    pace = Pace()
    assert pace.frames_per_second(7.0) is None
    assert pace.seconds_for(500, 2, working_seconds=7.0) == 0


def test_a_few_frames_say_nothing_yet() -> None:
    pace = Pace()
    pace.worked(LEAST_FRAMES - 1, 0.1)
    assert pace.frames_per_second() is None
    pace.worked(1, 0.0)
    assert pace.frames_per_second() == pytest.approx(500)


@given(st.floats(10, 5000), st.integers(1, 100_000), st.integers(1, 8))
def test_what_waits_takes_the_workers_its_frames_at_their_pace(per_second: float, frames: int, workers: int) -> None:
    pace = Pace()
    for _ in range(100):
        pace.worked(25, 25 / per_second)
    assert pace.seconds_for(frames, workers) == pytest.approx(frames / per_second / workers)


def test_answers_that_come_at_one_moment_count_as_one() -> None:
    together, apart = Pace(), Pace()
    for _ in range(20):
        together.worked(25, 0.0)
        together.worked(25, 0.2)
        apart.worked(25, 0.1)
        apart.worked(25, 0.1)
    assert together.frames_per_second() == pytest.approx(apart.frames_per_second(), rel=0.02)


def test_a_machine_that_gets_busy_has_another_pace_soon() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.worked(25, 0.05)
    for _ in range(int(3 * HALF_LIFE_SECONDS)):
        pace.worked(25, 1.0)
    found = pace.frames_per_second()
    assert found is not None
    assert 25 < found < 4 * 25, "seven eighths of it are of now"


def test_a_worker_that_does_not_answer_slows_the_pace_while_it_does_not() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.worked(25, 0.05)
    waits = [pace.seconds_for(1000, 1, working_seconds=seconds) for seconds in (0, 1, 10, 100)]
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(2)
    assert waits[-1] > 10


def test_where_no_worker_runs_just_now_it_is_as_if_one_did() -> None:
    pace = Pace()
    pace.worked(100, 1.0)
    assert pace.seconds_for(500, 0) == pace.seconds_for(500, 1) == pytest.approx(5)
