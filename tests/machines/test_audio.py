"""A session's format is one that cuts into whole 20 ms frames, or it is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from machines.audio import FRAMES_PER_SECOND, AudioEncoding, AudioFormat


def test_the_default_is_16_khz_mono_signed_16_bit() -> None:
    default = AudioFormat()
    assert (default.encoding, default.sample_rate, default.channels) == (AudioEncoding.PCM_S16LE, 16_000, 1)
    assert (default.frame_samples, default.frame_bytes, default.sample_bytes) == (320, 640, 2)
    assert str(default) == "pcm_s16le 16000 Hz, 1 channel"


@pytest.mark.parametrize(
    ("encoding", "rate", "channels", "frame_bytes"),
    [
        ("mulaw", 8_000, 1, 160),
        ("pcm_s16le", 8_000, 2, 640),
        ("pcm_s16le", 44_100, 2, 3_528),
        ("mulaw", 48_000, 8, 7_680),
    ],
)
def test_frames_of_other_formats(encoding: str, rate: int, channels: int, frame_bytes: int) -> None:
    audio = AudioFormat(encoding=AudioEncoding(encoding), sample_rate=rate, channels=channels)
    assert audio.frame_bytes == frame_bytes
    assert "channels" in str(audio) or channels == 1


@given(st.integers(0, 60_000))
def test_a_rate_is_taken_exactly_when_it_is_in_range_and_has_whole_frames(rate: int) -> None:
    if 8_000 <= rate <= 48_000 and rate % FRAMES_PER_SECOND == 0:
        assert AudioFormat(sample_rate=rate).frame_samples * FRAMES_PER_SECOND == rate
    else:
        with pytest.raises(ValidationError, match="sample_rate"):
            AudioFormat(sample_rate=rate)


@pytest.mark.parametrize("rate", [7_950, 48_050, 11_025, 22_049, 0, -16_000, "16000", 16_000.0, True, None])
def test_an_odd_rate_is_refused_by_name(rate: object) -> None:
    with pytest.raises(ValueError, match="sample_rate"):
        AudioFormat.model_validate({"sample_rate": rate})


@pytest.mark.parametrize("channels", [0, -1, 9, "1", 1.0, True])
def test_an_odd_number_of_channels_is_refused_by_name(channels: object) -> None:
    with pytest.raises(ValueError, match="channels"):
        AudioFormat.model_validate({"channels": channels})


@pytest.mark.parametrize("encoding", ["opus", "", None, 16])
def test_an_unknown_encoding_is_refused_by_name(encoding: object) -> None:
    with pytest.raises(ValueError, match="encoding"):
        AudioFormat.model_validate({"encoding": encoding})


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="bits"):
        AudioFormat.model_validate({"bits": 24})
