"""From a session's format to mono 16 bit at an engine's rate."""

import numpy as np
import pytest

from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.audio.convert import Converter, to_pcm16
from agentos.core.communication.voice.audio.resample import Resampler
from machines.audio import AudioEncoding, AudioFormat

TELEPHONE = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8_000)


def test_the_targets_own_format_passes_without_a_copy() -> None:
    data = b"\x01\x02" * 320
    converter = Converter(AudioFormat())
    assert converter.convert(data) is data
    assert converter.finish() == b""


def test_stereo_becomes_the_rounded_mean_and_never_overflows() -> None:
    stereo = np.array([[1, 4], [32_767, 32_767], [-32_768, -32_768], [100, -100]], "<i2")
    out = Converter(AudioFormat(channels=2)).convert(stereo.tobytes())
    assert np.frombuffer(out, "<i2").tolist() == [2, 32_767, -32_768, 0]


def test_telephone_audio_is_decoded_and_resampled() -> None:
    codes = bytes(np.random.default_rng(1).integers(0, 256, 4_000).astype(np.uint8))
    converter = Converter(TELEPHONE)
    out = b"".join(converter.convert(codes[i : i + 160]) for i in range(0, len(codes), 160)) + converter.finish()
    resampler = Resampler(8_000, 16_000)
    expected = np.concatenate([resampler.process(mulaw.decode(codes)[:, None]), resampler.finish()])
    assert out == expected.tobytes()
    assert len(out) == 2 * 8_000


def test_another_target_rate() -> None:
    converter = Converter(AudioFormat(sample_rate=48_000, channels=2), target_rate=8_000)
    out = converter.convert(bytes(4 * 48_000)) + converter.finish()
    assert len(out) == 2 * 8_000


def test_half_a_sample_is_refused() -> None:
    for audio_format in (AudioFormat(), AudioFormat(channels=2)):
        with pytest.raises(ValueError, match="no whole number of samples"):
            Converter(audio_format).convert(b"\0" * 3)
        with pytest.raises(ValueError, match="no whole number of samples"):
            to_pcm16(b"\0" * 5, audio_format)


def test_samples_have_a_row_for_each_instant() -> None:
    assert to_pcm16(b"\x01\0\x02\0\x03\0\x04\0", AudioFormat(channels=2)).tolist() == [[1, 2], [3, 4]]
    two_lines = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8_000, channels=2)
    assert to_pcm16(b"\xff\x80", two_lines).tolist() == [[0, 32_124]]
