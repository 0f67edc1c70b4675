"""A session says how its audio is written; the recording has the same samples, whatever the format."""

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from pydantic import ValidationError

from agentos.core.communication.voice import (
    AsyncVoiceService,
    AudioEncoding,
    AudioFormat,
    STTProvider,
    VoiceProvider,
)
from agentos.core.communication.voice.audio.mulaw import decode
from agentos.core.communication.voice.settings import VoiceSettings
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

pytestmark = pytest.mark.anyio
MULAW = AudioEncoding.MULAW

MakeSettings = Callable[..., VoiceSettings]


@pytest.mark.parametrize("kind", ["flac", "wav"])
@pytest.mark.parametrize(
    "audio_format",
    [
        AudioFormat(),
        AudioFormat(sample_rate=8_000),
        AudioFormat(sample_rate=44_100, channels=2),
        AudioFormat(sample_rate=48_000, channels=8),
        AudioFormat(encoding=MULAW, sample_rate=8_000),
        AudioFormat(encoding=MULAW, sample_rate=16_000, channels=2),
    ],
    ids=str,
)
async def test_the_recording_has_the_samples_that_went_in(
    make_settings: MakeSettings, audio: Callable[..., bytes], audio_format: AudioFormat, kind: str
) -> None:
    instants = audio_format.sample_rate + 7  # a second, and a bit that is no whole frame
    if audio_format.encoding is MULAW:
        whole = bytes((at * 31) % 256 for at in range(instants * audio_format.channels))
        expected = np.frombuffer(decode(whole), dtype="<i2")
    else:
        whole = audio(instants * audio_format.channels)
        expected = np.frombuffer(whole, dtype="<i2")
    async with AsyncVoiceService(make_settings(recording_format=kind)) as service:
        session = await service.create_session(
            "p", VoiceProvider.LOCAL, STTProvider.WHISPER, {"recording_enabled": True}, audio_format=audio_format
        )
        assert session.audio_format == audio_format
        for at in range(0, len(whole), 9_999):
            await service.dispatch_audio_chunk(session.session_id, whole[at : at + 9_999])
        assert await service.stop_session(session.session_id)
        await service.recording(session.session_id)
        ended = await service.get_session(session.session_id)
    assert ended is not None
    assert ended.result is not None
    assert ended.result.frames.accepted == 51
    assert ended.result.frames.bytes == len(whole)
    assert ended.result.frames.leftover_bytes == 0
    recording = ended.result.recording
    assert recording is not None
    assert recording.path.endswith(f".{kind}")
    assert (recording.sample_rate, recording.channels) == (audio_format.sample_rate, audio_format.channels)
    assert recording.samples == instants
    assert recording.seconds == instants / audio_format.sample_rate
    samples, rate = soundfile.read(recording.path, dtype="int16", always_2d=True)
    assert rate == audio_format.sample_rate
    assert np.array_equal(samples, expected.reshape(-1, audio_format.channels))


async def test_the_format_is_in_the_evidence(
    make_settings: MakeSettings, records: Callable[..., list[dict[str, Any]]]
) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        telephone = AudioFormat(encoding=MULAW, sample_rate=8_000)
        session = await service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER, audio_format=telephone)
    assert {record["request_summary"]["audio_format"] for record in records(session.session_id)} == {
        "mulaw 8000 Hz, 1 channel"
    }


async def test_levels_are_those_of_the_samples(make_settings: MakeSettings) -> None:
    loud = array("h", [32767, -32768] * 8_000).tobytes()
    async with AsyncVoiceService(make_settings()) as service:
        found = []
        for whole in (loud, bytes(len(loud))):
            session = await service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER)
            await service.dispatch_audio_chunk(session.session_id, whole)
            await service.stop_session(session.session_id)
            ended = await service.get_session(session.session_id)
            assert ended is not None
            assert ended.result is not None
            found.append(ended.result.quality)
    assert found[0].level_dbfs == pytest.approx(0, abs=0.1)
    assert found[0].clipped_share == 1
    assert found[0].silent_share == 0
    assert found[1].silent_share == 1
    assert found[1].clipped_share == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_rate": 7_999},
        {"sample_rate": 96_000},
        {"sample_rate": 11_025},
        {"sample_rate": "8000"},
        {"channels": 0},
        {"channels": 9},
        {"encoding": "opus"},
        {"bits": 24},
    ],
)
async def test_an_unknown_format_is_refused_clearly(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AudioFormat(**wrong)
