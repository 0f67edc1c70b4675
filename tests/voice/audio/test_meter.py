"""Levels, silence and clipping, frame by frame."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.core.communication.voice.audio.meter import dbfs, measure


def column(values: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.array(values, np.int16)[:, None]


def test_a_square_wave_at_full_scale_is_0_dbfs() -> None:
    level = measure(np.full((320, 1), -32_768, np.int16), 160)
    assert level.mean_square == 1.0
    assert level.peak == 1.0
    assert dbfs(level.mean_square) == 0.0


def test_a_sine_at_half_scale_is_9_dbfs_down() -> None:
    sine = np.rint(16_384 * np.sin(2 * np.pi * np.arange(1_600) / 16)).astype(np.int16)[:, None]
    assert dbfs(measure(sine, 320).mean_square) == pytest.approx(-9.03, abs=0.01)


def test_nothing_and_silence_have_no_level() -> None:
    assert measure(np.zeros((0, 1), np.int16), 320) == (0.0, 0.0, 0, 0, 0)
    assert measure(np.zeros((640, 1), np.int16), 320) == (0.0, 0.0, 0, 2, 2)
    assert dbfs(0.0) is None


def test_silence_begins_below_60_dbfs() -> None:
    assert measure(np.full((320, 1), 32, np.int16), 320).silent_frames == 1  # -60.2 dBFS
    assert measure(np.full((320, 1), 33, np.int16), 320).silent_frames == 0  # -59.9 dBFS


@pytest.mark.parametrize(
    ("values", "clipped"),
    [
        ([0, 32_767, 32_767, 32_767, 0], 1),
        ([0, -32_768, 32_767, -32_768, 0], 1),
        ([0, 32_767, 32_767, 0, 32_767], 0),
        ([32_767, 32_767, 32_766, 32_766, 32_766], 0),
        ([32_767, 32_767], 0),
    ],
)
def test_three_successive_samples_at_full_scale_are_clipping(values: list[int], clipped: int) -> None:
    assert measure(column(values), 5).clipped_frames == clipped


def test_a_run_across_two_frames_or_two_channels_is_not_clipping() -> None:
    assert measure(column([0, 0, 32_767, 32_767, 32_767, 32_767, 0, 0]), 4).clipped_frames == 0
    stereo = np.array([[32_767, 32_767], [32_767, 32_767], [0, 0]], np.int16)
    assert measure(stereo, 3).clipped_frames == 0
    assert measure(np.array([[32_767, 0]] * 3, np.int16), 3).clipped_frames == 1


def test_full_scale_can_be_that_of_mu_law() -> None:
    loud = np.full((160, 1), 32_124, np.int16)
    assert measure(loud, 160).clipped_frames == 0
    assert measure(loud, 160, full_scale=32_124).clipped_frames == 1


@given(st.integers(0, 2_000), st.integers(1, 3), st.integers(1, 400), st.integers(0, 99))
def test_it_equals_the_plain_definition(count: int, channels: int, frame: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    samples = (generator.normal(0, 30_000, (count, channels)) * generator.choice([0.0, 1e-3, 1.0])).clip(
        -32_768, 32_767
    )
    samples = samples.astype(np.int16)
    level = measure(samples, frame)
    frames = [samples[i : i + frame].astype(float) / 32_768 for i in range(0, count, frame)]
    assert level.frames == len(frames)
    assert level.silent_frames == sum(sqrt((part**2).mean()) < 1e-3 for part in frames)
    assert level.mean_square == pytest.approx((samples.astype(float) ** 2).mean() / 2**30 if count else 0.0, rel=1e-5)
    assert level.peak == (np.abs(samples.astype(float)).max() / 32_768 if count else 0.0)
