"""Opus packets on a stream, decoded to the session's audio (RFC 6716), if the extra `opus` is installed.

The decoder's samples are at 48 kHz; the resampler needs samples from beyond the end of a packet, which have not come yet. So
the decoded audio is late by a fixed few milliseconds, and each packet yields exactly as many frames as it claims.
"""

import importlib.util
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from agentos.core.communication.voice.audio.resample import Resampler
from machines.audio import FRAMES_PER_SECOND, AudioEncoding, AudioFormat
from machines.stream.messages import StreamCode, StreamFormat, StreamViolation

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

OPUS_RATE: Final = 48_000
LONGEST_FRAMES: Final = 6  # of 20 ms in one packet (RFC 6716, 3.2.1)
LARGEST_CHANNELS: Final = 2  # more channels are several Opus streams, with a mapping that a packet does not have


def opus_formats(audio_format: AudioFormat) -> tuple[StreamFormat, ...]:
    """The Opus formats that a session in this format takes; none without the extra. The rates are those that a client may give
    its encoder."""
    if (
        importlib.util.find_spec("av") is None
        or audio_format.encoding is not AudioEncoding.PCM_S16LE
        or audio_format.channels > LARGEST_CHANNELS
    ):
        return ()
    rates = dict.fromkeys((OPUS_RATE, audio_format.sample_rate))
    return tuple(StreamFormat("opus", rate, audio_format.channels) for rate in rates)


class OpusStream:
    """Decodes the packets of one stream, in order, into the session's audio."""

    def __init__(self, audio_format: AudioFormat) -> None:
        import av  # noqa: PLC0415 - only where a client speaks Opus

        self._channels = audio_format.channels
        self._frame_samples = audio_format.frame_samples
        decoder: Any = av.CodecContext.create("libopus", "r")
        decoder.sample_rate = OPUS_RATE
        decoder.layout = "stereo" if self._channels == LARGEST_CHANNELS else "mono"
        self._decoder: AudioCodecContext = decoder
        self._errors: type[Exception] = av.FFmpegError
        self._packet = av.Packet
        self._resampler = Resampler(OPUS_RATE, audio_format.sample_rate, self._channels)
        self._ready: NDArray[np.int16] = np.zeros((self._resampler.lag, self._channels), np.int16)

    def decode(self, packet: bytes, count: int) -> bytes:
        """The samples of `count` frames. Raises `StreamViolation` if `packet` is no Opus packet, or has another length."""
        try:
            decoded = [
                _samples(frame.to_ndarray(), self._channels) for frame in self._decoder.decode(self._packet(packet))
            ]
        except (self._errors, ValueError):
            raise StreamViolation(StreamCode.WRONG_SIZE, "not a packet of Opus") from None
        samples = np.concatenate(decoded) if decoded else self._ready[:0]
        if len(samples) != count * OPUS_RATE // FRAMES_PER_SECOND:
            milliseconds = len(samples) * 1000 / OPUS_RATE
            raise StreamViolation(StreamCode.WRONG_SIZE, f"a packet of {milliseconds:g} ms came as {count} frames")
        wanted = count * self._frame_samples
        self._ready = np.concatenate((self._ready, self._resampler.process(samples)))
        given, self._ready = self._ready[:wanted], self._ready[wanted:]
        return given.astype("<i2", copy=False).tobytes()


def _samples(decoded: NDArray[Any], channels: int) -> NDArray[np.int16]:
    """The decoder's samples, planar or packed, as int16 of shape (n, channels)."""
    if decoded.dtype != np.int16:
        decoded = np.clip(np.rint(decoded * 32_768.0), -32_768, 32_767).astype(np.int16)
    return decoded.reshape(-1, channels) if len(decoded) == 1 else np.ascontiguousarray(decoded.T)
