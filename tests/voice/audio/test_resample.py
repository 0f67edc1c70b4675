"""The polyphase resampler: length, alignment, response, and independence of the chunks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentos.core.communication.voice.audio.resample import Resampler, _BlockFilter, _GatherFilter

RATES = [
    (8_000, 16_000),
    (16_000, 8_000),
    (48_000, 16_000),
    (44_100, 16_000),
    (16_000, 44_100),
    (11_025, 16_000),
    (24_000, 16_000),
    (47_950, 16_000),
    (44_101, 16_000),
    (192_000, 4_000),
    (4_000, 192_000),
]


def resampled(samples: NDArray[np.int16], source: int, target: int, cuts: list[int] | None = None) -> NDArray[np.int16]:
    resampler = Resampler(source, target, samples.shape[1])
    parts = np.split(samples, sorted(min(cut, len(samples)) for cut in cuts or []))
    return np.concatenate([resampler.process(part) for part in parts] + [resampler.finish()])


def tone(frequency: float, rate: int, count: int, amplitude: float = 16_000) -> NDArray[np.float64]:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(count) / rate + 0.3)


def as_samples(signal: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.rint(signal).astype(np.int16)[:, None]


def middle_rms(signal: NDArray[np.float64]) -> float:
    edge = len(signal) // 5
    return float(np.sqrt((signal[edge:-edge] ** 2).mean()))


@pytest.mark.parametrize(("source", "target"), RATES)
@pytest.mark.parametrize("count", [0, 1, 7, 159, 160, 1_000, 4_801])
def test_length_is_within_one_sample_of_the_exact_one(source: int, target: int, count: int) -> None:
    out = resampled(np.ones((count, 1), np.int16), source, target)
    assert abs(len(out) - count * target / source) < 1
    assert out.dtype == np.int16


@pytest.mark.parametrize(("source", "target"), RATES)
@pytest.mark.parametrize("part", [0.05, 0.5, 0.85])
def test_a_tone_in_the_pass_band_comes_out_unchanged_and_on_time(source: int, target: int, part: float) -> None:
    frequency = part * min(source, target) / 2
    out = resampled(as_samples(tone(frequency, source, source // 4)), source, target)[:, 0].astype(float)
    error = middle_rms(out - tone(frequency, target, len(out)))
    assert error < 16_000 * 10 ** (-70 / 20)  # a sample's delay or 0.01 dB of ripple would be far above


@pytest.mark.parametrize(("source", "target"), [(a, b) for a, b in RATES if a > b])
@pytest.mark.parametrize("part", [1.0, 1.1, 1.6])
def test_what_would_alias_is_down_by_more_than_60_db(source: int, target: int, part: float) -> None:
    out = resampled(
        as_samples(tone(min(part * target / 2, 0.49 * source), source, source // 4, 30_000)), source, target
    )
    assert middle_rms(out[:, 0].astype(float)) < 30_000 / np.sqrt(2) * 10 ** (-60 / 20)


def test_images_are_down_by_more_than_60_db() -> None:
    out = resampled(as_samples(tone(3_000, 8_000, 8_000, 30_000)), 8_000, 16_000)[2_000:14_000, 0]
    spectrum = np.abs(np.fft.rfft(out * np.blackman(len(out))))
    image = spectrum[round(4_100 / 16_000 * len(out)) :].max()
    assert image < spectrum.max() * 10 ** (-60 / 20)


def test_a_click_stays_where_it_was() -> None:
    click = np.zeros((4_000, 1), np.int16)
    click[2_000] = 30_000
    assert np.abs(resampled(click, 8_000, 16_000)[:, 0]).argmax() == 4_000
    assert np.abs(resampled(click, 48_000, 16_000)[:, 0]).argmax() in (666, 667)


def test_a_constant_stays_exactly_constant_away_from_the_edges() -> None:
    for source, target in RATES:
        out = resampled(np.full((source // 4, 1), 12_345, np.int16), source, target)
        assert (out[len(out) // 4 : -len(out) // 4] == 12_345).all()


def test_full_scale_is_limited_and_never_wraps() -> None:
    square = np.where(np.arange(4_000) // 40 % 2, 32_767, -32_768).astype(np.int16)[:, None]
    out = resampled(square, 8_000, 16_000)[:, 0].astype(int)
    assert out.max() == 32_767
    assert out.min() == -32_768
    assert (out[100:-100].reshape(-1, 10).mean(axis=1) * 1.0).max() > 30_000


@pytest.mark.parametrize(("source", "target"), [(48_000, 16_000), (48_000, 8_000), (44_100, 16_000), (48_000, 44_100)])
def test_it_never_lags_by_more_than_it_says(source: int, target: int) -> None:
    resampler, taken, given = Resampler(source, target), 0, 0
    behind = []
    for size in [1, 7, 960, 960, 13, 441, 2_000, 1, 1, 1, 5_000]:
        taken += size
        given += len(resampler.process(np.zeros((size, 1), np.int16)))
        behind.append(taken * target / source - given)
    assert 0 < max(behind) <= resampler.lag < target / 50


def test_equal_rates_hand_the_samples_on() -> None:
    samples = np.arange(10, dtype=np.int16).reshape(5, 2)
    resampler = Resampler(16_000, 16_000, 2)
    assert resampler.process(samples) is samples
    assert resampler.finish().shape == (0, 2)


def test_channels_dont_mix() -> None:
    noise = np.random.default_rng(5).integers(-20_000, 20_000, (3_000, 3)).astype(np.int16)
    together = resampled(noise, 44_100, 16_000)
    for channel in range(3):
        alone = resampled(noise[:, channel : channel + 1], 44_100, 16_000)
        assert (together[:, channel] == alone[:, 0]).all()


@given(
    rates=st.sampled_from([*RATES, (16_000, 16_000), (22_050, 48_000)]),
    cuts=st.lists(st.integers(0, 3_000), max_size=12),
    seed=st.integers(0, 1_000),
    channels=st.integers(1, 2),
)
def test_the_chunks_make_no_difference(rates: tuple[int, int], cuts: list[int], seed: int, channels: int) -> None:
    noise = np.random.default_rng(seed).integers(-32_768, 32_768, (2_500, channels)).astype(np.int16)
    assert (resampled(noise, *rates, cuts) == resampled(noise, *rates)).all()


@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 3), (160, 441), (3, 2)])
def test_both_filters_give_the_same_numbers(up: int, down: int) -> None:
    signal = np.random.default_rng(3).integers(-32_768, 32_768, (1, 4_000)).astype(float)
    by_block, _ = _BlockFilter(up, down).run(signal, 0)
    by_gathering, _ = _GatherFilter(up, down).run(signal, 0)
    assert by_block.shape[1] > 500
    assert (by_block == by_gathering[:, : by_block.shape[1]]).all()


def test_bad_arguments_are_refused() -> None:
    for source, target, channels in [(3_999, 16_000, 1), (16_000, 192_001, 1), (8_000, 16_000, 0)]:
        with pytest.raises(ValueError, match=r"must be"):
            Resampler(source, target, channels)
    resampler = Resampler(8_000, 16_000)
    with pytest.raises(ValueError, match=r"shape \(n, 1\)"):
        resampler.process(np.zeros((4, 2), np.int16))
    with pytest.raises(ValueError, match="int16"):
        resampler.process(np.zeros((4, 1), np.int32))


def test_a_finished_resampler_takes_and_gives_no_more() -> None:
    resampler = Resampler(8_000, 16_000)
    resampler.process(np.ones((100, 1), np.int16))
    assert len(resampler.finish()) > 0
    assert len(resampler.finish()) == 0
    with pytest.raises(ValueError, match="finished"):
        resampler.process(np.ones((1, 1), np.int16))
