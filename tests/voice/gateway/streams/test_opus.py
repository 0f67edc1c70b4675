"""Opus on a stream: packets that FFmpeg's encoder made, through the real server, into a recording of the session's format."""

from typing import Any

import av
import numpy as np
import pytest

from agentos.core.communication.voice.gateway.streams import opus
from agentos.core.communication.voice.gateway.streams.opus import OpusStream, opus_formats
from machines.audio import AudioEncoding, AudioFormat
from machines.session import VoiceSessionState
from machines.stream.messages import (
    HEADER,
    Bye,
    End,
    Hello,
    StreamCode,
    StreamFormat,
    StreamViolation,
    Welcome,
)
from tests.voice.gateway.streaming import RawSocket, audio, message, recorded, server

OPUS = StreamFormat("opus", 48_000)
WIDEBAND = AudioFormat()


def tone(seconds: float, hertz: float = 440.0, channels: int = 1) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A sine at half of full scale, 48 kHz, of shape (n, channels)."""
    at = np.arange(int(48_000 * seconds)) / 48_000
    return np.repeat((np.sin(2 * np.pi * hertz * at) * 16_384).astype(np.int16)[:, None], channels, axis=1)


def packets(samples: np.ndarray[Any, np.dtype[np.int16]], frame_ms: int = 20) -> list[bytes]:
    """What an encoder of its own makes of samples at 48 kHz."""
    channels = samples.shape[1]
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.format = 48_000, "s16"
    encoder.layout = "stereo" if channels == 2 else "mono"
    encoder.options = {"frame_duration": str(frame_ms), "application": "audio"}
    step, made = 48 * frame_ms, []
    for at in range(0, len(samples) - step + 1, step):
        frame: Any = av.AudioFrame.from_ndarray(samples[at : at + step].reshape(1, -1), "s16", encoder.layout.name)
        frame.sample_rate, frame.pts = 48_000, at
        made += [bytes(packet) for packet in encoder.encode(frame)]
    return made + [bytes(packet) for packet in encoder.encode(None)]


def level(samples: Any, hertz: float, rate: int) -> float:
    """How much of the energy is at this frequency."""
    spectrum = np.abs(np.fft.rfft(samples.astype(float) * np.hanning(len(samples)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(samples), 1 / rate) - hertz) < 20
    return float(spectrum[near].sum() / spectrum.sum())


@pytest.mark.anyio
async def test_a_tone_in_opus_is_a_tone_in_the_recording(anyio_backend: Any) -> None:
    sent = packets(tone(2.0))[:100]
    async with server(anyio_backend) as at:
        session = await at.session()
        socket = await RawSocket.open(at.port)
        own = StreamFormat("pcm_s16le", 16_000)
        await socket.send(Hello((OPUS, own), 1, ticket=at.ticket(session)))
        assert (await socket.until(Welcome)).format == OPUS
        for number, packet in enumerate(sent[:50]):
            await socket.send(HEADER.pack(1, 0, 1, number, number * 20) + packet)
        await socket.abort()  # the decoder goes on where it was
        socket = await RawSocket.open(at.port)
        await socket.send(Hello((OPUS,), 1, ticket=at.ticket(session)))
        begin = (await socket.until(Welcome)).expected
        for number, packet in enumerate(sent[begin:], begin):
            await socket.send(HEADER.pack(1, 0, 1, number, number * 20) + packet)
        await socket.send(End(len(sent)))
        await socket.until(Bye)
        stopped = await at.stopped(session.session_id)
    heard = np.frombuffer(recorded(stopped), "<i2")
    assert len(heard) == len(sent) * 320
    assert level(heard[4_000:-4_000], 440.0, 16_000) > 0.99
    assert 0.8 < np.abs(heard).max() / 16_384 < 1.2


@pytest.mark.anyio
async def test_what_is_no_packet_has_its_code_and_the_session_stays_whole(anyio_backend: Any) -> None:
    good = packets(tone(0.2))
    wrong = {
        "three frames in one packet": (1, packets(tone(0.2), 60)[0]),
        "one frame that says two": (2, good[1]),
        "noise": (1, b"\xff" * 60),
        "PCM": (1, audio(1)),
    }
    async with server(anyio_backend) as at:
        for name, (count, payload) in wrong.items():
            session = await at.session()
            socket = await RawSocket.open(at.port)
            await socket.send(Hello((OPUS,), 1, ticket=at.ticket(session)))
            welcome = await socket.until(Welcome)
            await socket.send(HEADER.pack(1, 0, 1, 0, 0) + good[0])
            await socket.send(HEADER.pack(1, 0, count, 1, 20) + payload)
            assert (await socket.closed()).code == StreamCode.WRONG_SIZE, name
            socket = await RawSocket.open(at.port)
            own = StreamFormat("pcm_s16le", 16_000)
            await socket.send(Hello((own,), 2, resume=welcome.resume, next=10))
            assert (await socket.until(Welcome)).expected == 1
            await socket.send(message(1, audio(9)))
            await socket.send(End(10))
            assert (await socket.until(Bye)).state is VoiceSessionState.STOPPED
            assert recorded(await at.stopped(session.session_id))[640:] == audio(9)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_each_packet_yields_as_many_frames_as_it_says(rate: int, channels: int, frames: int) -> None:
    audio_format = AudioFormat(sample_rate=rate, channels=channels)
    stream = OpusStream(audio_format)
    for packet in packets(tone(0.6, channels=channels), 20 * frames)[: 30 // frames]:
        assert len(stream.decode(packet, frames)) == frames * audio_format.frame_bytes


def test_a_packet_that_is_none_is_a_violation() -> None:
    stream = OpusStream(WIDEBAND)
    with pytest.raises(StreamViolation) as raised:
        stream.decode(b"\xff\xff", 1)
    assert raised.value.code == StreamCode.WRONG_SIZE


def test_it_is_offered_where_it_can_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opus_formats(WIDEBAND) == (OPUS, StreamFormat("opus", 16_000))
    assert opus_formats(AudioFormat(sample_rate=48_000, channels=2)) == (StreamFormat("opus", 48_000, 2),)
    assert opus_formats(AudioFormat(channels=3)) == ()
    assert opus_formats(AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8_000)) == ()
    monkeypatch.setattr(opus.importlib.util, "find_spec", lambda name: None)
    assert opus_formats(WIDEBAND) == ()
