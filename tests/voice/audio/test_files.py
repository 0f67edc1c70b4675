"""Sound files as session audio: real files, whole and cut."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.audio.files import AudioFileError, SoundFile
from machines.audio import AudioEncoding, AudioFormat

NOISE = np.random.default_rng(7).normal(0, 4_000, (40_123, 2)).astype(np.int16)


def saved(path: Path, samples: np.ndarray[tuple[int, ...], np.dtype[np.int16]], rate: int, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def played(path: Path, target: AudioFormat, frames_per_block: int = 5) -> bytes:
    return b"".join(SoundFile(path, target).blocks(frames_per_block))


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_in_the_target_format_passes_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", NOISE, 16_000)
    file = SoundFile(path, AudioFormat(channels=2))
    assert (file.sample_rate, file.channels) == (16_000, 2)
    assert file.duration_seconds == 40_123 / 16_000
    blocks = list(file.blocks(3))
    assert b"".join(blocks) == NOISE.tobytes()
    assert {len(block) for block in blocks[:-1]} == {3 * 320 * 4}
    assert list(file.blocks(3)) == blocks


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "PCM_U8"), ("wav", "ULAW"), ("flac", "PCM_24"), ("ogg", "VORBIS")],
)
def test_other_sample_types_come_near(tmp_path: Path, suffix: str, subtype: str) -> None:
    tone = np.rint(8_000 * np.sin(np.arange(32_000) * 0.05)).astype(np.int16)[:, None]
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone / 32_768.0, 16_000, subtype=subtype)
    out = np.frombuffer(played(path, AudioFormat()), "<i2").astype(float)
    assert len(out) == 32_000
    largest_error = {"PCM_24": 0, "FLOAT": 0, "PCM_U8": 256, "ULAW": 512, "VORBIS": 400}[subtype]
    assert np.abs(out - tone[:, 0])[1_000:-1_000].max() <= largest_error


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000])
def test_any_rate_is_resampled_to_within_a_sample_of_the_exact_length(tmp_path: Path, rate: int) -> None:
    path = saved(tmp_path / "a.wav", NOISE, rate)
    out = played(path, AudioFormat())
    assert abs(len(out) / 2 - len(NOISE) * 16_000 / rate) < 1


def test_channels_are_mixed_down_and_spread(tmp_path: Path) -> None:
    stereo = saved(tmp_path / "two.wav", np.tile(np.array([[100, 300]], np.int16), (640, 1)), 16_000)
    assert set(np.frombuffer(played(stereo, AudioFormat()), "<i2").tolist()) == {200}
    mono = saved(tmp_path / "one.wav", np.full((640, 1), 7, np.int16), 16_000)
    assert np.frombuffer(played(mono, AudioFormat(channels=2)), "<i2").tolist() == [7] * 1_280


def test_a_telephone_session_gets_mu_law(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.wav", NOISE[:, :1], 8_000)
    out = played(path, AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8_000))
    assert out == mulaw.encode(NOISE[:, :1])


def test_whole_files_pass_the_check(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "a.ogg"):
        SoundFile(saved(tmp_path / name, NOISE, 44_100), AudioFormat()).check()


def test_a_wav_written_into_a_pipe_says_no_size_and_is_played_to_its_end(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.wav", NOISE[:, :1], 16_000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert played(path, AudioFormat()) == NOISE[:, :1].tobytes()


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.9995])
def test_a_cut_file_is_refused_before_anything_is_played(tmp_path: Path, suffix: str, kept: float) -> None:
    path = saved(tmp_path / f"a.{suffix}", NOISE, 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(AudioFileError, match=rf"a\.{suffix} .*cut off"):
        SoundFile(path, AudioFormat()).check()


def test_an_ogg_cut_between_two_pages_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ogg", NOISE, 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: content.rfind(b"OggS")])
    with pytest.raises(AudioFileError, match="cut off"):
        SoundFile(path, AudioFormat())


def renumbered(ogg: bytes, serial: bytes) -> bytes:
    """An OGG file as another stream: the serial number and the checksum of each page are others."""
    pages = [b"OggS" + page for page in ogg.split(b"OggS")[1:]]
    out = b""
    for page in pages:
        blank = page[:14] + serial + page[18:22] + bytes(4) + page[26:]
        checksum = 0
        for byte in blank:
            checksum ^= byte << 24
            for _ in range(8):
                checksum = (checksum << 1 ^ (0x04C1_1DB7 if checksum >> 31 else 0)) & 0xFFFF_FFFF
        out += blank[:22] + struct.pack("<I", checksum) + blank[26:]
    return out


@pytest.mark.parametrize("joint", ["the same", "another", "foreign bytes", "cut"])
def test_an_ogg_of_several_streams_is_refused_instead_of_losing_the_later_ones(tmp_path: Path, joint: str) -> None:
    path = saved(tmp_path / "a.ogg", NOISE[:8_000], 16_000)
    one = path.read_bytes()
    other = renumbered(one, b"abcd")
    path.write_bytes(
        {
            "the same": one + one,
            "another": one + other,
            "foreign bytes": one + bytes(100_000) + one,
            "cut": one[:-9] + other,
        }[joint]
    )
    assert soundfile.info(path).frames <= 8_000  # this is why
    with pytest.raises(AudioFileError, match=r"a\.ogg holds several OGG streams .*: give each"):
        SoundFile(path, AudioFormat())


def test_an_ogg_with_foreign_bytes_behind_it_is_played(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ogg", NOISE, 16_000)
    whole = played(path, AudioFormat(channels=2))
    with path.open("ab") as file:
        file.write(b"TAG" + bytes(125))
    assert played(path, AudioFormat(channels=2)) == whole


@pytest.mark.parametrize(("flags", "footer"), [(0, b""), (0x10, b"3DI\x04\x00\x10\x00\x00\x02\x00")])
def test_a_flac_behind_an_id3_tag_is_named_so(tmp_path: Path, flags: int, footer: bytes) -> None:
    path = saved(tmp_path / "a.flac", NOISE, 16_000)
    tag = b"ID3\x04\x00" + bytes([flags, 0, 0, 2, 0]) + bytes(256) + footer
    path.write_bytes(tag + path.read_bytes())
    with pytest.raises(AudioFileError, match=r"a\.flac has an ID3 tag before its FLAC data: remove the tag"):
        SoundFile(path, AudioFormat())


def test_damage_in_the_middle_of_a_flac_is_found_by_the_check(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.flac", NOISE, 16_000)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 20_000] = bytes(20_000)
    path.write_bytes(content)
    file = SoundFile(path, AudioFormat())
    with pytest.raises(AudioFileError, match="damaged"):
        file.check()


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match=r"none\.wav was not found in .*: check the path"):
        SoundFile(tmp_path / "none.wav", AudioFormat())
    with pytest.raises(AudioFileError, match=f"^{re.escape(str(tmp_path))} is not a file"):
        SoundFile(tmp_path, AudioFormat())
    with pytest.raises(AudioFileError, match=r"^\. is not a file"):
        SoundFile(Path(), AudioFormat())


@pytest.mark.parametrize(
    "content", [b"hello, world: no audio at all" * 50, b"RIFF\x00\x00\x00\x00AVI ", b"ID3", b"{}", b"\0"]
)
def test_what_is_no_audio_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(AudioFileError, match=r"a\.wav is no WAV, FLAC or OGG file: convert"):
        SoundFile(path, AudioFormat())


def test_an_empty_file_and_a_file_without_samples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"")
    with pytest.raises(AudioFileError, match="is empty"):
        SoundFile(path, AudioFormat())
    with pytest.raises(AudioFileError, match="is empty: it holds no samples"):
        SoundFile(saved(path, NOISE[:0], 16_000), AudioFormat())
    flac = tmp_path / "a.flac"
    stream_info = struct.pack(">HH6xQ16x", 4_096, 4_096, 16_000 << 44 | 15 << 36)
    flac.write_bytes(b"fLaC" + bytes([0x80, 0, 0, 34]) + stream_info)
    with pytest.raises(AudioFileError, match="empty"):
        SoundFile(flac, AudioFormat())


def test_an_absurd_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="has 1000 Hz: convert"):
        SoundFile(saved(tmp_path / "a.wav", NOISE, 1_000), AudioFormat())


def test_a_file_that_is_cut_between_the_check_and_the_playing_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.wav", NOISE, 16_000)
    file = SoundFile(path, AudioFormat())
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(AudioFileError, match="cut off"):
        list(file.blocks(10))


def test_every_message_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC" + bytes(60))
    with pytest.raises(AudioFileError) as caught:
        SoundFile(path, AudioFormat())
    assert "\n" not in str(caught.value)


def test_a_block_has_at_least_one_frame(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.wav", NOISE, 16_000)
    with pytest.raises(ValueError, match="frames_per_block"):
        next(SoundFile(path, AudioFormat()).blocks(0))
