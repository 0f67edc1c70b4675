"""Sounds for tests: speech that ships with the project, files, tones and silence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.audio.files import SoundFile
from agentos.core.communication.voice.samples import SAMPLE, SAMPLE_TEXT
from machines.audio import FRAMES_PER_SECOND, AudioEncoding, AudioFormat

__all__ = ["SAMPLE_TEXT", "Sound", "sentence", "silence", "tone"]

PCM: Final = AudioFormat()
_LOUDEST: Final = 32_767


@dataclass(frozen=True, slots=True)
class Sound:
    """Audio in `format`, in whole frames of 20 ms: a last frame that is short is filled up with silence."""

    data: bytes
    format: AudioFormat = PCM

    def __post_init__(self) -> None:
        missing = -len(self.data) % self.format.frame_bytes
        silent = mulaw.encode(np.zeros(1, np.int16)) if self.format.encoding is AudioEncoding.MULAW else b"\0"
        object.__setattr__(self, "data", self.data + silent * missing)

    @classmethod
    def read(cls, path: Path, audio_format: AudioFormat | None = None) -> Self:
        """A WAV, FLAC or OGG file, brought to `audio_format`. Raises `AudioFileError`, a `ValueError`, which says what is wrong
        with the file."""
        target = audio_format if audio_format is not None else AudioFormat()
        return cls(b"".join(SoundFile(path, target).blocks(FRAMES_PER_SECOND)), target)

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return len(self.data) // self.format.frame_bytes

    def __add__(self, other: "Sound") -> "Sound":
        """This sound, and then the other one. Raises `ValueError` when their formats differ."""
        if self.format != other.format:
            raise ValueError(f"a sound in {self.format} can't be followed by one in {other.format}")
        return Sound(self.data + other.data, self.format)


def sentence(audio_format: AudioFormat | None = None) -> Sound:
    """A synthetic voice that says `SAMPLE_TEXT`, "go forward ten meters", in 1.9 seconds."""
    return Sound.read(SAMPLE, audio_format)


def silence(seconds: float, audio_format: AudioFormat | None = None) -> Sound:
    """Nothing to hear, for so long."""
    return tone(seconds, audio_format, level=0.0)


def tone(seconds: float, audio_format: AudioFormat | None = None, *, hertz: float = 440.0, level: float = 0.5) -> Sound:
    """A sine on all channels; `level` is its amplitude, 1 at most."""
    target = audio_format if audio_format is not None else AudioFormat()
    at = np.arange(round(seconds * target.sample_rate)) / target.sample_rate
    wave = (np.sin(2 * np.pi * hertz * at) * level * _LOUDEST).astype(np.int16)
    samples = np.repeat(wave, target.channels)
    encoded = mulaw.encode(samples) if target.encoding is AudioEncoding.MULAW else samples.astype("<i2").tobytes()
    return Sound(encoded, target)
