"""What counts as speech, and when a silence is known to be one."""

import numpy as np
import pytest
from numpy.typing import NDArray

from machines.silence import HELD_BACK_FRAMES, SHORTEST_VOICE_FRAMES, Listening, VoiceMeter

SECOND = 50  # frames
FRAME_SAMPLES = 320


def levels(dbfs: float, frames: int, seed: int = 0) -> NDArray[np.float64]:
    """The mean squares of frames of white noise, which differ by chance as those of a line do."""
    samples = np.random.default_rng(seed).normal(0, 10 ** (dbfs / 20), (frames, FRAME_SAMPLES))
    found: NDArray[np.float64] = (samples**2).mean(axis=1)
    return found


def speech(dbfs: float, frames: int, pauses_dbfs: float) -> NDArray[np.float64]:
    """Syllables of a fifth of a second with as long a pause behind each."""
    loud, quiet = levels(dbfs, frames), levels(pauses_dbfs, frames)
    return np.where(np.arange(frames) // 10 % 2 == 0, loud, quiet)


def voiced(*parts: NDArray[np.float64]) -> list[int]:
    meter = VoiceMeter()
    return [meter.voiced(part.tolist()) for part in parts]


@pytest.mark.parametrize("dbfs", [-90, -72, -60, -50, -40, -30, -20])
def test_steady_noise_is_no_voice_however_loud(dbfs: float) -> None:
    assert voiced(levels(dbfs, 60 * SECOND)) == [0]


def test_digital_silence_is_no_voice_and_says_nothing_of_the_noise_beside_it() -> None:
    zeros, noise = np.zeros(10 * SECOND), levels(-45, 10 * SECOND)
    assert voiced(zeros) == [0]
    assert voiced(noise, zeros, noise, zeros, noise) == [0, 0, 0, 0, 0]
    assert voiced(zeros, noise) == [0, 0]


@pytest.mark.parametrize(("dbfs", "noise"), [(-20, -60), (-35, -60), (-45, -72), (-20, -40)])
def test_what_stands_out_of_the_noise_is_voice(dbfs: float, noise: float) -> None:
    quiet, spoken = voiced(levels(noise, 5 * SECOND), speech(dbfs, 5 * SECOND, noise))
    assert quiet == 0
    assert spoken > SECOND


def test_a_call_that_begins_with_speech_is_heard_from_its_first_pause_on() -> None:
    assert voiced(speech(-20, 2 * SECOND, -60))[0] > SECOND / 2


def test_speech_of_a_minute_does_not_become_noise() -> None:
    *_, last = voiced(*[speech(-25, 10 * SECOND, -55) for _ in range(6)])
    assert last > 3 * SECOND


def test_noise_that_grows_louder_is_noise_again_after_a_while() -> None:
    _, first, *_, last = voiced(levels(-60, 5 * SECOND), *[levels(-40, 5 * SECOND, seed) for seed in range(6)])
    assert first
    assert last == 0


@pytest.mark.parametrize(("frames", "counted"), [(1, 0), (4, 0), (5, 5), (9, 9)])
def test_a_click_is_no_voice_and_a_syllable_counts_whole(frames: int, counted: int) -> None:
    assert SHORTEST_VOICE_FRAMES == 5
    meter = VoiceMeter()
    meter.voiced([1e-6] * SECOND)
    assert sum(meter.voiced([level]) for level in [1e-2] * frames + [1e-6] * 10) == counted


def test_loud_frames_between_which_the_line_is_dead_are_clicks() -> None:
    meter = VoiceMeter()
    meter.voiced([1e-6] * SECOND)
    assert meter.voiced([1e-2, 0.0] * SECOND) == 0


def test_what_is_below_the_hearing_of_a_line_is_no_voice_however_much_it_stands_out() -> None:
    quiet, louder = voiced(levels(-95, 5 * SECOND), levels(-72, 5 * SECOND))
    assert (quiet, louder) == (0, 0)


class TestASilenceThatHasRunOut:
    @pytest.mark.parametrize("by_ear", [False, True])
    def test_where_all_was_dealt_with_it_is_one(self, *, by_ear: bool) -> None:
        heard, measured = (500, 0) if by_ear else (0, 500)
        assert Listening(by_ear).run_out(accepted=500, heard=heard, measured=measured) is None

    @pytest.mark.parametrize("by_ear", [False, True])
    def test_of_what_is_behind_all_that_had_come_by_then_is_dealt_with_first(self, *, by_ear: bool) -> None:
        def run_out(listening: Listening, accepted: int, dealt_with: int) -> Listening | None:
            heard, measured = (dealt_with, 9_999) if by_ear else (9_999, dealt_with)
            return listening.run_out(accepted, heard, measured)

        waits = run_out(Listening(by_ear), 500, 300)
        assert waits == Listening(by_ear, upto=500)
        assert run_out(waits, 550, 499) == waits  # however much has come since
        assert run_out(waits, 550, 500) is None
        assert run_out(Listening(by_ear), 500, 499) == waits

    def test_what_an_engine_holds_back_when_no_more_comes_is_not_waited_for(self) -> None:
        waits = Listening(by_ear=True, upto=500)
        assert waits.run_out(accepted=500, heard=500 - HELD_BACK_FRAMES, measured=500) is None
        assert waits.run_out(accepted=500, heard=499 - HELD_BACK_FRAMES, measured=500) == waits

    def test_what_is_measured_is_never_held_back(self) -> None:
        waits = Listening(by_ear=False, upto=500)
        assert waits.run_out(accepted=500, heard=0, measured=499) == waits
