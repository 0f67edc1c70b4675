"""WAV files whose header does not say how long they are, as pipes and programs that died leave them."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice.audio.files import AudioFileError, SoundFile
from agentos.core.communication.voice.audio.wav import UNKNOWN_SIZES, StreamedWav, wav_layout
from machines.audio import AudioFormat

NOISE = np.random.default_rng(3).normal(0, 4_000, 40_123).astype(np.int16)
PCM = NOISE.astype("<i2").tobytes()


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) % 2)


def fmt(channels: int = 1, rate: int = 16_000, bits: int = 16, tag: int = 1) -> bytes:
    block = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits))


def saved(path: Path, *chunks: bytes, size: int = 0xFFFF_FFFF) -> Path:
    path.write_bytes(b"RIFF" + struct.pack("<I", size) + b"WAVE" + b"".join(chunks))
    return path


def heard(path: Path, channels: int = 1) -> bytes:
    sound = SoundFile(path, AudioFormat(channels=channels))
    sound.check()
    return b"".join(sound.blocks(50))


@pytest.mark.parametrize("size", [0, *sorted(UNKNOWN_SIZES)])
@pytest.mark.parametrize("before", [b"", chunk(b"FLLR", bytes(4_044)), chunk(b"LIST", b"INFOISFT\4\0\0\0abc\0")])
def test_a_file_of_unknown_size_is_read_to_its_end(tmp_path: Path, size: int, before: bytes) -> None:
    path = saved(tmp_path / "a.wav", fmt(), before, chunk(b"data", PCM, size))
    sound = SoundFile(path, AudioFormat())
    assert sound.duration_seconds == len(NOISE) / 16_000
    assert heard(path) == PCM


@pytest.mark.parametrize("size", [0, *sorted(UNKNOWN_SIZES)])
def test_half_an_instant_at_the_end_is_left_out(tmp_path: Path, size: int) -> None:
    path = saved(tmp_path / "a.wav", fmt(channels=2), b"data" + struct.pack("<I", size) + PCM[:4_000] + b"\1\2\3")
    assert heard(path, channels=2) == PCM[:4_000]


def test_other_kinds_of_samples_are_read_too(tmp_path: Path) -> None:
    floats = (NOISE / 32_768).astype("<f4").tobytes()
    path = saved(tmp_path / "f.wav", fmt(bits=32, tag=3), chunk(b"data", floats, 0x7FFF_F000))
    assert heard(path) == PCM


@pytest.mark.parametrize("size", [len(PCM) + 2, 0x7FFF_EFFF, 0x7000_0000])
def test_any_other_size_that_does_not_fit_means_that_the_file_was_cut(tmp_path: Path, size: int) -> None:
    path = saved(tmp_path / "a.wav", fmt(), chunk(b"data", PCM, size))
    with pytest.raises(AudioFileError, match="cut off or damaged"):
        SoundFile(path, AudioFormat())


@pytest.mark.parametrize("behind", [b"", chunk(b"LIST", b"INFOISFT\4\0\0\0abc\0")])
def test_a_file_without_samples_is_empty_also_with_a_comment_behind(tmp_path: Path, behind: bytes) -> None:
    path = saved(tmp_path / "a.wav", fmt(), chunk(b"data", b""), behind)
    with pytest.raises(AudioFileError, match="holds no samples"):
        SoundFile(path, AudioFormat())


@pytest.mark.parametrize("n", [0, 3, 11, 19, 40])
def test_a_header_that_ends_too_early_is_cut(tmp_path: Path, n: int) -> None:
    whole = saved(tmp_path / "a.wav", fmt(), chunk(b"data", PCM, 0xFFFF_FFFF)).read_bytes()
    path = tmp_path / "b.wav"
    path.write_bytes(whole[:n])
    with pytest.raises(AudioFileError):
        SoundFile(path, AudioFormat())


def test_without_a_format_it_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.wav", chunk(b"data", PCM, 0xFFFF_FFFF))
    with pytest.raises(AudioFileError):
        SoundFile(path, AudioFormat())


def test_a_streamed_file_is_one_that_any_reader_takes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.wav", fmt(), chunk(b"data", PCM, 0x8000_0000))
    with path.open("rb") as file:
        layout = wav_layout(file, path.stat().st_size)
        assert layout is not None
        assert layout.size_unknown
        with StreamedWav(file, layout) as streamed:
            whole = streamed.read()
        assert file.closed
    (tmp_path / "whole.wav").write_bytes(whole)
    assert soundfile.read(tmp_path / "whole.wav", dtype="int16")[0].tobytes() == PCM


def test_channels_of_opposite_phase_are_heard_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([NOISE // 2, -(NOISE // 2)], axis=1), 16_000)
    assert "cancel each other in 100% of it" in SoundFile(path, AudioFormat()).check()
    assert np.array_equal(np.abs(np.frombuffer(heard(path), "<i2")), np.abs(NOISE // 2))


def test_channels_that_differ_are_averaged_and_nothing_is_said(tmp_path: Path) -> None:
    other = np.random.default_rng(4).normal(0, 4_000, len(NOISE)).astype(np.int16)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([NOISE, other], axis=1), 16_000)
    assert SoundFile(path, AudioFormat()).check() == ""
    mean = np.rint(np.stack([NOISE, other], axis=1).mean(axis=1)).astype("<i2")
    assert heard(path) == mean.tobytes()
    soundfile.write(path, np.zeros((4_000, 2), np.int16), 16_000)
    assert SoundFile(path, AudioFormat()).check() == "", "silence cancels nothing"


@pytest.mark.parametrize("rate", [1, 3_999, 192_001, 1_000_000])
def test_a_rate_that_can_not_be_resampled_is_refused_with_those_that_can(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, NOISE[:100], rate)
    with pytest.raises(AudioFileError, match=f"has {rate} Hz: convert it to 4000 to 192000 Hz"):
        SoundFile(path, AudioFormat())
