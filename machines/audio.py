"""The audio format of a session, and the 20 ms frame in which all audio is counted.

A chunk of any size is a piece of a byte stream; the frame is the unit of account. Rates from telephone (8 kHz) to studio
(48 kHz) are allowed if a 20 ms frame has a whole number of samples.
"""

from enum import Enum

from pydantic import BaseModel, ConfigDict, Field, field_validator

FRAME_MS = 20
FRAMES_PER_SECOND = 1000 // FRAME_MS


class AudioEncoding(str, Enum):
    """How one sample is written."""

    PCM_S16LE = "pcm_s16le"  # linear, signed 16 bit, little-endian
    MULAW = "mulaw"  # ITU-T G.711 mu-law, 8 bit


class AudioFormat(BaseModel):
    """How a session's audio bytes are written: encoding, sample rate in Hz, interleaved channels.

    The default is 16 kHz mono signed 16-bit little-endian. Raises pydantic's `ValidationError`, a `ValueError`, for a rate
    outside 8,000 to 48,000 Hz or without a whole number of samples in 20 ms, for more than 8 channels, or an unknown
    encoding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoding: AudioEncoding = AudioEncoding.PCM_S16LE
    sample_rate: int = Field(default=16_000, ge=8_000, le=48_000, strict=True)
    channels: int = Field(default=1, ge=1, le=8, strict=True)

    @field_validator("sample_rate")
    @classmethod
    def _whole_frames(cls, rate: int) -> int:
        if rate % FRAMES_PER_SECOND:
            raise ValueError(f"sample_rate must be a multiple of {FRAMES_PER_SECOND} Hz (20 ms frames), got {rate}")
        return rate

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample instant, all channels."""
        return self.channels * (2 if self.encoding is AudioEncoding.PCM_S16LE else 1)

    @property
    def frame_samples(self) -> int:
        """Sample instants in a 20 ms frame."""
        return self.sample_rate // FRAMES_PER_SECOND

    @property
    def frame_bytes(self) -> int:
        """Bytes of a 20 ms frame, all channels."""
        return self.frame_samples * self.sample_bytes

    def __str__(self) -> str:
        return f"{self.encoding.value} {self.sample_rate} Hz, {self.channels} channel{'s' if self.channels > 1 else ''}"
