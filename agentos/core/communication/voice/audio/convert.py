"""Conversion of a session's audio into an engine's: mono 16 bit samples at one rate."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.audio.resample import Resampler
from machines.audio import AudioEncoding, AudioFormat

CANCELLED: Final = 0.001
"""Part of the channels' mean power below which their mix counts as cancelled (-30 dB); independent channels leave half."""


def to_pcm16(data: bytes, audio_format: AudioFormat) -> NDArray[np.int16]:
    """The samples in `data`, int16 of shape (n, channels). PCM is a read-only view of `data`, mu-law is decoded.

    Raises `ValueError` if `data` ends within a sample.
    """
    if len(data) % audio_format.sample_bytes:
        raise ValueError(f"{len(data)} bytes are no whole number of samples of {audio_format.sample_bytes} bytes")
    linear = mulaw.decode(data) if audio_format.encoding is AudioEncoding.MULAW else np.frombuffer(data, "<i2")
    return linear.reshape(-1, audio_format.channels)


def mix_to_mono(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """The mean of the channels of `samples` (n, channels), rounded to the nearest, as shape (n, 1).

    If the channels cancel each other (opposite phase), the mean would be silence: then the result is the loudest channel.
    """
    if samples.shape[1] == 1:
        return samples
    mean: NDArray[np.float64] = samples.mean(axis=1, keepdims=True)
    loudest = _loudest_if_cancelled(samples, mean)
    return np.rint(mean).astype(np.int16) if loudest is None else samples[:, loudest : loudest + 1]


def channels_cancel(samples: NDArray[np.int16]) -> bool:
    """Whether the channels of `samples` (n, channels) cancel each other when they are mixed."""
    return samples.shape[1] > 1 and _loudest_if_cancelled(samples, samples.mean(axis=1, keepdims=True)) is not None


def _loudest_if_cancelled(samples: NDArray[np.int16], mean: NDArray[np.float64]) -> int | None:
    """The loudest channel if next to nothing of the channels' power is left in their mean; else None."""
    power: NDArray[np.float64] = np.square(samples, dtype=np.float64).sum(axis=0)
    if float(np.square(mean).sum()) >= CANCELLED * float(power.mean()):
        return None
    return int(power.argmax())


class Converter:
    """A stream in `source` format, given out as mono signed 16 bit little-endian at `target_rate` Hz.

    Channels are averaged, then the rate is changed; the output is aligned in time with the input once `finish` has returned
    the last samples. A stream that already has the target's form passes through without a copy.
    """

    def __init__(self, source: AudioFormat, target_rate: int = 16_000) -> None:
        self._source = source
        self._resampler = Resampler(source.sample_rate, target_rate, channels=1)
        self._unchanged = (
            source.encoding is AudioEncoding.PCM_S16LE and source.channels == 1 and source.sample_rate == target_rate
        )

    def convert(self, data: bytes) -> bytes:
        """Take whole samples; return the converted ones that are ready, which may be none. `ValueError` for half a sample."""
        if self._unchanged and len(data) % 2 == 0:
            return data
        return self._resampler.process(mix_to_mono(to_pcm16(data, self._source))).astype("<i2", copy=False).tobytes()

    def finish(self) -> bytes:
        """End the stream, and return the samples that the filter still held."""
        return self._resampler.finish().astype("<i2", copy=False).tobytes()
