"""FLAC files are joined by their frames: the bits of the samples as they were, in a file that others read."""

import hashlib
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentos.core.communication.voice.audio.flac import (
    NotFlac,
    StreamInfo,
    crc16,
    frames_of,
    renumbered,
    stream_info,
    verbatim,
)


def encoded(samples: NDArray[np.int16], rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def joined(parts: list[NDArray[np.int16]], rate: int) -> bytes:
    frames: list[bytes] = []
    sizes: list[int] = []
    for part in parts:
        data = encoded(part, rate)
        info, begin = stream_info(data)
        assert info.samples == len(part)
        assert info.md5 == hashlib.md5(part.astype("<i2").tobytes()).digest()
        for frame in frames_of(data, info, begin):
            frames.append(renumbered(data, frame, sum(sizes)))
            sizes.append(frame.samples)
            assert crc16(frames[-1][:-2]) == int.from_bytes(frames[-1][-2:], "big")
    return head(np.concatenate(parts), rate, frames, sizes) + b"".join(frames)


def head(samples: NDArray[np.int16], rate: int, frames: list[bytes], sizes: list[int]) -> bytes:
    md5 = hashlib.md5(samples.astype("<i2").tobytes()).digest()
    lengths = [len(frame) for frame in frames]
    whole = min(sizes[:-1], default=max(sizes[0], 16)), max(sizes), min(lengths), max(lengths)
    info = StreamInfo(*whole, rate, samples.shape[1], 16, len(samples), md5)
    assert stream_info(info.head()) == (info, 42)
    return info.head()


def sound(chance: np.random.Generator, length: int, channels: int) -> NDArray[np.int16]:
    """Noise, a tone or silence, each of which is coded in a way of its own."""
    kind = chance.integers(3)
    if kind == 0:
        return chance.integers(-30_000, 30_000, (length, channels)).astype(np.int16)
    tone = 9_000 * np.sin(np.arange(length) / 9)[:, None] * (kind == 1)
    return np.repeat(tone, channels, axis=1).astype(np.int16)


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(16, 9_000), min_size=1, max_size=5),
    channels=st.sampled_from([1, 2, 8]),
    rate=st.sampled_from([8_000, 8_050, 16_000, 44_100, 48_000]),
    seed=st.integers(0, 999),
)
def test_the_samples_are_those_of_the_parts(lengths: list[int], channels: int, rate: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    parts = [sound(chance, length, channels) for length in lengths]
    heard, found = soundfile.read(io.BytesIO(joined(parts, rate)), dtype="int16", always_2d=True)
    assert found == rate
    assert np.array_equal(heard, np.concatenate(parts))


def test_samples_far_beyond_the_numbers_of_one_byte_are_found() -> None:
    """Hours into a call a sample's number takes six bytes, and a reader seeks by it."""
    samples = sound(np.random.default_rng(3), 40_000, 1)
    data = encoded(samples, 16_000)
    info, begin = stream_info(data)
    for first in (127, 128, 0x7FF, 0x800, 0xFFFF, 0x10000, 2**21, 2**26 - 1, 2**26, 2**31 - 1, 2**31, 2**36 - 1):
        for frame in frames_of(data, info, begin):
            made = renumbered(data, frame, first)
            assert crc16(made[:-2]) == int.from_bytes(made[-2:], "big")
            assert made[4:].startswith(coded(first))


def coded(number: int) -> bytes:
    """UTF-8 as RFC 2279 had it, with a seventh byte."""
    if number < 0x80:
        return bytes([number])
    bits = next(6 * more for more in range(1, 7) if number < 1 << (6 * more + (6 - more)))
    more = bits // 6
    lead = (0xFF << (7 - more)) & 0xFF
    return bytes([lead | number >> bits, *(0x80 | (number >> at) & 0x3F for at in range(bits - 6, -1, -6))])


@pytest.mark.skipif(shutil.which("flac") is None, reason="the reference decoder, Debian's flac, is not installed")
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_the_reference_decoder_takes_it(tmp_path: Path, channels: int) -> None:
    chance = np.random.default_rng(channels)
    path = tmp_path / "joined.flac"
    path.write_bytes(joined([sound(chance, length, channels) for length in (48_000, 4_096, 20_000, 17)], 48_000))
    done = subprocess.run(
        ["flac", "--test", "--silent", "--warnings-as-errors", path], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_samples_stand_in_a_frame_as_they_are(channels: int) -> None:
    samples = sound(np.random.default_rng(9), 4_103, channels)
    frame = verbatim(samples, 0)
    data = head(samples, 16_000, [frame], [len(samples)]) + frame
    heard, _ = soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)
    assert np.array_equal(heard, samples)


def test_what_looks_like_the_next_frame_and_is_none_is_told_by_the_crc_of_the_whole() -> None:
    samples = sound(np.random.default_rng(1), 3 * 4_096, 1)
    data = encoded(samples, 16_000)
    info, begin = stream_info(data)
    frames = list(frames_of(data, info, begin))
    first, second = (data[frame.begin : frame.end] for frame in frames[:2])
    trap = second[: frames[1].header]  # in the middle of the first frame stands the header of the next
    middle = len(first) // 2
    body = first[:middle] + trap + first[middle + len(trap) : -2]
    bad = data[:begin] + body + crc16(body).to_bytes(2, "big") + data[frames[1].begin :]
    assert [(frame.begin, frame.end) for frame in frames_of(bad, info, begin)] == [
        (frame.begin, frame.end) for frame in frames
    ]


def test_what_is_no_whole_file_is_told() -> None:
    data = encoded(sound(np.random.default_rng(1), 9_000, 1), 16_000)
    info, begin = stream_info(data)
    for bad in (b"", b"RIFF" + data[4:], data[:30]):
        with pytest.raises(NotFlac):
            stream_info(bad)
    middle = list(frames_of(data, info, begin))[1].begin
    for bad in (data[:middle], data[: middle + 3], data[:middle] + b"\0" + data[middle + 1 :]):
        with pytest.raises(NotFlac, match="4096 of 9000 samples"):
            list(frames_of(bad, info, begin))
